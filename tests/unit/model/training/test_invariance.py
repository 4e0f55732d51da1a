"""What must not change when something else does: the traps of fine-tuning, each on tiny models."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pagoda.core.errors import InvalidRequest
from pagoda.core.runs.metrics import read_metrics
from pagoda.model.data.rows import Refused, Row
from pagoda.model.export.merging import load_trained, save_merged
from pagoda.model.training.encoding import IGNORED, Encoder, Example
from pagoda.model.training.packing import Collator, Order, Packed, Rows, check_packing, pack
from pagoda.model.training.recipe import FIGURES, recipe_from
from tests.rows import write_jsonl
from tests.tiny_models import CHATML, byte_tokenizer, random_model, sentencepiece_tokenizer, trainable_model
from tests.unit.model.training.conftest import Train

Trained = tuple[dict[str, Any], Path]


def losses(folder: Path) -> list[float]:
    return [point.values["loss"] for point in read_metrics(folder / "metrics.jsonl") if "loss" in point.values]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "artifacts" / "model" / "model.safetensors")


def example(number: int, ids: Sequence[int], learnt: int = 1) -> Example:
    labels = [IGNORED] * (len(ids) - learnt) + list(ids[-learnt:])
    return Example(number, tuple(ids), tuple(labels), ends=True)


def batch_of(groups: Sequence[Sequence[Example]], *, packed: bool) -> dict[str, Any]:
    data = Rows([Packed(tuple(group)) for group in groups])
    return Collator(0, packed=packed)([data[place] for place in range(len(data))])


def encoder(**recipe: Any) -> Encoder:
    known = {"model": "m", "data": {"train": "rows.jsonl"}, "max_length": 64}
    return Encoder(byte_tokenizer(), recipe_from({**known, **recipe}))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_see_one_another(family: str, attention: str) -> None:
    """Perturbation: another first row leaves every logit of the second where it was, which are those of it alone."""
    model = trainable_model(family, byte_tokenizer(), attention=attention).eval()
    first, other, second = ([5, 9, 7, 30], [80, 81, 82, 83], [11, 12, 13, 14, 15])

    def logits(*rows: list[int], packed: bool = True) -> torch.Tensor:
        batch = batch_of([[example(n, row) for n, row in enumerate(rows)], [example(9, [3] * 12)]], packed=packed)
        del batch["rows"], batch["labels"]
        with torch.no_grad():
            found: torch.Tensor = model(**batch, use_cache=False).logits[0]
        return found

    of_second = slice(4, 9)
    assert torch.equal(logits(first, second)[of_second], logits(other, second)[of_second])
    torch.testing.assert_close(logits(first, second)[of_second], logits(second)[:5], atol=1e-5, rtol=1e-5)
    # Without the positions, the same test sees a leak: it can fail.
    assert not torch.equal(
        logits(first, second, packed=False)[of_second], logits(other, second, packed=False)[of_second]
    )


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("family", "leaks", "options"),
    [
        ("llama", False, {}),
        ("gpt2", False, {}),
        ("gemma2", False, {"head_dim": 8, "sliding_window": 4}),
        ("mixtral", False, {"num_local_experts": 4}),
        ("opt", True, {"ffn_dim": 64, "word_embed_proj_dim": 32}),  # counts positions by itself
        ("falcon", True, {}),  # heeds nothing but the mask
        ("bloom", True, {}),  # alibi
        ("lfm2", True, {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3}),
        ("mamba", True, {"state_size": 8}),  # knows no positions
    ],
)
def test_packing_is_refused_where_a_model_sees_into_the_next_row(
    family: str, leaks: bool, options: dict[str, Any], half: bool
) -> None:
    model = random_model(family, 32, 0, vocab_size=64, pad_token_id=0, **options).to(
        torch.bfloat16 if half else torch.float32
    )
    if leaks:
        with pytest.raises(InvalidRequest, match=f"packing is not for {family} models: a row would see"):
            check_packing(model)
    else:
        check_packing(model)


def test_a_training_tries_its_own_model_before_it_packs(fit: Train, tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    tokenizer = byte_tokenizer()
    options = {"ffn_dim": 64, "word_embed_proj_dim": 32}
    random_model("opt", 32, 0, vocab_size=len(tokenizer), pad_token_id=0, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.raises(InvalidRequest, match=r"packing is not for opt models: .* Set packing: false\.$"):
        fit(model=str(folder), packing=True, steps=1)
    assert fit(model=str(folder), steps=1)[0]["steps"] == 1


def test_a_model_that_has_no_sdpa_is_trained_without_being_asked(fit: Train, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    random_model("gemma2", 32, 0, vocab_size=len(tokenizer), **ends).save_pretrained(tmp_path / "gemma2")
    tokenizer.save_pretrained(tmp_path / "gemma2")
    outcome, folder = fit(model=str(tmp_path / "gemma2"), packing=True, steps=4)
    assert outcome["steps"] == 4
    assert losses(folder)[-1] < losses(folder)[0]


def test_a_packed_row_does_not_learn_to_begin_the_next() -> None:
    batch = batch_of([[example(1, [5, 6, 7], learnt=3), example(2, [8, 9], learnt=2)]], packed=True)
    assert batch["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert "attention_mask" not in batch


@given(st.lists(st.integers(1, 32), min_size=1, max_size=60))
@settings(max_examples=50)
def test_packing_loses_nothing_and_cuts_nothing(lengths: list[int]) -> None:
    examples = [example(number, [1] * length) for number, length in enumerate(lengths)]
    packs = pack(examples, 32)
    assert sorted(part.number for each in packs for part in each.parts) == list(range(len(lengths)))
    assert all(each.length <= 32 for each in packs)
    assert len(packs) <= 2 * -(-sum(lengths) // 32), "best fit is never twice as bad as perfect"
    assert pack(examples[::-1], 32) == packs


@given(st.lists(st.integers(1, 99), min_size=1, max_size=70), st.integers(0, 3))
@settings(max_examples=30)
def test_an_epoch_has_every_row_once_and_the_same_order_again(lengths: list[int], epoch: int) -> None:
    first, again = (Order(lengths, seed=5, group=4) for _ in range(2))
    first.set_epoch(epoch)
    torch.rand(3)  # what else is drawn changes nothing
    again.set_epoch(epoch)
    assert list(first) == list(again)
    assert sorted(first) == list(range(len(lengths)))
    taken = [lengths[place] for place in first]
    whole = [taken[at : at + 4] for at in range(0, len(taken) - 3, 4)]
    alone = sorted(lengths, reverse=True)
    best = sum(max(alone[at : at + 4]) for at in range(0, len(alone) - 3, 4))
    assert sum(map(max, whole)) <= best, "batches are of like length"


@pytest.mark.parametrize("grouped", [False, True])
def test_accumulated_batches_equal_a_large_one(fit: Train, grouped: bool) -> None:
    """Whatever the lengths of the rows in each: the mean is over the tokens of the step, not over means."""
    texts = {"data": {"train": str(_texts(fit)), "form": "text"}, "group_by_length": grouped}
    large, apart = (
        fit("large", batch_size=8, accumulation=1, **texts),
        fit("apart", batch_size=2, accumulation=4, **texts),
    )
    assert losses(large[1]) == pytest.approx(losses(apart[1]), rel=1e-4)
    first, second = weights(large[1]), weights(apart[1])
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], atol=2e-4, rtol=1e-3)


def _texts(fit: Train) -> Path:
    del fit
    import tempfile

    path = Path(tempfile.mkdtemp()) / "texts.jsonl"
    return write_jsonl(path, ({"text": "word " * (1 + 5 * (n % 2)) + str(n)} for n in range(32)))


def test_packed_and_padded_rows_give_the_same_loss(fit: Train) -> None:
    padded = fit("padded", batch_size=40, steps=1, packing=False)
    packed = fit("packed", batch_size=40, steps=1, packing=True)
    assert losses(padded[1]) == pytest.approx(losses(packed[1]), rel=1e-5)


def test_padding_changes_no_loss(fit: Train) -> None:
    rows = [example(1, [5, 6, 7]), example(2, [9, 8, 7, 6, 5, 4])]
    model = trainable_model("llama", byte_tokenizer()).eval()

    def loss(group: list[Example]) -> float:
        batch = batch_of([[each] for each in group], packed=False)
        del batch["rows"]
        with torch.no_grad():
            return float(model(**batch).loss)

    assert loss(rows) == pytest.approx((loss(rows[:1]) + loss(rows[1:])) / 2, rel=1e-5)


def test_the_end_is_learnt_where_it_is_also_the_padding() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    found = encoder().encode([Row(1, "completion", {"prompt": "a", "completion": "b"})]).examples[0]
    assert found.ends
    assert found.labels[-1] == tokenizer.eos_token_id
    data = Rows([Packed((found,)), Packed((example(2, [1] * 9),))])
    batch = Collator(tokenizer.pad_token_id, packed=False)([data[0], data[1]])
    assert batch["labels"][0].tolist() == [*found.labels, *[IGNORED] * (9 - len(found.ids))]
    assert batch["attention_mask"][0].sum() == len(found.ids)


def test_what_the_assistant_says_is_learnt_with_its_end_and_nothing_else() -> None:
    messages = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "一加一？"},
        {"role": "assistant", "content": "二"},
        {"role": "user", "content": "And two?"},
        {"role": "assistant", "content": "Four."},
    ]
    tokenizer = byte_tokenizer()
    found = encoder(max_length=256).encode([Row(1, "chat", {"messages": messages})]).examples[0]
    learnt = tokenizer.decode([label for label in found.labels if label != IGNORED])
    assert learnt == "二<|im_end|>Four.<|im_end|>"
    assert found.ends
    assert found.ids.count(tokenizer.convert_tokens_to_ids("<|im_start|>")) == 5
    whole = encoder(max_length=256, loss_on="all").encode([Row(1, "chat", {"messages": messages})]).examples[0]
    assert whole.ids == found.ids
    assert [label for label in whole.labels if label != IGNORED] == list(found.ids[:-1]), "but for the last line's end"
    assert whole.ends


def test_a_template_without_end_is_reported_and_one_that_rewrites_is_refused() -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    row = Row(1, "chat", {"messages": messages})
    recipe = recipe_from({"model": "m", "data": {"train": "x"}, "max_length": 64})
    endless = CHATML.replace("'<|im_end|>' + ", "")
    assert not Encoder(byte_tokenizer(template=endless), recipe).encode([row]).examples[0].ends
    rewriting = "{{ messages[0]['content'] }}{{ messages | length }}{{ messages[-1]['content'] }}"
    refused = Encoder(byte_tokenizer(template=rewriting), recipe).encode([row]).refused
    assert [each.reason for each in refused] == ["template"]
    without = Encoder(byte_tokenizer(template=None), recipe).encode([row]).refused
    assert "no chat template" in without[0].why


@pytest.mark.parametrize("space", ["prepend", "never", "first", "always"])
@pytest.mark.parametrize("completion", [" red", "red", "\nred", "你好"])
def test_a_completion_is_learnt_as_it_is_written(space: str, completion: str) -> None:
    """No space comes before it that is not there, which SentencePiece would put before a text by itself."""
    tokenizer = sentencepiece_tokenizer(space)
    recipe = recipe_from({"model": "m", "data": {"train": "rows.jsonl"}})
    row = Row(1, "completion", {"prompt": "the lamp:", "completion": completion})
    (found,) = Encoder(tokenizer, recipe).encode([row]).examples
    assert tokenizer.decode(found.ids[:-1]) == f"the lamp:{completion}"
    asked = tokenizer("the lamp:")["input_ids"]
    assert list(found.ids[: len(asked)]) == asked, "as the model is asked"
    assert [label for label in found.labels if label != IGNORED] == list(found.ids[len(asked) :])
    assert found.ends


def test_no_second_beginning_is_added_to_a_template() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", start)]
    )
    coder = Encoder(tokenizer, recipe_from({"model": "m", "data": {"train": "x"}, "max_length": 64}))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    spoken, told = (
        coder.encode([Row(1, "chat", {"messages": messages})]).examples[0],
        coder.encode([Row(1, "completion", {"prompt": "a", "completion": "b"})]).examples[0],
    )
    assert spoken.ids[:2] == (start, tokenizer.convert_tokens_to_ids("u"))
    assert told.ids.count(start) == 1, "the prompt has its own, the completion none"


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("completion", {"prompt": "a", "completion": " "}, "no_label"),
        ("completion", {"prompt": "long " * 30, "completion": "b"}, "no_label"),
        ("chat", {"messages": [{"role": "user", "content": "a"}]}, "roles"),
        ("chat", {"messages": [{"role": "assistant", "content": "a"}]}, "roles"),
        ("chat", {"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "b"}]}, "roles"),
        ("text", {"text": "  "}, "empty"),
        ("preference", {"chosen": "a", "rejected": "b"}, "form"),
    ],
)
def test_rows_that_teach_nothing_are_refused_with_the_reason(form: Any, content: dict[str, Any], reason: str) -> None:
    refused = encoder().encode([Row(7, form, content)]).refused
    assert [(each.number, each.reason) for each in refused] == [(7, reason)]


def test_too_long_rows_are_cut_or_refused() -> None:
    row = Row(1, "text", {"text": "x" * 100})
    cut = encoder().encode([row]).examples[0]
    assert (len(cut.ids), cut.truncated, cut.ends) == (64, True, False)
    refused = encoder(data={"train": "x", "too_long": "refuse"}).encode([row]).refused
    assert isinstance(refused[0], Refused)
    assert refused[0].reason == "too_long"


def test_lora_finds_the_layers_of_gpt2(fit: Train, gpt2: Path) -> None:
    for targets, layers in (("all-linear", {"c_attn", "c_proj", "c_fc"}), ("attention", {"c_attn"})):
        _, folder = fit(targets, model=str(gpt2), method="lora", steps=2, lora={"rank": 2, "targets": targets})
        saved = load_file(folder / "artifacts" / "adapter" / "adapter_model.safetensors")
        assert {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in saved} == layers
        config = json.loads((folder / "artifacts" / "adapter" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == str(gpt2)
    with pytest.raises(InvalidRequest, match="no layer 'q_proj'"):
        fit("wrong", model=str(gpt2), method="lora", lora={"targets": ["q_proj"]})


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # asked by PEFT
@pytest.mark.parametrize("kind", ["rslora", "dora"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_other_kinds_of_lora_are_trained_and_merged(
    fit: Train, family: str, kind: str, llama: Path, gpt2: Path, tmp_path: Path
) -> None:
    base = {"llama": llama, "gpt2": gpt2}[family]
    changes = {"model": str(base), "method": "lora", "steps": 4, "learning_rate": 2e-2}
    _, plain = fit("plain", **changes, lora={"rank": 4})
    _, folder = fit(**changes, lora={"rank": 4, kind: True})
    adapter = folder / "artifacts" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())[f"use_{kind}"] is True
    assert losses(folder)[-1] < losses(folder)[0]
    assert losses(folder)[1:] != losses(plain)[1:]
    trained = load_trained(base, adapter)
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        live = trained.model(ids).logits
        save_merged(trained, tmp_path / "merged", "float32")
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")(ids).logits
    torch.testing.assert_close(merged, live, atol=1e-4, rtol=1e-4)


def test_an_adapter_on_tied_weights_is_refused(fit: Train) -> None:
    with pytest.raises(InvalidRequest, match="shares its weights"):
        fit(method="lora", lora={"targets": ["lm_head"]})


def test_the_head_of_a_classification_is_trained_and_saved_with_lora(fit: Train, tmp_path: Path, llama: Path) -> None:
    path = write_jsonl(
        tmp_path / "c.jsonl", ({"text": "ab"[n % 2] * (1 + n % 7), "label": "ab"[n % 2]} for n in range(40))
    )
    outcome, folder = fit(
        task="classification",
        method="lora",
        steps=30,
        learning_rate=2e-2,
        data={"train": str(path), "validation": str(path)},
    )
    saved = load_file(folder / "artifacts" / "adapter" / "adapter_model.safetensors")
    assert any("score" in name for name in saved)
    assert tuple(outcome["after"]) == FIGURES["classification"]
    assert outcome["after"]["eval_accuracy"] == 1.0 > outcome["before"]["eval_accuracy"]
    base = AutoModelForSequenceClassification.from_pretrained(llama, num_labels=2, pad_token_id=257)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # asked by PEFT
    model = PeftModel.from_pretrained(base, folder / "artifacts" / "adapter").eval()
    # A score does not depend on what else is in the batch, though the padding is the end of text.
    short, long = byte_tokenizer()("aaa")["input_ids"], byte_tokenizer()("b" * 12)["input_ids"]
    ids = torch.tensor([short + [257] * 9, long])
    with torch.no_grad():
        alone = model(input_ids=torch.tensor([short])).logits
        together = model(input_ids=ids, attention_mask=(ids != 257).long()).logits
    torch.testing.assert_close(alone[0], together[0], atol=1e-5, rtol=1e-5)
    assert alone.argmax() != together[1].argmax()


def test_labels_out_of_range_are_refused_by_row(fit: Train, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": "x", "label": label} for label in (0, 1, 2, 1, 0)])
    outcome, folder = fit(task="classification", labels=["0", "1"], steps=1, data={"train": str(path)})
    assert outcome["supervision"]["refused"] == {"label": 1}
    refused = json.loads((folder / "artifacts" / "refused.jsonl").read_text())
    assert (refused["row"], "none of 0, 1" in refused["why"]) == (3, True)
