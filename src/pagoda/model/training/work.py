"""Supervised fine-tuning at work: what a run of the kind ``sft`` does, from the recipe to the model card."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import EarlyStoppingCallback, TrainingArguments, set_seed

from pagoda.core.errors import Conflict, InvalidRequest, ModelError, Unavailable
from pagoda.core.runs.files import write_json
from pagoda.core.runs.versions import versions
from pagoda.core.types import Json
from pagoda.model.catalog.checkpoints import find_checkpoint
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.engines.transformers_child.checkpoint import Checkpoint
from pagoda.model.export.folder import FOUR_BITS
from pagoda.model.training.adapting import Hardware, adapt, choose_hardware, load_base
from pagoda.model.training.card import model_card
from pagoda.model.training.checkpoints import Checkpoints, placing, step_of
from pagoda.model.training.compiling import compile_layers
from pagoda.model.training.desk import ALONE, Desk, Group
from pagoda.model.training.packing import Collator, Order, Rows, check_packing
from pagoda.model.training.plots import plot_training
from pagoda.model.training.preparing import Prepared, fingerprint, prepare, read_split, write_report
from pagoda.model.training.recipe import Recipe, grows_better
from pagoda.model.training.trainer import Reporter, SupervisedTrainer

ADAPTER, MODEL = "adapter", "model"
"""Folders under ``artifacts``: a PEFT adapter whose config names its base, or a whole checkpoint."""
PLOT, CARD = "training.png", "README.md"


def train(
    recipe: Recipe,
    desk: Desk,
    *,
    make: Callable[..., SupervisedTrainer] = SupervisedTrainer,
    told: Mapping[str, Json] | None = None,
    group: Group = ALONE,
) -> dict[str, Json]:
    """Train by a recipe; go on from the newest checkpoint where there is one. Gives the figures of the outcome.

    ``make`` makes the trainer where its loss is another; ``told`` is what the model card then says beside the recipe;
    ``group`` are the processes that do it together.
    """
    hardware = choose_hardware(recipe)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    desk.progress("reading", 0)
    split = read_split(recipe, desk.seed)
    path = find_checkpoint(open_shelf(desk.settings), recipe.model)
    desk.progress("loading", 0)
    set_seed(desk.seed)
    transformers.utils.logging.disable_progress_bar()
    base = load_base(path, recipe, hardware, split.labels)
    prepared = prepare(split, base.tokenizer, recipe)
    if group.first:
        write_report(prepared, desk.artifacts)
    report = prepared.report.to_json()
    desk.event("supervision", **report)
    options = trainer_options(recipe, desk, base, prepared, classes=len(split.labels), hardware=hardware, group=group)
    trainer = make(**options)
    trainer.remove_callback(transformers.PrinterCallback)
    before = _before(trainer, desk, prepared)
    with _in_memory(recipe):
        seconds, resumed = _fit(trainer, desk)
    desk.raise_if_cancelled()
    after = {name: value for name, value in trainer.assess().items()} if prepared.validation else {}
    steps = trainer.state.global_step
    if after:
        desk.metric(steps, **{f"final_{name}": value for name, value in after.items()})
    losses = [each["loss"] for each in trainer.state.log_history if "loss" in each]
    outcome: dict[str, Json] = {
        "steps": steps,
        "epochs": trainer.state.epoch,
        "loss": losses[-1] if losses else None,
        "before": before,
        "after": after,
        "best_step": trainer.state.best_global_step,
        "seconds": round(seconds, 3),
        "resumed_at": resumed,
        "seed": desk.seed,
        "device": hardware.device,
        "precision": str(hardware.precision).removeprefix("torch."),
        "library": "transformers" if recipe.method == "full" else "peft",
        "supervision": report,
        "base": str(path),
        "trainable": trainer.get_num_trainable_parameters(),
        "saved": str(desk.artifacts / (MODEL if recipe.method == "full" else ADAPTER)),
    }
    _save(trainer, recipe, desk, outcome, told or {})
    return outcome


def trainer_options(
    recipe: Recipe, desk: Desk, base: Checkpoint, prepared: Prepared, *, classes: int, hardware: Hardware, group: Group
) -> dict[str, Any]:
    """What a ``SupervisedTrainer`` is made of. Raises ``InvalidRequest`` for what model or processes cannot do."""
    a_step = recipe.batch_size * recipe.accumulation * group.count
    steps = max(1, math.ceil(len(prepared.train) / a_step))
    arguments = TrainingArguments(
        **_arguments(recipe, desk, hardware, steps, validated=bool(prepared.validation), group=group)
    )
    if arguments.parallel_mode == transformers.training_args.ParallelMode.NOT_DISTRIBUTED:
        arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device; several are torchrun's
    pad = base.tokenizer.pad_token_id
    if packs := recipe.packing and not classes:
        check_packing(base.model)
    callbacks: list[Any] = [Reporter(desk)]
    if recipe.patience and prepared.validation:
        callbacks.append(EarlyStoppingCallback(recipe.patience))
    lengths = [each.length for each in prepared.train]
    model = adapt(base.model, recipe, hardware.precision)
    if recipe.compile:
        # Neither bitsandbytes' layers nor FSDP2's hooks on one are one graph.
        compile_layers(model, whole=recipe.method != "qlora" and not recipe.shard)
    return {
        "kept": Checkpoints(desk.checkpoints, recipe.keep_checkpoints),
        "classes": classes,
        # Of a step, not of a batch: so the rows of a step are the same however many of them are computed at once.
        "order": Order(lengths, desk.seed, a_step if recipe.group_by_length else 0),
        "compiled": recipe.compile,
        "model": model,
        "args": arguments,
        "train_dataset": Rows(prepared.train),
        "eval_dataset": Rows(prepared.validation) if prepared.validation else None,
        "data_collator": Collator(pad, packed=packs, classes=bool(classes)),
        "processing_class": base.tokenizer,
        "callbacks": callbacks,
    }


def _arguments(
    recipe: Recipe, desk: Desk, hardware: Hardware, steps: int, *, validated: bool, group: Group
) -> dict[str, Any]:
    """The recipe in the words of transformers."""
    evaluates = recipe.evaluate_every or steps
    saves = recipe.save_every or evaluates
    if validated and saves % evaluates:
        raise InvalidRequest(
            f"save_every ({saves}) must be a multiple of evaluate_every ({evaluates}), so that the best checkpoint is "
            "one of those.",
            param="save_every",
        )
    if recipe.shard and group.count == 1:
        raise InvalidRequest(
            "shard spreads a model over processes, and there is only one: start it with torchrun (guide to training).",
            param="shard",
        )
    half = hardware.precision
    return {
        "output_dir": str(desk.checkpoints),
        "max_steps": recipe.steps or -1,
        "num_train_epochs": recipe.epochs,
        "per_device_train_batch_size": recipe.batch_size,
        "per_device_eval_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": min(recipe.warmup, 0.999),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "eval_strategy": "steps" if validated else "no",
        "eval_steps": evaluates,
        "save_strategy": "steps",
        "save_steps": saves,
        "save_total_limit": None,  # Checkpoints removes the old ones, and only after a new one is whole
        "load_best_model_at_end": validated,
        "metric_for_best_model": recipe.best_by,
        "greater_is_better": grows_better(recipe.best_by),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "seed": desk.seed,
        "data_seed": desk.seed,
        "use_cpu": hardware.device == "cpu",
        "bf16": half is torch.bfloat16,
        "fp16": half is torch.float16,
        "activation_checkpointing": recipe.checkpointing,
        "activation_checkpointing_kwargs": {"use_reentrant": False} if recipe.checkpointing else None,
        "fsdp": recipe.shard,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "dataloader_pin_memory": hardware.device == "cuda",
        "report_to": [],
        "disable_tqdm": True,
        "save_only_model": False,
        "restore_callback_states_from_checkpoint": True,  # of early stopping: how long it has been patient
    }


def _before(trainer: SupervisedTrainer, desk: Desk, prepared: Prepared) -> dict[str, float]:
    """How good the base is; measured once, however often the run is resumed.

    Raises ``Conflict`` where it is resumed with other rows: the curve would be another's.
    """
    known, rows = desk.load_state(), fingerprint(prepared)
    if known is not None:
        if known.get("rows", rows) != rows:
            raise Conflict(
                "The rows, or the tokens that they become, are not those that this training began with; it does not go "
                "on with others. Bring them back, or start anew.",
                code="other_rows",
            )
        return dict(known["before"])
    before = trainer.assess() if prepared.validation and not trainer.args.fsdp else {}
    if before:
        desk.metric(0, **before)
    desk.save_state({"before": before, "rows": rows})
    return before


def _fit(trainer: SupervisedTrainer, desk: Desk) -> tuple[float, int]:
    """How many seconds this attempt trained, and at which step it began."""
    kept = Checkpoints(desk.checkpoints, 1)
    if trainer.is_world_process_zero():
        kept.tidy()
    from_here = kept.newest()
    if from_here is not None:
        desk.event("resumed", checkpoint=from_here.name)
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(from_here) if from_here else None)
    return time.monotonic() - began, step_of(from_here) if from_here else 0


def _save(
    trainer: SupervisedTrainer, recipe: Recipe, desk: Desk, outcome: Mapping[str, Any], told: Mapping[str, Json]
) -> None:
    target = Path(outcome["saved"])
    if not trainer.is_world_process_zero():
        if trainer.args.fsdp:
            trainer.save_model(str(target))  # it gives its part of each tensor; the first process writes
        return
    with placing(target) as draft:
        trainer.save_model(str(draft))
        (draft / "training_args.bin").unlink(missing_ok=True)  # a pickle, which nobody needs to be given
        if recipe.method == "qlora":
            write_json(draft / FOUR_BITS, {"dtype": outcome["precision"]})
    plain: dict[str, Json] = recipe.model_dump(exclude={"search"}, exclude_defaults=True)
    full = recipe.model_dump(include={"method", "max_length", "data"})
    card = model_card(recipe.model, {**full, **plain, **told}, outcome, versions())
    (target / CARD).write_text(card, encoding="utf-8")
    try:
        plot_training(desk.directory / "metrics.jsonl", desk.artifacts / PLOT, f"{recipe.model}, {recipe.method}")
    except Unavailable as error:
        desk.event("no_plot", reason=error.message)


@contextmanager
def _in_memory(recipe: Recipe) -> Iterator[None]:
    """Turns running out of memory into a sentence that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not short:
            raise
        ways: Sequence[str] = [
            f"halve batch_size ({recipe.batch_size}) and double accumulation ({recipe.accumulation})",
            *([] if recipe.checkpointing else ["set checkpointing=true"]),
            f"lower max_length ({recipe.max_length})",
            *(["use method=lora"] if recipe.method == "full" else []),
        ]
        raise ModelError(
            f"The memory is too small for this recipe: {', or '.join(ways)}.", code="out_of_memory"
        ) from error
