"""What model files say about themselves: completes a catalog entry from a GGUF header or a checkpoint's config."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from pagoda.core.errors import StoreError
from pagoda.model.catalog.entry import EmbeddingForm, ModelEntry, Task
from pagoda.model.catalog.gguf_header import read_gguf_header

_SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def complete_entry(entry: ModelEntry, path: Path) -> ModelEntry:
    """The entry with engine, task, context, dimensions and sampling as the files at ``path`` state them.

    What the entry says already stays.
    """
    found = _from_checkpoint(path) if path.is_dir() else _from_gguf(path)
    fresh = {name: value for name, value in found.items() if value and (name in _READ or not getattr(entry, name))}
    return dataclasses.replace(entry, **fresh)


_READ = ("engine", "task")


def _from_gguf(path: Path) -> dict[str, Any]:
    header = read_gguf_header(path, "fetch or copy it again")
    task: Task = "embedding" if header.embeds else "chat" if header.chats else "completion"
    return {
        "engine": "onnxruntime" if header.encodes else "llamacpp",
        "task": task,
        "context": header.context,
        "dimensions": header.dimensions if header.embeds else None,
        "sampling": header.sampling,
        "licence": str(header.values.get("general.license", "")),
    }


def _from_checkpoint(path: Path) -> dict[str, Any]:
    config = _json(path / "config.json")
    embeds = (path / "modules.json").is_file() or (path / "sentence_bert_config.json").is_file()
    template = (path / "chat_template.jinja").is_file() or "chat_template" in _json(path / "tokenizer_config.json")
    generation = _json(path / "generation_config.json")
    prompts = _json(path / "config_sentence_transformers.json").get("prompts") or {}
    task: Task = "embedding" if embeds else "chat" if template else "completion"
    form = EmbeddingForm(
        query_prefix=str(prompts.get("query", "")),
        passage_prefix=str(prompts.get("passage") or prompts.get("document") or ""),
    )
    return {
        "engine": "transformers",
        "task": task,
        "context": config.get("max_position_embeddings"),
        "dimensions": config.get("hidden_size") if embeds else None,
        "sampling": {key: float(generation[key]) for key in _SAMPLING_KEYS if generation.get(key) is not None},
        "embedding": form if form != EmbeddingForm() else None,
    }


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is broken ({error}); fetch it again.", code="broken_file") from error
    return content if isinstance(content, dict) else {}
