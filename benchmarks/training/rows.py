"""SST-2 as prompt and completion, from the public data beside the project."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

from pagoda.core.configuration import load_settings
from pagoda.core.settings import Settings
from tests.public_data import public_data

NAMES = (" negative", " positive")


def write_sst2(target: Path, split: str, count: int, skip: int = 0) -> Path:
    """``count`` rows of a split as JSONL, balanced by nothing but their order."""
    with (public_data("glue") / f"sst2_{split}.tsv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    chosen = rows[skip : skip + count]
    lines = [
        {"prompt": f"Review: {row['text_a'].strip()}\nSentiment:", "completion": NAMES[int(row["label"])]}
        for row in chosen
    ]
    target.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return target


def home_settings() -> Settings:
    """Of the home that the environment names, which has the built-in models."""
    return load_settings({}, os.environ, Path("/"))
