"""The training of a student, on transformers' own ``Trainer``: only its loss is ours. torch, while it is used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.core.errors import InvalidRequest, ModelError, Unavailable
from pagoda.model.distillation.losses import Blend, loss_of, states_of
from pagoda.model.distillation.recipe import Recipe
from pagoda.model.distillation.rows import IGNORED, Row, encode, padded

Watch = Callable[[int, int, Mapping[str, float]], None]
"""Told of each step: its number, how many there are, and its figures. What it raises ends the training."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The models of a distillation; no teacher where its answers are learnt."""

    student: Any
    teacher: Any
    tokenizer: Any
    words: int
    """Entries of the vocabulary that both have."""


def load_pair(student: Path, teacher: Path | None) -> Pair:
    """Load both. Raises ``InvalidRequest`` where their vocabularies differ: ids would mean other words."""
    try:
        import torch

        from pagoda.model.engines.transformers_child.checkpoint import load_checkpoint  # noqa: PLC0415  (torch)
    except ImportError as error:
        raise Unavailable(
            f"Distilling needs {error.name}, which this install does not have: run `pip install 'pagoda-llm[train]'`.",
            code="not_installed",
            retryable=False,
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    own = load_checkpoint(student, embeds=False, device=device, dtype=torch.float32, trust=False)
    if own.tokenizer.eos_token_id is None:
        raise InvalidRequest(f"The tokenizer in {student} has no end of sequence, which the student could not learn.")
    words = own.model.get_output_embeddings().weight.shape[0]
    if teacher is None:
        return Pair(own.model, None, own.tokenizer, words)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    its = load_checkpoint(teacher, embeds=False, device=device, dtype=dtype, trust=False)
    check_vocabularies(own.tokenizer, its.tokenizer)
    rows = its.model.get_output_embeddings().weight.shape[0]
    its.model.requires_grad_(False)
    # Embeddings are often padded to other heights (151,936 and 152,064 rows of one family): no token lies there.
    return Pair(own.model, its.model, own.tokenizer, min(words, rows))


def check_vocabularies(student: Any, teacher: Any) -> None:
    """Raise ``InvalidRequest`` unless both tokenizers give every word the same id."""
    mine, its = student.get_vocab(), teacher.get_vocab()
    if mine == its:
        return
    strange = next(word for word in [*mine, *its] if mine.get(word) != its.get(word))
    raise InvalidRequest(
        f"Student and teacher have other vocabularies ({len(mine)} and {len(its)} tokens; {strange!r} is "
        f"{mine.get(strange)} and {its.get(strange)}), so that their distributions cannot be compared: distil with "
        "level: sequence, or choose a teacher of the same family.",
        param="teacher",
    )


def teach(pair: Pair, rows: Sequence[Row], recipe: Recipe, folder: Path, watch: Watch) -> dict[str, float]:
    """Train the student; checkpoints go to ``folder``, and the last one there is gone on from. Gives last figures.

    Raises ``ModelError`` when the loss is no number any more; the checkpoints before that stay.
    """
    import torch
    from transformers.trainer_utils import get_last_checkpoint

    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    figures: dict[str, float] = {}
    trainer = _trainer_class(pair, recipe)(
        model=pair.student,
        args=_arguments(recipe, folder),
        train_dataset=_usable(pair, rows, recipe),
        data_collator=lambda batch: padded(batch, pair.tokenizer.eos_token_id),
        callbacks=[_telling(figures, folder, watch)],
    )
    trainer.model_accepts_loss_kwargs = True  # the loss divides by the labelled tokens of the whole step itself
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    return figures


def _usable(pair: Pair, rows: Sequence[Row], recipe: Recipe) -> list[dict[str, list[int]]]:
    encoded = [encode(row, pair.tokenizer, recipe.max_length) for row in rows]
    idle = sum(all(label == IGNORED for label in row["labels"][1:]) for row in encoded)
    if idle:
        raise InvalidRequest(
            f"{idle} rows have nothing to learn within max_length {recipe.max_length}; raise it.", param="max_length"
        )
    return encoded


def _trainer_class(pair: Pair, recipe: Recipe) -> Any:
    """The library's trainer with a loss that is summed over the labelled tokens of the whole step."""
    import torch
    from transformers import Trainer

    blend = Blend(
        divergence=recipe.divergence,
        temperature=recipe.temperature,
        hard=recipe.hard,
        words=pair.words,
        chunk=recipe.chunk,
    )

    class Teaching(Trainer):  # type: ignore[misc]  # the library carries no types
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
            if pair.teacher is None:
                summed, count = _plain_loss(model(input_ids=ids, attention_mask=mask).logits, labels)
            else:
                with torch.no_grad():
                    its = states_of(pair.teacher, ids, mask)
                summed, count = loss_of(states_of(model, ids, mask), its, labels, blend)
            loss = summed / (num_items_in_batch if num_items_in_batch is not None else count)
            return (loss, None) if return_outputs else loss

    return Teaching


def _telling(figures: dict[str, float], folder: Path, watch: Watch) -> Any:
    """A callback that keeps the figures of each step, tells the watch, and ends a training that went astray."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):  # type: ignore[misc]  # the library carries no types
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]):
                raise ModelError(
                    f"The loss is {logs['loss']} at step {state.global_step}; lower learning_rate. Checkpoints before "
                    f"that are in {folder}.",
                    code="diverged",
                )
            figures.update(loss=logs["loss"], learning_rate=logs["learning_rate"])
            watch(state.global_step, state.max_steps, dict(figures))

    return Telling()


def _arguments(recipe: Recipe, folder: Path) -> Any:
    import torch
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup,
        save_steps=recipe.save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        seed=recipe.seed,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


def _plain_loss(logits: Any, labels: Any) -> tuple[Any, int]:
    import torch

    wanted = labels[:, 1:].reshape(-1)
    found = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
    summed = torch.nn.functional.cross_entropy(found, wanted, ignore_index=IGNORED, reduction="sum")
    return summed, int((wanted != IGNORED).sum())


def save_student(pair: Pair, folder: Path) -> None:
    """Save the student as a checkpoint with its tokenizer."""
    pair.student.save_pretrained(folder)
    pair.tokenizer.save_pretrained(folder)
