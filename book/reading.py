r"""A Sphinx extension for readers: what proves a page is folded, and what belongs together is linked.

- A cell of checks becomes one line, "✓ 6 statements checked"; in it are the checks and their code.
- The code of a picture is folded, and the picture's caption is the first sentence of its alternative text.
- Code cells that follow a fold of the text, which ends the cell before them, go into it: the code of a solution.
- Folds in a row with nothing between become one: checks add up, and code goes to the code of what it prepares.
- A tag in the text, as (PC.3), leads to its equation; an equation leads to the line of code that computes it.
- A method's card offers the method as one file, which `publish.py` writes.

In a notebook itself, and in Colab, cells are open, each list of checks under its own fold.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

CHECKS = re.compile(r'<details class="checks"><summary>(.+?)</summary>(.+?)</details>', re.DOTALL)
END = "</details>"
TAG = re.compile(r"\(([A-Z]{2}\.(?:\d+|[a-z]))\)")


def is_cell(node: nodes.Node) -> bool:
    """Whether this is a code cell of a notebook."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def fold(cell: Any, prompt: str, mode: str) -> None:
    """Put a cell ("all") or its code ("input") under a line that opens it."""
    cell["hide_mode"], cell["prompt_show"], cell["prompt_hide"] = mode, prompt, prompt


def open_checks(cell: Any) -> str:
    """Take the fold off the check lists in a cell's output; what it said, or "" if there is none."""
    said = ""
    for raw in list(cell.findall(nodes.raw)):
        if match := CHECKS.search(raw.astext()):
            said = match[1]
            html = CHECKS.sub(lambda found: f'<div class="checks">{found[2]}</div>', raw.astext())
            raw.replace_self(nodes.raw("", html, format="html"))
    return said


def merge_folds(doctree: nodes.document) -> None:
    """Make one fold of several in a row: lists of checks, or code without an output and the fold after it."""
    for cell in list(doctree.findall(is_cell)):
        siblings = cell.parent.children
        after = siblings[siblings.index(cell) + 1 :][:1]
        if not (after and is_cell(after[0])):
            continue
        (later,) = after
        silent = len(cell.children) == 1 and cell.get("hide_mode") == "input" and later.get("hide_mode")
        counts = [re.match(r"✓ (\d+) ", str(c.get("prompt_show"))) for c in (cell, later)]
        if silent:
            later.children[0].insert(0, cell.children[0].children)
        elif all(counts):
            later.insert(0, cell.children)
            total = sum(int(count[1]) for count in counts if count)
            fold(later, f"✓ {total} statements checked", "all")
        if silent or all(counts):
            cell.parent.remove(cell)


def fold_cells(doctree: nodes.document) -> None:
    """Fold every cell that is not to be read with the text."""
    for cell in list(doctree.findall(is_cell)):
        siblings = cell.parent.children
        before = siblings[siblings.index(cell) - 1] if siblings.index(cell) else None
        if isinstance(before, nodes.raw) and before.astext().strip() == END:
            cell["hide_mode"] = None
            open_checks(cell)
            cell.parent.remove(cell)
            before.parent.insert(before.parent.index(before), cell)
        elif said := open_checks(cell):
            fold(cell, said, "all")
        elif cell.get("hide_mode") == "input" and any(True for _ in cell.findall(nodes.image)):
            fold(cell, "Code of this picture", "input")


def caption_pictures(doctree: nodes.document) -> None:
    """Put the first sentence of its alternative text under each picture of a code cell."""
    for cell in doctree.findall(is_cell):
        for image in list(cell.findall(nodes.image)):
            first = re.match(r".+?[.:](?=\s|$)", image.get("alt", ""), re.DOTALL)
            if first and isinstance(image.parent, nodes.container | nodes.paragraph):
                caption = f"<figcaption>{escape(first[0].rstrip('.:'))}.</figcaption></figure>"
                image.replace_self(
                    [
                        nodes.raw("", "<figure>", format="html"),
                        image.deepcopy(),
                        nodes.raw("", caption, format="html"),
                    ]
                )


def equations(app: Sphinx) -> dict[str, str]:
    """The page, without a suffix, on which each tag's equation stands."""
    found = {}
    for path in sorted((Path(app.srcdir) / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                found |= dict.fromkeys(re.findall(r"\\tag\{(.+?)\}", cell.source), f"notebooks/{path.stem}")
    return found


def linked(app: Sphinx, page: str, text: str) -> Iterator[nodes.Node]:
    """A text with its tags as links."""
    end = 0
    for match in TAG.finditer(text):
        if target := app.env.tag_pages.get(match[1]):  # type: ignore[attr-defined]
            yield nodes.Text(text[end : match.start()])
            address = "" if target == page else app.builder.get_relative_uri(page, target)
            uri = f"{address}#mjx-eqn:{match[1]}"
            yield nodes.reference("", f"({match[1]})", refuri=uri, internal=True, classes=["to-equation"])
            end = match.end()
    yield nodes.Text(text[end:])


def link_tags(app: Sphinx, doctree: nodes.document) -> None:
    """Make each tag in the text a link, and give each equation one to its line of code on the same page."""
    page = app.env.docname
    code = set(re.findall(r'id="code:(.+?)"', "".join(raw.astext() for raw in doctree.findall(nodes.raw))))
    for block in list(doctree.findall(nodes.math_block)):
        for tag in re.findall(r"\\tag\{(.+?)\}", block.astext()):
            if tag in code:
                link = f'<a class="to-code" href="#code:{tag}" title="the line of code of ({tag})">‹/›</a>'
                block.parent.insert(block.parent.index(block), nodes.raw("", link, format="html"))
    for text in list(doctree.findall(nodes.Text)):
        quoted = nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.reference, nodes.raw
        above, inside = text.parent, []
        while above is not None:
            inside.append(above)
            above = above.parent
        if TAG.search(text) and not any(isinstance(node, quoted) for node in inside):
            text.parent.replace(text, list(linked(app, page, text)))


def offer_files(app: Sphinx, doctree: nodes.document) -> None:
    """Make the name of a file that the book offers a link to it."""
    for literal in list(doctree.findall(nodes.literal)):
        if re.fullmatch(r"downloads/[\w-]+\.py", literal.astext()):
            up = "../" * app.env.docname.count("/")
            name = literal.astext().removeprefix("downloads/")
            html = f'<a href="{up}{literal.astext()}" download>{name}, one file to copy</a>'
            literal.replace_self(nodes.raw("", html, format="html"))


def read(app: Sphinx, doctree: nodes.document) -> None:
    """What happens to a page when it has been read."""
    fold_cells(doctree)
    merge_folds(doctree)
    caption_pictures(doctree)
    link_tags(app, doctree)
    offer_files(app, doctree)


def find_equations(app: Sphinx, env: Any, docnames: list[str]) -> None:
    """Before a page is read, know where equations stand."""
    env.tag_pages = equations(app)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("env-before-read-docs", find_equations)
    app.connect("doctree-read", read)
    return {"parallel_read_safe": True}
