"""Names: what the catalog knows, what it refuses, and how it stays the same for all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.entry import EmbeddingForm, HubFiles, LocalPath, ModelEntry, RemoteAddress
from pagoda.model.catalog.entry_file import entry_data, entry_from, read_entry, write_entry
from pagoda.model.catalog.reference import HubReference, check_id, make_id, parse_reference

REMOTE = RemoteAddress(url="http://127.0.0.1:11434/v1", model="llama3.2", key_env="KEY")


def remote(name: str) -> ModelEntry:
    return ModelEntry(id=name, task="chat", engine="remote", source=REMOTE)


def test_three_models_come_with_pagoda_and_one_on_demand(models: Path) -> None:
    entries = Catalog(models).entries()
    assert [entry.id for entry in entries if entry.optional] == ["smollm2-135m-instruct-hf"]
    built_in = {entry.id: entry for entry in entries if not entry.optional}
    assert list(built_in) == ["smollm2-135m-instruct", "all-minilm-l6-v2", "multilingual-e5-small"]
    assert [entry.engine for entry in built_in.values()] == ["llamacpp", "onnxruntime", "onnxruntime"]
    assert all(entry.builtin for entry in built_in.values())
    assert all({"en", "zh"} <= set(entry.description) and entry.licence for entry in built_in.values())
    e5 = built_in["multilingual-e5-small"]
    assert (e5.dimensions, e5.context) == (384, 512)
    assert e5.embedding == EmbeddingForm(query_prefix="query: ", passage_prefix="passage: ", normal_form="NFKC")
    assert not models.exists()


def test_a_user_entry_is_seen_by_every_process(models: Path) -> None:
    one, other = Catalog(models), Catalog(models)
    assert other.entries()
    one.add(remote("llama"))
    assert other.resolve("llama").source == REMOTE
    one.remove("llama")
    with pytest.raises(NotFound):
        other.resolve("llama")


async def test_on_an_event_loop_a_change_elsewhere_is_seen_in_the_next_turn(models: Path) -> None:
    one, other = Catalog(models), Catalog(models)
    one.add(remote("llama"))
    assert other.resolve("llama").source == REMOTE
    one.remove("llama")
    assert other.resolve("llama").source == REMOTE
    await asyncio.sleep(0)
    with pytest.raises(NotFound):
        other.resolve("llama")
    other.add(remote("own"))
    assert other.resolve("own").source == REMOTE


def test_an_unknown_model_names_those_there_are_and_a_close_one(models: Path) -> None:
    with pytest.raises(NotFound, match=r"smollm2-135m-instruct, .*Did you mean multilingual-e5-small\?"):
        Catalog(models).resolve("multilingual-e5-smal")


def test_aliases_lead_to_models(models: Path) -> None:
    catalog = Catalog(
        models, {"gpt-4o-mini": "fast", "fast": "smollm2-135m-instruct", "a": "b", "b": "a", "x": "nothing"}
    )
    assert catalog.resolve("gpt-4o-mini").id == "smollm2-135m-instruct"
    assert catalog.names_of(catalog.resolve("fast")) == ["fast"]
    with pytest.raises(InvalidRequest, match="circle"):
        catalog.resolve("a")
    with pytest.raises(NotFound, match="alias x leads to nothing"):
        catalog.resolve("x")


def test_an_alias_may_lead_to_a_repository(models: Path) -> None:
    entry = Catalog(models, {"qwen": "Qwen/Qwen3-4B-GGUF:Q8_0"}).resolve("qwen")
    assert entry.source == HubFiles(repository="Qwen/Qwen3-4B-GGUF", files=("Q8_0",))


def test_only_the_operator_reaches_files_and_repositories(
    models: Path, tmp_path: Path, gguf: Callable[..., bytes]
) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    catalog = Catalog(models)
    for name in (str(path), "Qwen/Qwen3-4B-GGUF"):
        with pytest.raises(NotFound):
            catalog.resolve(name)
    own = catalog.refer(str(path))
    assert (own.source, own.context, own.task) == (LocalPath(path=str(path)), 2048, "chat")
    assert catalog.refer("Qwen/Qwen3-4B-GGUF").engine == "llamacpp"
    with pytest.raises(NotFound, match="There is no file"):
        catalog.refer("./gone.gguf")


def test_builtin_entries_stay_and_names_are_unique(models: Path) -> None:
    catalog = Catalog(models)
    with pytest.raises(InvalidRequest, match="stays in the catalog"):
        catalog.remove("all-minilm-l6-v2")
    with pytest.raises(Conflict, match="comes with Pagoda"):
        catalog.add(remote("all-minilm-l6-v2"))
    catalog.add(remote("llama"))
    with pytest.raises(Conflict, match="already a model llama"):
        catalog.add(remote("llama"))


@pytest.mark.parametrize(
    "name", ["../evil", "a/b", "a\\b", "..", "", ".hidden", "a..b", "con", "x" * 200, "a\0b", "a\n"]
)
def test_names_that_could_leave_their_folder_are_refused(models: Path, name: str) -> None:
    catalog = Catalog(models)
    with pytest.raises(InvalidRequest):
        catalog.add(remote(name))
    with pytest.raises((InvalidRequest, NotFound)):
        catalog.remove(name)
    assert not list(models.rglob("*"))


@settings(deadline=None)
@given(st.text())
@example("con")
@example("...")
def test_any_text_becomes_a_valid_id(text: str) -> None:
    made = make_id(text)
    assert check_id(made) == made
    assert Path("entries", made).parent == Path("entries")


@settings(deadline=None)
@given(st.text(min_size=1))
@example("~nobody/x")
@example("~\0")
def test_a_reference_to_a_hub_never_leaves_it(text: str) -> None:
    parsed = parse_reference(text)
    if isinstance(parsed, HubReference):
        assert parsed.repository.count("/") == 1
        assert ".." not in text
        assert str(parsed).split("@")[0].split(":")[0] == parsed.repository


def test_references_are_read() -> None:
    assert parse_reference("org/name") == HubReference("org/name")
    assert parse_reference("org/name@v1:f.gguf") == HubReference("org/name", "v1", "f.gguf")
    assert parse_reference("org/name:Q8_0") == HubReference("org/name", "main", "Q8_0")
    assert parse_reference("./x.gguf") == Path("x.gguf").absolute()
    assert parse_reference("gpt-4o-mini") is None
    assert parse_reference("a/b/c") is None


def test_entries_survive_their_file(models: Path) -> None:
    for entry in [*Catalog(models).entries(), remote("llama"), Catalog(models).refer("org/x@main:y.gguf")]:
        assert read_entry(write_entry(entry), "here").id == entry.id
        assert entry_from(entry_data(entry), "here") == entry


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "not YAML"),
        ("id: x", "table with a source"),
        ("{id: x, task: chat, engine: e, source: {kind: magic}}", "source.kind is 'magic'"),
        ("{id: x, task: sing, engine: e, source: {kind: path, path: /x}}", "task"),
        ("{id: x, task: chat, engine: e, source: {kind: path, path: /x}, contxt: 1}", "no field 'contxt'"),
        ("{id: ../x, task: chat, engine: e, source: {kind: path, path: /x}}", "cannot name a model"),
    ],
)
def test_a_wrong_entry_file_is_named_with_its_fault(models: Path, text: str, why: str) -> None:
    (models / "entries").mkdir(parents=True)
    (models / "entries" / "mine.yaml").write_text(text)
    with pytest.raises(StoreError, match=r"mine\.yaml") as caught:
        Catalog(models).entries()
    assert why in caught.value.message
