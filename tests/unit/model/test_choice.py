"""Which engine runs a model that is named by a path: the rule as a table, and how its facts are found."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from pagoda.core.errors import Unavailable
from pagoda.model.catalog.entry import LocalPath, ModelEntry, Scripted
from pagoda.model.engines.choice import CATALOG_SAYS, PACKAGES, Choice, Facts, choose, choose_for

ALL = ("llamacpp", "onnxruntime", "transformers", "vllm")
EMPTY_GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)


@pytest.mark.parametrize(
    ("form", "embeds", "cuda", "installed", "engine", "reason"),
    [
        ("gguf", False, False, ALL, "llamacpp", "GGUF file"),
        ("gguf", False, True, ALL, "llamacpp", "GGUF file"),
        ("gguf", True, False, ("llamacpp",), "llamacpp", "GGUF file"),
        ("checkpoint", False, False, ALL, "transformers", "safetensors checkpoint, no GPU"),
        ("checkpoint", False, True, ALL, "vllm", "safetensors checkpoint, CUDA and vllm installed"),
        ("checkpoint", False, True, ("transformers",), "transformers", "safetensors checkpoint, CUDA without vllm"),
        ("checkpoint", True, True, ALL, "transformers", "safetensors checkpoint of an embedding model"),
        ("checkpoint", False, True, ("vllm",), "vllm", "safetensors checkpoint, CUDA and vllm installed"),
    ],
)
def test_the_engine_and_why(
    form: Any, embeds: bool, cuda: bool, installed: tuple[str, ...], engine: str, reason: str
) -> None:
    facts = Facts(form=form, embeds=embeds, cuda=cuda, installed=frozenset(installed))
    assert choose(facts) == Choice(engine, reason)


@pytest.mark.parametrize(("installed", "engine"), [(ALL, "onnxruntime"), (("llamacpp",), "llamacpp")])
def test_a_bert_encoder_in_a_gguf_file_is_for_onnxruntime_where_it_is_installed(
    installed: tuple[str, ...], engine: str
) -> None:
    facts = Facts(form="gguf", embeds=True, encodes=True, cuda=True, installed=frozenset(installed))
    assert choose(facts).engine == engine


@pytest.mark.parametrize(
    ("form", "embeds", "cuda", "installed", "says"),
    [
        ("gguf", False, True, ("transformers", "vllm"), "pip install xllamacpp"),
        ("checkpoint", False, False, ("llamacpp", "vllm"), r"pip install 'pagoda-llm\[train\]'"),
        ("checkpoint", True, True, ("llamacpp", "vllm"), r"pip install 'pagoda-llm\[train\]'"),
    ],
)
def test_when_nothing_can_run_it_what_to_install_is_said(
    form: Any, embeds: bool, cuda: bool, installed: tuple[str, ...], says: str
) -> None:
    with pytest.raises(Unavailable, match=says) as caught:
        choose(Facts(form=form, embeds=embeds, cuda=cuda, installed=frozenset(installed)))
    assert not caught.value.retryable


def test_facts_come_from_the_files_and_the_installed_packages(tmp_path: Path) -> None:
    entry = ModelEntry(id="x", task="chat", engine="transformers", source=LocalPath(path=str(tmp_path)))

    def without(*missing: str) -> Any:
        return lambda package: None if package in missing else object()

    assert choose_for(entry, tmp_path, without("vllm")).engine == "transformers"
    file = tmp_path / "model.gguf"
    file.write_bytes(EMPTY_GGUF)
    assert choose_for(entry, file, without("vllm", *PACKAGES["transformers"])).engine == "llamacpp"
    for package in PACKAGES["transformers"]:
        with pytest.raises(Unavailable, match="transformers, which is not installed"):
            choose_for(entry, tmp_path, without("vllm", package))


def test_an_entry_that_is_no_file_of_the_users_keeps_its_engine() -> None:
    entry = ModelEntry(id="x", task="chat", engine="fake", source=Scripted())
    assert choose_for(entry, None) == Choice("fake", CATALOG_SAYS)
