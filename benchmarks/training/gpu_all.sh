#!/bin/sh
# All of fine-tuning and of quantised forms that two GPUs are asked, within nine minutes: `sh gpu_all.sh OUT [--tiny]`.
# The host needs Python 3.12 with torch and the packages of wheels.sh; every step adds a line to OUT/results.jsonl.
PYTHONPATH="src:.:${PYTHONPATH:-}" exec "${PYTHON:-python3}" -u -m benchmarks.training.gpu_all "$@"
