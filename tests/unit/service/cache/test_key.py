"""The key: everything that may change an answer changes it, and nothing else does."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pagoda.core.errors import InvalidRequest
from pagoda.core.types import Embed, Generation, OutputFormat, Sampling, Toolset, ToolSpec
from pagoda.model.catalog.entry import Adapter, HubFiles, LocalPath, ModelEntry, Pool, RemoteAddress
from pagoda.model.catalog.identity import ModelIdentities
from pagoda.model.catalog.record import Record, write_record
from pagoda.model.catalog.store import ModelStore
from pagoda.model.engines.contract import Room
from pagoda.service.cache.key import SILENT_ROOM, cache_key
from tests.services import fake_model

MODEL = fake_model()
ROOM = Room(threads=2, parallel=4, context=512)

numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-10, max_value=10)
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=20)}),
    min_size=1,
    max_size=3,
).map(tuple)
samplings = st.builds(
    Sampling,
    temperature=st.none() | numbers,
    top_p=st.none() | numbers,
    top_k=st.none() | st.integers(0, 100),
    min_p=st.none() | numbers,
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    frequency_penalty=st.none() | numbers,
    presence_penalty=st.none() | numbers,
    repetition_penalty=st.none() | numbers,
    logit_bias=st.none() | st.dictionaries(st.integers(0, 99), numbers, max_size=3),
)
outputs = st.none() | st.builds(
    OutputFormat,
    kind=st.sampled_from(["json_object", "json_schema"]),
    name=st.text(max_size=5),
    schema=st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
toolsets = st.none() | st.builds(
    Toolset,
    tools=st.lists(st.builds(ToolSpec, name=st.text(max_size=5), description=st.text(max_size=5)), max_size=2).map(
        tuple
    ),
    mode=st.sampled_from(["auto", "none", "required"]),
    only=st.none() | st.text(max_size=5),
    parallel=st.booleans(),
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.text(max_size=5),
    "messages": st.none() | messages,
    "prompt": st.none() | st.text(max_size=20) | st.lists(st.integers(0, 99), max_size=5).map(tuple),
    "sampling": samplings,
    "max_tokens": st.none() | st.integers(1, 100),
    "stop": st.lists(st.text(max_size=5), max_size=3).map(tuple),
    "n": st.integers(1, 5),
    "top_logprobs": st.none() | st.integers(0, 20),
    "output": outputs,
    "continue_final": st.booleans(),
    "echo": st.booleans(),
    "reasoning": st.sampled_from(["separate", "hidden", "inline"]),
    "toolset": toolsets,
}
EMBED_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.text(max_size=5),
    "inputs": st.lists(st.text(max_size=9) | st.lists(st.integers(0, 99), max_size=3).map(tuple), max_size=3).map(
        tuple
    ),
    "kind": st.sampled_from(["raw", "query", "passage"]),
    "dimensions": st.none() | st.integers(1, 9),
}


def digest(
    request: Generation | Embed,
    tenant: str = "local",
    model: ModelEntry = MODEL,
    identity: bytes = b"id",
    room: Room = ROOM,
) -> bytes:
    return cache_key(tenant, model, identity, room, request).digest


def test_the_strategies_know_every_field() -> None:
    """A field added to a request must be added here; the key has it already."""
    assert set(FIELDS) == {field.name for field in dataclasses.fields(Generation)}
    assert set(EMBED_FIELDS) == {field.name for field in dataclasses.fields(Embed)}


@given(data=st.data())
def test_changing_any_field_changes_the_key(data: st.DataObject) -> None:
    kind, fields = data.draw(st.sampled_from([(Generation, FIELDS), (Embed, EMBED_FIELDS)]))
    first = kind(**{name: data.draw(values) for name, values in fields.items()})
    name = data.draw(st.sampled_from(sorted(set(fields) - {"model"})))
    other = data.draw(fields[name].filter(lambda value: not same(value, getattr(first, name))))
    assert digest(first) != digest(dataclasses.replace(first, **{name: other}))
    assert digest(first) == digest(dataclasses.replace(first, model="another name of the same model"))


def same(left: Any, right: Any) -> bool:
    """As an engine sees it: 1 and 1.0 may differ, True and 1 do."""
    return left == right and type(left) is type(right)


@given(sampling=samplings, other=samplings, field=st.sampled_from([f.name for f in dataclasses.fields(Sampling)]))
def test_changing_any_way_of_drawing_changes_the_key(sampling: Sampling, other: Sampling, field: str) -> None:
    changed = dataclasses.replace(sampling, **{field: getattr(other, field)})
    request = Generation(model="m", prompt="p", sampling=sampling)
    assert (digest(request) == digest(dataclasses.replace(request, sampling=changed))) == (sampling == changed)


@given(
    tenants=st.lists(st.text(max_size=8), min_size=2, max_size=2, unique=True),
    identities=st.lists(st.binary(max_size=8), min_size=2, max_size=2, unique=True),
)
def test_tenant_and_model_files_are_part_of_it(tenants: list[str], identities: list[bytes]) -> None:
    request = Generation(model="m", prompt="p")
    keys = {digest(request, tenant=tenant, identity=identity) for tenant in tenants for identity in identities}
    assert len(keys) == 4


def test_the_engine_and_its_room_are_part_of_it() -> None:
    request = Generation(model="m", prompt="p")
    changes: list[dict[str, Any]] = [{f.name: 77} for f in dataclasses.fields(Room) if f.name not in SILENT_ROOM]
    rooms = [dataclasses.replace(ROOM, **change) for change in changes]
    assert rooms
    other_engine = dataclasses.replace(MODEL, engine="llamacpp")
    keys = [digest(request), digest(request, model=other_engine), *(digest(request, room=room) for room in rooms)]
    assert len(set(keys)) == len(keys)
    for silent in SILENT_ROOM:
        change: dict[str, Any] = {silent: 3}
        assert digest(request, room=dataclasses.replace(ROOM, **change)) == keys[0]


def test_a_text_and_its_neighbours_are_told_apart() -> None:
    """Nothing is normalised, and no two fields can run into each other."""
    texts = ["é", "e\u0301", " a", "a", "a ", "A", "ａ", "a\n", "", "[]", "null"]
    keys = {digest(Generation(model="m", prompt=text)) for text in texts}
    keys |= {digest(Generation(model="m", prompt=(1, 2))), digest(Generation(model="m", prompt=()))}
    keys |= {digest(Embed(model="m", inputs=(text,))) for text in texts}
    keys |= {digest(Embed(model="m", inputs=("a", "b"))), digest(Embed(model="m", inputs=("ab",)))}
    assert len(keys) == 2 * len(texts) + 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, order: random.Random) -> Any:
    if isinstance(value, dict):
        names = list(value)
        order.shuffle(names)
        return MappingProxyType({name: shuffled(value[name], order) for name in names})
    return [shuffled(item, order) for item in value] if isinstance(value, list) else value


@given(schema=st.dictionaries(st.text(max_size=5), json_values, max_size=5), order=st.randoms(use_true_random=False))
def test_the_order_of_json_keys_does_not_matter(schema: dict[str, Any], order: random.Random) -> None:
    def request(value: Any) -> Generation:
        output = OutputFormat(kind="json_schema", schema=value)
        return Generation(model="m", messages=({"role": "user", "content": json.dumps(schema)},), output=output)

    assert digest(request(schema)) == digest(request(shuffled(schema, order)))


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cannot be written as JSON"):
        digest(Generation(model="m", prompt="\ud800"))


def no_member(name: str) -> ModelEntry:
    raise AssertionError(f"{name} is no pool's member")


def identity(store: ModelStore, model: ModelEntry) -> bytes | None:
    return ModelIdentities(store, no_member).of(model)


def test_a_models_identity_follows_its_files(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", lambda name: MODEL)
    path = tmp_path / "a.gguf"
    local = dataclasses.replace(MODEL, source=LocalPath(path=str(path)))
    assert identity(store, local) is None, "a file that is not here could become any file"
    path.write_bytes(b"one")
    first = identity(store, local)
    path.write_bytes(b"other")
    assert first is not None
    assert identity(store, local) != first


def test_a_models_identity_follows_what_was_fetched(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, lambda name: MODEL)
    model = dataclasses.replace(MODEL, source=HubFiles(repository="a/b"))
    identities = ModelIdentities(store, no_member)
    assert identities.of(model) is None
    seen = set()
    for content in ("aa", "bbb"):
        from pagoda.model.catalog.entry import FileSpec

        folder = store.folder(model)
        folder.mkdir(parents=True, exist_ok=True)
        files = (FileSpec(name="m.gguf", size=len(content), sha256=content * 8),)
        write_record(folder, Record(source={}, files=files, ready="m.gguf"))
        seen |= {identities.of(model), identities.of(model)}
    assert len(seen) == 2
    assert None not in seen


def test_an_adapters_identity_follows_its_files_and_its_base(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models", no_member)
    weights = tmp_path / "base.gguf"
    weights.write_bytes(b"base")
    base = ModelEntry(id="base", task="chat", engine="llamacpp", source=LocalPath(path=str(weights)))
    adapter = ModelEntry(
        id="tuned", task="chat", engine="llamacpp", source=Adapter(base="base", path=str(tmp_path / "tuned"))
    )
    identities = ModelIdentities(store, lambda _: base)
    assert identities.of(adapter) is None, "its files are not here"

    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "adapter_config.json").write_text("{}")
    file = tmp_path / "tuned" / "adapter_model.safetensors"
    file.write_bytes(b"first")
    first = identities.of(adapter)
    assert first is not None
    assert identities.of(adapter) == first
    file.write_bytes(b"trained again")
    again = identities.of(adapter)
    assert again not in (None, first)
    weights.write_bytes(b"another base")
    assert identities.of(adapter) not in (None, first, again)


def test_a_models_identity_is_its_entry_without_words_for_people(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, lambda name: MODEL)
    same_model = dataclasses.replace(MODEL, description={"en": "x"}, aliases=("y",), licence="z", languages=("en",))
    assert identity(store, MODEL) == identity(store, same_model)
    others = [
        dataclasses.replace(MODEL, sampling={"temperature": 0.5}),
        dataclasses.replace(MODEL, context=7),
        fake_model(first_seconds=1),
        dataclasses.replace(MODEL, source=RemoteAddress(url="http://a", model="m")),
        dataclasses.replace(MODEL, source=RemoteAddress(url="http://b", model="m")),
        dataclasses.replace(MODEL, source=RemoteAddress(url="http://b", model="n")),
    ]
    assert len({identity(store, model) for model in (MODEL, *others)}) == len(others) + 1


def test_a_pools_identity_follows_the_files_of_its_members(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    member = dataclasses.replace(MODEL, id="a", source=LocalPath(path=str(path)))
    pool = dataclasses.replace(MODEL, id="pool", source=Pool(members=("a", "b http://127.0.0.1:1/v1")))
    identities = ModelIdentities(ModelStore(tmp_path / "models", lambda name: MODEL), {"a": member}.__getitem__)
    assert identities.of(pool) is None, "a file that is not here could become any file"
    path.write_bytes(b"one")
    first = identities.of(pool)
    assert first is not None
    assert identities.of(pool) == first
    path.write_bytes(b"other")
    assert identities.of(pool) not in (None, first)
