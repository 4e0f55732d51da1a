"""The space of a search for the best recipe: checked, drawn from, and put into recipes. Nobody trains here.

The sampler is Optuna's TPE (Bergstra et al., 2011), seeded; a trial is pruned when, after four finished ones, its
objective at an evaluation is worse than the median of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest
from pagoda.model.training.recipe import (
    FIGURES,
    Recipe,
    Search,
    Space,
    changed,
    grows_better,
    recipe_from,
    recipe_keys,
)

STARTUP_TRIALS = 4
_JOURNAL = "study.journal"


def check_space(recipe: Recipe) -> None:
    """Raises ``InvalidRequest`` for a space that cannot be searched, or a recipe without what to judge by."""
    search = recipe.search
    if not search.space:
        raise InvalidRequest(
            "The recipe has no search.space; name keys of it with low and high, or choices.", param="search"
        )
    known = set(recipe_keys(Recipe))
    for key, space in search.space.items():
        _check_key(key, space, recipe, known)
    if not (recipe.data.validation or recipe.data.validation_share):
        raise InvalidRequest("A search needs data.validation or data.validation_share to judge by.", param="data")
    if search.objective not in FIGURES[recipe.task]:
        raise InvalidRequest(
            f"search.objective is {search.objective}, which is not measured; of {recipe.task} there are "
            f"{', '.join(FIGURES[recipe.task])}.",
            param="search",
        )
    if search.direction not in ("auto", right := _direction(search)):
        raise InvalidRequest(
            f"search.direction is {search.direction}, which would keep the worst: {search.objective} is to {right}.",
            param="search",
        )
    for key, space in search.space.items():
        for value in space.choices or (space.low, space.high):
            recipe_with(recipe, {key: value})  # so that one out of a key's bounds is said before anything is trained


def _check_key(key: str, space: Space, recipe: Recipe, known: Collection[str]) -> None:
    if key not in known or key.startswith(("search", "data", "model")):
        raise InvalidRequest(f"search.space: {key} is no key that can be searched.", param="search")
    if why := _without_effect(key, recipe):
        raise InvalidRequest(f"search.space: {key} would change nothing, since {why}.", param="search")
    ranged = space.low is not None and space.high is not None
    if ranged == bool(space.choices):
        raise InvalidRequest(f"search.space.{key}: give low and high, or choices.", param="search")
    if space.low is not None and space.high is not None and not space.low < space.high:
        raise InvalidRequest(f"search.space.{key}: low must be below high.", param="search")
    if space.log and not (space.low or 0) > 0:
        raise InvalidRequest(f"search.space.{key}: on a logarithmic scale low must be above 0.", param="search")


def suggest(trial: Any, space: Mapping[str, Space]) -> dict[str, Any]:
    """Values for a trial of Optuna."""
    found: dict[str, Any] = {}
    for key, each in space.items():
        if each.choices:
            found[key] = trial.suggest_categorical(key, each.choices)
        elif _whole(key):
            found[key] = trial.suggest_int(key, int(each.low or 0), int(each.high or 0), log=each.log)
        else:
            found[key] = trial.suggest_float(key, each.low, each.high, log=each.log)
    return found


def recipe_with(recipe: Recipe, chosen: Mapping[str, Any]) -> Recipe:
    """The recipe with the chosen values in it, and no search."""
    values = recipe.model_dump(mode="json", exclude={"search"})
    return recipe_from(changed(values, [f"{key}={value}" for key, value in chosen.items()]))


def open_study(folder: Path, search: Search, seed: int) -> Any:
    """The study in a folder; the same one again after a kill. Raises ``InvalidRequest`` without Optuna."""
    try:
        import optuna  # noqa: PLC0415  (an extra)
        from optuna.storages.journal import JournalFileBackend  # noqa: PLC0415
    except ImportError as error:
        raise InvalidRequest("The search needs optuna: python -m pip install 'pagoda-llm[tune]'.") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS) if search.prune else optuna.pruners.NopPruner()
    )
    return optuna.create_study(
        study_name="search",
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / _JOURNAL))),
        load_if_exists=True,
        direction=_direction(search),
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=pruner,
    )


def importances(study: Any) -> dict[str, float]:
    """How much each key explains of the objective (PED-ANOVA, Watanabe et al., 2023); empty of too few trials."""
    import optuna  # noqa: PLC0415

    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    if len(done) < STARTUP_TRIALS or len({trial.value for trial in done}) < 2:
        return {}
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    return {name: float(value) for name, value in found.items()}


def plot_search(study: Any, objective: str, folder: Path) -> None:
    """Draw ``history.png`` and, where there are enough trials, ``importance.png``."""
    from pagoda.model.training.plots import new_figure  # noqa: PLC0415

    figure, axes = new_figure(1, f"search: {objective}")
    better = max if study.direction.name == "MAXIMIZE" else min
    best: list[float] = []
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    for trial in done:
        best.append(better([*best[-1:], trial.value]))
    axes.plot([trial.number for trial in done], [trial.value for trial in done], "o", label="trial")
    axes.step([trial.number for trial in done], best, where="post", color="tab:red", label="best so far")
    pruned = [trial for trial in study.trials if trial.state.name == "PRUNED" and trial.intermediate_values]
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    axes.plot([trial.number for trial in pruned], last, "x", color="grey", label="pruned, at its last evaluation")
    axes.set_xlabel("trial")
    axes.set_ylabel(objective)
    axes.legend()
    figure.savefig(folder / "history.png", dpi=120)
    if found := importances(study):
        figure, axes = new_figure(1, f"what explains {objective}")
        names = sorted(found, key=lambda name: found[name])
        axes.barh(names, [found[name] for name in names])
        axes.set_xlabel("importance")
        figure.savefig(folder / "importance.png", dpi=120)


def _without_effect(key: str, recipe: Recipe) -> str | None:
    """Why trials that differ in a key would be the same training."""
    if key == "epochs" and recipe.steps and "steps" not in recipe.search.space:
        return f"steps is {recipe.steps}, which ends a training"
    if key.startswith("lora.") and recipe.method == "full" and "method" not in recipe.search.space:
        return "method is full"
    return None


def _direction(search: Search) -> str:
    return "maximize" if grows_better(search.objective) else "minimize"


def _whole(key: str) -> bool:
    """Whether a key of the recipe takes whole numbers."""
    part: Any = Recipe
    *above, last = key.split(".")
    for name in above:
        part = part.model_fields[name].annotation
    return part.model_fields[last].annotation is int
