"""What is learnt under the template of a real model."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pagoda.core.configuration import load_settings
from pagoda.model.training.inspecting import inspect
from pagoda.model.training.recipe import recipe_from
from tests.rows import write_jsonl


@pytest.mark.real_model
def test_of_a_real_template_only_answers_and_their_ends_are_learnt(tmp_path: Path) -> None:
    turns = [("user", "Hi!"), ("assistant", "Hello."), ("user", "一加一？"), ("assistant", "二。")]
    chat = {"messages": [{"role": role, "content": text} for role, text in turns]}
    path = write_jsonl(tmp_path / "rows.jsonl", [chat])
    recipe = recipe_from({"model": "smollm2-135m-instruct", "data": {"train": str(path)}, "max_length": 128})
    prepared = inspect(recipe, load_settings({}, os.environ, Path("/")))
    pieces = prepared.shown[0][1]
    learnt = "".join(text for text, kind in pieces if kind != "given")
    assert learnt == "Hello.<|im_end|>二。<|im_end|>"
    assert pieces[0][0].startswith("<|im_start|>system"), "the template's own system message is read, not learnt"
    assert (prepared.report.unended, prepared.report.rows) == (0, 1)
