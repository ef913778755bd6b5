"""A Sphinx extension for the playground: gradients that a reader can drag, with the numbers of the package.

    ```{widget} cone
    ```

puts one of the three widgets on a page. What a widget says of a method comes from the catalogue: the rows whose
key stands in `_static/methods.js`. In a chapter a widget is a paragraph with one link to a state of it,
as Colab shows it; in the book the widget stands above it, and starts in that state.
"""

import json
import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import urlsplit

import landing_picture
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mtl_ref.catalogue import ROWS, Method

STATIC = Path(__file__).parent / "_static"
PAGE = "book/playground"
SHARED = ("methods", "widget")
KINDS = ("cone", "landscape", "scale")
PICTURE = f'<noscript><img class="wide" src="../_static/two_gradients.svg" alt="{landing_picture.ALT}"></noscript>'


def shown() -> list[Method]:
    """The rows of the catalogue that the playground computes."""
    source = (STATIC / "methods.js").read_text()
    return [row for row in ROWS if f'"{row.key}":' in source]


def data(keys: list[str]) -> str:
    """What the widgets of a page know of the methods: all of them, or those with the keys."""
    rows = [
        {
            "key": row.key,
            "name": row.name,
            "call": row.call,
            "href": f"../notebooks/{row.chapter}.html",
            "pen": pen,
        }
        for pen, row in enumerate(shown())
    ]
    text = json.dumps(
        [row for row in rows if not keys or row["key"] in keys], ensure_ascii=False, separators=(",", ":")
    )
    return f'<script type="application/json" id="playground-methods">{text}</script>'


def loaded(kinds: set[str], keys: list[str]) -> str:
    """What a page loads for its widgets."""
    scripts = "".join(
        f'<script defer src="../_static/{name}.js"></script>'
        for name in (*SHARED, *(kind for kind in KINDS if kind in kinds))
    )
    return f'<link rel="stylesheet" href="../_static/playground.css">{data(keys)}{scripts}'


def widget(kind: str, fallback: str, **attributes: str) -> nodes.raw:
    """The place of a widget, with what stands there without scripts."""
    given = "".join(f' data-{name}="{escape(value)}"' for name, value in attributes.items())
    return nodes.raw("", f'<div class="widget" data-widget="{kind}"{given}>{fallback}</div>', format="html")


class Widget(SphinxDirective):
    """A widget: on its own page, with all methods; elsewhere small, with those of its state."""

    required_arguments = 1
    option_spec = {"state": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """The place that its script fills."""
        state = self.options.get("state")
        given = {} if state is None else {"state": state, "small": ""}
        return [widget(self.arguments[0], PICTURE, **given)]


def embed(app: Sphinx, doctree: nodes.document) -> None:
    """Put the widget above a paragraph that is one link to the playground, and load what the page needs."""
    address = f"{app.config.html_baseurl}{PAGE}.html?"
    for reference in list(doctree.findall(nodes.reference)):
        uri = reference.get("refuri", "")
        if uri.startswith(address) and reference.parent.astext() == reference.astext():
            state = urlsplit(unescape(uri)).query
            place = widget(state.split(".")[0], "", state=state, small="")
            reference.parent.parent.insert(reference.parent.parent.index(reference.parent), place)
            reference["refuri"] = f"{app.builder.get_relative_uri(app.env.docname, PAGE)}?{state}"
    found = [raw.astext() for raw in doctree.findall(nodes.raw) if 'data-widget="' in raw.astext()]
    if found:
        kinds = set(re.findall(r'data-widget="(\w+)"', "".join(found)))
        html = loaded(kinds, re.findall(r"[\w+-]+", "".join(re.findall(r"\.m=([\w,+-]+)", "".join(found)))))
        doctree.append(nodes.raw("", html, format="html"))


def without_comments(app: Sphinx, error: Exception | None) -> None:
    """What a reader's browser loads of the scripts: the lines, less indentation and those that only explain."""
    if error is None and app.builder.name == "html":
        for name in (*SHARED, *KINDS):
            path = Path(app.outdir) / "_static" / f"{name}.js"
            lines = (line.strip() for line in (STATIC / path.name).read_text().splitlines())
            path.write_text("\n".join(line for line in lines if line and not line.startswith(("//", "/**"))))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("widget", Widget)
    app.connect("doctree-read", embed)
    app.connect("build-finished", without_comments)
    return {"parallel_read_safe": True}
