"""What people see of a run, told from its steps alone: live and again later, without a model, in the same words."""

from __future__ import annotations

from typing import Any

from pagoda.logic.agents.plan import Step


def events_of(step: Step) -> list[dict[str, Any]]:
    """The events of a step so far; of one that goes on there are more later, and those that were told stay."""
    return _turn(step) if step.kind == "model" else _call(step)


def _turn(step: Step) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "turn.begun", "step": step.place, "purpose": step.input["purpose"], "limit": step.input.get("limit")}
    ]
    if step.output is not None:
        words = ("thought", "text", "calls", "final", "problem", "tokens")
        about = {word: step.output[word] for word in words} | {"money": step.output.get("money", 0)}
        events.append({"type": "turn.done", "step": step.place, **about})
    return events


def _call(step: Step) -> list[dict[str, Any]]:
    about = {"step": step.place, "tool": step.input["tool"], "arguments": step.input["arguments"]}
    output = step.output or {}
    events: list[dict[str, Any]] = [{"type": "call.planned", **about}]
    if step.input.get("needs_approval"):
        events.append({"type": "call.waiting", **about})
        if step.state == "waiting":
            return events
        if step.state == "refused":
            return [*events, {"type": "call.refused", **about, "by": output.get("by"), "reason": output.get("reason")}]
        if step.state != "dropped":
            events.append({"type": "call.approved", **about, "by": step.input.get("approved_by")})
    if step.begun is not None:
        events.append({"type": "call.begun", **about})
    if step.state in ("done", "uncertain", "dropped"):
        word = {"done": "call.done", "uncertain": "call.uncertain", "dropped": "call.dropped"}[step.state]
        told = {"result": output.get("result"), "error": output.get("error"), "reason": output.get("reason")}
        events.append({"type": word, **about, **told})
    return events
