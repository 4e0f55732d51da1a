"""Tools over what a team keeps in Pagoda: its collections searched and asked, its prompts run.

They see the documents that no key limits, and ask models for whoever calls them, within that key's limits. What they
need is opened by their first call. Not here: passages of a folder or of the web by words alone (``searching``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from pagoda.core.ports import Inference
from pagoda.core.types import Call
from pagoda.logic.prompts.asking import ask
from pagoda.logic.prompts.composing import Composer, Use
from pagoda.logic.prompts.index import PromptIndex
from pagoda.logic.prompts.resolving import reference_from
from pagoda.logic.retrieval.answering import Answerer
from pagoda.logic.retrieval.index import Searcher
from pagoda.logic.retrieval.question import Question, Refinement
from pagoda.logic.tools.function import tool_from
from pagoda.logic.tools.tool import Occasion, Tool

_UNLIMITED = Refinement(limited=False)
_SECONDS = 120.0  # a model may have to be loaded first
Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(min_length=1, max_length=4000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the tools stand on."""

    searcher: Searcher
    answerer: Callable[[Call], Awaitable[Answerer]]
    prompts: PromptIndex
    door: Inference
    model: str
    """Which runs prompts."""
    embedding_model: str


def knowledge_tools(opened: Callable[[], Awaitable[Knowledge]]) -> list[Tool]:
    """The tools; ``opened`` gives what they stand on."""

    async def search_collection(
        collection: Name, question: Text, occasion: Occasion, limit: Annotated[int, Field(ge=1, le=20)] = 5
    ) -> list[dict[str, Any]]:
        """Find the passages of a collection of documents that are nearest to a question.

        Args:
            collection: The name of the collection.
            question: What to look for, in a few words or a question.
            limit: How many passages at most.
        """
        found = await (await opened()).searcher.search(
            collection, question, occasion.call, limit=limit, refinement=_UNLIMITED
        )
        return [_told(hit.to_json()) for hit in found]

    async def ask_collection(
        collection: Name, question: Text, occasion: Occasion, method: Literal["auto", "quote"] = "quote"
    ) -> dict[str, Any]:
        """Answer a question from a collection of documents, with the places that the answer rests on.

        Args:
            collection: The name of the collection.
            question: The question.
            method: quote gives the nearest sentences word for word; auto asks a model.
        """
        call = occasion.call
        asked = Question(text=question, collection=collection, method=method, refinement=_UNLIMITED)
        answer = await (await (await opened()).answerer(call)).answer(asked, call)
        citations = [_told(citation.to_json()) | {"number": citation.number} for citation in answer.citations]
        return {"outcome": answer.outcome, "answer": answer.text, "citations": citations}

    async def run_prompt(name: Name, variables: dict[str, str], occasion: Occasion) -> str:
        """Fill in a prompt that is kept here and give the model's answer.

        Args:
            name: The prompt's name, with @ and a version or label if not the live one.
            variables: The texts of its variables by name.
        """
        knowledge, call = await opened(), occasion.call
        version = await knowledge.prompts.resolve(reference_from(name), call)
        use = Use(version=version, values=dict(variables), model=knowledge.model)
        composed = await Composer(knowledge.door, knowledge.embedding_model).compose(use, call)
        answered = await ask(composed, knowledge.door, call)
        return answered.text if answered.answer is None else answered.answer

    harmless: dict[str, Any] = {"read_only": True, "idempotent": True, "seconds": _SECONDS}
    return [tool_from(function, **harmless) for function in (search_collection, ask_collection, run_prompt)]


def _told(passage: dict[str, Any]) -> dict[str, Any]:
    return {name: passage[name] for name in ("source", "heading", "start", "end", "text")}
