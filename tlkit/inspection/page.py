"""Findings as one HTML page: pictures are in it, nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

import numpy as np

from tlkit.display import shown
from tlkit.inspection.findings import Findings
from tlkit.inspection.pictures import Picture
from tlkit.inspection.text import shortened

MOST = 48  # pictures of a section
PAIRS = 24  # pairs of a section
SAMPLES = 6  # pictures of each class
SAMPLED = 20  # classes that have pictures
LISTED = 200  # names of a list

STYLE = """
:root{color-scheme:light dark;--ink:#1c2126;--soft:#5b6670;--paper:#fff;--card:#f4f6f8;--line:#dde2e7;--bar:#4477aa;
--bad:#b3261e;--badcard:#fdeceb;--good:#1b6e3c;--goodcard:#e8f5ec}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa5af;--paper:#14181c;--card:#1e242a;--line:#323a42;
--bar:#6fa3d8;--bad:#ff8a80;--badcard:#3a1f1e;--good:#7fd69b;--goodcard:#17301f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:70rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.25rem 0 .5rem}
p{margin:.25rem 0 .75rem;max-width:48rem}
.soft,figcaption,th{color:var(--soft)}
.verdict{border-radius:.5rem;padding:.75rem 1rem;margin:1rem 0;
background:var(--goodcard);border-left:.3rem solid var(--good)}
.verdict.bad{background:var(--badcard);border-color:var(--bad)}
.verdict ul,.plain{margin:.25rem 0;padding-left:1.2rem}
li,td,figcaption{overflow-wrap:anywhere}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .75rem .25rem 0;text-align:left;border-bottom:1px solid var(--line);font-weight:400;
vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}
td.name{min-width:6rem;max-width:20rem}
tr.sum td{font-weight:600}
.bar{width:30%;min-width:4rem}
.bar i{display:block;height:.7rem;margin-top:.4rem;background:var(--bar);border-radius:.2rem;min-width:2px}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(9rem,1fr));gap:.75rem}
.pairs{grid-template-columns:repeat(auto-fill,minmax(19rem,1fr))}
figure{margin:0;background:var(--card);border-radius:.5rem;padding:.5rem;font-size:.8rem;line-height:1.35}
figure .pics{display:flex;gap:.5rem;justify-content:center}
figure img,figure .none{width:100%;height:8rem;object-fit:contain;min-width:0;flex:1 1 0}
figure .none{display:flex;align-items:center;justify-content:center;color:var(--soft)}
figcaption{margin-top:.35rem}
figcaption b{color:var(--ink);font-weight:600}
.row{display:grid;grid-template-columns:10rem 1fr;gap:.75rem;align-items:center;padding:.4rem 0;
border-bottom:1px solid var(--line)}
.row div:last-child{display:flex;gap:.4rem;flex-wrap:wrap}
.row img{height:5rem;max-width:6.5rem;object-fit:contain;border-radius:.25rem}
@media(max-width:40rem){.row{grid-template-columns:1fr;gap:.25rem}.grid{grid-template-columns:repeat(2,1fr)}
.pairs{grid-template-columns:1fr}.row img{height:4rem}th,td{padding-right:.5rem}.bar{display:none}}
"""


def page(findings: Findings, picture: Picture) -> str:
    """Write the page.

    Args:
        findings: What was found.
        picture: Draws the example at a position.

    >>> import numpy as np
    >>> labels, splits = np.array([0, 1]), ["train", "test"]
    >>> some = Findings("a <b>", "photos", ["x", "y"], ["1", "2"], labels, splits, [None] * 2, ["", ""])
    >>> "a &lt;b&gt;" in page(some, lambda index: "")
    True
    """
    title = escaped(findings.title)
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{len(findings.names):,} {findings.kind} in {len(findings.classes):,} classes, '
        "as tlkit understood them before any training</p>",
        _verdict(findings),
        _classes(findings),
        _samples(findings, picture),
        _forms(findings),
        _copies(findings, picture),
        _suspects(findings, picture),
        _places(findings, picture, "Outliers", findings.outliers, "They are like no others, the farthest first."),
        _places(findings, picture, "Nearly blank", findings.blank, "Nearly nothing is to be seen in them."),
        _names(findings),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}: inspection</title><style>{STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def escaped(text: object) -> str:
    """Write text from outside so that a page shows it as it is.

    >>> escaped("<b>\\x1b[31m")
    '&lt;b&gt;\\\\x1b[31m'
    """
    return html.escape(shown(text))


def _section(title: str, words: str, content: str) -> str:
    text = f"<p>{words}</p>" if words else ""
    return f"<section><h2>{title}</h2>{text}\n{content}</section>"


def _list(texts: Iterable[str]) -> str:
    return f'<ul class="plain">{"".join(f"<li>{escaped(text)}</li>" for text in texts)}</ul>'


def _verdict(findings: Findings) -> str:
    lines = findings.falsifying()
    if not lines:
        return '<div class="verdict">Nothing was found that would falsify a score.</div>'
    return f'<div class="verdict bad"><b>This would falsify a score:</b>{_list(lines)}</div>'


def _classes(findings: Findings) -> str:
    counts = findings.counts
    rows = sorted(zip(findings.classes, *counts.values(), strict=True), key=lambda row: -sum(row[1:]))
    most = max((sum(row[1:]) for row in rows), default=1) or 1
    heads = "".join(f'<th class="n">{split}</th>' for split in (*counts, "all"))
    cells = []
    for name, *numbers in rows[:LISTED]:
        each = "".join(f'<td class="n">{number:,}</td>' for number in (*numbers, sum(numbers)))
        bar = f'<td class="bar"><i style="width:{100 * sum(numbers) / most:.1f}%"></i></td>'
        cells.append(f'<tr><td class="name">{escaped(name)}</td>{each}{bar}</tr>')
    if len(rows) > LISTED:
        cells.append(f"<tr><td>and {len(rows) - LISTED:,} more</td></tr>")
    if findings.labels.ndim == 1:
        sums = [sum(column) for column in counts.values()]
        each = "".join(f'<td class="n">{number:,}</td>' for number in (*sums, sum(sums)))
        cells.append(f'<tr class="sum"><td>all</td>{each}<td class="bar"></td></tr>')
    table = (
        f'<div class="scroll"><table><tr><th>class</th>{heads}<th class="bar"></th></tr>{"".join(cells)}</table></div>'
    )
    return _section("Classes", "", table)


def _samples(findings: Findings, picture: Picture) -> str:
    rows = []
    for label, name in list(enumerate(findings.classes))[:SAMPLED]:
        own = findings.labels == label if findings.labels.ndim == 1 else findings.labels[:, label] > 0
        places = [int(place) for place in np.flatnonzero(own) if findings.splits[place]]
        spread = [places[len(places) * i // SAMPLES] for i in range(SAMPLES)] if len(places) > SAMPLES else places
        images = "".join(_image(picture, place, findings.names[place]) for place in spread)
        rows.append(f'<div class="row"><div>{escaped(shortened(name, 60))}</div><div>{images}</div></div>')
    more = f"The first {SAMPLED} classes." if len(findings.classes) > SAMPLED else ""
    return _section("Some of each class", more, "".join(rows))


def _image(picture: Picture, place: int, name: str) -> str:
    source = picture(place)
    text = escaped(name)
    return (
        f'<img src="{source}" alt="{text}" title="{text}" loading="lazy">'
        if source
        else '<span class="none">no picture</span>'
    )


def _figure(picture: Picture, places: Sequence[int], findings: Findings, caption: str) -> str:
    images = "".join(_image(picture, place, findings.names[place]) for place in places)
    return f'<figure><div class="pics">{images}</div><figcaption>{caption}</figcaption></figure>'


def _of(findings: Findings, place: int) -> str:
    where = findings.splits[place] or "not used"
    label = escaped(findings.label_names[place])
    return f"<b>{label or 'no label'}</b>, {where}: {escaped(shortened(findings.names[place], 60))}"


def _grid(figures: Sequence[str], total: int, kind: str = "") -> str:
    more = f'<p class="soft">and {total - len(figures):,} more, in inspection.json</p>' if total > len(figures) else ""
    return f'<div class="grid {kind}">{"".join(figures)}</div>{more}'


def _forms(findings: Findings) -> str:
    if findings.seen is None:
        return ""
    rows = []
    for axis, values in findings.sizes().items():
        number = "{:.2f}" if axis == "aspect ratio" else "{:,.0f}"
        rows.append(
            f"<tr><td>{axis}</td>{''.join(f'<td class=n>{number.format(value)}</td>' for value in values)}</tr>"
        )
    sizes = '<table><tr><th></th><th class="n">least</th><th class="n">median</th><th class="n">most</th></tr>'
    sizes = f'<div class="scroll">{sizes}{"".join(rows)}</table></div>' if rows else ""
    formats = _list(f"{form}: {count:,}" for form, count in list(findings.formats.items())[:LISTED])
    return _section("Sizes and formats", "", sizes + formats)


def _copies(findings: Findings, picture: Picture) -> str:
    parts = []
    if groups := findings.copies:
        leaks, odd = len(findings.leaks), len(findings.contradictions)
        counts = f"{sum(len(group) - 1 for group in groups):,} more than once; {leaks:,} of them in several splits, "
        counts += f"{odd:,} with different labels, which come first."
        first = {group[0] for group in (*findings.leaks, *findings.contradictions)}
        figures = []
        for group in sorted(groups, key=lambda group: group[0] not in first)[:MOST]:
            caption = "<br>".join(_of(findings, place) for place in group[:6]) + _rest(group)
            figures.append(_figure(picture, group[:1], findings, caption))
        parts.append(_section("Exact copies", counts, _grid(figures, len(groups))))
    if pairs := findings.near:
        across, odd = len(findings.near_across), len(findings.near_contradictions)
        counts = f"{len(pairs):,} pairs; {across:,} across splits, {odd:,} with different labels, which come first."
        special = {*findings.near_across, *findings.near_contradictions}
        figures = []
        for pair in sorted(pairs, key=lambda pair: (pair not in special, -pair.correlation))[:PAIRS]:
            caption = "<br>".join(_of(findings, place) for place in pair[:2])
            figures.append(_figure(picture, pair[:2], findings, caption))
        parts.append(_section("Near copies", counts, _grid(figures, len(pairs), "pairs")))
    return "\n".join(parts)


def _rest(group: Sequence[int]) -> str:
    return f"<br>and {len(group) - 6:,} more" if len(group) > 6 else ""


def _suspects(findings: Findings, picture: Picture) -> str:
    if not findings.suspects:
        return ""
    figures = []
    for place, likely, probability in findings.suspects[:MOST]:
        given = f"<b>{escaped(findings.label_names[place])}</b> ({probability:.1%})"
        where = f"{findings.splits[place] or 'not used'}: {escaped(shortened(findings.names[place], 60))}"
        figures.append(_figure(picture, [place], findings, f"{given}<br>likelier <b>{escaped(likely)}</b><br>{where}"))
    words = (
        "A probe and the nearest neighbours, neither of which knew the label, find it improbable. Look at them: some "
        "are right and merely unusual. Of the test split, leave out only what is plainly wrong, since without what is "
        "hard a score flatters."
    )
    return _section("Labels that may be wrong", words, _grid(figures, len(findings.suspects)))


def _places(findings: Findings, picture: Picture, title: str, places: Sequence[int], words: str) -> str:
    if not places:
        return ""
    figures = [_figure(picture, [place], findings, _of(findings, place)) for place in places[:MOST]]
    return _section(title, words, _grid(figures, len(places)))


def _names(findings: Findings) -> str:
    parts = []
    lists = {f"Left out: {escaped(reason)}": names for reason, names in findings.left_out.items() if names}
    if findings.damaged and findings.seen:
        lists["Cannot be decoded"] = [findings.seen[place].problem for place in findings.damaged]
    for title, names in lists.items():
        more = [f"and {len(names) - LISTED:,} more"] if len(names) > LISTED else []
        parts.append(_section(f"{title} ({len(names):,})", "", _list([*names[:LISTED], *more])))
    if findings.notes:
        parts.append(_section("Notes", "", _list(findings.notes)))
    if findings.skipped:
        parts.append(_section("Not done", "", _list(findings.skipped)))
    return "\n".join(parts)
