"""The command line as a tree, read from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from pagoda.cli.main import build_parser

Words = tuple[str, ...]


def parsers() -> dict[Words, argparse.ArgumentParser]:
    """Every parser that help shows, by the words that lead to it; the empty tuple is ``pagoda`` itself."""
    return dict(_walk((), build_parser()))


def groups() -> list[Words]:
    """Words of the parsers that have commands below them, and ``pagoda`` itself."""
    return [words for words, parser in parsers().items() if _subparsers(parser)]


def leaves() -> list[Words]:
    """Words of the commands that do something."""
    return [words for words, parser in parsers().items() if not _subparsers(parser)]


def _walk(words: Words, parser: argparse.ArgumentParser) -> Iterator[tuple[Words, argparse.ArgumentParser]]:
    yield words, parser
    for action in _subparsers(parser):
        shown = {choice.dest for choice in action._choices_actions}  # without help= a command is Pagoda's own
        for word, child in action.choices.items():
            if word in shown:
                yield from _walk((*words, word), child)


def _subparsers(parser: argparse.ArgumentParser) -> list[argparse._SubParsersAction[argparse.ArgumentParser]]:
    return [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
