"""A trained model as its trainer saw it, and the same with its adapter merged in. torch and PEFT, while they are used.

Tied embeddings are the trap: merging a LoRA of ``lm_head`` writes into the matrix that ``embed_tokens`` shares, and
the model then reads other words than it was trained on. So a tied model whose head or embedding an adapter touches is
untied before the merge, and saved with both matrices.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, PagodaError, StoreError, Unavailable
from pagoda.model.catalog.entry import ADAPTER_FILES
from pagoda.model.catalog.recipes.safetensors import read_tensors
from pagoda.model.catalog.recipes.writing import disk_fault
from pagoda.model.export.adapter_file import PAIR
from pagoda.model.export.folder import FOUR_BITS, read_table
from pagoda.model.training.launching import let_threads_sleep

_ENDS = ("lm_head", "embed_tokens", "wte")
"""Modules that a tied model holds one matrix for."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A model as the trainer computes with it: base and live adapter, if there is one."""

    model: Any
    tokenizer: Any
    stops: tuple[int, ...]
    """Token ids at which it stops."""
    adapted: bool


def load_trained(base: Path, adapter: Path | None) -> Trained:
    """Load a checkpoint in single precision, with its adapter unmerged. The adapter's tokenizer wins over the base's.

    An adapter of QLoRA was trained on what four bits leave of its base, and gets that base: on the original one it
    would answer otherwise than it did for its trainer.

    Raises ``Unavailable`` where torch, PEFT or bitsandbytes is missing, ``InvalidRequest`` where the adapter does not
    fit the base, ``StoreError`` for broken files.
    """
    let_threads_sleep()
    try:
        import torch

        from pagoda.model.engines.transformers_child.checkpoint import load_checkpoint  # noqa: PLC0415  (torch)
    except ImportError as error:
        raise _not_installed(error) from error
    dtype, loading = torch.float32, {}
    if adapter is not None and (adapter / FOUR_BITS).is_file():
        from pagoda.model.training.adapting import four_bits  # noqa: PLC0415  (torch)

        dtype = getattr(torch, str(read_table(adapter / FOUR_BITS)["dtype"]))
        loading = {"quantization_config": four_bits(dtype), "device_map": {"": "cpu"}}
    try:
        found = load_checkpoint(base, embeds=False, device="cpu", dtype=dtype, trust=False, **loading)
    except (StoreError, Unavailable) as error:
        told = f"The checkpoint in {base} cannot be loaded: {_reason(error)}."
        raise type(error)(told, code=error.code, retryable=False) from error
    model, tokenizer = found.model, found.tokenizer
    if loading:
        model = model.dequantize().float()
    if adapter is not None:
        tokenizer = _own_tokenizer(adapter) or tokenizer
        model = _with_adapter(model, adapter)
    return Trained(model, tokenizer, _stops(model, tokenizer), adapter is not None)


def save_merged(trained: Trained, folder: Path, dtype: str) -> bool:
    """Merge the adapter into the model, in single precision, and save it as a checkpoint with weights of torch's
    ``dtype``; gives whether tied embeddings were untied.

    After this ``trained.model`` computes with merged weights and is the trainer's no longer. Raises ``OSError`` with
    the number of a full disk.
    """
    import torch
    from safetensors import SafetensorError  # noqa: PLC0415  (transformers brings it along)

    model, untied = trained.model, False
    if trained.adapted:
        untied = _untie(model)
        if untied:
            for config in (model.get_base_model().config, model.get_base_model().config.get_text_config()):
                config.tie_word_embeddings = False
        with _handled_ties():
            model = model.merge_and_unload()
    model.generation_config.eos_token_id = list(trained.stops)
    if dtype != "float32":
        model = model.to(getattr(torch, dtype))
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:
        raise disk_fault(error, folder) from error
    trained.tokenizer.save_pretrained(folder)
    return untied


def is_adapter(folder: Path) -> bool:
    """Whether PEFT saved an adapter in the folder."""
    return (folder / ADAPTER_FILES[0]).is_file()


def base_named_by(adapter: Path) -> str:
    """What the adapter says it was trained on: a path or a hub's id."""
    return str(read_table(adapter / ADAPTER_FILES[0]).get("base_model_name_or_path") or "")


def _with_adapter(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError as error:
        raise _not_installed(error) from error
    if not (adapter / ADAPTER_FILES[1]).is_file():
        raise InvalidRequest(f"{adapter} is no adapter: it has no {ADAPTER_FILES[1]} (a pickle is never loaded).")
    kind = read_table(adapter / ADAPTER_FILES[0]).get("task_type")
    if kind not in (None, "CAUSAL_LM"):
        raise InvalidRequest(
            f"The adapter in {adapter} was trained for {kind}: it tells labels and writes no text, so it cannot be "
            "exported."
        )
    _check_fit(model, adapter)
    try:
        with _handled_ties():
            live = PeftModel.from_pretrained(model, adapter, is_trainable=False)
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as error:
        raise InvalidRequest(
            f"The installed PEFT cannot attach the adapter in {adapter} to its base model, though its matrices fit; "
            "the log has its words."
        ) from error
    return live.eval()


def _check_fit(model: Any, adapter: Path) -> None:
    """Refuse an adapter of another base: PEFT passes over modules that the model lacks."""
    named = model.named_parameters(remove_duplicate=False)  # tied ends are two modules
    shapes = {name.removesuffix(".weight"): tuple(values.shape) for name, values in named}
    for key, values in read_tensors(adapter / ADAPTER_FILES[1]).items():
        if (match := PAIR.fullmatch(key)) is None:
            continue
        module, there = match["module"], shapes.get(match["module"])
        size, what = (values.shape[-1], "inputs") if match["side"] == "A" else (len(values), "outputs")
        if there is None or size not in there:
            mine = "the base has no such module" if there is None else f"the base's is {there[0]} by {there[1]}"
            raise InvalidRequest(
                f"The adapter in {adapter} does not fit its base model: its {module} has {size} {what}, and {mine}."
            )


@contextmanager
def _handled_ties() -> Iterator[None]:
    """Without PEFT's warnings that tied embeddings want care: they get it here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Model (has|with) `tie_word_embeddings=True`", UserWarning)
        yield


def _untie(model: Any) -> bool:
    """Give head and embedding matrices of their own, where they share one and the adapter touches either."""
    import torch

    inner = model.get_base_model()
    head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings()
    if head is None or _weight(head) is not _weight(embedding):
        return False
    if not any(name.split(".")[-1] in _ENDS and hasattr(module, "merge") for name, module in model.named_modules()):
        return False
    _plain(head).weight = torch.nn.Parameter(_weight(head).detach().clone(), requires_grad=False)
    return True


def _plain(module: Any) -> Any:
    """The module itself, below an adapter's layer."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _weight(module: Any) -> Any:
    return _plain(module).weight


def _stops(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Those of the base, and the one that the trainer taught: the end of its tokenizer."""
    stated = model.generation_config.eos_token_id
    found: list[int] = [stated] if isinstance(stated, int) else [*(stated or ())]
    if tokenizer.eos_token_id is not None:
        found.append(tokenizer.eos_token_id)
    if not found:
        raise InvalidRequest(
            "The model has no end of sequence: neither its generation config nor its tokenizer name one."
        )
    return tuple(dict.fromkeys(int(id) for id in found))


def _reason(error: PagodaError) -> str:
    """Why a checkpoint does not load, as a sentence's part in our words; those of libraries are in the log."""
    if error.__cause__ is None:
        return error.message.rstrip(".")
    if isinstance(error, StoreError):
        return "its weights or its config.json are corrupt"
    return "transformers takes its config, tokenizer and weights for none that fit one another; the log has its words"


def _own_tokenizer(adapter: Path) -> Any:
    """The tokenizer that the trainer saved beside the adapter, if it did."""
    from transformers import AutoTokenizer

    if not (adapter / "tokenizer.json").is_file():
        return None
    return AutoTokenizer.from_pretrained(adapter, local_files_only=True)


def _not_installed(error: ImportError) -> Unavailable:
    return Unavailable(
        f"Exporting needs {error.name}, which this install does not have: run `pip install 'pagoda-llm[train]'`.",
        code="not_installed",
        retryable=False,
    )
