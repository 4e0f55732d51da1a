"""A tokenizer as GGUF states it, read from a checkpoint's ``tokenizer.json``: byte-level BPE, or SentencePiece's.

llama.cpp has its own splitting before byte-level BPE, named in ``tokenizer.ggml.pre``. The name is found here from
what the tokenizer says of itself; a splitting that llama.cpp has no name for is refused, not served with other tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf

from pagoda.core.errors import InvalidRequest
from pagoda.model.catalog.recipes.safetensors import broken
from pagoda.model.export.folder import read_table
from pagoda.model.export.sentencepiece import adds_space, is_byte, scores_of

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST: "llama-bpe",
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST: "qwen2",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What GGUF says of a tokenizer; ids by role are ``bos``, ``eos``, ``unk``, ``pad`` and, of further stops, ``eot``
    and ``eom``. ``scores`` are SentencePiece's, which has no ``merges``."""

    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    adds_space: bool = False
    special: Mapping[str, int]
    add_bos: bool
    template: str

    def write(self, writer: gguf.GGUFWriter) -> None:
        """Add the tokenizer to a GGUF file's header."""
        writer.add_tokenizer_model("llama" if self.scores else "gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(list(self.tokens))
        writer.add_token_types(list(self.types))
        if self.scores:
            writer.add_token_scores(list(self.scores))
        else:
            writer.add_token_merges(list(self.merges))
        for role, token in self.special.items():
            getattr(writer, f"add_{role}_token_id")(token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.adds_space)
        if self.template:
            writer.add_chat_template(self.template)


def read_vocabulary(folder: Path, tokenizer: Any, stops: Sequence[int], rows: int) -> Vocabulary:
    """The vocabulary of the checkpoint in ``folder``, whose ``tokenizer`` (transformers) and ``stops`` are known.

    ``rows`` is the height of the embedding matrix; rows without a token get an unused one. Raises ``InvalidRequest``
    naming what GGUF or llama.cpp has no form for.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InvalidRequest(
            f"{folder} has no tokenizer.json, and GGUF is written from no other form of tokenizer; save the tokenizer "
            "with transformers first."
        )
    data = read_table(path)
    model = data.get("model") or {}
    if model.get("type") != "BPE":
        raise InvalidRequest(
            f"{path} is {model.get('type')}, and GGUF is written for BPE only. `pagoda export --to safetensors` works."
        )
    try:
        pieces, pairs = dict(model["vocab"]), [_pair(each) for each in model["merges"]]
    except (KeyError, TypeError, ValueError) as error:
        raise broken(path, "its BPE lacks a table of pieces or a list of merges of two pieces each") from error
    tokens, types = _tokens(path, pieces, data.get("added_tokens") or [], rows)
    common: dict[str, Any] = {
        "tokens": tuple(tokens),
        "special": _roles(tokenizer, stops),
        "add_bos": adds_bos(tokenizer),
        "template": str(tokenizer.chat_template or ""),
    }
    if not model.get("byte_fallback"):
        return Vocabulary(pre=_pre(path, data), types=tuple(types), merges=tuple(map(" ".join, pairs)), **common)
    scores = scores_of(path, model, pairs)
    return Vocabulary(
        pre="default",
        types=tuple(_kind(tokenizer, id, token, types[id]) for id, token in enumerate(tokens)),
        scores=tuple(scores.get(token, 0.0) for token in tokens),
        adds_space=adds_space(path, data, chats=bool(tokenizer.chat_template)),
        **common,
    )


def _pair(merge: str | Sequence[str]) -> tuple[str, str]:
    """A merge's two halves, which older files have as one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _kind(tokenizer: Any, id: int, token: str, kind: int) -> int:
    """SentencePiece tells bytes and the unknown piece apart from others."""
    if is_byte(token):
        return int(gguf.TokenType.BYTE)
    return int(gguf.TokenType.UNKNOWN) if id == tokenizer.unk_token_id else kind


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its first token before a text. Raises ``InvalidRequest`` for one after it."""
    bare, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    before, after = whole[: len(whole) - len(bare)], whole[len(bare) :]
    if not before:
        return False
    if whole == [tokenizer.bos_token_id, *bare]:
        return True
    raise InvalidRequest(f"The tokenizer puts {before or after} around a text; GGUF can state a first token only.")


def _tokens(
    path: Path, pieces: dict[str, int], added: Sequence[Mapping[str, Any]], rows: int
) -> tuple[list[str], list[int]]:
    table: dict[int, tuple[str, int]] = {id: (piece, gguf.TokenType.NORMAL) for piece, id in pieces.items()}
    for token in added:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        table[int(token["id"])] = (str(token["content"]), kind)
    if table and max(table) >= rows:
        raise broken(path, f"it has a token {max(table)} and the model's embeddings have {rows} rows")
    filled = [table.get(id, (f"[PAD{id}]", gguf.TokenType.UNUSED)) for id in range(rows)]
    return [piece for piece, _ in filled], [int(kind) for _, kind in filled]


def _roles(tokenizer: Any, stops: Sequence[int]) -> dict[str, int]:
    """Ids by role; the tokenizer's own end first where it is a stop, the further stops as end of turn and message."""
    own = tokenizer.eos_token_id
    ordered = sorted(stops, key=lambda id: id != own) or ([own] if own is not None else [])
    if len(ordered) > 3:
        raise InvalidRequest(f"The model stops at {len(ordered)} tokens, and GGUF can state three; leave out some.")
    roles = dict(zip(("eos", "eot", "eom"), ordered, strict=False))
    for role in ("bos", "unk", "pad"):
        if (id := getattr(tokenizer, f"{role}_token_id")) is not None:
            roles[role] = id
    return roles


def _pre(path: Path, data: Mapping[str, Any]) -> str:
    """llama.cpp's name for how the tokenizer splits text before BPE."""
    steps = _steps(data.get("pre_tokenizer"))
    normal = (data.get("normalizer") or {}).get("type")
    kinds = [step["type"] for step in steps]
    if steps and steps[-1]["type"] == "ByteLevel" and not steps[-1].get("add_prefix_space"):
        own_splitting = steps[-1].get("use_regex", True)
        if kinds == ["ByteLevel"] and own_splitting and normal is None:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and own_splitting and steps[0].get("individual_digits") and normal is None:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not own_splitting and normal in (None, "NFC"):
            pattern = steps[0].get("pattern", {}).get("Regex", "")
            if pattern in _PATTERNS:
                return _PATTERNS[pattern]
    raise InvalidRequest(
        f"{path} splits text in a way that llama.cpp has no known name for ({', '.join(kinds) or 'none'}; normaliser "
        f"{normal or 'none'}); GGUF is written for GPT-2's, SmolLM's, Llama 3's and Qwen 2's. "
        "`pagoda export --to safetensors` works."
    )


def _steps(found: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if not found:
        return []
    return list(found["pretokenizers"]) if found["type"] == "Sequence" else [found]
