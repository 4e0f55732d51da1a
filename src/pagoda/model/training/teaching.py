"""A student's training: that of ``work``, with another loss where a teacher's distribution is learnt."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from pagoda.core.errors import InvalidRequest, StoreError, Unavailable
from pagoda.core.types import Json
from pagoda.model.engines.transformers_child.checkpoint import Checkpoint, load_checkpoint, resolve_device
from pagoda.model.training.desk import Desk
from pagoda.model.training.distillation import Recipe
from pagoda.model.training.divergence import Blend, loss_of, states_of
from pagoda.model.training.inspecting import refuse_other_words
from pagoda.model.training.recipe import Data
from pagoda.model.training.recipe import Recipe as Training
from pagoda.model.training.trainer import SupervisedTrainer
from pagoda.model.training.work import train


def teach(recipe: Recipe, data: Path, desk: Desk) -> dict[str, Json]:
    """Train the student on answered rows; go on where an earlier attempt was. Gives what ``train`` gives.

    Raises ``InvalidRequest`` where the vocabularies differ: ids would mean other words.
    """
    told: dict[str, Json] = {"distillation": recipe.model_dump(mode="json")}
    if recipe.level == "sequence":
        return train(training_of(recipe, data), desk, told=told)
    teacher = _load_teacher(Path(recipe.teacher))
    blend = Blend(divergence=recipe.divergence, temperature=recipe.temperature, hard=recipe.hard, chunk=recipe.chunk)
    make = partial(TaughtTrainer, teacher=teacher, blend=blend)
    return train(training_of(recipe, data), desk, make=make, told=told)


def training_of(recipe: Recipe, data: Path) -> Training:
    """The training that a distillation is: of all weights in single precision, on the last answer of each row."""
    return Training(
        model=recipe.student,
        data=Data(train=str(data), limit=recipe.limit),
        method="full",
        loss_on="last",
        precision="float32",
        max_length=recipe.max_length,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        accumulation=recipe.accumulation,
        learning_rate=recipe.learning_rate,
        warmup=recipe.warmup,
        save_every=recipe.save_every,
        threads=recipe.threads,
        seed=recipe.seed,
    )


class TaughtTrainer(SupervisedTrainer):
    """Minimises how far the student's distributions are from a teacher's."""

    def __init__(self, *, teacher: Checkpoint, blend: Blend, **options: Any) -> None:
        refuse_other_words(options["processing_class"], teacher.tokenizer)
        super().__init__(**options)
        for model, whose in ((self.model, "student"), (teacher.model, "teacher")):
            _check_head(model, whose)
        self._teacher = teacher.model
        self._blend = blend

    def summed(self, model: Any, inputs: dict[str, Any], labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The blend over the supervised tokens."""
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        with torch.no_grad():
            its = states_of(self._teacher, ids, mask)
        total, count = loss_of(states_of(model, ids, mask), its, labels, self._blend)
        return total, torch.tensor(count)


@torch.no_grad()
def _check_head(model: Any, whose: str) -> None:
    """Refuse families that scale or cap what their head gives (Gemma 2, Cohere, Granite): chunks know only the head."""
    ids = torch.tensor([[1, 2, 3, 4]], device=model.device)
    mask = torch.ones_like(ids)
    states, head = states_of(model, ids, mask)
    if not torch.allclose(head(states).float(), model(input_ids=ids, attention_mask=mask).logits.float(), atol=1e-3):
        raise InvalidRequest(
            f"The {whose} is a {model.config.model_type}, whose logits are more than its head's, which is not "
            "distilled; distil with level: sequence.",
            param=whose,
        )


def _load_teacher(path: Path) -> Checkpoint:
    device = resolve_device("auto")
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        teacher = load_checkpoint(path, embeds=False, device=device, dtype=dtype, trust=False)
    except (StoreError, Unavailable) as error:  # whose message is a part of a sentence
        raise StoreError(f"The teacher in {path} cannot be used: {error.message}.", code=error.code) from error
    teacher.model.requires_grad_(False)
    return teacher
