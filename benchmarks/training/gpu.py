"""Large shapes on GPUs, random weights: ours, a plain Trainer with PEFT on SDPA, or TRL by default; one a process.

::

    python -m benchmarks.training.gpu --shape 8b --method lora --compile     # Llama-8B, rank 16 on all linear layers
    python -m benchmarks.training.gpu --shape 1b --method full --way plain   # 1.24B shape, full fine-tuning
    python -m torch.distributed.run --nproc-per-node 2 -m benchmarks.training.gpu --shard --compile    # FSDP2

Packed sequences of 4,096 tokens, bfloat16. Prints one line of JSON: tokens a second after the first steps (all
processes together), the share of the matrix rate that the card gives in the same process, seconds of the first step
(with its compilation), peak memory, and the last loss. ``gpu_all.sh`` runs all ways; ``--way attention`` times torch's
kernels of attention at the shape. ``--shape tiny --device cpu`` tries the script itself.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from pagoda.core.settings import Settings
from pagoda.model.engines.transformers_child.checkpoint import Checkpoint
from pagoda.model.training.adapting import choose_hardware, four_bits
from pagoda.model.training.compiling import compile_layers
from pagoda.model.training.desk import FolderDesk, Group
from pagoda.model.training.encoding import Example
from pagoda.model.training.packing import Packed
from pagoda.model.training.preparing import Prepared
from pagoda.model.training.recipe import recipe_from
from pagoda.model.training.supervision import supervision_of
from pagoda.model.training.trainer import SupervisedTrainer
from pagoda.model.training.work import trainer_options
from tests.tiny_models import byte_tokenizer

SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 8},
}
KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
KV_HEADS = 8
GROUP = Group(int(os.environ.get("WORLD_SIZE", "1")), os.environ.get("RANK", "0") == "0")


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of the steps after the first few; ends the training after a limit."""

    def __init__(self, skipped: int, seconds: float) -> None:
        self._skipped = skipped
        self._limit = seconds
        self.began = 0.0
        self.first = 0.0
        self.seconds = 0.0
        self.steps = 0
        self.loss = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if state.global_step == 1:
            self.first = now - self.began
        if state.global_step == self._skipped:
            self.began = now
        elif state.global_step > self._skipped:
            self.seconds = now - self.began
            self.steps = state.global_step - self._skipped
            if self.seconds > self._limit and GROUP.count == 1:
                control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        self.loss = (logs or {}).get("loss", self.loss)


def vocabulary(args: argparse.Namespace) -> int:
    return 1024 if args.shape == "tiny" else 128256


def model_of(args: argparse.Namespace) -> Any:
    """Random weights: bfloat16 beneath adapters, float32 where all are trained."""
    torch.manual_seed(0)
    if args.checkpoint:
        while not (args.checkpoint / "model.safetensors").is_file():
            time.sleep(1)
        return LlamaForCausalLM.from_pretrained(
            args.checkpoint,
            dtype=torch.bfloat16,
            quantization_config=four_bits(choose_hardware(recipe_of(args)).precision),
            device_map={"": 0},
            use_cache=False,
        )
    config = LlamaConfig(
        vocab_size=vocabulary(args), num_key_value_heads=KV_HEADS, max_position_embeddings=8192,
        tie_word_embeddings=args.shape == "1b", rope_theta=500000.0, use_cache=False, attn_implementation="sdpa",
        bos_token_id=None, eos_token_id=None, **SHAPES[args.shape],
    )  # fmt: skip
    torch.set_default_dtype(torch.float32 if args.method == "full" else torch.bfloat16)
    with torch.device(args.device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model


def examples(args: argparse.Namespace, documents: int) -> list[Packed]:
    """Sequences of ``documents`` rows of equal length; every token is learnt."""
    draw = torch.Generator().manual_seed(1)
    found = []
    for number in range(args.steps * args.batch * GROUP.count):
        parts = []
        for part in range(documents):
            ids = tuple(torch.randint(0, vocabulary(args), (args.length // documents,), generator=draw).tolist())
            parts.append(Example(number * documents + part, ids, ids, ends=True))
        found.append(Packed(tuple(parts)))
    return found


def recipe_of(args: argparse.Namespace) -> Any:
    """What a user would write."""
    return recipe_from({
        "model": args.shape, "data": {"train": "random"}, "method": args.method, "loss_on": "all", "packing": True,
        "max_length": args.length, "steps": args.steps, "batch_size": args.batch, "learning_rate": 1e-5,
        "schedule": "constant", "device": args.device, "precision": "bfloat16", "checkpointing": args.checkpointing,
        "compile": args.compile, "shard": args.shard,
    })  # fmt: skip


def arguments(folder: str, args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Those of the peers: as ours where not their defaults."""
    return {
        "output_dir": folder, "max_steps": args.steps, "per_device_train_batch_size": args.batch, "bf16": True,
        "learning_rate": 1e-5, "save_strategy": "no", "logging_steps": 1, "report_to": [], "disable_tqdm": True,
        "use_cpu": args.device == "cpu", **more,
    }  # fmt: skip


def ours(args: argparse.Namespace, folder: str) -> Trainer:
    """The trainer of our recipe."""
    if args.liger:
        from liger_kernel.transformers import apply_liger_kernel_to_llama

        apply_liger_kernel_to_llama(cross_entropy=False, fused_linear_cross_entropy=False)
    recipe = recipe_of(args)
    sequences = tuple(examples(args, args.documents))
    rows = [part for each in sequences for part in each.parts]
    lengths = [each.length for each in sequences]
    report = supervision_of(rows, (), lengths, (), batch=args.batch, most=args.length, sort=True)
    options = trainer_options(
        recipe,
        FolderDesk(Path(folder), 1, Settings(home=Path(folder)), writes=GROUP.first),
        Checkpoint(model_of(args), byte_tokenizer(pad=True), Path(folder)),
        Prepared(sequences, (), (), report, ()),
        classes=0,
        hardware=choose_hardware(recipe),
        group=GROUP,
    )
    options["args"].save_strategy = "no"
    if args.breaks:
        compile_layers(options["model"], whole=False)
    return SupervisedTrainer(**options)


def plain(args: argparse.Namespace, folder: str) -> Trainer:
    """transformers' own, with PEFT."""
    data = [[token for part in each.parts for token in part.ids] for each in examples(args, 1)]
    model = model_of(args)
    if args.method == "lora":
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
        )
    more = {"activation_checkpointing": args.checkpointing, "optim": "adamw_torch_fused"}
    return Trainer(
        model=model,
        args=TrainingArguments(**arguments(folder, args, **more)),
        train_dataset=[{"input_ids": ids, "labels": ids} for ids in data],
        data_collator=lambda rows: {name: torch.tensor([row[name] for row in rows]) for name in rows[0]},
    )


def trl(args: argparse.Namespace, folder: str) -> Trainer:
    """TRL's, with its defaults."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [{"input_ids": [token for part in each.parts for token in part.ids]} for each in examples(args, 1)]
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    return SFTTrainer(
        model=model_of(args),
        args=SFTConfig(**arguments(folder, args, max_length=args.length)),
        train_dataset=Dataset.from_list(rows),
        processing_class=byte_tokenizer(pad=True),
        peft_config=config if args.method == "lora" else None,
    )


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Figures of one way."""
    clock = Clock(args.skipped, args.seconds)
    peak = matrix_rate() if args.device == "cuda" else 1.0
    with tempfile.TemporaryDirectory() as folder, ExitStack() as kernels:
        if args.kernel:
            kernels.enter_context(sdpa_kernel(KERNELS[args.kernel]))
        trainer = {"ours": ours, "plain": plain, "trl": trl}[args.way](args, folder)
        trainer.add_callback(clock)
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    tokens = clock.steps * args.batch * GROUP.count * args.length / clock.seconds
    return {
        "tokens_per_second": round(tokens, 1),
        "share": share(tokens / GROUP.count, args, peak),
        "matrix_tflops": round(peak, 1),
        "first_step_seconds": round(clock.first, 1),
        "step_seconds": round(clock.seconds / clock.steps, 4),
        "steps": clock.steps,
        "loss": round(clock.loss, 4),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if args.device == "cuda" else None,
    }


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
    parameters = shape["num_hidden_layers"] * layer + vocabulary(args) * shape["hidden_size"]
    passes = 6 if args.method == "full" else 4
    attention = 6 * shape["num_hidden_layers"] * shape["hidden_size"] * args.length / args.documents
    return round(float(tokens_a_second * (passes * parameters + attention) / peak / 1e12), 3)


def attention(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a layer's causal attention, forward and back, by kernel."""
    shape = SHAPES[args.shape]
    width = shape["hidden_size"] // shape["num_attention_heads"]
    heads = (shape["num_attention_heads"], KV_HEADS, KV_HEADS)
    query, key, value = (
        torch.randn(args.batch, each, args.length, width, device=args.device, dtype=torch.bfloat16, requires_grad=True)
        for each in heads
    )
    found = {}
    for name, kernel in KERNELS.items():
        taken: list[float] = []
        try:
            with sdpa_kernel(kernel):
                for _ in range(13):
                    began = time.perf_counter()
                    result = torch.nn.functional.scaled_dot_product_attention(
                        query, key, value, is_causal=True, enable_gqa=True
                    )
                    torch.autograd.backward(result.sum())
                    if args.device == "cuda":
                        torch.cuda.synchronize()
                    taken.append(time.perf_counter() - began)
        except RuntimeError as error:  # this kernel does not run here, which is a finding
            found[name] = " ".join(str(error).split())[:80]
            continue
        found[name] = str(round(sorted(taken[3:])[5] * 1000, 2))
    return {"milliseconds": found}


def main() -> None:
    """Measure one way; the first process prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--method", choices=("lora", "full", "qlora"), default="lora")
    parser.add_argument("--way", choices=("ours", "plain", "trl", "attention"), default="ours")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=25, help="at most")
    parser.add_argument("--skipped", type=int, default=5, help="steps before the clock")
    parser.add_argument("--seconds", type=float, default=20, help="of measured steps, at most")
    parser.add_argument("--documents", type=int, default=1, help="rows packed into a sequence of ours")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="of ours")
    parser.add_argument("--breaks", action="store_true", help="compiled layers need not be one graph each")
    parser.add_argument("--liger", action="store_true", help="of ours: Liger's kernels of norm, rotation, activation")
    parser.add_argument("--shard", action="store_true", help="of ours, under torchrun: FSDP2")
    parser.add_argument("--kernel", choices=KERNELS, help="of attention; otherwise torch chooses")
    parser.add_argument("--checkpoint", type=Path, help="of qlora: a checkpoint (benchmarks.gpu.checkpoint writes one)")
    args = parser.parse_args()
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    given = {name: value for name, value in vars(args).items() if value and name not in ("skipped", "seconds", "steps")}
    found = attention(args) if args.way == "attention" else measure(args)
    if GROUP.first:
        machine = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
        about = {"benchmark": "training-gpu", "machine": machine, "torch": torch.__version__, "processes": GROUP.count}
        print(json.dumps({**about, **given, **found}, default=str), flush=True)
    if GROUP.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
