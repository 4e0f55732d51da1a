"""Quantisation at work: what a run of the kind ``quantisation`` does. Forms that have a row are not made again."""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pagoda.application.exporting import entry_at, located, trial_service
from pagoda.core.errors import InvalidRequest, PagodaError
from pagoda.core.runs import RunContext
from pagoda.core.runs.files import append_line, resume_lines, write_json
from pagoda.core.types import Call, Delta, Generation, Json, Sampling, Usage
from pagoda.logic.evaluation.dataset import check_digest, digest_of
from pagoda.model.catalog.disk import bytes_under, stored
from pagoda.model.catalog.opening import Shelf
from pagoda.model.export.folder import FLOATS, form_of, precision_of, weights_in
from pagoda.model.export.gguf_file import write_gguf
from pagoda.model.export.merging import Trained, load_trained
from pagoda.model.quantize.forms import FORMS, find_form
from pagoda.model.quantize.measuring import Measure, Quality, Text, read_texts
from pagoda.model.quantize.methods import METHODS, find_method, load_in, share_quantised
from pagoda.model.quantize.report import ORIGINAL, Row, draw, row_of, verdicts
from pagoda.model.quantize.restoring import kinds_in, restore

KIND = "quantisation"
REPORT, PLOT = "report.json", "quality.svg"
_WRITTEN = 32
_WIDE = ("F32", "F16", "BF16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run's config."""

    model: str
    """The folder of a checkpoint."""
    forms: tuple[str, ...]
    data: str
    digest: str
    """Of the data: a run does not go on with other texts."""
    rows: int = 40


def plan_quantisation(shelf: Shelf, source: str, forms: Sequence[str], data: Path, rows: int) -> Plan:
    """The plan for what a person named. Raises ``InvalidRequest``, ``NotFound`` or ``Unavailable`` before any work."""
    folder, adapter = located(shelf, source, None)
    if adapter is not None:
        raise InvalidRequest(f"{source} is an adapter; export it with `pagoda export --to safetensors` first.")
    named = tuple(dict.fromkeys(_name_of(form) for form in forms))
    read_texts(data, rows)
    if (precision := precision_of(folder)) not in FLOATS:
        raise InvalidRequest(
            f"{source} holds its weights as {precision}, and forms are made of {', '.join(FLOATS)}; name the "
            "checkpoint that it was made from.",
            param="model",
        )
    return Plan(model=str(folder), forms=named, data=str(data.absolute()), digest=digest_of(str(data)), rows=rows)


def _name_of(form: str) -> str:
    if form in METHODS or (form not in FORMS and form.lower() in METHODS):  # bf16 is torch's, BF16 is GGUF's
        return find_method(form.lower()).name
    if form.upper() in FORMS:
        return find_form(form).name
    raise InvalidRequest(f"There is no form {form!r}; there are {', '.join([*FORMS, *METHODS])}.", param="forms")


def plan_json(plan: Plan) -> dict[str, Json]:
    """The plan as a run keeps it."""
    return {**asdict(plan), "forms": list(plan.forms)}


async def run_quantisation(context: RunContext) -> Mapping[str, Json]:
    """Make each form, load it again, measure it, and report."""
    config: dict[str, Any] = dict(context.config)
    plan = Plan(**{**config, "forms": tuple(config["forms"])})
    check_digest(plan.data, plan.digest)
    precision = form_of(Path(plan.model))
    work = _Work(context, plan, read_texts(Path(plan.data), plan.rows), precision)
    try:
        rows = await work.perform()
    finally:
        shutil.rmtree(context.checkpoints / "original", ignore_errors=True)  # the original's tables are large
    said = verdicts(rows, precision)
    report = {
        "model": plan.model,
        "precision": precision,
        "texts": plan.rows,
        "rows": [row.to_json() for row in rows],
        "said": said,
    }
    await asyncio.to_thread(write_json, context.artifacts / REPORT, report)
    if find_spec("matplotlib") is not None:
        await asyncio.to_thread(draw, rows, precision, context.artifacts / PLOT)
    else:
        context.log("No picture was drawn: it needs matplotlib (`pip install 'pagoda-llm[plots]'`).")
    return {"report": str(context.artifacts / REPORT), "said": said}


class _Work:
    """One quantisation."""

    def __init__(self, context: RunContext, plan: Plan, texts: Sequence[Text], precision: str) -> None:
        self._context = context
        self._plan = plan
        self._texts = texts
        self._precision = precision
        self._stage = ""

    async def perform(self) -> list[Row]:
        """All rows: those of an earlier attempt as they are."""
        path = self._context.checkpoints / "rows.jsonl"
        self._context.checkpoints.mkdir(parents=True, exist_ok=True)
        rows = {row["form"]: row_of(row) for row in resume_lines(path)}
        self._stage = ORIGINAL
        self._context.progress(ORIGINAL, 0, None)
        trained = await asyncio.to_thread(load_trained, Path(self._plan.model), None)
        kept = self._context.checkpoints / "original"
        measure = Measure(trained, self._texts, kept, self._tick)
        found = await asyncio.to_thread(self._original, trained.model, measure)
        rows.setdefault(ORIGINAL, found)
        for form in (form for form in self._plan.forms if form not in rows):
            self._stage = form
            self._context.progress(form, 0, None)
            rows[form] = await self._form(form, trained, measure)
            append_line(path, rows[form].to_json())
            gc.collect()
        return [rows[form] for form in (ORIGINAL, *self._plan.forms)]

    def _tick(self, done: int, total: int) -> None:
        self._context.progress(self._stage, done, total)

    def _original(self, single: Any, measure: Measure) -> Row:
        """The original as it is: in its own precision, against its weights in single precision."""
        measure.original(single)  # also the first pass of the process, which is slow: no speed is told of it
        model = single if self._precision == "F32" else load_in(self._precision, Path(self._plan.model))
        quality = measure.form(model)
        share, held = share_quantised(model)
        return Row(
            form=ORIGINAL,
            engine="torch",
            bytes=sum(file.stat().st_size for file in weights_in(Path(self._plan.model))),
            share=share,
            kinds={},
            reloaded=True,
            quality=quality,
            memory=held,
        )

    async def _form(self, form: str, trained: Trained, measure: Measure) -> Row:
        """A row for the form, also where it fails: then with the reason."""
        engine = "torch" if form in METHODS else "llamacpp"
        try:
            if form in METHODS:
                return await asyncio.to_thread(self._in_torch, form, measure)
            return await self._in_gguf(form, trained, measure)
        except (PagodaError, OSError, ValueError, RuntimeError, TypeError, NotImplementedError) as error:
            self._context.log("".join(traceback.format_exception(error)).rstrip())
            return Row(form=form, engine=engine, kinds={}, problem=_reason(error))

    def _in_torch(self, form: str, measure: Measure) -> Row:
        method = find_method(form)
        folder = self._context.artifacts / form
        with stored(f"The form {form}", folder):
            shutil.rmtree(folder, ignore_errors=True)
            live = method.make(Path(self._plan.model))
            method.write(live, folder)
        model = method.load(folder)
        measure.check_same(live, model)
        del live
        share, held = share_quantised(model)
        quality = measure.form(model)
        size = bytes_under(folder)
        return Row(
            form=form, engine="torch", bytes=size, share=share, kinds={}, reloaded=True, quality=quality, memory=held
        )

    async def _in_gguf(self, form: str, trained: Trained, measure: Measure) -> Row:
        file = self._context.artifacts / f"{Path(self._plan.model).name}.{form}.gguf"
        quality, kinds = await asyncio.to_thread(self._weights, form, file, trained, measure)
        total = sum(kinds.values())
        small = total - sum(kinds.get(kind, 0) for kind in _WIDE)
        reading, writing, memory = await self._served(file)
        return Row(
            form=form,
            engine="llamacpp",
            bytes=file.stat().st_size,
            share=small / total,
            kinds=kinds,
            reloaded=True,
            quality=replace(quality, reading=reading, writing=writing),
            memory=memory,
        )

    def _weights(self, form: str, file: Path, trained: Trained, measure: Measure) -> tuple[Quality, dict[str, int]]:
        source = Path(self._plan.model)
        write_gguf(source, trained.tokenizer, trained.stops, file, find_form(form), lambda *_: None)
        model = restore(file, load_trained(source, None).model)
        return measure.form(model), kinds_in(file)

    async def _served(self, file: Path) -> tuple[float, float, int | None]:
        """The engine's speeds on the sample's first texts, and the memory of its process."""
        entry = entry_at(file, "form")
        async with trial_service(self._context, entry) as platform:
            texts = [text.context for text in self._texts[:4]]
            call = Call(purpose="evaluation")

            async def ask(text: str, tokens: int) -> tuple[float, float, Usage]:
                """Seconds to the first token, from there to the last one, and what was counted."""
                request = Generation(model=entry.id, prompt=text, max_tokens=tokens, sampling=Sampling(temperature=0.0))
                began, usage = time.perf_counter(), Usage(0)
                first = last = 0.0
                async with aclosing(platform.inference.complete(request, call)) as events:  # type: ignore[type-var]
                    async for event in events:
                        if isinstance(event, Delta):
                            last = time.perf_counter() - began
                            first = first or last
                        if isinstance(event, Usage):
                            usage = event
                return first, last - first, usage

            await ask("A first word.", 1)
            told: dict[int, list[tuple[float, float, Usage]]] = {1: [], 1 + _WRITTEN: []}
            for tokens, answers in told.items():
                for text in texts:
                    self._tick(sum(map(len, told.values())), len(told) * len(texts))
                    answers.append(await ask(text, tokens))
            read, written = told.values()
            reading = _rate((usage.prompt_tokens - usage.cached_tokens, first) for first, _, usage in read)
            writing = _rate((usage.completion_tokens - 1, rest) for _, rest, usage in written)
            states = await platform.states()
            used = states.get(entry.id, {}).get("used", {})
        return reading, writing, int(used.get("host") or 0) or None


def _reason(error: Exception) -> str:
    """Why a form is no result, in our words; those of libraries are in the run's log."""
    if isinstance(error, PagodaError):
        return error.message
    if isinstance(error, OSError):
        return f"{error.strerror or 'its files cannot be read or written'} (see the run's log)."
    return f"what makes or loads it failed with {type(error).__name__} (see the run's log)."


def _rate(parts: Iterable[tuple[int, float]]) -> float:
    """Tokens a second of all that took time: an answer that ends at its first token tells of no speed."""
    timed = [(tokens, seconds) for tokens, seconds in parts if tokens > 0 and seconds > 0]
    return sum(tokens for tokens, _ in timed) / sum(seconds for _, seconds in timed) if timed else 0.0
