"""transformers' Trainer with our loss, our evaluation and our care for checkpoints. What is not here is as it is there.

The loss is the cross entropy summed over the supervised tokens of all micro-batches of a step and divided by their
number, so accumulated batches equal a large one whatever the lengths. Logits are computed only where a token is
supervised, and of plain heads never all at once (``head``).
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import Trainer, TrainerCallback

from pagoda.core.errors import ModelError
from pagoda.model.training.checkpoints import Checkpoints
from pagoda.model.training.desk import Desk
from pagoda.model.training.encoding import IGNORED
from pagoda.model.training.head import find_head
from pagoda.model.training.packing import Order


class SupervisedTrainer(Trainer):  # type: ignore[misc]  # transformers is read without types
    """Trains on batches of ``packing.Collator``."""

    loss_is_scaled_for_ga = True

    def __init__(
        self, *, kept: Checkpoints, classes: int, order: Order | None = None, compiled: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self._order = order
        self._kept = kept
        self._classes = classes
        self._seen: list[int] = []
        plain = self.accelerator.unwrap_model(self.model)
        inner = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
        self._keeps_logits = "logits_to_keep" in inspect.signature(inner.forward).parameters
        with self.accelerator.autocast():
            self._head = None if classes else find_head(inner, compiled=compiled)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The share of this micro-batch in the mean over all supervised tokens of the step.

        Raises ``ModelError`` naming the rows when it is not a number.
        """
        rows = [number for group in inputs.pop("rows") for number in group]
        labels = inputs.pop("labels")
        total, count = self.summed(model, inputs, labels)
        loss = total / (num_items_in_batch if num_items_in_batch is not None else count)
        if model.training:
            self._seen += rows
            self._check(loss.detach(), "loss")
            if num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # the gradients are averaged over them
        return (loss, {}) if return_outputs else loss

    def summed(self, model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss summed over the supervised tokens of a micro-batch, and how many they are. A kind of training that
        minimises something else says it here."""
        if self._head is not None:
            with self._head.learning(labels):
                return model(**inputs, use_cache=False).logits, labels[:, 1:].ne(IGNORED).sum()
        logits, targets = self._predicted(model, inputs, labels)
        total = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="sum")
        return total, targets.ne(IGNORED).sum()

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss a supervised token, perplexity, share of tokens that are the most probable ones, and of rows that are
        so entirely (equal to what greedy decoding writes); of a classification accuracy and macro F1."""
        metrics = self.assess(eval_dataset, metric_key_prefix)
        self.log(metrics)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def assess(self, data: Any = None, prefix: str = "eval") -> dict[str, float]:
        """``evaluate`` without telling anybody."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        sums = torch.zeros(5 + self._classes * self._classes, dtype=torch.float64)
        for batch in self.get_eval_dataloader(data):
            inputs = self._prepare_inputs(batch)
            inputs.pop("rows")
            labels = inputs.pop("labels")
            with self.accelerator.autocast():  # as in training, also before the trainer has prepared the model
                sums += self._tallied(model, inputs, labels)
        model.train(was_training)
        sums = self.accelerator.reduce(sums.to(self.args.device, torch.float32), "sum").double().cpu()
        loss, tokens, right, rows, whole = sums[:5].tolist()
        mean = loss / max(tokens, 1)
        if self._classes:
            table = sums[5:].reshape(self._classes, self._classes)
            return {f"{prefix}_loss": mean, f"{prefix}_accuracy": right / rows, f"{prefix}_f1": _macro_f1(table)}
        told = {"loss": mean, "perplexity": math.exp(min(mean, 700)), "token_accuracy": right / max(tokens, 1)}
        return {f"{prefix}_{name}": value for name, value in (told | {"exact": whole / rows}).items()}

    def _tallied(self, model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> torch.Tensor:
        """Loss, supervised tokens, right ones, rows, rows right entirely; then a table of true and told class."""
        logits, targets = self._predicted(model, inputs, labels, flat=False)
        counted = targets != IGNORED
        told = logits.argmax(-1)
        right = (told == targets) & counted
        loss = functional.cross_entropy(
            logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        whole = (right == counted).all(-1).sum() if targets.dim() > 1 else right.sum()
        sums = [loss, counted.sum(), right.sum(), torch.tensor(len(targets)), whole]
        head = torch.stack([each.double().cpu() for each in sums])
        if not self._classes:
            return head
        cells = (targets * self._classes + told).cpu()
        return torch.cat([head, torch.bincount(cells, minlength=self._classes**2).double()])

    def _predicted(
        self, model: Any, inputs: dict[str, Any], labels: torch.Tensor, *, flat: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and what they should say, at positions where any row is supervised: (rows, positions, vocabulary)."""
        if self._classes:
            return model(**inputs).logits, labels
        shifted = labels[:, 1:]
        if self._keeps_logits:
            places = (shifted != IGNORED).any(0).nonzero()[:, 0]
            logits = model(**inputs, use_cache=False, logits_to_keep=places).logits
            targets = shifted[:, places]
        else:
            logits, targets = model(**inputs, use_cache=False).logits[:, :-1], shifted
        return (logits.flatten(0, 1), targets.flatten()) if flat else (logits, targets)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self._order is None else self._order

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        first = 0 if self._classes else 1
        counts = [batch["labels"][..., first:].ne(IGNORED).sum() for batch in batch_samples]
        if not counts:
            return None
        count = torch.stack([each.to(device) for each in counts]).sum()
        return self.accelerator.gather(count).sum() if self.accelerator.num_processes > 1 else count

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and self.accelerator.scaler is None:  # a scaler of half precision expects infinities
            self._check(torch.as_tensor(norm), "gradient")
        self._seen = []
        return norm

    def _check(self, value: torch.Tensor, what: str) -> None:
        if torch.isfinite(value):
            return
        rows = ", ".join(map(str, sorted(self._seen)[:20]))
        best = self._kept.newest()
        kept = f"the checkpoint {best.name} is kept" if best else "no checkpoint was written yet"
        raise ModelError(
            f"The {what} is {value.item()} at step {self.state.global_step + 1}, in the batch of the rows {rows}; "
            f"{kept}. Look at these rows, or lower learning_rate or max_grad_norm.",
            code="diverged",
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        path = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if not self.is_world_process_zero():
            super()._save_checkpoint(model, trial)
            return
        with self._kept.writing(path):
            super()._save_checkpoint(model, trial)
        best = self.state.best_model_checkpoint
        self._kept.prune(Path(best) if best else None)


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells the run how far it is, and the training when to stop."""

    def __init__(self, context: Desk) -> None:
        self._context = context

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """A step is done."""
        if self._context.cancelled:  # saved first, so that a resumption goes on from here
            control.should_save = control.should_training_stop = True
        else:
            self._context.progress("training", state.global_step, state.max_steps)
        return control

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Numbers of a step."""
        told = {name: value for name, value in (logs or {}).items() if name in _TOLD or name.startswith("eval_")}
        if told and state.is_world_process_zero:
            self._context.metric(state.global_step, **told)


_TOLD = ("loss", "grad_norm", "learning_rate")


def _macro_f1(table: torch.Tensor) -> float:
    right = table.diagonal()
    together = table.sum(0) + table.sum(1)
    scores = torch.where(together > 0, 2 * right / together.clamp(min=1), torch.ones_like(right))
    return float(scores.mean())
