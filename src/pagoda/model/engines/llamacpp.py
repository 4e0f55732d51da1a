"""llama.cpp, the embedded engine: GGUF chat, completion and embedding models on CPU (or what its build supports).

Its server speaks nearly OpenAI; the dialect below is what was seen to differ: usage comes once per choice, length and
sampling have defaults of their own, a stop sequence or a character of several tokens swallows log-probabilities of
streamed tokens (both are mended here), a trailing assistant message needs its template applied by hand, and given text
is scored by forcing one token after another with a logit bias (log-probabilities are reported from before the bias).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from pagoda.core.errors import ContextTooLong, InvalidRequest, ModelError, Rejected, Unavailable
from pagoda.core.types import (
    Delta,
    Detokenize,
    Event,
    Finish,
    Generation,
    Score,
    Scores,
    Started,
    Text,
    Tokenize,
    TokenLogprob,
    Tokens,
    Usage,
)
from pagoda.model.catalog.entry import ModelEntry
from pagoda.model.catalog.gguf_header import read_gguf_header
from pagoda.model.engines.contract import Drawn, Health, LaunchPlan, Memory, Profile, Room, Vitals
from pagoda.model.engines.exposition import llamacpp_health, llamacpp_vitals
from pagoda.model.engines.llamacpp_memory import (
    LARGEST_DEFAULT_CONTEXT,
    MIB,
    context_of,
    prompt_cache_mib,
    slot_bytes,
)
from pagoda.model.engines.openai import OpenAIEngine, Reading
from pagoda.model.engines.stop import StopCutter

_EMBEDDING_BATCH = 2048
_EMBEDDINGS_A_SLOT = 16
_OVERHEAD_BYTES = 160 * MIB  # the process with its native code, measured with a model of 2 MB
_FORCE = 1e9  # a logit bias that no model's own logits can outweigh

NEUTRAL_SAMPLING = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
}
"""OpenAI's defaults in llama.cpp's words; its own (temperature 0.8, top-k 40, min-p 0.05) would act unseen."""


class LlamaCpp:
    """Launches ``llamacpp_child`` and speaks to it."""

    name = "llamacpp"
    runs = "process"
    parallel = 4

    def memory(self, model: ModelEntry, path: Path | None, room: Room) -> Memory:
        """Weights as the file's size; keys and values of all slots, and of prompts that lost theirs; the process."""
        if path is None:
            raise InvalidRequest(f"{model.id} has no file.")
        slots = slot_bytes(model, read_gguf_header(path), room)
        return Memory(
            weights=path.stat().st_size, kv_cache=slots + prompt_cache_mib(slots) * MIB, overhead=_OVERHEAD_BYTES
        )

    def capacity(self, model: ModelEntry, room: Room) -> int:
        """Its slots. Embeddings are short and go through in batches, so that more may be under way."""
        return room.parallel * _EMBEDDINGS_A_SLOT if model.task == "embedding" else room.parallel

    def plan(self, model: ModelEntry, path: Path | None, room: Room, key: str) -> LaunchPlan:
        """Start ``llamacpp_child`` on the model's file."""
        if path is None:
            raise InvalidRequest(f"{model.id} has no file.")
        header = read_gguf_header(path)
        return LaunchPlan(
            command=(sys.executable, "-m", "pagoda.model.engines.llamacpp_child"),
            environment={"GOMP_SPINCOUNT": str(room.spin)},
            config={
                "path": str(path),
                "key": key,
                "context": context_of(model, header, room),
                "parallel": room.parallel,
                "threads": room.threads,
                "kv_type": room.kv_type,
                "embedding": model.task == "embedding",
                "batch": _EMBEDDING_BATCH,
                # A prompt's state without its slot does not say which adapter it was computed with.
                "prompt_cache_mib": 0 if model.adapters else prompt_cache_mib(slot_bytes(model, header, room)),
                "adapters": [adapter.path for adapter in model.adapters],
            },
        )

    def write_adapter(self, folder: Path, base: Path, target: Path) -> None:
        """As the GGUF file that its server loads."""
        from pagoda.model.export.adapter_file import write_adapter  # noqa: PLC0415  (numpy, for few)

        write_adapter(folder, base, target)

    async def connect(self, model: ModelEntry, url: str, key: str, room: Room) -> LlamaCppEngine:
        """Speak to a started child; its context is asked of it."""
        engine = LlamaCppEngine(model, url, key, room)
        properties = await engine.ask_about_itself(engine.root + "/props")
        engine.context = properties["default_generation_settings"]["n_ctx"]
        return engine


class LlamaCppEngine(OpenAIEngine):
    """llama.cpp's dialect."""

    kind = "llamacpp"
    keeps_streams = False  # its server closes the connection after a stream without having said so

    def __init__(self, model: ModelEntry, url: str, key: str, room: Room) -> None:
        embeds = model.task == "embedding"
        profile = Profile(
            generate=not embeds,
            embed=embeds,
            choices=room.parallel,
            score=not embeds,
            adapters=not embeds,
            token_frames=True,
            unenforced_keywords=frozenset(
                {"multipleOf", "format", "uniqueItems", "not", "if", "contains", "propertyNames", "minProperties"}
                | {"maxProperties", "dependentRequired", "dependentSchemas", "patternProperties", "minContains"}
                | {"maxContains", "unevaluatedProperties", "unevaluatedItems"}
            ),
        )
        super().__init__(model, url + "/v1", key, room, profile)
        self.root = url.rstrip("/")
        self._adapters = {adapter.id: place for place, adapter in enumerate(model.adapters)}

    async def adopt(self, adapter: ModelEntry) -> None:
        """Its adapters came with its start; one that is not among them was attached while this lease was waited for."""
        if adapter.id not in self._adapters:
            raise Unavailable(f"{adapter.id} is just being attached to {self.model.id}; ask again.")

    def _adapted(self, name: str) -> dict[str, Any]:
        """How much of each adapter answers: all of the one that was named, none of the others."""
        return {"lora": [{"id": place, "scale": float(id == name)} for id, place in self._adapters.items()]}

    async def generate(self, request: Generation, drawn: Drawn | None = None) -> AsyncIterator[Event]:
        """As the common tongue; stop sequences are cut here where the server's own way would lose something."""
        reading = Reading(choices=request.n, drawn=drawn)
        async with aclosing(self.stream(request, reading)) as stream:  # type: ignore[type-var]
            events = stream if request.top_logprobs is None else self._whole_logprobs(request, stream)
            async for event in self._cut(request, events, reading) if _cuts(request) else events:
                if isinstance(event, Started) and request.model in self._adapters:
                    yield replace(event, model=request.model)
                else:
                    yield event

    async def _cut(self, request: Generation, stream: AsyncIterator[Event], reading: Reading) -> AsyncIterator[Event]:
        """The answer up to its stop sequences; leaving a stopped one makes the engine free."""
        cutters = [StopCutter(request.stop) for _ in range(request.n)]
        usage = Usage(0, 0)
        open_choices = set(range(request.n))
        async for event in stream:
            match event:
                case Delta(index):
                    cutter = cutters[index]
                    if (certain := cutter.feed(event)) is not None:
                        yield certain
                    if cutter.stopped and index in open_choices:
                        open_choices.discard(index)
                        yield Finish(index, "stop", cutter.stop)
                        if request.n == 1:
                            yield reading.usage
                            return
                case Finish(index):
                    if index in open_choices:
                        open_choices.discard(index)
                        if (rest := cutters[index].flush(index)) is not None:
                            yield rest
                        yield event
                case Usage():
                    usage = event
                case _:
                    yield event
        yield usage

    async def _whole_logprobs(self, request: Generation, stream: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """The answer with an entry for every token of a character that is made of several.

        The server reports only the last of them, so they are named by the tokenizer and scored in their place. A
        character that the model wrote by an unusual split is thus shown by its usual one, as ``score`` would.
        """
        written: list[list[int]] = [[] for _ in range(request.n)]
        prompt: list[int] | None = None
        async for event in stream:
            if isinstance(event, Delta) and event.logprobs:
                last = event.logprobs[-1]
                pieces = [] if event.text.isascii() else await self._pieces(event.text)
                if len(pieces) > 1 and pieces[-1][0] == last.id:
                    prompt = prompt if prompt is not None else await self._prompt_ids(request)
                    before = prompt + written[event.index]
                    tokens = [
                        await self._score_token(
                            request.model, before + [id for id, _ in pieces[:place]], id, request.top_logprobs or 0
                        )
                        for place, (id, _) in enumerate(pieces)
                    ]
                    event = replace(event, logprobs=tuple(tokens))  # noqa: PLW2901
                written[event.index] += [token.id for token in event.logprobs if token.id is not None]
            yield event

    async def _pieces(self, text: str) -> list[tuple[int, bytes]]:
        """The tokens of a text with their bytes; none where they do not join to the text again."""
        found = await self._split(text, special=False)
        return found if b"".join(raw for _, raw in found) == text.encode() else []

    async def _prompt_ids(self, request: Generation) -> list[int]:
        if request.prompt is not None and not isinstance(request.prompt, str):
            return list(request.prompt)
        if request.messages is None:
            return await self._token_ids(request.prompt or "", special=True)
        return await self._token_ids(await self._template(request.messages, request.continue_final), special=True)

    async def generation_body(self, request: Generation) -> tuple[str, dict[str, Any]]:
        """The common body in llama.cpp's words."""
        path, body = await super().generation_body(request)
        body |= {"cache_prompt": True, **self._adapted(request.model)}
        if _cuts(request):
            body.pop("stop")
            body["timings_per_token"] = True  # the usage up to the cut
        if request.top_logprobs is not None:
            body["logprobs" if request.messages is None else "top_logprobs"] = max(request.top_logprobs, 1)  # 0: none
        if request.continue_final and request.messages is not None:
            for name in ("messages", "continue_final_message", "add_generation_prompt"):
                body.pop(name)
            if "top_logprobs" in body:
                body["logprobs"] = body.pop("top_logprobs")
            body["prompt"] = await self._template(request.messages, continued=True)
            return "/completions", body
        return path, body

    def sampling_body(self, request: Generation) -> dict[str, Any]:
        """Every sampling parameter, from the caller, else the model's generation config, else OpenAI's default."""
        given = super().sampling_body(request)
        if "repetition_penalty" in given:
            given["repeat_penalty"] = given.pop("repetition_penalty")
        own = {("repeat_penalty" if k == "repetition_penalty" else k): v for k, v in self.model.sampling.items()}
        return NEUTRAL_SAMPLING | own | given

    def length(self, request: Generation) -> int:
        """The asked length, else the whole context: generation then ends with ``length`` where the context does."""
        return request.max_tokens if request.max_tokens is not None else self.context or LARGEST_DEFAULT_CONTEXT

    def read_usage(self, payload: dict[str, Any], reading: Reading) -> None:
        """Usage comes in one frame a choice, each counting that choice alone."""
        if usage := payload.get("usage"):
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            before = Usage(0) if reading.choices == 1 else reading.usage
            reading.usage = Usage(
                usage["prompt_tokens"],
                before.completion_tokens + usage["completion_tokens"],
                max(before.cached_tokens, cached),
            )
        elif (timings := payload.get("timings")) and reading.choices == 1:
            cached = timings.get("cache_n", 0)
            reading.usage = Usage(timings["prompt_n"] + cached, timings["predicted_n"], cached)

    async def score(self, request: Score) -> Scores:
        """Force each token of the text in turn and read its log-probability.

        A token that is part of a character is not reported when it is generated, so it is looked up among the
        likeliest rivals of a full stop at its place, ever more of them.
        """
        context = await self._token_ids(request.context, special=True)
        ids = await self._token_ids(request.context + request.text, special=True)
        shared = 0
        while shared < min(len(context), len(ids)) and context[shared] == ids[shared]:
            shared += 1
        shared = min(shared, len(ids) - 1)
        if shared <= 0:  # the first token of a text has nothing before it to be likely after
            raise InvalidRequest("Scoring needs a context of at least one token.", param="context")
        self._refuse_long(len(ids))
        tokens = [await self._score_token(request.model, ids[:place], ids[place]) for place in range(shared, len(ids))]
        return Scores(model=self.model.id, tokens=tuple(tokens), prompt_tokens=len(ids))

    async def _score_token(self, model: str, before: list[int], token: int, top: int = 0) -> TokenLogprob:
        """The log-probability of a token after others, with its ``top`` likeliest rivals."""
        body = {"prompt": before, "n_predict": 1, "temperature": 0, "n_probs": max(top, 1), "cache_prompt": True}
        body |= self._adapted(model)
        answer = await self.post_json(self.root + "/completion", body | {"logit_bias": [[token, _FORCE]]})
        for chosen in answer.get("completion_probabilities") or ():
            if chosen["id"] == token:
                return _token(chosen, chosen["top_logprobs"][:top])
        plain = (await self._token_ids(".", special=False))[-1]
        rivals = 256
        while True:
            wide = body | {"n_probs": rivals, "logit_bias": [[plain, _FORCE]]}
            answer = await self.post_json(self.root + "/completion", wide)
            listed = [item for entry in answer.get("completion_probabilities") or () for item in entry["top_logprobs"]]
            for rival in listed:
                if rival["id"] == token:
                    return _token(rival, listed[:top])
            if len(listed) < rivals:
                raise ModelError(f"{self.model.id} gives no log-probability for token {token}.")
            rivals *= 16

    async def tokenize(self, request: Tokenize) -> Tokens:
        """Ids of a text, or of messages under the chat template."""
        text, special = request.text or "", request.special
        if request.messages is not None:
            text, special = await self._template(request.messages, request.continue_final), True
        if not request.pieces:
            ids = await self._token_ids(text, special=special)
            return Tokens(model=self.model.id, ids=tuple(ids), context=self.context)
        found = await self._split(text, special=special)
        return Tokens(
            model=self.model.id,
            ids=tuple(id for id, _ in found),
            context=self.context,
            pieces=tuple(raw.decode("utf-8", "replace") for _, raw in found),
        )

    async def detokenize(self, request: Detokenize) -> Text:
        """The text of token ids."""
        answer = await self.post_json(self.root + "/detokenize", {"tokens": list(request.ids)})
        return Text(model=self.model.id, text=answer["content"])

    async def health(self) -> Health:
        """From llama.cpp's own metrics."""
        return llamacpp_health(await self.read_metrics())

    async def vitals(self) -> Vitals:
        """From its metrics and slots."""
        slots = cast("list[Any]", await self.request_json("GET", self.root + "/slots"))
        return llamacpp_vitals(await self.health(), slots)

    def translate(self, status: int, error: Mapping[str, Any]) -> ModelError:
        """A prompt or text that does not fit is told apart by its type or, for embeddings, by its words."""
        if error.get("type") == "exceed_context_size_error":
            return ContextTooLong(error["n_prompt_tokens"], error["n_ctx"])
        if "range_check" in str(error.get("message")):
            return Rejected(f"A token id is outside {self.model.id}'s vocabulary.")
        return super().translate(status, error)

    async def _token_ids(self, text: str, *, special: bool) -> list[int]:
        answer = await self.post_json(
            self.root + "/tokenize", {"content": text, "add_special": special, "parse_special": special}
        )
        ids: list[int] = answer["tokens"]
        return ids

    async def _split(self, text: str, *, special: bool) -> list[tuple[int, bytes]]:
        """The tokens of a text with their bytes."""
        body = {"content": text, "add_special": special, "parse_special": special, "with_pieces": True}
        answer = await self.post_json(self.root + "/tokenize", body)
        return [
            (item["id"], item["piece"].encode() if isinstance(item["piece"], str) else bytes(item["piece"]))
            for item in answer["tokens"]
        ]

    async def _template(self, messages: Sequence[Any], continued: bool = False) -> str:
        """The prompt of messages; a last one that is to be ``continued`` follows as it is."""
        asked = messages[:-1] if continued else messages
        answer = await self.post_json(self.root + "/apply-template", {"messages": list(asked)})
        prompt: str = answer["prompt"]
        return prompt + str(messages[-1]["content"]) if continued else prompt

    def _refuse_long(self, tokens: int) -> None:
        if self.context is not None and tokens >= self.context:
            raise ContextTooLong(tokens, self.context)


def _cuts(request: Generation) -> bool:
    """Whether Pagoda cuts at the stop sequences: the server does not say which it met, and loses log-probabilities."""
    return bool(request.stop) and (request.n == 1 or request.top_logprobs is not None)


def _token(item: Mapping[str, Any], rivals: Sequence[Mapping[str, Any]] = ()) -> TokenLogprob:
    top = tuple(_token(rival) for rival in rivals)
    return TokenLogprob(item["token"], item["logprob"], tuple(item["bytes"]), top, item["id"])
