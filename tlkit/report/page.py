"""A report as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tlkit.display import short
from tlkit.pages import document, escaped, listed, section
from tlkit.report.report import Chart, Mistake, Report

STYLE = """
.verdict:not(.bad){background:var(--card);border-color:var(--bar)}
.verdict p{font-size:1.15rem;margin:.1rem 0 .4rem}
.charts{display:grid;gap:1rem;margin-top:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr))}
.chart{background:none;padding:0;overflow-x:auto}
.chart img{width:auto;height:auto;max-width:100%;display:block;background:#fff;border-radius:.4rem}
.pairs figure img{height:9rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:.5rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
details{margin:.5rem 0}summary{cursor:pointer}
@media(prefers-color-scheme:dark){.chart:not(.photos) img{filter:invert(.91) hue-rotate(180deg)}}
@media print{.chart:not(.photos) img{filter:none!important}details>*{display:block!important}.chart img{min-width:0}}
@media(max-width:40rem){.chart.wide img{max-width:max(100%,30rem)}th.n,td.n{white-space:normal;overflow-wrap:normal}
table{font-size:.85rem}th,td{padding-right:.4rem}
.pairs figure img{height:7.5rem}dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
"""
TO = "\u2060–\u2060"  # no line ends at it
CLASSES = 100  # rows of the table of classes


def page(report: Report) -> str:
    """Write the page.

    >>> from tlkit.report import Score, Verdict
    >>> scores, good = [Score("accuracy", 0.9)], Verdict("Good.", True)
    >>> some = Report("a <b>", "", good, scores, "", "test", "photos", {}, {"test": 9})
    >>> "a &lt;b&gt;" in page(some)
    True
    """
    parts = [
        f"<h1>{escaped(report.title)}</h1>",
        f'<p class="soft">{escaped(report.what)}</p>',
        _verdict(report),
        _scores(report),
        _leaks(report),
        _data(report),
        _mistakes(report),
        _classes(report),
        _worth(report),
        _training(report),
        _use(report),
    ]
    return document(f"{escaped(report.title)}: report", "\n".join(part for part in parts if part), STYLE)


def _verdict(report: Report) -> str:
    verdict = report.verdict
    more = listed(verdict.more) if verdict.more else ""
    return f'<div class="verdict{"" if verdict.good else " bad"}"><p>{escaped(verdict.sentence)}</p>{more}</div>'


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], left: int = 1) -> str:
    """Make a table; the first columns are texts, the others numbers; all is escaped."""
    kinds = ["" if place < left else ' class="n"' for place in range(len(heads))]
    kinds[0] = ' class="name"'
    head = "".join(f"<th{kind}>{escaped(name)}</th>" for kind, name in zip(kinds, heads, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{escaped(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) and math.isfinite(value) else "–"


def _scores(report: Report) -> str:
    beside = any(score.beside is not None for score in report.scores)
    rows = []
    for score in report.scores:
        interval = "" if score.interval is None else "{:.3f} to {:.3f}".format(*score.interval)
        row = [score.name, _number(float(score.value)), interval]
        rows.append(row + (["" if score.beside is None else _number(float(score.beside))] if beside else []))
    heads = [f"{report.split} of {report.counts.get(report.split, 0):,} {report.kind}", "value", "95 % interval"]
    return section("Scores", "", _table(heads + ([report.constant] if beside else []), rows))


def _leaks(report: Report) -> str:
    if report.leaks is None:
        return ""
    if not report.leaks:
        return section("Leaks", "", f"<p>{escaped(report.looked_for)}: none were found.</p>")
    return section("Leaks", "", listed(report.leaks) + _charts(report, "leaks"))


def _data(report: Report) -> str:
    counts = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    return section("Data", escaped(counts), listed(report.data) if report.data else "")


def _charts(report: Report, part: str) -> str:
    return _grid(report.charts.get(part, ()))


def _grid(charts: Sequence[Chart]) -> str:
    figures = "".join(
        f'<figure class="chart{" photos" * chart.photos}{" wide" * chart.wide}">'
        f'<img src="{chart.uri}" alt="{escaped(chart.title)}"></figure>'
        for chart in charts
    )
    return f'<div class="charts">{figures}</div>' if figures else ""


def _mistakes(report: Report) -> str:
    if not report.mistakes:
        return "" if report.wrong else section("Worst mistakes", "", f"<p>No {escaped(report.kind)} are wrong.</p>")
    drawn = [mistake for mistake in report.mistakes if mistake.picture]
    are = "is" if report.wrong == 1 else "are"
    words = f"{report.wrong:,} of the {report.kind} {are} wrong; these are the worst. {report.explained}"
    paired = any(mistake.heatmap for mistake in drawn)
    figures = "".join(_mistake(mistake) for mistake in drawn)
    content = f'<div class="grid{" pairs" * paired}">{figures}</div>' if drawn else ""
    if not drawn:
        rows = [[each.name, each.label, each.predicted, f"{each.share:.2f}"] for each in report.mistakes]
        content = _table([report.kind, "label", "predicted", "probability"], rows, left=3)
    return section("Worst mistakes", escaped(words), content)


def _mistake(mistake: Mistake) -> str:
    name = escaped(short(mistake.name, 48))
    images = f'<img src="{mistake.picture}" alt="{name}">'
    if mistake.heatmap:
        images += f'<img src="{mistake.heatmap}" alt="where in it that is">'
    return (
        f'<figure><div class="pics">{images}</div><figcaption><b>{escaped(mistake.label or "no label")}</b>, predicted '
        f"<b>{escaped(mistake.predicted or 'no label')}</b> ({mistake.share:.2f})<br>{name}</figcaption></figure>"
    )


def _classes(report: Report) -> str:
    table = report.classes
    if "class" not in table:
        return ""
    order = [name for name in ("class", "examples", "recall", "precision", "f1", "average_precision") if name in table]
    rows = []
    for place in range(min(len(table["class"]), CLASSES)):
        cells = []
        for name in order:
            value = table[name][place]
            text = _number(float(str(value))) if name not in ("class", "examples") else str(value)
            if f"{name}_low" in table and text != "–":
                low, high = (float(str(table[f"{name}_{end}"][place])) for end in ("low", "high"))
                text += f" ({low:.2f}{TO}{high:.2f})"
            cells.append(text)
        rows.append(cells)
    more = len(table["class"]) - len(rows)
    note = f"<p>and {more:,} more, in class_scores.json</p>" if more else ""
    heads = [name.replace("_", " ").replace("f1", "F1") for name in order]
    return section("Classes", "", _table(heads, rows) + note + _charts(report, "classes"))


def _worth(report: Report) -> str:
    rows = [line.partition("  ") for line in report.worth]
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, _, text in rows)
    if not rows:
        return ""
    words = "How far the probabilities can be trusted, and what the split can tell."
    return section("Trust", words, f"<dl>{items}</dl>" + _charts(report, "worth"))


def _training(report: Report) -> str:
    parts = [listed(report.trained) if report.trained else "", _charts(report, "training")]
    for title, values in (("Settings", report.settings), ("Environment", report.environment)):
        if values:
            rows = [[name, "" if value is None else value] for name, value in values.items()]
            parts.append(f"<details><summary>{title}</summary>{_table(['', ''], rows, left=2)}</details>")
    if report.repeat:
        parts.append(f"<p>To repeat it, with the settings in config.yaml:</p><pre>{escaped(report.repeat)}</pre>")
    content = "".join(parts)
    return section("How it was made", "", content) if content else ""


def _use(report: Report) -> str:
    if not report.use:
        return ""
    lines = "\n".join(map(escaped, report.use))
    return section("How to use it", "", f"<pre>{lines}</pre>")
