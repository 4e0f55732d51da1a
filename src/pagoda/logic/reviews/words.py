"""The words of reviews: why an answer is in the queue, what people decide, and how it ends."""

from __future__ import annotations

from typing import Literal, TypeAlias

Decision: TypeAlias = Literal["approve", "edit", "reject"]
Reason: TypeAlias = Literal["complaint", "confidence", "safety", "sample", "hold"]
State: TypeAlias = Literal["waiting", "approved", "edited", "rejected"]
