"""What travels between Pagoda's own processes arrives as it was sent."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core import errors, types
from pagoda.logic.inference.codec import REQUESTS, decode, decode_line, encode, encode_error, encode_event

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 2**31)
logprobs = st.builds(
    types.TokenLogprob,
    text,
    numbers,
    st.none() | st.lists(st.integers(0, 255), max_size=4).map(tuple),
    st.lists(st.builds(types.TokenLogprob, text, numbers), max_size=2).map(tuple),
    st.none() | whole,
)
events = st.one_of(
    st.builds(types.Started, text, text, st.lists(text, max_size=2).map(tuple)),
    st.builds(types.Delta, whole, text, st.lists(logprobs, max_size=2).map(tuple), text),
    st.builds(types.Finish, whole, st.sampled_from(get_args(types.FinishReason)), st.none() | text),
    st.builds(types.Usage, whole, whole, whole, whole),
)
generations = st.builds(
    types.Generation,
    model=text,
    prompt=text | st.lists(whole, max_size=3).map(tuple),
    sampling=st.builds(
        types.Sampling, temperature=st.none() | numbers, logit_bias=st.none() | st.dictionaries(whole, numbers)
    ),
    stop=st.lists(text, max_size=2).map(tuple),
    output=st.none() | st.builds(types.OutputFormat, kind=st.just("json_schema"), schema=st.just({"type": "object"})),
)


@given(events)
def test_events_arrive_as_they_were_sent(event: types.Event) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert decode_line(line) == event


@given(generations)
def test_requests_arrive_as_they_were_sent(request: types.Generation) -> None:
    assert decode(REQUESTS["complete"], encode(request)) == request


@given(st.lists(st.binary(min_size=4, max_size=8), max_size=3).map(tuple))
def test_vectors_arrive_to_the_bit(vectors: tuple[bytes, ...]) -> None:
    sent = types.Embeddings(model="m", vectors=vectors, dimensions=1, prompt_tokens=1)
    assert decode(types.Embeddings, encode(sent)) == sent


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("There is none.", param="model", code="model_not_found"),
        errors.ContextTooLong(9000, 4096),
        errors.Unavailable("Gone.", retryable=False),
        errors.ConfigError(["one", "two"]),
        errors.BadOutput("No."),
    ],
)
def test_errors_arrive_with_class_code_and_values(error: errors.PagodaError) -> None:
    with pytest.raises(type(error)) as caught:
        decode_line(encode_error(error))
    arrived: Any = caught.value
    assert str(arrived) == str(error)
    assert (arrived.code, arrived.retryable, arrived.param) == (error.code, error.retryable, error.param)
    if isinstance(error, errors.ContextTooLong):
        assert (arrived.tokens, arrived.limit) == (9000, 4096)
