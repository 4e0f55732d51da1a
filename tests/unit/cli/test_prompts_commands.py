"""``pagoda prompts`` as a user types it; no model is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pagoda.cli.main import main
from tests.unit.logic.prompts.sheets import SENTIMENT


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(SENTIMENT, encoding="utf-8")
    (tmp_path / "s2.yaml").write_text(SENTIMENT.replace("A joy", "A delight"), encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    found = main(["prompts", *words])
    shown = capsys.readouterr()
    assert found == status, shown.err
    return shown.out if status == 0 else shown.err


def test_from_import_to_rollback(capsys: pytest.CaptureFixture[str]) -> None:
    assert "comes with Pagoda" in run(capsys, "list")
    assert run(capsys, "import", "s.yaml", "--label", "production") == ("sentiment@1 is kept; production means it.\n")
    assert run(capsys, "import", "s.yaml") == "sentiment@1 says the same already.\n"
    assert run(capsys, "import", "s2.yaml") == "sentiment@2 is kept.\n"
    assert "means version 2 now (before: 1)" in run(capsys, "label", "sentiment", "production", "2", "--note", "better")
    assert "+      - {text: A delight." in run(capsys, "diff", "sentiment@1", "sentiment@production")
    assert "say the same" in run(capsys, "diff", "sentiment@2", "s2.yaml")
    assert "means version 1 now" in run(capsys, "rollback", "sentiment", "production")
    assert [row["action"] for row in json.loads(run(capsys, "history", "sentiment", "--json"))] == [
        "rolled-back",
        "moved",
        "saved",
        "moved",
        "saved",
    ]
    assert run(capsys, "show", "sentiment@2") == SENTIMENT.replace("A joy", "A delight")
    run(capsys, "export", "sentiment@1", "--out", "out.yaml")
    assert Path("out.yaml").read_text(encoding="utf-8") == SENTIMENT
    assert "no label production any more" in run(capsys, "label", "sentiment", "production", "--remove")
    assert "sentiment" not in run(capsys, "list", "--team", "blue")


def test_render_from_file_from_library_and_in_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Review: {{labels}}" in run(capsys, "render", "s.yaml", "--var", "text={{labels}}")
    Path("text.txt").write_text("还行。", encoding="utf-8")
    Path("vars.json").write_text('{"labels": ["褒", "贬"]}', encoding="utf-8")
    shown = json.loads(
        run(capsys, "render", "s.yaml", "--var", "text=@text.txt", "--vars", "vars.json", "--language", "zh", "--json")
    )
    assert "褒、贬" in shown["messages"][0]["content"]
    assert "影评：还行。" in shown["messages"][0]["content"]
    assert "Write 2 sentences" in run(capsys, "render", "summarise", "--var", "text=x", "--var", "sentences=2")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("render", "s.yaml"), 2, "needs the variable 'text'"),
        (("render", "s.yaml", "--var", "text"), 2, "write it as name=value"),
        (("render", "s.yaml", "--var", "text=@nothing"), 2, "nothing cannot be read"),
        (("render", "s.yaml", "--var", "text=x", "--var", "strict=maybe"), 2, "must be true or false"),
        (("render", "s.yaml", "--vars", "s.yaml"), 2, "is not JSON"),
        (("show", "nothing"), 1, "There is no prompt 'nothing'"),
        (("history", "nothing"), 1, "There is no prompt 'nothing'"),
        (("label", "sentiment", "production"), 2, "or --remove"),
        (("label", "sentiment", "production", "1"), 1, "no version 1 of the prompt sentiment"),
        (("import", "nothing.yaml"), 2, "cannot be read"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    assert said in run(capsys, *words, status=status)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("s.yaml", "--data", "data.jsonl"), "has no column 'text', which s needs; it has: sentence"),
        (("s.yaml", "s.yaml", "--data", "data.jsonl"), "Two prompts have the same name"),
        (("s.yaml", "--data", "data.jsonl", "--map", "text=words"), "line 1: there is no column 'words'"),
        (("s.yaml", "--data", "data.jsonl", "--map", "words=sentence"), "has no variable 'words'"),
        (("s.yaml", "--data", "data.jsonl", "--map", "text"), "write it as name=value"),
        (("s.yaml", "--data", "data.jsonl", "--map", "text=sentence", "--scorer", "magic"), "no scorer 'magic'"),
        (("s.yaml", "--data", "data.jsonl", "--repeats", "0"), "--repeats"),
        (("s.yaml", "--data", "nothing.csv"), "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_asked(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    Path("data.jsonl").write_text('{"sentence": "x"}\n', encoding="utf-8")
    assert said in run(capsys, "compare", *words, status=2)


def test_nothing_is_kept_when_one_file_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("name: x\n", encoding="utf-8")
    assert "languages is missing" in run(capsys, "import", "s.yaml", "bad.yaml", status=2)
    run(capsys, "show", "sentiment", status=1)
