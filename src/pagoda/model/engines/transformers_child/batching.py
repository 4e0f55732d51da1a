"""transformers' continuous batching with what it lacks: one batch an adapter, exact counts, prompt ends.

The library owns the paged cache, the batches and the generation thread. Added here: a scheduler that puts requests of
one adapter into a batch and takes adapters in turn, never admits more requests than the cache was sized for, and
notes how much of a prompt was shared; a manager that switches the adapter before each step. Prefixes are shared
between requests of the base model only, since the library's blocks are known by their tokens alone and an adapter
gives the same tokens other keys.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler
from transformers.generation.logits_process import LogitsProcessorList

from pagoda.model.engines.transformers_child.job import Ended, Job, Written
from pagoda.model.engines.transformers_child.sampling import RowSampler

_SCHEDULER = "one-adapter-a-batch"


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the batch may hold: requests at once, tokens of one, of one page, and of one step."""

    parallel: int
    context: int
    page: int
    step: int

    @property
    def blocks(self) -> int:
        """Pages that hold every slot full."""
        return self.parallel * -(-self.context // self.page)


class AdapterScheduler(FIFOScheduler):  # type: ignore[misc]  # the library carries no types
    """First come, first served; a batch holds requests of one adapter, and adapters take turns."""

    _last = ""

    def _infer_request_tokens(self, state: Any, request_ids_to_remove_from_waiting: set[str]) -> list[int]:
        job = _job(state)
        if job.adapter:
            return state.tokens_to_process if job.written and not state.remaining_prefill_tokens else _rest(state)
        before = state.position_offset
        tokens: list[int] = super()._infer_request_tokens(state, request_ids_to_remove_from_waiting)
        if not job.written:
            job.cached += state.position_offset - before
        return tokens

    def _process_candidates(
        self, candidates: list[Any], token_budget: int, cache_budget: int, request_ids_to_remove_from_waiting: set[str]
    ) -> Any:
        free = max(0, self.max_requests_per_batch - len(self.active_requests))
        admitted = [state for state in candidates if state.request_id in self.active_requests]
        admitted += [state for state in candidates if state.request_id not in self.active_requests][:free]
        adapter = self._turn([_job(state).adapter for state in admitted])
        chosen = [state for state in admitted if _job(state).adapter == adapter]
        result = super()._process_candidates(chosen, token_budget, cache_budget, request_ids_to_remove_from_waiting)
        for scheduled in result[0]:
            if _job(scheduled.state).adapter:
                scheduled.complete_blocks = {}
        return result

    def _turn(self, wanted: list[str]) -> str:
        """The adapter after the last one, in alphabetical order and round again."""
        there = sorted(set(wanted))
        self._last = next((name for name in there if name > self._last), there[0] if there else "")
        return self._last


SCHEDULER_MAPPING[_SCHEDULER] = AdapterScheduler


def _job(state: Any) -> Job:
    job: Job = state.logit_processor_kwargs["job"]
    return job


def _rest(state: Any) -> list[int]:
    rest: list[int] = state.remaining_prefill_tokens
    return rest


class Manager(ContinuousBatchingManager):  # type: ignore[misc]  # the library carries no types
    """The library's manager; it tells ``before_step`` the adapter of each batch and counts tokens."""

    progress = 0
    before_step: Callable[[str], None]

    def _generation_step(self) -> None:
        batch = self.batch_processor.inputs_and_outputs.requests_in_batch
        self.before_step(_job(batch[0].state).adapter)
        super()._generation_step()
        self.progress += sum(request.query_length for request in batch)


class Batch:
    """The running batch of one model: submit jobs, cancel them, look at it, borrow the model between two steps."""

    def __init__(self, model: Any, sizes: Sizes, before_step: Callable[[str], None]) -> None:
        self.sizes = sizes
        self._loop = asyncio.get_running_loop()
        self._manager = Manager(
            model=model,
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=sizes.page,
                num_blocks=sizes.blocks,
                max_batch_tokens=sizes.step,
                max_requests_per_batch=sizes.parallel,
                use_async_batching=False,  # the next step would begin before the sampler has seen this one's tokens
                use_cuda_graph=False,  # a graph would replay the sampler's work for the requests of its first run
                auto_switch_to_flash=False,
                scheduler_type=_SCHEDULER,
                safety_margin=0.0,  # the cache holds every slot full, so nothing is kept back
            ),
        )
        processors = ContinuousBatchingLogitsProcessorList(LogitsProcessorList([RowSampler(self._deliver)]))
        processors.tensors_required = 1
        self._manager.logit_processor = processors
        self._manager.before_step = before_step
        self._manager.start()

    def submit(self, job: Job) -> None:
        """Queue a job; its events follow."""
        self._manager.register_result_handler(job.id, lambda output: self._finish(job, output))
        taken = self._manager.add_request(
            job.prompt,
            request_id=job.id,
            max_new_tokens=job.limit,
            eos_token_id=sorted(job.ends),
            job=job,
        )
        if taken is None:
            self._forget(job)
            job.events.put_nowait(Ended("error", self.fault or "the generation thread has stopped"))

    def cancel(self, job: Job) -> None:
        """Let go of a job, whatever its state; its slot is free before the next step."""
        self._forget(job)
        self._manager.cancel_request(job.id)

    def _forget(self, job: Job) -> None:
        router = self._manager.output_router
        with router._lock:
            router.result_handlers.pop(job.id, None)

    @property
    def fault(self) -> str:
        """Why the generation thread died; empty while it lives."""
        error = self._manager.background_thread_status.fatal_error
        return "" if error is None else str(error) or type(error).__name__

    @property
    def running(self) -> int:
        """Requests that hold a slot now."""
        scheduler = self._scheduler
        return 0 if scheduler is None else len(scheduler.active_requests)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        scheduler = self._scheduler
        queued: int = self._manager.input_queue.qsize()
        return queued + (0 if scheduler is None else len(scheduler.waiting_requests))

    @property
    def kv_used(self) -> float:
        """Share of the cache's pages that requests hold."""
        scheduler = self._scheduler
        if scheduler is None:
            return 0.0
        return 1 - float(scheduler.cache.compute_free_capacity(relative=True))

    @property
    def progress(self) -> int:
        """Tokens read and written since the start."""
        return self._manager.progress

    @property
    def _scheduler(self) -> Any:
        processor = self._manager.batch_processor
        return None if processor is None else processor.scheduler

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The model to oneself, between two steps; blocks until the running step is done."""
        with contextlib.ExitStack() as stack:
            if self._manager.is_running():
                stack.enter_context(self._manager.pause())
            yield

    def stop(self) -> None:
        """End the generation thread."""
        self._manager.stop(block=True, timeout=5, hard_stop=True)

    def _finish(self, job: Job, output: Any) -> None:
        """On the event loop: the library's word that a job is over."""
        if output.error:
            job.events.put_nowait(Ended("error", str(output.error)))
        else:
            job.events.put_nowait(Ended("stop" if job.written and job.written[-1] in job.ends else "length"))

    def _deliver(self, drawn: Sequence[tuple[Job, Written | Ended]]) -> None:
        """On the generation thread: hand tokens to those who wait for them."""
        self._loop.call_soon_threadsafe(_hand_out, drawn)


def _hand_out(drawn: Sequence[tuple[Job, Written | Ended]]) -> None:
    for job, event in drawn:
        job.events.put_nowait(event)
