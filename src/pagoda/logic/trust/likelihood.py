"""The first family: how likely a model finds the tokens of an answer, after its question and sources.

Log-probabilities that were told when the answer was generated are taken as they are; else the text is scored through
the door, its first ``MOST_CHARACTERS``. Likely is not true: a fluent invention is likely too. Average and largest
-log p as in Manakul, Liusie and Gales, "SelfCheckGPT", 2023.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from pagoda.core.errors import InvalidRequest, ModelError, NotFound
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Score, TokenLogprob
from pagoda.logic.prompts.rendering import render
from pagoda.logic.texts.citations import CITATION
from pagoda.logic.trust.evidence import excerpt
from pagoda.logic.trust.prompts import trust_prompt
from pagoda.logic.trust.subject import Signal, Subject, unavailable

MOST_CHARACTERS = {"en": 300, "zh": 100}
"""Of an answer that are scored: each token of it is a step of the model."""
MOST_SOURCE_CHARACTERS = {"en": 1200, "zh": 400}
"""Of its sources that stand before it, those next to what the answer speaks of."""
_LEAST = -20.0  # nats; what is less likely is not told apart


async def likelihood(subject: Subject, door: Inference, call: Call) -> Signal:
    """Mean and least log-probability (nats) of the answer's tokens; the value is their geometric mean probability."""
    tokens = subject.logprobs
    told = "generation"
    if not tokens:
        if not subject.model:
            return unavailable("token_probability", "no model was named whose probabilities could be read")
        try:
            tokens, told = await score_tokens(subject, door, call), "score"
        except (InvalidRequest, NotFound, ModelError) as error:
            return unavailable("token_probability", error.message)
    return read_tokens(tokens, told)


async def score_tokens(subject: Subject, door: Inference, call: Call) -> tuple[TokenLogprob, ...]:
    """The answer's tokens with their log-probabilities, after the question and what the sources say around it."""
    language = subject.language
    values = {"question": subject.question}
    near, most = f"{subject.question} {subject.answer}", MOST_SOURCE_CHARACTERS[language]
    if shown := await asyncio.to_thread(excerpt, subject.sources, near, most):
        values["sources"] = shown
    before = str(render(trust_prompt("likelihood"), values, language).messages[-1]["content"]).rstrip("\n")
    text = CITATION.sub("", subject.answer).strip()[: MOST_CHARACTERS[language]]
    request = Score(model=subject.model, context=before, text=text if language == "zh" else f" {text}")
    found = await door.score(request, replace(call, purpose="judge", parent=call.request_id))
    return found.tokens


def read_tokens(tokens: Sequence[TokenLogprob], told: str) -> Signal:
    """The signal in tokens that were scored."""
    if not tokens:
        return unavailable("token_probability", "the answer has no tokens")
    values = [max(_LEAST, token.logprob) for token in tokens]
    mean = sum(values) / len(values)
    least = min(range(len(values)), key=values.__getitem__)
    return Signal(
        family="token_probability",
        value=math.exp(mean),
        features={"mean_logprob": mean, "least_logprob": values[least], "first_logprob": values[0]},
        detail={"tokens": len(values), "least_token": tokens[least].token, "told_by": told},
    )
