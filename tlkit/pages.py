"""HTML pages that stand alone: pictures are in them, nothing is loaded from elsewhere, and no script runs."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

from tlkit.display import shown

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
p{margin:.25rem 0 .75rem;max-width:48rem;overflow-wrap:anywhere}
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
pre{background:var(--card);border-radius:.5rem;padding:.75rem;overflow-x:auto;font-size:.85rem;line-height:1.4}
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--paper:#fff;--card:#f4f6f8;--line:#bbb;
--badcard:#fdeceb;--goodcard:#e8f5ec;--good:#1b6e3c;--bad:#b3261e}
body{font-size:11pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}main{max-width:none;padding:0}
figure,tr,.verdict{break-inside:avoid}h2{break-after:avoid}pre{white-space:pre-wrap}.scroll{overflow:visible}}
@media(max-width:40rem){pre{white-space:pre-wrap;overflow-wrap:anywhere}.row{grid-template-columns:1fr;gap:.25rem}.grid{grid-template-columns:repeat(2,1fr)}
.pairs{grid-template-columns:1fr}.row img{height:4rem}th,td{padding-right:.5rem}.bar{display:none}}
"""


def document(title: str, body: str, style: str = "") -> str:
    """Put a page together.

    Args:
        title: Of the window, escaped.
        body: HTML.
        style: More rules than those of `STYLE`.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{STYLE}{style}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def escaped(text: object) -> str:
    """Write text from outside so that a page shows it as it is.

    >>> escaped("<b>\\x1b[31m")
    '&lt;b&gt;\\\\x1b[31m'
    """
    return html.escape(shown(text))


def section(title: str, words: str, content: str) -> str:
    """Make a part of a page; all three are HTML."""
    text = f"<p>{words}</p>" if words else ""
    return f"<section><h2>{title}</h2>{text}\n{content}</section>"


def listed(texts: Iterable[str]) -> str:
    """Make a list of texts from outside."""
    return f'<ul class="plain">{"".join(f"<li>{escaped(text)}</li>" for text in texts)}</ul>'


def data_uri(kind: str, content: bytes) -> str:
    """Write a file as a data URI, for a page that has it in itself.

    >>> data_uri("image/png", b"...")
    'data:image/png;base64,Li4u'
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
