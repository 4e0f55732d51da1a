"""Prompts on a real PostgreSQL: several hosts that change one prompt at once, and the index of each that follows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pagoda.application.prompting import PromptRoom
from pagoda.application.records import Records
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Storage
from pagoda.core.types import Call
from pagoda.logic.prompts.book import Author
from pagoda.logic.prompts.file import read_prompt
from pagoda.logic.prompts.prompt import PromptReference
from tests.conftest import settings_in
from tests.unit.logic.prompts.sheets import SENTIMENT

if TYPE_CHECKING:
    from tests.integration.conftest import Cluster

HOSTS, EACH = 3, 4


async def test_hosts_that_change_a_prompt_at_once_agree_on_it(own_postgresql: Cluster, tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path), storage=Storage(url=Secret(own_postgresql.new_database())))
    records = [Records(settings) for _ in range(HOSTS)]
    rooms = [PromptRoom(each, settings) for each in records]
    try:
        for room in rooms:
            await room.index.refresh()

        async def save(host: int, number: int) -> int:
            said = read_prompt(SENTIMENT.replace("A joy", f"Joke {host} {number}"))
            version, saved = await rooms[host].book.save(said, Author(note="nul \0 gone"))
            assert saved
            await rooms[host].book.move("sentiment", "production", version.version, Author())
            await rooms[(host + 1) % HOSTS].index.refresh()
            return version.version

        wanted = [save(host, number) for host in range(HOSTS) for number in range(EACH)]
        versions = await asyncio.gather(*wanted)
        assert sorted(versions) == list(range(1, HOSTS * EACH + 1)), "no number twice, none left out"
        meant = (await rooms[0].book.history("local", "sentiment", "production"))[0].version
        for room in rooms:
            await room.index.refresh()
            live = await room.index.resolve(PromptReference(name="sentiment"), Call())
            assert live.version == meant, "no change was overlooked"
            assert room.index.names("local")["sentiment"].newest == HOSTS * EACH
    finally:
        for each in records:
            await each.close()
