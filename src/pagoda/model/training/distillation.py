"""The recipe of a distillation: a YAML file like that of a training, with other keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pagoda.model.training.recipe import checked, read_values


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


def read_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, changed by ``key=value``. Raises ``InvalidRequest`` with every mistake in it."""
    return recipe_of(read_values(path, changes))


def recipe_of(values: Mapping[str, Any]) -> Recipe:
    """The recipe of these values."""
    return checked(Recipe, values)
