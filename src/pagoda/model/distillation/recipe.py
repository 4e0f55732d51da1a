"""The recipe of a distillation, read from a short YAML file. Unknown keys are refused with the right one suggested."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pagoda.core.errors import InvalidRequest, NotFound


class Recipe(BaseModel):
    """Everything that decides a distillation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: str
    """A folder with a checkpoint, or a model of the catalog that is one."""
    teacher: str
    """For ``logits`` the same; for ``sequence`` the name of any model that the service answers with."""
    data: str
    """JSON Lines of ``messages``, of ``prompt`` (and, for ``logits``, ``completion``), or of ``text``."""
    level: Literal["logits", "sequence"] = "logits"
    divergence: Literal["forward", "reverse"] = "forward"
    """``forward`` covers all that the teacher may say, ``reverse`` keeps to what it says most."""
    temperature: float = Field(2.0, gt=0)
    """Of both distributions while they are compared."""
    hard: float = Field(0.0, ge=0, le=1)
    """The share of the loss that is cross-entropy on the text itself."""
    limit: int = Field(0, ge=0)
    """At most so many rows; 0: all."""
    answer_tokens: int = Field(256, ge=1)
    """Of an answer that a served teacher gives, at most; longer ones are left out, for they have no end to learn."""
    max_length: int = Field(512, ge=8)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(4, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps."""
    save_every: int = Field(50, ge=1)
    """Steps."""
    chunk: int = Field(256, ge=1)
    """Tokens whose distributions are held at once."""
    threads: int = Field(0, ge=0)
    """Of a CPU; 0: as torch chooses."""
    seed: int = 0


def read_recipe(path: Path) -> Recipe:
    """The recipe in a file. Raises ``InvalidRequest`` with every mistake in it."""
    if not path.is_file():
        raise NotFound(f"There is no recipe {path}.", param="config")
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} is not YAML: {' '.join(str(error).split())}.", param="config") from error
    if not isinstance(found, dict):
        raise InvalidRequest(f"{path} holds no recipe: it must be keys and values.", param="config")
    return recipe_of(found)


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe of these values."""
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        mistakes = [_mistake(each["type"], str(each["loc"][0]), each["msg"]) for each in error.errors()]
        raise InvalidRequest(f"The recipe is wrong: {'; '.join(mistakes)}.", param="config") from error


def _mistake(kind: str, key: str, said: str) -> str:
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(key, Recipe.model_fields, n=1)
        return f"there is no key {key}" + (f", did you mean {close[0]}?" if close else "")
    if kind == "missing":
        return f"{key} is missing"
    return f"{key}: {said}"
