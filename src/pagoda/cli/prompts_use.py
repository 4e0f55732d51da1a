"""``pagoda prompts render`` and ``run``: a prompt filled in, and asked."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from pagoda.cli.context import ask_service, print_json, settings_from

if TYPE_CHECKING:
    from pagoda.cli.context import AddCommand
    from pagoda.logic.inference.joined import JoinedDoor
    from pagoda.logic.prompts.composing import Composed
    from pagoda.logic.prompts.prompt import Prompt, PromptVersion


def add_use(add: AddCommand) -> None:
    """Add both commands to those of ``pagoda prompts``."""
    rendering = add(
        "render", run_render, "show the messages that a model would get", "render maths --var problem='2 + 2?'"
    )
    rendering.add_argument("--tokens", action="store_true", help="also count the tokens, by the model's tokenizer")
    running = add("run", run_run, "ask a model with a prompt", "run summarise --var text=@article.txt --language zh")
    for parser in (rendering, running):
        parser.add_argument("prompt", metavar="PROMPT")
        parser.add_argument(
            "--var", action="append", default=[], metavar="NAME=VALUE", help="a variable; NAME=@FILE reads a file"
        )
        parser.add_argument("--vars", metavar="FILE", help="variables as a JSON object in a file")
        parser.add_argument("--language", help="the language to ask in (default: the prompt's first)")
        parser.add_argument("--model", help="the model to ask (default: the prompt's, or the service's)")


def run_render(args: argparse.Namespace) -> int:
    """Fill a prompt in."""
    composed, _ = _used(args, ask_it=False)
    from pagoda.logic.prompts.view import composed_json

    if args.json:
        print_json(composed_json(composed))
        return 0
    for message in composed.rendered.messages:
        sys.stdout.write(f"[{message['role']}]\n{message['content']}\n\n")
    if composed.tokens is not None:
        of = "" if composed.context is None else f" of {composed.context}"
        sys.stderr.write(f"{composed.tokens} tokens{of} for {composed.model}.\n")
    _tell_left_out(composed)
    return 0


def run_run(args: argparse.Namespace) -> int:
    """Ask; status 1 where no answer was found in what the model wrote."""
    composed, answer = _used(args, ask_it=True)
    from pagoda.logic.prompts.view import answer_json

    if args.json:
        print_json(answer_json(composed, answer))
        return 0 if answer.answer is not None else 1
    _tell_left_out(composed)
    sys.stdout.write(answer.text.rstrip("\n") + "\n")
    if answer.answer is None:
        sys.stderr.write("pagoda: no answer was found in this text; the prompt says how it must look.\n")
        return 1
    if answer.answer != answer.text.strip():
        sys.stderr.write(f"answer: {answer.answer}\n")
    if (counted := answer.vote) is not None:
        sys.stderr.write(f"{counted.votes} of {counted.samples} samples agree; {counted.unread} had no answer.\n")
    return 0


def _tell_left_out(composed: Composed) -> None:
    if composed.dropped:
        sys.stderr.write(f"{composed.dropped} examples were left out, since they did not fit.\n")
    for name in composed.trimmed:
        sys.stderr.write(f"The text of {name} was cut, since it did not fit.\n")


def _used(args: argparse.Namespace, *, ask_it: bool) -> tuple[Composed, Any]:
    """The prompt made ready, and what it gave if it was asked; a model is only woken where one is needed."""
    import asyncio

    from pagoda.application.prompting import open_prompts
    from pagoda.core.types import Call
    from pagoda.logic.prompts.asking import ask
    from pagoda.logic.prompts.composing import Composed, Composer, Use
    from pagoda.logic.prompts.rendering import render

    settings = settings_from(args)

    async def find() -> PromptVersion:
        async with open_prompts(settings) as room:
            return await room.find(args.prompt, args.team)

    version = asyncio.run(find())
    values = _values(args, version.prompt)
    model = args.model or version.prompt.settings.model or settings.defaults.chat
    few = version.prompt.techniques.few_shot
    if not ask_it and not args.tokens and (few is None or (few.choose == "fixed" and few.tokens is None)):
        rendered = render(version, values, args.language)
        return Composed(rendered=rendered, model=model, tokens=None, context=None), None

    async def work(door: JoinedDoor) -> tuple[Composed, Any]:
        use = Use(version=version, values=values, model=model, language=args.language)
        composed = await Composer(door, settings.defaults.embedding).compose(use, Call())
        return composed, await ask(composed, door, Call()) if ask_it else None

    answered: tuple[Composed, Any] = ask_service(args, work)
    return answered


def _values(args: argparse.Namespace, prompt: Prompt) -> dict[str, Any]:
    import json

    from pagoda.core.errors import InvalidRequest
    from pagoda.logic.prompts.filling import value_from

    values: dict[str, Any] = {}
    if args.vars:
        try:
            values = json.loads(_text_of(args.vars))
        except ValueError as error:
            raise InvalidRequest(f"{args.vars} is not JSON: {error}.") from error
        if not isinstance(values, dict):
            raise InvalidRequest(f"{args.vars} must hold a JSON object: each variable with its value.")
    known = {variable.name: variable for variable in prompt.variables}
    for item in args.var:
        name, sign, text = item.partition("=")
        if not sign:
            raise InvalidRequest(f"--var {item}: write it as name=value, or name=@file.")
        text = _text_of(text[1:]) if text.startswith("@") else text
        values[name] = value_from(known[name], text) if name in known else text
    return values


def _text_of(path: str) -> str:
    from pathlib import Path

    from pagoda.core.errors import InvalidRequest

    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} is not UTF-8; save it as UTF-8.") from error
