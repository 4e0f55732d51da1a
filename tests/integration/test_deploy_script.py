"""``deploy/deploy.sh`` with a ``docker`` that only remembers what it was told, and can be told to fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.deployed import ROOT

DOCKER = r"""#!/usr/bin/env bash
echo "$*" >>"$CALLS"
last=${!#}
case "$*" in
  "image inspect"*) [ -n "$BEFORE" ] && echo "$BEFORE" || exit 1 ;;
  build*) [ "$FAILS" != build ] ;;
  "tag pagoda:candidate "*) echo new >"$CALLS.image" ;;
  "tag $BEFORE "*) echo old >"$CALLS.image" ;;
  *" up --detach --no-deps --force-recreate "*) cat "$CALLS.image" >"$CALLS.$last" ;;
  *" ps --quiet "*) echo "$last" ;;
  inspect*) [ "$FAILS/$(cat "$CALLS.$last")" = "$last/new" ] && echo "$AILING" || echo healthy ;;
esac
"""


def deploy(tmp_path: Path, *arguments: str, **options: str) -> tuple[int, list[str], str]:
    """Exit status, what docker was told, and what was said on standard error."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    (programs / "docker").write_text(DOCKER, encoding="utf-8")
    (programs / "docker").chmod(0o755)
    told = {"FAILS": "", "BEFORE": "sha256:before", "AILING": "unhealthy", "READY_SECONDS": "30", **options}
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(calls), "LOOK_SECONDS": "0.01", **told}
    done = subprocess.run(
        [str(ROOT / "deploy" / "deploy.sh"), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, lines, done.stderr


def replaced(lines: list[str]) -> list[str]:
    return [line.split()[-1] for line in lines if "--force-recreate" in line]


@pytest.mark.parametrize(
    ("profile", "tag", "services"),
    [("cpu", "cpu", ["pagoda-a", "pagoda-b"]), ("gpu", "cuda", ["pagoda-a-gpu", "pagoda-b-gpu"])],
)
def test_both_are_replaced_one_after_another(tmp_path: Path, profile: str, tag: str, services: list[str]) -> None:
    status, lines, said = deploy(tmp_path, profile)
    assert status == 0, said
    assert replaced(lines) == services
    looked = [number for number, line in enumerate(lines) if line.startswith("inspect") and line.endswith(services[0])]
    second = next(number for number, line in enumerate(lines) if "--force-recreate" in line and services[1] in line)
    assert looked and max(looked) < second  # the second goes only when the first is ready  # noqa: PT018
    build = next(number for number, line in enumerate(lines) if line.startswith("build"))
    assert f"docker/{tag}.Dockerfile" in lines[build]
    assert build < next(number for number, line in enumerate(lines) if " up " in line)


@pytest.mark.parametrize(
    ("fails", "order"),
    [("pagoda-a", ["pagoda-a", "pagoda-a"]), ("pagoda-b", ["pagoda-a", "pagoda-b", "pagoda-a", "pagoda-b"])],
)
@pytest.mark.parametrize("ailing", ["unhealthy", "starting"])
def test_one_that_does_not_become_ready_brings_the_image_before_back(
    tmp_path: Path, fails: str, order: list[str], ailing: str
) -> None:
    status, lines, said = deploy(tmp_path, FAILS=fails, AILING=ailing, READY_SECONDS="1")
    assert status == 1
    assert replaced(lines) == order
    assert "tag sha256:before pagoda:cpu" in lines
    assert (tmp_path / f"calls.{fails}").read_text().strip() == "old"
    assert (tmp_path / "calls.pagoda-a").read_text().strip() == "old"
    assert "the image before serves again" in said


def test_a_build_that_fails_touches_nothing(tmp_path: Path) -> None:
    status, lines, _ = deploy(tmp_path, FAILS="build")
    assert status != 0
    assert not [line for line in lines if " up " in line or line.startswith("tag")]


def test_the_first_image_of_all_has_nothing_to_go_back_to(tmp_path: Path) -> None:
    status, lines, said = deploy(tmp_path, FAILS="pagoda-a", BEFORE="")
    assert status == 1
    assert replaced(lines) == ["pagoda-a"]
    assert "no image before" in said


def test_a_word_that_is_no_profile_is_refused(tmp_path: Path) -> None:
    assert deploy(tmp_path, "tpu")[:2] == (2, [])
