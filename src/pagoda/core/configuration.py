"""Configuration: settings read once from file, environment and flags, and checked together.

``pagoda.toml`` < environment (``PAGODA_SERVER_PORT=9000``) < command flags. The file is ``./pagoda.toml``, else
``~/.config/pagoda/pagoda.toml``. Every mistake is reported in one ``ConfigError``, each with its key, its value and
what is allowed. Each setting remembers where it came from (``Settings.origins``), which ``pagoda config show`` prints.

Only ``load_settings`` reads the environment; it is given one, so that tests need not touch the real one.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from pagoda.core.errors import ConfigError
from pagoda.core.pool_settings import PoolSettings, read_pools
from pagoda.core.setting_values import PARSERS, Secret
from pagoda.core.settings import Settings


@dataclass(frozen=True, slots=True)
class Option:
    """One setting: its dotted key, environment name, type, default and rule."""

    key: str
    env: str
    annotation: Any
    default: Any
    doc: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]


_SECTIONS: dict[str, Any] = {
    item.name: item.default_factory if item.default is dataclasses.MISSING else type(item.default)
    for item in dataclasses.fields(Settings)
    if item.name not in ("home", "origins", "pools")
}


def options() -> Iterator[Option]:
    """All settings, in the order of their sections."""
    for section, kind in _SECTIONS.items():
        hints = typing.get_type_hints(kind)
        for item in dataclasses.fields(kind):
            default = getattr(kind(), item.name)
            yield Option(
                f"{section}.{item.name}",
                item.metadata["env"] or f"PAGODA_{section}_{item.name}".upper(),
                hints[item.name],
                default,
                **{name: value for name, value in item.metadata.items() if name != "env"},
            )


def load_settings(flags: Mapping[str, Any], environ: Mapping[str, str], directory: Path) -> Settings:
    """Read all sources and give the effective settings.

    ``flags`` maps dotted keys to values given on the command line (``None`` values are skipped); ``directory`` is
    where ``pagoda.toml`` is looked for first. Raises ``ConfigError`` with every mistake.
    """
    known = {option.key: option for option in options()}
    mistakes: list[str] = []
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}

    def take(key: str, raw: Any, origin: str) -> None:
        option = known[key]
        try:
            found[key] = _convert(option, raw)
            origins[key] = origin
        except ValueError as error:
            shown = "***" if option.annotation is Secret else repr(raw)
            mistakes.append(f"{key} = {shown} (from {origin}): {error}")

    file_home = None
    pools: dict[str, PoolSettings] = {}
    for path in (directory / "pagoda.toml", _config_home(environ) / "pagoda.toml"):
        if path.is_file():
            file_home, pools = _read_file(path, known, take, mistakes)
            origins |= {f"pools.{name}": str(path) for name in pools}
            break
    for option in known.values():
        if option.env in environ:
            take(option.key, environ[option.env], f"environment {option.env}")
    _refuse_unknown_environment(environ, {option.env for option in known.values()}, mistakes)
    for key, value in flags.items():
        if value is not None:
            take(key, value, "command line")
    if mistakes:
        raise ConfigError(mistakes)
    home, origins["home"] = _home(environ, file_home)
    sections = {
        name: kind(**{key.partition(".")[2]: value for key, value in found.items() if key.startswith(name + ".")})
        for name, kind in _SECTIONS.items()
    }
    return Settings(home=home, origins=types.MappingProxyType(origins), pools=types.MappingProxyType(pools), **sections)


def _config_home(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or f"{environ.get('HOME', '~')}/.config"
    return Path(base).expanduser() / "pagoda"


def _home(environ: Mapping[str, str], from_file: str | None) -> tuple[Path, str]:
    if chosen := environ.get("PAGODA_HOME"):
        return Path(chosen).expanduser().absolute(), "environment PAGODA_HOME"
    if from_file:
        return Path(from_file).expanduser().absolute(), "pagoda.toml"
    base = environ.get("XDG_DATA_HOME") or f"{environ.get('HOME', '~')}/.local/share"
    return Path(base).expanduser().absolute() / "pagoda", "default"


def _read_file(
    path: Path, known: Mapping[str, Option], take: Any, mistakes: list[str]
) -> tuple[str | None, dict[str, PoolSettings]]:
    """Hand every flat value of the file to ``take``; give the ``home`` it names, if any, and its pools."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        mistakes.append(f"{path} cannot be read: {error}")
        return None, {}
    home: Any = content.pop("home", None)
    if home is not None and not isinstance(home, str):
        mistakes.append(f"home = {home!r} (from {path}): must be a path")
        home = None
    pools, wrong = read_pools(content.pop("pools", {}), str(path))
    mistakes += wrong
    for section, values in content.items():
        if section not in _SECTIONS or not isinstance(values, dict):
            mistakes.append(f"[{section}] (from {path}): there is no such section{_meant(section, _SECTIONS)}")
            continue
        for name, value in values.items():
            key = f"{section}.{name}"
            if key in known:
                take(key, value, str(path))
            else:
                mistakes.append(f"{key} (from {path}): there is no such setting{_meant(key, known)}")
    return (str(home) if home is not None else None), pools


def _refuse_unknown_environment(environ: Mapping[str, str], known: set[str], mistakes: list[str]) -> None:
    """A misspelt ``PAGODA_SERVER_PROT`` must not pass unseen; names outside our sections belong to other tools."""
    prefixes = tuple(f"PAGODA_{section.upper()}_" for section in _SECTIONS)
    for name in sorted(environ):
        if name.startswith(prefixes) and name not in known:
            mistakes.append(f"{name} (from environment): there is no such setting{_meant(name, known)}")


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _convert(option: Option, raw: Any) -> Any:
    """Give ``raw`` (text from the environment or a flag, or a TOML value) the option's type; check its rule."""
    kind = get_origin(option.annotation) or option.annotation
    value = PARSERS[kind](raw)
    chosen = value.values() if kind is dict else (value,)
    if option.choices and any(each not in option.choices for each in chosen):
        raise ValueError("must be one of " + ", ".join(option.choices))
    if option.low is not None and value < option.low:
        raise ValueError(f"must be at least {option.low:g}")
    if option.high is not None and value > option.high:
        raise ValueError(f"must be at most {option.high:g}")
    if kind is tuple:
        inner = get_args(option.annotation)[0]
        return tuple(inner(item) for item in value)
    return value
