"""``pagoda agents``: a model that acts through tools, step by step, seen live; resumed, approved and shown again."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pagoda.core.settings import Settings
    from pagoda.logic.agents.desk import Agents
    from pagoda.logic.agents.plan import AgentPlan


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``pagoda agents``."""
    add = command_group(
        subparsers,
        "agents",
        help_="have a model act through tools",
        about="Have a model act through tools, step by step. Every step is written down: a run that was killed "
        "goes on with `resume`, and no call with effects is made twice.",
        example='run "What is 37*41 minus 2015?" --tools calculator',
    )
    run = add("run", run_agent, "begin a run", 'run "今天是星期几？" --tools time_now --strategy react')
    run.add_argument("task", help="what is to be done")
    run.add_argument(
        "--tools", default="", metavar="A,B", help="the tools it may call: those of `pagoda tools list`, and sub-agents"
    )
    run.add_argument("--model", help="the model (default: the one that answers chats)")
    run.add_argument("--strategy", choices=("functions", "react"), default="functions", help="how it acts (functions)")
    run.add_argument("--first", choices=("auto", "required"), default="required", help="whether it must act at first")
    run.add_argument("--approve", default="", metavar="A,B", help="tools that need approval in this run as well")
    run.add_argument("--turns", type=int, default=8, metavar="N", help="turns of the model at most (8)")
    run.add_argument("--calls", type=int, default=16, metavar="N", help="calls at most (16)")
    run.add_argument(
        "--tokens", type=int, default=20_000, metavar="N", help="tokens at most, all turns together (20000)"
    )
    run.add_argument("--seconds", type=float, default=600.0, metavar="S", help="time at work at most (600)")
    run.add_argument("--money", type=float, metavar="X", help="most that it may cost, by the prices in settings (any)")
    run.add_argument("--max-tokens", type=int, default=256, metavar="N", help="length of a turn (256)")
    for name, what, function in (
        ("resume", "go on with a run that was stopped, killed or approved", resume_agent),
        ("show", "show a run from its steps; no model is asked", show_agent),
        ("cancel", "stop a run for good", cancel_agent),
    ):
        add(name, function, what, f"{name} agent-3f2c...").add_argument("id", metavar="RUN")
    approve = add("approve", approve_agent, "approve or refuse the calls that wait, and go on", "approve RUN")
    approve.add_argument("id", metavar="RUN")
    approve.add_argument("--step", type=int, metavar="N", help="only this call")
    approve.add_argument("--refuse", action="store_true", help="refuse instead")
    approve.add_argument("--reason", default="", help="why, for the model")
    add("list", list_agents, "list runs", "list")


def run_agent(args: argparse.Namespace) -> int:
    """``pagoda agents run``."""
    from pagoda.core.types import Call

    settings = settings_from(args)
    plan = _plan(args, settings)

    async def begin(agents: Agents) -> str:
        return (await agents.begin(plan, Call())).id

    return _watch(args, settings, begin)


def resume_agent(args: argparse.Namespace) -> int:
    """``pagoda agents resume``."""
    from pagoda.core.types import Call

    async def resume(agents: Agents) -> str:
        return (await agents.resume(args.id, Call(), tenant=None)).id

    return _watch(args, settings_from(args), resume)


def approve_agent(args: argparse.Namespace) -> int:
    """``pagoda agents approve``: decides, and goes on when nothing waits any more."""
    from pagoda.core.errors import Conflict
    from pagoda.core.types import Call

    async def decide(agents: Agents) -> str:
        decided = {"approve": not args.refuse, "by": "local", "reason": args.reason}
        await agents.decide(args.id, args.step, tenant=None, **decided)
        try:
            await agents.resume(args.id, Call(), tenant=None)
        except Conflict as error:  # another call waits, or somebody goes on with it
            sys.stderr.write(f"{error.message}\n")
        return str(args.id)

    return _watch(args, settings_from(args), decide)


def show_agent(args: argparse.Namespace) -> int:
    """``pagoda agents show``."""
    import asyncio

    from pagoda.application.agenting import home_records

    async def show() -> int:
        async with home_records(settings_from(args)) as agents:
            return await _tell(agents.events(args.id, tenant=None, follow=False), as_json=args.json)

    return asyncio.run(show())


def cancel_agent(args: argparse.Namespace) -> int:
    """``pagoda agents cancel``."""
    run = _asked(args, "cancel")
    print_json(run) if args.json else print(f"{run['id']} is {run['status']}.")
    return 0


def list_agents(args: argparse.Namespace) -> int:
    """``pagoda agents list``."""
    runs = _asked(args, "find")
    if args.json:
        print_json(runs)
        return 0
    for run in runs:
        print(f"{run['id']}  {run['status']:<11}  {run['task'][:80]}")
    return 0


def _asked(args: argparse.Namespace, what: str) -> Any:
    """What the records say or do; no model is asked."""
    import asyncio

    from pagoda.application.agenting import home_records

    async def ask() -> Any:
        async with home_records(settings_from(args)) as agents:
            if what == "cancel":
                return (await agents.cancel(args.id, tenant=None)).to_json()
            return [run.to_json() for run in await agents.find(tenant=None)]

    return asyncio.run(ask())


def _plan(args: argparse.Namespace, settings: Settings) -> AgentPlan:
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.agents.plan import AgentPlan, Limits

    if min(args.turns, args.calls, args.tokens, args.seconds, args.max_tokens) <= 0:
        raise InvalidRequest("--turns, --calls, --tokens, --seconds and --max-tokens must be above 0.")
    if args.money is not None and not 0 < args.money <= 1_000_000:
        raise InvalidRequest("--money must be above 0 and at most 1,000,000.")
    return AgentPlan(
        task=args.task,
        tools=tuple(name for name in args.tools.split(",") if name),
        model=args.model or settings.defaults.chat,
        strategy=args.strategy,
        first=args.first,
        approve=tuple(name for name in args.approve.split(",") if name),
        limits=Limits(turns=args.turns, calls=args.calls, tokens=args.tokens, seconds=args.seconds, money=args.money),
        max_tokens=args.max_tokens,
    )


def _watch(args: argparse.Namespace, settings: Settings, begin: Any) -> int:
    """Begin (or go on) and show what happens; Ctrl-C stops the work, which can be resumed."""
    import asyncio
    import os

    from pagoda.application.agenting import home_agents

    async def work() -> int:
        async with home_agents(settings, os.environ) as agents:
            run_id = await begin(agents)
            return await _tell(agents.events(run_id, tenant=None), as_json=args.json)

    return asyncio.run(work())


async def _tell(events: AsyncIterator[dict[str, Any]], *, as_json: bool) -> int:
    """Show events; 0 when the run is done or waits for approval."""
    import json

    status = 1
    async for event in events:
        if as_json:
            sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
        elif (line := _line(event)) is not None:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if event["type"] in ("run.done", "run.waiting"):
            status = 0
    return status


_CALLS = {
    "call.begun": "calls {call}",
    "call.waiting": "waits for approval: {call}",
    "call.refused": "refused by {by}: {call}",
    "call.uncertain": "may or may not have happened, and is not repeated: {call}",
    "call.dropped": "the same call as before, not made again: {call}",
}


def _line(event: dict[str, Any]) -> str | None:
    """An event for people."""
    match event["type"]:
        case "run.begun":
            return f"{event['run']}: {event['task']}"
        case "turn.begun" if event["limit"]:
            return f"[{event['step']}] must answer now: {event['limit']}"
        case "turn.done":
            said = event["problem"] or event["thought"] or (event["final"] or "")
            mark = "not valid: " if event["problem"] else ""
            return f"[{event['step']}] {mark}{said.strip()}" if said.strip() else None
        case "call.done":
            return (
                f"[{event['step']}] {'failed: ' if event['error'] else '= '}{_shown(event['error'] or event['result'])}"
            )
        case "run.done":
            return f"\n{event['answer']}"
        case "run.waiting":
            return f"\nThe run waits for approval: pagoda agents approve {event['run']} [--refuse]"
        case kind if kind in _CALLS:
            said = _CALLS[kind].format(call=f"{event['tool']} {_shown(event['arguments'])}", by=event.get("by"))
            return f"[{event['step']}] {said}"
        case kind if kind.startswith("run."):
            return f"\nThe run is {kind.removeprefix('run.')}. {event.get('error') or ''}".rstrip()
    return None


def _shown(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
