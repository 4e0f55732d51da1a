"""The words of reviews: why an answer is in the queue, what people decide, and how it ends."""

from __future__ import annotations

from typing import Literal, TypeAlias

Decision: TypeAlias = Literal["approve", "edit", "reject"]
Claim: TypeAlias = Literal["complaint", "confidence", "safety", "sample", "hold"]
"""Why somebody may put an answer into the queue."""
Reason: TypeAlias = Literal[Claim, "approval"]
"""Why something is in the queue; ``approval``: an agent waits until its call is allowed."""
State: TypeAlias = Literal["waiting", "approved", "edited", "rejected"]
