"""``pagoda reviews``: the queue of answers that people look at, and training data made of what they say."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from pagoda.cli.context import command_group, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.logic.reviews.book import Review, ReviewBook
    from pagoda.logic.reviews.standing import Standing

T = TypeVar("T")


def register(commands: Any) -> None:
    """Add the command group."""
    add_one = command_group(
        commands,
        "reviews",
        help_="the review queue: list, show, claim, decide, agreement, judge, export",
        about="Look at answers that somebody complained about, that were flagged, sampled or held back.",
        example="claim",
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], does: str, example: str) -> argparse.ArgumentParser:
        parser = add_one(name, run, does, example)
        parser.add_argument("--team", default="local", help="whose answers (default: local, calls without a key)")
        return parser

    listing = add("list", run_list, "list reviews, those first that waited longest", "list --state waiting")
    listing.add_argument("--state", choices=("waiting", "approved", "edited", "rejected"), help="only these")
    listing.add_argument(
        "--reason",
        choices=("complaint", "confidence", "safety", "sample", "hold", "approval"),
        help="only those here for this",
    )
    listing.add_argument("--limit", type=int, default=50, metavar="N", help="reviews at most (default 50)")
    showing = add("show", run_show, "show a review with all that was said of it", "show rev-...")
    showing.add_argument("review", metavar="REVIEW", help="its id")
    claiming = add("claim", run_claim, "get a review that others leave alone meanwhile", "claim")
    claiming.add_argument("review", metavar="REVIEW", nargs="?", help="this one (default: the oldest that waits)")
    _add_reviewer(claiming)
    deciding = add("decide", run_decide, "approve, edit or reject an answer", 'decide rev-... reject --reason "wrong"')
    deciding.add_argument("review", metavar="REVIEW", help="its id")
    deciding.add_argument("decision", choices=("approve", "edit", "reject"), help="what is to become of the answer")
    deciding.add_argument("--reason", metavar="TEXT", help="why; needed to reject")
    deciding.add_argument("--edited", metavar="TEXT", help="the answer as it should be; needed to edit")
    _add_reviewer(deciding)
    add("agreement", run_agreement, "show how far reviewers, and judging models with them, agree", "agreement")
    judging = add(
        "judge", run_judge, "have a model judge what people decided, to see what it is worth", "judge --model m"
    )
    judging.add_argument("--model", required=True, metavar="NAME", help="the judging model, by id or alias")
    judging.add_argument("--criteria", metavar="TEXT", help="what it is to look for (default: quality.criteria)")
    judging.add_argument("--limit", type=int, default=100, metavar="N", help="reviews at most (default 100)")
    exporting = add("export", run_export, "write training data of feedback and reviews", "export --form preference")
    exporting.add_argument(
        "--form", choices=("sft", "preference"), default="sft", help="answers to imitate, or pairs (default sft)"
    )


def _add_reviewer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reviewer", metavar="NAME", default=getpass.getuser(), help="who reviews (default: you)")


def run_list(args: argparse.Namespace) -> int:
    """List reviews."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.reviews.view import review_json

    if args.limit < 1:
        raise InvalidRequest("--limit must be a whole number above 0.")
    found = _asked(args, lambda book: book.find(args.team, state=args.state, reason=args.reason, limit=args.limit))
    if args.json:
        print_json([review_json(review) for review in found])
        return 0
    if not found:
        sys.stdout.write("There is nothing to review.\n")
    for review in found:
        sys.stdout.write(_line(review) + "\n")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show a review."""
    return _show(args, _asked(args, lambda book: book.get(args.team, args.review)))


def run_claim(args: argparse.Namespace) -> int:
    """Claim a review."""
    seconds = settings_from(args).reviews.claim_seconds
    found = _asked(args, lambda book: book.claim(args.team, args.reviewer, seconds, args.review))
    if found is not None:
        return _show(args, found)
    if args.json:
        print_json(None)
    else:
        sys.stdout.write("There is nothing to review.\n")
    return 0


def run_decide(args: argparse.Namespace) -> int:
    """Decide on an answer."""
    from pagoda.logic.reviews.book import Ruling

    ruling = Ruling(decision=args.decision, reason=args.reason, edited=args.edited)
    found = _asked(args, lambda book: book.decide(args.team, args.review, args.reviewer, ruling))
    run_id = _followed(args, found) if "approval" in found.record.reasons else None
    if args.json:
        return _show(args, found)
    said = sum(each.decision is not None and not each.judge for each in found.judgements)
    left = f"; {found.record.needed - said} more to judge" if found.record.state == "waiting" else ""
    sys.stdout.write(f"{found.record.id} is {found.record.state}{left}.\n")
    if run_id is not None:
        sys.stdout.write(f"Its agent goes on with `pagoda agents resume {run_id}`.\n")
    return 0


def _followed(args: argparse.Namespace, review: Review) -> str | None:
    import asyncio

    from pagoda.application.agenting import home_records

    async def follow() -> str | None:
        async with home_records(settings_from(args)) as agents:
            return await agents.follow_review(review, args.reviewer, tenant=args.team)

    return asyncio.run(follow())


def run_judge(args: argparse.Namespace) -> int:
    """Have a model judge what people decided."""
    import asyncio
    import os

    from pagoda.application.judging import Panel, judge_reviews

    settings = settings_from(args)
    panel = Panel(args.team, args.model, args.criteria or settings.quality.criteria, args.limit)
    count, found = asyncio.run(judge_reviews(settings, os.environ, panel))
    if not args.json:
        sys.stdout.write(f"{args.model} judged {count} reviews.\n")
    return _show_standing(args, found)


def run_agreement(args: argparse.Namespace) -> int:
    """Show agreement."""
    from pagoda.logic.reviews.standing import standing

    return _show_standing(args, standing(_asked(args, lambda book: book.judged(args.team))))


def _show_standing(args: argparse.Namespace, found: Standing) -> int:
    from pagoda.logic.reviews.view import standing_json

    if args.json:
        print_json(standing_json(found))
        return 0
    sys.stdout.write(
        f"{found.items} answers were judged by several people; Krippendorff's alpha {_figure(found.alpha)}\n"
    )
    for pair in found.pairs:
        both = " and ".join(pair.reviewers)
        sys.stdout.write(f"  {both}: {pair.items} together, Cohen's kappa {_figure(pair.kappa)}\n")
    for judge in found.judges:
        sys.stdout.write(
            f"  {judge.judge} beside people: {judge.items} together, agrees on {_figure(judge.agreement)}, "
            f"kappa {_figure(judge.kappa)}, could not judge {judge.unsure}\n"
        )
    return 0


def run_export(args: argparse.Namespace) -> int:
    """Write training data as JSON lines."""
    import asyncio
    import json

    from pagoda.application.keeping import nothing, with_records
    from pagoda.logic.experiments.book import ExperimentBook
    from pagoda.logic.feedback.book import FeedbackBook
    from pagoda.logic.feedback.training import export
    from pagoda.logic.reviews.book import ReviewBook

    found = asyncio.run(
        with_records(
            settings_from(args),
            lambda opened: export(
                FeedbackBook(opened, ExperimentBook(opened), nothing, nothing), ReviewBook(opened), args.team, args.form
            ),
        )
    )
    for row in found.rows:
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
    if found.without_text:
        sys.stderr.write(
            f"{found.without_text} more have no text: set log.content, or send messages and answer with the feedback.\n"
        )
    return 0


def _asked(args: argparse.Namespace, ask: Callable[[ReviewBook], Awaitable[T]]) -> T:
    import asyncio

    from pagoda.application.keeping import with_records
    from pagoda.logic.reviews.book import ReviewBook

    return asyncio.run(with_records(settings_from(args), lambda opened: ask(ReviewBook(opened))))


def _show(args: argparse.Namespace, review: Review) -> int:
    import json

    from pagoda.logic.reviews.view import review_json

    told = review_json(review)
    if args.json:
        print_json(told)
        return 0
    sys.stdout.write(_line(review) + "\n")
    for reason, detail in told["reasons"].items():
        sys.stdout.write(f"  {reason}: {json.dumps(detail, ensure_ascii=False)}\n")
    asked = told["prompt"] or {}
    for message in asked.get("messages", [{"role": "prompt", "content": asked["text"]}] if "text" in asked else []):
        sys.stdout.write(f"  {message['role']}: {message['content']}\n")
    sys.stdout.write(f"  answer: {told['answer'] if told['answer'] is not None else told['text']}\n")
    for each in told["judgements"]:
        said = each["decision"] or f"claimed until {each['claimed_until']}"
        rest = "".join(f"  {part}" for part in (each["reason"], each["edited"]) if part)
        sys.stdout.write(f"  {each['reviewer']}: {said}{rest}\n")
    return 0


def _line(review: Review) -> str:
    record = review.record
    parts = (record.id, record.state + (" (held)" if record.held else ""), ",".join(record.reasons), record.request_id)
    return "  ".join(parts)


def _figure(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"
