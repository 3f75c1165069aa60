"""Markdown and HTML from the templates in `templates/`.

An HTML page is one file, and nothing of it is fetched. plotly's JavaScript is in the page, compressed, and is unpacked
by the browser. A content security policy allows the page's own two scripts by their hashes and forbids every request:
whatever a prompt or a path holds, it is not run, and no address is requested. Without JavaScript, text and tables show.
"""

import base64
import functools
import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from modulant.reports.wording import number

if TYPE_CHECKING:
    from modulant.reports.drawing.chart import Chart

_CODE, _BOLD = re.compile(r"`([^`]+)`"), re.compile(r"\*\*(.+?)\*\*")


def markdown(template: str, **content: Any) -> str:
    """The page of `templates/<template>.md.j2`; whatever was left out leaves no gap."""
    text = _environment().get_template(f"{template}.md.j2").render(content)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def html(template: str, charts: Sequence["Chart"] = (), **content: Any) -> str:
    """The page of `templates/<template>.html.j2`.

    Args:
        charts: those that the template shows.
        content: its `title`, its `lead` (a line under the title) and whatever the template names; `most_open` is how
            many charts it shows before it folds the others.
    """
    from modulant.reports.drawing.interactive import MOST_OPEN, drawn

    style, script = _resource("page.css"), _resource("page.js")
    library, library_hash = _plotly() if charts else ("", "")
    policy = (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {_hash(script)} {library_hash}"
    ).strip()
    page = _environment().get_template(f"{template}.html.j2")
    return page.render(
        content,
        most_open=MOST_OPEN,
        charts={chart.name: chart for chart in charts},
        drawn=_inert(drawn(charts)) if charts else "",
        library=library,
        policy=policy,
        script=Markup(script),
        style=Markup(style),
    )


def sentence(text: str) -> Markup:
    """Markdown's `code` and **bold** as HTML.

    >>> print(sentence("**Failed**: `a < b`"))
    <strong>Failed</strong>: <code>a &lt; b</code>
    """
    return Markup(_BOLD.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", str(escape(text)))))


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=lambda name: bool(name) and str(name).endswith(".html.j2"),
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"sentence": sentence, "number": number}
    return environment


def _inert(content: object) -> Markup:
    """JSON that ends no script element, whatever it holds."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _resource(name: str) -> str:
    return files("modulant.reports").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@functools.cache
def _plotly() -> tuple[str, str]:
    """plotly's JavaScript, packed, and its hash. Imported late, so that a run does not wait for it at its start."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode(), _hash(script)
