"""A recipe: what is trained on what and how, read from a short YAML file. Not the training, and nothing of torch.

Unknown keys are refused with the right one suggested; ``--set key=value`` changes any key by its dotted name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pagoda.core.errors import InvalidRequest, NotFound
from pagoda.model.data.rows import Form


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Part):
    """The rows."""

    train: str
    """A file, or ``hub:OWNER/NAME/SUBSET#SPLIT``."""
    validation: str | None = None
    validation_share: float = Field(0.0, ge=0, lt=1)
    """Without a file: this share of the rows, drawn by the seed."""
    form: Form | None = None
    columns: dict[str, str] = {}
    """Names of a form's columns in this file: ``{prompt: question, completion: answer}``."""
    limit: int = Field(0, ge=0)
    """At most so many rows of the training file; 0: all."""
    too_long: Literal["cut", "refuse"] = "cut"


class Lora(_Part):
    """Low-rank adaptation (Hu et al., 2021)."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: Literal["all-linear", "attention"] | list[str] = "all-linear"
    """All linear layers but the output; the attention's, by the model's family; or names of modules."""
    rslora: bool = False
    """Scaled by the root of the rank, not by the rank (Kalajdzievski, 2023): high ranks learn more."""
    dora: bool = False
    """Magnitude and direction learnt apart (Liu et al., 2024): slower, and llama.cpp has it only merged."""


class Space(_Part):
    """What a search may choose for one key."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: list[Any] | None = None


class Search(_Part):
    """What ``pagoda train tune`` does."""

    space: dict[str, Space] = {}
    trials: int = Field(16, ge=1)
    objective: str = "eval_loss"
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    """``auto``: as the objective is better."""
    prune: bool = True
    parallel: int = Field(1, ge=1)


class Recipe(_Part):
    """Everything that decides a training."""

    model: str
    """A model of the catalog, or a folder with a checkpoint."""
    data: Data
    task: Literal["generation", "classification"] = "generation"
    labels: list[str] = []
    """Of a classification, in the order of the head's outputs; without it those that the rows have."""
    method: Literal["full", "lora", "qlora"] = "lora"
    lora: Lora = Lora()
    loss_on: Literal["completion", "last", "all"] = "completion"
    """Of a conversation: each answer, the last one alone, or all that is said."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """How prompt and completion are said: ``plain`` one after the other, ``chat`` as turns. ``auto``: plain."""
    max_length: int = Field(1024, ge=8)
    packing: bool = False
    group_by_length: bool = True
    steps: int = Field(0, ge=0)
    """Stop after so many; 0: as the epochs say."""
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(8, ge=1)
    """Rows (or packed sequences) that are computed at once on one device."""
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup: float = Field(0.03, ge=0, le=1)
    """Share of the steps."""
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    evaluate_every: int = Field(0, ge=0)
    """Steps; 0: at the end of each epoch."""
    save_every: int = Field(0, ge=0)
    """Steps; 0: whenever it is evaluated."""
    keep_checkpoints: int = Field(2, ge=1)
    patience: int = Field(0, ge=0)
    """Evaluations without a better one, after which the training stops; 0: never."""
    best_by: str = "eval_loss"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """``float16`` and ``bfloat16`` are mixed: weights stay in single precision where they are trained in full."""
    attention: Literal["auto", "sdpa", "eager"] = "auto"
    """``auto``: sdpa where the model has it; Gemma 2, which caps its scores, has not."""
    threads: int = Field(0, ge=0)
    """Of a CPU; 0: all cores. Fewer where others compute on the machine: threads that wait for one another crawl."""
    checkpointing: bool = False
    """Activations are computed again on the way back: less memory, about a fifth slower."""
    compile: bool = False
    """Layers are compiled at the first step: some seconds (of a CPU up to a minute), then quicker steps on a GPU."""
    shard: bool = False
    """Under torchrun: parameters, gradients and optimizer are spread over the processes (FSDP2)."""
    seed: int | None = None
    search: Search = Search()


FIGURES: Mapping[str, tuple[str, ...]] = {
    "generation": ("eval_loss", "eval_perplexity", "eval_token_accuracy", "eval_exact"),
    "classification": ("eval_loss", "eval_accuracy", "eval_f1"),
}
"""What is measured on validation rows, by the task: the words of ``best_by`` and of a search's ``objective``."""


def grows_better(figure: str) -> bool:
    """Whether more of a figure is better."""
    return not figure.endswith(("loss", "perplexity"))


R = TypeVar("R", bound=BaseModel)


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, changed by ``key=value``. Raises ``InvalidRequest`` with every mistake in it."""
    return recipe_from(read_values(path, changes))


def read_values(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """What stands in a YAML file of keys and values, changed by ``key=value``. Raises ``InvalidRequest``."""
    if not path.is_file():
        raise NotFound(f"There is no recipe {path}.", param="config")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not YAML: {' '.join(str(error).split())}.", param="config") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path} holds no recipe: it must be keys and values.", param="config")
    return changed(found, changes)


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The values with ``a.b=value`` put in, each value read as YAML."""
    result: dict[str, Any] = {**values}
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not key:
            raise InvalidRequest(f"--set {change}: write it as key=value, for example --set learning_rate=1e-4.")
        place = result
        *above, last = key.split(".")
        for name in above:
            inner = place.get(name)
            place[name] = {**inner} if isinstance(inner, Mapping) else {}
            place = place[name]
        place[last] = _value(text)
    return result


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """A recipe of plain values. Raises ``InvalidRequest`` with every mistake, a misspelt key with the one meant."""
    recipe = checked(Recipe, values)
    if recipe.best_by not in (known := FIGURES[recipe.task]):
        raise InvalidRequest(
            f"The recipe is wrong: best_by is {recipe.best_by}, which is not measured; of {recipe.task} there are "
            f"{', '.join(known)}.",
            param="config",
        )
    if recipe.compile and recipe.lora.dora and recipe.method != "full":
        raise InvalidRequest(
            "The recipe is wrong: layers with lora.dora cannot be compiled; set compile: false.", param="config"
        )
    if recipe.patience and not (recipe.data.validation or recipe.data.validation_share):
        raise InvalidRequest(
            "The recipe is wrong: patience counts evaluations, and there is nothing to evaluate on; give "
            "data.validation or data.validation_share.",
            param="config",
        )
    return recipe


def checked(kind: type[R], values: Mapping[str, Any]) -> R:
    """A recipe of another kind, likewise."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        known = list(recipe_keys(kind))
        mistakes = [_mistake(each["loc"], each["type"], each["msg"], known) for each in error.errors()]
        said = "The recipe is wrong: " + "; ".join(dict.fromkeys(mistakes))
        raise InvalidRequest(said if said.endswith("?") else f"{said}.", param="config") from error


def recipe_keys(part: type[BaseModel], above: str = "") -> Iterator[str]:
    """All dotted keys of a kind of recipe."""
    for name, field in part.model_fields.items():
        yield above + name
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from recipe_keys(kind, f"{above}{name}.")


def _mistake(place: tuple[int | str, ...], kind: str, message: str, known: Sequence[str]) -> str:
    key = ".".join(str(part) for part in place)
    if kind == "missing":
        return f"{key} is missing"
    if kind != "extra_forbidden":
        return f"{key}: {message[0].lower()}{message[1:]}"
    close = difflib.get_close_matches(key, known, n=1) or [
        full
        for name in difflib.get_close_matches(str(place[-1]), [each.split(".")[-1] for each in known], n=1)
        for full in known
        if full.split(".")[-1] == name
    ]
    return f"there is no key {key}" + (f"; did you mean {close[0]}?" if close else "")


def _value(text: str) -> Any:
    """As YAML; its ``1e-4`` is text, which becomes a number where one is wanted."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
