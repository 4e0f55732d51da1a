"""Prompts named in the lines of a batch; its run is a process of its own."""

from __future__ import annotations

from pagoda.core.settings import Settings
from tests.integration.test_batch_client import begun, opened, rows, until
from tests.unit.logic.prompts.sheets import SENTIMENT


async def test_a_line_of_a_batch_may_name_a_prompt(settings: Settings) -> None:
    async with opened(settings) as (service, client):
        await service.post("/api/v1/prompts", {"source": SENTIMENT})
        prompts = {"good": {"text": "slow but fine"}, "bad": {"txt": "x"}}
        lines = [
            {
                "custom_id": custom_id,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "fake-chat", "prompt": {"name": "sentiment", "variables": variables}},
            }
            for custom_id, variables in prompts.items()
        ]
        batch = await until(client, await begun(client, *lines), "completed")
        (answered,) = await rows(client, batch.output_file_id)
        (failed,) = await rows(client, batch.error_file_id)
        assert answered["response"]["body"]["choices"][0]["message"]["content"] == "at last"
        assert "no variable 'txt'" in failed["response"]["body"]["error"]["message"]
