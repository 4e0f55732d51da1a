"""The rows of a distillation: read from JSON Lines, and as token ids with what is to be learnt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Message

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Row:
    """A conversation or text to go on from, and how it goes on; with no prompt the whole text is learnt."""

    prompt: str | tuple[Message, ...]
    answer: str


def read_rows(path: Path, limit: int, *, answered: bool) -> list[Row]:
    """The rows of a file. ``answered``: each must hold its answer. ``InvalidRequest`` names the line at fault."""
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if limit and len(rows) == limit:
                    break
                if line.strip():
                    rows.append(_row(json.loads(line), f"{path}, line {number}", answered=answered))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", param="data") from error
    except ValueError as error:
        raise InvalidRequest(f"{path}: line {number} is not JSON ({error}).", param="data") from error
    if not rows:
        raise InvalidRequest(f"{path} has no rows.", param="data")
    return rows


def _row(data: Any, place: str, *, answered: bool) -> Row:
    if isinstance(data, Mapping):
        if isinstance(data.get("text"), str) and answered:
            return Row("", data["text"])
        prompt, completion = data.get("prompt"), data.get("completion", "")
        if isinstance(prompt, str) and isinstance(completion, str) and (completion or not answered):
            return Row(prompt, completion)
        if (messages := data.get("messages")) and isinstance(messages, list) and all(map(_is_message, messages)):
            if messages[-1]["role"] == "assistant":
                return Row(tuple(messages[:-1]), messages[-1]["content"] if answered else "")
            if not answered:
                return Row(tuple(messages), "")
    wanted = (
        "messages that end with the assistant's, prompt and completion, or text" if answered else "messages or prompt"
    )
    raise InvalidRequest(f"{place} has no {wanted}.", param="data")


def _is_message(found: Any) -> bool:
    return isinstance(found, Mapping) and isinstance(found.get("role"), str) and isinstance(found.get("content"), str)


def encode(row: Row, tokenizer: Any, max_length: int) -> dict[str, list[int]]:
    """``input_ids`` and ``labels``: the answer and the end after it are learnt, the prompt is not.

    A row that is cut loses its end, not its prompt. Padding is never told by its id, so that the end is learnt also
    where it pads.
    """
    prompt = _prompt_ids(row.prompt, tokenizer)
    answer = tokenizer.encode(row.answer, add_special_tokens=not prompt)
    answer = answer[:-1] if answer and answer[-1] == tokenizer.eos_token_id else answer
    ids = [*prompt, *answer, tokenizer.eos_token_id][:max_length]
    labels = [*([IGNORED] * len(prompt)), *answer, tokenizer.eos_token_id][:max_length]
    return {"input_ids": ids, "labels": labels}


def _prompt_ids(prompt: str | tuple[Message, ...], tokenizer: Any) -> list[int]:
    if isinstance(prompt, str):
        found: list[int] = tokenizer.encode(prompt) if prompt else []
        return found
    if not tokenizer.chat_template:
        raise InvalidRequest("The student has no chat template, and the rows are messages; give prompt and completion.")
    text = tokenizer.apply_chat_template(list(prompt), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def padded(rows: Sequence[Mapping[str, Sequence[int]]], filler: int) -> dict[str, Any]:
    """A batch: ids, mask and labels of equal length, padded on the right."""
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def filled(key: str, value: int) -> list[list[int]]:
        return [[*row[key], *[value] * (longest - len(row[key]))] for row in rows]

    masks = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": torch.tensor(filled("input_ids", filler)),
        "attention_mask": torch.tensor(masks),
        "labels": torch.tensor(filled("labels", IGNORED)),
    }
