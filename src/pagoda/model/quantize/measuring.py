"""What a form of a model costs: perplexity, divergence from the original, a task, speed. torch, while it is used.

Perplexity is exp of the mean negative log-likelihood of the next token over all tokens but the first of each text.
The divergence is KL(original || form), natural logarithm, mean over the same places and the whole vocabulary
(Kullback and Leibler, 1951). The original are its weights as they are, computed in single precision: a checkpoint in
half precision so has a divergence of its own, which is what its precision rounds away. The task is LAMBADA's (Paperno
et al., 2016): the last word, all of its tokens, greedily.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pagoda.core.errors import InvalidRequest, StoreError

if TYPE_CHECKING:
    from pagoda.model.export.merging import Trained

_DECODED = 16
_CJK = "\u2e80"
"""From here on Unicode has the scripts of East Asia, which put no spaces between words."""
_LAST = 2
_ENDS = "。！？…”’」』）"
_SAME = 1e-3
_PIECE = 512
"""Tokens that are computed at once: bounds the memory of their probabilities over the whole vocabulary."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text, and the word that ends it."""

    context: str
    word: str
    joint: str = " "
    """What stands between them: nothing in Chinese."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Figures of one form on the sample. Speeds in tokens a second, of one text at a time."""

    tokens: int
    perplexity: float
    divergence: float
    """Mean KL from the original."""
    worst: float
    """Its 99th percentile."""
    agreement: float
    """Share of places where both have the same favourite."""
    accuracy: float
    reading: float
    """Tokens of prompts a second."""
    writing: float
    """Tokens written a second."""


def read_texts(path: Path, rows: int) -> list[Text]:
    """The first ``rows`` texts of a JSON Lines file with ``context`` and ``continuation``, or ``text``.

    A ``text`` ends with the word after its last space, or, in Chinese, with its last two characters.
    """
    found: list[Text] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if len(found) == rows:
                    break
                found.append(_text(json.loads(line), f"{path}, line {number}"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.", param="data") from error
    except ValueError as error:
        raise InvalidRequest(f"{path}, line {len(found) + 1} is not JSON.", param="data") from error
    if not found:
        raise InvalidRequest(f"{path} has no texts.", param="data")
    return found


def _text(row: Any, place: str) -> Text:
    if isinstance(row, dict):
        context, word, text = row.get("context"), row.get("continuation"), row.get("text")
        if isinstance(text, str) and " " in text.strip():
            context, _, word = text.strip().rpartition(" ")
        elif isinstance(text, str) and (said := text.strip().rstrip(_ENDS)) and said[-1] >= _CJK:
            context, word = said[:-_LAST], said[-_LAST:]
        if isinstance(context, str) and isinstance(word, str) and context.strip() and word.strip():
            context, word = context.rstrip(), word.strip()
            return Text(context, word, "" if max(context[-1], word[0]) >= _CJK else " ")
    raise InvalidRequest(f"{place} has neither context and continuation nor a text of several words.", param="data")


class Measure:
    """Measures forms against one original on one sample. The original's log-probabilities are kept on disk."""

    def __init__(self, trained: Trained, texts: Sequence[Text], kept: Path, tick: Callable[[int, int], None]) -> None:
        tokenizer, most = trained.tokenizer, trained.model.config.get_text_config().max_position_embeddings
        self._rows: list[tuple[list[int], int]] = []
        """Tokens of each text (of a long one the end that the context holds), and how many are before its last word."""
        for text in texts:
            context = tokenizer.encode(text.context)
            whole = tokenizer.encode(f"{text.context}{text.joint}{text.word}")
            cut = max(0, len(whole) - most)
            self._rows.append((whole[cut:], max(1, min(len(context), len(whole) - 1) - cut)))
        self._kept = kept
        self._tick = tick

    def original(self, model: Any) -> Quality:
        """The original's figures in single precision; keeps what others, and its own precision, are compared with."""
        self._kept.mkdir(parents=True, exist_ok=True)
        return self._measured(model, keep=True)

    def form(self, model: Any) -> Quality:
        """A form's figures against the original, which was measured before."""
        return self._measured(model, keep=False)

    def check_same(self, live: Any, reloaded: Any) -> None:
        """Raise ``StoreError`` unless a form that was loaded again computes what the one that was saved does."""
        import torch

        ids = torch.tensor([self._rows[0][0][:_PIECE]])
        with torch.inference_mode():
            gap = float((live(ids).logits.float() - reloaded(ids).logits.float()).abs().max())
        if not gap <= _SAME:  # a NaN is not
            told = f"what was saved loads as another model (logits differ by up to {gap:.3g})"
            raise StoreError(told, code="broken_file")

    def _measured(self, model: Any, *, keep: bool) -> Quality:
        import torch

        losses: list[float] = []
        gaps: list[float] = []
        agreed = right = 0
        seconds = 0.0
        writing = _writing_speed(model, self._rows[0][0][:16])  # before the others: the first passes are slow
        for number, (ids, start) in enumerate(self._rows):
            hit = True
            for first, logits, took in self._pieces(model, ids[:-1], number):
                seconds += took
                table = torch.log_softmax(logits, dim=-1)
                wanted = torch.tensor(ids[first + 1 : first + 1 + len(table)])
                losses += (-table[torch.arange(len(wanted)), wanted]).tolist()
                favourite = table.argmax(dim=-1)
                ending = max(0, start - 1 - first)
                hit &= bool((favourite[ending:] == wanted[ending:]).all())
                place = self._kept / f"{number}-{first}.npy"
                if keep:
                    np.save(place, table.numpy())
                original = table if keep else torch.from_numpy(np.load(place))
                gaps += (original.exp() * (original - table)).sum(dim=-1).clamp(min=0).tolist()
                agreed += int((original.argmax(dim=-1) == favourite).sum())
            right += hit
        self._tick(len(self._rows), len(self._rows))
        tokens = len(losses)
        return Quality(
            tokens=tokens,
            perplexity=math.exp(min(sum(losses) / tokens, 700.0)),
            divergence=sum(gaps) / tokens,
            worst=float(np.percentile(gaps, 99)),
            agreement=agreed / tokens,
            accuracy=right / len(self._rows),
            reading=tokens / seconds,
            writing=writing,
        )

    def _pieces(self, model: Any, ids: Sequence[int], number: int) -> Iterator[tuple[int, Any, float]]:
        """Logits of a text, shape (tokens of a piece, vocabulary), with the piece's place and the seconds it took.

        Later pieces see the earlier ones by the model's own cache. Before each the run may be stopped.
        """
        import torch

        cache = None
        for first in range(0, len(ids), _PIECE):
            self._tick(number, len(self._rows))
            piece = torch.tensor([ids[first : first + _PIECE]])
            began = time.perf_counter()
            with torch.inference_mode():
                out = model(piece, past_key_values=cache, use_cache=len(ids) > _PIECE)
            took = time.perf_counter() - began
            cache = out.past_key_values
            yield first, out.logits[0].float(), took


def _writing_speed(model: Any, prompt: Sequence[int]) -> float:
    """Tokens written a second, by the model's own cache, the prompt's pass left out."""
    import torch

    with torch.inference_mode():
        out = model(torch.tensor([list(prompt)]), use_cache=True)
        began = time.perf_counter()
        for _ in range(_DECODED):
            token = out.logits[:, -1:].argmax(dim=-1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
    return _DECODED / (time.perf_counter() - began)
