"""``PromptOptimizer`` and ``pagoda prompts improve`` over scripted models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import pagoda
from pagoda.application import comparing, improving
from pagoda.core.errors import Conflict, InvalidRequest
from pagoda.core.runs import RunRegistry, Runs, execute
from pagoda.core.settings import Settings
from pagoda.logic.evaluation.dataset import digest_of
from pagoda.logic.evaluation.page import verdict_lines
from pagoda.logic.prompts.file import read_prompt
from tests.doors import ScriptedDoor


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGODA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def optimizer(door: ScriptedDoor) -> pagoda.PromptOptimizer:
    @asynccontextmanager
    async def opened() -> AsyncIterator[ScriptedDoor]:
        yield door

    return pagoda.PromptOptimizer(open_door=opened)


def shout(text: str, index: int) -> str:
    said = text.rpartition(": ")[2]
    return said.upper() if text.startswith("Shout") else said


def test_prompts_are_added_generated_and_evaluated() -> None:
    prompts = optimizer(ScriptedDoor(shout)).add("Shout: {{text}}", "loud").add("Say: {{text}}", "calm")
    assert prompts.variants == ("loud", "calm")
    answers = prompts.generate({"text": "hi"})
    assert {name: answer.text for name, answer in answers.items()} == {"loud": "HI", "calm": "hi"}
    rows = [{"text": f"word {number}", "expected": f"WORD {number}"} for number in range(20)]
    report = prompts.evaluate(rows, ["regex:^[A-Z0-9 ]+$", "exact"])
    assert report.winner == 0
    assert [each.name for each in report.variants[1].scorers] == ["regex", "exact"]
    assert verdict_lines(report)[0].startswith("loud is the best")


def test_variants_come_from_files_yaml_and_the_library(tmp_path: Path) -> None:
    source = "name: mine\nvariables: {text: {}}\nlanguages: {en: {messages: [{user: 'Say: {{text}}'}]}}\n"
    (tmp_path / "mine.yaml").write_text(source, encoding="utf-8")
    prompts = (
        optimizer(ScriptedDoor()).add("mine.yaml").add(source, "again").add("rewrite@1").add(read_prompt(source), "b")
    )
    assert prompts.variants == ("mine", "again", "rewrite", "b")
    with pytest.raises(Conflict):
        prompts.add("mine.yaml")
    with pytest.raises(InvalidRequest, match="no variant yet"):
        optimizer(ScriptedDoor()).generate({})


async def test_it_works_within_an_event_loop() -> None:
    prompts = optimizer(ScriptedDoor(shout)).add("Say: {{text}}", "calm").add("rewrite")
    assert (await prompts.agenerate({"text": "hi"}))["calm"].text == "hi"


def teach(text: str, index: int) -> str:
    """Says ``good`` to everything, unless the instruction is the kind one."""
    return "bad" if "kindly" in text and "poor" in text.splitlines()[-1] else "good"


def hunt(tmp_path: Path, settings: Settings, instructions: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A search as a run, executed here, over a scripted door."""
    source = (
        "name: mood\nvariables: {text: {}}\nlanguages: {en: {parts: {instruction: Judge.}, "
        'messages: [{user: "{{> instruction}}\\n{{text}}"}]}}\n'
    )
    rows = [{"text": f"{'poor' if n % 2 else 'fine'} {n}", "label": "bad" if n % 2 else "good"} for n in range(90)]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    door = ScriptedDoor(teach)

    @asynccontextmanager
    async def opened(*_: object) -> AsyncIterator[ScriptedDoor]:
        yield door

    monkeypatch.setattr(improving, "home_door", opened)
    plan = comparing.Plan(
        prompts=(comparing.prompt_entry("mood", read_prompt(source)),),
        models=("smollm2-135m-instruct",),
        data={
            "path": str(data),
            "expected": "label",
            "columns": {},
            "replaced": {},
            "limit": None,
            "seed": 1,
            "encoding": "utf-8",
        },
        digest=digest_of(str(data)),
        scorers=("exact",),
    )
    config = {
        **comparing.plan_json(plan),
        "hunt": {"instructions": instructions, "pool": 4, "most_shots": 1, "trials": 8},
    }
    registry = RunRegistry({"improvement": improving.run_improvement})
    run = Runs(settings, registry).create("improvement", config)
    ended = execute(run.id, registry, settings)
    assert ended.status == "done", ended.error
    artifacts = settings.runs_directory / run.id / "artifacts"
    return json.loads((artifacts / "report.json").read_text(encoding="utf-8")), (artifacts / "best.yaml"), door


def test_a_better_prompt_is_kept_where_the_held_out_part_agrees(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, best, _ = hunt(tmp_path, settings, ["Judge kindly."], monkeypatch)
    assert (report["kept"], report["changed"]) == (True, True)
    assert report["training"]["base"] < 0.7 < report["training"]["best"]
    assert report["held_out"]["winner"] == "best"
    assert "Judge kindly." in best.read_text(encoding="utf-8")
    assert report["tried"][0] == {"instruction": None, "examples": [], "rate": report["training"]["base"]}


def test_what_the_held_out_part_does_not_confirm_is_not_kept(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _, door = hunt(tmp_path, settings, ["Judge well.", "Judge fast."], monkeypatch)
    assert (report["kept"], report["held_out"]["winner"]) == (False, None)
    texts = [str(request.messages) for request in door.asked]
    assert len(texts) < 8 * 43 + 2 * 43 + 1, "candidates that were tried are not asked again"
