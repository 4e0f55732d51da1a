"""The report of a comparison as one HTML page that needs nothing else: text, tables and plots in SVG.

Everything that models wrote is escaped; there is no script. Not here: the figures (``report``).
"""

from __future__ import annotations

from functools import cache
from html import escape
from importlib import resources

import yaml

from pagoda.core.errors import InvalidRequest
from pagoda.logic.evaluation.page.plots import bars, intervals
from pagoda.logic.evaluation.report import Failure, Pair, Report, VariantSummary
from pagoda.service.limits.prices import spell_money

_MOST_FAILURES = 500
_MOST_CHARACTERS = 1500

Words = dict[str, str]


@cache
def words_of(language: str) -> Words:
    """What reports say in a language. Raises ``InvalidRequest`` for one that they do not speak."""
    every: dict[str, Words] = yaml.safe_load(_asset("words.yaml"))
    if language not in every:
        raise InvalidRequest(f"Reports do not speak {language[:20]!r}; use {' or '.join(every)}.")
    return every[language]


def page(report: Report, language: str = "en") -> str:
    """The whole page."""
    words = words_of(language)
    subtitle = words["subtitle"].format(variants=len(report.variants), cases=report.cases, repeats=report.repeats)
    models = ", ".join(dict.fromkeys(row.model for row in report.variants))
    parts = [
        f"<h1>{escape(words['title'])}</h1>",
        f'<p class="soft">{escape(subtitle)} · {escape(", ".join(report.scorers))} · {escape(models)}</p>',
        _verdict(report, language),
        f"<h2>{escape(words['rates'])}</h2>",
        intervals(
            [
                (row.name, row.scorers[0].rate, index == report.winner)
                for index, row in enumerate(report.variants)
                if row.scorers[0].rate is not None
            ],
            (0.0, 1.0),
        ),
        _table(report, words),
    ]
    if report.pairs:
        rows = [(_pair_name(report, pair), pair.difference.interval, pair.is_clear) for pair in report.pairs]
        parts += [f"<h2>{escape(words['differences'])}</h2>", intervals(rows, None)]
    timed = [(row.name, row.p50, row.p95) for row in report.variants if row.p50 is not None and row.p95 is not None]
    parts += [f"<h2>{escape(words['times'])}</h2>", bars(timed)]
    spent = [(row.name, *_tokens_a_case(row)) for row in report.variants if row.trials > row.errors]
    parts += [f"<h2>{escape(words['tokens_plot'])}</h2>", bars(spent), _failures(report, words)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(words["title"])}</title>\n'
        f"<style>{_asset('report.css')}</style></head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def verdict_lines(report: Report, language: str = "en") -> list[str]:
    """The verdict in sentences: who won, or that nobody did, and every pair with its interval."""
    words = words_of(language)
    lines = [] if report.complete else [words["incomplete"]]
    if len(report.variants) < 2:
        return [*lines, words["single"]]
    if report.winner is not None:
        lines.append(words["winner"].format(name=report.variants[report.winner].name, pairs=len(report.pairs)))
    else:
        lines.append(words["no_winner"])
    for pair in report.pairs:
        lines.append(_pair_line(report, pair, words))
        for interval, what in ((pair.seconds, "time"), (pair.tokens, "tokens")):
            if interval is not None and (interval.low > 1 or interval.high < 1) and not 0.9 < interval.value < 1.1:
                lines.append(
                    words["dearer"].format(
                        first=report.variants[pair.first].name,
                        second=report.variants[pair.second].name,
                        what=words[what],
                        times=f"{interval.value:.2f}",
                        low=f"{interval.low:.2f}",
                        high=f"{interval.high:.2f}",
                    )
                )
    return lines


def _pair_line(report: Report, pair: Pair, words: Words) -> str:
    interval = pair.difference.interval
    told = {
        "first": report.variants[pair.first].name,
        "second": report.variants[pair.second].name,
        "low": f"{100 * interval.low:+.1f}",
        "high": f"{100 * interval.high:+.1f}",
        "p": "< 0.0001" if pair.adjusted_p < 0.0001 else f"= {pair.adjusted_p:.4f}",
    }
    if pair.is_clear:
        direction = words["better"] if interval.value > 0 else words["worse"]
        return words["clear"].format(**told, size=f"{abs(100 * interval.value):.1f}", direction=direction)
    needed = pair.difference.needed
    said = words["never"] if needed is None else words["needed"].format(cases=f"{needed:,}")
    return words["unclear"].format(**told, size=f"{100 * interval.value:+.1f}", needed=said)


def _verdict(report: Report, language: str) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in verdict_lines(report, language))
    words = words_of(language)
    tests = ", ".join(sorted({pair.difference.test for pair in report.pairs}))
    method = f'<p class="soft">{escape(words["method"].format(test=tests))}</p>' if report.pairs else ""
    return f'<div class="verdict{" won" if report.winner is not None else ""}">{lines}{method}</div>'


def _table(report: Report, words: Words) -> str:
    """A row a variant and scorer, without the columns that have nothing to tell."""
    rows = [_row(report, row, place) for row in report.variants for place in range(len(report.scorers))]
    shown = [name for name in rows[0] if name in _ALWAYS or any(row[name] not in ("0", "") for row in rows)]
    cells = "".join(f"<th{_NUMBER if at else ''}>{escape(words[name])}</th>" for at, name in enumerate(shown))
    body = "".join(
        "<tr>"
        + "".join(f"<td{_NUMBER if at else ''}>{escape(row[name])}</td>" for at, name in enumerate(shown))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'


_ALWAYS = ("variant", "rate", "errors")


def _row(report: Report, row: VariantSummary, place: int) -> dict[str, str]:
    scored = row.scorers[place]
    rate = scored.rate
    told = {
        "variant": f"{row.name} · {scored.name}" if len(row.scorers) > 1 else row.name,
        "rate": "–" if rate is None else f"{100 * rate.value:.1f} % ({100 * rate.low:.1f}…{100 * rate.high:.1f})",
        "unjudged": str(scored.could_not_judge),
    }
    figures = {
        "unread": str(row.unread),
        "errors": str(row.errors),
        "flicker": "" if row.flicker is None else f"{100 * row.flicker:.1f} %",
        "p50": "" if row.p50 is None else f"{row.p50:.2f}",
        "p95": "" if row.p95 is None else f"{row.p95:.2f}",
        "prompt_tokens": f"{row.prompt_tokens:,}",
        "completion_tokens": f"{row.completion_tokens:,}",
        "cost": spell_money(row.cost, report.currency) if row.cost else "",
    }
    return told | (figures if place == 0 else dict.fromkeys(figures, ""))


_NUMBER = ' class="number"'


def _failures(report: Report, words: Words) -> str:
    shown = report.failures[:_MOST_FAILURES]
    groups = []
    for index, row in enumerate(report.variants):
        mine = [failure for failure in shown if failure.variant == index]
        if mine:
            head = "".join(f"<th>{escape(words[name])}</th>" for name in ("case", "expected", "said", "text", "why"))
            rows = "".join(_failure(failure) for failure in mine)
            groups.append(
                f"<details><summary>{escape(row.name)}: {len(mine)}</summary>"
                f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></details>"
            )
    note = ""
    if len(shown) < len(report.failures):
        note = f'<p class="soft">{escape(words["shown"].format(shown=len(shown), all=len(report.failures)))}</p>'
    return f"<h2>{escape(words['failures'])}</h2>{''.join(groups)}{note}"


def _failure(failure: Failure) -> str:
    again = f" ({failure.repeat + 1})" if failure.repeat else ""
    cells = [failure.case + again, failure.expected or "", failure.answer or ""]
    texts = [failure.text, failure.why]
    plain = "".join(f"<td>{escape(cell[:200])}</td>" for cell in cells)
    long = "".join(f"<td><pre>{escape(text[:_MOST_CHARACTERS])}</pre></td>" for text in texts)
    return f"<tr>{plain}{long}</tr>"


def _pair_name(report: Report, pair: Pair) -> str:
    return f"{report.variants[pair.second].name} − {report.variants[pair.first].name}"


def _tokens_a_case(row: VariantSummary) -> tuple[float, float]:
    answered = row.trials - row.errors
    return row.prompt_tokens / answered, (row.prompt_tokens + row.completion_tokens) / answered


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
