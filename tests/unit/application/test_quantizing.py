"""Quantisation: each form made, loaded again and measured against the original, and what is no result named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pagoda.application import quantizing
from pagoda.application.registry import run_kinds
from pagoda.core.errors import InvalidRequest, Unavailable
from pagoda.core.runs import RunRegistry, Runs, RunStopped, execute
from pagoda.core.settings import Settings
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.export.merging import load_trained
from pagoda.model.quantize import measuring, methods
from pagoda.model.quantize.forms import FORMS, type_of
from pagoda.model.quantize.measuring import Measure, Text, read_texts
from tests.tiny_models import make_model, make_tokenizer, save_checkpoint

WORDS = "the quick brown fox answers 42 questions about a red lamp and then one more"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    rows = [{"context": WORDS, "continuation": "lamp"}, {"text": f"你好，世界。 {WORDS}"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def quantise(settings: Settings, model: Path, forms: list[str], texts: Path) -> dict[str, Any]:
    plan = quantizing.plan_quantisation(open_shelf(settings), str(model), forms, texts, 2)
    registry = RunRegistry(run_kinds())
    run = Runs(settings, registry).create(quantizing.KIND, quantizing.plan_json(plan))
    done = execute(run.id, registry, settings)
    assert done.status == "done", done.error
    folder = settings.runs_directory / run.id / "artifacts"
    assert (folder / quantizing.PLOT).stat().st_size > 1000
    report: dict[str, Any] = json.loads((folder / quantizing.REPORT).read_text(encoding="utf-8"))
    return {**report, "by": {row["form"]: row for row in report["rows"]}}


def test_forms_lose_more_the_smaller_they_are_and_run_in_their_engines(
    settings: Settings, tmp_path: Path, texts: Path
) -> None:
    rows = quantise(settings, save_checkpoint(tmp_path / "base"), ["F32", "Q8_0", "q4_0", "bf16"], texts)["by"]

    assert rows["original"]["quality"]["divergence"] == 0
    assert rows["F32"]["quality"]["divergence"] < 1e-9 < rows["Q8_0"]["quality"]["divergence"]
    assert rows["Q8_0"]["quality"]["divergence"] < rows["Q4_0"]["quality"]["divergence"]
    assert rows["F32"]["share"] == 0
    assert rows["Q4_0"]["share"] > 0.9
    assert rows["Q4_0"]["kinds"]["Q4_0"] > 0
    assert rows["F32"]["bytes"] > rows["Q8_0"]["bytes"] > rows["Q4_0"]["bytes"]
    for form in ("F32", "Q8_0", "Q4_0"):
        row = rows[form]
        assert (row["engine"], row["reloaded"], row["problem"]) == ("llamacpp", True, "")
        assert min(row["quality"]["reading"], row["quality"]["writing"]) > 0
    assert rows["bf16"]["engine"] == "torch"


def test_a_checkpoint_in_bfloat16_is_measured_in_it_and_forms_are_held_against_it(
    settings: Settings, tmp_path: Path, texts: Path
) -> None:
    base = save_checkpoint(tmp_path / "base", dtype="bfloat16")
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    (base / "config.json").write_text(json.dumps(config | {"dtype": "float32"}), encoding="utf-8")  # files tell, not it
    report = quantise(settings, base, ["BF16", "bf16"], texts)
    rows, original = report["by"], report["by"]["original"]

    assert report["precision"] == "BF16"
    assert original["quality"]["divergence"] > 1e-5, "what computing in bfloat16 rounds away"
    assert (original["bytes"], original["memory"]) == (
        (base / "model.safetensors").stat().st_size,
        rows["bf16"]["memory"],
    )
    told = ("perplexity", "divergence", "agreement", "accuracy")
    assert [rows["bf16"]["quality"][name] for name in told] == [original["quality"][name] for name in told]
    assert (rows["BF16"]["problem"], rows["BF16"]["quality"]["divergence"] < 1e-9) == ("", True), "the same weights"
    assert "BF16 is no smaller than the original, which is BF16: 1.0" in " ".join(report["said"])


def test_weights_that_are_no_floats_are_refused_by_name(settings: Settings, tmp_path: Path, texts: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = save_checkpoint(tmp_path / "base") / "model.safetensors"
    small = {name: values.astype("int8") for name, values in load_file(file).items()}
    save_file(small, file, {"format": "pt"})
    with pytest.raises(InvalidRequest, match="holds its weights as I8, and forms are made of F32, F16, BF16"):
        quantizing.plan_quantisation(open_shelf(settings), str(file.parent), ["Q8_0"], texts, 2)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_text_is_computed_in_pieces_with_the_same_figures_and_stopped_between_them(
    family: str, tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, read = load_trained(save_checkpoint(tmp_path / "base", family), None), read_texts(texts, 2)
    ticks: list[tuple[int, int]] = []
    widths: list[int] = []
    trained.model.register_forward_pre_hook(lambda _, args, __: widths.append(args[0].shape[1]), with_kwargs=True)

    def measured(kept: str, tick: Callable[[int, int], None]) -> dict[str, Any]:
        quality = asdict(Measure(trained, read, tmp_path / kept, tick).original(trained.model))
        return {name: value for name, value in quality.items() if name not in ("reading", "writing")}

    def stop(done: int, total: int) -> None:
        ticks.append((done, total))
        if len(ticks) == 2:
            raise RunStopped

    whole = measured("whole", lambda *_: None)
    longest = max(widths)
    monkeypatch.setattr(measuring, "_PIECE", 5)
    widths.clear()
    assert measured("pieces", lambda *_: None) == pytest.approx(whole, rel=1e-4)
    assert longest > max(width for width in widths if width != 16) == 5, "16: the prompt of the writing speed"
    with pytest.raises(RunStopped):
        measured("stopped", stop)
    assert ticks == [(0, 2), (0, 2)], "within the first text"


def test_gpt2_as_the_hub_has_it_is_quantised(settings: Settings, tmp_path: Path, texts: Path) -> None:
    from safetensors.numpy import load_file, save_file

    file = save_checkpoint(tmp_path / "base", "gpt2") / "model.safetensors"
    tensors = {name.removeprefix("transformer."): values for name, values in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})
    row = quantise(settings, file.parent, ["F32"], texts)["by"]["F32"]
    assert (row["problem"], row["quality"]["divergence"] < 1e-9) == ("", True)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "a red lamp"}, ("a red", "lamp", " ")),
        ({"text": "今天天气很好。"}, ("今天天气", "很好", "")),
        ({"context": "一句话的", "continuation": "结尾"}, ("一句话的", "结尾", "")),
        ({"context": "", "continuation": "lamp"}, None),
        ({"text": "好。"}, None),
    ],
)
def test_the_last_word_of_a_text(row: dict[str, str], parts: tuple[str, str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    if parts is None:
        with pytest.raises(InvalidRequest, match="line 1 has neither"):
            read_texts(path, 1)
    else:
        assert read_texts(path, 1) == [Text(*parts)]


def test_a_form_is_named_as_it_is_written(settings: Settings, tmp_path: Path, texts: Path) -> None:
    shelf, base = open_shelf(settings), save_checkpoint(tmp_path / "base")
    plan = quantizing.plan_quantisation(shelf, str(base), ["BF16", "bf16", "q8_0", "FP16"], texts, 2)
    assert plan.forms == ("BF16", "bf16", "Q8_0", "fp16"), "the first is GGUF's, the second torch's"


SOME = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]
EVERY = list(range(30))


@pytest.mark.parametrize(
    ("form", "tensor", "rows", "wanted"),
    [
        ("Q4_K_M", "attn_v", 256, {"Q6_K": SOME}),
        ("Q4_K_M", "attn_qkv", 768, {"Q6_K": SOME}),
        ("Q5_K_M", "ffn_down", 256, {"Q6_K": SOME}),
        ("Q5_K_M", "attn_output", 256, {}),
        ("Q5_K_S", "attn_v", 256, {}),
        ("Q4_K_S", "attn_v", 256, {"Q5_K": [0, 1, 2, 3]}),
        ("Q4_K_S", "ffn_down", 256, {"Q5_K": [0, 1, 2]}),
        ("Q3_K_L", "attn_output", 256, {"Q5_K": EVERY}),
        ("Q3_K_M", "attn_v", 256, {"Q5_K": [0, 1], "Q4_K": EVERY[2:]}),
        ("Q3_K_M", "ffn_down", 256, {"Q5_K": [0], "Q4_K": EVERY[1:]}),
        ("Q3_K_M", "ffn_up", 256, {}),
        ("Q3_K_S", "ffn_down", 256, {}),
        ("Q2_K", "attn_v", 64, {"Q4_K": EVERY}),  # four heads share them
        ("Q2_K", "attn_v", 256, {"Q3_K": EVERY}),
        ("Q2_K", "attn_output", 256, {"Q3_K": EVERY}),
    ],
)
def test_layers_are_kept_finer_as_in_llama_cpp(form: str, tensor: str, rows: int, wanted: dict[str, list[int]]) -> None:
    found: dict[str, list[int]] = {}
    for layer in EVERY:
        kind = type_of(FORMS[form], f"blk.{layer}.{tensor}.weight", (rows, 256), 30, tied=True)
        if kind != FORMS[form].kind:
            found.setdefault(kind.name, []).append(layer)
    assert found == wanted


def test_small_k_quants_are_ggmls_and_run(settings: Settings, tmp_path: Path, texts: Path) -> None:
    make_model("llama", hidden_size=256, intermediate_size=256).save_pretrained(tmp_path / "wide")
    make_tokenizer().save_pretrained(tmp_path / "wide")
    forms = ["Q4_K_S", "Q3_K_M", "Q2_K"]
    rows = quantise(settings, tmp_path / "wide", forms, texts)["by"]

    assert [rows[form]["problem"] for form in forms] == [""] * 3
    assert [set(rows[form]["kinds"]) for form in forms] == [
        {"F32", "Q6_K", "Q5_K", "Q4_K"},
        {"F32", "Q6_K", "Q5_K", "Q4_K", "Q3_K"},
        {"F32", "Q6_K", "Q3_K", "Q2_K"},
    ]
    sizes, losses = ([key(rows[form]) for form in forms] for key in (lambda row: row["bytes"], divergence))
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)


def divergence(row: dict[str, Any]) -> float:
    return float(row["quality"]["divergence"])


def test_dynamic_int8_passes_gpt2_by_and_the_report_says_so(settings: Settings, tmp_path: Path, texts: Path) -> None:
    report = quantise(settings, save_checkpoint(tmp_path / "base", "gpt2"), ["int8-dynamic"], texts)
    share = report["by"]["int8-dynamic"]["share"]

    assert 0 < share < 0.5, "only lm_head is a Linear"
    assert any(f"int8-dynamic quantises only {100 * share:.1f} %" in line for line in report["said"])


def test_dynamic_int8_is_saved_without_pickle_and_loads_to_the_same_numbers(tmp_path: Path) -> None:
    import torch

    source = save_checkpoint(tmp_path / "base", "qwen2", tied=False)
    method = methods.find_method("int8-dynamic")
    live = method.make(source)
    method.write(live, tmp_path / "small")
    ids = torch.tensor([[1, 30, 40, 50, 60]])

    with torch.inference_mode():
        assert torch.equal(method.load(tmp_path / "small")(ids).logits, live(ids).logits)
    assert {path.suffix for path in (tmp_path / "small").iterdir()} == {".json", ".safetensors"}


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # bitsandbytes
@pytest.mark.parametrize("form", ["int8", "int4"])
def test_weight_only_forms_load_again_to_the_same_numbers(
    form: str, settings: Settings, tmp_path: Path, texts: Path
) -> None:
    dtype = {"int8": "float32", "int4": "bfloat16"}[form]
    rows = quantise(settings, save_checkpoint(tmp_path / "base", tied=False, dtype=dtype), [form], texts)["by"]

    row = rows[form]
    assert (row["problem"], row["reloaded"]) == ("", True)
    assert 0.5 < row["share"] < 1
    assert row["bytes"] < 0.6 * rows["original"]["bytes"], "what is not quantised keeps its precision"
    assert 0 < row["quality"]["divergence"] < 1


def test_a_form_that_does_not_load_again_is_no_result(
    settings: Settings, tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = methods.METHODS["fp16"]
    other = save_checkpoint(tmp_path / "other", "qwen2")
    monkeypatch.setitem(methods.METHODS, "fp16", replace(method, load=lambda folder: method.load(other)))

    monkeypatch.setitem(methods.METHODS, "bf16", replace(methods.METHODS["bf16"], make=_fail))

    report = quantise(settings, save_checkpoint(tmp_path / "base"), ["fp16", "bf16"], texts)

    assert report["by"]["fp16"]["reloaded"] is False
    assert "fp16 is no result: what was saved loads as another model" in " ".join(report["said"])
    assert "bf16 is no result: what makes or loads it failed with RuntimeError" in " ".join(report["said"])
    logs = list(settings.runs_directory.glob("*/log.txt"))
    assert "words of a library" in logs[0].read_text(encoding="utf-8")


def _fail(folder: Path) -> Any:
    raise RuntimeError("words of a library")


def test_what_is_unknown_or_not_installed_is_refused_by_name(
    settings: Settings, tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = open_shelf(settings)
    with pytest.raises(InvalidRequest, match=r"no form 'Q3'; there are F32, .*int8-dynamic"):
        quantizing.plan_quantisation(shelf, str(tmp_path), ["Q3"], texts, 2)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=r"int4 needs bitsandbytes.*pagoda-llm\[quantize\]"):
        quantizing.plan_quantisation(shelf, str(tmp_path), ["int4"], texts, 2)
    texts.write_text('{"text": "word"}\n', encoding="utf-8")
    with pytest.raises(InvalidRequest, match="line 1 has neither"):
        quantizing.plan_quantisation(shelf, str(tmp_path), ["Q8_0"], texts, 2)
