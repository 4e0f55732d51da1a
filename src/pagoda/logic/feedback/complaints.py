"""What a complaint sets off: the answer goes to people, with whatever is known of what was said."""

from __future__ import annotations

from typing import Any

import orjson

from pagoda.core.storage.experiment_records import FeedbackRecord
from pagoda.core.storage.records import ContentRecord
from pagoda.logic.feedback.book import FeedbackBook
from pagoda.logic.reviews.book import Item, Review, ReviewBook


class Complaints:
    """Puts answers that somebody is not content with into the queue, where settings ask for that."""

    def __init__(self, feedback: FeedbackBook, reviews: ReviewBook, *, wanted: bool, reviewers: int) -> None:
        self._feedback = feedback
        self._reviews = reviews
        self._wanted = wanted
        self._reviewers = reviewers

    async def follow(self, team: str, given: FeedbackRecord) -> Review | None:
        """The review of the answer that was complained about; ``None`` where it is no complaint, or about no answer."""
        kind, _, request_id = given.subject.partition(":")
        complains = given.thumb == "down" or given.correction is not None
        if not self._wanted or not complains or kind != "request":
            return None
        content = await self._feedback.content(team, request_id)
        prompt, answer = said(given, content)
        detail = {"feedback": given.id, "text": given.text, "correction": given.correction}
        return await self._reviews.enter(
            Item(
                team=team,
                request_id=request_id,
                reason="complaint",
                detail=detail,
                needed=self._reviewers,
                model="" if content is None else content.model,
                prompt=prompt,
                answer=answer,
            )
        )


def said(given: FeedbackRecord | None, content: ContentRecord | None) -> tuple[dict[str, Any] | None, str | None]:
    """Prompt and answer, as the client sent them along or as they were kept; ``None`` for what nobody knows."""
    prompt = None if given is None else given.prompt
    answer = None if given is None else given.answer
    if content is not None:
        prompt = prompt or _prompt(content.prompt)
        answer = content.answer if answer is None else answer
    return prompt, answer


def _prompt(kept: str) -> dict[str, Any]:
    if kept.startswith("["):
        try:
            return {"messages": orjson.loads(kept)}
        except orjson.JSONDecodeError:  # text that only looks like messages
            return {"text": kept}
    return {"text": kept}
