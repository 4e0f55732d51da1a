"""What every command promises: help with an example, and exit status 2 with a sentence for wrong use."""

from __future__ import annotations

import pytest

from pagoda.cli.main import main
from tests.architecture.commands import Words, groups, leaves, parsers

WRONG_USE = [
    (["frobnicate"], "frobnicate"),
    (["serve", "--prot", "9000"], "--prot"),
    (["serve", "--port", "99999"], "server.port = '99999' (from command line): must be at most 65535"),
    (["keys", "create", "--name", "a", "--expires", "soon"], "Write the expiry as 30d"),
    (["keys", "create", "--name", "a", "--scopes", "everything"], "There is no scope 'everything'"),
    (["keys", "create", "--name", "a", "--budget", "much"], "A budget is an amount of money"),
    (["chat", "--temperature", "hot"], "--temperature"),
    (["config", "show", "--set", "server.port"], "write it as key=value"),
    (["config", "show", "--set", "server.prot=1"], "there is no setting server.prot"),
    (["models", "pull"], "Name a model to pull"),
    (["models", "list", "--memory", "-1"], "--memory"),
    (["runs", "list", "--limit", "0"], "--limit"),
]


@pytest.fixture(autouse=True)
def _fresh_home(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path))
    monkeypatch.chdir(str(tmp_path))


@pytest.mark.parametrize("words", parsers(), ids=" ".join)
def test_help_exits_0_and_a_command_shows_an_example(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main([*words, "--help"])
    assert leaving.value.code == 0
    shown = capsys.readouterr().out
    if words in leaves():
        _, _, example = shown.partition("\nexample:")
        assert " ".join(("pagoda", *words)) in " ".join(example.split()), "an example that uses the command"


@pytest.mark.parametrize("words", groups(), ids=" ".join)
def test_a_group_without_its_command_is_wrong_use(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leaving:
        main(list(words))
    assert leaving.value.code == 2
    assert "required" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "said"), WRONG_USE, ids=lambda value: " ".join(value)[:40])
def test_wrong_use_exits_2_with_a_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(arguments)
    except SystemExit as leaving:  # argparse's own way
        status = leaving.code
    shown = capsys.readouterr()
    assert status == 2
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err
    sentence = shown.err[shown.err.rindex("pagoda") :].strip()
    assert len(sentence.splitlines()) <= 2, "one sentence, or a headline and the one mistake"
