#!/bin/sh
# All of benchmarks/training/gpu.py that one card is asked, most wanted first, within ten minutes: `sh gpu.sh > lines.json`.
for options in \
    "--ways ours,plain --batch 2" \
    "--ways ours --batch 2 --compile" \
    "--ways ours --batch 4 --compile" \
    "--shape 1b --method full --ways ours,plain --batch 4" \
    "--shape 1b --method full --ways ours --batch 4 --compile" \
    "--ways trl --batch 2" \
    "--ways ours --batch 2 --liger" \
    "--ways ours --batch 2 --documents 8 --compile" \
    "--shape 1b --method full --ways ours --batch 8 --compile" \
    "--shape 1b --method full --ways trl --batch 4"
do
    timeout 150 python3 -m benchmarks.training.gpu --steps 20 $options || echo "{\"failed\": \"$options\", \"status\": $?}"
done
