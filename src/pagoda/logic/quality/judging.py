"""A judging model on answers of production: one question, one answer, by criteria; what it cannot judge is no score."""

from __future__ import annotations

import logging
from collections.abc import Callable

from pagoda.core.errors import PagodaError
from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.evaluation.judge import Judge
from pagoda.logic.evaluation.score import Case, Output, Score
from pagoda.logic.quality.rules import Exchange, is_chinese

logger = logging.getLogger(__name__)


class ModelJudge:
    """``door`` gives the door when a judgement is asked for: it is not there yet when this is made."""

    def __init__(self, door: Callable[[], Inference], model: str, criteria: str) -> None:
        self._door = door
        self._model = model
        self._criteria = criteria

    async def score(self, exchange: Exchange, call: Call) -> Score:
        """What the judge says, on behalf of the team that asked."""
        judge = Judge(
            self._door(),
            self._model,
            self._criteria,
            Call(tenant=call.tenant, purpose="judge", parent=call.request_id, priority=call.priority),
            language="zh" if is_chinese(exchange.question) else "en",
        )
        output = Output(text=exchange.answer, question=exchange.question)
        return await judge.score(Case(id=call.request_id, values={}), output)

    async def __call__(self, exchange: Exchange, call: Call) -> float | None:
        """The score alone; ``None``: it could not judge, or the judging model failed."""
        try:
            return (await self.score(exchange, call)).value
        except PagodaError as error:
            logger.warning("the judge %s failed on %s: %s", self._model, call.request_id, error.message)
            return None
