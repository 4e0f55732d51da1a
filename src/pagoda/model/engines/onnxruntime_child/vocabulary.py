"""The tokenizer that a GGUF file of a BERT encoder states, run by the ``tokenizers`` library.

WordPiece marks in GGUF what begins a word (``▁``), elsewhere what does not (``##``). Unigram pieces come with scores
and the compiled map of a SentencePiece normaliser; Kudo, "Subword Regularization", 2018.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from pagoda.model.catalog.gguf_content import GgufContent

_WORD_START = "▁"
_LONGEST_WORD = 100  # characters; BERT takes a longer one for unknown
_NO_TEXT = "\U0010ffff"  # no character, by Unicode's own word
_SPECIAL = (TokenType.UNKNOWN, TokenType.CONTROL)


class Vocabulary:
    """Text to token ids and back."""

    def __init__(self, content: GgufContent) -> None:
        values, lists = content.header.values, content.lists
        pieces = [piece.decode("utf-8", "replace") for piece in lists["tokenizer.ggml.tokens"]]
        kinds = [int(kind) for kind in lists["tokenizer.ggml.token_type"]]
        unknown = int(values["tokenizer.ggml.unknown_token_id"])
        self.size = len(pieces)
        if values["tokenizer.ggml.model"] == "bert":
            self.tokenizer = _word_pieces(pieces, kinds, unknown)
        else:
            self.tokenizer = _unigram(pieces, kinds, unknown, lists)
        special = [piece for piece, kind in zip(pieces, kinds, strict=True) if kind in _SPECIAL]
        self.tokenizer.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in special])
        ends = [int(values[f"tokenizer.ggml.{role}_token_id"]) for role in ("bos", "eos")]
        self.tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join((pieces[ends[0]], "$A", pieces[ends[1]])),
            special_tokens=[(pieces[id], id) for id in ends],
        )
        self._turn = threading.Lock()

    def encode(self, texts: Sequence[str], *, special: bool, parse: bool) -> list[list[int]]:
        """Ids of each text; ``special`` adds what begins and ends it, ``parse`` reads such in it."""
        with self._turn:
            self.tokenizer.encode_special_tokens = not parse
            found = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)
        return [each.ids for each in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, as near as such a vocabulary keeps it."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return text


def _word_pieces(pieces: list[str], kinds: list[int], unknown: int) -> Tokenizer:
    vocabulary = {_spelt(piece, kind): id for id, (piece, kind) in enumerate(zip(pieces, kinds, strict=True))}
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token=pieces[unknown], max_input_chars_per_word=_LONGEST_WORD)
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _spelt(piece: str, kind: int) -> str:
    """A piece in BERT's own spelling."""
    if kind in _SPECIAL or (piece.startswith("[") and piece.endswith("]")):
        return piece
    return piece[1:] if piece.startswith(_WORD_START) else "##" + piece


def _unigram(pieces: list[str], kinds: list[int], unknown: int, lists: Mapping[str, Any]) -> Tokenizer:
    scores = [float(score) for score in lists["tokenizer.ggml.scores"]]
    worst = min(score for score, kind in zip(scores, kinds, strict=True) if kind == TokenType.NORMAL)
    # A character that is unknown costs more than the worst piece: the scores of those that are no text do not count.
    told = [
        (piece if kind != TokenType.UNUSED else f"{_NO_TEXT}{id}", score if kind == TokenType.NORMAL else worst)
        for id, (piece, score, kind) in enumerate(zip(pieces, scores, kinds, strict=True))
    ]
    tokenizer = Tokenizer(models.Unigram(told, unk_id=unknown))
    steps: list[normalizers.Normalizer] = [normalizers.Replace(Regex(" {2,}"), " ")]
    if (charsmap := lists.get("tokenizer.ggml.precompiled_charsmap")) is not None:
        steps.insert(0, normalizers.Precompiled(charsmap.astype("u1").tobytes()))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Strip(left=True, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer
