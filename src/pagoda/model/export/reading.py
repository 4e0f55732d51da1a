"""Readings for the parity gate: of a model in torch, of a GGUF file's header and tensors, and of a served model.

Torch is imported while it is used; the served model is asked through the one door, like by anybody else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from pagoda.core.errors import ModelError
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Delta, Finish, Generation, Sampling, Score, Tokenize
from pagoda.model.export.architecture import family_of
from pagoda.model.export.folder import read_checkpoint
from pagoda.model.export.merging import Trained
from pagoda.model.export.parity import GREEDY_TOKENS, Finding, Probe, Reading, same
from pagoda.model.export.vocabulary import adds_bos
from pagoda.model.quantize.blocks import decode

_GREEDY = Sampling(temperature=0.0, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0)
_FORCE = 1e9
"""A logit bias that no model's own logits can outweigh."""


def rendered(tokenizer: Any, probe: Probe) -> str:
    """The probe's prompt as text: under the chat template, or the bare last message where there is none."""
    if not tokenizer.chat_template:
        return str(probe.messages[-1]["content"])
    text: str = tokenizer.apply_chat_template(list(probe.messages), tokenize=False, add_generation_prompt=True)
    return text


def usable(tokenizer: Any, probes: Sequence[Probe]) -> list[Probe]:
    """The probes that the chat template takes: some refuse a system message or certain turns."""
    from jinja2.exceptions import TemplateError  # noqa: PLC0415  (transformers brings it along)

    found = []
    for probe in probes:
        try:
            rendered(tokenizer, probe)
        except TemplateError:
            continue
        found.append(probe)
    return found


def read_torch(
    trained: Trained, probes: Sequence[Probe], like: Mapping[str, Reading] | None = None
) -> dict[str, Reading]:
    """What a transformers model does with each probe.

    With readings that it should be ``like``, greedy text is told in one pass over theirs: it is the same up to the
    first place where this model would have gone on otherwise.
    """
    import torch

    readings = {}
    for probe in probes:
        prompt, answer = split(trained.tokenizer, probe)
        with torch.inference_mode():
            logits = trained.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            table = torch.log_softmax(logits.double(), dim=-1)
            logprobs = table[torch.arange(len(answer)), torch.tensor(answer)].tolist()
            asked = _ids(trained.tokenizer, rendered(trained.tokenizer, probe))
            written, stopped, margins = _write(trained, asked, None if like is None else like[probe.id])
        readings[probe.id] = Reading(
            prompt=tuple(asked),
            scored=tuple(answer),
            logprobs=tuple(logprobs),
            written=tuple(written),
            stopped=stopped,
            margins=tuple(margins),
        )
    return readings


def split(tokenizer: Any, probe: Probe) -> tuple[list[int], list[int]]:
    """The ids of prompt and answer, parted where the answer begins to matter: a token may reach across."""
    text = rendered(tokenizer, probe)
    prompt, whole = _ids(tokenizer, text), _ids(tokenizer, text + probe.answer)
    pairs = enumerate(zip(prompt, whole, strict=False))
    count = next((place for place, (one, other) in pairs if one != other), min(len(prompt), len(whole)))
    shared = max(1, min(count, len(whole) - 1))
    return whole[:shared], whole[shared:]


def _ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a prompt: a template brings its own first token (a second one is a classic mistake), bare text none."""
    found: list[int] = tokenizer.encode(text, add_special_tokens=not tokenizer.chat_template)
    return found


def _write(trained: Trained, prompt: Sequence[int], like: Reading | None) -> tuple[list[int], bool, list[float]]:
    """Greedy decoding by the model's own cache; tokens that a reading proposes are checked in one pass, not written."""
    import torch

    proposed = [] if like is None else [*like.written, *([trained.stops[0]] if like.stopped else [])]
    ids, cache, ahead = torch.tensor([[*prompt, *proposed[:-1]]]), None, max(1, len(proposed))
    written: list[int] = []
    margins: list[float] = []
    while len(written) < (GREEDY_TOKENS if like is None else len(proposed)):
        out = trained.model(ids, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        best = torch.topk(torch.log_softmax(out.logits[0, -ahead:].double(), dim=-1), 2)
        for place in range(ahead):
            margins.append(float(best.values[place, 0] - best.values[place, 1]))
            token = int(best.indices[place, 0])
            if token in trained.stops:
                return written, True, margins
            written.append(token)
            if like is not None and token != proposed[place]:
                return written, False, margins
        ids, ahead = torch.tensor([[token]]), 1
    return _whole(trained.tokenizer, written), False, margins


def _whole(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """The tokens up to the last whole character: an engine shows no part of one."""
    kept = list(ids)
    while kept and tokenizer.decode(kept).endswith("\ufffd"):
        kept.pop()
    return kept


def check_file(path: Path, merged: Path, trained: Trained, allowed: float) -> Iterator[Finding]:
    """The exported GGUF file against the merged checkpoint and the trainer's tokenizer and stops, unserved.

    ``allowed`` bounds each tensor's root mean square error, relative to its values' root mean square.
    """
    tokenizer, stops = trained.tokenizer, trained.stops
    reader = gguf.GGUFReader(path)

    def field(name: str) -> Any:
        found = reader.get_field(name)
        return None if found is None else found.contents()

    yield same("exported", "chat template", field("tokenizer.chat_template"), tokenizer.chat_template or None)
    ends = [field(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom")]
    yield same("exported", "stop tokens", sorted(id for id in ends if id is not None), sorted(stops))
    yield same("exported", "first token before a text", field("tokenizer.ggml.add_bos_token"), adds_bos(tokenizer))
    config, state = read_checkpoint(merged)
    wanted = dict(family_of(config).tensors(state, config))
    there = {tensor.name: tensor for tensor in reader.tensors}
    yield same("exported", "names of tensors", sorted(there), sorted(wanted))
    for name in sorted(there.keys() & wanted.keys()):
        values = decode(there[name].data, there[name].tensor_type).reshape(wanted[name].shape)
        original = np.asarray(wanted[name], np.float32)
        error = float(np.sqrt(np.mean((values - original) ** 2)))
        relative = error / max(float(np.sqrt(np.mean(original**2))), 1e-12)
        if not relative <= allowed:  # a NaN is not
            said = f"is off by {relative:.4f} of its size"
            yield Finding(
                stage="exported", probe="", what=name, passed=False, difference=relative, allowed=allowed, said=said
            )


async def read_served(door: Inference, model: str, tokenizer: Any, probes: Sequence[Probe]) -> dict[str, Reading]:
    """What the served model does with each probe, asked through the door as any client would."""
    call = Call(purpose="evaluation")
    chats = bool(tokenizer.chat_template)
    readings = {}
    for probe in probes:
        text = rendered(tokenizer, probe)
        asked = (
            Tokenize(model=model, messages=probe.messages) if chats else Tokenize(model=model, text=text, special=True)
        )
        prompt = await door.tokenize(asked, call)
        context = text
        if adds_bos(tokenizer):  # the engine adds it itself
            context = text.removeprefix(str(tokenizer.bos_token))
        scores = await door.score(Score(model=model, context=context, text=probe.answer), call)
        if any(token.id is None for token in scores.tokens):
            raise ModelError(f"The engine of {model} does not name its tokens, and parity cannot be told.")
        written, finish = await _complete(door, model, probe, text if not chats else None, call)
        readings[probe.id] = Reading(
            prompt=prompt.ids,
            scored=tuple(int(token.id or 0) for token in scores.tokens),
            logprobs=tuple(token.logprob for token in scores.tokens),
            written=tuple(written if finish == "stop" else _whole(tokenizer, written)),
            stopped=finish == "stop",
        )
    return readings


async def check_stops(door: Inference, model: str, stops: Sequence[int]) -> list[Finding]:
    """Force each stop token upon the served model: the answer must end there, with nothing written."""
    findings = []
    for stop in stops:
        sampling = Sampling(temperature=0.0, logit_bias={stop: _FORCE})
        request = Generation(model=model, prompt="1 2 3", max_tokens=2, sampling=sampling)
        said = ""
        async with aclosing(door.complete(request, Call(purpose="evaluation"))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Finish):
                    said = event.reason
        findings.append(same("served", f"stop at token {stop}", said, "stop"))
    return findings


async def _complete(door: Inference, model: str, probe: Probe, text: str | None, call: Call) -> tuple[list[int], str]:
    what: Mapping[str, Any] = {"messages": probe.messages} if text is None else {"prompt": text}
    request = Generation(
        model=model, max_tokens=GREEDY_TOKENS, sampling=_GREEDY, top_logprobs=1, reasoning="inline", **what
    )
    written: list[int] = []
    finish = ""
    async with aclosing(door.complete(request, call)) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Delta):
                written += [token.id for token in event.logprobs if token.id is not None]
            elif isinstance(event, Finish):
                finish = event.reason
    return written, finish
