"""A Sphinx extension for what stands beside the pages, and for how others find them.

It writes the methods as single files, the picture of the landing page, the page that a bare address opens, and the
list of pages for search engines; it takes away what no page loads.
"""

import re
from html import escape
from pathlib import Path

import landing_picture
import one_file
from sphinx.application import Sphinx

PICTURE = "_static/two_gradients"
DESCRIPTION = (
    "An executable book on multi-task learning. It derives the methods that balance many losses, runs each, "
    "and says when not to use it."
)
INDEX = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="description" content="{description}">
<meta property="og:title" content="{title}">
<meta property="og:description" content="{description}">
<meta property="og:image" content="{base}{picture}.png">
<link rel="canonical" href="{base}{page}">
<meta http-equiv="refresh" content="0; url={page}">
</head>
<body><a href="{page}">{title}</a></body>
</html>
"""


def write_index(app: Sphinx, folder: Path) -> None:
    """What a link to the bare address shows, and where it leads."""
    index = INDEX.format(
        title=escape(app.config.html_title),
        description=DESCRIPTION,
        base=app.config.html_baseurl,
        picture=PICTURE,
        page=f"{app.config.root_doc}.html",
    )
    (folder / "index.html").write_text(index)


def write_sitemap(app: Sphinx, folder: Path) -> None:
    """The addresses of all pages."""
    pages = (f"<url><loc>{app.config.html_baseurl}{name}.html</loc></url>" for name in sorted(app.env.found_docs))
    head = '<?xml version="1.0" encoding="utf-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
    (folder / "sitemap.xml").write_text("\n".join([head, *pages, "</urlset>\n"]))
    (folder / "robots.txt").write_text(f"User-agent: *\nSitemap: {app.config.html_baseurl}sitemap.xml\n")


def remove_unused(folder: Path) -> None:
    """MathJax comes in all its forms, and scripts with maps for their authors; a page loads one and none."""
    texts = (path.read_text() for path in folder.rglob("*.html"))
    loaded = {name for text in texts for name in re.findall(r"/mathjax/([\w-]+\.js)", text)}
    mathjax = folder / "_static" / "mathjax"
    unused = [path for path in mathjax.glob("*.js") if path.name not in loaded]
    for path in (*unused, *folder.rglob("*.map"), *(mathjax / "output" / "svg").rglob("*.js")):
        path.unlink()


def name_side_bar(folder: Path) -> None:
    """The theme's side bar becomes a region with a name, to which a screen reader can go."""
    start = 'class="sidebar-primary-items__start sidebar-primary__section"'
    for path in folder.rglob("*.html"):
        text = path.read_text()
        if start in text:
            path.write_text(text.replace(start, f'{start} role="region" aria-label="The book"'))


def publish(app: Sphinx, error: Exception | None) -> None:
    """What happens when the pages are finished."""
    if error is None and app.builder.name == "html":
        folder = Path(app.outdir)
        one_file.write(folder / "downloads")
        for kind in ("svg", "png"):
            landing_picture.draw(folder / f"{PICTURE}.{kind}")
        write_index(app, folder)
        write_sitemap(app, folder)
        remove_unused(folder)
        name_side_bar(folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", publish)
    return {"parallel_read_safe": True}
