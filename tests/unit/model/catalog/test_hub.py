"""Pulling from a hub: a server on loopback speaks its protocol, with every fault we know of."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import ConfigError, Forbidden, InvalidRequest, NotFound, StoreError, Unavailable
from pagoda.core.setting_values import Secret
from pagoda.model.catalog.catalog import Catalog
from pagoda.model.catalog.network import Network
from pagoda.model.catalog.opening import Shelf, obtain
from pagoda.model.catalog.store import ModelStore

REPOSITORY = "maker/Tiny-GGUF"


def shelf(models: Path, hub: Any, cache: Path | None = None, **network: Any) -> Shelf:
    catalog = Catalog(models)
    return Shelf(catalog, ModelStore(models, catalog.find, Network(hub_url=hub.url, **network), cache))


@pytest.fixture
def stocked(hub: Any, gguf: Callable[..., bytes]) -> Any:
    hub.files[REPOSITORY] = {
        "README.md": b"# Tiny",
        "tiny-Q8_0.gguf": gguf(pad=9000 * 4),
        "tiny-Q4_K_M.gguf": gguf(pad=300_000),
        "mmproj-tiny-f16.gguf": gguf(),
    }
    return hub


def test_pull_takes_the_preferred_file_and_registers_the_model(models: Path, stocked: Any) -> None:
    stages: list[tuple[str, int, int | None]] = []
    there = shelf(models, stocked)
    entry, path = obtain(there, REPOSITORY, lambda *step: stages.append(step))
    content = stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]
    assert path is not None
    assert path.name == "tiny-Q4_K_M.gguf"
    assert path.read_bytes() == content
    assert ("download", len(content), len(content)) in stages
    assert (entry.task, entry.engine, entry.context, dict(entry.sampling)) == (
        "chat",
        "llamacpp",
        2048,
        {"temperature": 0.5},
    )
    known = Catalog(models).resolve(REPOSITORY)
    assert known == entry
    assert there.store.state(known).state == "present"


@pytest.mark.parametrize("wanted", ["tiny-Q8_0.gguf", "Q8_0", "q8_0", "*q8*.gguf"])
def test_pull_takes_the_named_file(models: Path, stocked: Any, wanted: str) -> None:
    _, path = obtain(shelf(models, stocked), f"{REPOSITORY}:{wanted}")
    assert path is not None
    assert path.name == "tiny-Q8_0.gguf"


def test_pull_again_needs_no_network(models: Path, stocked: Any) -> None:
    obtain(shelf(models, stocked), REPOSITORY)
    asked = len(stocked.requests)
    offline = shelf(models, stocked, offline=True)
    _, path = obtain(offline, REPOSITORY)
    assert path == offline.store.locate(offline.catalog.resolve(REPOSITORY))
    assert len(stocked.requests) == asked


def test_a_cut_download_goes_on_where_it_stopped(models: Path, stocked: Any) -> None:
    stocked.cut_after = [100_000, 50_000]
    _, path = obtain(shelf(models, stocked), REPOSITORY)
    ranges = [headers.get("Range") for _, place, headers in stocked.requests if "/storage/" in place]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert path is not None
    assert path.read_bytes() == stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]


def test_a_later_process_goes_on_where_one_gave_up(models: Path, stocked: Any) -> None:
    stocked.cut_after = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(Unavailable, match="goes on where it stopped") as caught:
        obtain(shelf(models, stocked), REPOSITORY)
    assert caught.value.retryable
    stocked.cut_after = []
    obtain(shelf(models, stocked), REPOSITORY)
    assert stocked.requests[-1][2]["Range"] == "bytes=100000-"


def test_a_server_without_ranges_is_read_from_the_start(models: Path, stocked: Any) -> None:
    stocked.cut_after = [100_000]
    stocked.ignores_ranges = True
    _, path = obtain(shelf(models, stocked), REPOSITORY)
    assert path is not None
    assert path.read_bytes() == stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]


def test_wrong_content_is_refused_and_not_kept(models: Path, stocked: Any) -> None:
    stocked.spoil = True
    there = shelf(models, stocked)
    with pytest.raises(StoreError, match="differs from what the hub announced"):
        obtain(there, REPOSITORY)
    assert not list(models.rglob("*.gguf"))
    stocked.spoil = False
    obtain(there, REPOSITORY)


def test_a_mirror_without_digests_in_its_listing_is_asked_file_by_file(models: Path, stocked: Any) -> None:
    stocked.lists_blobs = False
    _, path = obtain(shelf(models, stocked), REPOSITORY)
    assert path is not None
    assert path.read_bytes() == stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]


def test_the_token_opens_gated_repositories_and_reaches_the_hub_alone(models: Path, stocked: Any) -> None:
    stocked.gated = {REPOSITORY}
    stocked.token = "hf_secret"
    with pytest.raises(Forbidden, match=r"models\.hub_token"):
        obtain(shelf(models, stocked), REPOSITORY)
    obtain(shelf(models, stocked, hub_token=Secret("hf_secret")), REPOSITORY)
    stored = [headers for _, path, headers in stocked.requests if "/storage/" in path]
    assert stored
    assert not any("Authorization" in headers for headers in stored)


def test_what_does_not_exist_is_named(models: Path, stocked: Any) -> None:
    there = shelf(models, stocked)
    with pytest.raises(NotFound, match="maker/None"):
        obtain(there, "maker/None")
    with pytest.raises(NotFound, match=r"no such revision.*@v9"):
        obtain(there, f"{REPOSITORY}@v9")
    with pytest.raises(NotFound, match=r"it has .*tiny-Q8_0\.gguf"):
        obtain(there, f"{REPOSITORY}:Q2_K")


def test_pickles_are_never_fetched(models: Path, hub: Any) -> None:
    hub.files["maker/old"] = {"config.json": b"{}", "pytorch_model.bin": b"pickle"}
    with pytest.raises(InvalidRequest, match="pickles, which Pagoda never loads"):
        obtain(shelf(models, hub), "maker/old")
    assert not hub.paths("resolve")


def test_a_checkpoint_comes_without_its_other_formats(models: Path, hub: Any) -> None:
    hub.files["maker/model"] = {
        "config.json": b'{"max_position_embeddings": 128, "hidden_size": 8}',
        "generation_config.json": b'{"temperature": 0.7, "top_p": 0.8}',
        "tokenizer_config.json": b'{"chat_template": "x"}',
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": b"onnx",
        "modeling_own.py": b"code",
    }
    entry, path = obtain(shelf(models, hub), "maker/model")
    assert path is not None
    assert sorted(file.name for file in path.iterdir() if file.name != "record.json") == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer_config.json",
    ]
    assert (entry.engine, entry.task, entry.context) == ("transformers", "chat", 128)
    assert dict(entry.sampling) == {"temperature": 0.7, "top_p": 0.8}


def test_a_repository_cannot_write_outside_its_folder(models: Path, hub: Any, gguf: Callable[..., bytes]) -> None:
    hub.files["maker/evil"] = {"../../evil.gguf": gguf()}
    with pytest.raises(StoreError, match="outside its folder"):
        obtain(shelf(models, hub), "maker/evil")


def test_a_broken_model_on_the_hub_is_refused(models: Path, hub: Any) -> None:
    hub.files["maker/broken"] = {"broken.gguf": b"<html>not a model</html>"}
    with pytest.raises(StoreError, match="not a GGUF file"):
        obtain(shelf(models, hub), "maker/broken")


def test_a_hub_in_trouble_is_asked_again(models: Path, stocked: Any) -> None:
    stocked.failures = [503, 502]
    obtain(shelf(models, stocked), REPOSITORY)
    stocked.failures = [503] * 20
    with pytest.raises(Unavailable, match="503"):
        obtain(shelf(models, stocked), f"{REPOSITORY}:Q8_0")


def test_no_network_is_one_sentence_that_says_what_to_do(models: Path, hub: Any) -> None:
    nowhere = type("Nowhere", (), {"url": "http://127.0.0.1:9"})
    with pytest.raises(Unavailable) as caught:
        obtain(shelf(models, nowhere), REPOSITORY)
    assert "Check the network" in caught.value.message
    assert "\n" not in caught.value.message
    with pytest.raises(Unavailable, match=r"models\.offline"):
        obtain(shelf(models, hub, offline=True), REPOSITORY)


def test_something_that_is_no_hub_is_recognised(models: Path, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.loads", lambda *_: {"hello": "world"})
    hub.files[REPOSITORY] = {}
    with pytest.raises(Unavailable, match="does not answer as a Hugging Face hub"):
        obtain(shelf(models, hub), REPOSITORY)


def test_downloads_go_through_the_proxy_of_the_settings(models: Path, stocked: Any, proxy: Any) -> None:
    obtain(shelf(models, stocked, proxy=proxy.url), REPOSITORY)
    assert any("/api/models/" in line for line in proxy.seen)
    assert any("/storage/" in line for line in proxy.seen)


def test_downloads_go_through_the_proxy_of_the_environment(
    models: Path, stocked: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    obtain(shelf(models, stocked), REPOSITORY)
    assert proxy.seen


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A private certificate authority's file, and a context with a certificate it signed for this machine."""
    if not shutil.which("openssl"):
        reason = "openssl is not installed, with which a private CA is made"
        pytest.fail(reason) if os.environ.get("PAGODA_REQUIRE") == "all" else pytest.skip(reason)
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    commands = [
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=private-ca"
        " -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
        "openssl req -newkey rsa:2048 -nodes -keyout hub.key -out hub.csr -subj /CN=localhost",
        "openssl x509 -req -in hub.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out hub.pem -days 2 -extfile names",
    ]
    (tmp_path / "names").write_text(names)
    for command in commands:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "hub.pem", tmp_path / "hub.key")
    return tmp_path / "ca.pem", context


def test_a_private_authority_is_trusted_when_named(
    models: Path,
    start_hub: Any,
    proxy: Any,
    gguf: Callable[..., bytes],
    authority: tuple[Path, ssl.SSLContext],
) -> None:
    bundle, context = authority
    hub = start_hub(context)
    hub.files[REPOSITORY] = {"tiny.gguf": gguf()}
    with pytest.raises(Unavailable, match=r"not trusted.*models\.ca_bundle") as caught:
        obtain(shelf(models, hub), REPOSITORY)
    assert not caught.value.retryable
    obtain(shelf(models, hub, ca_bundle=str(bundle)), REPOSITORY)
    obtain(shelf(models / "other", hub, ca_bundle=str(bundle), proxy=proxy.url), REPOSITORY)
    assert any(line.startswith("CONNECT 127.0.0.1:") for line in proxy.seen)


def test_a_wrong_authority_file_is_a_mistake_in_the_settings(models: Path, hub: Any, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"models\.ca_bundle"):
        obtain(shelf(models, hub, ca_bundle=str(tmp_path / "ca.pem")), REPOSITORY)


@pytest.fixture
def cache(tmp_path: Path, stocked: Any) -> Path:
    """A Hugging Face cache that another program filled."""
    folder = tmp_path / "cache" / "models--maker--Tiny-GGUF"
    content = stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    snapshot = folder / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    for made in (blob.parent, snapshot, folder / "refs"):
        made.mkdir(parents=True)
    blob.write_bytes(content)
    (snapshot / "tiny-Q4_K_M.gguf").symlink_to(blob)
    (folder / "refs" / "main").write_text(snapshot.name)
    return tmp_path / "cache"


@pytest.mark.parametrize("offline", [False, True])
def test_an_existing_hugging_face_cache_is_used(models: Path, stocked: Any, cache: Path, offline: bool) -> None:
    _, path = obtain(shelf(models, stocked, cache, offline=offline), REPOSITORY)
    assert path is not None
    assert path.read_bytes() == stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]
    assert not stocked.paths("/storage/")


def test_a_spoilt_cache_is_not_trusted(models: Path, stocked: Any, cache: Path) -> None:
    blob = next((cache / "models--maker--Tiny-GGUF" / "blobs").iterdir())
    blob.write_bytes(bytes(blob.stat().st_size))
    _, path = obtain(shelf(models, stocked, cache), REPOSITORY)
    assert path is not None
    assert path.read_bytes() == stocked.files[REPOSITORY]["tiny-Q4_K_M.gguf"]
    assert stocked.paths("/storage/")


def test_shards_come_together(models: Path, hub: Any, gguf: Callable[..., bytes]) -> None:
    hub.files["maker/big"] = {f"big-q4_k_m-0000{part}-of-00002.gguf": gguf(pad=4 * part * 999) for part in (1, 2)}
    entry, path = obtain(shelf(models, hub), "maker/big", as_name="big")
    assert path is not None
    assert entry.id == "big"
    assert path.name == "big-q4_k_m-00001-of-00002.gguf"
    assert (path.parent / "big-q4_k_m-00002-of-00002.gguf").is_file()
