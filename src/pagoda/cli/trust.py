"""``pagoda trust``: how sure one may be of an answer, and what sources say to claims."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.logic.retrieval.answering import SourcedAnswer
    from pagoda.logic.trust.checking import Checked, Checks
    from pagoda.logic.trust.desk import Scored, TrustDesk, Wish
    from pagoda.logic.trust.subject import Source


def register(commands: Any) -> None:
    """Add the command group."""
    from pagoda.logic.trust.subject import FAMILIES

    grouped = command_group(
        commands,
        "trust",
        help_="how sure an answer is, and what sources say to claims: score, check",
        about="How sure one may be of an answer, and whether sources bear claims out.",
        example='check "A key opens the door." --source handbook.md',
    )
    scoring = grouped(
        "score",
        run_score,
        "say how sure one may be of an answer; status 1 where it is below the bar or could not be judged",
        'score "A key." --question "What opens the door?" --source handbook.md',
    )
    scoring.add_argument("answer", metavar="ANSWER", help="the answer; - reads it from standard input")
    scoring.add_argument("--question", default="", help="what was asked")
    scoring.add_argument("--earlier", action="append", default=[], metavar="TEXT", help="an earlier answer of the talk")
    scoring.add_argument("--model", help="whose probabilities and samples count (default: the default chat model)")
    scoring.add_argument(
        "--family", action="append", choices=FAMILIES, help="one of the three alone; may be given again (default: all)"
    )
    add_policy(scoring)
    checking = grouped(
        "check",
        run_check,
        "hold claims against sources; status 1 unless all are supported",
        'check "A key opens the door." --collection handbook',
    )
    checking.add_argument("claims", metavar="TEXT", help="the claims, as sentences; - reads them from standard input")
    checking.add_argument("--question", default="", help="what the claims answer")
    for parser in (scoring, checking):
        parser.add_argument("--source", action="append", default=[], metavar="FILE", help="a text to hold it against")
        parser.add_argument("--collection", metavar="NAME", help="a collection to hold it against (pagoda rag)")
        parser.add_argument("--judge", default="local", metavar="MODEL", help="who judges claims (default: local)")
        parser.add_argument("--team", default="local", help="whose collections (default: this machine's own user)")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """The flags that say what becomes of an answer below the bar."""
    from pagoda.logic.trust.subject import ACTIONS

    parser.add_argument("--threshold", type=float, default=0.5, metavar="CHANCE", help="the bar (default: 0.5)")
    parser.add_argument("--below", choices=ACTIONS, default="keep", help="what becomes of an answer below it")
    parser.add_argument("--ask-model", default="", metavar="MODEL", help="the better model to ask, for --below ask")


def wish_from(args: argparse.Namespace, collection: str | None = None) -> Wish:
    """How the flags want an answer looked at, with sources from a collection. Raises ``InvalidRequest``."""
    from pagoda.logic.trust.desk import Wish
    from pagoda.logic.trust.policy import Policy
    from pagoda.logic.trust.subject import FAMILIES, LOCAL

    return Wish(
        judge=getattr(args, "judge", LOCAL),
        families=tuple(args.family) if getattr(args, "family", None) else FAMILIES,
        policy=Policy(threshold=args.threshold, action=args.below, model=args.ask_model),
        collection=collection,
    )


def run_score(args: argparse.Namespace) -> int:
    """Score an answer."""
    from pagoda.core.types import Call
    from pagoda.logic.trust.subject import Subject

    settings, wish = settings_from(args), wish_from(args, args.collection)
    subject = Subject(
        question=args.question,
        answer=_given(args.answer),
        sources=_sources(args),
        earlier=tuple(args.earlier),
        model=args.model or settings.defaults.chat,
    )
    scored = _at_desk(args, lambda desk: desk.score(subject, Call(tenant=args.team), wish))
    if args.json:
        print_json(scored.to_json())
    else:
        show_score(scored)
    return 0 if scored.outcome.sure else 1


def run_check(args: argparse.Namespace) -> int:
    """Check claims."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.types import Call

    text, sources, call = _given(args.claims), _sources(args), Call(tenant=args.team)
    if bool(sources) == (args.collection is not None):
        raise InvalidRequest("Say what the claims are held against: --source FILE, or --collection NAME.")
    options = {"question": args.question, "judge": args.judge}

    async def check(desk: TrustDesk) -> Checks:
        if args.collection is not None:
            return await desk.check_in(text, args.collection, call, **options)
        return await desk.check(text, sources, call, **options)

    checks: Checks = _at_desk(args, check)
    if args.json:
        print_json(checks.to_json())
    else:
        _show_checks(checks)
    return 0 if checks.supported else 1


def score_sourced(args: argparse.Namespace, answer: SourcedAnswer) -> Scored:
    """The score of an answer from a collection, by the flags of ``add_policy``."""
    from pagoda.core.types import Call

    policy = wish_from(args).policy
    scored: Scored = _at_desk(
        args, lambda desk: desk.score_sourced(args.question, answer, Call(tenant=args.team), policy)
    )
    return scored


def show_score(scored: Scored) -> None:
    """A score for people."""
    report, outcome = scored.report, scored.outcome
    found = report.confidence
    if found.value is None:
        sys.stdout.write("confidence: could not be judged\n")
    else:
        sys.stdout.write(f"confidence: {found.value:.2f} (plain mean {found.mean:.2f})\n")
    for signal in report.signals:
        said = f"not to be had: {signal.reason}" if signal.value is None else f"{signal.value:.2f}"
        sys.stdout.write(f"  {signal.family.replace('_', ' ')}: {said}\n")
    _show_checks(report.checks)
    for finding in report.findings:
        if finding.kind != "factual":  # those are told with the claims
            sys.stdout.write(f"{finding.kind}  {finding.start}-{finding.end}  {finding.text}\n    {finding.says}\n")
    if outcome.action == "abstain":
        sys.stdout.write(f"withheld: {outcome.answer}\n")
    elif outcome.action == "review":
        sys.stdout.write(f"sent to review: {outcome.review}\n")
    elif outcome.action == "ask":
        value = outcome.report.confidence.value
        sure = "could not be judged" if value is None else f"confidence {value:.2f}"
        sys.stdout.write(f"{outcome.model} was asked ({sure}): {outcome.answer}\n")


def _show_checks(checks: Checks) -> None:
    for each in checks.claims:
        sys.stdout.write(_told(each))
    if checks.cut is not None:
        sys.stdout.write(f"could not judge  from {checks.cut} on: there are more than {len(checks.claims)} claims\n")


def _told(checked: Checked) -> str:
    """A claim, its verdict, and where the evidence stands."""
    claim, judgement = checked.claim, checked.judgement
    lines = [f"{judgement.verdict or 'could not judge'}  {claim.start}-{claim.end}  {claim.text}"]
    if judgement.verdict is None:
        lines.append(f"    {judgement.reason}")
    for span in judgement.spans if judgement.verdict in ("supported", "contradicted") else ():
        start = span.source.start
        lines.append(
            f"    {span.source.name}:{start + span.start}-{start + span.end}  {span.source.text[span.start : span.end]}"
        )
    return "\n".join(lines) + "\n"


def _given(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _sources(args: argparse.Namespace) -> tuple[Source, ...]:
    """The files that were named, as their documents' text. Raises ``InvalidRequest`` for what cannot be read."""
    from pathlib import Path

    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.retrieval.reading import read_document
    from pagoda.logic.trust.subject import Source

    sources = []
    for name in args.source:
        try:
            data = Path(name).read_bytes()
        except OSError as error:
            raise InvalidRequest(f"{name} cannot be read: {error.strerror}.") from error
        sources.append(Source(name=name, text=read_document(name, data).text))
    return tuple(sources)


def _at_desk(args: argparse.Namespace, work: Callable[[TrustDesk], Awaitable[Any]]) -> Any:
    """What the desk of this home answers."""
    import asyncio
    import os

    from pagoda.application.trusting import home_trust

    async def run() -> Any:
        async with home_trust(settings_from(args), os.environ) as desk:
            return await work(desk)

    return asyncio.run(run())
