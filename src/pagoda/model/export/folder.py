"""What lies in the folder of a checkpoint or an adapter: JSON files, weights, their precision. Without torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pagoda.core.errors import InvalidRequest, StoreError
from pagoda.model.catalog.recipes.safetensors import Tensors, broken, numbers_by_type

FLOATS: Mapping[str, str] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Forms that a checkpoint of safetensors has, in torch's words."""
FOUR_BITS = "four_bits.json"
"""Lies beside an adapter that QLoRA trained: in which ``dtype`` its base was, before it was held in four bits."""


def read_table(path: Path) -> dict[str, Any]:
    """A JSON file that holds a table. Raises ``StoreError`` naming it, and where it is no JSON the line."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}.", code="broken_file") from error
    except json.JSONDecodeError as error:
        raise broken(path, f"its line {error.lineno} is not JSON") from error
    except ValueError as error:
        raise broken(path, "it is not UTF-8") from error
    if not isinstance(found, dict):
        raise broken(path, "it is not a table")
    return found


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    """A checkpoint's config and tensors, which stay in their files until they are used (bfloat16 is widened then)."""
    if not (folder / "config.json").is_file():
        raise InvalidRequest(f"{folder} holds no config.json and so no checkpoint.")
    return read_table(folder / "config.json"), Tensors(*weights_in(folder))


def weights_in(folder: Path) -> list[Path]:
    """The files of weights. Raises ``InvalidRequest`` where there are none."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InvalidRequest(f"{folder} holds no safetensors weights; a pickle is never loaded.")
    return files


def precision_of(folder: Path) -> str:
    """The type that most numbers of a checkpoint have, in the words of safetensors, whatever its config says."""
    counts: Counter[str] = Counter()
    for file in weights_in(folder):
        counts.update(numbers_by_type(file))
    return counts.most_common(1)[0][0] if counts else "F32"


def form_of(folder: Path) -> str:
    """The one of ``FLOATS`` that a checkpoint has; F32 where it has none of them."""
    found = precision_of(folder)
    return found if found in FLOATS else "F32"
