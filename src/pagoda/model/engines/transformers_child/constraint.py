"""Holding an answer to a JSON Schema with llguidance, which says before each token which ones may follow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import llguidance
import llguidance.hf
import numpy as np
import orjson
from numpy.typing import NDArray

from pagoda.core.errors import Rejected


class Vocabulary:
    """The tokens of a model as bytes, and grammars over them."""

    def __init__(self, tokenizer: Any, size: int, ends: frozenset[int]) -> None:
        self.size = size
        self._tokens = llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(ends) or None)
        self._silent = frozenset(id for id, token in tokenizer.added_tokens_decoder.items() if token.special) | ends

    def bytes_of(self, id: int) -> bytes:
        """What a token adds to the text; nothing for one that only steers."""
        return b"" if id in self._silent else bytes(self._tokens.decode_bytes([id]))

    def constrain(self, schema: Mapping[str, Any]) -> Constraint:
        """A fresh constraint; raises ``Rejected`` when no answer can be held to the schema.

        Keywords that llguidance cannot hold to are let pass (the profile names them): answers are validated above.
        """
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                orjson.dumps(schema).decode(), overrides={"lenient": True}
            )
            failed, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, self._tokens)
        except ValueError as error:
            raise Rejected(f"The schema cannot be held to: {error}.", param="response_format") from error
        if failed:
            raise Rejected(f"The schema cannot be held to: {'; '.join(messages)}.", param="response_format")
        return Constraint(llguidance.LLMatcher(self._tokens, grammar), self.size)


class Constraint:
    """How far one answer has come through its grammar."""

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher = matcher
        self._size = size

    def allowed(self) -> NDArray[np.bool_]:
        """For each token, whether it may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        found: NDArray[np.bool_] = np.unpackbits(bits, bitorder="little")[: self._size].astype(bool)
        return found

    def accept(self, id: int) -> str:
        """Take a token; gives what went wrong, if anything did."""
        if self._matcher.is_stopped() or self._matcher.consume_token(id):
            return ""
        return str(self._matcher.get_error()) or "the grammar refuses the token"
