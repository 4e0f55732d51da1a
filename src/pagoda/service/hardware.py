"""What this machine has for models, and what a process takes of it."""

from __future__ import annotations

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from pagoda.core.settings import Engines
from pagoda.model.engines.contract import Footprint, Room

_HOST_SHARE = 0.8
_GPU_SHARE = 0.92
_MIB = 1024 * 1024
_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_ASK_SECONDS = 10.0


def room_of(settings: Engines) -> Room:
    """What each engine may use of this machine."""
    return Room(
        gpu_memory=memory_budget(settings.memory, settings.gpu_memory).gpu,
        threads=settings.threads or host_cores(),
        parallel=settings.parallel,
        context=settings.context,
        kv_type=settings.kv_type,  # type: ignore[arg-type]  # one of the setting's choices
        spin=settings.spin,
        device=settings.device,
        dtype=settings.dtype,
        silence_seconds=settings.request_seconds,
        vllm_arguments=settings.vllm_arguments,
        vllm_sleep=settings.vllm_sleep,
    )


def memory_budget(host: int, gpu: int) -> Footprint:
    """The bytes that engines may fill: as given, else a share of what the machine (or its container) has."""
    return Footprint(host=host or int(host_memory() * _HOST_SHARE), gpu=gpu or int(gpu_memory() * _GPU_SHARE))


def host_memory() -> int:
    """Bytes of memory, or of the container's limit where that is less."""
    limits = [psutil.virtual_memory().total]
    for path in _CONTAINER_LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits)


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds a folder, or will."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gpu_memory() -> int:
    """Bytes of all GPUs together; 0 without any."""
    return sum(int(row[0]) for row in _ask_gpus("--query-gpu=memory.total")) * _MIB


def gpu_names() -> list[str]:
    """GPUs by what ``CUDA_VISIBLE_DEVICES`` calls them."""
    return [row[0] for row in _ask_gpus("--query-gpu=index")]


def host_cores() -> int:
    """Physical cores that this process may use; of those it is bound to, where it is."""
    cores = psutil.cpu_count(logical=False) or 1
    return min(cores, len(os.sched_getaffinity(0))) if sys.platform == "linux" else cores


def process_memory(pid: int) -> Footprint:
    """What a process and its children hold now; nothing when it has ended.

    Host memory is the resident set, mapped model files included. A GPU's driver names processes by their numbers
    outside a container: where they cannot be told apart, GPU memory is not measured.
    """
    try:
        parent = psutil.Process(pid)
        family = [parent, *parent.children(recursive=True)]
        host = sum(process.memory_info().rss for process in family)
    except psutil.NoSuchProcess:
        return Footprint()
    pids = {str(process.pid) for process in family}
    used = (row[1] for row in _ask_gpus("--query-compute-apps=pid,used_memory") if row[0] in pids)
    return Footprint(host=host, gpu=sum(int(value) for value in used if value.isdigit()) * _MIB)


def process_seconds(pid: int) -> float | None:
    """The processor time that a process has used by itself; ``None`` when it has ended."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return None
    return float(times.user + times.system)


def _ask_gpus(query: str) -> list[list[str]]:
    """The answer of NVIDIA's own tool, without units; nothing on a machine without it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run(
            [tool, query, "--format=csv,noheader,nounits"],
            capture_output=True,
            check=False,
            text=True,
            timeout=_ASK_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return []
    if answer.returncode:
        return []
    return [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(answer.stdout)) if row]
