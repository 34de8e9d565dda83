"""Findings as one HTML page: pictures are in it, nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tlkit.inspection.findings import Findings
from tlkit.inspection.pictures import Picture
from tlkit.inspection.text import shortened
from tlkit.pages import document, escaped, listed, section

MOST = 48  # pictures of a section
PAIRS = 24  # pairs of a section
SAMPLES = 6  # pictures of each class
SAMPLED = 20  # classes that have pictures
LISTED = 200  # names of a list


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
    return document(f"{title}: inspection", body)


def _verdict(findings: Findings) -> str:
    lines = findings.falsifying()
    if not lines:
        return '<div class="verdict">Nothing was found that would falsify a score.</div>'
    return f'<div class="verdict bad"><b>This would falsify a score:</b>{listed(lines)}</div>'


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
    return section("Classes", "", table)


def _samples(findings: Findings, picture: Picture) -> str:
    rows = []
    for label, name in list(enumerate(findings.classes))[:SAMPLED]:
        own = findings.labels == label if findings.labels.ndim == 1 else findings.labels[:, label] > 0
        places = [int(place) for place in np.flatnonzero(own) if findings.splits[place]]
        spread = [places[len(places) * i // SAMPLES] for i in range(SAMPLES)] if len(places) > SAMPLES else places
        images = "".join(_image(picture, place, findings.names[place]) for place in spread)
        rows.append(f'<div class="row"><div>{escaped(shortened(name, 60))}</div><div>{images}</div></div>')
    more = f"The first {SAMPLED} classes." if len(findings.classes) > SAMPLED else ""
    return section("Some of each class", more, "".join(rows))


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
    formats = listed(f"{form}: {count:,}" for form, count in list(findings.formats.items())[:LISTED])
    return section("Sizes and formats", "", sizes + formats)


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
        parts.append(section("Exact copies", counts, _grid(figures, len(groups))))
    if pairs := findings.near:
        across, odd = len(findings.near_across), len(findings.near_contradictions)
        counts = f"{len(pairs):,} pairs; {across:,} across splits, {odd:,} with different labels, which come first."
        special = {*findings.near_across, *findings.near_contradictions}
        figures = []
        for pair in sorted(pairs, key=lambda pair: (pair not in special, -pair.correlation))[:PAIRS]:
            caption = "<br>".join(_of(findings, place) for place in pair[:2])
            figures.append(_figure(picture, pair[:2], findings, caption))
        parts.append(section("Near copies", counts, _grid(figures, len(pairs), "pairs")))
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
    return section("Labels that may be wrong", words, _grid(figures, len(findings.suspects)))


def _places(findings: Findings, picture: Picture, title: str, places: Sequence[int], words: str) -> str:
    if not places:
        return ""
    figures = [_figure(picture, [place], findings, _of(findings, place)) for place in places[:MOST]]
    return section(title, words, _grid(figures, len(places)))


def _names(findings: Findings) -> str:
    parts = []
    lists = {f"Left out: {escaped(reason)}": names for reason, names in findings.left_out.items() if names}
    if findings.damaged and findings.seen:
        lists["Cannot be decoded"] = [findings.seen[place].problem for place in findings.damaged]
    for title, names in lists.items():
        more = [f"and {len(names) - LISTED:,} more"] if len(names) > LISTED else []
        parts.append(section(f"{title} ({len(names):,})", "", listed([*names[:LISTED], *more])))
    if findings.notes:
        parts.append(section("Notes", "", listed(findings.notes)))
    if findings.skipped:
        parts.append(section("Not done", "", listed(findings.skipped)))
    return "\n".join(parts)
