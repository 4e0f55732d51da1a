"""A real PostgreSQL for tests: started once in a directory of its own, reached by a Unix socket, a database a test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


class Cluster:
    """A PostgreSQL server that listens on a socket in its own directory; runs as ``postgres`` when we are root."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self.programs = programs
        self.directory = directory

    def call(self, program: str, *arguments: str) -> str:
        command = [str(self.programs / program), *arguments]
        if os.geteuid() == 0:
            command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
        done = subprocess.run(
            command, cwd=self.directory, capture_output=True, text=True, timeout=100, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def create(self) -> None:
        self.call("initdb", "-D", "data", "-U", "pagoda", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-k {self.directory} -c listen_addresses='' -c fsync=off -c max_connections=60"
        self.call("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The URL of a fresh, empty database."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.call("psql", "-h", str(self.directory), "-U", "pagoda", "-qc", f"CREATE DATABASE {name}", "postgres")
        return f"postgresql://pagoda:not-shown@/{name}?host={self.directory}"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).parent
    reason = "PostgreSQL is not installed: install the package postgresql"
    if os.environ.get("PAGODA_REQUIRE") == "all":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def _template() -> Iterator[Path]:
    """A data directory made once and copied, since making one takes a second."""
    with _own_directory() as directory:
        Cluster(_programs(), directory).create()
        yield directory


class _own_directory:  # noqa: N801 - a context manager used like a function
    def __enter__(self) -> Path:
        # Not tmp_path: a socket's path may have 107 characters at most, and pytest's are closed to other users.
        self.path = Path(tempfile.mkdtemp(prefix="pg-"))
        if os.geteuid() == 0:
            shutil.chown(self.path, "postgres", "postgres")
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


def _run(template: Path) -> Iterator[Cluster]:
    with _own_directory() as directory:
        cluster = Cluster(_programs(), directory)
        cluster.call("pg_ctl", "--version")
        copy = ["cp", "-a", str(template / "data"), str(directory / "data")]
        subprocess.run(copy, check=True)
        cluster.start()
        try:
            yield cluster
        finally:
            if (directory / "data" / "postmaster.pid").exists():
                cluster.stop()


@pytest.fixture(scope="session")
def postgresql(_template: Path) -> Iterator[Cluster]:
    """The server that tests share; take a database of your own from it."""
    yield from _run(_template)


@pytest.fixture
def own_postgresql(_template: Path) -> Iterator[Cluster]:
    """A server that this test alone may stop and start."""
    yield from _run(_template)


@pytest.fixture
def postgresql_url(postgresql: Cluster) -> str:
    """The URL of an empty database."""
    return postgresql.new_database()
