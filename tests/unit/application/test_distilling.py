"""Distillation: by distributions and by a served teacher's answers; losses, vocabularies, resumption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from pagoda.application import distilling
from pagoda.application.registry import run_kinds
from pagoda.core.errors import InvalidRequest
from pagoda.core.runs import Run, RunContext, RunRegistry, Runs, RunStopped, execute
from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.data.rows import Row
from pagoda.model.training.distillation import read_recipe, recipe_of
from pagoda.model.training.divergence import Blend, divergence, loss_of, states_of
from pagoda.model.training.encoding import Encoder
from pagoda.model.training.packing import Collator, Packed, Rows
from pagoda.model.training.teaching import training_of
from pagoda.model.training.work import MODEL, PLOT
from tests.services import fake_model, running
from tests.tiny_models import make_model, make_tokenizer, save_checkpoint

TEXTS = ("the quick brown fox", "answers 42 questions", "你好，世界。", "a red lamp and then one more")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": text, "completion": f" {text}"} for text in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(tmp_path: Path, data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "student": str(tmp_path / "student"),
        "teacher": str(tmp_path / "teacher"),
        "data": str(data),
        "batch_size": 2,
        "epochs": 8,
        "learning_rate": 0.01,
        "save_every": 3,
        "threads": 1,
        **changes,
    }


def batch_of(*rows: Row) -> dict[str, Any]:
    """What the student's trainer is given of these rows."""
    tokenizer = make_tokenizer()
    encoder = Encoder(tokenizer, training_of(recipe_of({"student": "a", "teacher": "b", "data": "c"}), Path("c")))
    found = Rows([Packed((each,)) for each in encoder.encode(rows).examples])
    return Collator(tokenizer.eos_token_id, packed=False)([found[place] for place in range(len(found))])


def distil(settings: Settings, values: dict[str, Any]) -> Run:
    registry = RunRegistry(run_kinds())
    config = distilling.plan_distillation(open_shelf(settings), recipe_of(values))
    run = Runs(settings, registry).create(distilling.KIND, config, seed=0)
    return execute(run.id, registry, settings)


def losses(settings: Settings, run: Run) -> dict[int, float]:
    lines = (settings.runs_directory / run.id / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["step"]: line["values"]["loss"] for line in map(json.loads, lines)}


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_is_the_textbooks_and_the_chunks_change_nothing(direction: Any) -> None:
    import torch

    student, teacher = make_model("llama", seed=1), make_model("gpt2", seed=2)
    teacher.requires_grad_(False)
    batch = batch_of(
        Row(1, "completion", {"prompt": "the fox", "completion": " answers 42"}), Row(2, "text", {"text": "你好"})
    )
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    temperature, hard = 3.0, 0.25
    own, its = (model(input_ids=ids, attention_mask=mask).logits[:, :-1] for model in (student, teacher))
    kept = labels[:, 1:] != -100
    p, q = (torch.softmax(logits[kept] / temperature, -1) for logits in (its, own))
    first, second = (p, q) if direction == "forward" else (q, p)
    wanted = (first * (first / second).log()).sum(-1)
    blend = Blend(divergence=direction, temperature=temperature)
    torch.testing.assert_close(divergence(own[kept], its[kept], blend), wanted, rtol=1e-3, atol=1e-5)
    plain = torch.nn.functional.cross_entropy(own[kept], labels[:, 1:][kept], reduction="sum")
    whole = (1 - hard) * temperature**2 * wanted.sum() + hard * plain
    whole.backward()  # type: ignore[no-untyped-call]
    gradient = student.get_input_embeddings().weight.grad.clone()

    for chunk in (1, 3, 100):
        student.zero_grad()
        blend = Blend(divergence=direction, temperature=temperature, hard=hard, chunk=chunk)
        total, count = loss_of(states_of(student, ids, mask), states_of(teacher, ids, mask), labels, blend)
        total.backward()
        assert count == int(kept.sum())
        torch.testing.assert_close(total, whole.detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(student.get_input_embeddings().weight.grad, gradient, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_student_comes_nearer_to_its_teacher_and_is_a_checkpoint(
    direction: str, settings: Settings, tmp_path: Path, data: Path
) -> None:
    save_checkpoint(tmp_path / "student")
    save_checkpoint(tmp_path / "teacher", seed=5)

    run = distil(settings, recipe(tmp_path, data, divergence=direction))

    assert run.status == "done", run.error
    curve = losses(settings, run)
    assert curve[max(curve)] < 0.8 * curve[1]
    folder = settings.runs_directory / run.id / "artifacts"
    assert (folder / PLOT).exists()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in (folder / MODEL).iterdir()}


def test_a_stopped_distillation_goes_on_with_the_same_curve(
    settings: Settings, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "student")
    save_checkpoint(tmp_path / "teacher", seed=5)
    whole = losses(settings, distil(settings, recipe(tmp_path, data)))
    report = RunContext.metric

    def stop(self: RunContext, step: int, **values: Any) -> None:
        report(self, step, **values)
        if step == 6 and not self.resumed:
            raise RunStopped

    monkeypatch.setattr(RunContext, "metric", stop)
    run = distil(settings, recipe(tmp_path, data))
    assert run.status == "interrupted"

    run = execute(run.id, RunRegistry(run_kinds()), settings)

    assert run.status == "done", run.error
    again = losses(settings, run)
    assert again.keys() == whole.keys()
    assert again == pytest.approx(whole, rel=1e-4)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoints_before(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    save_checkpoint(tmp_path / "student")
    save_checkpoint(tmp_path / "teacher", seed=5)

    run = distil(settings, recipe(tmp_path, data, learning_rate=1e30, save_every=1, warmup=0))

    assert run.status == "failed"
    assert "lower learning_rate" in str(run.error)
    kept = settings.runs_directory / run.id / "checkpoints"
    weights = load_file(kept / "checkpoint-1" / "model.safetensors")
    assert all(values.isfinite().all() for values in weights.values())


async def test_a_served_teachers_answers_are_learnt_once_and_unended_ones_are_not(
    settings: Settings, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    save_checkpoint(tmp_path / "student")
    report = RunContext.progress

    def stop(self: RunContext, stage: str, done: int, total: int | None = None) -> None:
        report(self, stage, done, total)
        if stage == "asking the teacher" and done == 2 and not self.resumed:
            raise RunStopped

    monkeypatch.setattr(RunContext, "progress", stop)
    long = {"contains": "lamp", "text": "one more " * 20}
    async with running(settings, [fake_model("wise", text="42 questions", rules=[long])]) as service:
        values = recipe(tmp_path, data, level="sequence", teacher="wise", epochs=2, answer_tokens=12)
        run = await asyncio.to_thread(distil, service.platform.settings, values)
        assert run.status == "interrupted", run.error
        run = await asyncio.to_thread(execute, run.id, RunRegistry(run_kinds()), service.platform.settings)

    assert run.status == "done", run.error
    path = settings.runs_directory / run.id / "artifacts" / "answers.jsonl"
    answers = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert sorted(answer["id"] for answer in answers) == ["1", "2", "3", "4"]
    assert run.result is not None
    assert [answer["id"] for answer in answers if answer["finish"] != "stop"] == ["4"]
    assert run.result["supervision"]["rows"] == 3


def test_other_vocabularies_are_refused_and_padding_rows_are_not(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    save_checkpoint(tmp_path / "student")
    make_tokenizer(vocabulary=300).save_pretrained(tmp_path / "teacher")
    make_model("llama").save_pretrained(tmp_path / "teacher")
    with pytest.raises(InvalidRequest, match="other vocabularies") as told:
        distil(settings, recipe(tmp_path, data))
    assert "level: sequence" in told.value.message

    make_model("llama", rows=352).save_pretrained(tmp_path / "teacher")
    make_tokenizer().save_pretrained(tmp_path / "teacher")
    assert distil(settings, recipe(tmp_path, data, epochs=1)).status == "done"


def test_a_family_whose_logits_are_more_than_its_heads_is_refused(
    settings: Settings, tmp_path: Path, data: Path
) -> None:
    from transformers import GraniteConfig, GraniteForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = GraniteConfig(vocab_size=328, num_key_value_heads=1, logits_scaling=8.0, **sizes)
    for name in ("student", "teacher"):
        GraniteForCausalLM(config).save_pretrained(tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)

    run = distil(settings, recipe(tmp_path, data))

    assert run.status == "failed"
    assert "The student is a granite" in str(run.error)


def test_a_distillation_does_not_go_on_with_other_rows(settings: Settings, tmp_path: Path, data: Path) -> None:
    save_checkpoint(tmp_path / "student")
    save_checkpoint(tmp_path / "teacher", seed=5)
    registry = RunRegistry(run_kinds())
    config = distilling.plan_distillation(open_shelf(settings), recipe_of(recipe(tmp_path, data)))
    run = Runs(settings, registry).create(distilling.KIND, config, seed=0)
    data.write_text(data.read_text(encoding="utf-8").replace("fox", "lamp"), encoding="utf-8")

    run = execute(run.id, registry, settings)

    assert (run.status, "is not what it was" in str(run.error)) == ("failed", True)


def test_the_end_is_learnt_also_where_it_pads_and_the_prompt_is_not() -> None:
    tokenizer = make_tokenizer()
    answers = (" answers", " answers 42 questions")
    batch = batch_of(*(Row(1, "completion", {"prompt": "the fox", "completion": answer}) for answer in answers))

    prompt = len(tokenizer.encode("the fox"))
    for row, answer in enumerate(answers):
        length = prompt + len(tokenizer.encode(answer)) + 1
        assert batch["labels"][row, length - 1] == tokenizer.eos_token_id
        assert (batch["labels"][row, length:] == -100).all()
        assert batch["attention_mask"][row].sum() == length
        assert (batch["labels"][row, :prompt] == -100).all()


def test_of_a_conversation_the_last_answer_alone_is_learnt() -> None:
    turns = [("user", "the fox"), ("assistant", "answers 42"), ("user", "and?"), ("assistant", "a red lamp")]
    batch = batch_of(Row(1, "chat", {"messages": [{"role": role, "content": text} for role, text in turns]}))

    learnt = batch["labels"][0][batch["labels"][0] != -100]
    assert make_tokenizer().decode(learnt) == "a red lamp<|shut|>"


def test_recipes_name_every_mistake_and_the_key_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "distil.yaml"
    path.write_text("student: a\ndata: b\ntemprature: 2\nhard: 3\n", encoding="utf-8")
    with pytest.raises(InvalidRequest, match=r"no key temprature; did you mean temperature\?") as told:
        read_recipe(path)
    assert "teacher is missing" in told.value.message
    assert "hard: input should be less than or equal to 1" in told.value.message


def test_rows_without_an_answer_are_refused_by_line(settings: Settings, tmp_path: Path, data: Path) -> None:
    data.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n', encoding="utf-8")
    with pytest.raises(InvalidRequest, match="row 2: it has no completion"):
        distilling.plan_distillation(open_shelf(settings), recipe_of(recipe(tmp_path, data)))
