"""Where in its sources a claim may stand, and how far its words, numbers, names and denials are found there.

Words alone, no model: fast, the same each time, in English and Chinese. A claim whose every word stands in a source may
still be wrong by one that stands elsewhere in it, so the numbers here look at words together with their neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

from pagoda.logic.retrieval.lexical import words
from pagoda.logic.texts.citations import CITATION, without_citations
from pagoda.logic.trust.claims import split_claims
from pagoda.logic.trust.details import denials, details, with_plain_numbers
from pagoda.logic.trust.subject import Source
from pagoda.logic.trust.vocabulary import vocabulary

T = TypeVar("T")

FEATURES = (
    "recall",
    "recall_anywhere",
    "near_pairs",
    "ordered_pairs",
    "least_local",
    "mean_local",
    "numbers_missing",
    "numbers_absent",
    "names_missing",
    "names_absent",
    "denial_gap",
    "denied_between",
    "question_recall",
    "near_question",
    "novelty",
    "kind_fit",
)
"""What ``Evidence.features`` holds, each between 0 and 1 (``kind_fit``: -1 to 1)."""

MOST_SENTENCES = 4000
"""Of all sources together that are looked at."""

_TOKEN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")
_IN_PARENTHESES = re.compile(r"\([\d\s,，、;；~～–—-]+\)")
_PLAIN = frozenset(vocabulary("plain"))
_DENIALS = frozenset(vocabulary("denials"))
_AROUND, _REACH, _QUESTION_REACH = 8, 12, 25  # tokens of a claim, of a source, and of a source for its question
_ASKED = (
    ("number", re.compile(r"\bhow (?:many|much|old|long|far|tall)\b|多少|几|多(?:大|长|高|远)", re.IGNORECASE)),
    (
        "when",
        re.compile(r"\bwhen\b|\bwhat (?:year|date|day|time)\b|哪(?:一)?年|何时|什么时候|时间|日期", re.IGNORECASE),
    ),
    ("name", re.compile(r"\bwho\b|\bwhose\b|\bwhom\b|谁|哪位|哪个人", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence of a source: characters from ``start`` up to ``end`` of its text."""

    source: int
    start: int
    end: int
    text: str
    first: int
    """Where its tokens begin among those of all sources."""
    last: int


@dataclass(frozen=True, slots=True)
class Span:
    """Evidence: exactly the characters from ``start`` up to ``end`` of a source."""

    source: Source
    start: int
    end: int

    def to_json(self) -> dict[str, Any]:
        """For machines; places count from the beginning of the document."""
        return {
            "source": self.source.name,
            "document": self.source.document,
            "start": self.source.start + self.start,
            "end": self.source.start + self.end,
            "text": self.source.text[self.start : self.end],
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What comes nearest to a claim, and how near."""

    spans: tuple[Span, ...]
    features: dict[str, float]


class Library:
    """Sources made ready to look claims up in."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        marks = (each[0] for source in sources for each in CITATION.finditer(source.text))
        self._references = frozenset(map(without_citations, marks))
        self.sentences: list[Sentence] = []
        self._tokens: list[str] = []
        for number, source in enumerate(self.sources):
            for claim in split_claims(source.text, MOST_SENTENCES - len(self.sentences)):
                found = tokens(claim.text)
                first = len(self._tokens)
                self._tokens += found
                self.sentences.append(Sentence(number, claim.start, claim.end, claim.text, first, first + len(found)))
        self._words = [frozenset(self._tokens_of(at)) for at in range(len(self.sentences))]
        self._stated = [{(each.kind, each.value) for each in details(one.text)} for one in self.sentences]
        self._stated_anywhere = {each for stated in self._stated for each in stated}
        self._places: dict[str, list[int]] = {}
        for place, token in enumerate(self._tokens):
            self._places.setdefault(token, []).append(place)

    def look_up(self, claim: str, question: str = "") -> Evidence:
        """The sentences nearest to a claim, two at most, and the numbers of ``FEATURES``.

        A source's own references (``[7]``) are shown to models in parentheses: there, too, they are no numbers.
        """
        claim = _IN_PARENTHESES.sub(lambda found: " " if found[0] in self._references else found[0], claim)
        said, asked = tokens(claim), content(question)
        telling = _telling(said) or said
        if not telling or not self._tokens:
            return Evidence((), dict.fromkeys(FEATURES, 0.0))
        window = self._window(set(telling), set(asked))
        near = {token for at in window for token in self._words[at]}
        text = " ".join(self.sentences[at].text for at in window)
        local = self._local(telling)
        return Evidence(
            self._spans(window),
            {
                "recall": _share(telling, near),
                "recall_anywhere": _share(telling, self._places),
                **self._pairs(telling),
                "least_local": min(local),
                "mean_local": sum(local) / len(local),
                **self._missing(claim, window),
                "denial_gap": float(bool(denials(claim)) != bool(denials(text))),
                "denied_between": self._denied_between(said),
                "question_recall": _share(asked, near) if asked else 0.0,
                "near_question": self._near_question(telling, set(asked)),
                "novelty": sum(token not in asked for token in telling) / len(telling),
                "kind_fit": kind_fit(claim, question),
            },
        )

    def around(self, spans: Sequence[Span], reach: int = 1) -> list[str]:
        """The texts of spans, each with ``reach`` sentences before and after it."""
        wanted: set[int] = set()
        for span in spans:
            at = next(
                number
                for number, each in enumerate(self.sentences)
                if self.sources[each.source] is span.source and each.start == span.start
            )
            same = self.sentences[at].source
            near = range(max(0, at - reach), min(len(self.sentences), at + reach + 1))
            wanted |= {number for number in near if self.sentences[number].source == same}
        return [self.sentences[number].text for number in sorted(wanted)]

    def _tokens_of(self, at: int) -> list[str]:
        sentence = self.sentences[at]
        return self._tokens[sentence.first : sentence.last]

    def _window(self, claim: set[str], asked: set[str]) -> list[int]:
        """The sentence that shares most with the claim (its question counts less), and one more if that adds enough."""
        shared = self._words
        worth = [len(claim & each) + 0.3 * len((asked - claim) & each) for each in shared]
        best = max(range(len(worth)), key=worth.__getitem__)
        if worth[best] == 0:
            return []
        rest = claim - shared[best]
        second = max(range(len(worth)), key=lambda at: (len(rest & shared[at]), -abs(at - best)))
        adds = len(rest & shared[second]) / max(len(claim), 1)
        return sorted({best, second}) if adds > 0.15 and second != best else [best]

    def _spans(self, window: Sequence[int]) -> tuple[Span, ...]:
        chosen = [self.sentences[at] for at in window]
        return tuple(Span(self.sources[each.source], each.start, each.end) for each in chosen)

    def _pairs(self, content: Sequence[str]) -> dict[str, float]:
        """Neighbouring words of the claim that are neighbours in a source, in either order and in the claim's."""
        pairs = list(pairwise(content))
        if not pairs:
            found = float(content[0] in self._places)
            return {"near_pairs": found, "ordered_pairs": found}
        gaps = [self._gap(first, second) for first, second in pairs]
        near = sum(gap is not None and abs(gap) <= 6 for gap in gaps) / len(pairs)
        ordered = sum(gap is not None and 0 < gap <= 4 for gap in gaps) / len(pairs)
        return {"near_pairs": near, "ordered_pairs": ordered}

    def _gap(self, first: str, second: str) -> int | None:
        """The smallest distance from one word to another, forward ones first."""
        gaps = [
            later - place
            for place in self._places.get(first, ())[:200]
            for later in self._places.get(second, ())[:200]
            if later != place and abs(later - place) <= 6
        ]
        return min(gaps, key=lambda gap: (abs(gap), gap < 0)) if gaps else None

    def _local(self, content: Sequence[str]) -> list[float]:
        """Of each word of the claim, at its best place in a source, the share of the words around it that are there."""
        shares = []
        for at, token in enumerate(content):
            around = {*content[max(0, at - _AROUND) : at], *content[at + 1 : at + 1 + _AROUND]} - {token}
            best = 0.0
            for place in self._places.get(token, ())[:200]:
                there = set(self._tokens[max(0, place - _REACH) : place + _REACH + 1])
                best = max(best, len(around & there) / len(around) if around else 1.0)
            shares.append(best)
        return shares

    def _denied_between(self, said: Sequence[str]) -> float:
        """Whether a source denies between two words that stand side by side in the claim."""
        for first, second in pairwise(said):
            if second in _DENIALS or first in _DENIALS:
                continue
            for place in self._places.get(first, ())[:200]:
                between = self._tokens[place + 1 : place + 4]
                if second in between and _DENIALS.intersection(between[: between.index(second)]):
                    return 1.0
        return 0.0

    def _missing(self, claim: str, window: Sequence[int]) -> dict[str, float]:
        """Shares of the claim's numbers (dates too) and names that are not near, and that are nowhere."""
        said = details(claim)
        here = {each for at in window for each in self._stated[at]}
        numbers = [(each.kind, each.value) for each in said if each.kind != "name"]
        names = [token for each in said if each.kind == "name" for token in content(each.value)]
        close = {token for at in window for token in self._words[at]}
        return {
            "numbers_missing": _absent(numbers, here),
            "numbers_absent": _absent(numbers, self._stated_anywhere),
            "names_missing": _absent(names, close),
            "names_absent": _absent(names, self._places),
        }

    def _near_question(self, content: Sequence[str], asked: set[str]) -> float:
        """How many words of the question stand around the claim's rarest new word, at its best place."""
        fresh = [token for token in content if token in self._places and token not in asked]
        if not fresh or not asked:
            return 0.0
        rarest = min(fresh, key=lambda token: len(self._places[token]))
        best = 0
        for place in self._places[rarest][:200]:
            there = set(self._tokens[max(0, place - _QUESTION_REACH) : place + _QUESTION_REACH + 1])
            best = max(best, len(asked & there))
        return best / len(asked)


def tokens(text: str) -> list[str]:
    """The words of a text in order, Chinese by characters, a number as its value; citations are none of it."""
    return [words(found[0])[0] for found in _TOKEN.finditer(CITATION.sub(" ", with_plain_numbers(text)))]


def content(text: str) -> list[str]:
    """The words of a text that tell something, in order."""
    return _telling(tokens(text))


def excerpt(sources: Sequence[Source], near: str, most: int) -> str:
    """The sources, or of longer ones the sentences around those that share most words with ``near``.

    At most ``most`` characters, in the order of the sources.
    """
    whole = "\n\n".join(source.text.strip() for source in sources)
    if len(whole) <= most:
        return whole
    wanted = set(words(near))
    sentences = [claim.text for source in sources for claim in split_claims(source.text, MOST_SENTENCES)]
    scores = [len(wanted & set(words(sentence))) for sentence in sentences]
    order = sorted(range(len(sentences)), key=lambda at: -scores[at])
    chosen: set[int] = set()
    room = most
    for at in order:
        for beside in (at, at - 1, at + 1):
            if 0 <= beside < len(sentences) and beside not in chosen and len(sentences[beside]) < room:
                chosen.add(beside)
                room -= len(sentences[beside]) + 1
    joined = " ".join(sentences[at] for at in sorted(chosen))
    return joined or whole[:most]


def _telling(found: Sequence[str]) -> list[str]:
    return [token for token in found if token not in _PLAIN]


def _share(wanted: Sequence[str], there: Container[str]) -> float:
    return sum(token in there for token in wanted) / len(wanted)


def _absent(wanted: Sequence[T], there: Container[T]) -> float:
    return sum(each not in there for each in wanted) / len(wanted) if wanted else 0.0


def kind_fit(claim: str, question: str) -> float:
    """1 where a claim has what its question asks for (a number, a date, a name), -1 where it lacks it, else 0."""
    for wanted, pattern in _ASKED:
        if pattern.search(question):
            found = [each.kind for each in details(claim)]
            fits = "name" in found if wanted == "name" else bool({"number", "date"} & set(found))
            return 1.0 if fits else -1.0
    return 0.0
