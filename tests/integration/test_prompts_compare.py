"""``pagoda prompts compare`` as a user types it, over scripted models; its run is killed and gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path

from pagoda.core.runs import RunRegistry, Runs
from pagoda.core.settings import Settings
from tests.services import eventually, fake_model, running

PROMPT = """\
name: {name}
variables: {{text: {{}}}}
settings: {{temperature: 0}}
languages: {{en: {{messages: [{{user: "{name}: {{{{text}}}}"}}]}}}}
"""
CASES = 30
RULES = [
    {"contains": "good: ", "text": "yes", "first_seconds": 0.02},
    {"contains": "bad: ", "text": "no", "first_seconds": 0.02},
]


async def command(settings: Settings, folder: Path, *words: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PAGODA_HOME": str(settings.home), "PAGODA_DEFAULTS_CHAT": "fake-chat"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pagoda", "prompts", "compare", *words),
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_a_comparison_killed_in_the_middle_goes_on_and_pays_once(settings: Settings, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / f"{name}.yaml").write_text(PROMPT.format(name=name), encoding="utf-8")
    rows = [json.dumps({"sentence": f"sentence {number}", "label": 1}) for number in range(CASES)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    data = ("--data", "data.jsonl", "--map", "text=sentence", "--expected", "label", "--replace", "1=yes")
    words = ("good.yaml", "bad.yaml", *data, "--report", "report.html", "--concurrency", "2", "--json")
    runs = Runs(Settings(home=settings.home), RunRegistry({"comparison": "x:y"}))
    async with running(settings, [fake_model(rules=RULES)]):
        child = await command(settings, tmp_path, *words)
        await eventually(lambda: any(settings.home.glob("runs/*/checkpoints/answers.jsonl")), 60)
        answers = next(settings.home.glob("runs/*/checkpoints/answers.jsonl"))
        await eventually(lambda: answers.read_bytes().count(b"\n") >= 5, 60)
        process = runs.find(kind="comparison")[0].process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        await child.communicate()
        assert child.returncode == 1
        kept = answers.read_bytes()
        assert kept.count(b"\n") < 2 * CASES
        child = await command(settings, tmp_path, *words)
        out, err = await child.communicate()
        assert child.returncode == 0, err.decode()
        assert answers.read_bytes().startswith(kept[: kept.rindex(b"\n") + 1])
        ids = Counter(json.loads(line)["custom_id"] for line in answers.read_bytes().splitlines())
        assert (len(ids), set(ids.values())) == (2 * CASES, {1})
        report = json.loads(out.splitlines()[-1])
        assert (report["winner"], report["complete"]) == ("good", True)
        assert len(report["failures"]) == CASES
        assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")
        assert len(runs.find(kind="comparison")) == 1
