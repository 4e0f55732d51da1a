"""transformers without a server: its continuous batching, or ``generate`` for one request after another.

``python -m benchmarks.gpu.library continuous|generate CHECKPOINT --requests N ...`` prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=("continuous", "generate"))
    parser.add_argument("checkpoint")
    parser.add_argument("--requests", type=int, required=True)
    parser.add_argument("--input-tokens", type=int, default=512)
    parser.add_argument("--output-tokens", type=int, default=256)
    args = parser.parse_args()
    found = {"continuous": continuous, "generate": one_by_one}[args.way](load(args.checkpoint), args)
    print(json.dumps(found))


def load(checkpoint: str) -> Any:
    """The model with random weights, made where it will run."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(checkpoint), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return model.eval()


def prompts(model: Any, args: argparse.Namespace, seed: int) -> list[list[int]]:
    """Random token ids; another seed shares no prefix."""
    draw = random.Random(seed)
    vocabulary = model.config.vocab_size
    return [[draw.randrange(1, vocabulary) for _ in range(args.input_tokens)] for _ in range(args.requests)]


def continuous(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """All requests at once; a first round of short answers warms the same batch manager, and is not counted."""
    from transformers import GenerationConfig

    config = GenerationConfig(max_new_tokens=args.output_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    warm = GenerationConfig(max_new_tokens=args.output_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    model.generate_batch(prompts(model, args, 1), generation_config=warm, persistent_manager=True, max_new_tokens=8)
    asked = prompts(model, args, 2)
    began = time.perf_counter()
    answers = model.generate_batch(asked, generation_config=config, persistent_manager=True)
    seconds = time.perf_counter() - began
    written = sum(len(answer.generated_tokens) for answer in answers.values())
    return figures(model, "continuous batching", len(answers), written, seconds)


def one_by_one(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    """``generate`` for each request by itself."""
    import torch

    def answer(ids: list[int], length: int) -> int:
        given = torch.tensor([ids], device=model.device)
        with torch.inference_mode():
            made = model.generate(
                given,
                attention_mask=torch.ones_like(given),
                max_new_tokens=length,
                min_new_tokens=length,
                do_sample=False,
                pad_token_id=0,
            )
        return int(made.shape[1]) - len(ids)

    asked = prompts(model, args, 2)
    answer(prompts(model, args, 1)[0], 8)
    began = time.perf_counter()
    written = sum(answer(ids, args.output_tokens) for ids in asked)
    return figures(model, "generate, one request at a time", len(asked), written, time.perf_counter() - began)


def figures(model: Any, way: str, requests: int, written: int, seconds: float) -> dict[str, Any]:
    """What is reported."""
    return {
        "way": way,
        "requests": requests,
        "seconds": round(seconds, 3),
        "output_tokens": written,
        "output_tokens_per_second": round(written / seconds, 1),
        "attention": model.config._attn_implementation,
        "device": str(model.device),
    }


if __name__ == "__main__":
    main()
