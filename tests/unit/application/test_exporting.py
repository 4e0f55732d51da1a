"""Export: an adapter merged, a file written, and refused unless the served model answers as the trainer's does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from pagoda.application import exporting
from pagoda.application.registry import run_kinds
from pagoda.core.configuration import load_settings
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.runs import Run, RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.export import reading
from pagoda.model.export.folder import read_checkpoint
from pagoda.model.export.gguf_file import write_gguf
from pagoda.model.export.parity import Probe, read_probes, tolerance_of
from pagoda.model.quantize.blocks import decode
from tests.conftest import settings_in
from tests.tiny_models import make_model, make_tokenizer, save_adapter, save_checkpoint, sentencepiece_tokenizer

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's
]


def export(settings: Settings, source: Path, **options: Any) -> Run:
    """Plan an export and carry it out in this process."""
    given = {"base": None, "name": "tiny", "to": "gguf", "form": "F32"} | options
    plan = exporting.plan_export(open_shelf(settings), str(source), **given)
    registry = RunRegistry(run_kinds())
    run = Runs(settings, registry).create(exporting.KIND, exporting.plan_json(plan))
    return execute(run.id, registry, settings)


def kinds_in(path: Path) -> set[str]:
    """Of the tensors in a file of safetensors."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"}


def report_of(settings: Settings, run: Run) -> dict[str, Any]:
    path = settings.runs_directory / run.id / "artifacts" / exporting.REPORT
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gpt2", "gemma", "gemma2", "gemma3_text"])
def test_a_family_is_served_with_the_trainers_answers(family: str, settings: Settings, tmp_path: Path) -> None:
    run = export(settings, save_checkpoint(tmp_path / "base", family))

    assert run.status == "done", run.error
    report = report_of(settings, run)
    served = [finding for finding in report["findings"] if finding["stage"] == "served"]
    near = [finding["difference"] for finding in served if finding["what"] == "log-probabilities"]
    assert len(near) == 4
    assert max(near) < 0.01
    entry = open_shelf(settings).catalog.resolve("tiny")
    assert (entry.engine, entry.task, entry.context) == ("llamacpp", "chat", 512)


def test_a_file_in_bfloat16_has_its_checkpoints_numbers_and_the_trainers_answers(
    settings: Settings, tmp_path: Path
) -> None:
    base = save_checkpoint(tmp_path / "base", dtype="bfloat16")
    run = export(settings, base, form="bf16")

    assert run.status == "done", (run.error, report_of(settings, run))
    assert run.result is not None
    file = Path(str(run.result["path"]))
    _, state = read_checkpoint(base)
    there = {tensor.name: tensor for tensor in gguf.GGUFReader(str(file)).tensors}
    embeddings = there["token_embd.weight"]
    assert embeddings.tensor_type == gguf.GGMLQuantizationType.BF16
    assert np.array_equal(decode(embeddings.data, embeddings.tensor_type), state["model.embed_tokens.weight"])
    near = [finding for finding in report_of(settings, run)["findings"] if finding["what"] == "log-probabilities"]
    assert {finding["stage"] for finding in near} == {"merged", "served"}
    assert max(finding["difference"] for finding in near) < tolerance_of("F16"), "nearer than BF16 may be"


def test_stretched_positions_are_stretched_alike_where_it_is_served(settings: Settings, tmp_path: Path) -> None:
    """Llama 3.1's way, which llama.cpp takes as a tensor."""
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    rope = {"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0, **bands}
    make_model("llama", rope_parameters=rope).save_pretrained(tmp_path / "base")
    make_tokenizer().save_pretrained(tmp_path / "base")

    run = export(settings, tmp_path / "base")

    assert run.status == "done", run.error
    assert "rope_freqs.weight" in {tensor.name for tensor in gguf.GGUFReader(str(run.result["path"])).tensors}


def test_an_export_that_was_killed_when_it_was_done_is_done_again(settings: Settings, tmp_path: Path) -> None:
    run = export(settings, save_checkpoint(tmp_path / "base"))
    assert run.result is not None
    path = Path(str(run.result["path"]))
    catalog = open_shelf(settings).catalog
    assert exporting.register(catalog, path, "tiny") == catalog.resolve("tiny")
    with pytest.raises(Conflict):
        exporting.register(catalog, save_checkpoint(tmp_path / "other"), "tiny")


def test_a_model_without_chat_template_is_proven_on_bare_texts(settings: Settings, tmp_path: Path) -> None:
    run = export(settings, save_checkpoint(tmp_path / "base", "gpt2", template=False))

    assert run.status == "done", run.error
    assert open_shelf(settings).catalog.resolve("tiny").task == "completion"


@pytest.mark.parametrize(
    ("family", "targets"), [("llama", ["q_proj", "v_proj", "down_proj"]), ("gpt2", ["c_attn", "c_fc"])]
)
def test_an_adapter_is_merged_and_quantised(
    family: str, targets: list[str], settings: Settings, tmp_path: Path
) -> None:
    base = save_checkpoint(tmp_path / "base", family)
    adapter = save_adapter(base, tmp_path / "adapter", targets)

    run = export(settings, adapter, base=str(base), form="Q8_0")

    assert run.status == "done", run.error
    report = report_of(settings, run)
    assert report["untied"] is False
    assert {finding["stage"] for finding in report["findings"]} == {"merged", "exported", "served"}


@pytest.mark.parametrize("targets", [["lm_head"], ["embed_tokens"]])
def test_an_adapter_on_one_end_of_a_tied_model_leaves_the_other_alone(
    targets: list[str], settings: Settings, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    base = save_checkpoint(tmp_path / "base")
    run = export(settings, save_adapter(base, tmp_path / "adapter", targets), base=str(base))

    assert run.status == "done", run.error
    assert report_of(settings, run)["untied"] is True
    before = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    after = load_file(settings.runs_directory / run.id / "artifacts" / "merged" / "model.safetensors")
    changed = {
        name: not np.array_equal(after[name], before) for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    assert changed == {
        "model.embed_tokens.weight": targets == ["embed_tokens"],
        "lm_head.weight": targets == ["lm_head"],
    }


TEXTS = ["The quick brown fox, 42!", "你好，世界。今天天气很好。", "a 🙂🏽 é ▁x\n\n  then", "\tone  more "]
SPACED = [" the lamp", "   red", "x<s> red"]
TURNS = "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>{% endfor %}"


def export_of_sentencepiece(
    settings: Settings, folder: Path, space: str, texts: Sequence[str], template: str | None
) -> Run:
    tokenizer = sentencepiece_tokenizer(space, template=template)
    model = make_model("llama", rows=len(tokenizer))
    with torch.no_grad():
        model.get_input_embeddings().weight[:259] *= 0.01  # engines show no parts of characters: not to be liked
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    probes = [Probe(id=text, messages=({"role": "user", "content": text},), answer=" red, 你好🙂.") for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting, "read_probes", lambda: probes)
        patch.setattr(reading, "GREEDY_TOKENS", 4)
        return export(settings, folder)


@pytest.mark.parametrize(
    ("space", "texts", "template", "added"),
    [
        ("prepend", TEXTS + SPACED, None, True),
        ("never", TEXTS + SPACED, None, False),
        ("split", TEXTS + SPACED, TURNS, False),
        ("always", TEXTS, None, True),
        ("first", TEXTS, TURNS, False),
    ],
    ids=["prepend", "never", "split", "always", "first"],
)
def test_a_tokenizer_of_sentencepiece_is_served_with_the_same_tokens(
    space: str, texts: list[str], template: str | None, added: bool, settings: Settings, tmp_path: Path
) -> None:
    """The gate compares the tokens of each text: leading spaces, Chinese, emoji, and what only bytes can say."""
    run = export_of_sentencepiece(settings, tmp_path / "base", space, texts, template)

    assert run.status == "done", (run.error, report_of(settings, run))
    assert run.result is not None
    reader = gguf.GGUFReader(str(run.result["path"]))
    told = [reader.get_field(f"tokenizer.ggml.{name}") for name in ("model", "add_space_prefix")]
    assert [field.contents() for field in told if field is not None] == ["llama", added]


def test_a_space_that_llama_cpp_puts_elsewhere_is_found_by_the_gate(settings: Settings, tmp_path: Path) -> None:
    """Metaspace puts none before a text that begins with one; llama.cpp, as SentencePiece, does."""
    run = export_of_sentencepiece(settings, tmp_path / "base", "always", SPACED[:1], None)

    assert run.status == "failed"
    assert run.error is not None
    assert "tokens of the prompt differ" in run.error


@pytest.mark.parametrize("half", [False, True])
def test_safetensors_are_served_by_transformers_with_the_same_answers(
    half: bool, settings: Settings, tmp_path: Path
) -> None:
    """In the precision of their base, unless another is asked for."""
    base = save_checkpoint(tmp_path / "base", dtype="bfloat16" if half else "float32")
    run = export(settings, base, to="safetensors", form=None)

    assert run.status == "done", run.error
    assert run.result is not None
    assert kinds_in(Path(str(run.result["path"])) / "model.safetensors") == ({"BF16"} if half else {"F32"})
    assert open_shelf(settings).catalog.resolve("tiny").engine == "transformers"


def _break_template(write: Callable[..., Any], *given: Any) -> Any:
    folder, tokenizer, *rest = given
    kept, tokenizer.chat_template = tokenizer.chat_template, tokenizer.chat_template.replace("assistant", "helper")
    try:
        return write(folder, tokenizer, *rest)
    finally:
        tokenizer.chat_template = kept


def _break_stop(write: Callable[..., Any], *given: Any) -> Any:
    folder, tokenizer, _, *rest = given
    return write(folder, tokenizer, (0,), *rest)


def _break_tensor(write: Callable[..., Any], *given: Any) -> Any:
    kinds = write(*given)
    reader = gguf.GGUFReader(given[3], "r+")
    tensor = next(tensor for tensor in reader.tensors if tensor.name == "blk.1.attn_k.weight")
    tensor.data[:] = tensor.data[::-1].copy()
    reader.data.flush()
    return kinds


@pytest.mark.parametrize(
    ("damage", "said", "served"),
    [
        (_break_template, "chat template", "tokens of the prompt"),
        (_break_stop, "stop tokens", "stop at token 2"),
        (_break_tensor, "blk.1.attn_k.weight", "log-probabilities"),
    ],
)
def test_what_would_answer_otherwise_is_refused(
    damage: Callable[..., Any],
    said: str,
    served: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write = write_gguf
    monkeypatch.setattr(exporting, "write_gguf", lambda *given: damage(write, *given))

    run = export(settings, save_checkpoint(tmp_path / "base"))

    assert run.status == "failed"
    assert run.error is not None
    assert said in run.error
    failed = [finding for finding in report_of(settings, run)["findings"] if not finding["passed"]]
    assert any(finding["stage"] == "served" and finding["what"] == served for finding in failed), failed
    assert "tiny" not in {entry.id for entry in open_shelf(settings).catalog.entries()}


def test_what_cannot_be_exported_is_refused_by_name(settings: Settings, tmp_path: Path) -> None:
    shelf = open_shelf(settings)
    plan = {"base": None, "name": "tiny", "to": "gguf"}
    with pytest.raises(InvalidRequest, match="no GGUF form 'Q9'"):
        exporting.plan_export(shelf, str(tmp_path), form="Q9", **plan)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="written as F32, F16, BF16, not as Q8_0"):
        exporting.plan_export(shelf, str(tmp_path), **(plan | {"to": "safetensors"}), form="Q8_0")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="--base goes with an adapter"):
        exporting.plan_export(shelf, str(tmp_path), **(plan | {"base": "x"}), form="F16")  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="already a model smollm2-135m-instruct"):
        exporting.plan_export(shelf, str(tmp_path), **(plan | {"name": "smollm2-135m-instruct"}), form="F16")  # type: ignore[arg-type]

    checkpoint = save_checkpoint(tmp_path / "base")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    for more in ({"mlp_bias": True}, {"model_type": "mistral", "sliding_window": 64}):
        (checkpoint / "config.json").write_text(json.dumps(config | more), encoding="utf-8")
        run = export(settings, checkpoint)
        assert run.status == "failed"


@pytest.mark.parametrize("to", ["gguf", "safetensors"])
def test_a_classifier_is_no_model_that_writes(to: str, settings: Settings, tmp_path: Path) -> None:
    """Its head would be dropped, and what is left would answer as itself."""
    base = save_checkpoint(tmp_path / "base")
    AutoModelForSequenceClassification.from_pretrained(base, num_labels=2).save_pretrained(tmp_path / "whole")
    make_tokenizer().save_pretrained(tmp_path / "whole")
    error = export(settings, tmp_path / "whole", to=to).error
    assert "cannot be loaded: it is a classifier (LlamaForSequenceClassification), which tells labels" in str(error)
    adapter = save_adapter(base, tmp_path / "adapter", ["q_proj"])
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"task_type": "SEQ_CLS"}), encoding="utf-8")
    assert "was trained for SEQ_CLS: it tells labels" in str(export(settings, adapter, base=str(base), to=to).error)


def test_what_is_broken_or_of_another_base_is_told_in_words_of_ours(settings: Settings, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "base")
    adapter = save_adapter(checkpoint, tmp_path / "adapter", ["q_proj"])
    make_model("llama", hidden_size=32).save_pretrained(tmp_path / "small")
    make_tokenizer().save_pretrained(tmp_path / "small")
    others = {
        tmp_path / "small": "the base's is 32 by 32.",
        save_checkpoint(tmp_path / "gpt2", "gpt2"): "the base has no such module.",
    }
    for other, said in others.items():
        error = export(settings, adapter, base=str(other)).error
        assert error == (
            f"The adapter in {adapter} does not fit its base model: its model.layers.0.self_attn.q_proj has 64 inputs, "
            f"and {said}"
        )

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | {"hidden_size": 32}), encoding="utf-8")
    run = export(settings, checkpoint)
    assert f"The checkpoint in {checkpoint} cannot be loaded: transformers takes its config," in str(run.error)
    assert "mismatched" in (settings.runs_directory / run.id / "log.txt").read_text(encoding="utf-8")
    (checkpoint / "config.json").write_text("{\n", encoding="utf-8")
    assert "its weights or its config.json are corrupt" in str(export(settings, checkpoint).error)


@pytest.mark.real_model
@pytest.mark.timeout(300)
def test_smollm2_is_served_from_q8_0_with_its_checkpoints_answers(
    tmp_path: Path, models_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(
        {"models.directory": str(models_directory)}, {"PAGODA_HOME": str(tmp_path / "home")}, tmp_path
    )
    checkpoint = str(
        open_shelf(settings).store.locate(open_shelf(settings).catalog.resolve("smollm2-135m-instruct-hf"))
    )
    monkeypatch.setattr(exporting, "read_probes", lambda: read_probes()[:1])
    monkeypatch.setattr(reading, "GREEDY_TOKENS", 6)

    run = export(settings_in(tmp_path / "own"), Path(checkpoint), form="Q8_0", name="smol")

    assert run.status == "done", run.error
