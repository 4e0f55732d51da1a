"""``pagoda rag`` as a user types it, with scripted models behind it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pagoda.application import retrieving
from pagoda.cli.main import main
from pagoda.core.types import (
    Call,
    Delta,
    Embed,
    Embeddings,
    Event,
    Finish,
    Generation,
    Started,
    Tokenize,
    Tokens,
    Usage,
)


class Scripted:
    """A door that knows one vector and one answer."""

    async def embed(self, request: Embed, call: Call) -> Embeddings:
        vector = b"\0\0\x80\x3f" + b"\0" * 4
        return Embeddings(model=request.model, vectors=(vector,) * len(request.inputs), dimensions=2, prompt_tokens=1)

    async def complete(self, request: Generation, call: Call) -> AsyncIterator[Event]:
        for event in (Started("m", "fake"), Delta(0, "It opens [1], surely [8]."), Finish(0, "stop"), Usage(1, 1)):
            yield event

    async def tokenize(self, request: Tokenize, call: Call) -> Tokens:
        return Tokens(model=request.model, ids=(1,), context=100_000)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nA key opens a door.\n", encoding="utf-8")
    (tmp_path / "docs" / "empty.txt").write_text("", encoding="utf-8")

    @contextlib.asynccontextmanager
    async def door(settings: Any, environment: Any) -> AsyncIterator[Any]:
        yield Scripted()

    monkeypatch.setattr(retrieving, "home_door", door)


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> SimpleNamespace:
    found = main(["rag", *words])
    shown = capsys.readouterr()
    assert found == status, shown.err
    return SimpleNamespace(out=shown.out, err=shown.err)


def test_from_documents_to_an_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = run(capsys, "ingest", "docs", status=1)
    assert (
        told.out
        == "documents: 1 added, 0 changed, 0 renamed, 0 removed, 0 unchanged, 1 failed; 1 chunks were embedded.\n"
    )
    assert told.err == f"pagoda: {tmp_path / 'docs' / 'empty.txt'} is empty.\n"
    Path("docs/empty.txt").unlink()
    again = json.loads(run(capsys, "ingest", "docs", "--json").out)
    assert (again["unchanged"], again["added"], again["failed"]) == (1, [], [])
    assert run(capsys, "list").out == "documents  1 documents  1 chunks  multilingual-e5-small\n"
    assert "keys.md  markdown  utf-8  1 chunks  Keys" in run(capsys, "list", "--collection", "documents").out
    assert "keys.md:0-28  Keys  cosine 1.000\n# Keys" in run(capsys, "search", "which door").out
    [hit] = json.loads(run(capsys, "search", "which door", "--mode", "lexical", "--json").out)
    assert (hit["start"], hit["end"], hit["similarity"]) == (0, 28, None)
    answer = run(capsys, "ask", "What does it open?")
    assert answer.out == f"It opens [1], surely.\n\n[1] {tmp_path / 'docs' / 'keys.md'}:0-28  Keys\n"
    assert answer.err == "1 citations of passages that do not exist were removed.\n"
    assert json.loads(run(capsys, "ask", "What?", "--json").out)["citations"][0]["text"].startswith("# Keys")
    assert run(capsys, "ask", "What?", "--floor", "1.1", status=1).out == "The documents do not say.\n"
    assert run(capsys, "delete", "docs/keys.md", "--collection", "documents").out.startswith("1 documents")
    assert "nothing like this" in run(capsys, "search", "door", status=1).err
    assert run(capsys, "delete", "--collection", "documents").out.startswith("0 documents")
    assert run(capsys, "list").out == ""


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("ingest", "nowhere"), 2, "There is no file or folder"),
        (("ingest", "docs", "--collection", "A B"), 2, "no name of a collection"),
        (("ingest", "docs", "--chunk", "10", "--overlap", "9"), 2, "is not possible"),
        (("list", "--collection", "nothing"), 1, "There is no collection 'nothing'"),
        (("search", "x"), 1, "There is no collection 'documents'"),
        (("ask", "x"), 1, "There is no collection 'documents'"),
        (("delete", "--collection", "nothing"), 1, "There is no collection 'nothing'"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert said in run(capsys, *words, status=status).err


def test_a_document_that_is_not_there_cannot_be_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("docs/empty.txt").unlink()
    run(capsys, "ingest", "docs")
    assert "has no document" in run(capsys, "delete", "other.md", "--collection", "documents", status=1).err
