"""One self-contained HTML file: text, tables and charts, nothing of it fetched.

plotly's JavaScript lies in the page, compressed, and is unpacked by the browser. A content security policy allows the
page's own two scripts by their hashes and forbids every request: whatever a prompt or a path holds, it is not run, and
no address is ever asked. Without JavaScript the text and the tables are there.
"""

import base64
import functools
import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files

from modulant.reports.charts import Chart, skins
from modulant.reports.report_rows import Rows

_CODE, _BOLD = re.compile(r"`([^`]+)`"), re.compile(r"\*\*(.+?)\*\*")


def escaped(text: object) -> str:
    """Text that is no markup, wherever it stands.

    >>> escaped("</script><img onerror='x'>")
    '&lt;/script&gt;&lt;img onerror=&#x27;x&#x27;&gt;'
    """
    return html.escape(str(text), quote=True)


def said(sentence: str) -> str:
    """A sentence with Markdown's `code` and **bold**.

    >>> said("**Failed**: `a < b`")
    '<strong>Failed</strong>: <code>a &lt; b</code>'
    """
    return _BOLD.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", escaped(sentence)))


def paragraph(sentence: str, kind: str = "") -> str:
    return f"<p{f' class={kind}' if kind else ''}>{said(sentence)}</p>" if sentence else ""


def bullets(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{said(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def table(header: Sequence[str], rows: Rows, words: int = 1) -> str:
    """A table; the first `words` columns are words, the others numbers."""
    if not rows:
        return ""

    def cell(tag: str, column: int, text: str) -> str:
        kind = "" if column < words else " class=n"
        if kind:  # breaks between a figure and its interval, if it must, and not inside either
            text = re.sub(r" (?![(\[])", "\u00a0", text)
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{kind}{scope}>{escaped(text)}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(header))
    body = "".join(f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(row))}</tr>" for row in rows)
    head = f"<thead><tr>{head}</tr></thead>" if any(header) else ""
    return f"<div class=scroll><table>{head}<tbody>{body}</tbody></table></div>"


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{escaped(summary)}</summary>{content}</details>" if content else ""


def section(title: str, *parts: str) -> str:
    """A section, or nothing where it would be empty."""
    content = "".join(parts)
    return f"<section><h2>{escaped(title)}</h2>{content}</section>" if content else ""


def figure(chart: Chart | None) -> str:
    """Where a chart will be drawn, its choice of views, and its numbers as a table."""
    if chart is None:
        return ""
    labels = [f"view-{chart.name}-{i}" for i in range(len(chart.views))]
    choices = "".join(
        f'<label><input type=radio name="view-{chart.name}" id="{label}" value="{i}"{" checked" * (i == 0)}>'
        f"{escaped(view)}</label>"
        for i, (label, view) in enumerate(zip(labels, chart.views, strict=True))
    )
    picked = f"<fieldset class=views><legend>Show</legend>{choices}</fieldset>" if len(chart.views) > 1 else ""
    numbers = folded("Numbers", table(*chart.table)) if chart.table else ""
    return (
        f'<figure><figcaption id="title-{chart.name}">{escaped(chart.title)}</figcaption>{picked}'
        f'<div class=chart id="chart-{chart.name}" role=img aria-label="{escaped(chart.alt)}"></div>'
        f"{paragraph(chart.note, 'note')}{numbers}</figure>"
    )


def page(title: str, lead: str, sections: Iterable[str], charts: Sequence[Chart]) -> str:
    """The file.

    Args:
        title: of the page.
        lead: markup under the title.
        sections: markup.
        charts: those whose `figure` stands somewhere in it.
    """
    style, script = _resource("page.css"), _resource("page.js")
    drawn = {
        "skins": skins(charts),
        "charts": [
            {"name": chart.name, "views": list(chart.views.values()), "layout": chart.layout} for chart in charts
        ],
    }
    library, of_library = _plotly() if charts else ("", "")
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src 'sha256-{_sum(script)}' {of_library}"
    ).strip()
    scripts = (
        f'<script type="application/json" id=drawn>{_inert(drawn)}</script>'
        f'<script type="application/gzip" id=plotly>{library}</script><script>{script}</script>'
        if charts
        else ""
    )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        '<meta name=color-scheme content="light dark"><meta name=referrer content=no-referrer>'
        f"<title>{escaped(title)}</title><style>{style}</style></head><body><main>"
        f"<header><h1>{escaped(title)}</h1>{lead}</header>"
        f"<noscript><p class=note>Without JavaScript no chart is drawn; the tables hold their numbers.</p>"
        f"</noscript>{''.join(sections)}</main>{scripts}</body></html>\n"
    )


def _inert(content: object) -> str:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _resource(name: str) -> str:
    return files("modulant.reports").joinpath(name).read_text(encoding="utf-8")


def _sum(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@functools.cache
def _plotly() -> tuple[str, str]:
    """The library, packed, and the policy's word for it. Imported here: a run should not wait for it at its start."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode(), f"'sha256-{_sum(script)}'"
