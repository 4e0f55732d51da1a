"""What a checkpoint's folder says of itself: its tensors one at a time, and its precision by its files."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from pagoda.core.errors import StoreError
from pagoda.model.export.folder import form_of, precision_of, read_checkpoint, read_table

_ROWS, _WIDTH = 256, 1024


def checkpoint(folder: Path, dtype: str, files: int = 2, tensors: int = 8) -> Path:
    """Files of safetensors, each tensor full of its number."""
    import torch
    from safetensors.torch import save_file

    (folder / "config.json").write_text("{}", encoding="utf-8")
    for part in range(files):
        numbers = range(part * tensors, (part + 1) * tensors)
        made = {f"t{number}": torch.full((_ROWS, _WIDTH), number, dtype=getattr(torch, dtype)) for number in numbers}
        save_file({**made, f"norm{part}": torch.ones(4)}, folder / f"model-{part}.safetensors")
    return folder


def test_bfloat16_is_widened_one_tensor_at_a_time(tmp_path: Path) -> None:
    _, state = read_checkpoint(checkpoint(tmp_path, "bfloat16"))
    wide = _ROWS * _WIDTH * 4

    tracemalloc.start()
    try:
        found = {name: float(values.min()) for name, values in state.items() if not name.startswith("norm")}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found == {f"t{number}": float(number) for number in range(16)}
    assert state["t3"].dtype == np.float32
    assert peak < 4 * wide, f"{peak / wide:.1f} tensors of 16 were in memory"


@pytest.mark.parametrize(
    ("dtype", "precision", "form"),
    [("float32", "F32", "F32"), ("float16", "F16", "F16"), ("bfloat16", "BF16", "BF16"), ("int8", "I8", "F32")],
)
def test_the_precision_is_what_most_numbers_have(dtype: str, precision: str, form: str, tmp_path: Path) -> None:
    """Norms in single precision, as many checkpoints have them, do not count for more than they are."""
    folder = checkpoint(tmp_path, dtype, tensors=1)
    assert (precision_of(folder), form_of(folder)) == (precision, form)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b'{"a": 1,\n"b" 2}', "its line 2 is not JSON"), (b"\xff{}", "it is not UTF-8"), (b"[1]", "it is not a table")],
)
def test_a_file_that_is_no_table_is_named_with_its_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=said):
        read_table(path)
    path.write_text(json.dumps({"a": 1}), encoding="utf-8")
    assert read_table(path) == {"a": 1}
