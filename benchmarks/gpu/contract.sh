#!/bin/sh
# The engine contract over vLLM, on a GPU host: benchmarks/gpu/contract.sh CHECKPOINT [pytest arguments]
set -eu
checkpoint=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/../.."
PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" PAGODA_TEST_VLLM="$checkpoint" \
    exec "${PYTHON:-python3}" -m pytest tests/contract/test_engines.py --timeout 400 -p no:cacheprovider "$@"
