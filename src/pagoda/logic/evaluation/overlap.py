"""Scorers by overlap of words with what is expected: BLEU (sacrebleu) and ROUGE (rouge-score), the extra ``eval``.

Chinese is cut into characters: sacrebleu by its ``zh`` tokenizer, ROUGE by ours, since its own drops what is not Latin.
"""

from __future__ import annotations

import re

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.score import UNREAD, Case, Metric, Output, Score, Scorer, could_not_judge

_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af"
_CHINESE = re.compile(f"[{_CJK}]")
_WORDS = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def bleu(threshold: float = 0.3) -> Scorer:
    """Sentence BLEU with effective order (Papineni et al., 2002), 0 to 1; ``threshold`` and more is a success."""
    try:
        import sacrebleu  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("bleu", "sacrebleu") from error
    metrics = {cut: sacrebleu.BLEU(effective_order=True, tokenize=cut) for cut in ("13a", "zh")}

    def judge(case: Case, output: Output) -> Score:
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if output.said is None:
            return UNREAD
        metric = metrics["zh" if _CHINESE.search(case.expected) else "13a"]
        value = metric.sentence_score(output.said, [case.expected]).score / 100
        return Score(value, value >= threshold)

    return Metric("bleu", judge)


def rouge(kind: str = "rougeL", threshold: float = 0.3) -> Scorer:
    """F-measure of ROUGE (Lin, 2004): ``rouge1``, ``rouge2`` or ``rougeL``; ``threshold`` and more is a success."""
    try:
        from rouge_score import rouge_scorer  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise _missing("rouge", "rouge-score") from error
    if kind not in ("rouge1", "rouge2", "rougeL"):
        raise InvalidRequest(f"There is no {kind}; use rouge1, rouge2 or rougeL.")
    scorer = rouge_scorer.RougeScorer([kind], tokenizer=_Words())

    def judge(case: Case, output: Output) -> Score:
        if case.expected is None:
            return could_not_judge("nothing is expected of this case")
        if output.said is None:
            return UNREAD
        value = float(scorer.score(case.expected, output.said)[kind].fmeasure)
        return Score(value, value >= threshold)

    return Metric(kind, judge)


def words_of(text: str) -> list[str]:
    """Words of any script without capitals, Chinese and Japanese characters one by one."""
    return _WORDS.findall(text.lower())


class _Words:
    """``words_of`` as rouge-score wants it."""

    def tokenize(self, text: str) -> list[str]:
        """The words."""
        return words_of(text)


def _missing(scorer: str, package: str) -> InvalidRequest:
    return InvalidRequest(f"The scorer {scorer} needs {package}: python -m pip install 'pagoda-llm[eval]'.")
