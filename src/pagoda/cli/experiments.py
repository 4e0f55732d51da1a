"""``pagoda experiments``: variants compared on those who ask, in the records; a running service follows in a second."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from pagoda.cli.context import command_group, print_json, settings_from

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.logic.experiments.book import Experiment, ExperimentBook
    from pagoda.logic.experiments.design import Design, Guardrail, Target, Variant

T = TypeVar("T")


def register(commands: Any) -> None:
    """Add the command group."""
    add = command_group(
        commands,
        "experiments",
        help_="online experiments: create, list, show, start, stop, ramp, plan",
        about="Compare variants of a model alias or of a prompt's label on those who ask.",
        example="show shorter",
    )
    example = "create shorter --prompt summary --variant now=3 --variant short=4 --metric thumb --start"
    _add_create(add("create", run_create, "make an experiment", example))
    _add_team(add("list", run_list, "list experiments", "list"))
    _add_name(add("show", run_show, "show an experiment with its verdict up to now", "show shorter"))
    _add_name(add("start", run_start, "let an experiment run", "start shorter"))
    _add_name(add("stop", run_stop, "stop an experiment: everybody gets the target's own again", "stop shorter"))
    ramp = add("ramp", run_ramp, "open an experiment to another share of units", "ramp shorter 0.5")
    _add_name(ramp)
    ramp.add_argument("exposure", type=float, metavar="SHARE", help="share of all units that take part")
    ramp.add_argument("--shares", metavar="A=S,B=S", help="the variants' shares among the units that are new")
    plan = add("plan", run_plan, "tell how many outcomes it takes", "plan --baseline 0.3 --effect 0.05")
    plan.add_argument("--baseline", type=float, required=True, help="the control's mean, between 0 and 1")
    plan.add_argument("--effect", type=float, required=True, help="smallest difference worth knowing")
    plan.add_argument("--alpha", type=float, default=0.05, help="chance of a false winner (default 0.05)")
    plan.add_argument("--power", type=float, default=0.8, help="chance of finding the effect (default 0.8)")
    plan.add_argument("--deviation", type=float, help="standard deviation of an outcome (default: of yes and no)")


def _add_team(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--team", default="local", help="whose it is (default: local, calls without a key)")


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="EXPERIMENT", help="id or name")
    _add_team(parser)


def _add_create(parser: argparse.ArgumentParser) -> None:
    _add_name(parser)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--model", metavar="NAME", help="the model's id or alias that callers name")
    target.add_argument("--prompt", metavar="NAME[@LABEL]", help="the prompt that callers name (label: production)")
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME=WHAT[:SHARE]",
        help="a variant, the control first: its model, or version of the prompt; shares are equal without",
    )
    parser.add_argument("--metric", required=True, metavar="NAME", help="what decides: thumb, score, latency, ...")
    parser.add_argument("--down", action="store_true", help="less of the metric is better")
    parser.add_argument("--most", type=float, default=1.0, help="largest outcome of the metric (default 1)")
    parser.add_argument(
        "--guard",
        action="append",
        default=[],
        metavar="NAME:MARGIN[:MOST]",
        help="a metric that must not grow by more than the margin",
    )
    parser.add_argument("--alpha", type=float, default=0.05, help="chance of a false winner (default 0.05)")
    parser.add_argument("--baseline", type=float, help="the control's mean, as far as it is known")
    parser.add_argument("--effect", type=float, help="smallest difference worth knowing")
    parser.add_argument("--by-request", action="store_true", help="draw each request by itself, not each unit")
    parser.add_argument("--adaptive", action="store_true", help="more requests to what does better (with --by-request)")
    parser.add_argument("--holdout", type=float, default=0.0, help="share of units that never take part (default 0)")
    parser.add_argument("--exposure", type=float, default=1.0, help="share of units that take part (default 1)")
    parser.add_argument("--start", action="store_true", help="let it run at once")


def run_create(args: argparse.Namespace) -> int:
    """Make an experiment."""
    target, design = _target(args), _design(args)

    async def make(book: ExperimentBook) -> Experiment:
        made = await book.create(args.team, args.name, target, design, args.exposure)
        return await book.start(args.team, made.id) if args.start else made

    return _show(args, _asked(args, make))


def run_list(args: argparse.Namespace) -> int:
    """List experiments."""
    from pagoda.logic.experiments.view import experiment_json

    found = _asked(args, lambda book: book.find(args.team))
    if args.json:
        print_json([experiment_json(experiment) for experiment in found])
        return 0
    if not found:
        sys.stdout.write("There are no experiments; `pagoda experiments create --help` tells how to make one.\n")
    for experiment in found:
        sys.stdout.write(_line(experiment) + "\n")
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Show an experiment with its verdict."""
    from pagoda.logic.experiments.verdict import look
    from pagoda.logic.experiments.view import experiment_json, verdict_json

    verdict = _asked(args, lambda book: look(book, args.team, args.name))
    if args.json:
        print_json({"experiment": experiment_json(verdict.experiment), "verdict": verdict_json(verdict)})
        return 0
    sys.stdout.write(_line(verdict.experiment) + "\n")
    for measure in (verdict.primary, *verdict.guardrails):
        kind = "decides" if measure.margin is None else f"must not grow by more than {measure.margin:g}"
        sys.stdout.write(f"  {measure.metric} ({kind})\n")
        says = {each.variant: each for each in measure.comparisons}
        for arm in measure.arms:
            mean = "-" if arm.mean is None else f"{arm.mean:.4g}"
            line = f"    {arm.variant}: {verdict.units.get(arm.variant, 0)} units, {arm.outcomes} outcomes, mean {mean}"
            if (found := says.get(arm.variant)) is not None:
                seen = found.evidence
                line += f", difference {seen.estimate:+.4g} [{seen.low:+.4g}, {seen.high:+.4g}]: {found.says}"
                line += " (it changes over time)" if seen.drifts else ""
            sys.stdout.write(line + "\n")
    sys.stdout.write(verdict.sentence + "\n")
    return 0


def run_start(args: argparse.Namespace) -> int:
    """Let an experiment run."""
    return _show(args, _asked(args, lambda book: book.start(args.team, args.name)))


def run_stop(args: argparse.Namespace) -> int:
    """Stop an experiment."""
    return _show(args, _asked(args, lambda book: book.stop(args.team, args.name)))


def run_ramp(args: argparse.Namespace) -> int:
    """Open an experiment to another share of units."""
    shares = None
    if args.shares is not None:
        parts = [part.partition("=") for part in args.shares.split(",")]
        shares = {name.strip(): _number(value, "--shares") for name, _, value in parts}
    return _show(args, _asked(args, lambda book: book.ramp(args.team, args.name, args.exposure, shares)))


def run_plan(args: argparse.Namespace) -> int:
    """Tell how many outcomes it takes."""
    from pagoda.logic.experiments.plan import Question, plan
    from pagoda.logic.experiments.view import plan_json

    question = Question(
        baseline=args.baseline, effect=args.effect, alpha=args.alpha, power=args.power, deviation=args.deviation
    )
    found = plan(question)
    if args.json:
        print_json(plan_json(found))
        return 0
    sys.stdout.write(
        f"One look at the end: {found.fixed} outcomes.\n"
        f"Looking at any time: half of all experiments are decided by {found.typical}, "
        f"{args.power:.0%} by {found.enough}.\n"
    )
    return 0


def _asked(args: argparse.Namespace, ask: Callable[[ExperimentBook], Awaitable[T]]) -> T:
    import asyncio

    from pagoda.application.keeping import with_records
    from pagoda.logic.experiments.book import ExperimentBook

    return asyncio.run(with_records(settings_from(args), lambda opened: ask(ExperimentBook(opened))))


def _target(args: argparse.Namespace) -> Target:
    from pagoda.logic.experiments.design import Target

    if args.prompt is not None:
        name, _, label = args.prompt.partition("@")
        return Target(kind="prompt", name=name, label=label or "production")
    _model(args, args.model)
    return Target(kind="model", name=args.model)


def _design(args: argparse.Namespace) -> Design:
    from pagoda.logic.experiments.design import Design, Metric

    return Design(
        variants=_variants(args),
        metric=Metric(name=args.metric, direction="down" if args.down else "up", most=args.most),
        guardrails=tuple(_guard(given) for given in args.guard),
        alpha=args.alpha,
        baseline=args.baseline,
        effect=args.effect,
        unit="request" if args.by_request else "user",
        holdout=args.holdout,
        allocation="adaptive" if args.adaptive else "fixed",
    )


def _variants(args: argparse.Namespace) -> tuple[Variant, ...]:
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.experiments.design import Variant

    made = []
    for given in args.variant:
        name, sign, what = given.partition("=")
        head, colon, share = what.rpartition(":")
        what, part = (head, _number(share, "--variant")) if colon else (what, 1 / len(args.variant))
        if not sign or not what:
            raise InvalidRequest(f"--variant {given}: write it as name=model or name=version, with :share if wanted.")
        if args.model is not None:
            made.append(Variant(name=name, share=part, model=_model(args, what)))
        elif what.isascii() and what.isdigit():
            made.append(Variant(name=name, share=part, version=int(what)))
        else:
            raise InvalidRequest(f"--variant {given}: a version of a prompt is a number, for example {name}=3.")
    return tuple(made)


def _model(args: argparse.Namespace, name: str) -> str:
    from pagoda.model.catalog.opening import open_shelf

    return open_shelf(settings_from(args)).catalog.resolve(name).id


def _guard(given: str) -> Guardrail:
    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.experiments.design import Guardrail

    parts = given.split(":")
    if len(parts) not in (2, 3):
        raise InvalidRequest(f"--guard {given}: write it as name:margin or name:margin:most, such as latency:0.5:30.")
    most = _number(parts[2], "--guard") if len(parts) == 3 else 1.0
    return Guardrail(name=parts[0], margin=_number(parts[1], "--guard"), most=most)


def _number(given: str, flag: str) -> float:
    from pagoda.core.errors import InvalidRequest

    try:
        return float(given)
    except ValueError:
        raise InvalidRequest(f"{flag}: {given!r} is no number.") from None


def _show(args: argparse.Namespace, experiment: Experiment) -> int:
    from pagoda.logic.experiments.view import experiment_json

    if args.json:
        print_json(experiment_json(experiment))
    else:
        sys.stdout.write(_line(experiment) + "\n")
    return 0


def _line(experiment: Experiment) -> str:
    variants = ", ".join(
        f"{variant.name} = {variant.model or f'version {variant.version}'}" for variant in experiment.design.variants
    )
    parts = (
        f"{experiment.name} ({experiment.id})",
        experiment.state,
        f"on {experiment.target.kind} {experiment.target.key}",
        f"open to {experiment.exposure:.0%}",
        variants,
    )
    return "  ".join(parts)
