"""Large shapes on one GPU, random weights: ours, a plain Trainer with PEFT on SDPA, and TRL with its defaults, in turn.

::

    python -m benchmarks.training.gpu --shape 8b --method lora     # Llama-8B shape, rank 16 on all linear layers
    python -m benchmarks.training.gpu --shape 1b --method full     # 1.24B shape, full fine-tuning

Packed sequences of 4,096 tokens, bfloat16. Prints tokens a second of each way, and the share of the matrix rate that
the card gives in the same run. Not run yet: no figure of it is claimed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from pagoda.model.training.checkpoints import Checkpoints
from pagoda.model.training.encoding import Example
from pagoda.model.training.packing import Collator, Packed, Rows
from pagoda.model.training.trainer import SupervisedTrainer

LENGTH, SKIPPED = 4096, 5
SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
}
VOCABULARY = 128256


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of the steps after the first few."""

    def __init__(self) -> None:
        self.began = 0.0
        self.seconds = 0.0
        self.steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        torch.cuda.synchronize()
        if state.global_step == SKIPPED:
            self.began = time.perf_counter()
        elif state.global_step > SKIPPED:
            self.seconds = time.perf_counter() - self.began
            self.steps = state.global_step - SKIPPED


def model_of(shape: str, method: str, *, checkpointing: bool) -> Any:
    """Random weights: bfloat16 beneath adapters, float32 where all are trained."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_key_value_heads=8, max_position_embeddings=8192, tie_word_embeddings=shape == "1b",
        rope_theta=500000.0, use_cache=False, attn_implementation="sdpa", **SHAPES[shape],
    )  # fmt: skip
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16 if method == "lora" else torch.float32)
    if method == "lora":
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        )
        if checkpointing:
            model.enable_input_require_grads()
    return model


def examples(count: int, documents: int) -> list[Packed]:
    """Sequences of ``documents`` rows of equal length; every token is learnt."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(count):
        parts = []
        for part in range(documents):
            ids = tuple(torch.randint(0, VOCABULARY, (LENGTH // documents,), generator=draw).tolist())
            parts.append(Example(number * documents + part, ids, ids, ends=True))
        found.append(Packed(tuple(parts)))
    return found


def arguments(folder: str, args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": folder, "max_steps": args.steps, "per_device_train_batch_size": args.batch, "bf16": True,
        "learning_rate": 1e-5, "save_strategy": "no", "logging_steps": 10, "report_to": [], "disable_tqdm": True,
        "activation_checkpointing": args.checkpointing, "optim": "adamw_torch_fused", **more,
    }  # fmt: skip


def ours(args: argparse.Namespace, folder: str) -> float:
    clock = Clock()
    trainer = SupervisedTrainer(
        kept=Checkpoints(Path(folder), 1),
        classes=0,
        model=model_of(args.shape, args.method, checkpointing=args.checkpointing),
        args=TrainingArguments(**arguments(folder, args, remove_unused_columns=False, torch_compile=args.compile)),
        train_dataset=Rows(examples(args.steps * args.batch, args.documents)),
        data_collator=Collator(0, packed=args.documents > 1),
        callbacks=[clock],
    )
    trainer.train()
    return rate(clock, args)


def plain(args: argparse.Namespace, folder: str) -> float:
    clock = Clock()
    data = [
        {"input_ids": [token for part in each.parts for token in part.ids]}
        for each in examples(args.steps * args.batch, 1)
    ]
    data = [{**row, "labels": row["input_ids"]} for row in data]
    model = model_of(args.shape, args.method, checkpointing=args.checkpointing)
    Trainer(
        model=model,
        args=TrainingArguments(**arguments(folder, args)),
        train_dataset=data,
        data_collator=lambda rows: {name: torch.tensor([row[name] for row in rows]) for name in rows[0]},
        callbacks=[clock],
    ).train()
    return rate(clock, args)


def trl(args: argparse.Namespace, folder: str) -> float:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    clock = Clock()
    rows = [
        {"input_ids": [token for part in each.parts for token in part.ids]}
        for each in examples(args.steps * args.batch, 1)
    ]
    given = arguments(folder, args, max_length=LENGTH)
    del given["activation_checkpointing"], given["optim"]  # its own defaults
    trainer = SFTTrainer(
        model=model_of(args.shape, args.method, checkpointing=True),
        args=SFTConfig(**given),
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(),
        callbacks=[clock],
    )
    trainer.train()
    return rate(clock, args)


def rate(clock: Clock, args: argparse.Namespace) -> float:
    """Tokens a second."""
    return round(clock.steps * int(args.batch) * LENGTH / clock.seconds, 1)


def matrix_rate() -> float:
    """TFLOP/s of the card on one large bfloat16 product."""
    left, right = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(10):
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(50):
        left @ right
    torch.cuda.synchronize()
    return 50 * 2 * 8192**3 / (time.perf_counter() - began) / 1e12


def share(tokens_a_second: float, args: argparse.Namespace, peak: float) -> float:
    """Of the matrix rate: 6 operations a parameter and token, 4 beneath adapters, and those of causal attention."""
    shape = SHAPES[args.shape]
    layer = shape["hidden_size"] ** 2 * 2.5 + 3 * shape["hidden_size"] * shape["intermediate_size"]
    parameters = shape["num_hidden_layers"] * layer + VOCABULARY * shape["hidden_size"]
    passes = 4 if args.method == "lora" else 6
    attention = 6 * shape["num_hidden_layers"] * shape["hidden_size"] * LENGTH / args.documents
    return round(float(tokens_a_second * (passes * parameters + attention) / peak / 1e12), 3)


def _tokenizer() -> Any:
    from tests.trainable_models import byte_tokenizer

    return byte_tokenizer(pad=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--method", choices=("lora", "full"), default="lora")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--documents", type=int, default=1, help="rows packed into a sequence of ours")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="for ours")
    parser.add_argument("--ways", default="ours,plain,trl")
    args = parser.parse_args()
    peak = matrix_rate()
    found: dict[str, Any] = {"shape": args.shape, "method": args.method, "matrix_tflops": round(peak, 1)}
    for way in args.ways.split(","):
        with tempfile.TemporaryDirectory() as folder:
            torch.cuda.reset_peak_memory_stats()
            tokens = {"ours": ours, "plain": plain, "trl": trl}[way](args, folder)
        memory = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        found[way] = {"tokens_per_second": tokens, "share": share(tokens, args, peak), "peak_gib": memory}
        torch.cuda.empty_cache()
    print(json.dumps({"benchmark": "training-gpu", "device": torch.cuda.get_device_name(), **found}))


if __name__ == "__main__":
    main()
