"""Runs: the one mechanism for long work (training, evaluation, ingestion, quantisation, batches, benchmarks).

A run is a directory and a process. The directory holds everything that is known about the run and is the truth; the
process may be killed at any moment and the run is resumed in the same directory. A reader needs only the files, so a
terminal, the HTTP interface and another machine on a shared volume see the same.

::

    runs/20261121-153012-sft-7f3a/
        run.json          what it is (kind, config, seed, versions) and how it stands (status, times, error, result)
        status.json       how far it has come; rewritten often
        heartbeat.json    which process executes it; its modification time is the last sign of life
        cancel.json       somebody wants it to stop
        events.jsonl      what happened, one JSON object a line, only ever appended
        metrics.jsonl     numbers by step, likewise
        log.txt           what the process printed, and tracebacks
        checkpoints/      state that the work saves for its own resumption
        artifacts/        what it made
        lock              held by the executing process

``ledger`` creates, finds, starts and cancels runs; ``execution`` is the child's side and gives the work its
``context``; ``watching`` follows a run; ``comparison`` compares two; ``index`` copies them into the table of records
and is the only module here that needs the database.
"""

from pagoda.core.runs.comparison import Comparison, compare
from pagoda.core.runs.context import RunContext, RunStopped
from pagoda.core.runs.execution import execute
from pagoda.core.runs.ledger import Runs
from pagoda.core.runs.record import Progress, Run
from pagoda.core.runs.registry import RunFunction, RunRegistry, RunTarget
from pagoda.core.runs.watching import RunEvent, watch, watch_async

__all__ = [
    "Comparison",
    "Progress",
    "Run",
    "RunContext",
    "RunEvent",
    "RunFunction",
    "RunRegistry",
    "RunStopped",
    "RunTarget",
    "Runs",
    "compare",
    "execute",
    "watch",
    "watch_async",
]
