"""A training from the recipe to what it leaves behind, and how it ends when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from pagoda.core.errors import Conflict, InvalidRequest, ModelError, NotFound, StoreError, Unavailable
from pagoda.core.runs import RunStopped
from pagoda.core.runs.metrics import read_metrics
from pagoda.core.settings import Settings
from pagoda.model.training import head
from pagoda.model.training.checkpoints import MARK, Checkpoints
from pagoda.model.training.desk import FolderDesk
from pagoda.model.training.recipe import FIGURES, read_recipe, recipe_from
from pagoda.model.training.work import train
from tests.rows import write_jsonl
from tests.unit.model.training.conftest import Train

GOOD = {"model": "m", "data": {"train": "rows.jsonl"}}


def curve(folder: Path) -> list[tuple[int, float]]:
    points = read_metrics(folder / "metrics.jsonl")
    return [(point.step, point.values["loss"]) for point in points if "loss" in point.values]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_learns_and_leaves_a_model_that_loads(fit: Train, llama: Path, rows: Path, method: str) -> None:
    outcome, folder = fit(
        method=method,
        steps=80,
        learning_rate=2e-2 if method == "full" else 1e-1,
        data={"validation": str(rows)},
        evaluate_every=40,
    )
    assert tuple(outcome["after"]) == FIGURES["generation"]
    assert outcome["after"]["eval_loss"] < 0.95 * outcome["before"]["eval_loss"]
    assert outcome["after"]["eval_token_accuracy"] >= 0.5 > outcome["before"]["eval_token_accuracy"]
    saved = Path(outcome["saved"])
    assert saved == folder / "artifacts" / ("model" if method == "full" else "adapter")
    model = AutoModelForCausalLM.from_pretrained(saved if method == "full" else llama)
    if method == "lora":
        with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
            model = PeftModel.from_pretrained(model, saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    row = json.loads(rows.read_text().splitlines()[0])
    ids = tokenizer(row["prompt"] + row["completion"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert model(ids).logits[0, -1].argmax() == tokenizer.eos_token_id, "it has learnt to end"
    assert not list(saved.glob("*.bin")), "no pickle is given away"
    assert (folder / "artifacts" / "training.png").stat().st_size > 5000
    card = (saved / "README.md").read_text()
    assert f"{outcome['after']['eval_loss']:.4f}" in card
    assert "learning_rate: 0." in card


def test_the_same_seed_gives_the_same_curve_and_another_one_not(fit: Train) -> None:
    first, again, other = (fit(f"out{n}", draw=draw) for n, draw in enumerate((3, 3, 4)))
    assert curve(first[1]) == curve(again[1])
    assert curve(first[1]) != curve(other[1])


class Impatient(FolderDesk):
    """Somebody cancels after a few steps."""

    def progress(self, stage: str, done: int, total: int | None = None) -> None:
        self.cancelled = self.cancelled or (stage == "training" and done == 5)

    def raise_if_cancelled(self) -> None:
        if self.cancelled:
            raise RunStopped


def test_a_cancelled_training_saves_where_it_stands_and_goes_on_from_there(fit: Train, tmp_path: Path) -> None:
    _, calm = fit("calm", steps=12, save_every=10)
    asked = recipe_from(json.loads((calm / "recipe.json").read_text()))
    with pytest.raises(RunStopped):
        train(asked, Impatient(tmp_path / "cancelled", 1, Settings(home=tmp_path), writes=True))
    assert Checkpoints(tmp_path / "cancelled" / "checkpoints", 1).newest() == (
        tmp_path / "cancelled" / "checkpoints" / "checkpoint-6"
    )
    train(asked, FolderDesk(tmp_path / "cancelled", 1, Settings(home=tmp_path), writes=True))
    assert curve(tmp_path / "cancelled") == curve(calm)


def test_a_resumed_training_is_as_patient_as_one_that_was_not_interrupted(fit: Train, rows: Path) -> None:
    changes = {"steps": 40, "learning_rate": 0.5, "schedule": "constant", "evaluate_every": 1, "patience": 6}
    outcome, calm = fit("calm", data={"validation": str(rows)}, **changes)
    assert 6 < outcome["steps"] < 12, "some patience is used up at step 6"
    asked = recipe_from(json.loads((calm / "recipe.json").read_text()))
    folder = calm.with_name("cancelled")
    with pytest.raises(RunStopped):
        train(asked, Impatient(folder, 1, Settings(home=calm.parent), writes=True))
    again = train(asked, FolderDesk(folder, 1, Settings(home=calm.parent), writes=True))
    assert (again["steps"], again["resumed_at"]) == (outcome["steps"], 6)
    assert curve(folder) == curve(calm)
    attempts = [json.loads(line)["attempt"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(attempts)) == [1, 2]


def test_a_training_does_not_go_on_with_other_rows(fit: Train, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "mine.jsonl", ({"prompt": f"say {n}", "completion": "a"} for n in range(40)))
    _, folder = fit(data={"train": str(path)}, save_every=2)
    asked = recipe_from(json.loads((folder / "recipe.json").read_text()))
    desk = FolderDesk(folder, 1, Settings(home=tmp_path), writes=True)
    assert train(asked, desk)["resumed_at"] == 6
    write_jsonl(path, ({"prompt": f"say {n}", "completion": "ab"[n == 7]} for n in range(40)))
    with pytest.raises(Conflict, match="are not those that this training began with"):
        train(asked, desk)


def test_early_stopping_keeps_the_best(fit: Train, rows: Path) -> None:
    outcome, folder = fit(
        steps=60, learning_rate=0.5, schedule="constant", data={"validation": str(rows)}, evaluate_every=2, patience=2
    )
    seen = {
        p.step: p.values["eval_loss"]
        for p in read_metrics(folder / "metrics.jsonl")
        if "eval_loss" in p.values and p.step
    }
    assert outcome["steps"] < 60
    assert outcome["best_step"] == min(seen, key=lambda step: seen[step])
    assert outcome["after"]["eval_loss"] == pytest.approx(min(seen.values()), rel=1e-4)


def test_a_loss_that_is_no_number_stops_before_the_step_and_names_the_rows(
    fit: Train, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = head.loss_and_slope, []

    def broken(*given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        loss, slope = real(*given)
        return (loss * float("nan") if len(calls) == 5 else loss), slope

    monkeypatch.setattr(head, "loss_and_slope", broken)
    with pytest.raises(
        ModelError, match=r"loss is nan at step 5, in the batch of the rows \d+, \d+, \d+, \d+"
    ) as caught:
        fit(save_every=2)
    assert caught.value.code == "diverged"
    assert "checkpoint-4 is kept" in caught.value.message


def test_a_gradient_that_is_no_number_stops_too(fit: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_, **__: torch.tensor(float("inf")))
    with pytest.raises(ModelError, match="gradient is inf at step 1"):
        fit()


def test_too_little_memory_says_what_to_lower(fit: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(head, "loss_and_slope", full)
    with pytest.raises(
        ModelError, match=r"halve batch_size \(4\) and double accumulation \(1\), or set checkpointing=true"
    ):
        fit()


def test_what_is_not_there_is_said_at_once(fit: Train, tmp_path: Path, rows: Path) -> None:
    with pytest.raises(NotFound, match="There is no file"):
        fit(data={"train": str(tmp_path / "none.jsonl")})
    with pytest.raises(InvalidRequest, match="the model's context holds 256"):
        fit(max_length=512)
    with pytest.raises(InvalidRequest, match="must be a multiple of evaluate_every"):
        fit(data={"validation": str(rows)}, evaluate_every=4, save_every=6)
    with pytest.raises(InvalidRequest, match="there is only one: start it with torchrun"):
        fit(shard=True)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        StoreError, match=r"cannot be trained: .* only pickles \(pytorch_model.bin\), .* never loads\.$"
    ):
        fit(model=str(tmp_path / "pickled"))
    with pytest.raises(InvalidRequest, match=r"layers with lora\.dora cannot be compiled"):
        fit(method="lora", lora={"dora": True}, compile=True)
    with pytest.raises(InvalidRequest, match="patience counts evaluations, and there is nothing to evaluate on"):
        fit(patience=2)
    with pytest.raises(InvalidRequest, match=r"is 0\.99, which leaves none of the 40 rows"):
        fit(data={"validation_share": 0.99})
    with pytest.raises(InvalidRequest, match=r"needs rows of text and label, and those of .* are completion"):
        fit(task="classification")
    long = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "a" * 90, "completion": "b"}])
    with pytest.raises(InvalidRequest, match=r"long\.jsonl can be validated on; the first, row 1, because it has 92"):
        fit(data={"validation": str(long), "too_long": "refuse"})
    empty = write_jsonl(tmp_path / "empty.jsonl", [{"prompt": "a", "completion": ""}])
    with pytest.raises(InvalidRequest, match=r"No row .* row 1, because its completion is empty"):
        fit(data={"train": str(empty)})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_no_cpu_in_silence(fit: Train) -> None:
    with pytest.raises(Unavailable, match=r"The recipe's device is cuda, but torch sees no CUDA device; .*\.$"):
        fit(device="cuda")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("learnig_rate=1", "there is no key learnig_rate; did you mean learning_rate?"),
        ("lora.rnk=1", "there is no key lora.rnk; did you mean lora.rank?"),
        ("rank=4", "there is no key rank; did you mean lora.rank?"),
        ("epochs=many", "epochs: "),
        ("batch_size=0", "batch_size: "),
        ("method", "write it as key=value"),
    ],
)
def test_a_wrong_recipe_says_which_key_is_right(tmp_path: Path, change: str, said: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\ndata: {train: rows.jsonl}\n")
    with pytest.raises(InvalidRequest) as caught:
        read_recipe(path, [change])
    assert said in caught.value.message


def test_a_recipe_is_changed_by_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\nlearning_rate: 1e-3\ndata: {train: rows.jsonl}\n")
    recipe = read_recipe(path, ["lora.rank=4", "learning_rate=2e-5", "data.form=text"])
    assert (recipe.lora.rank, recipe.learning_rate, recipe.data.form, recipe.data.train) == (
        4,
        2e-5,
        "text",
        "rows.jsonl",
    )
    assert recipe_from(recipe.model_dump(mode="json")) == recipe


def test_checkpoints_count_only_when_they_are_whole(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 10, 12):
        with kept.writing(tmp_path / f"checkpoint-{step}") as _:
            (tmp_path / f"checkpoint-{step}").mkdir()
            (tmp_path / f"checkpoint-{step}" / "weights").write_text("w")
    kept.prune(tmp_path / "checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-12", "checkpoint-2"]
    (tmp_path / "checkpoint-14").mkdir()  # killed while it was written
    assert kept.newest() == tmp_path / "checkpoint-12"
    assert (tmp_path / "checkpoint-14").exists(), "another process may be writing it"
    kept.tidy()
    assert not (tmp_path / "checkpoint-14").exists()
    with pytest.raises(StoreError, match=r"checkpoint of step 16 .* step 12 is kept"):
        _fill(kept, tmp_path / "checkpoint-16")
    assert not (tmp_path / "checkpoint-16").exists()
    assert (tmp_path / "checkpoint-12" / MARK).is_file()


def _fill(kept: Checkpoints, path: Path) -> None:
    with kept.writing(path):
        path.mkdir()
        raise OSError(28, "No space left on device")


def test_validation_rows_that_are_trained_on_are_counted(fit: Train, tmp_path: Path) -> None:
    held = [{"prompt": "say 1", "completion": "b"}, {"prompt": "say 1", "completion": "x"}]
    path = write_jsonl(tmp_path / "held.jsonl", held)
    outcome, folder = fit(steps=1, data={"validation": str(path)})
    assert (outcome["supervision"]["validation"], outcome["supervision"]["trained"]) == (2, 1)
    card = (folder / "artifacts" / "model" / "README.md").read_text()
    assert "Of 2 validation rows 1 are trained on too." in card


def test_what_a_training_reports_is_what_it_was_given(fit: Train) -> None:
    outcome, folder = fit(packing=True, checkpointing=True, attention="eager")
    report = json.loads((folder / "artifacts" / "supervision.json").read_text())
    assert outcome["supervision"] == {name: value for name, value in report.items() if name != "shown"}
    assert report["padding"] < 0.2 < report["padding_to_longest"]
    assert (report["validation"], report["trained"]) == (0, 0)
    shown = report["shown"][0]["pieces"]
    assert [kind for _, kind in shown] == ["given", "learnt", "end"]
