"""Rows as tokens with labels: which tokens carry loss, and which rows are refused. Not how they are batched.

Labels equal the tokens where the model shall learn them and are ``IGNORED`` elsewhere. They are decided by position,
never by the id of a token, so the end-of-text token is learnt even where it serves as padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.model.data.rows import Refused, Row, conversation_fault
from pagoda.model.training.recipe import Recipe

NO_TEMPLATE = "the model has no chat template; give rows of prompt and completion"
IGNORED = -100
"""The label of a token without loss, as PyTorch's cross entropy has it."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row as the model sees it. ``labels``: token ids (not shifted), or one class index."""

    number: int
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: bool = False
    ends: bool = False
    """Whether the end of the answer (the stop token) is learnt."""

    @property
    def supervised(self) -> int:
        """Tokens that carry loss; the first one never does, as nothing predicts it."""
        return sum(label != IGNORED for label in self.labels[1:])


@dataclass(frozen=True, slots=True)
class Encoded:
    """What became of the rows of a set."""

    examples: tuple[Example, ...]
    refused: tuple[Refused, ...]


class Encoder:
    """Encodes rows by a recipe with a tokenizer of transformers."""

    def __init__(self, tokenizer: Any, recipe: Recipe, labels: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._recipe = recipe
        self._classes = {label: place for place, label in enumerate(labels)}
        self._end: int | None = tokenizer.eos_token_id
        if recipe.task == "generation" and self._end is None:
            raise InvalidRequest("The tokenizer has no end-of-text token, so no answer could learn to end.")

    def encode(self, rows: Sequence[Row]) -> Encoded:
        """Every row as an example, or refused with the reason."""
        found = [self._encode(row) for row in rows]
        return Encoded(
            tuple(each for each in found if isinstance(each, Example)),
            tuple(each for each in found if isinstance(each, Refused)),
        )

    def _encode(self, row: Row) -> Example | Refused:
        if not row.text.strip():
            return _refuse(row, "empty", "it has no text")
        if self._recipe.task == "classification":
            return self._classified(row)
        if row.form == "text":
            ids = self._tokens(row.content["text"], special=True)
            return self._cut(row, ids, list(ids), ended=True)
        if row.form == "completion":
            if self._recipe.template == "chat":
                return self._spoken(row, _as_messages(row))
            return self._completed(row)
        if row.form == "chat":
            return self._spoken(row, row.content["messages"])
        return _refuse(row, "form", f"rows of the form {row.form} are not for {self._recipe.task}")

    def _completed(self, row: Row) -> Example | Refused:
        """The prompt is encoded as it is when the model is asked, and the completion as what goes on from there."""
        if not str(row.content["completion"]).strip():
            return _refuse(row, "no_label", "its completion is empty, so there is nothing to learn")
        before = self._tokens(row.content["prompt"], special=True)
        after = self._continued(before, row.content["prompt"], row.content["completion"])
        ids = before + after
        hidden = 0 if self._recipe.loss_on == "all" else len(before)
        return self._cut(row, ids, [IGNORED] * hidden + ids[hidden:], ended=True)

    def _spoken(self, row: Row, messages: Sequence[Mapping[str, Any]]) -> Example | Refused:
        if self._tokenizer.chat_template is None:
            return _refuse(row, "template", NO_TEMPLATE)
        if fault := conversation_fault(messages):
            return _refuse(row, "roles", fault)
        try:
            whole, spans = self._rendered(row, messages)
        except Exception as error:  # noqa: BLE001 - a template is a program of others and raises what it likes
            return _refuse(row, "template", _refusal(error))
        if spans is None:
            why = (
                "the chat template rewrites earlier turns, so what is learnt of them cannot be told; set loss_on: last"
            )
            return _refuse(row, "template", why)
        # The template says all special tokens itself: the tokenizer must not add a second beginning.
        coded = self._tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        ids, places = coded["input_ids"], coded["offset_mapping"]
        if self._recipe.loss_on == "all":
            spans = [(0, len(whole.rstrip()))]  # as of an answer: what the template puts after its end is not learnt
        labels = [
            token if any(begin <= start and stop <= end and stop > start for begin, end in spans) else IGNORED
            for token, (start, stop) in zip(ids, places, strict=True)
        ]
        return self._cut(row, list(ids), labels, ended=False)

    def _rendered(self, row: Row, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]] | None]:
        """The whole conversation as text, and where in it the assistant speaks: to the end of its turn, included."""
        whole = _render(self._tokenizer, row, messages)
        spans = []
        first = len(messages) - 1 if self._recipe.loss_on == "last" else 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant" or place < first:
                continue
            before = _render(self._tokenizer, row, messages[:place], asks=True)
            through = _render(self._tokenizer, row, messages[: place + 1])
            if not whole.startswith(through) or not through.startswith(before):
                return whole, None
            spans.append((len(before), len(through.rstrip())))  # a line end after the stop token is not the model's
        return whole, spans

    def _classified(self, row: Row) -> Example | Refused:
        if row.form != "classification":
            return _refuse(row, "form", f"a classification needs text and label, and this row is {row.form}")
        place = self._classes.get(str(row.content["label"]))
        if place is None:
            known = ", ".join(list(self._classes)[:10])
            return _refuse(row, "label", f"its label {row.content['label']!r} is none of {known}")
        ids = self._tokens(row.content["text"], special=True)
        cut = len(ids) > self._recipe.max_length
        if cut and self._recipe.data.too_long == "refuse":
            return self._overlong(row, len(ids))
        return Example(row.number, tuple(ids[: self._recipe.max_length]), (place,), truncated=cut)

    def _cut(self, row: Row, ids: list[int], labels: list[int], *, ended: bool) -> Example | Refused:
        """With the end of text appended where the template has none, and no longer than the recipe allows."""
        if ended and self._end is not None and (not ids or ids[-1] != self._end):
            ids, labels = [*ids, self._end], [*labels, self._end]
        most = self._recipe.max_length
        if len(ids) > most and self._recipe.data.too_long == "refuse":
            return self._overlong(row, len(ids))
        last = next((label for label in reversed(labels[:most]) if label != IGNORED), IGNORED)
        example = Example(
            row.number,
            tuple(ids[:most]),
            tuple(labels[:most]),
            truncated=len(ids) > most,
            ends=last in self._stops(),
        )
        if example.supervised:
            return example
        why = "is cut off" if example.truncated else "is empty"
        return _refuse(row, "no_label", f"no token of it would be learnt: its answer {why}")

    def _overlong(self, row: Row, tokens: int) -> Refused:
        return _refuse(row, "too_long", f"it has {tokens} tokens, more than max_length ({self._recipe.max_length})")

    def _stops(self) -> set[int]:
        """Tokens that end an answer: the end of text, and what else the tokenizer calls special."""
        special = set(self._tokenizer.all_special_ids)
        added = {
            place for place, token in self._tokenizer.added_tokens_decoder.items() if getattr(token, "special", False)
        }
        return {end for end in (self._end,) if end is not None} | special | added

    def _continued(self, before: Sequence[int], prompt: str, completion: str) -> list[int]:
        """The completion's tokens after those of the prompt: SentencePiece would put a space before a text by itself.

        Where a token reaches from one into the other, it is encoded by itself after all.
        """
        whole = self._tokens(prompt + completion, special=True)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._tokens(completion, special=False)

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=special)["input_ids"]
        if special and len(ids) > 1 and ids[-1] == self._end and self._recipe.task == "generation":
            ids = ids[:-1]  # some tokenizers end every text; the end belongs after the completion alone
        return ids


def template_fault(tokenizer: Any, row: Row) -> str | None:
    """Why a model's chat template does not take a conversation, as a sentence's part, or ``None``."""
    if row.form != "chat":
        return None
    if tokenizer.chat_template is None:
        return NO_TEMPLATE
    try:
        _render(tokenizer, row, row.content["messages"])
    except Exception as error:  # noqa: BLE001 - as above
        return _refusal(error)
    return None


def class_labels(rows: Sequence[Row], recipe: Recipe) -> tuple[str, ...]:
    """The labels of a classification: the recipe's, or those that the rows have, sorted. Raises ``InvalidRequest``."""
    if recipe.task != "classification":
        return ()
    found = tuple(recipe.labels) or tuple(
        sorted({str(row.content["label"]) for row in rows if row.form == "classification"})
    )
    if not found:
        raise InvalidRequest(
            f"A classification needs rows of text and label, and those of {recipe.data.train} are {rows[0].form}."
        )
    if len(found) < 2 or len(set(found)) < len(found):
        raise InvalidRequest(f"A classification needs two labels or more, each once; there are: {', '.join(found)}.")
    return found


def _as_messages(row: Row) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": row.content["prompt"]},
        {"role": "assistant", "content": row.content["completion"]},
    ]


def _refuse(row: Row, reason: str, why: str) -> Refused:
    return Refused(row.number, reason, why, dict(row.content), row.source)


def _render(tokenizer: Any, row: Row, messages: Sequence[Mapping[str, Any]], *, asks: bool = False) -> str:
    told = {"tools": row.content["tools"]} if row.content.get("tools") else {}
    said: str = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=asks, **told)
    return said


def _refusal(error: Exception) -> str:
    return f"the chat template refuses it ({' '.join(str(error).split())[:200]})"
