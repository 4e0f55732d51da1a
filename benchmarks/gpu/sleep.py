"""Two models on a GPU that holds one of them: what a change of the model costs where the other one sleeps, and where it
is ended and started again.

``python -m benchmarks.gpu.sleep --out FOLDER`` on a GPU host that has vLLM; with ``--stand-in`` on any machine, with a
stand-in for vLLM's server, to see that the comparison works. Both models are asked in turn for one token, so that every
request but the first changes the model. A table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.gpu.checkpoint import SHAPES, make_checkpoint
from benchmarks.gpu.servers import Ground, ServerFailed, pagoda
from benchmarks.gpu.vllm_stand_in import shadow
from pagoda.model.catalog.entry import LocalPath, ModelEntry
from pagoda.model.engines.contract import Footprint
from pagoda.model.engines.vllm import Vllm
from pagoda.service.hardware import room_of

MODELS = ("first", "second")
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> int:
    args = arguments()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=args.work))
    checkpoint = make_checkpoint(work / "checkpoint", SHAPES["tiny" if args.stand_in else args.shape])
    results: dict[str, Any] = {}
    for name, sleep in (("asleep", True), ("ended", False)):
        ground = ground_of(args, work, checkpoint, sleep=sleep)
        try:
            with pagoda(ground, name) as url:
                results[name] = swaps(url, args.swaps)
        except ServerFailed as error:
            results[name] = {"failed": str(error)}
        print(f"{name:8}{json.dumps(results[name])}", flush=True)
        for log in (work / f"{name}-home" / "logs").glob("engine-*.log"):
            (out / f"{name}-{log.name}").write_bytes(log.read_bytes()[-100_000:])
    report = {"benchmark": "gpu.sleep", "shape": args.shape, "stand_in": args.stand_in, **results}
    (out / "sleep.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report))
    return 0 if all("failed" not in each for each in results.values()) else 1


def ground_of(args: argparse.Namespace, work: Path, checkpoint: Path, *, sleep: bool) -> Ground:
    """Memory of the GPU for one model that is awake and one that sleeps, whichever way is taken."""
    more = {
        "PAGODA_ENGINES_VLLM_SLEEP": str(sleep).lower(),
        "PAGODA_ENGINES_CONTEXT": "2048",
        "PAGODA_ENGINES_SWAP_SECONDS": "0",
        "PAGODA_ENGINES_MEMORY": "96GiB",
        "PAGODA_ENGINES_GPU_MEMORY": "0",
        "PAGODA_DEFAULTS_CHAT": MODELS[0],
    }
    if args.stand_in:
        more["PYTHONPATH"] = shadow(work / f"shadow-{sleep}") + os.pathsep + os.environ.get("PYTHONPATH", "")
    arguments = ("--load-format=dummy", *args.vllm)
    ground = Ground(
        checkpoint=checkpoint, work=work, concurrency=16, arguments=arguments, limit=args.start_seconds, models=MODELS,
        more=more,
    )  # fmt: skip
    entry = ModelEntry(id=MODELS[0], task="chat", engine="vllm", source=LocalPath(path=str(checkpoint)))
    more["PAGODA_ENGINES_VLLM_SLEEP"] = "true"
    need = Vllm().memory(entry, checkpoint, room_of(ground.settings(work).engines))
    more["PAGODA_ENGINES_VLLM_SLEEP"] = str(sleep).lower()
    more["PAGODA_ENGINES_GPU_MEMORY"] = str((need.footprint + (need.asleep or Footprint())).gpu)
    return ground


def swaps(url: str, count: int) -> dict[str, Any]:
    """Seconds of requests that each need the model that is not there, and what both hold at the end."""
    ask(url, MODELS[0])
    first = ask(url, MODELS[1])  # which is started, whatever becomes of the other
    taken = [ask(url, MODELS[number % 2]) for number in range(count)]
    with _OPEN.open(url + "/api/v1/models", timeout=60) as response:
        rows = [row for row in json.load(response)["data"] if row["id"] in MODELS]
    return {
        "start_seconds": round(first, 2),
        "swap_seconds": [round(each, 2) for each in taken],
        "median_swap_seconds": round(statistics.median(taken), 2),
        "models": [{name: row.get(name) for name in ("id", "state", "loads", "held", "used")} for row in rows],
    }


def ask(url: str, model: str) -> float:
    """Seconds until a model has answered one token."""
    body = {"model": model, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "temperature": 1}
    head = {"Content-Type": "application/json"}
    began = time.perf_counter()
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(), head)
    with _OPEN.open(request, timeout=600) as response:
        response.read()
    return time.perf_counter() - began


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "sleep-out")))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()), help="checkpoint, homes and logs")
    parser.add_argument("--shape", choices=tuple(SHAPES), default="llama-8b")
    parser.add_argument("--swaps", type=int, default=6, help="changes of the model that are timed")
    parser.add_argument("--start-seconds", type=float, default=240, help="longest start of a server")
    parser.add_argument("--vllm", action="append", default=[], help="a further argument of vLLM")
    parser.add_argument("--stand-in", action="store_true", help="a stand-in for vLLM's server")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
