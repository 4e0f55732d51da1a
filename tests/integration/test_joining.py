"""One service process a home: commands and programs join it, or start it for as long as they need it."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

import pagoda
from pagoda.core.errors import BadOutput, NotFound, PagodaError
from pagoda.core.settings import Settings
from pagoda.core.types import Call, Detokenize, Tokenize
from pagoda.model.catalog.entry_file import write_entry
from pagoda.service.presence import Presence
from tests.services import WAIT_SECONDS, fake_model, process, running

SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
MODELS = (
    fake_model(
        "chatty",
        rules=[
            {"contains": "good json", "text": '{"age": 7}'},
            {"contains": "bad json", "text": "{}"},
            {"contains": "late", "first_seconds": 0.5, "text": "at last"},
            {"contains": "slow", "token_seconds": 0.05, "text": "word " * 200},
        ],
        context=64,
    ),
    fake_model("vectors", task="embedding"),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home that knows two scripted models."""
    entries = tmp_path / "models" / "entries"
    entries.mkdir(parents=True)
    for model in MODELS:
        (entries / f"{model.id}.yaml").write_text(write_entry(model), encoding="utf-8")
    return tmp_path


@pytest.fixture
def environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, str]]:
    """An environment for that home; its service process is gone at the end."""
    values = {"PAGODA_HOME": str(home), "PAGODA_DEFAULTS_CHAT": "chatty", "PAGODA_DEFAULTS_EMBEDDING": "vectors"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield values
    notice = Presence(home).find()
    if notice is not None:
        psutil.Process(notice.pid).wait(WAIT_SECONDS)


def chat(home: Path, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pagoda", "chat", *arguments],
        input=text,
        capture_output=True,
        text=True,
        cwd=home,
        timeout=60,
        check=False,
    )


def engines(of: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(of).children(recursive=True) if "_child" in " ".join(child.cmdline())]


def test_two_chats_beside_a_service_share_its_engine(home: Path, environment: Mapping[str, str]) -> None:
    with process(home, environment=environment) as (_, service):
        first = chat(home, "chatty", "-m", "hello there", "--temperature", "0")
        assert (first.returncode, first.stdout.strip()) == (0, "fake hello there"), first.stderr
        one = [engine.pid for engine in engines(service.pid)]
        second = chat(home, text="one\n/new\ntwo\n/exit\n")
        assert second.returncode == 0, second.stderr
        assert [engine.pid for engine in engines(service.pid)] == one
        assert len(one) == 1


def test_a_silent_engine_is_waited_for(home: Path, environment: Mapping[str, str]) -> None:
    """Comments keep the stream between two processes alive; they are no part of the answer."""
    chatty = {**environment, "PAGODA_SERVER_KEEPALIVE_SECONDS": "0.05"}
    with process(home, environment=chatty), pagoda.connect() as client:
        assert client.chat("late").text == "at last"


def test_a_chat_keeps_its_history(home: Path, environment: Mapping[str, str]) -> None:
    said = chat(home, "chatty", "--temperature", "0", text="one\ntwo\n")
    assert said.stdout.splitlines() == ["fake one", "fake one fake one two"]


def test_chat_without_a_service_starts_one_that_ends_after_it(home: Path, environment: Mapping[str, str]) -> None:
    assert Presence(home).find() is None
    assert chat(home, "-m", "hi").returncode == 0
    notice = Presence(home).find()
    assert notice is not None
    assert notice.embedded
    children = engines(notice.pid)
    psutil.Process(notice.pid).wait(WAIT_SECONDS)
    psutil.wait_procs(children, timeout=5)
    assert not any(child.is_running() for child in children)
    assert Presence(home).find() is None


def test_a_service_that_is_about_to_end_is_not_joined(home: Path, environment: Mapping[str, str]) -> None:
    """Its claim outlives its notice by the time that its end takes; a service started meanwhile finds no place."""
    leaving = Presence(home)
    assert leaving.claim()
    command = [sys.executable, "-m", "pagoda", "chat", "-m", "hi", "--temperature", "0"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, text=True) as chatting:
        psutil.Process(_child_of(chatting.pid)).wait(WAIT_SECONDS)
        leaving.release()
        said, _ = chatting.communicate(timeout=WAIT_SECONDS)
    assert (chatting.returncode, said.strip()) == (0, "fake hi")


def _child_of(pid: int) -> int:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if children := psutil.Process(pid).children():
            return children[0].pid
        time.sleep(0.02)
    raise AssertionError("it started no service")


def test_a_second_service_of_the_same_home_joins_the_first(home: Path, environment: Mapping[str, str]) -> None:
    import json
    import urllib.request

    def ask(url: str) -> str:
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "temperature": 0}).encode()
        request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as response:
            answer: str = json.load(response)["choices"][0]["message"]["content"]
            return answer

    other = home / "second"
    with (
        process(home, environment=environment) as (first_url, first),
        process(other, environment=environment) as (second_url, second),
    ):
        assert ask(first_url) == ask(second_url) == "fake hi"
        assert len(engines(first.pid)) == 1
        assert engines(second.pid) == []
        first.terminate()
        assert first.wait(WAIT_SECONDS) == 0
        assert ask(second_url) == "fake hi", "it finds or starts another service process"


def test_the_lock_is_free_again_when_its_holder_was_killed(home: Path, environment: Mapping[str, str]) -> None:
    with process(home, environment=environment) as (_, service):
        assert Presence(home).find() is not None
        service.kill()
        service.wait()
        assert Presence(home).find() is None
    assert chat(home, "-m", "hi").returncode == 0


def test_a_program_connects_and_uses_every_verb(home: Path, environment: Mapping[str, str]) -> None:
    with pagoda.connect() as client:
        assert client.chat("hello", temperature=0).text == "fake hello"
        assert list(client.stream("a b", temperature=0)) == ["fake", " a", " b"]
        assert len(client.embed(["a", "b"])) == 2
        assert client.score("a", " b c").total == pytest.approx(-0.3)
        assert client.classify("good or bad?", [" good", " bad"]) == {" good": 0.5, " bad": 0.5}
        scores = client.rerank("a", ["a", "b"])
        assert scores[0] == pytest.approx(1)
        assert scores[1] < 1
        assert client.count_tokens("one two three") == 3
        assert client.chat("good json", schema=SCHEMA).text == '{"age": 7}'
        with pytest.raises(BadOutput) as broken:
            client.chat("bad json", schema=SCHEMA)
        assert broken.value.code == "schema_violation"
        with pytest.raises(NotFound) as missing:
            client.chat("x", model="gpt-9")
        assert missing.value.param == "model"
        with pytest.raises(PagodaError) as long:
            client.chat("word " * 99)
        assert (long.value.code, vars(long.value)["limit"]) == ("context_length_exceeded", 64)
        for piece in client.stream("slow"):
            assert piece
            break


async def test_the_same_words_work_with_asyncio_and_together(home: Path, environment: Mapping[str, str]) -> None:
    async with pagoda.connect() as client:
        answers = await asyncio.gather(*(client.chat(f"say {number}", temperature=0) for number in range(8)))
        assert [answer.text for answer in answers] == [f"fake say {number}" for number in range(8)]
        assert [piece async for piece in client.stream("a", temperature=0)] == ["fake", " a"]


@pytest.mark.parametrize("far", [False, True])
async def test_tokens_come_back_as_text_through_every_door(
    home: Path, environment: Mapping[str, str], far: bool
) -> None:
    with process(home, environment=environment) as (url, _):
        async with pagoda.connect(url if far else None) as client:
            asked = Tokenize(model="chatty", text="one 二 three", pieces=True)
            tokens = await client.inference.tokenize(asked, Call())
            assert tokens.pieces == ("one", " 二", " three")
            text = await client.inference.detokenize(Detokenize(model="chatty", ids=tokens.ids), Call())
            assert text.text == "one 二 three"


def test_a_program_connects_to_another_services_public_api(home: Path, environment: Mapping[str, str]) -> None:
    with process(home, environment=environment) as (url, _), pagoda.connect(url) as client:
        assert client.chat("hello", temperature=0).text == "fake hello"
        assert client.chat("hello", temperature=0, model="chatty").model == "chatty"
        assert len(client.embed("a", kind="query")[0]) == 8
        scores = client.rerank("a", ["b", "a"])
        assert scores[1] == pytest.approx(1)
        assert scores[0] < 1
        assert client.count_tokens("one two three") == 3
        with pytest.raises(PagodaError) as missing:
            client.chat("x", model="gpt-9")
        assert "chatty" in missing.value.message
        with pytest.raises(PagodaError):
            client.score("a", "b")


def test_ctrl_c_stops_a_reply_and_a_second_one_leaves(home: Path, environment: Mapping[str, str]) -> None:
    import pty
    import signal

    leader, follower = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "pagoda", "chat", "chatty"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=home,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(follower)
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + WAIT_SECONDS
        while text not in seen:
            ready, _, _ = select.select([leader], [], [], max(0.0, end - time.monotonic()))
            assert ready, seen
            seen += os.read(leader, 4096).decode("utf-8", "replace")

    try:
        until("> ")
        os.write(leader, b"slow please\n")
        until("word word")
        child.send_signal(signal.SIGINT)
        until("(stopped)")
        seen = seen.partition("(stopped)")[2]  # the next prompt may have come with it
        until("> ")
        for _ in range(10):  # one that comes between prompt and reading is lost in readline; a person presses again
            child.send_signal(signal.SIGINT)
            if select.select([leader], [], [], 2.0)[0]:  # the new line by which it leaves the prompt
                break
        assert child.wait(WAIT_SECONDS) == 0
    finally:
        child.kill()
        child.wait()
        os.close(leader)


async def test_a_home_is_free_again_when_its_service_has_stopped(settings: Settings) -> None:
    for _ in range(2):
        async with running(settings, [fake_model()]) as service:
            assert service.platform.owns_engines
            assert (await service.chat("hi"))[0] == 200
        assert not (settings.home / "service.json").exists()
