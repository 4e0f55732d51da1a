"""The derived GGUF files against their references: sentence-transformers on torch, and the E5 wheel's own engine."""

from __future__ import annotations

import asyncio
import ctypes
import json
import shutil
import statistics
import subprocess
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagoda.core.types import InputKind
from pagoda.model.catalog.entry import EmbeddingForm
from pagoda.model.catalog.opening import Shelf

xllamacpp = pytest.importorskip("xllamacpp")
pytestmark = [pytest.mark.real_model, pytest.mark.timeout(300)]

ENGINES = ("onnxruntime", "llamacpp")
TEXTS = [
    "hello",
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog. " * 8 + "The end.",
    "Émile Zola wrote “J’accuse…!” in 1898 — naïve cafe\u0301.",
    "def f(x):\n\treturn x ** 2  # squares",
    "two  spaces,   three   spaces",
    "你好",
    "什么是机器学习？机器学习是人工智能的一个分支。",
    "深圳市位于中国广东省，是中国的经济特区之一。" * 12,
    "2024年，ＡＢＣ公司发布了iPhone手机①。",
    "第一行\n第二行\t缩进\u3000全角空格\u200b零宽",
    "한국어 문장과 日本語の文章、Русский текст, العربية",
    "emoji 👍🏽 and math ∑ x² ≤ ½",
]


class Encoded:
    """The encoder of the onnxruntime engine over one file, without its server."""

    def __init__(self, path: Path) -> None:
        from pagoda.model.engines.onnxruntime_child.encoder import Encoder

        self._encoder = Encoder({"path": str(path), "context": 512, "threads": 2, "spin": 0})

    def embed(self, text: str) -> Any:
        return np.frombuffer(asyncio.run(self._encoder.embed([self.tokens(text)]))[0], "<f4")

    def tokens(self, text: str) -> list[int]:
        return self._encoder.ids_of([text], special=True, parse=True)[0]


class Served:
    """A bare llama.cpp server over one file."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def embed(self, text: str) -> Any:
        return np.array(self.post("/v1/embeddings", {"input": text})["data"][0]["embedding"])

    def tokens(self, text: str) -> list[int]:
        body = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self.post("/tokenize", body)["tokens"]
        return ids


@contextmanager
def serve(path: Path) -> Iterator[Served]:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.embedding = True
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    try:
        yield Served(server)
    finally:
        del server


def cosine(one: Any, other: Any) -> float:
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


@contextmanager
def started(engine: str, builtin_models: Shelf, name: str) -> Iterator[Served | Encoded]:
    path = builtin_models.store.locate(builtin_models.catalog.resolve(name))
    assert path is not None
    if engine == "onnxruntime":
        yield Encoded(path)
    else:
        with serve(path) as served:
            yield served


@pytest.fixture(scope="module", params=ENGINES)
def minilm(request: pytest.FixtureRequest, builtin_models: Shelf) -> Iterator[Served | Encoded]:
    with started(request.param, builtin_models, "all-minilm-l6-v2") as found:
        yield found


@pytest.fixture(scope="module")
def minilm_form(builtin_models: Shelf) -> EmbeddingForm:
    return builtin_models.catalog.resolve("all-minilm-l6-v2").embedding


@pytest.fixture(scope="module")
def sentence_transformer(builtin_models: Shelf, skip_or_fail: Callable[[str], None]) -> Any:
    checkpoint = builtin_models.store.locate(builtin_models.catalog.find("all-minilm-l6-v2-checkpoint"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not ours: the import of torch warns about itself
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            skip_or_fail("sentence-transformers is not installed; `pip install pagoda-llm[train]`")
        model = SentenceTransformer(str(checkpoint), device="cpu")
    model.max_seq_length = 512
    return model


@pytest.mark.parametrize("text", TEXTS)
def test_minilm_gives_the_vectors_of_sentence_transformers(
    minilm: Served | Encoded, minilm_form: EmbeddingForm, sentence_transformer: Any, text: str
) -> None:
    reference = sentence_transformer.encode(text)
    assert cosine(minilm.embed(minilm_form.prepare(text, "raw")), reference) >= 0.9999


@pytest.mark.parametrize("text", TEXTS)
def test_minilm_gives_the_tokens_of_the_hugging_face_tokenizer(
    minilm: Served | Encoded, minilm_form: EmbeddingForm, sentence_transformer: Any, text: str
) -> None:
    reference = sentence_transformer.tokenizer(text)["input_ids"]
    assert minilm.tokens(minilm_form.prepare(text, "raw")) == reference


WRAPPER = """
#include "e5.c"
int token_ids(e5_model *m, const char *text, int *out, int room) { return tok_content(&m->tok, text, out, room); }
"""


class WheelEngine:
    """The engine that comes in the E5 wheel, compiled from its source."""

    def __init__(self, library: Path, model: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.e5_load.restype = ctypes.c_void_p
        self._model = ctypes.c_void_p(self._library.e5_load(str(model).encode()))
        assert self._model.value, "the wheel's engine cannot load its model"

    def embed(self, text: str, kind: InputKind) -> Any:
        out = (ctypes.c_float * 384)()
        self._library.e5_embed(self._model, text.encode(), int(kind == "query"), out)
        return np.array(out)

    def tokens(self, text: str) -> list[int]:
        out = (ctypes.c_int * 4096)()
        count = self._library.token_ids(self._model, text.encode(), out, len(out))
        return [0, *out[:count], 2]


@pytest.fixture(scope="module")
def wheel_engine(
    builtin_models: Shelf, tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], None]
) -> WheelEngine:
    if not shutil.which("gcc"):
        skip_or_fail("gcc is not installed, with which the wheel's engine is compiled")
    packed = builtin_models.store.locate(builtin_models.catalog.find("multilingual-e5-small-packed"))
    assert packed is not None
    folder = tmp_path_factory.mktemp("e5")
    (folder / "wrapper.c").write_text(WRAPPER)
    library = folder / "libe5.so"
    command = ["gcc", "-O2", "-march=native", "-fopenmp", "-shared", "-fPIC", f"-I{packed}", "-o", str(library)]
    subprocess.run([*command, str(folder / "wrapper.c"), "-lm"], check=True, capture_output=True)
    return WheelEngine(library, packed / "e5-small-q4.bin")


@pytest.fixture(scope="module", params=ENGINES)
def e5(request: pytest.FixtureRequest, builtin_models: Shelf) -> Iterator[Served | Encoded]:
    with started(request.param, builtin_models, "multilingual-e5-small") as found:
        yield found


@pytest.fixture(scope="module")
def e5_form(builtin_models: Shelf) -> EmbeddingForm:
    return builtin_models.catalog.resolve("multilingual-e5-small").embedding


@pytest.mark.parametrize("kind", ["query", "passage"])
def test_e5_gives_the_vectors_of_the_wheels_engine(
    e5: Served | Encoded, e5_form: EmbeddingForm, wheel_engine: WheelEngine, kind: InputKind
) -> None:
    found = {
        text: cosine(e5.embed(e5_form.prepare(text, kind)), wheel_engine.embed(e5_form.prepare(text, "raw"), kind))
        for text in TEXTS
    }
    assert min(found.values()) >= 0.999, found
    assert statistics.median(found.values()) >= 0.9999, found


@pytest.mark.parametrize("text", TEXTS)
def test_e5_gives_the_tokens_of_the_wheels_engine(e5: Served | Encoded, wheel_engine: WheelEngine, text: str) -> None:
    # Not normalised first: the file itself carries the map of the reference, newlines and full-width letters included.
    assert e5.tokens(f"query: {text}") == wheel_engine.tokens(f"query: {text}")


def test_e5_drops_white_space_at_the_end_as_its_reference_pipeline_does(e5: Served | Encoded) -> None:
    assert e5.tokens("query: hello \n") == e5.tokens("query: hello")
