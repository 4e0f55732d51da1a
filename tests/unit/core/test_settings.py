"""Settings: three sources, one result, every mistake at once, and secrets that do not show."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.configuration import Option, load_settings, options
from pagoda.core.errors import ConfigError
from pagoda.core.setting_values import Secret
from pagoda.core.settings import Settings

OPTIONS = list(options())
NUMBERS = [option for option in OPTIONS if option.annotation in (int, float)]


def load(
    folder: Path, toml: str = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> Settings:
    if toml:
        (folder / "pagoda.toml").write_text(toml, encoding="utf-8")
    return load_settings(flags or {}, {"HOME": str(folder), **(environ or {})}, folder)


def mistakes(folder: Path, *args: Any, **kwargs: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, *args, **kwargs)
    return caught.value.mistakes


def value_of(settings: Settings, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def as_text(value: Any) -> str:
    """A value as the environment would hold it."""
    match value:
        case Secret():
            return value.reveal()
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case dict():
            return ",".join(f"{name}={model}" for name, model in value.items())
    return str(value)


def test_without_sources_everything_is_its_default(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.origins == {"home": "default"}
    for option in OPTIONS:
        assert value_of(settings, option.key) == option.default
    assert settings.home == tmp_path / ".local" / "share" / "pagoda"
    assert settings.models_directory == settings.home / "models"
    assert settings.runs_directory == settings.home / "runs"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_default_can_be_given_as_text(option: Option, tmp_path: Path) -> None:
    """So no default breaks its own rule, and whatever is printed can be set."""
    settings = load(tmp_path, environ={option.env: as_text(option.default)})
    assert value_of(settings, option.key) == option.default
    assert type(value_of(settings, option.key)) is type(option.default)
    assert settings.origins[option.key] == f"environment {option.env}"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_option_says_what_it_means(option: Option) -> None:
    assert option.doc.endswith(".")
    own_names = {"keys.admin_key": "PAGODA_ADMIN_KEY", "client.key": "PAGODA_API_KEY"}
    assert option.env == own_names.get(option.key, "PAGODA_" + option.key.upper().replace(".", "_"))


def test_the_later_source_wins_and_is_remembered(tmp_path: Path) -> None:
    toml = "[server]\nport = 1111\nhost = 'localhost'\n[engines]\nparallel = 2\n[log]\nlevel = 'debug'\n"
    environ = {"PAGODA_SERVER_PORT": "2222", "PAGODA_ENGINES_PARALLEL": "3"}
    settings = load(tmp_path, toml, environ, {"server.port": "3333", "engines.threads": None})
    assert (settings.server.port, settings.engines.parallel) == (3333, 3)
    assert (settings.server.host, settings.log.level) == ("localhost", "debug")
    assert dict(settings.origins) == {
        "server.port": "command line",
        "engines.parallel": "environment PAGODA_ENGINES_PARALLEL",
        "server.host": str(tmp_path / "pagoda.toml"),
        "log.level": str(tmp_path / "pagoda.toml"),
        "home": "default",
    }


@given(
    low=st.none() | st.integers(1, 65535),
    middle=st.none() | st.integers(1, 65535),
    high=st.none() | st.integers(1, 65535),
)
def test_precedence_holds_for_any_sources(low: int | None, middle: int | None, high: int | None) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        toml = f"[server]\nport = {low}\n" if low is not None else ""
        environ = {"PAGODA_SERVER_PORT": str(middle)} if middle is not None else {}
        settings = load(Path(name), toml, environ, {"server.port": high})
    given_values = [value for value in (high, middle, low) if value is not None]
    assert settings.server.port == (given_values[0] if given_values else 8000)
    assert ("server.port" in settings.origins) == bool(given_values)


def test_the_file_beside_hides_the_one_of_the_user(tmp_path: Path) -> None:
    user = tmp_path / ".config" / "pagoda"
    user.mkdir(parents=True)
    (user / "pagoda.toml").write_text("[server]\nport = 1\n[log]\nlevel = 'error'\n", encoding="utf-8")
    assert load(tmp_path).log.level == "error"
    beside = load(tmp_path, "[server]\nport = 2\n")
    assert (beside.server.port, beside.log.level) == (2, "info")
    elsewhere = load_settings({}, {"HOME": "/nonexistent", "XDG_CONFIG_HOME": str(tmp_path / ".config")}, user)
    assert elsewhere.server.port == 1


@pytest.mark.parametrize(
    ("toml", "environ", "home", "origin"),
    [
        ("", {}, ".local/share/pagoda", "default"),
        ("", {"XDG_DATA_HOME": "{}/data"}, "data/pagoda", "default"),
        ("home = '{}/file'", {}, "file", "pagoda.toml"),
        ("home = '{}/file'", {"PAGODA_HOME": "{}/own"}, "own", "environment PAGODA_HOME"),
    ],
)
def test_home(toml: str, environ: dict[str, str], home: str, origin: str, tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        toml.format(tmp_path),
        {name: value.format(tmp_path) for name, value in environ.items()},
    )
    assert settings.home == tmp_path / home
    assert settings.origins["home"] == origin


def test_all_mistakes_are_reported_together_with_value_origin_and_rule(tmp_path: Path) -> None:
    toml = "[server]\nport = 99999\nmetrics = 'perhaps'\n[engines]\nthreads = 1.5\n[log]\nlevel = 'loud'\n"
    environ = {"PAGODA_SERVER_DRAIN_SECONDS": "soon", "PAGODA_MODELS_ALIASES": "gpt"}
    found = mistakes(tmp_path, toml, environ, {"engines.parallel": "-1"})
    file = tmp_path / "pagoda.toml"
    assert found == (
        f"server.port = 99999 (from {file}): must be at most 65535",
        f"server.metrics = 'perhaps' (from {file}): must be true or false",
        f"engines.threads = 1.5 (from {file}): must be a whole number",
        f"log.level = 'loud' (from {file}): must be one of debug, info, warning, error",
        "server.drain_seconds = 'soon' (from environment PAGODA_SERVER_DRAIN_SECONDS): must be a number",
        "models.aliases = 'gpt' (from environment PAGODA_MODELS_ALIASES): must be name=model pairs separated by commas",
        "engines.parallel = '-1' (from command line): must be at least 0",
    )
    message = str(ConfigError(found))
    assert message.startswith("7 settings are wrong:")
    assert all(mistake in message for mistake in found)
    assert str(ConfigError(found[:1])).startswith("1 setting is wrong:")


def test_misspelt_names_get_a_suggestion(tmp_path: Path) -> None:
    toml = "[servers]\nport = 1\n[server]\nprot = 1\n[log]\nzzzz = 1\n"
    section, setting, nothing, environment = mistakes(tmp_path, toml, {"PAGODA_ENGINES_PARALEL": "2"})
    assert section.startswith("[servers]")
    assert section.endswith("did you mean server?")
    assert setting.endswith("there is no such setting; did you mean server.port?")
    assert nothing.endswith("there is no such setting")
    assert environment.endswith("did you mean PAGODA_ENGINES_PARALLEL?")


def test_variables_of_other_tools_are_left_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"PAGODA_REQUIRE": "all", "PAGODA": "x", "SERVER_PORT": "1"})
    assert set(settings.origins) == {"home"}


@pytest.mark.parametrize("toml", ["[server\nport = 1\n", "[server]\nport = \n", "a = 1\na = 2\n"])
def test_a_broken_file_is_named_with_the_line(toml: str, tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, toml)
    assert mistake.startswith(f"{tmp_path / 'pagoda.toml'} cannot be read:")
    assert "line" in mistake


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "pagoda.toml").write_bytes(b"\xff\xfe\x00")
    (mistake,) = mistakes(tmp_path)
    assert str(tmp_path / "pagoda.toml") in mistake


def test_home_must_be_a_path(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "home = 3\n") == (f"home = 3 (from {tmp_path / 'pagoda.toml'}): must be a path",)
    assert "there is no such section" in mistakes(tmp_path, "port = 3\n")[0]


@given(st.text(min_size=1).filter(lambda text: text not in "***"))
def test_a_secret_shows_nowhere(text: str) -> None:
    secret = Secret(text)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, repr({"token": secret})]  # noqa: UP031
    assert all(text not in each.replace("token", "") for each in shown if len(text) > 3)
    assert (str(secret), repr(secret)) == ("***", "'***'")
    assert secret.reveal() == text
    assert secret == text


def test_secrets_stay_masked_in_settings_and_in_mistakes(tmp_path: Path) -> None:
    settings = load(
        tmp_path, environ={"PAGODA_MODELS_HUB_TOKEN": "hf_hidden", "PAGODA_STORAGE_URL": "postgresql://u:hidden@h/d"}
    )
    assert "hidden" not in repr(settings)
    assert "hidden" not in str(dataclasses.asdict(settings.models))
    assert settings.models.hub_token.reveal() == "hf_hidden"
    assert (str(Secret("")), repr(Secret(""))) == ("", "''")
    found = mistakes(tmp_path, "[models]\nhub_token = ['hidden']\n")
    assert "hidden" not in found[0]
    assert "models.hub_token = ***" in found[0]


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("server.metrics", "off", False),
        ("server.metrics", "YES", True),
        ("server.cors_origins", "http://a.example, http://b.example,", ("http://a.example", "http://b.example")),
        ("models.aliases", "gpt-4o-mini = a, b=c", {"gpt-4o-mini": "a", "b": "c"}),
        ("server.keepalive_seconds", "2.5", 2.5),
        ("server.port", "0", 0),
    ],
)
def test_text_of_environment_and_flags_becomes_a_value(key: str, text: str, value: Any, tmp_path: Path) -> None:
    option = next(option for option in OPTIONS if option.key == key)
    assert value_of(load(tmp_path, environ={option.env: text}), key) == value
    assert value_of(load(tmp_path, flags={key: text}), key) == value


@given(option=st.sampled_from(NUMBERS), number=st.floats() | st.integers())
def test_a_number_is_kept_within_its_bounds_or_refused(option: Option, number: float) -> None:
    environ = {"HOME": "/nonexistent", option.env: repr(number)}
    try:
        value = value_of(load_settings({}, environ, Path("/nonexistent")), option.key)
    except ConfigError as error:
        (mistake,) = error.mistakes
        assert mistake.startswith(f"{option.key} = ")
        return
    assert value == (float(number) if isinstance(value, float) else number)  # which has no integers from 2**53 on
    assert option.low is None or value >= option.low
    assert option.high is None or value <= option.high


@given(
    st.dictionaries(
        st.sampled_from([option.env for option in OPTIONS]), st.text(st.characters(exclude_categories=["Cs"]))
    )
)
def test_any_environment_gives_settings_or_one_error_with_a_sentence_a_mistake(environ: dict[str, str]) -> None:
    whole = {"HOME": "/nonexistent", **environ}
    wrong: tuple[str, ...] = ()
    try:
        assert len(load_settings({}, whole, Path("/nonexistent")).origins) == len(environ) + 1
    except ConfigError as error:
        wrong = error.mistakes
    assert len(wrong) <= len(environ)
    assert all("from environment PAGODA_" in mistake for mistake in wrong)


@given(
    aliases=st.dictionaries(st.text(min_size=1), st.text(), max_size=4),
    origins=st.lists(st.text(), max_size=4),
    port=st.integers(0, 65535),
)
def test_what_a_file_says_is_what_is_set(aliases: dict[str, str], origins: list[str], port: int) -> None:
    import tempfile

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

    table = "\n".join(f"{quoted(name)} = {quoted(model)}" for name, model in aliases.items())
    listed = ", ".join(map(quoted, origins))
    toml = f"[server]\nport = {port}\ncors_origins = [{listed}]\n[models.aliases]\n{table}\n"
    with tempfile.TemporaryDirectory() as name:
        settings = load(Path(name), toml)
    assert settings.server.port == port
    assert settings.server.cors_origins == tuple(origins)
    assert settings.models.aliases == aliases


def test_settings_do_not_change(tmp_path: Path) -> None:
    settings = load(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.home = tmp_path  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.origins["home"] = "me"  # type: ignore[index]
    settings.models.aliases["mine"] = "x"
    assert load(tmp_path).models.aliases == {}, "defaults are not shared between settings"
