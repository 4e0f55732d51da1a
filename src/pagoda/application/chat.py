"""The chat product in the terminal: a conversation with history, streamed, where Ctrl-C stops a reply."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field

from pagoda.application.client import far_door, home_door
from pagoda.core.errors import PagodaError
from pagoda.core.ports import Inference
from pagoda.core.settings import Settings
from pagoda.core.types import PRIORITIES, Call, Delta, Generation, Message, Sampling, Usage

_HELP = "Commands: /new forgets the conversation, /exit leaves (as Ctrl-D does); Ctrl-C stops a reply.\n"


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What the user chose."""

    model: str | None
    system: str | None
    temperature: float | None
    max_tokens: int | None
    message: str | None
    """Ask this and leave."""
    url: str | None = None
    """Of a service elsewhere; ``None``: this home's own."""


@dataclass(slots=True)
class Conversation:
    """What was said."""

    system: str | None
    turns: list[Message] = field(default_factory=list)

    def messages(self) -> tuple[Message, ...]:
        """As a model gets it."""
        head: tuple[Message, ...] = ({"role": "system", "content": self.system},) if self.system else ()
        return head + tuple(self.turns)


def talk(settings: Settings, environment: Mapping[str, str], options: ChatOptions) -> int:
    """Talk until the user leaves; 0, or 1 when the one asked message had no answer."""
    with asyncio.Runner() as runner:
        connection: AbstractAsyncContextManager[Inference] = (
            home_door(settings, environment)
            if options.url is None
            else far_door(options.url, settings.client.key.reveal())
        )
        door = runner.run(connection.__aenter__())
        try:
            return _converse(runner, door, options, settings)
        finally:
            runner.run(connection.__aexit__(None, None, None))


def _converse(runner: asyncio.Runner, door: Inference, options: ChatOptions, settings: Settings) -> int:
    conversation = Conversation(options.system)
    model = options.model or (settings.defaults.chat if options.url is None else "")
    terminal = sys.stdin.isatty()
    if options.message is not None:
        conversation.turns.append({"role": "user", "content": options.message})
        runner.run(_reply(door, conversation, model, options))
        return 0
    if terminal:
        sys.stdout.write(f"Talking to {model or options.url}. {_HELP}")
    while (line := _read(terminal)) is not None:
        match line.strip():
            case "":
                continue
            case "/exit" | "/quit":
                break
            case "/new":
                conversation.turns.clear()
                sys.stdout.write("(new conversation)\n")
                continue
            case "/help":
                sys.stdout.write(_HELP)
                continue
        conversation.turns.append({"role": "user", "content": line})
        try:
            runner.run(_reply(door, conversation, model, options))
        except PagodaError as error:
            conversation.turns.pop()
            if not terminal:
                raise
            sys.stderr.write(f"pagoda: {error.message}\n")
    return 0


def _read(terminal: bool) -> str | None:
    """A line of the user; ``None`` when there are no more, or on Ctrl-C at the prompt."""
    if terminal:
        import readline  # noqa: F401, PLC0415  (line editing and history; importing it is what switches it on)
    try:
        return input("> " if terminal else "")
    except EOFError:
        return None
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        return None


async def _reply(door: Inference, conversation: Conversation, model: str, options: ChatOptions) -> None:
    """Stream one reply to standard output and remember it, also when it is stopped half way."""
    request = Generation(
        model=model,
        messages=conversation.messages(),
        sampling=Sampling(temperature=options.temperature),
        max_tokens=options.max_tokens,
    )
    text: list[str] = []
    task = asyncio.ensure_future(_stream(door, request, text))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    try:
        usage, seconds = await task
        if sys.stdout.isatty() and usage is not None:
            rate = usage.completion_tokens / seconds if seconds else 0.0
            sys.stdout.write(f"\n\033[2m({usage.completion_tokens} tokens, {rate:.0f} a second)\033[0m\n")
        else:
            sys.stdout.write("\n")
    except asyncio.CancelledError:
        sys.stdout.write("\n(stopped)\n")
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        sys.stdout.flush()
    conversation.turns.append({"role": "assistant", "content": "".join(text)})


async def _stream(door: Inference, request: Generation, text: list[str]) -> tuple[Usage | None, float]:
    usage, began = None, 0.0
    async with aclosing(door.complete(request, Call(priority=PRIORITIES["interactive"]))) as events:  # type: ignore[type-var]
        async for event in events:
            if isinstance(event, Delta):
                began = began or time.perf_counter()
                text.append(event.text)
                sys.stdout.write(event.text)
                sys.stdout.flush()
            elif isinstance(event, Usage):
                usage = event
    return usage, time.perf_counter() - began if began else 0.0
