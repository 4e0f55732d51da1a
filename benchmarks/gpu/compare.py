"""Pagoda on vLLM beside bare vLLM with the same flags, in turn and each in fresh processes; then transformers alone.

``python -m benchmarks.gpu.compare --out FOLDER`` on a GPU host that has vLLM; with ``--stand-in`` (and ``--shape
tiny``) on any machine, with the fake engine in vLLM's place, to see that the comparison works. Both servers are driven
by ``pagoda bench engine``. A step that fails or takes too long does not lose the others. A table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.gpu.checkpoint import SHAPES, make_checkpoint
from benchmarks.gpu.servers import MODEL, Ground, ServerFailed, bare, pagoda

SIDES = {"bare": bare, "pagoda": pagoda}
LIBRARY = {"continuous": 256, "generate": 4}
"""Ways to run transformers alone, and the requests of each."""
LOG_LINES = 400
STEPS = "bare,pagoda,bare,pagoda,continuous,generate"


def main() -> int:
    args = arguments()
    began = time.monotonic()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for old in ("rounds.jsonl", "logs.txt"):
        (out / old).unlink(missing_ok=True)
    work = args.work.resolve()
    checkpoint = make_checkpoint(work / "checkpoint", SHAPES[args.shape])
    ground = Ground(
        checkpoint=checkpoint,
        work=work,
        concurrency=args.concurrency,
        arguments=("--load-format=dummy", *args.vllm),
        limit=args.start_seconds,
        stand_in=args.stand_in,
    )
    results: list[dict[str, Any]] = []
    for number, step in enumerate(args.steps.split(",")):
        left = args.budget - (time.monotonic() - began)
        name = f"{number}-{step}"
        print(f"{name}: {left:.0f} s left", flush=True)
        results.append({"step": step, "name": name} | attempt(args, ground, name, step, left))
        print(f"  {summary(results[-1])}", flush=True)
        keep_logs(work, name, out / "logs.txt")
        (out / "compare.json").write_text(json.dumps(report(args, results), indent=1))
    print_table(results)
    print(json.dumps(report(args, results)))
    return 0 if all("failed" not in result for result in results) else 1


def keep_logs(work: Path, name: str, place: Path) -> None:
    """The ends of a step's logs, its engine's too, behind those of the steps before."""
    with place.open("a") as file:
        for log in sorted([*work.glob(f"{name}.log"), *work.glob(f"{name}-home/logs/*.log")]):
            lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            file.write(f"===== {log.relative_to(work)}\n" + "\n".join(lines) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "compare-out")))
    parser.add_argument("--work", type=Path, default=Path("/tmp/pagoda-compare"), help="checkpoint, homes and logs")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="llama-8b")
    parser.add_argument("--steps", default=STEPS, help=f"in this order (default: {STEPS})")
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2, help="of each server, after one warm-up that is not counted")
    parser.add_argument("--input-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=256)
    parser.add_argument("--start-seconds", type=float, default=240, help="longest start of a server")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all steps")
    parser.add_argument(
        "--vllm", action="append", default=[], help="a further argument of vLLM, for example --vllm=-O1"
    )
    parser.add_argument("--stand-in", action="store_true", help="the fake engine instead of vLLM")
    return parser.parse_args()


def attempt(args: argparse.Namespace, ground: Ground, name: str, step: str, left: float) -> dict[str, Any]:
    """A step's result, or why there is none."""
    if left < 20:
        return {"failed": "no time left"}
    try:
        if step in SIDES:
            return serve(args, ground, name, step, left)
        return run_library(args, ground, name, step, left)
    except ServerFailed as failed:
        return {"failed": str(failed)}
    except subprocess.TimeoutExpired:
        return {"failed": "it was not done in time"}
    except (OSError, subprocess.SubprocessError, ValueError) as error:  # whatever it was, the other steps go on
        return {"failed": f"{type(error).__name__}: {error}"}


def serve(args: argparse.Namespace, ground: Ground, name: str, step: str, left: float) -> dict[str, Any]:
    """Start a server, drive it, end it."""
    began = time.monotonic()
    raw = ground.work / f"{name}.json"
    with SIDES[step](ground, name) as url:
        ready = time.monotonic() - began
        command = [sys.executable, "-m", "pagoda", "bench", "engine", "--url", url, "--model", MODEL]
        command += ["--concurrency", ",".join([str(args.concurrency)] * args.rounds)]
        command += ["--requests", str(args.requests), "--warmup", str(args.requests), "--seed", "1"]
        command += ["--input-tokens", str(args.input_tokens), "--output-tokens", str(args.output_tokens)]
        command += ["--json", str(raw)]
        driven = subprocess.run(
            command,
            env={**os.environ, "PAGODA_HOME": str(ground.work / "client-home")},
            timeout=max(1.0, left - ready),
            check=False,
        )
        if driven.returncode:
            raise ServerFailed(f"{name}: the driver ended with status {driven.returncode}")
    loads = json.loads(raw.read_text())["loads"]
    failed = dict(sum((Counter(load["failed"]) for load in loads), Counter[str]()))
    if not all(load["done"] for load in loads):
        raise ServerFailed(f"{name}: a round without an answer; failures: {failed}")
    with (args.out / "rounds.jsonl").open("a") as file:
        file.write(json.dumps({"step": name, "loads": loads}) + "\n")
    return {
        "ready_seconds": round(ready, 1),
        "output_tokens_per_second": [load["output_tokens_per_second"] for load in loads],
        "requests_per_second": [load["requests_per_second"] for load in loads],
        "first_token_ms": middle(loads, "first_token_seconds", "p50"),
        "first_token_p95_ms": middle(loads, "first_token_seconds", "p95"),
        "token_ms": middle(loads, "token_seconds", "p50"),
        "latency_p95_ms": middle(loads, "latency_seconds", "p95"),
        "input_tokens": loads[0]["input_tokens"]["mean"],
        "output_tokens": loads[0]["output_tokens"]["mean"],
        "client_processor_share": max(load["client_processor_share"] for load in loads),
        "memory_bytes": loads[-1]["memory_bytes"],
        "requests_failed": failed,
    }


def middle(loads: list[dict[str, Any]], what: str, which: str) -> float:
    """The median over rounds, ms."""
    return float(round(statistics.median(load[what][which] for load in loads) * 1000, 2))


def run_library(args: argparse.Namespace, ground: Ground, name: str, step: str, left: float) -> dict[str, Any]:
    """A way of running transformers, in a process of its own."""
    if step not in LIBRARY:
        raise SystemExit(f"There is no step {step}; there are {', '.join((*SIDES, *LIBRARY))}.")
    requests = min(LIBRARY[step], args.requests)
    command = [sys.executable, "-m", "benchmarks.gpu.library", step, str(ground.checkpoint)]
    command += ["--requests", str(requests)]
    command += ["--input-tokens", str(args.input_tokens), "--output-tokens", str(args.output_tokens)]
    with (ground.work / f"{name}.log").open("wb") as log:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, timeout=left, check=False)
    if done.returncode:
        raise ServerFailed(f"{name}: it ended with status {done.returncode}; its log says why")
    found = json.loads(done.stdout.strip().rpartition(b"\n")[2])
    return {**found, "output_tokens_per_second": [found["output_tokens_per_second"]]}


def report(args: argparse.Namespace, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything, with the ratio that counts."""
    rates = {side: rates_of(results, side) for side in (*SIDES, *LIBRARY)}
    ratio = None
    if rates["bare"] and rates["pagoda"]:
        ratio = round(statistics.median(rates["pagoda"]) / statistics.median(rates["bare"]), 4)
    return {
        "benchmark": "gpu.compare",
        "stand_in": args.stand_in,
        "shape": args.shape,
        "vllm_arguments": ["--load-format=dummy", *args.vllm],
        "requests": args.requests,
        "concurrency": args.concurrency,
        "tokens": [args.input_tokens, args.output_tokens],
        "machine": machine(),
        "versions": versions(),
        "median_output_tokens_per_second": {side: statistics.median(found) for side, found in rates.items() if found},
        "pagoda_of_bare": ratio,
        "steps": results,
    }


def rates_of(results: list[dict[str, Any]], step: str) -> list[float]:
    """Output tokens a second of every round of every such step."""
    found = [result for result in results if result["step"] == step and "failed" not in result]
    return [rate for result in found for rate in result["output_tokens_per_second"]]


def machine() -> dict[str, Any]:
    """Where this was."""
    gpus = ""
    if tool := shutil.which("nvidia-smi"):
        query = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        gpus = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
    return {"gpus": gpus, "cores": os.cpu_count(), "system": platform.platform()}


def versions() -> dict[str, str | None]:
    """What was measured."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in ("torch", "transformers", "vllm", "aiohttp"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def summary(result: dict[str, Any]) -> str:
    """A line."""
    if "failed" in result:
        return f"failed: {result['failed']}"
    return ", ".join(f"{name} {value}" for name, value in result.items() if name not in ("step", "name"))


def print_table(results: list[dict[str, Any]]) -> None:
    """A row a step."""
    print(f"{'step':14}{'ready s':>9}{'out tok/s by round':>26}{'ttft p50':>10}{'p95 ms':>10}{'token ms':>10}")
    for result in results:
        if "failed" in result:
            print(f"{result['name']:14}  failed: {result['failed']}")
            continue
        rates = " ".join(f"{rate:.0f}" for rate in result["output_tokens_per_second"])
        cells = [result.get(name, "-") for name in ("first_token_ms", "first_token_p95_ms", "token_ms")]
        print(
            f"{result['name']:14}{result.get('ready_seconds', '-'):>9}{rates:>26}" + "".join(f"{c:>10}" for c in cells)
        )


if __name__ == "__main__":
    sys.exit(main())
