"""Writes a Hugging Face checkpoint as a GGUF file, without torch. Not the proof that it answers the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf

from pagoda.core.ports import Progress
from pagoda.model.catalog.disk import place, stored
from pagoda.model.catalog.recipes.writing import write_out
from pagoda.model.export.architecture import family_of, layers_of
from pagoda.model.export.folder import read_checkpoint
from pagoda.model.export.vocabulary import read_vocabulary
from pagoda.model.quantize.blocks import NUMPY_KINDS, encode
from pagoda.model.quantize.forms import Form, type_of


def write_gguf(
    folder: Path, tokenizer: Any, stops: Sequence[int], target: Path, form: Form, progress: Progress
) -> None:
    """Write the checkpoint in ``folder`` to ``target``, whole or not at all.

    Raises ``InvalidRequest`` for what GGUF or llama.cpp has no form for, ``StoreError`` for a full disk.
    """
    config, state = read_checkpoint(folder)
    family = family_of(config)
    rows = next(len(state[name]) for name in state if name.endswith(("embed_tokens.weight", "wte.weight")))
    tied = bool(config.get("tie_word_embeddings")) or not any(name.endswith("lm_head.weight") for name in state)
    vocabulary = read_vocabulary(folder, tokenizer, stops, rows)
    draft = target.with_name(f".{target.name}.draft")
    with stored(f"The file {target.name}", target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(draft, family.name)
        try:
            writer.add_name(folder.name)
            writer.add_type("model")
            family.shape(writer, config)
            writer.add_file_type(form.file_type)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            vocabulary.write(writer)
            for done, (name, values) in enumerate(family.tensors(state, config), 1):  # one at a time in memory
                kind = type_of(form, name, values.shape, layers_of(config), tied=tied)
                data = encode(values, kind)
                writer.add_tensor(name, data, raw_dtype=None if kind in NUMPY_KINDS else kind)
                progress("quantise", done, max(done, len(state)))
            write_out(writer)
            place(draft, target)
        finally:
            draft.unlink(missing_ok=True)
