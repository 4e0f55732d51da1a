"""Questions whose answers are known, and what makes a passage the right one. Not here: asking them, and the figures."""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.dataset import Source, read_cases
from pagoda.logic.evaluation.score import Case
from pagoda.logic.evaluation.scorers import plain
from pagoda.logic.retrieval.collection import Passage

FIELDS = ("id", "question", "document", "text", "places", "answers", "answerable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Characters of a document."""

    source: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamQuestion:
    """A question with what is known of its answer."""

    id: str
    text: str
    sources: tuple[str, ...] = ()
    """Documents that answer it, as they are called in the collection."""
    texts: tuple[str, ...] = ()
    """Of which a passage that answers it has one, capitals and white space aside."""
    places: tuple[Place, ...] = ()
    """Of which a passage that answers it shares characters with one."""
    answers: tuple[str, ...] = ()
    """Any of which is right."""
    answerable: bool = True

    def rank(self, passages: Sequence[Passage]) -> int:
        """The place of the first right one, from 1; 0 where there is none.

        Passages are counted where places, texts or answers tell the right one, documents where only these are known.
        """
        if self.places or self.texts or not self.sources:
            return next((number for number, each in enumerate(passages, 1) if self.held_by(each)), 0)
        documents = dict.fromkeys(each.source for each in passages)
        return next((number for number, source in enumerate(documents, 1) if source in self.sources), 0)

    def held_by(self, passage: Passage) -> bool | None:
        """Whether a passage holds the answer; ``None`` where no more than its document is known."""
        if self.places:
            return any(
                place.source == passage.source and passage.start < place.end and place.start < passage.end
                for place in self.places
            )
        if not (wanted := self.texts or self.answers):
            return None
        held = plain(passage.text)
        return (not self.sources or passage.source in self.sources) and any(plain(text) in held for text in wanted)


def read_exam(path: str, sources: Names[str]) -> list[ExamQuestion]:
    """The questions of a file (JSON Lines, JSON, CSV, TSV) to a collection with these documents.

    A document is named by its whole source or the end of it. Raises ``InvalidRequest`` that names the question, for
    what cannot be read, names no document or several, or tells nothing that could be right.
    """
    return [_question(Path(path), case, sources) for case in read_cases(Source(path=path))]


def _question(path: Path, case: Case, sources: Names[str]) -> ExamQuestion:
    row: dict[str, Any] = dict(case.values)
    where = f"{path}, question {case.id[:80]}"
    if unknown := sorted(set(row) - set(FIELDS)):
        raise InvalidRequest(f"{where}: {unknown[0][:80]!r} is not known; there are {', '.join(FIELDS)}.")
    text, answerable = row.get("question"), row.get("answerable", True)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(f"{where}: it needs a question, a text.")
    if not isinstance(answerable, bool):
        raise InvalidRequest(f"{where}: 'answerable' is true or false.")
    question = ExamQuestion(
        id=case.id,
        text=text,
        sources=tuple(_source(where, name, sources) for name in _texts(where, row, "document")),
        texts=_texts(where, row, "text"),
        places=tuple(_place(where, place, sources) for place in _listed(row.get("places"))),
        answers=_texts(where, row, "answers"),
        answerable=answerable,
    )
    known = question.sources or question.texts or question.places or question.answers
    if answerable and not known:
        raise InvalidRequest(f"{where}: name a document, text, places or answers, or say that it is not answerable.")
    if not answerable and known:
        raise InvalidRequest(f"{where}: what is not answerable has no document, text, places or answers.")
    return question


def _texts(where: str, row: dict[str, Any], name: str) -> tuple[str, ...]:
    """A text, or a list of them."""
    values = _listed(row.get(name))
    if not all(isinstance(each, str) and plain(each) for each in values):
        raise InvalidRequest(f"{where}: {name!r} is a text, or a list of texts that say something.")
    return tuple(values)


def _listed(value: Any) -> list[Any]:
    """What may stand alone or in a list, or not at all."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _place(where: str, place: object, sources: Names[str]) -> Place:
    match place:
        case {"document": str(name), "start": int(start), "end": int(end)} if 0 <= start < end:
            return Place(source=_source(where, name, sources), start=start, end=end)
    raise InvalidRequest(f"{where}: a place has a document, a start and an end behind it.")


def _source(where: str, name: str, sources: Names[str]) -> str:
    """The document that is meant: the one called so, or else the only one whose path ends so."""
    if name in sources:
        return name
    found = [source for source in sources if source.endswith(f"/{name.removeprefix('./')}")]
    if len(found) != 1:
        told = "no document" if not found else f"{len(found)} documents"
        raise InvalidRequest(f"{where}: {name[:200]!r} names {told} of the collection; `pagoda rag list` names them.")
    return found[0]
