"""Every snippet of README and the guides is run, top to bottom as a reader would, or says why it is not."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pagoda.core.configuration import load_settings
from tests.docs.snippets import CODE, ROOT, TESTED_ELSEWHERE, Snippet, documents, parse, snippets
from tests.services import process

ALL = [snippet for document in documents() for snippet in snippets(document)]
TWINS = [document for document in documents() if document.endswith(".zh.md")]
TOLD = [
    document
    for document in sorted(set(documents()) - set(TWINS))  # a twin's code is the same, word for word: see below
    if any(each.mark.startswith("run") for each in snippets(document))
]


def test_a_block_of_code_says_how_it_is_tested() -> None:
    marks = re.compile(r"run(, continues)?|settings(, served)?|untested \(.{10,}\)")
    silent = []
    for snippet in ALL:
        if snippet.document in TESTED_ELSEWHERE:
            continue
        looks_like_code = snippet.language in CODE or re.search(
            r"(?m)^(\$ |pagoda |curl |make |pip |python )", snippet.text
        )
        if looks_like_code and not marks.fullmatch(snippet.mark):
            silent.append(f"{snippet.place} ({snippet.language}): {snippet.mark or 'no comment above it'}")
    assert silent == [], "CONTRIBUTING.md says what the comment above a block may say"


def test_marks_fit_their_languages() -> None:
    for snippet in ALL:
        if snippet.mark.startswith("run"):
            assert snippet.language in ("sh", "python"), snippet.place
        if snippet.mark.startswith("settings"):
            assert snippet.language == "toml", snippet.place
        if snippet.mark == "run, continues":
            assert snippet.language == "python", snippet.place


@pytest.mark.parametrize(("document", "test"), TESTED_ELSEWHERE.items())
def test_documents_with_tests_of_their_own_have_them(document: str, test: str) -> None:
    assert (ROOT / document).is_file()
    assert Path(document).name in (ROOT / test).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", TWINS)
def test_both_languages_hold_the_same_snippets(document: str) -> None:
    chinese, english = snippets(document), snippets(document.replace(".zh.md", ".md"))
    assert [bare(each) for each in chinese] == [bare(each) for each in english]


def bare(snippet: Snippet) -> tuple[str, str, str, list[str]]:
    """A snippet without its comments, which are translated."""
    lines = [re.sub(r"\s*# .*|^#$", "", line).rstrip() for line in snippet.text.splitlines()]
    return snippet.language, snippet.mark, snippet.expect, lines


@pytest.mark.parametrize("document", documents())
def test_links_between_files_lead_somewhere(document: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#\s]+)", text)
    here = (ROOT / document).parent
    assert [target for target in targets if "://" not in target and not (here / target).exists()] == []


@pytest.mark.parametrize(
    "snippet", [each for each in ALL if each.mark.startswith("settings")], ids=lambda each: each.place
)
def test_settings_in_documents_load(snippet: Snippet, tmp_path: Path) -> None:
    (tmp_path / "pagoda.toml").write_text(snippet.text, encoding="utf-8")
    settings = load_settings({}, {"HOME": str(tmp_path)}, tmp_path)
    assert set(settings.origins.values()) - {"default"}, "a file that sets nothing shows nothing"


@dataclass
class Reader:
    """Somebody who types what a document shows, in a home of their own beside a running service."""

    home: Path
    address: str
    environment: dict[str, str]
    python: str = ""

    def follow(self, snippet: Snippet) -> None:
        """Run a snippet; it must succeed and print what is expected."""
        code = re.sub(r"(127\.0\.0\.1|localhost):8000", self.address, snippet.text)
        if snippet.language == "python":
            self.python = self.python * (snippet.mark == "run, continues") + code
            command = [sys.executable, "-c", self.python]
        else:
            command = ["bash", "-euo", "pipefail", "-c", code]
        run = subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert run.returncode == 0, f"{snippet.place} ended with {run.returncode}:\n{run.stdout}\n{run.stderr}"
        assert run.stdout.strip(), f"{snippet.place} printed nothing"
        assert snippet.expect in run.stdout, f"{snippet.place} printed:\n{run.stdout}"


@contextmanager
def reading(document: str, models: Path, folder: Path) -> Iterator[Reader]:
    home = folder / "home"
    link_models(models, home / "models")
    served = [each.text for each in snippets(document) if each.mark == "settings, served"]
    (home / "pagoda.toml").write_text("\n".join(served), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PAGODA_", "XDG_"))}
    own = {"HOME": str(folder), "PAGODA_HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with process(home, environment=own) as (url, _):
        tools = folder / "bin"
        tools.mkdir()
        (tools / "pagoda").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m pagoda "$@"\n')
        (tools / "pagoda").chmod(0o755)
        (folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        path = f"{tools}{os.pathsep}{os.environ['PATH']}"
        yield Reader(home, url.removeprefix("http://"), {**kept, **own, "PATH": path, "CURL_HOME": str(folder)})


def link_models(models: Path, folder: Path) -> None:
    """The built-in models without a copy; what the reader adds stays in the folder."""
    for path in models.rglob("*"):
        if path.is_file() and not {"entries", "locks"} & set(path.parts):
            link = folder / path.relative_to(models)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)


@pytest.mark.real_model
@pytest.mark.requires("curl")
@pytest.mark.requires("bash")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", TOLD)
def test_a_reader_can_type_what_a_document_shows(document: str, models_directory: Path, tmp_path: Path) -> None:
    with reading(document, models_directory, tmp_path) as reader:
        for snippet in snippets(document):
            if snippet.mark.startswith("run"):
                reader.follow(snippet)


def test_the_tour_is_told() -> None:
    assert {"README.md", "docs/guides/models.md", "docs/guides/configuration.md"} <= set(TOLD)
    assert {"README.zh.md", "docs/guides/models.zh.md"} <= set(TWINS)
    languages = [each.language for each in snippets("README.md") if each.mark.startswith("run")]
    assert languages.count("python") >= 4
    assert languages.count("sh") >= 5


def test_blocks_are_found_with_their_marks() -> None:
    text = "\n".join(
        ["<!-- snippet: run; expect: 2 -->", "```python", "print(1 + 1)", "```", "", "```sh", "echo", "```"]
    )
    first, second = parse("x.md", text)
    assert (first.language, first.text, first.mark, first.expect) == ("python", "print(1 + 1)\n", "run", "2")
    assert (first.line, second.line, second.mark) == (2, 6, "")
