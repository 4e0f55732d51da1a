"""The header of GGUF files, whole and broken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagoda.core.errors import StoreError
from pagoda.model.catalog.gguf_header import read_gguf_header


def test_a_header_says_what_the_model_is(tmp_path: Path, gguf: Callable[..., bytes]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf())
    header = read_gguf_header(path)
    assert (header.architecture, header.context, header.dimensions) == ("llama", 2048, 64)
    assert (header.chats, header.embeds, header.sampling) == (True, False, {"temperature": 0.5})
    assert header.least_bytes == len(gguf())
    path.write_bytes(gguf("bert", template=""))
    assert read_gguf_header(path).embeds


@pytest.mark.parametrize("lost", [1, 100, 4000, 4100, 4200])
def test_a_cut_file_is_named(tmp_path: Path, gguf: Callable[..., bytes], lost: int) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf()[:-lost])
    with pytest.raises(StoreError, match=r"m\.gguf is (cut short|broken).*fetch it again") as caught:
        read_gguf_header(path)
    assert caught.value.code == "broken_file"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_garbled_header_never_does_worse_than_an_error(
    tmp_path: Path, gguf: Callable[..., bytes], place: int, byte: int
) -> None:
    content = bytearray(gguf(pad=64))
    content[place % len(content)] = byte
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with suppress(StoreError):  # any other error, and a hang, is what must not be
        read_gguf_header(path)
