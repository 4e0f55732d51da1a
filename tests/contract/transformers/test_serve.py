"""``pagoda serve --model``: the engine is picked by what lies there, said in a line, and answers by default."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pagoda.model.catalog.opening import Shelf
from tests.services import process

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(300)]


def chat(url: str) -> tuple[str, Any]:
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}).encode()
    request = urllib.request.Request(url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.headers["X-Pagoda-Model"], json.load(response)


@pytest.mark.parametrize("form", ["GGUF file: llamacpp", "safetensors checkpoint, no GPU: transformers"])
def test_a_path_is_served_by_the_engine_that_its_line_names(
    form: str, shelf: Shelf, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has CUDA")
    gguf = shelf.store.locate(shelf.catalog.resolve("smollm2-135m-instruct"))
    path = gguf if form.startswith("GGUF") else tiny
    home = tmp_path / "home"
    with process(home, "--model", str(path)) as (url, _):
        log = (home / "serve.log").read_text()
        (line,) = [line for line in log.splitlines() if form in line]
        model, answer = chat(url)
        assert line == f"{model}: {form}"
        assert answer["choices"][0]["finish_reason"] in ("stop", "length")


def test_a_model_of_the_catalog_keeps_its_engine_and_what_is_absent_says_what_to_do(tmp_path: Path) -> None:
    def refuse(model: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pagoda", "serve", "--port", "0", "--model", model],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PAGODA_HOME": str(tmp_path / "home"), "PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
            timeout=60,
            check=False,
        )
        assert done.returncode in (1, 2)
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        return done.stderr

    assert "run `pagoda models pull smollm2-135m-instruct`" in refuse("smollm2-135m-instruct")
    assert "run `pagoda models pull org--name`" in refuse("org/name")
    assert "There is no file" in refuse("./nothing-here")
    (tmp_path / "notes").mkdir()
    assert "holds no config.json and so no checkpoint" in refuse("./notes")
    assert "There is no model 'nonsense'" in refuse("nonsense")
