#!/bin/sh
# The packages that gpu_all.sh needs beside torch, accelerate and what they need, for a GPU host without a registry (Python
# 3.12, x86-64), at the versions of constraints.txt: `sh wheels.sh DIR`, about 23 MB. There:
#   python3 -m pip install --no-index --no-deps --upgrade --target SITE DIR/*.whl; export PYTHONPATH=SITE
set -eu
mkdir -p "$1"
here=$(dirname "$0")/../..
for name in transformers peft trl datasets dill multiprocess bitsandbytes pydantic pydantic_core annotated-types \
    typing-inspection typing_extensions orjson liger-kernel==0.8.5
do
    case $name in
        *==*) wanted=$name ;;
        *) wanted=$(grep -i "^$name==" "$here/constraints.txt") ;;
    esac
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 --platform manylinux_2_17_x86_64 \
        --platform manylinux2014_x86_64 -d "$1" "$wanted"
done
# Of bitsandbytes' eighteen libraries the host needs one.
zip -q -d "$1"/bitsandbytes-*.whl '*cuda118.so' '*cuda12?.so' '*cuda132.so' '*rocm*.so' '*xpu*.so'
