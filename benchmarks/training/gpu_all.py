"""All of fine-tuning that two GPUs are asked, most wanted first, each step a process with a limit, within nine minutes.

::

    sh benchmarks/training/gpu_all.sh OUT                   # on the GPU host
    sh benchmarks/training/gpu_all.sh OUT --tiny            # tries the script itself on a CPU

Steps for one GPU run on both at once; those of FSDP2 have both for themselves. Every step appends its lines to
``OUT/results.jsonl`` when it ends, whichever way, so a run that is cut keeps what it has; ``OUT/log.txt`` has what the
steps said. Nothing is chosen afterwards: a step that fails is a line that says so. One that fails where layers are
compiled whole is tried again with breaks in their graphs (``--breaks``), under a name of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

ONE = "benchmarks.training.gpu"
TINY = ("--shape", "tiny", "--device", "cpu", "--length", "64", "--steps", "6", "--skipped", "2")


@dataclass(frozen=True, slots=True)
class Step:
    """A command of ours, its seconds at most, and how many GPUs it has."""

    name: str
    limit: float
    options: tuple[str, ...]
    module: str = ONE
    cards: int = 1


def steps(checkpoint: str) -> list[Step]:
    """In the order of worth."""

    def step(name: str, limit: float, options: str, cards: int = 1) -> Step:
        return Step(name, limit, tuple(options.split()), cards=cards)

    lora, full = "--shape 8b --method lora", "--shape 1b --method full"
    quantised = ("--folder", checkpoint, "--rounds", "3")
    return [
        step("8b compiled, 4", 180, f"{lora} --batch 4 --compile"),
        step("1b compiled, 8", 160, f"{full} --batch 8 --compile"),
        step("8b FSDP2 on two, compiled, 4", 150, f"{lora} --batch 4 --compile --shard", 2),
        step("1b FSDP2 on two, compiled, 8", 120, f"{full} --batch 8 --compile --shard", 2),
        step("8b eager, 2", 80, f"{lora} --batch 2"),
        step("8b plain Trainer, 2", 80, f"{lora} --batch 2 --way plain"),
        step("8b TRL, 2", 90, f"{lora} --batch 2 --way trl"),
        step("1b eager, 4", 70, f"{full} --batch 4"),
        step("1b plain Trainer, 4", 70, f"{full} --batch 4 --way plain"),
        Step("8b forms", 130, quantised, "benchmarks.gpu.quantised"),
        step("8b compiled, 2", 100, f"{lora} --batch 2 --compile"),
        step("8b QLoRA, 2", 100, f"--shape 8b --method qlora --batch 2 --checkpoint {checkpoint}"),
        step("8b Liger compiled, 4", 120, f"{lora} --batch 4 --compile --liger"),
        step("1b TRL, 4", 70, f"{full} --batch 4 --way trl"),
        step("8b attention, 4", 40, "--shape 8b --way attention --batch 4"),
        step("8b compiled, cuDNN's attention, 4", 100, f"{lora} --batch 4 --compile --kernel cudnn"),
        step("8b Liger, 2", 80, f"{lora} --batch 2 --liger"),
        step("8b eager, checkpointing, 4", 90, f"{lora} --batch 4 --checkpointing"),
        step("8b compiled, 8 rows packed, 4", 100, f"{lora} --batch 4 --compile --documents 8"),
        step("1b Liger compiled, 8", 90, f"{full} --batch 8 --compile --liger"),
    ]


@dataclass(slots=True)
class Running:
    """A step's process and where its words go."""

    step: Step
    cards: Sequence[int]
    process: subprocess.Popen[str]
    until: float
    folder: Path
    began: float = field(default_factory=time.monotonic)


class Show:
    """Runs the steps on so many cards until a deadline."""

    def __init__(self, out: Path, work: Path, *, cards: int, seconds: float, tiny: bool) -> None:
        self._out = out
        self._work = work
        self._cards = cards
        self._free = list(range(cards))
        self._until = time.monotonic() + seconds
        self._tiny = tiny
        self._running: list[Running] = []
        self._waiting: list[Step] = []

    def run(self, wanted: Sequence[Step]) -> None:
        """One after another; the next begins where there are cards for it."""
        self._waiting = list(wanted)
        while self._waiting or self._running:
            if not self._waiting:
                self._wait()
                continue
            step = self._waiting.pop(0)
            if step.cards > self._cards:
                self._note(step, f"it needs {step.cards} cards", [], 0)
                continue
            while len(self._free) < step.cards:
                self._wait()
            left = self._until - time.monotonic()
            if left < 30:
                self._note(step, "no time left", [], 0)
                continue
            self._start(step, left)

    def _start(self, step: Step, left: float) -> None:
        cards = [self._free.pop(0) for _ in range(step.cards)]
        folder = Path(tempfile.mkdtemp(dir=self._work))
        launch = ["-m", step.module]
        if step.cards > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(step.cards), *launch]
        options = [*step.options, *(TINY[: None if step.module == ONE else 4] if self._tiny else ())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1" if self._tiny else "8", "TOKENIZERS_PARALLELISM": "false"}
        environment["CUDA_VISIBLE_DEVICES"] = "" if self._tiny else ",".join(map(str, cards))
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            process = subprocess.Popen(
                [sys.executable, *launch, *options], stdout=out, stderr=err, text=True, env=environment,
                start_new_session=True,
            )  # fmt: skip
        self._running.append(Running(step, cards, process, time.monotonic() + min(step.limit, left), folder))

    def _wait(self) -> None:
        """Until a step has ended or used its time up."""
        while True:
            for each in self._running:
                over = time.monotonic() > each.until
                if each.process.poll() is None and not over:
                    continue
                if over:
                    _stop(each.process)
                self._running.remove(each)
                self._free = sorted([*self._free, *each.cards])
                self._end(each, over=over)
                return
            time.sleep(0.2)

    def _end(self, each: Running, *, over: bool) -> None:
        said = (each.folder / "out").read_text(errors="replace")
        err = (each.folder / "err").read_text(errors="replace")
        with (self._out / "log.txt").open("a") as log:
            log.write(f"\n=== {each.step.name} {' '.join(each.step.options)}\n{said}\n{err[-6000:]}\n")
        status = each.process.returncode
        how = "done" if status == 0 else "over its limit" if over else f"failed ({status}): {_last(err)}"
        self._note(each.step, how, list(_lines(said)), time.monotonic() - each.began)
        compiles = "--compile" in each.step.options and "--breaks" not in each.step.options
        if compiles and how.startswith("failed") and "OutOfMemory" not in how:
            again = replace(each.step, name=f"{each.step.name}, breaks", options=(*each.step.options, "--breaks"))
            self._waiting.insert(0, again)

    def _note(self, step: Step, how: str, lines: Sequence[object], seconds: float) -> None:
        line = json.dumps({"step": step.name, "outcome": how, "seconds": round(seconds, 1), "found": lines})
        with (self._out / "results.jsonl").open("a") as results:
            results.write(line + "\n")
        print(line, flush=True)


def _stop(process: subprocess.Popen[str]) -> None:
    """Asked first: torchrun then ends its processes, which are no part of its group."""
    process.terminate()
    try:
        process.wait(45)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _lines(said: str) -> Iterator[object]:
    for line in said.splitlines():
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:  # a process that was killed in the middle of a line
                yield line


def _last(err: str) -> str:
    telling = [line for line in err.splitlines() if "Error" in line]
    return " ".join((telling or err.splitlines() or [""])[-1].split())[:300]


def main() -> None:
    """Run all; the checkpoint that the quantised steps read is written meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cards", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=530)
    parser.add_argument("--only", default="", help="steps whose name holds this")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        checkpoint = work / "checkpoint"
        shape = ["--shape", "tiny" if args.tiny else "llama-8b"]
        write = [sys.executable, "-m", "benchmarks.gpu.checkpoint", str(checkpoint), "--filled", *shape]
        with subprocess.Popen(write) as writing:
            show = Show(args.out, work, cards=args.cards, seconds=args.seconds, tiny=args.tiny)
            show.run([each for each in steps(str(checkpoint)) if args.only in each.name])
            writing.wait()


if __name__ == "__main__":
    main()
