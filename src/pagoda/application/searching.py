"""The search for the best recipe at work: what a run of the kind ``tune`` does. Each trial is a run of its own.

A trial is a training in a process of its own, so that nothing of it stays in memory. After a kill the search finds its
trials again: those that went on by themselves are watched, those that died are resumed. Trials at once share what the
machine has: each gets a GPU of its own while there are as many, else its part of the cores.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import yaml

from pagoda.application.registry import run_kinds
from pagoda.core.errors import Conflict, ModelError, Unavailable
from pagoda.core.runs import Run, RunContext, RunRegistry, Runs
from pagoda.core.runs.record import RESUMABLE
from pagoda.core.types import Json
from pagoda.model.data.reading import write_rows
from pagoda.model.training.recipe import Recipe, recipe_from
from pagoda.model.training.search import check_space, importances, open_study, plot_search, recipe_with, suggest
from pagoda.service.hardware import gpu_names, host_cores

BEST, TRIALS = "best.yaml", "trials.jsonl"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def run_tune(context: RunContext) -> Mapping[str, Json]:
    """Try recipes until the trials are used up; write out the best. Raises ``ModelError`` when none was finished."""
    recipe = recipe_from(context.config)
    check_space(recipe)
    hunt = _Hunt(recipe, context)
    with ThreadPoolExecutor(recipe.search.parallel) as pool:
        for left in [pool.submit(hunt.work, place) for place in range(recipe.search.parallel)]:
            left.result()
    context.raise_if_cancelled()
    return hunt.conclude()


@dataclass(frozen=True, slots=True)
class Share:
    """What of the machine a trial has beside others."""

    threads: int
    environment: Mapping[str, str] = field(default_factory=dict)


def shares_of(recipe: Recipe, gpus: Sequence[str]) -> list[Share]:
    """Of each of the trials that run at once: a GPU, in turn, or its part of the cores where none is used.

    What the recipe says itself stays; one trial alone has all there is.
    """
    count = recipe.search.parallel
    if count == 1:
        return [Share(recipe.threads)]
    if gpus and recipe.device != "cpu":
        return [Share(recipe.threads, {_VISIBLE: gpus[place % len(gpus)]}) for place in range(count)]
    return [Share(recipe.threads or max(1, host_cores() // count))] * count


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, by name."""
    named = environment.get(_VISIBLE)
    return gpu_names() if named is None else [name.strip() for name in named.split(",") if name.strip()]


class _Hunt:
    """The trials of a study, shared by as many threads as there are trials at once."""

    def __init__(self, recipe: Recipe, context: RunContext) -> None:
        self._recipe = recipe
        self._search = recipe.search
        self._context = context
        self._runs = Runs(context.settings, RunRegistry(run_kinds()))
        self._study = open_study(context.checkpoints, recipe.search, context.seed + context.attempt)
        self._shares = shares_of(recipe, visible_gpus(os.environ))
        self._drawing = threading.Lock()
        self._unfinished = [trial for trial in self._study.trials if trial.state.name == "RUNNING"]

    def work(self, place: int) -> None:
        """Carry out trials until there are enough, beside those of other places."""
        share = self._shares[place]
        while not self._context.cancelled and (trial := self._next()) is not None:
            self._context.progress("searching", self._ended(), self._search.trials)
            self._carry_out(trial, share)
            self._context.progress("searching", self._ended(), self._search.trials)

    def conclude(self) -> dict[str, Json]:
        """The outcome, the best recipe and the plots."""
        trials = self._study.trials
        folder = self._context.artifacts
        write_rows(folder / TRIALS, [_told(trial) for trial in trials])
        if not any(trial.state.name == "COMPLETE" for trial in trials):
            why = next(
                (trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs), "all were pruned"
            )
            raise ModelError(f"No trial was finished: {why}", code="search_failed")
        best = self._study.best_trial
        chosen = recipe_with(self._recipe, best.params)
        plain = chosen.model_dump(mode="json", exclude={"search"}, exclude_defaults=True)
        told = yaml.safe_dump({**plain, "seed": self._context.seed}, allow_unicode=True, sort_keys=False)
        head = f"# pagoda train sft --config {BEST}\n# {self._search.objective} {best.value:.6g}, trial {best.number}\n"
        (folder / BEST).write_text(head + told, encoding="utf-8")
        try:
            plot_search(self._study, self._search.objective, folder)
        except Unavailable as error:
            self._context.event("no_plot", reason=error.message)
        states = [trial.state.name.lower() for trial in trials]
        return {
            "objective": self._search.objective,
            "best": best.value,
            "trial": best.number,
            "trials": len(trials),
            "states": {state: states.count(state) for state in sorted(set(states))},
            "chosen": dict(best.params),
            "importance": importances(self._study),
            "run": best.user_attrs["run"],
        }

    def _next(self) -> Any:
        import optuna  # noqa: PLC0415  (an extra)

        with self._drawing:  # between counting trials and asking for one, nobody else may
            if self._unfinished:
                frozen = self._unfinished.pop()
                return optuna.trial.Trial(self._study, frozen._trial_id)
            return self._study.ask() if len(self._study.trials) < self._search.trials else None

    def _carry_out(self, trial: Any, share: Share) -> None:
        run = self._run_of(trial, share)
        pruned = False
        for event in self._runs.watch(run.id):
            if self._context.cancelled:
                self._stop(run)
                return  # the trial stays open, and is resumed with the search
            if event.type == "metric" and event.data["step"] > 0:
                pruned = pruned or self._is_hopeless(trial, event.data)
                if pruned:
                    self._stop(run)
        self._tell(trial, self._runs.get(run.id), pruned=pruned)

    def _run_of(self, trial: Any, share: Share) -> Run:
        """The training of a trial, begun or gone on with."""
        known = trial.user_attrs.get("run")
        environment = {**os.environ, **share.environment} if share.environment else None
        if known is None:
            wanted = recipe_with(self._recipe, suggest(trial, self._search.space))
            run = self._runs.create(
                "sft",
                wanted.model_copy(update={"threads": share.threads}).model_dump(mode="json"),
                seed=self._context.seed,
                name=f"trial {trial.number}",
                parent=self._context.id,
            )
            trial.set_user_attr("run", run.id)
            return self._runs.start(run.id, environment)
        run = self._runs.get(known)
        if run.status in (*RESUMABLE, "created") and run.process is None:
            return self._runs.resume(run.id, environment)
        return run

    def _is_hopeless(self, trial: Any, data: Mapping[str, Any]) -> bool:
        value = data["values"].get(self._search.objective)
        if value is None or not isinstance(value, int | float):
            return False
        if data["step"] not in self._study.trials[trial.number].intermediate_values:
            trial.report(float(value), data["step"])
        return self._search.prune and bool(trial.should_prune())

    def _tell(self, trial: Any, run: Run, *, pruned: bool) -> None:
        from optuna.trial import TrialState  # noqa: PLC0415

        value = (run.result or {}).get("after", {}).get(self._search.objective) if run.status == "done" else None
        for path in (run.directory / "checkpoints").glob("checkpoint-*"):  # the saved model is enough
            shutil.rmtree(path)
        if value is not None:
            self._study.tell(trial, float(value))
            self._context.metric(trial.number + 1, **{self._search.objective: float(value)})
        elif pruned:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("error", run.error or f"the run {run.id} ended as {run.status}")
            self._study.tell(trial, state=TrialState.FAIL)
        self._context.event("trial", number=trial.number, run=run.id, value=value, pruned=pruned, **trial.params)

    def _stop(self, run: Run) -> None:
        try:
            self._runs.cancel(run.id)
        except Conflict:
            return  # it has just ended by itself

    def _ended(self) -> int:
        return sum(trial.state.is_finished() for trial in self._study.trials)


def _told(trial: Any) -> dict[str, Json]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.values[0] if trial.values else None,
        "chosen": dict(trial.params),
        **trial.user_attrs,
    }
