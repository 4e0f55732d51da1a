"""``pagoda rag``: documents taken into collections, searched, and asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import command_group, print_json, settings_from
from pagoda.cli.rag_eval import add_exam, run_eval
from pagoda.cli.trust import add_policy, score_sourced, show_score

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pagoda.application.retrieving import Retrieval
    from pagoda.core.ports import Progress
    from pagoda.logic.prompts.index import PromptIndex
    from pagoda.logic.retrieval.book import CollectionBook
    from pagoda.logic.retrieval.collection import Plan, Tags
    from pagoda.logic.retrieval.question import Refinement

_DEFAULT = "documents"


def register(commands: Any) -> None:
    """Add the command group."""
    grouped = command_group(
        commands,
        "rag",
        help_="documents: ingest, list, delete, search, ask, eval",
        about="Documents taken into collections, found by meaning and words, and asked with exact sources.",
        example='ingest docs/ && pagoda rag ask "How do I begin?"',
    )

    def add(name: str, run: Callable[[argparse.Namespace], int], does: str, example: str) -> argparse.ArgumentParser:
        parser = grouped(name, run, does, example)
        parser.add_argument("--team", default="local", help="whose collections (default: this machine's own user)")
        return parser

    ingest = add("ingest", run_ingest, "take files and folders in, as far as they changed", "ingest docs/ notes.md")
    ingest.add_argument("paths", metavar="PATH", nargs="+", help="a file, or a folder with all that lies below")
    _add_collection(ingest)
    ingest.add_argument("--model", help="the embedding model of a new collection (default: multilingual-e5-small)")
    ingest.add_argument("--chunk", type=int, metavar="CHARACTERS", help="most of a chunk in a new one (default: 480)")
    ingest.add_argument(
        "--label", action="append", default=[], metavar="NAME=TEXT", help="say this of each document; may be repeated"
    )
    ingest.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="ID",
        help="only this key of the team may see them; may be repeated",
    )
    ingest.add_argument("--overlap", type=int, metavar="CHARACTERS", help="of chunks in a new one (default: 60)")
    ingest.add_argument("--detach", action="store_true", help="let a run do it, and do not watch (`pagoda runs`)")
    listing = add("list", run_list, "list collections, or the documents of one", "list --collection handbook")
    listing.add_argument("--collection", metavar="NAME", help="list its documents")
    deleting = add(
        "delete", run_delete, "delete documents, or a whole collection", "delete old.md --collection handbook"
    )
    deleting.add_argument("sources", metavar="SOURCE", nargs="*", help="a document's path (default: the collection)")
    deleting.add_argument("--collection", metavar="NAME", required=True)
    searching = add("search", run_search, "find passages", 'search "who may sign" --collection handbook')
    searching.add_argument("query", metavar="QUERY")
    searching.add_argument("--mode", choices=("fused", "dense", "lexical"), default="fused", help="how to look for it")
    asking = add("ask", run_ask, "answer a question, with sources", 'ask "Who may sign?" --collection handbook')
    asking.add_argument("question", metavar="QUESTION")
    _add_asking(asking)
    asking.add_argument("--trust", action="store_true", help="say how sure the answer is; status 1 where it is not")
    add_policy(asking)
    examining = add(
        "eval", run_eval, "measure search and answers by questions that are known", "eval questions.jsonl --answers"
    )
    add_exam(examining)
    _add_asking(examining)
    _add_found(examining)
    for parser in (searching, asking):
        _add_found(parser)
        _add_refinement(parser)


def _add_refinement(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where", action="append", default=[], metavar="NAME=TEXT", help="only documents of this label or source"
    )
    parser.add_argument(
        "--diversity", type=float, default=0.0, metavar="0..1", help="how much likeness to better ones costs (0)"
    )
    parser.add_argument("--reranker", metavar="MODEL", help="a model that reorders what was found")


def _add_found(parser: argparse.ArgumentParser) -> None:
    _add_collection(parser)
    parser.add_argument("--limit", type=int, default=5, metavar="N", help="passages at most (default: 5)")


def _add_asking(asking: argparse.ArgumentParser) -> None:
    asking.add_argument("--model", help="the chat model to ask (default: the service's)")
    asking.add_argument(
        "--floor", type=float, metavar="COSINE", help="ask no model unless a passage is as near as this (default: 0.8)"
    )
    asking.add_argument(
        "--method",
        choices=("auto", "stuff", "refine", "map-reduce", "quote"),
        default="auto",
        help="how passages that do not fit at once are shown (auto); quote: the nearest sentences, without a model",
    )


def _add_collection(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--collection", default=_DEFAULT, metavar="NAME", help=f"which (default: {_DEFAULT})")


def run_ingest(args: argparse.Namespace) -> int:
    """Take documents in; status 1 where some could not be read."""
    from dataclasses import replace
    from pathlib import Path

    from pagoda.core.types import PRIORITIES, Call
    from pagoda.logic.retrieval.collection import Plan

    given = {"model": args.model, "limit": args.chunk, "overlap": args.overlap}
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = replace(Plan(), **chosen) if chosen else None
    if args.detach:
        return _begin_ingestion(args, plan)

    async def take(retrieval: Retrieval, _: PromptIndex) -> Any:
        collection = await retrieval.book.ensure(args.team, args.collection, plan)
        call = Call(tenant=args.team, purpose="ingestion", priority=PRIORITIES["batch"])
        roots = [Path(path) for path in args.paths]
        return await retrieval.ingestion.take(collection, roots, call, _progress(), _tags(args))

    report = _with_models(args, take)
    if args.json:
        print_json(report.to_json())
        return 1 if report.failed else 0
    for source, error in report.failed:
        sys.stderr.write(f"pagoda: {error if source in error else f'{source}: {error}'}\n")
    sys.stdout.write(
        f"{args.collection}: {len(report.added)} added, {len(report.changed)} changed, {len(report.renamed)} renamed, "
        f"{len(report.removed)} removed, "
        f"{report.unchanged} unchanged, {len(report.failed)} failed; {report.chunks} chunks were embedded.\n"
    )
    return 1 if report.failed else 0


def _begin_ingestion(args: argparse.Namespace, plan: Plan | None) -> int:
    """Let a run take the documents in, which goes on where it was when it is resumed."""
    from pathlib import Path

    from pagoda.application.registry import run_kinds
    from pagoda.application.retrieving import Intake, intake_json
    from pagoda.core.errors import InvalidRequest
    from pagoda.core.runs import RunRegistry, Runs

    paths = [Path(path).absolute() for path in args.paths]
    if lost := next((path for path in paths if not path.exists()), None):
        raise InvalidRequest(f"There is no file or folder {lost}.", param="paths")
    _with_records(args, lambda book: book.ensure(args.team, args.collection, plan))
    tags = _tags(args)
    intake = Intake(
        team=args.team,
        collection=args.collection,
        paths=tuple(map(str, paths)),
        labels=None if tags is None else tags.labels,
        keys=None if tags is None else tags.keys,
    )
    runs = Runs(settings_from(args), RunRegistry(run_kinds()))
    run = runs.start(runs.create("ingestion", intake_json(intake), name=args.collection).id)
    if args.json:
        print_json(run.to_json())
    else:
        sys.stdout.write(f"The run {run.id} has begun; watch it with `pagoda runs watch {run.id}`.\n")
    return 0


def run_list(args: argparse.Namespace) -> int:
    """List collections or documents."""
    from dataclasses import asdict

    async def look(book: CollectionBook) -> list[dict[str, Any]]:
        if args.collection is not None:
            return [row.to_json() for row in await book.documents(await book.get(args.team, args.collection))]
        rows = []
        for collection in await book.collections(args.team):
            documents = await book.documents(collection)
            rows.append(
                {
                    "name": collection.name,
                    "documents": len(documents),
                    "chunks": sum(row.chunks for row in documents),
                    **asdict(collection.plan),
                    "created": collection.created.isoformat(),
                }
            )
        return rows

    rows = _with_records(args, look)
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        if args.collection is None:
            line = f"{row['name']}  {row['documents']} documents  {row['chunks']} chunks  {row['model']}"
        else:
            line = f"{row['source']}  {row['kind']}  {row['encoding']}  {row['chunks']} chunks  {row['title']}"
        sys.stdout.write(line + "\n")
    return 0


def run_delete(args: argparse.Namespace) -> int:
    """Delete documents or a collection."""
    import os

    from pagoda.core.errors import NotFound

    named = {source: os.path.abspath(source) for source in args.sources}

    async def change(book: CollectionBook) -> int:
        if not args.sources:
            return await book.delete(args.team, args.collection)
        collection = await book.get(args.team, args.collection)
        held = {row.source for row in await book.documents(collection)}
        chosen = {source if source in held else path for source, path in named.items()}
        if unknown := sorted(chosen - held):
            raise NotFound(f"{args.collection} has no document {unknown[0]}; `pagoda rag list` names them all.")
        return await book.remove(collection, chosen)

    count = _with_records(args, change)
    if args.json:
        print_json({"collection": args.collection, "documents": count})
    else:
        sys.stdout.write(f"{count} documents of {args.collection} are deleted.\n")
    return 0


def run_search(args: argparse.Namespace) -> int:
    """Find passages; status 1 where there are none."""
    from pagoda.core.types import Call

    async def find(retrieval: Retrieval, _: PromptIndex) -> Any:
        wanted = {"limit": args.limit, "mode": args.mode, "refinement": _refinement(args)}
        return await retrieval.searcher.search(args.collection, args.query, Call(tenant=args.team), **wanted)

    hits = _with_models(args, find)
    if args.json:
        print_json([hit.to_json() for hit in hits])
        return 0 if hits else 1
    for number, hit in enumerate(hits, 1):
        near = "" if hit.similarity is None else f"  cosine {hit.similarity:.3f}"
        sys.stdout.write(f"[{number}] {_place(hit.passage)}{near}\n{hit.passage.text.strip()}\n\n")
    if not hits:
        sys.stderr.write(f"pagoda: {args.collection} holds nothing like this.\n")
    return 0 if hits else 1


def run_ask(args: argparse.Namespace) -> int:
    """Answer; status 1 where the documents do not tell."""
    from pagoda.core.types import Call
    from pagoda.logic.retrieval.question import FLOOR, Question

    async def work(retrieval: Retrieval, prompts: PromptIndex) -> Any:
        question = Question(
            text=args.question,
            collection=args.collection,
            limit=args.limit,
            floor=FLOOR if args.floor is None else args.floor,
            method=args.method,
            refinement=_refinement(args),
        )
        call = Call(tenant=args.team)
        return await (await retrieval.answerer(prompts, call, args.model)).answer(question, call)

    answer = _with_models(args, work)
    status = 0 if answer.outcome == "answered" else 1
    scored = score_sourced(args, answer) if args.trust and status == 0 else None
    if scored is not None:
        status, answer = 0 if scored.outcome.sure else 1, scored.answer_of(answer)
    if args.json:
        print_json(answer.to_json() | ({} if scored is None else {"trust": scored.to_json()}))
        return status
    if scored is not None and scored.outcome.action in ("ask", "abstain"):
        show_score(scored)
        return status
    sys.stdout.write(answer.text + "\n")
    for citation in answer.citations:
        sys.stdout.write(f"\n[{citation.number}] {_place(citation.passage)}\n")
    if answer.outcome == "answered" and not answer.citations:
        sys.stderr.write("The model cited nothing; it was shown:\n")
        for number, hit in enumerate(answer.passages, 1):
            sys.stderr.write(f"({number}) {_place(hit.passage)}\n")
    if answer.removed:
        sys.stderr.write(f"{answer.removed} citations of passages that do not exist were removed.\n")
    if answer.added:
        sys.stderr.write(f"{answer.added} sentences that cited nothing were given the passage that bears them out.\n")
    if scored is not None:
        sys.stdout.write("\n")
        show_score(scored)
    return status


def _tags(args: argparse.Namespace) -> Tags | None:
    from pagoda.logic.retrieval.collection import Tags

    if not args.label and not args.key:
        return None
    labels = {name: values[-1] for name, values in _pairs(args.label, "--label").items()}
    return Tags(labels=labels, keys=tuple(args.key) or None)


def _refinement(args: argparse.Namespace) -> Refinement:
    from pagoda.logic.retrieval.question import Refinement

    where = {name: tuple(values) for name, values in _pairs(args.where, "--where").items()}
    return Refinement(where=where, diversity=args.diversity, reranker=args.reranker)


def _pairs(given: list[str], flag: str) -> dict[str, list[str]]:
    """``NAME=TEXT`` as often as it was said, by name."""
    from pagoda.core.errors import InvalidRequest

    pairs: dict[str, list[str]] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"{flag} takes NAME=TEXT, not {each[:100]!r}.", param=flag)
        pairs.setdefault(name, []).append(value)
    return pairs


def _place(passage: Any) -> str:
    heading = f"  {passage.heading}" if passage.heading else ""
    return f"{passage.source}:{passage.start}-{passage.end}{heading}"


def _progress() -> Progress:
    """A line that is written again on a terminal; nothing into a pipe."""
    shows = sys.stderr.isatty()

    def report(stage: str, done: int, total: int | None) -> None:
        if shows:
            sys.stderr.write(f"\r{stage}: {done} of {total} files" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return report


def _with_models(args: argparse.Namespace, work: Callable[[Retrieval, PromptIndex], Awaitable[Any]]) -> Any:
    """What is answered with the collections, models and prompts of this home."""
    import asyncio
    import os

    from pagoda.application.retrieving import home_retrieval

    async def run() -> Any:
        async with home_retrieval(settings_from(args), os.environ) as (retrieval, prompts):
            return await work(retrieval, prompts)

    return asyncio.run(run())


def _with_records(args: argparse.Namespace, ask: Callable[[CollectionBook], Awaitable[Any]]) -> Any:
    """What the book of collections answers."""
    import asyncio

    from pagoda.application.keeping import with_records
    from pagoda.logic.retrieval.book import CollectionBook

    return asyncio.run(with_records(settings_from(args), lambda opened: ask(CollectionBook(opened))))
