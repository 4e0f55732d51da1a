"""Ingestion beside sentence-transformers on torch: the same model, the same chunks, in turn in the same run.

``DOCUMENTS`` public texts a round (two thirds English, one third Chinese, ``../shared/data``) become files and are
taken in as ``pagoda rag ingest`` does: read, split, embedded by the service's engine, written to the records. Their
chunks are given to sentence-transformers with the weights of the same GGUF file in single precision. ``embed`` is the
same chunks through the service alone, 32 a request; ``short`` are the short texts of ``embeddings``. Figures are
medians of ``ROUNDS``, ratios of the rounds' own. ``cpu_ms`` counts processor time of all processes of a side, a chunk
or text, which a crowded machine disturbs least. ``split_mb_s`` is the splitter alone. Without the cache.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.embeddings import texts
from benchmarks.ground import median, settings
from pagoda.application.retrieving import Retrieval, home_retrieval
from pagoda.core.ports import Inference
from pagoda.core.types import Call, Embed
from pagoda.logic.retrieval.collection import DEFAULT_MODEL, Plan
from pagoda.model.catalog.gguf_content import read_gguf
from pagoda.model.catalog.opening import open_shelf
from pagoda.model.catalog.recipes.bert import LAYER_NAMES, OUTER_NAMES
from pagoda.model.engines.onnxruntime_child.vocabulary import Vocabulary

DOCUMENTS = int(os.environ.get("DOCUMENTS", "24"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
MODELS = os.environ.get("MODELS", f"{DEFAULT_MODEL},all-minilm-l6-v2").split(",")
THREADS = os.environ.get("THREADS", "2")
_TOGETHER = 32
_CALL = Call(purpose="ingestion")


async def measure() -> dict[str, Any]:
    figures: dict[str, Any] = {"documents": DOCUMENTS, "rounds": ROUNDS, "threads": int(THREADS)}
    english, chinese = _corpora()
    print(
        f"{'chunks/s':24}{'torch':>9}{'embed':>9}{'ingest':>9}{'ratio':>8}{'short, torch':>14}{'short':>9}", flush=True
    )
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            chosen = settings(Path(folder) / "home", {"engines.threads": THREADS})
            encode = sentence_transformer(chosen, model, Path(folder) / "checkpoint")
            environment = {
                "PAGODA_MODELS_DIRECTORY": chosen.models.directory,
                "PAGODA_ENGINES_THREADS": THREADS,
                "PAGODA_CACHE_ENABLED": "false",
            }
            async with home_retrieval(chosen, os.environ | environment) as (retrieval, _):
                rounds = [
                    await _round(retrieval, encode, Plan(model=model), Path(folder) / str(number), share)
                    for number, share in enumerate(_shares(english, chinese))
                ][1:]
        figures |= {f"{model}_{name}": median([each[name] for each in rounds]) for name in rounds[0]}
        row = [figures[f"{model}_{name}"] for name in ("torch", "embed", "ingest", "ratio", "short_torch", "short")]
        print("{:24}{:>9}{:>9}{:>9}{:>8}{:>14}{:>9}".format(model, *row), flush=True)
    figures["split_mb_s"] = _splitting(english + chinese)
    return figures


async def _round(
    retrieval: Retrieval, encode: Callable[[list[str]], Any], plan: Plan, folder: Path, documents: Sequence[str]
) -> dict[str, float]:
    folder.mkdir()
    for number, text in enumerate(documents):
        (folder / f"{number:04}.txt").write_text(text, encoding="utf-8")
    splitter = plan.splitter()
    chunks = [text[span.start : span.end] for text in documents for span in splitter.split(text)]
    prefix = "passage: " if plan.model == DEFAULT_MODEL else ""
    short = texts(int(folder.name))
    collection = await retrieval.book.ensure("local", f"round{folder.name}", plan)

    async def ingest() -> int:
        report = await retrieval.ingestion.take(collection, [folder], _CALL, lambda *_: None)
        return report.chunks

    async def embed(some: Sequence[str]) -> int:
        await _embed(retrieval.inference, plan.model, some)
        return len(some)

    async def torch(some: list[str]) -> int:
        await asyncio.to_thread(encode, some)
        return len(some)

    sides: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch([prefix + chunk for chunk in chunks]),
        "embed": lambda: embed(chunks),
        "ingest": ingest,
        "short_torch": lambda: torch([prefix + text for text in short]),
        "short": lambda: embed(short),
    }
    found: dict[str, float] = {}
    for name in sorted(sides, reverse=bool(int(folder.name) % 2)):
        began, worked = time.perf_counter(), _processor_seconds()
        count = await sides[name]()
        found[name] = count / (time.perf_counter() - began)
        found[f"{name}_cpu_ms"] = (_processor_seconds() - worked) / count * 1e3
    found["ratio"] = found["ingest"] / found["torch"]
    found["cpu_ratio"] = found["torch_cpu_ms"] / found["ingest_cpu_ms"]
    return found


async def _embed(door: Inference, model: str, chunks: Sequence[str]) -> None:
    for at in range(0, len(chunks), _TOGETHER):
        await door.embed(Embed(model=model, inputs=tuple(chunks[at : at + _TOGETHER]), kind="passage"), _CALL)


def _processor_seconds() -> float:
    """Of this process and of all it started."""
    me = psutil.Process()
    spent = 0.0
    for each in (me, *me.children(recursive=True)):
        times = each.cpu_times()
        spent += times.user + times.system
    return spent


def sentence_transformer(chosen: Any, model: str, folder: Path) -> Callable[[list[str]], Any]:
    """What encodes texts by sentence-transformers with the weights and the tokenizer of the model's GGUF file."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.set_num_threads(int(THREADS))
    shelf = open_shelf(chosen)
    path = shelf.store.locate(shelf.catalog.resolve(model))
    assert path is not None
    content = read_gguf(path)
    values: Mapping[str, Any] = content.header.values
    names = {target: name for name, target in OUTER_NAMES.items()}
    for layer in range(values["bert.block_count"]):
        for name, target in LAYER_NAMES.items():
            for part in ("weight", "bias"):
                names[f"blk.{layer}.{target}.{part}"] = f"encoder.layer.{layer}.{name}.{part}"
    tensors = {name: torch.from_numpy(content.tensors[target].values().copy()) for target, name in names.items()}
    config = BertConfig(
        vocab_size=content.header.pieces,
        hidden_size=values["bert.embedding_length"],
        num_hidden_layers=values["bert.block_count"],
        num_attention_heads=values["bert.attention.head_count"],
        intermediate_size=values["bert.feed_forward_length"],
        layer_norm_eps=values["bert.attention.layer_norm_epsilon"],
        max_position_embeddings=values["bert.context_length"],
        type_vocab_size=len(content.tensors["token_types.weight"].rows),
    )
    bert = BertModel(config, add_pooling_layer=False)
    state = {name: tensor.reshape(bert.state_dict()[name].shape) for name, tensor in tensors.items()}
    bert.load_state_dict(state, strict=False)
    bert.save_pretrained(folder)
    pieces = [piece.decode() for piece in content.lists["tokenizer.ggml.tokens"]]
    special = {
        f"{role}_token": pieces[values[f"tokenizer.ggml.{key}_token_id"]]
        for role, key in (("pad", "padding"), ("unk", "unknown"), ("cls", "bos"), ("sep", "eos"))
    }
    PreTrainedTokenizerFast(
        tokenizer_object=Vocabulary(content).tokenizer,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        **special,
    ).save_pretrained(folder)
    parts = [Transformer(str(folder), max_seq_length=512), Pooling(config.hidden_size), Normalize()]
    encoder = SentenceTransformer(modules=parts, device="cpu")
    return lambda some: encoder.encode(some, batch_size=32, show_progress_bar=False)


def _corpora() -> tuple[list[str], list[str]]:
    folder = Path(os.environ.get("PAGODA_PUBLIC_DATA", "../shared/data")) / "rag"
    lines = (folder / "nq_open_book.jsonl").read_text(encoding="utf-8").splitlines()
    pages = json.loads((folder / "cmrc2018_trial.json").read_text(encoding="utf-8"))["data"]
    chinese = [paragraph["context"] for page in pages for paragraph in page["paragraphs"]]
    return [json.loads(line)["context"] for line in lines], chinese


def _shares(english: Sequence[str], chinese: Sequence[str]) -> Iterator[list[str]]:
    """The documents of each round; the first one warms up with few."""
    third = DOCUMENTS // 3
    yield [*english[-2:], *chinese[-1:]]
    for number in range(ROUNDS):
        size = DOCUMENTS - third
        yield [*english[number * size : (number + 1) * size], *chinese[number * third : (number + 1) * third]]


def _splitting(documents: Sequence[str]) -> float:
    text = "\n\n".join(documents)
    splitter = Plan().splitter()
    rates = []
    for _ in range(3):
        began = time.process_time()
        splitter.split(text)
        rates.append(len(text.encode()) / 1e6 / (time.process_time() - began))
    return median(rates)
