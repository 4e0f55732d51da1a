"""Settings: what can be set, read once from file, environment and flags, checked together, passed down as values.

``pagoda.toml`` < environment (``PAGODA_SERVER_PORT=9000``) < command flags. The file is ``./pagoda.toml``, else
``~/.config/pagoda/pagoda.toml``. Every mistake is reported in one ``ConfigError``, each with its key, its value and
what is allowed. Each setting remembers where it came from (``Settings.origins``), which ``pagoda config show`` prints.

Only ``load_settings`` reads the environment; it is given one, so that tests need not touch the real one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pagoda.core.errors import ConfigError

T = TypeVar("T")


class Secret(str):
    """A string that shows itself as ``***``; ``reveal()`` gives the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"

    def __str__(self) -> str:
        return "***" if self else ""

    def reveal(self) -> str:
        """The secret itself."""
        return str.__str__(self)


def setting(
    default: Any, doc: str, *, low: float | None = None, high: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field of a settings section: its default, what it means, and the values that are allowed."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if isinstance(default, dict | list):
        return field(default_factory=lambda: type(default)(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """``[server]``: the HTTP service."""

    host: str = setting("127.0.0.1", "Address to bind; without keys only loopback is allowed.")
    port: int = setting(8000, "Port to bind; 0 takes a free one.", low=0, high=65535)
    root_path: str = setting("", "URL path under which a proxy serves Pagoda, for example /pagoda.")
    cors_origins: tuple[str, ...] = setting((), "Origins whose pages may call the API; empty closes it to other sites.")
    max_body_bytes: int = setting(16 * 1024 * 1024, "Largest request body, bytes.", low=1024)
    keepalive_seconds: float = setting(
        15.0, "Silence after which a stream gets a keep-alive comment, seconds.", low=0.05
    )
    drain_seconds: float = setting(30.0, "Longest wait for requests in flight at shutdown, seconds.", low=0)
    metrics: bool = setting(True, "Serve Prometheus metrics at /metrics.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """``[defaults]``: models that answer requests which name none."""

    chat: str = setting("smollm2-135m-instruct", "Model for chat and text.")
    embedding: str = setting("multilingual-e5-small", "Model for embeddings.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """``[models]``: where models come from and what they are called."""

    directory: str = setting("", "Where model files are kept; empty means models/ in PAGODA_HOME.")
    aliases: dict[str, str] = setting({}, "Other names for models, for clients that insist on one.")
    hub_url: str = setting("https://huggingface.co", "Hugging Face hub or a mirror of it.")
    hub_token: Secret = setting(Secret(""), "Access token for private or gated repositories.")
    ca_bundle: str = setting("", "PEM file with a private certificate authority.")
    proxy: str = setting("", "HTTP(S) proxy for downloads; empty uses the environment's HTTPS_PROXY.")
    offline: bool = setting(False, "Never touch the network for models.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """``[engines]``: the processes that run models."""

    threads: int = setting(0, "Threads an engine computes with; 0 means all physical cores, shared out.", low=0)
    parallel: int = setting(4, "Requests one local engine computes at once.", low=1, high=256)
    context: int = setting(0, "Context of one request, tokens; 0 means the model's own, at most 4096.", low=0)
    start_seconds: float = setting(120.0, "Longest wait for an engine to become ready, seconds.", low=1)
    spin: int = setting(
        1000, "Rounds an engine's idle thread spins before it sleeps; more is faster alone, slow beside others.", low=0
    )
    retry_seconds: float = setting(1.0, "First wait before a crashed engine is started again; doubles.", low=0.01)
    request_seconds: float = setting(
        600.0, "Longest silence of an engine in one request before it counts as failed, seconds.", low=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """``[storage]``: the database of records."""

    url: Secret = setting(
        Secret(""), "SQLAlchemy URL; empty means SQLite in PAGODA_HOME, postgresql://... for several processes."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """``[log]``: what the service writes to standard error."""

    level: str = setting("info", "Least important level shown.", choices=("debug", "info", "warning", "error"))
    format: str = setting("text", "Text for people or one JSON object a line.", choices=("text", "json"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, as values."""

    home: Path
    server: Server = Server()
    defaults: Defaults = Defaults()
    models: Models = Models()
    engines: Engines = Engines()
    storage: Storage = Storage()
    log: Log = Log()
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each setting that is not a default came from, by dotted key."""

    @property
    def models_directory(self) -> Path:
        """Where model files are kept."""
        return Path(self.models.directory).expanduser() if self.models.directory else self.home / "models"

    @property
    def runs_directory(self) -> Path:
        """Where runs keep their folders."""
        return self.home / "runs"


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
    if item.name not in ("home", "origins")
}


def options() -> Iterator[Option]:
    """All settings, in the order of their sections."""
    for section, kind in _SECTIONS.items():
        hints = typing.get_type_hints(kind)
        for item in dataclasses.fields(kind):
            default = getattr(kind(), item.name)
            yield Option(
                f"{section}.{item.name}",
                f"PAGODA_{section}_{item.name}".upper(),
                hints[item.name],
                default,
                **item.metadata,
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
    for path in (directory / "pagoda.toml", _config_home(environ) / "pagoda.toml"):
        if path.is_file():
            file_home = _read_file(path, known, take, mistakes)
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
    return Settings(home=home, origins=types.MappingProxyType(origins), **sections)


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


def _read_file(path: Path, known: Mapping[str, Option], take: Any, mistakes: list[str]) -> str | None:
    """Hand every value of the file to ``take``; give the ``home`` it names, if any."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        mistakes.append(f"{path} cannot be read: {error}")
        return None
    home: Any = content.pop("home", None)
    if home is not None and not isinstance(home, str):
        mistakes.append(f"home = {home!r} (from {path}): must be a path")
        home = None
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
    return str(home) if home is not None else None


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
    value = _parsers[kind](raw)
    if option.choices and value not in option.choices:
        raise ValueError("must be one of " + ", ".join(option.choices))
    if option.low is not None and value < option.low:
        raise ValueError(f"must be at least {option.low:g}")
    if option.high is not None and value > option.high:
        raise ValueError(f"must be at most {option.high:g}")
    if kind is tuple:
        inner = get_args(option.annotation)[0]
        return tuple(inner(item) for item in value)
    return value


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if isinstance(raw, str) and raw.lower() in words:
        return words[raw.lower()]
    raise ValueError("must be true or false")


def _number(raw: Any, kind: type[T], what: str) -> T:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or (kind is int and isinstance(raw, float)):
        raise ValueError(f"must be {what}")
    try:
        value = kind(raw)  # type: ignore[call-arg]
    except ValueError:
        raise ValueError(f"must be {what}") from None
    if not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"must be {what}")
    return value


def _text(raw: Any, kind: type[str] = str) -> str:
    if not isinstance(raw, str):
        raise ValueError("must be text")
    return kind(raw)


def _list(raw: Any) -> list[str]:
    if isinstance(raw, str):
        return [item.strip() for item in raw.split(",") if item.strip()]
    if isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw):
        return list(raw)
    raise ValueError("must be a list of texts")


def _table(raw: Any) -> dict[str, str]:
    if isinstance(raw, str):
        pairs = [item.partition("=") for item in _list(raw)]
        if any(not sign or not key.strip() for key, sign, _ in pairs):
            raise ValueError("must be name=model pairs separated by commas")
        return {key.strip(): value.strip() for key, _, value in pairs}
    if isinstance(raw, dict) and all(isinstance(value, str) for value in raw.values()):
        return dict(raw)
    raise ValueError("must be a table of texts")


_parsers: dict[Any, Any] = {
    bool: _bool,
    int: lambda raw: _number(raw, int, "a whole number"),
    float: lambda raw: _number(raw, float, "a number"),
    str: _text,
    Secret: lambda raw: _text(raw, Secret),
    tuple: _list,
    dict: _table,
}
