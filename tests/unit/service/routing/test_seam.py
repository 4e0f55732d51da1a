"""The seam of an answer: what was drawn but held back for a stop sequence is neither lost nor told twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.types import Delta, Event, Finish, Generation, Started, Usage
from pagoda.model.engines.stop import StopCutter
from pagoda.service.routing.seam import Continuation, Stitch, Told

ALPHABET = st.text(alphabet="ab", min_size=1, max_size=3)


@given(
    pieces=st.lists(ALPHABET, min_size=2, max_size=12),
    stops=st.lists(ALPHABET, min_size=1, max_size=2, unique=True),
    data=st.data(),
)
def test_an_answer_cut_at_its_stop_sequences_is_the_same_wherever_its_engine_dies(
    pieces: list[str], stops: list[str], data: st.DataObject
) -> None:
    request = Generation(model="m", prompt="p", stop=tuple(stops))
    whole, end, drawn = undisturbed(pieces, request.stop)
    place = data.draw(st.integers(0, drawn - 1 if end == "stop" else drawn))
    told = Told(request)
    text = ""
    cutter = StopCutter(request.stop)
    for piece in pieces[:place]:
        told.draw(piece)
        if (shown := cutter.feed(Delta(0, piece))) is not None:
            told.note(shown)
            text += shown.text
    stitch = Stitch(told, Continuation(request, 5, place))
    ended: list[Finish] = []
    usage: list[Usage] = []
    for event in chain([Started("m", "e")], rest(pieces[place:], told)):
        for each in stitch.sew(event):
            match each:
                case Delta():
                    told.note(each)
                    text += each.text
                case Finish():
                    ended.append(each)
                case Usage():
                    usage.append(each)
        if stitch.over:
            break
    assert text == whole
    assert [each.reason for each in ended] == [end]
    assert [(each.prompt_tokens, each.completion_tokens) for each in usage] == [(5, drawn)]
    assert told.shown == len(whole)


def undisturbed(pieces: list[str], stops: tuple[str, ...]) -> tuple[str, str, int]:
    """Text, end and number of pieces of the answer of one engine."""
    cutter = StopCutter(stops)
    text = ""
    for number, piece in enumerate(pieces, 1):
        shown = cutter.feed(Delta(0, piece))
        text += shown.text if shown is not None else ""
        if cutter.stopped:
            return text, "stop", number
    flushed = cutter.flush(0)
    return text + (flushed.text if flushed is not None else ""), "length", len(pieces)


def rest(pieces: list[str], told: Told) -> Iterator[Event]:
    """What another engine draws, which cuts nothing itself."""
    for piece in pieces:
        told.draw(piece)
        yield Delta(0, piece)
    yield Finish(0, "length")
    yield Usage(5 + len(told.pieces) - len(pieces), len(pieces))
