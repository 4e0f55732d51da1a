"""``pagoda rag ingest --detach``: documents taken in by a run, told as its result, and found afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from pagoda.model.catalog.entry_file import write_entry
from tests.services import fake_model


def pagoda(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PAGODA_HOME": str(home), "PAGODA_MODELS_DIRECTORY": str(home / "models"), "HOME": str(home)}
    command = [sys.executable, "-m", "pagoda", *words]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment | {"PATH": ""}, timeout=90, check=False
    )


def test_a_run_takes_documents_in(tmp_path: Path) -> None:
    home, documents = tmp_path / "home", tmp_path / "documents"
    entries = home / "models" / "entries"
    entries.mkdir(parents=True)
    documents.mkdir()
    entry = fake_model("made-up", task="embedding")
    (entries / "made-up.yaml").write_text(write_entry(entry), encoding="utf-8")
    (documents / "moon.txt").write_text("The moon is far. 月亮很远。", encoding="utf-8")
    (documents / "empty.txt").write_text("", encoding="utf-8")
    words = ("rag", "ingest", str(documents), "--model", "made-up", "--label", "set=sky", "--detach", "--json")
    begun = pagoda(home, *words)
    assert begun.returncode == 0, begun.stderr
    run = json.loads(begun.stdout)["id"]
    watched = pagoda(home, "runs", "watch", run)
    assert watched.returncode == 0, watched.stderr
    result = json.loads(pagoda(home, "runs", "show", run, "--json").stdout)["result"]
    assert [Path(name).name for name in result["added"]] == ["moon.txt"]
    assert [Path(each["source"]).name for each in result["failed"]] == ["empty.txt"]
    found = pagoda(home, "rag", "search", "月亮", "--mode", "lexical", "--where", "set=sky", "--json")
    assert [hit["text"] for hit in json.loads(found.stdout)] == ["The moon is far. 月亮很远。"]
    lost = pagoda(home, "rag", "ingest", str(tmp_path / "nowhere"), "--detach")
    assert (lost.returncode, "There is no file or folder" in lost.stderr) == (2, True)
