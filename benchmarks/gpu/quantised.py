"""Speed and memory of a Llama-8B shape in each torch form, on a GPU: prompts read, tokens written, bytes held.

``python -m benchmarks.gpu.quantised [--shape llama-8b] [--forms bf16,int8,int4]`` on the GPU host, with the extras
``train`` and ``quantize``. The weights are random (``checkpoint``): quality is measured by ``pagoda quantize`` on real
ones. ``--folder`` reads a checkpoint that is there, or will be. ``--shape tiny --device cpu`` tries the script itself.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu.checkpoint import SHAPES, make_checkpoint

READ, WRITTEN = 2048, 64


def load(folder: Path, form: str, device: str) -> Any:
    """The checkpoint in a form, on a device."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16
    options: dict[str, Any] = {}
    if form == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif form == "int4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    elif form != "bf16":
        raise SystemExit(f"There is no form {form}; there are bf16, int8, int4.")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map=device, **options).eval()


def timed(work: Callable[[], object], device: str, rounds: int) -> float:
    """Median seconds of several rounds, after one that is not counted."""
    import torch

    taken = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return sorted(taken[1:])[rounds // 2]


def figures(model: Any, form: str, length: int, rounds: int) -> dict[str, float | str]:
    """Figures of a loaded form; ``length`` tokens are read."""
    import torch

    device = model.device.type
    ids = torch.randint(0, model.config.vocab_size, (1, length), device=device)
    longer = {"min_new_tokens": WRITTEN, "max_new_tokens": WRITTEN, "do_sample": False, "pad_token_id": 0}
    with torch.inference_mode():
        reading = timed(lambda: model(ids, logits_to_keep=1), device, rounds)
        writing = timed(lambda: model.generate(input_ids=ids[:, :16], **longer), device, rounds)
    return {
        "form": form,
        "read_tokens_per_second": length / reading,
        "written_tokens_per_second": WRITTEN / writing,
        "weights_bytes": float(model.get_memory_footprint()),
        "peak_bytes": float(torch.cuda.max_memory_allocated()) if device != "cpu" else 0.0,
    }


def main() -> None:
    """Measure and print one JSON line."""
    import torch
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="llama-8b")
    parser.add_argument("--forms", default="bf16,int8,int4")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="with a checkpoint of benchmarks.gpu.checkpoint")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = args.folder or make_checkpoint(Path(place) / args.shape, SHAPES[args.shape], filled=True)
        while not (folder / "model.safetensors").is_file():
            time.sleep(1)
        length = min(READ, json.loads((folder / "config.json").read_text())["max_position_embeddings"] // 2)
        for form in args.forms.split(","):
            if args.device != "cpu":
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            rows.append(figures(load(folder, form, args.device), form, length, args.rounds))
            print(json.dumps(rows[-1]), flush=True)
    machine = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"benchmark": "quantised", "shape": args.shape, "machine": machine, **versions, "forms": rows}))


if __name__ == "__main__":
    main()
