"""What can be said of a recipe before a model is loaded: what it would learn, and whether a teacher fits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pagoda.core.errors import InvalidRequest, StoreError
from pagoda.core.settings import Settings
from pagoda.model.catalog.checkpoints import find_checkpoint
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.data.report import Count, Fault
from pagoda.model.training.encoding import template_fault
from pagoda.model.training.preparing import Prepared, prepare, read_split
from pagoda.model.training.recipe import Recipe


def inspect(recipe: Recipe, settings: Settings) -> Prepared:
    """The rows as they would be trained on. Raises ``PagodaError`` as a training would."""
    split = read_split(recipe, recipe.seed or 0)
    return prepare(split, _tokenizer(find_checkpoint(open_shelf(settings), recipe.model)), recipe)


def reading_as(model: str, settings: Settings) -> tuple[Count, Fault]:
    """Counts tokens as a model does, and tells what its chat template does not take."""
    tokenizer = _tokenizer(find_checkpoint(open_shelf(settings), model))
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]), partial(template_fault, tokenizer)


def check_vocabularies(student: Path, teacher: Path) -> None:
    """``refuse_other_words`` of the tokenizers in two folders."""
    refuse_other_words(_tokenizer(student), _tokenizer(teacher))


def refuse_other_words(student: Any, teacher: Any) -> None:
    """Raise ``InvalidRequest`` unless both tokenizers give every word the same id."""
    mine, its = student.get_vocab(), teacher.get_vocab()
    if mine == its:
        return
    strange = next(word for word in [*mine, *its] if mine.get(word) != its.get(word))
    raise InvalidRequest(
        f"Student and teacher have other vocabularies ({len(mine)} and {len(its)} tokens; {strange!r} is "
        f"{mine.get(strange)} and {its.get(strange)}), so that their distributions cannot be compared: distil with "
        "level: sequence, or choose a teacher of the same family.",
        param="teacher",
    )


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder} has no tokenizer that can be read ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
