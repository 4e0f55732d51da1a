"""A peer's scores of answers, by a Python that has it; prints one JSON line. Nothing of Pagoda is imported.

``peer.py NAME ITEMS URL MODEL``: ITEMS holds a JSON line an item (``key``, ``question``, ``answer``, ``samples``,
``context``), MODEL judges at the OpenAI-compatible URL. A score is higher for what is rather right; an item without one
(a ``reason`` instead) is one that the peer could not judge.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

Item = dict[str, Any]
Score = dict[str, Any]
AT_ONCE = 4


def unigram(items: list[Item], url: str, model: str) -> list[Score]:
    """SelfCheckGPT's unigram model of an answer and its samples: the mean log-probability of the answer's tokens.

    As its ``SelfCheckNgram`` does it, which cannot be imported without torch. It loads spaCy's ``en_core_web_sm`` for
    tokens and sentences; a bare English pipeline has the same tokens, and sentences do not count for single words.
    """
    import spacy  # type: ignore[import-not-found]

    bare = spacy.blank("en")
    bare.add_pipe("sentencizer")
    spacy.load = lambda name: bare
    from selfcheckgpt.modeling_ngram import UnigramModel  # type: ignore[import-not-found]

    def score(item: Item) -> Score:
        counted = UnigramModel()
        for text in (item["answer"], *item["samples"]):
            counted.add(text)
        counted.train(k=0)
        told = counted.evaluate([sentence.text.strip() for sentence in bare(item["answer"]).sents])
        return {"score": -float(told["doc_level"]["avg_neg_logprob"])}

    return [score(item) for item in items]


def prompt(items: list[Item], url: str, model: str) -> list[Score]:
    """SelfCheckGPT's prompt: does a sample support the sentence? "Yes" and "No" count, all else is its "n/a"."""
    import spacy
    from selfcheckgpt.modeling_selfcheck_apiprompt import SelfCheckAPIPrompt  # type: ignore[import-not-found]

    os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
    bare = spacy.blank("en")
    bare.add_pipe("sentencizer")

    class Judge(SelfCheckAPIPrompt):  # type: ignore[misc]
        """It, and whether anything was said that it could read."""

        readable = False

        def text_postprocessing(self, text: str) -> float:
            value = float(super().text_postprocessing(text))
            self.readable |= value != self.text_mapping["n/a"]
            return value

    def score(item: Item) -> Score:
        judge = Judge(model=model)
        sentences = [sentence.text.strip() for sentence in bare(item["answer"]).sents]
        told = -float(judge.predict(sentences, item["samples"]).mean())
        return {"score": told} if judge.readable else {"reason": "neither yes nor no"}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(score, items))


def ragas(items: list[Item], url: str, model: str) -> list[Score]:
    """RAGAS' faithfulness as it comes: the share of an answer's statements that its context bears out."""
    from openai import AsyncOpenAI
    from ragas.llms import llm_factory  # type: ignore[import-not-found]
    from ragas.metrics.collections import Faithfulness  # type: ignore[import-not-found]

    async def every() -> list[Score]:
        metric = Faithfulness(llm=llm_factory(model, client=AsyncOpenAI(base_url=url, api_key="none", timeout=600)))
        gate = asyncio.Semaphore(AT_ONCE)

        async def score(item: Item) -> Score:
            async with gate:
                try:
                    told = await metric.ascore(
                        user_input=item["question"], response=item["answer"], retrieved_contexts=[item["context"]]
                    )
                except Exception as error:  # noqa: BLE001  (whatever it raises, it gave no score)
                    return {"reason": f"{type(error).__name__}: {error}"[:300]}
            value = float(told.value)
            return {"reason": "NaN"} if math.isnan(value) else {"score": value}

        return await asyncio.gather(*(score(item) for item in items))

    return asyncio.run(every())


PEERS: dict[str, Callable[[list[Item], str, str], list[Score]]] = {"unigram": unigram, "prompt": prompt, "ragas": ragas}


def main() -> None:
    name, path, url, model = sys.argv[1:]
    items = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\n") if line]
    scores = PEERS[name](items, url, model)
    print(json.dumps({item["key"]: score for item, score in zip(items, scores, strict=True)}))


if __name__ == "__main__":
    main()
