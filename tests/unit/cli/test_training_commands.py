"""``pagoda data`` and ``pagoda train`` as a shell sees them: output, exit status, one sentence where it is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pagoda.cli.main import main
from tests.rows import write_jsonl
from tests.tiny_models import CHATML, save_trainable


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    good = [{"prompt": f"Number {n * 7919} is?", "completion": "abc"[n % 3] * 2} for n in range(12)]
    return write_jsonl(tmp_path / "rows.jsonl", [*good, good[0], {"prompt": "a", "completion": ""}, {"text": "other"}])


@pytest.fixture
def recipe(tmp_path: Path, rows: Path) -> Path:
    model = save_trainable(tmp_path / "model")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"model: {model}\ndata: {{train: {rows}, validation_share: 0.25}}\n"
        "max_length: 64\nsteps: 3\nthreads: 1\nseed: 4\n"
    )
    return path


def test_check_reports_and_exits_with_1_where_rows_are_wrong(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(rows)]) == 1
    said = capsys.readouterr().out
    assert "row 13  duplicate: it is the same as row 1" in said
    assert "row 15  form: it has no prompt" in said
    assert main(["data", "check", str(rows), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == {"duplicate": 1, "empty": 1, "form": 1}
    assert main(["data", "check", str(rows), "--form", "text"]) == 1


def test_a_models_template_says_which_conversations_break_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML
    talk = [{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Fine."}]
    briefed = [{"role": "system", "content": "Be short."}, *talk]
    path = write_jsonl(tmp_path / "talks.jsonl", [{"messages": talk}, {"messages": briefed}])
    assert main(["data", "check", str(path)]) == 0
    for template, removed in ((refuses, [2]), (None, [1, 2])):
        model = save_trainable(tmp_path / f"model{len(removed)}", template=template)
        capsys.readouterr()
        assert main(["data", "check", str(path), "--model", str(model), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert [(each["row"], each["reason"]) for each in report["findings"]] == [(n, "template") for n in removed]
        assert report["tokens"]["least"] > 10
        why = "the chat template refuses it (no system here)" if template else "the model has no chat template"
        assert report["findings"][0]["why"].startswith(why)
        assert main(["data", "filter", str(path), "--model", str(model), "--out", str(tmp_path / "good.jsonl")]) == 0
        assert len((tmp_path / "good.jsonl").read_text().splitlines()) == 2 - len(removed)


def test_what_an_install_lacks_is_said(
    recipe: Path, rows: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pagoda.model.training.inspecting", raising=False)
    monkeypatch.setitem(sys.modules, "transformers", None)
    for command in (["train", "inspect", "--config", str(recipe)], ["data", "check", str(rows), "--model", "any"]):
        assert main(command) == 1
        said = "Training needs transformers, which this install lacks: python -m pip install 'pagoda-llm[train]'."
        assert capsys.readouterr().err == f"pagoda: {said}\n"


def test_leaks_are_looked_for_in_the_columns_of_the_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"Where is parcel {n * 7919}?", "answer": "Here."} for n in range(4)]
    for name, part in (("train", rows[:3]), ("test", rows[2:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in part), encoding="utf-8")
    asked = ["data", "check", "train.jsonl", "--columns", "prompt=question,completion=answer", "--json"]
    assert main([*asked, "--against", "test.jsonl"]) == 1
    assert json.loads(capsys.readouterr().out)["reasons"] == {"leak": 1}
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write("no json\n")
    assert main([*asked, "--against", "test.jsonl"]) == 1
    assert "1 of 3 rows of test.jsonl cannot be read" in capsys.readouterr().err
    (tmp_path / "test.jsonl").write_text("no json\n")
    assert main([*asked, "--against", "test.jsonl"]) == 2
    assert "test.jsonl has no rows that can be used" in capsys.readouterr().err


def test_filter_and_dedup_write_both_parts(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "filter", str(rows), "--out", "good.jsonl", "--removed", "bad.jsonl"]) == 0
    assert "12 rows stay, in good.jsonl; 3 removed" in capsys.readouterr().out
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3
    assert main(["data", "check", "good.jsonl"]) == 0
    capsys.readouterr()
    assert main(["data", "dedup", str(rows), "--out", "unique.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["removed"], told["reasons"]["duplicate"]) == (13, 2, 1)


def test_augment_adds_rows_with_their_origin(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["data", "augment", str(rows), "--out", "more.jsonl", "--methods", "noise", "--share", "0.5", "--unchecked"]
    assert main(asked) == 0
    assert "6 rows added to 14, 1 dropped" in capsys.readouterr().out, "one has no letters to change"
    last = json.loads((tmp_path / "more.jsonl").read_text().splitlines()[-1])
    assert last["augmented"]["method"] == "noise"
    assert main([*asked[:-1], "--methods", "magic"]) == 2
    assert "no augmentation 'magic'" in capsys.readouterr().err


def test_inspect_shows_what_is_learnt_without_training(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "inspect", "--config", str(recipe)]) == 0
    said = capsys.readouterr().out
    assert "row 14 is refused (no_label): its completion is empty" in said
    assert "<|im_end|>" in said
    assert "4 rows; trained on too: 1" in said
    assert main(["train", "inspect", "--config", str(recipe), "--set", "template=chat", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unended"] == 0


def test_sft_trains_and_tells_where_the_result_is(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "sft", "--config", str(recipe), "--set", "lora.rank=2"]) == 0
    said = capfd.readouterr().out
    assert "3 steps; saved in" in said
    assert "1 of 4 validation rows are trained on too, so that these figures say too much" in said
    run = next((tmp_path / "home" / "runs").iterdir())
    assert (run / "artifacts" / "adapter" / "adapter_model.safetensors").is_file()
    kept = json.loads((run / "run.json").read_text())
    assert (kept["seed"], kept["config"]["lora"]["rank"]) == (4, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sft", "--config", "none.yaml"], "There is no recipe none.yaml"),
        (["sft", "--config", "recipe.yaml", "--set", "learnig_rate=1"], "did you mean learning_rate?"),
        (["tune", "--config", "recipe.yaml"], "has no search.space"),
        (["inspect", "--config", "recipe.yaml", "--set", "model=nobody"], "nobody"),
    ],
)
def test_wrong_use_is_one_sentence(
    recipe: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
