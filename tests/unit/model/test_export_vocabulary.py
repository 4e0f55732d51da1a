"""Tokenizers with byte fallback that SentencePiece would not have made are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import InvalidRequest
from pagoda.model.export.vocabulary import read_vocabulary
from tests.tiny_models import sentencepiece_tokenizer


def _one_way_only(data: dict[str, Any]) -> None:
    ways = {"".join(merge): merge for merge in data["model"]["merges"]}
    data["model"]["merges"] = list(ways.values())


def _apart(data: dict[str, Any]) -> None:
    data["model"]["merges"].append(data["model"]["merges"][0])


def _no_byte(data: dict[str, Any]) -> None:
    del data["model"]["vocab"]["<0x41>"]


def _whole_words(data: dict[str, Any]) -> None:
    data["model"]["ignore_merges"] = True


def _lower_case(data: dict[str, Any]) -> None:
    data["normalizer"] = {"type": "Lowercase"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_one_way_only, "of some pieces and not of others"),
        (_apart, "do not rank together"),
        (_no_byte, "no piece for the byte <0x41>"),
        (_whole_words, "whole words without merges"),
        (_lower_case, "prepares texts by Lowercase"),
    ],
)
def test_what_sentencepiece_would_not_have_made_is_refused_by_name(change: Any, said: str, tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer("prepend")
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    assert read_vocabulary(tmp_path, tokenizer, (2,), len(tokenizer)).scores
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InvalidRequest, match=said):
        read_vocabulary(tmp_path, tokenizer, (2,), len(tokenizer))
