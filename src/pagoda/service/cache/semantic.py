"""The semantic cache: the answer to a question that was asked in other words. An option per route, off by default.

Only the last user message may differ: tenant, model, everything else must be equal. The nearest earlier question counts
when its cosine reaches the calibrated threshold and ``guard.agree`` finds nothing that sets the two apart. Without a
calibration whose measured false-hit rate is within what the user allows, there is no semantic cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson

from pagoda.core.errors import PagodaError, StoreError
from pagoda.core.types import Embeddings, Generation
from pagoda.service.cache.calibration import Calibration
from pagoda.service.cache.guard import agree
from pagoda.service.cache.key import Request

logger = logging.getLogger(__name__)

Embedder = Callable[[str, str], Awaitable[Embeddings]]
"""Gives the vector of a tenant's text."""

_BUCKETS = 1_000
_QUESTIONS = 1_000
SIMILAR = "This is the answer to a similar question that was asked before (semantic cache)."


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A calibration as it is kept: for which embedding model it holds, and what it found."""

    model: str
    form: str
    threshold: float
    guarded: bool
    false_hits: float
    true_hits: float
    verdict: str

    @classmethod
    def of(cls, model: str, found: Calibration, allowed: float) -> Approval:
        """The approval (or refusal) that a calibration amounts to."""
        return cls(
            model=model,
            form=method(),
            threshold=found.threshold,
            guarded=found.guarded,
            false_hits=found.false_hits,
            true_hits=found.true_hits,
            verdict=found.verdict(allowed),
        )

    def objection(self, model: str, allowed: float) -> str:
        """Why it does not allow a semantic cache; empty when it does."""
        if (self.model, self.form) != (model, method()):
            return f"it was calibrated for {self.model}, or by an older version; run `pagoda cache calibrate` again."
        if self.verdict:
            return self.verdict
        if self.false_hits > allowed:
            return f"its false-hit rate of {self.false_hits:.1%} exceeds the allowed {allowed:.1%}."
        return ""


def method() -> str:
    """A digest of the pairs and of the guard: another version's figures are not this one's."""
    folder = resources.files(__package__)
    parts = [folder.joinpath(name).read_bytes() for name in ("pairs.jsonl", "guard.py")]
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


def keep_approval(path: Path, approval: Approval) -> None:
    """Write it where the service looks when it starts. Raises ``StoreError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(approval))
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}); make room or set PAGODA_HOME.") from error


def semantic_objection(path: Path, model: str, allowed: float) -> tuple[Approval | None, str]:
    """The approval for an embedding model, or why there is none."""
    try:
        approval = Approval(**orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        return None, "it was never calibrated; run `pagoda cache calibrate`."
    except (OSError, orjson.JSONDecodeError, TypeError) as error:
        return None, f"{path} cannot be read ({error}); run `pagoda cache calibrate` again."
    objection = approval.objection(model, allowed)
    return (None if objection else approval), objection


@dataclass(frozen=True, slots=True)
class Question:
    """The last user message, its vector, and the bucket of requests that are equal but for it."""

    text: str
    vector: bytes
    bucket: bytes


class SemanticIndex:
    """Questions by bucket, pointing to the keys of their answers; bounded, in this process only."""

    def __init__(self, threshold: float, embed: Embedder) -> None:
        self._threshold = threshold
        self._embed = embed
        self._buckets: OrderedDict[bytes, OrderedDict[bytes, Question]] = OrderedDict()

    async def question(self, tenant: str, request: Request, key_of: Callable[[Request], bytes]) -> Question | None:
        """What is asked, if it is a text whose neighbours can be looked for; never fails a request."""
        blank = without_question(request)
        if blank is None:
            return None
        text, rest = blank
        try:
            vector = (await self._embed(tenant, text)).vectors[0]
        except PagodaError as error:
            logger.warning("No similar question was looked for: %s", error.message)
            return None
        return Question(text, vector, key_of(rest))

    def nearest(self, question: Question) -> bytes | None:
        """The digest of the key whose question is near enough and agrees."""
        known = self._buckets.get(question.bucket)
        if not known:
            return None
        self._buckets.move_to_end(question.bucket)
        digests = list(known)
        vectors = np.frombuffer(b"".join(known[digest].vector for digest in digests), "<f4").reshape(len(digests), -1)
        scores = vectors @ np.frombuffer(question.vector, "<f4")
        order: list[int] = np.argsort(-scores).tolist()
        for place in order:
            if scores[place] < self._threshold:
                return None
            if agree(question.text, known[digests[place]].text):
                return digests[place]
        return None

    def add(self, digest: bytes, question: Question) -> None:
        """Note whose answer is kept now."""
        known = self._buckets.setdefault(question.bucket, OrderedDict())
        self._buckets.move_to_end(question.bucket)
        known[digest] = question
        if len(known) > _QUESTIONS:
            known.popitem(last=False)
        if len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)

    def forget(self, digest: bytes, question: Question) -> None:
        """An answer that is gone is looked for no more."""
        if known := self._buckets.get(question.bucket):
            known.pop(digest, None)


def without_question(request: Request) -> tuple[str, Request] | None:
    """The last message, if it is the user's text, and the request with a blank in its place."""
    if not isinstance(request, Generation) or not request.messages:
        return None
    last = request.messages[-1]
    if last.get("role") != "user" or not isinstance(last.get("content"), str) or not last["content"].strip():
        return None
    rest = dataclasses.replace(request, messages=(*request.messages[:-1], {**last, "content": None}))
    return cast("dict[str, Any]", last)["content"], rest
