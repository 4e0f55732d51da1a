"""The search for the best recipe: each trial a process, resumable, pruned, with the best recipe written out."""

from __future__ import annotations

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from pagoda.application import searching
from pagoda.core.errors import InvalidRequest
from pagoda.core.runs import RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from pagoda.model.training.recipe import Recipe, read_recipe, recipe_from
from pagoda.model.training.search import check_space, open_study, recipe_with, suggest

CHILD = Path(__file__).parent / "tune_child.py"
SPACE = {"learning_rate": {"low": 1e-5, "high": 1e-1, "log": True}, "lora.rank": {"choices": [4, 8]}}


def recipe(**search: Any) -> Recipe:
    known = {"model": "m", "data": {"train": "rows.jsonl", "validation_share": 0.2}}
    return recipe_from({**known, "search": {"trials": 8, "space": SPACE, **search}})


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root / "src"), str(root)]))
    own = functools.partial(Runs, command=(sys.executable, str(CHILD)))
    monkeypatch.setattr(searching, "Runs", own)
    return own(Settings(home=tmp_path), RunRegistry({"tune": searching.run_tune, "sft": "never:here"}))


def searched(runs: Runs, wanted: Recipe, tmp_path: Path) -> tuple[dict[str, Any], Path]:
    run = runs.create("tune", wanted.model_dump(mode="json"), seed=2)
    done = execute(run.id, runs.registry, Settings(home=tmp_path))
    assert done.status == "done", done.error
    assert done.result is not None
    return dict(done.result), run.directory / "artifacts"


def test_eight_trials_find_a_better_recipe_and_write_it_out(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-7")
    result, folder = searched(runs, recipe(parallel=3), tmp_path)  # eight are no multiple of it
    trials = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert (result["trials"], len(trials)) == (8, 8)
    finished = {trial["number"]: trial["value"] for trial in trials if trial["state"] == "complete"}
    assert result["best"] == min(finished.values()) == finished[result["trial"]]
    best = read_recipe(folder / "best.yaml")
    assert best.learning_rate == pytest.approx(result["chosen"]["learning_rate"])
    assert best.lora.rank == result["chosen"]["lora.rank"]
    assert best.search.space == {}
    assert best.seed == 2, "of the search, so that the training can be done again"
    assert (folder / "history.png").stat().st_size > 5000
    assert (folder / "importance.png").stat().st_size > 5000
    assert sum(result["importance"].values()) == pytest.approx(1, abs=0.01)
    found = runs.find(kind="sft")
    assert len(found) == 8
    assert len({run.result["pid"] for run in found if run.result}) == 8, "each in a process of its own"
    assert {run.result["gpu"] for run in found if run.result} == {"4", "GPU-7"}, "one each"
    assert all(run.parent == runs.find(kind="tune")[0].id for run in found)
    assert not any(list((run.directory / "checkpoints").glob("checkpoint-*")) for run in found), "no space is left used"


def test_trials_at_once_share_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "host_cores", lambda: 6)
    monkeypatch.setattr(searching, "gpu_names", lambda: ["0", "1"])
    assert searching.visible_gpus({}) == ["0", "1"]
    assert searching.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []

    def shares(gpus: list[str], parallel: int, **more: Any) -> list[tuple[int, dict[str, str]]]:
        wanted = recipe(parallel=parallel).model_copy(update=more)
        return [(share.threads, dict(share.environment)) for share in searching.shares_of(wanted, gpus)]

    one, two = ({"CUDA_VISIBLE_DEVICES": name} for name in "01")
    assert shares(["0", "1"], 3) == [(0, one), (0, two), (0, one)]
    assert shares(["0", "1"], 1) == [(0, {})], "it may use what it likes"
    assert shares([], 3) == [(2, {})] * 3
    assert shares([], 3, threads=5) == [(5, {})] * 3
    assert shares(["0"], 9, device="cpu") == [(1, {})] * 9


def test_a_search_that_was_killed_takes_its_open_trial_up_again(runs: Runs, tmp_path: Path) -> None:
    wanted = recipe(trials=3)
    run = runs.create("tune", wanted.model_dump(mode="json"), seed=2)
    study = open_study(run.directory / "checkpoints", wanted.search, 3)
    trial = study.ask()  # as a search leaves it behind that dies while its trial trains
    chosen = suggest(trial, wanted.search.space)
    left = runs.create("sft", recipe_with(wanted, chosen).model_dump(mode="json"), parent=run.id)
    trial.set_user_attr("run", left.id)
    done = execute(run.id, runs.registry, Settings(home=tmp_path))
    assert done.status == "done", done.error
    assert runs.get(left.id).status == "done"
    assert len(runs.find(kind="sft")) == 3, "the open one and two more"


def test_a_search_whose_trials_all_fail_says_why(runs: Runs, tmp_path: Path) -> None:
    wanted = recipe(trials=1, space={"learning_rate": {"low": 0.06, "high": 0.1}})
    run = runs.create("tune", wanted.model_dump(mode="json"), seed=2)
    done = execute(run.id, runs.registry, Settings(home=tmp_path))
    assert done.status == "failed"
    assert "No trial was finished" in str(done.error)
    assert "the loss is not a number" in str(done.error)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({}, "has no search.space"),
        ({"lerning_rate": {"low": 1, "high": 2}}, "is no key"),
        ({"data.train": {"choices": ["a"]}}, "is no key"),
        ({"learning_rate": {"low": 1}}, "give low and high, or choices"),
        ({"learning_rate": {"low": 2, "high": 1}}, "low must be below high"),
        ({"lora.rank": {"choices": [0, 4]}}, "lora.rank"),
        ({"lora.rank": {"choices": [4, 8, 0]}}, "lora.rank"),
        ({"lora.dropout": {"low": 0.1, "high": 1.5}}, "lora.dropout"),
        ({"lora.dropout": {"low": 0, "high": 0.5, "log": True}}, "low must be above 0"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_space(recipe(space=space))
    assert said in caught.value.message


def test_what_is_not_measured_cannot_be_searched_for_or_kept_by() -> None:
    with pytest.raises(InvalidRequest, match="accuracy, which is not measured; of generation there are eval_loss"):
        check_space(recipe(objective="accuracy"))
    with pytest.raises(InvalidRequest, match="best_by is eval_exact, which is not measured; of classification"):
        recipe_from({"model": "m", "data": {"train": "x"}, "task": "classification", "best_by": "eval_exact"})


@pytest.mark.parametrize(
    ("key", "more", "said"),
    [
        ("epochs", {"steps": 4}, "epochs would change nothing, since steps is 4"),
        ("lora.rank", {"method": "full"}, "lora.rank would change nothing, since method is full"),
    ],
)
def test_a_key_that_changes_nothing_is_not_searched(key: str, more: dict[str, Any], said: str) -> None:
    known = {"model": "m", "data": {"train": "rows.jsonl", "validation_share": 0.2}}
    space = {key: {"choices": [1, 2]}}
    check_space(recipe_from({**known, "search": {"space": space}}))
    with pytest.raises(InvalidRequest, match=said):
        check_space(recipe_from({**known, **more, "search": {"space": space}}))
    both = {**space, **{name: {"choices": [value]} for name, value in more.items()}}
    check_space(recipe_from({**known, **more, "search": {"space": both}}))


def test_the_objective_says_itself_whether_more_is_better(tmp_path: Path) -> None:
    for objective, wanted in (("eval_loss", "MINIMIZE"), ("eval_exact", "MAXIMIZE")):
        search = recipe(objective=objective).search
        (tmp_path / objective).mkdir()
        assert open_study(tmp_path / objective, search, 0).direction.name == wanted
    check_space(recipe(objective="eval_exact", direction="maximize"))
    with pytest.raises(InvalidRequest, match="minimize, which would keep the worst: eval_exact is to maximize"):
        check_space(recipe(objective="eval_exact", direction="minimize"))


def test_a_search_without_data_to_judge_by_is_refused() -> None:
    blind = recipe_from({"model": "m", "data": {"train": "x"}, "search": {"space": SPACE}})
    with pytest.raises(InvalidRequest, match=r"needs data\.validation"):
        check_space(blind)
