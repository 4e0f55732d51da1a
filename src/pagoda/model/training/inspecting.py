"""What a recipe would learn, without loading the model: its rows through its tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from transformers import AutoTokenizer

from pagoda.core.settings import Settings
from pagoda.model.training.adapting import find_base
from pagoda.model.training.preparing import Prepared, prepare, read_split
from pagoda.model.training.recipe import Recipe


def inspect(recipe: Recipe, settings: Settings) -> Prepared:
    """The rows as they would be trained on. Raises ``PagodaError`` as a training would."""
    split = read_split(recipe, recipe.seed or 0)
    tokenizer = AutoTokenizer.from_pretrained(find_base(recipe.model, settings), local_files_only=True)
    return prepare(split, tokenizer, recipe)


def token_counter(model: str, settings: Settings) -> Callable[[str], int]:
    """Counts tokens as a model does."""
    tokenizer = AutoTokenizer.from_pretrained(find_base(model, settings), local_files_only=True)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
