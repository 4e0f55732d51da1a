"""Python code in a process of its own, with limits on time, memory, files and, where the kernel allows, the network.

What it does not stop: the code runs as the same user and may read, and write, every file that user may. Only the
environment is emptied, the working folder is fresh and is deleted, and no file may grow past a limit. Processes and
sockets are refused by Python itself, which code that wants to can get around. It is a fence, not a prison: let it run
only what a person has looked at, which is why the tool needs approval.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import dataclass

from pagoda.core.errors import ToolError

_MIB = 1024 * 1024
_MOST_OUTPUT = 100_000
_CHILD = """
import resource, sys
seconds, memory, file_size = (int(word) for word in sys.argv[1:4])
for what, limit in (
    (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, file_size),
    (resource.RLIMIT_NOFILE, 32), (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(what, (limit, limit))
refused = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "pty.", "ctypes.")
def refuse(event, arguments):
    if event.startswith(refused):
        raise PermissionError(f"{event} is not allowed here")
sys.addaudithook(refuse)
code = sys.stdin.read()
exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
"""


@dataclass(frozen=True, slots=True)
class Fence:
    """The limits of a piece of code."""

    seconds: float = 10.0
    cpu_seconds: int = 5
    memory: int = 512 * _MIB
    file_bytes: int = 10 * _MIB


async def run_python(code: str, fence: Fence = Fence()) -> str:
    """What the code prints, output and errors together. Raises ``ToolError`` when it fails or takes too long."""
    limits = (str(fence.cpu_seconds), str(fence.memory), str(fence.file_bytes))
    with tempfile.TemporaryDirectory(prefix="pagoda-python-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-S",
            "-c",
            _CHILD,
            *limits,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=folder,
            env={"PATH": "", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(fence.seconds):
                printed = await _talk(process, code)
        except TimeoutError as error:
            raise ToolError(f"the code did not end within {fence.seconds:g} s") from error
        finally:
            await _end(process)
    text = printed[:_MOST_OUTPUT].decode("utf-8", "replace")
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ToolError(f"the code used more than {fence.cpu_seconds} s of processor time")
    if process.returncode:
        raise ToolError(f"the code failed: {text[-2000:]}")
    return text


async def _talk(process: asyncio.subprocess.Process, code: str) -> bytes:
    """Give the code, and read what is printed up to a limit; the rest is read and dropped."""
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process was started with pipes")
    process.stdin.write(code.encode("utf-8", "replace"))
    process.stdin.close()
    printed = b""
    while block := await process.stdout.read(65_536):
        if len(printed) <= _MOST_OUTPUT:
            printed += block
    await process.wait()
    return printed


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill whatever still runs of it, for good."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        await process.wait()
