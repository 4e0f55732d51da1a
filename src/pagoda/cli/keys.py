"""``pagoda keys``: who may ask, made and ended on the machine itself, in the records; a running service is told."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import add_json_flag, add_settings_flag, print_json, settings_from
from pagoda.cli.keys_usage import add_usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.core.settings import Settings
    from pagoda.service.keys.book import Issued, KeyBook
    from pagoda.service.keys.draft import Draft
    from pagoda.service.keys.key import Limits

_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent", "budget_tokens", "budget_money")


def register(commands: Any) -> None:
    """Add the command group."""
    group = commands.add_parser(
        "keys",
        help="keys: create, list, revoke, rotate, usage, limits of teams, audit log",
        description="Who may ask, and how much.",
        epilog="example: pagoda keys create --name app",
    )
    words = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], help_: str, example: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = words.add_parser(
            name, help=help_, description=help_[0].upper() + help_[1:] + ".", epilog=f"example: pagoda keys {example}"
        )
        add_json_flag(parser)
        add_settings_flag(parser)
        parser.set_defaults(run=run)
        return parser

    _add_create(add("create", run_create, "make a key and show its secret once", "create --name app --rpm 60"))
    listing = add("list", run_list, "list keys", "list --revoked")
    listing.add_argument("--revoked", action="store_true", help="also those that were revoked")
    revoking = add("revoke", run_revoke, "end a key for good", "revoke app")
    revoking.add_argument("key", metavar="KEY", help="id or name")
    rotating = add("rotate", run_rotate, "give a key a new secret, shown once", "rotate app --grace 1h")
    rotating.add_argument("key", metavar="KEY", help="id or name")
    rotating.add_argument("--grace", metavar="TIME", help="how long the old secret works on: 30m, 2d (default: 0)")
    add("reset-admin", run_reset, "revoke all admin keys and make a new one", "reset-admin")
    team = add("team", run_team, "show or set the limits that a team's keys share", "team research --rpm 600")
    team.add_argument("name", metavar="TEAM", help="the team's name")
    team.add_argument("--no-limits", action="store_true", help="take all limits away")
    _add_limits(team)
    audit = add("audit", run_audit, "show what was done with keys and with the service", "audit --limit 20")
    audit.add_argument("--limit", type=int, default=50, metavar="N", help="lines at most (default 50)")
    add_usage(words)


def _add_create(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", required=True, help="what the key is for")
    parser.add_argument("--team", default="default", help="whose it is: a team shares limits, files, cached answers")
    parser.add_argument("--models", metavar="A,B", help="models it may ask, by id or alias (default: all)")
    parser.add_argument(
        "--scopes", default="inference", metavar="A,B", help="some of inference (default), monitor, operate, admin"
    )
    parser.add_argument("--expires", metavar="WHEN", help="30d (or m, h, w), a date, or a date with time")
    parser.add_argument("--priority", type=int, default=0, help="most urgent priority it may ask for (default 0)")
    _add_limits(parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rpm", type=int, dest="requests_per_minute", metavar="N", help="requests a minute")
    parser.add_argument("--tpm", type=int, dest="tokens_per_minute", metavar="N", help="tokens a minute")
    parser.add_argument("--concurrent", type=int, metavar="N", help="requests under way at once")
    parser.add_argument("--budget", metavar="MONEY", help="money it may spend, in the currency of the price table")
    parser.add_argument("--budget-tokens", type=int, metavar="N", help="tokens it may use")
    parser.add_argument(
        "--period", choices=("total", "day", "month"), default="total", help="after what budgets begin anew (UTC)"
    )


def run_create(args: argparse.Namespace) -> int:
    """Make a key."""
    from pagoda.service.keys.book import LOCAL

    settings = settings_from(args)
    draft = _draft(args, settings)
    return _show_issued(args, _changed(settings, lambda book: book.create(draft, LOCAL)))


def run_list(args: argparse.Namespace) -> int:
    """List keys."""
    from pagoda.service.keys.view import held_json

    rows = [held_json(held) for held in _asked(settings_from(args), lambda book: book.find(revoked=args.revoked))]
    if args.json:
        print_json(rows)
        return 0
    if not rows:
        sys.stdout.write("There are no keys; `pagoda keys create --name NAME` makes one.\n")
    for row in rows:
        state = "revoked" if row["revoked"] else f"expires {row['expires']}" if row["expires"] else "works"
        used = f"last used {row['last_used']}" if row["last_used"] else "never used"
        parts = (row["id"], row["shown"], row["name"], f"team {row['team']}", ",".join(row["scopes"]), state, used)
        sys.stdout.write("  ".join(parts) + "\n")
        if said := _spell(row["limits"], row["models"], row["priority"]):
            sys.stdout.write(f"    {said}\n")
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """End a key."""
    from pagoda.service.keys.book import LOCAL
    from pagoda.service.keys.view import held_json

    settings = settings_from(args)
    held = _changed(settings, lambda book: book.revoke(args.key, LOCAL, keep_admin=False))
    if args.json:
        print_json(held_json(held))
        return 0
    sys.stdout.write(f"{held.key.name} ({held.key.id}) is revoked.\n")
    if "admin" in held.key.scopes and not _asked(settings, lambda book: book.has_admin()):
        sys.stdout.write("No admin key is left: on loopback the service needs no key any more.\n")
    return 0


def run_rotate(args: argparse.Namespace) -> int:
    """Replace a key's secret."""
    from pagoda.service.keys.book import LOCAL
    from pagoda.service.keys.draft import seconds_from

    grace = seconds_from(args.grace) if args.grace and args.grace != "0" else 0.0
    return _show_issued(args, _changed(settings_from(args), lambda book: book.rotate(args.key, grace, LOCAL)))


def run_reset(args: argparse.Namespace) -> int:
    """Replace all admin keys."""
    from pagoda.service.keys.book import LOCAL

    return _show_issued(args, _changed(settings_from(args), lambda book: book.reset_admin(LOCAL)))


def run_team(args: argparse.Namespace) -> int:
    """Show or set a team's limits."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.service.keys.book import LOCAL
    from pagoda.service.keys.view import limits_json

    settings, limits = settings_from(args), _limits(args)
    given = any(getattr(limits, name) is not None for name in _LIMITS)
    if given and args.no_limits:
        raise InvalidRequest("Give limits or --no-limits, not both.")
    if given or args.no_limits:
        limits = _changed(settings, lambda book: book.limit_team(args.name, limits, LOCAL))
    else:
        limits = _asked(settings, lambda book: book.team(args.name))
    if args.json:
        print_json({"team": args.name, "limits": limits_json(limits)})
    else:
        sys.stdout.write(f"{args.name}: {_spell(limits_json(limits), None, 0) or 'no limits'}\n")
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Show the audit log."""
    from pagoda.core.errors import InvalidRequest
    from pagoda.service.keys.view import audit_json

    if args.limit < 1:
        raise InvalidRequest("--limit must be a whole number above 0.")
    rows = [audit_json(row) for row in _asked(settings_from(args), lambda book: book.audit(limit=args.limit))]
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        parts = (row["at"], row["who"], row["address"], row["action"], row["subject"], row["outcome"])
        sys.stdout.write("  ".join(part for part in parts if part) + "\n")
    return 0


def _draft(args: argparse.Namespace, settings: Settings) -> Draft:
    from pagoda.model.catalog.opening import open_shelf
    from pagoda.service.keys.draft import Draft, expiry_from, scopes_from

    models = None
    if args.models is not None:
        catalog = open_shelf(settings).catalog
        models = tuple(catalog.resolve(name.strip()).id for name in args.models.split(",") if name.strip())
    return Draft(
        name=args.name,
        team=args.team,
        scopes=scopes_from(args.scopes.split(",")),
        models=models,
        priority=args.priority,
        limits=_limits(args),
        expires=None if args.expires is None else expiry_from(args.expires),
    )


def _limits(args: argparse.Namespace) -> Limits:
    from pagoda.service.keys.draft import check_limits, nano_from
    from pagoda.service.keys.key import Limits

    return check_limits(
        Limits(
            requests_per_minute=args.requests_per_minute,
            tokens_per_minute=args.tokens_per_minute,
            concurrent=args.concurrent,
            budget_tokens=args.budget_tokens,
            budget_money=None if args.budget is None else nano_from(args.budget),
            period=args.period,
        )
    )


def _show_issued(args: argparse.Namespace, issued: Issued) -> int:
    from pagoda.service.keys.view import issued_json

    if args.json:
        print_json(issued_json(issued))
        return 0
    key = issued.held.key
    sys.stdout.write(f"{issued.secret}\n")
    sys.stderr.write(f"This is the secret of {key.name} ({key.id}), shown this once; keep it safe.\n")
    return 0


def _spell(limits: dict[str, Any], models: list[str] | None, priority: int) -> str:
    told = [
        (limits["requests_per_minute"], "requests a minute"),
        (limits["tokens_per_minute"], "tokens a minute"),
        (limits["concurrent"], "at once"),
        (limits["budget_tokens"], f"tokens ({limits['period']})"),
        (limits["budget"], f"in money ({limits['period']})"),
    ]
    said = [
        f"{value:g} {unit}" if isinstance(value, float) else f"{value} {unit}"
        for value, unit in told
        if value is not None
    ]
    said += [f"models {', '.join(models)}"] if models is not None else []
    return "; ".join(said + ([f"priority from {priority}"] if priority else []))


def _asked(settings: Settings, ask: Callable[[KeyBook], Awaitable[Any]]) -> Any:
    """What the book answers."""
    import asyncio

    from pagoda.application.keeping import with_book

    return asyncio.run(with_book(settings, ask, tell=False))


def _changed(settings: Settings, change: Callable[[KeyBook], Awaitable[Any]]) -> Any:
    """The outcome of a change, of which a running service of this home is told."""
    import asyncio

    from pagoda.application.keeping import with_book

    return asyncio.run(with_book(settings, change, tell=True))
