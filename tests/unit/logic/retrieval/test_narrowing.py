"""What a search may find is exactly what its wishes and its key allow, however documents lie."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pagoda.logic.retrieval.collection import HeldPassage, Passage, Tags
from pagoda.logic.retrieval.narrowing import Fields
from pagoda.logic.retrieval.question import Refinement
from pagoda.logic.retrieval.ranking import cosines

AREAS = ("law", "tea", "")
KEYS = (None, (), ("key_1",), ("key_1", "key_2"))
documents = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(("area", "year")), st.sampled_from(AREAS)),
        st.sampled_from(KEYS),
        st.sampled_from(("", "odd", "even")),
        st.one_of(st.integers(1, 3), st.integers(60, 70)),
    ),
    max_size=12,
)
wishes = st.builds(
    Refinement,
    where=st.dictionaries(
        st.sampled_from(("area", "year", "title", "kind", "source", "never")),
        st.lists(st.sampled_from((*AREAS, "odd", "even", "text", "0")), max_size=3).map(tuple),
        max_size=3,
    ),
    limited=st.booleans(),
)


def first(number: int, labels: Mapping[str, str], keys: tuple[str, ...] | None, title: str) -> HeldPassage:
    passage = Passage(
        document=f"doc_{number}", source=str(number), title=title, heading="", start=0, end=1, text="x", labels=labels
    )
    return HeldPassage(passage=passage, vector=b"", tags=Tags(labels=labels, keys=keys), kind="text")


def may_be_found(one: HeldPassage, key_id: str | None, wish: Refinement) -> bool:
    """Said once more, a document at a time."""
    if one.tags.keys is not None and (not wish.limited or (key_id is not None and key_id not in one.tags.keys)):
        return False
    told = {**one.tags.labels, "source": one.passage.source, "kind": one.kind} | (
        {"title": one.passage.title} if one.passage.title else {}
    )
    return all(name in told and told[name] in values for name, values in wish.where.items())


@given(documents, st.lists(st.tuples(wishes, st.sampled_from((None, "key_1", "key_3"))), min_size=1, max_size=4))
def test_exactly_what_is_allowed_may_be_found(
    made: list[tuple[dict[str, str], tuple[str, ...] | None, str, int]],
    asked: list[tuple[Refinement, str | None]],
) -> None:
    held = [first(number, labels, keys, title) for number, (labels, keys, title, _) in enumerate(made)]
    sizes = np.asarray([size for *_, size in made], np.int64)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((int(sizes.sum()), 24), np.float32)
    question = rng.standard_normal(24, np.float32).tobytes()
    everywhere = cosines(vectors, question)
    fields = Fields(held, sizes)
    for wish, key_id in asked:  # one after another, so that what was kept for one is used for the next
        expected = np.repeat(np.asarray([may_be_found(one, key_id, wish) for one in held], np.bool_), sizes)
        allowed = fields.allowed(key_id, wish)
        if allowed is None:
            assert expected.all()
            continue
        assert allowed.each.tolist() == expected.tolist()
        assert bool(allowed.spans) == bool(expected.any())
        covered = np.zeros(len(vectors), np.bool_)
        for span in allowed.spans:
            assert expected[span][[0, -1]].all(), "nothing is read before or after what may be found"
            covered[span] = True
        assert covered[expected].all()
        some = cosines(vectors, question, allowed.spans)
        assert some[covered].tobytes() == everywhere[covered].tobytes(), "to the bit, however it is cut"
        assert (some[~covered] == -np.inf).all()


def test_a_gap_is_gone_around_where_that_is_worth_it() -> None:
    sizes = np.asarray([5, 63, 5, 64, 5])
    held = [first(number, {"area": "law"} if number % 2 == 0 else {}, None, "") for number in range(5)]
    allowed = Fields(held, sizes).allowed(None, Refinement(where={"area": ("law",)}))
    assert allowed is not None
    assert allowed.spans == (slice(0, 73), slice(137, 142))
