"""What the server answers from: a loaded model with its tokenizer, batch, adapters and vocabulary."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pagoda.core.errors import ContextTooLong, InvalidRequest, Unavailable
from pagoda.core.types import TokenLogprob
from pagoda.model.engines.gathering import Gathering
from pagoda.model.engines.transformers_child.adapters import Adapters
from pagoda.model.engines.transformers_child.batching import Batch, Sizes
from pagoda.model.engines.transformers_child.checkpoint import load_checkpoint, resolve_device, resolve_dtype
from pagoda.model.engines.transformers_child.constraint import Vocabulary
from pagoda.model.engines.transformers_child.embedding import Embedder
from pagoda.model.engines.transformers_child.job import Draw, Job, Written
from pagoda.model.engines.transformers_child.text import entry

_SCORE_CHUNK = 256
_PAGED_TOLERANCE = 0.5
"""Natural logarithms. A model whose code passes the paged cache by is off by far more; bfloat16 by far less."""


class Host:
    """One checkpoint, ready to answer. Made on the event loop, in a thread where it takes long."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        device = resolve_device(config["device"])
        dtype = resolve_dtype(config["dtype"], device)
        if device == "cpu":
            torch.set_num_threads(config["threads"])
        self.embeds: bool = config["embedding"]
        path = Path(config["path"])
        self.context: int = config["context"]
        found = load_checkpoint(path, embeds=self.embeds, device=device, dtype=dtype, trust=config["trust"])
        self.model, self.tokenizer = found.model, found.tokenizer
        self.served = 0
        """Tokens embedded and scored, which the batch does not count."""
        self.busy = 0
        """Requests for embeddings that are not answered yet."""
        self._turn = threading.Lock()
        self._sizes = Sizes(config["parallel"], self.context, config["page"], config["step"])
        self.adapters = Adapters(self.model)
        self.ends = _ends(self.model, self.tokenizer)
        if self.embeds:
            self._embedder = Embedder(self.model, path, self.tokenizer.pad_token_id or 0)
            self._gathering = Gathering(self._embedder.embed)
        else:
            if not self.model.can_generate():
                raise Unavailable("it is no model that generates text", retryable=False)
            attention = self.model.config.get_text_config()._attn_implementation
            if attention != "sdpa":  # the library's other one that pages cannot compute without pages, as scores do
                raise _no_paging(self.model, f"its attention is {attention}, not sdpa")
            rows = self.model.get_output_embeddings().weight.shape[0]
            self.vocabulary = Vocabulary(self.tokenizer, rows, self.ends)

    async def open(self) -> None:
        """Start the batch and see that it computes what a plain forward pass does."""
        if self.embeds:
            return
        try:
            self.batch = Batch(self.model, self._sizes, self.adapters.use)
        except (ValueError, RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
            raise _no_paging(self.model, str(error)) from error
        job = Job(prompt=self._some_tokens(), limit=2, draw=Draw(temperature=0, top_logprobs=0), ends=frozenset())
        written: list[Written] = []
        self.batch.submit(job)
        while isinstance(event := await job.events.get(), Written):
            written.append(event)
        if event.error:
            raise _no_paging(self.model, self.batch.fault or event.error)
        plain = await asyncio.to_thread(self.score_ids, [*job.prompt, *(token.id for token in written)], 2, "")
        for token, exact in zip(written, plain, strict=True):
            if abs((token.logprob or 0.0) - exact.logprob) > _PAGED_TOLERANCE:
                raise _no_paging(self.model, "its answers under a paged cache differ from those without")

    def _some_tokens(self) -> list[int]:
        return self.encode("The quick brown fox jumps over the lazy dog, and then", special=True)[: self.context - 2]

    # -- text and tokens ----------------------------------------------------------------------------------------------

    def encode(self, text: str, *, special: bool, parse: bool | None = None) -> list[int]:
        """Token ids; ``special`` adds what begins and ends a text, ``parse`` (else the same) reads such in it."""
        reads = special if parse is None else parse
        ids: list[int] = self.tokenizer(text, add_special_tokens=special, split_special_tokens=not reads)["input_ids"]
        return ids

    def ids_of(self, texts: Sequence[str], *, special: bool, parse: bool) -> list[list[int]]:
        """The same of several texts."""
        return [self.encode(text, special=special, parse=parse) for text in texts]

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def template(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """Messages as the model was trained to see them, with the head of its answer."""
        from jinja2 import TemplateError  # noqa: PLC0415  (transformers brings it along)

        if self.tokenizer.chat_template is None:
            raise InvalidRequest("The model has no chat template; use /v1/completions.", param="messages")
        try:
            text: str = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise InvalidRequest(
                f"The model's chat template refuses the messages: {error}.", param="messages"
            ) from error
        return text

    def chat_ids(self, messages: Sequence[Mapping[str, Any]], *, continue_final: bool) -> list[int]:
        """The prompt of a conversation; ``continue_final`` leaves the last message open."""
        return self.encode(self.chat_text(messages, continue_final=continue_final), special=False, parse=True)

    def chat_text(self, messages: Sequence[Mapping[str, Any]], *, continue_final: bool) -> str:
        """The same as text."""
        text = self.template(messages[:-1] if continue_final else messages)
        return text + str(messages[-1]["content"]) if continue_final else text

    def fit(self, ids: Sequence[int]) -> None:
        """Raise ``ContextTooLong`` when nothing could be written after these tokens."""
        if len(ids) >= self.context:
            raise ContextTooLong(len(ids), self.context)

    # -- forward passes beside the batch ------------------------------------------------------------------------------

    @torch.inference_mode()
    def score_ids(self, ids: Sequence[int], count: int, adapter: str) -> list[TokenLogprob]:
        """The log-probabilities of the last ``count`` tokens, each after all before it. Blocks; exact; no batch."""
        from transformers import DynamicCache  # noqa: PLC0415

        tokens: list[TokenLogprob] = []
        first = len(ids) - count
        with self._turn, self.batch.paused():
            self.adapters.use(adapter)
            cache = DynamicCache(config=self.model.config)
            for start in range(0, len(ids) - 1, _SCORE_CHUNK):
                chunk = list(ids[start : min(start + _SCORE_CHUNK, len(ids) - 1)])
                block = torch.tensor([chunk], device=self.model.device)
                logits = self.model(input_ids=block, past_key_values=cache, use_cache=True).logits[0]
                for place in range(max(start + 1, first), start + len(chunk) + 1):
                    row = logits[place - 1 - start].float().log_softmax(dim=-1)
                    tokens.append(entry(ids[place], float(row[ids[place]]), self.vocabulary.bytes_of))
            self.served += len(ids)
        return tokens

    async def embed(self, inputs: Sequence[Sequence[int]]) -> list[bytes]:
        """Vectors, computed together with those of other requests."""
        self.busy += 1
        try:
            vectors = await self._gathering.embed(inputs)
        finally:
            self.busy -= 1
        self.served += sum(map(len, inputs))
        return vectors

    def load_adapter(self, name: str, path: str) -> None:
        """Load an adapter between two steps; blocks."""
        with self._turn, self.batch.paused():
            if not self.adapters.holds(name, path):
                self.adapters.load(name, path)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, by the generation config, else the model's config, else the tokenizer."""
    for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
        found = getattr(owner, "eos_token_id", None)
        if found is not None:
            return frozenset(found if isinstance(found, list | tuple) else [found])
    return frozenset()


def _no_paging(model: Any, why: str) -> Unavailable:
    return Unavailable(
        f"transformers cannot run {type(model).__name__} by continuous batching ({why.rstrip('.')}); use another "
        "engine for it, or another model",
        code="unsupported_architecture",
        retryable=False,
    )
