"""``python -m benchmarks.trust FOLDER collect fit report peers``: ask the models, fit, measure, and compare."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from benchmarks.trust import peers
from benchmarks.trust.collect import gather
from benchmarks.trust.fit import judges_of, looks, table, write
from benchmarks.trust.plot import draw
from benchmarks.trust.report import as_json, by_precedent, diagrams, figures, transferred, whole_sets
from benchmarks.trust.table import fit_judge
from pagoda.logic.trust.combination import scales
from pagoda.logic.trust.weights import read_weights


def report(folder: Path, picture: Path) -> None:
    """The tables, the picture, and one line of JSON."""
    judges = judges_of()
    rows = table(folder, judges)
    looked = {name: looks(name) for name in ("qa", "pairs")}
    narrow = fit_judge(looked["qa"], [])
    away = table(folder, dict.fromkeys(judges, narrow))
    found = [*figures(rows), *transferred(away), *whole_sets(looked, judges[None]), by_precedent()]
    print("| Way | Set | Items (right) | AUROC (95 %) | ECE | by chance |\n|---|---|--:|--:|--:|--:|")
    for each in found:
        print(each.line())
    draw(diagrams(rows), picture)
    print(json.dumps({"benchmark": "trust", "figures": as_json(found)}), flush=True)


def main() -> None:
    """The steps that are wanted, in the order given."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust")
    parser.add_argument("folder", type=Path, help="where what was asked is kept, so that a rerun goes on")
    parser.add_argument("steps", nargs="+", choices=("collect", "fit", "report", "peers"))
    parser.add_argument("--most", type=int, default=300, help="items of each set to ask about (default: 300)")
    parser.add_argument("--picture", type=Path, default=Path("docs/images/calibration.svg"))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for step in args.steps:
        if step == "collect":
            asyncio.run(gather(args.folder / "heard.jsonl", args.most))
        elif step == "fit":
            write(args.folder)
            read_weights.cache_clear()
            scales.cache_clear()
        elif step == "peers":
            asyncio.run(peers.report(args.folder))
        else:
            report(args.folder, args.picture)


if __name__ == "__main__":
    main()
