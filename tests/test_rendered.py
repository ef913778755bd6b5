"""Rendered pages in a real browser: formulas, images, links, width, third parties, accessibility.

Needs the book (`make book`) and a Chromium. Where there is no Chromium these tests are skipped,
unless MTL_REF_REQUIRE_BROWSER=1 asks for them. Each check is a function from an open page to its
faults, and is shown to bite on a made page.
"""

import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from mtl_ref.catalogue import ROWS

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
BASE = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]["config"]["html_baseurl"]
TOC = re.findall(r"(?:file|root): (\S+)", (ROOT / "_toc.yml").read_text())
PAGES = [f"{name}.html" for name in TOC]
BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class Site:
    """A folder served over HTTP, and a browser that opens its pages and records what they do."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self.folder = folder
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.context = browser.new_context(viewport=DESKTOP, color_scheme="light")
        self.targets: dict[str, set[str]] = {}

    def close(self) -> None:
        self.context.close()
        self.server.shutdown()
        self.server.server_close()

    def open(self, name: str) -> "Visit":
        return Visit(self, name)

    def ids(self, name: str) -> set[str]:
        """What a link to a page of this site can point at, once its formulas are typeset."""
        if name not in self.targets:
            visit = self.open(name)
            self.targets[name] = set(visit.js("[...document.querySelectorAll('[id]')].map(e => e.id)"))
            visit.page.close()
        return self.targets[name]


class Visit:
    """One open page with its formulas typeset: all that it requested, and all that it logged."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.requests: list[str] = []
        self.console: list[str] = []
        self.page: Page = site.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on(
            "console",
            lambda message: self.console.append(message.text) if message.type == "error" else None,
        )
        self.page.goto(site.address + name, wait_until="load")
        self.js("window.MathJax?.startup?.promise?.then(() => true)")
        self.settle()

    def settle(self) -> None:
        """Let the theme give a tab stop to what scrolls: it waits 300 ms after the last change of the page."""
        self.js("new Promise(done => { dispatchEvent(new Event('resize')); setTimeout(() => done(true), 350); })")

    def js(self, expression: str) -> Any:
        return self.page.evaluate(expression)


def failed_formulas(visit: Visit) -> list[str]:
    return visit.js(
        r"""() => {
          const errors = [...document.querySelectorAll('mjx-merror')].map(e => 'error: '
              + (e.getAttribute('title') || e.getAttribute('data-mjx-error')));
          const unknown = [...document.querySelectorAll('mjx-mtext')]
              .filter(e => e.style.color === 'red').map(e => 'unknown macro: ' + e.outerHTML);
          const raw = [...document.querySelectorAll('.math')]
              .filter(e => !e.querySelector('mjx-container'))
              .map(e => 'not typeset: ' + e.textContent);
          const article = document.querySelector('article') || document.body;
          const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
          const loose = [];
          while (walker.nextNode()) {
            const node = walker.currentNode;
            if (/\$\$|\\\(|\\\[|\\begin\{|\\tag\{/.test(node.data)
                && !node.parentElement.closest('pre, code, script, mjx-container, .math'))
              loose.push('raw formula: ' + node.data.trim().slice(0, 80));
          }
          const references = [...document.querySelectorAll('mjx-container')]
              .filter(e => e.textContent.includes('???')).map(() => 'a reference to no equation');
          return [...errors, ...unknown, ...raw, ...loose, ...references];
        }"""
    )


def console_errors(visit: Visit) -> list[str]:
    return visit.console


def third_parties(visit: Visit) -> list[str]:
    own = (visit.site.address, "data:", "blob:")
    return [url for url in visit.requests if not url.startswith(own)]


def images_without_alt_text(visit: Visit) -> list[str]:
    images = visit.js("[...document.images].map(i => [i.src, i.alt, i.complete && i.naturalWidth > 0])")
    path = re.compile(r"^\S*[\\/]\S*$|\.(png|svg|jpe?g|gif)$")
    faults = [f"{src[:80]}: alt text {alt!r}" for src, alt, _ in images if not alt or path.search(alt)]
    return faults + [f"{src[:80]}: not shown" for src, _, shown in images if not shown]


def broken_links(visit: Visit) -> list[str]:
    faults = []
    site = visit.site
    for link in sorted(set(visit.js("[...document.querySelectorAll('a[href]')].map(a => a.href)"))):
        if not link.startswith(site.address):
            if urlsplit(link).scheme not in ("http", "https", "mailto", "javascript"):
                faults.append(link)
            continue
        address, fragment = urldefrag(link)
        name = unquote(urlsplit(address).path).lstrip("/") or "index.html"
        if not (site.folder / name).is_file():
            faults.append(f"{name}: no such page")
        elif fragment and unquote(fragment) not in site.ids(name):
            faults.append(f"{name}#{fragment}: no such place")
    return faults


def sideways_scrolling(visit: Visit) -> list[str]:
    visit.page.set_viewport_size(PHONE)
    visit.page.wait_for_timeout(200)
    width = visit.js("document.documentElement.scrollWidth")
    wide = visit.js(
        """() => [...document.querySelectorAll('article *')].filter(e => {
             if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
             for (let p = e.parentElement; p !== document.body; p = p.parentElement)
               if (getComputedStyle(p).overflowX !== 'visible') return false;
             return true;
           }).slice(0, 3).map(e => e.outerHTML.slice(0, 100))"""
    )
    wide += visit.js(
        """() => [...document.querySelectorAll('article :is(mjx-container[display], div, pre, table, img)')]
             .filter(e => e.getBoundingClientRect().left < -1).slice(0, 3)
             .map(e => 'out of reach on the left: ' + e.outerHTML.slice(0, 100))"""
    )
    visit.page.set_viewport_size(DESKTOP)
    visit.settle()
    return wide + ([f"the page is {width} pixels wide"] if width > PHONE["width"] else [])


SEEN = """const seen = e => e.checkVisibility() && e.getBoundingClientRect().height > 0;
    const screen = 900, article = document.querySelector('article'), top = article.getBoundingClientRect().top;"""


def cut_code(visit: Visit) -> list[str]:
    """Lines of code that do not fit the column."""
    return visit.js(
        f"""() => {{ {SEEN}
          return [...article.querySelectorAll('pre')].filter(seen).filter(e => e.scrollWidth > e.clientWidth + 1)
              .map(e => 'cut off: ' + e.textContent.trim().slice(0, 80)); }}"""
    )


def open_checks(visit: Visit) -> list[str]:
    """Lists of checks that a reader has not asked for."""
    return visit.js(
        f"""() => {{ {SEEN}
          return [...article.querySelectorAll('.checks tr')].filter(seen)
              .map(e => 'not folded: ' + e.textContent); }}"""
    )


def stops_at_formulas(visit: Visit) -> list[str]:
    """Formulas at which the tabulator key stops."""
    return visit.js("[...document.querySelectorAll('mjx-container[tabindex]')].map(e => e.textContent)")


def is_chapter(visit: Visit) -> bool:
    """Whether it is read from top to bottom: the errata and the catalogue, with its folded cards, are not."""
    return not re.match(r"book/|notebooks/(errata|catalogue)", visit.name)


def long_page(visit: Visit) -> list[str]:
    """A chapter of more than 18 screens."""
    screens = visit.js("document.querySelector('article').getBoundingClientRect().height / 900")
    return [f"{screens:.1f} screens"] if is_chapter(visit) and screens > 18 else []


def long_stretches(visit: Visit) -> list[str]:
    """More than four screens of a chapter without a picture or a table."""
    ends = visit.js(
        f"""() => {{ {SEEN}
          const box = e => e.getBoundingClientRect();
          const rests = [...article.querySelectorAll('img, table')].filter(seen).filter(e => box(e).height > 60);
          const ends = rests.map(e => [box(e).top - top, box(e).bottom - top]);
          const height = box(article).height;
          return [[0, 0], ...ends, [height, height]].map(([a, b]) => [a / screen, b / screen]); }}"""
    )
    gaps, covered = [], 0.0
    for start, end in sorted(ends):
        if start - covered > 4:
            gaps.append((covered, start))
        covered = max(covered, end)
    return [f"neither picture nor table from screen {a:.1f} to {b:.1f}" for a, b in gaps if is_chapter(visit)]


def inaccessible(visit: Visit, theme: str, rules: list[str] | None = None) -> list[str]:
    visit.js(f"document.documentElement.dataset.theme = '{theme}'")
    visit.page.add_style_tag(content="* { transition: none !important; }")
    visit.page.wait_for_timeout(100)
    # Sphinx lists its citations as DPUB-ARIA 1.0 had it, with children that axe no longer takes for items.
    own_to_sphinx = ("aria-required-children", "citation-list")
    options = {"runOnly": rules} if rules else {}
    violations = Axe().run(visit.page, context="article", options=options).response["violations"]
    return [
        f"{v['id']}: {v['help']}: {node['html'][:100]}: {node['failureSummary'][:300]}"
        for v in violations
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
        if not (v["id"] == own_to_sphinx[0] and own_to_sphinx[1] in node["html"])
    ]


CHECKS: dict[str, Callable[[Visit], list[str]]] = {
    "formulas": failed_formulas,
    "console": console_errors,
    "third parties": third_parties,
    "images": images_without_alt_text,
    "links": broken_links,
    "cut code": cut_code,
    "checks": open_checks,
    "tab stops": stops_at_formulas,
    "length": long_page,
    "stretches": long_stretches,
    "width": sideways_scrolling,
    "light": partial(inaccessible, theme="light"),
    "dark": partial(inaccessible, theme="dark", rules=["color-contrast"]),  # a theme changes colours alone
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is installed"
        if os.environ.get("MTL_REF_REQUIRE_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def book(browser: Browser) -> Iterator[Site]:
    assert (HTML / "index.html").is_file(), "there is no book yet: make book"
    site = Site(browser, HTML)
    yield site
    site.close()


@pytest.fixture(scope="module", params=PAGES)
def visit(request: pytest.FixtureRequest, book: Site) -> Iterator[Visit]:
    visit = book.open(request.param)
    yield visit
    visit.page.close()


@pytest.mark.parametrize("check", CHECKS)
def test_page_passes(visit: Visit, check: str) -> None:
    assert CHECKS[check](visit) == []


@pytest.fixture(scope="module")
def pcgrad(book: Site) -> Iterator[Visit]:
    visit = book.open("notebooks/05_gradient_conflict.html")
    yield visit
    visit.page.close()


def test_a_tag_leads_to_its_equation_and_back_to_its_line_of_code(pcgrad: Visit) -> None:
    links = pcgrad.js(
        "[...document.querySelectorAll('a.to-equation')].map(a => [a.textContent, a.getAttribute('href')])"
    )
    assert len(links) > 5
    assert all(href.endswith(f"#mjx-eqn:{text[1:-1]}") for text, href in links)
    for tag in ("PC.1", "PC.2", "PC.3", "PC.4"):
        there = (
            f"document.querySelector('a.to-code[href=\"#code:{tag}\"]') && document.getElementById('code:{tag}')"
        )
        assert pcgrad.js(f"Boolean({there})"), tag
    elsewhere = pcgrad.site.open("notebooks/errata.html")
    assert elsewhere.js("document.querySelectorAll('a.to-equation[href^=\"0\"]').length") > 0
    elsewhere.page.close()


def test_an_equation_appears_beside_a_link_to_it_and_goes(pcgrad: Visit) -> None:
    shown = "document.querySelector('.equation-preview.shown mjx-container') !== null"
    assert not pcgrad.js(shown)
    pcgrad.page.locator('a[href="#mjx-eqn:PC.3"]').first.focus()
    assert pcgrad.js(shown)
    pcgrad.js("document.activeElement.blur()")
    assert not pcgrad.js(shown)


def test_a_solution_is_one_fold_with_its_code_and_folds_in_a_row_are_one(pcgrad: Visit) -> None:
    solutions = (
        "[...document.querySelectorAll('#exercises details')].filter(d => !d.parentElement.closest('details'))"
    )
    assert pcgrad.js(f"{solutions}.length") == pcgrad.js(
        "document.querySelectorAll('#exercises > p > strong').length"
    )
    assert pcgrad.js(f"{solutions}.every(d => d.querySelector('.cell'))")
    in_a_row = """[...document.querySelectorAll('.cell:has(> details.above-input) + .cell > details.above-input')]
        .filter(d => !d.closest('.cell').querySelector('img, table') && d.checkVisibility()).length"""
    assert pcgrad.js(in_a_row) == 0


def test_a_picture_has_a_caption_and_its_card_a_file(pcgrad: Visit) -> None:
    assert pcgrad.js(
        "[...document.querySelectorAll('.cell_output img')].every(i => i.closest('figure figcaption, figure'))"
    )
    assert pcgrad.js("document.querySelectorAll('figcaption').length") >= 5
    assert pcgrad.js("document.querySelector('a[download]').getAttribute('href')") == "../downloads/pcgrad.py"


@pytest.fixture
def catalogue(book: Site) -> Iterator[Visit]:
    visit = book.open("notebooks/catalogue.html")
    yield visit
    visit.page.close()


ROWS_SHOWN = "[...document.querySelector('.sortable tbody').rows].filter(r => !r.hidden)"
FIRST_COLUMN = ROWS_SHOWN + ".map(r => r.cells[0].innerText)"


def test_a_long_table_is_filtered_by_typing(catalogue: Visit) -> None:
    names = catalogue.js(FIRST_COLUMN)
    assert len(names) == len(ROWS)
    typed = catalogue.page.get_by_role("searchbox").first
    typed.fill("closest RAISES mean")
    assert catalogue.js(FIRST_COLUMN) == ["DualProj"]
    assert f"1 of {len(ROWS)}" in catalogue.page.locator(".table-filter").first.inner_text()
    typed.fill("")
    assert catalogue.js(FIRST_COLUMN) == names


def test_a_long_table_is_sorted_by_the_column_that_is_clicked(catalogue: Visit) -> None:
    names = catalogue.js(FIRST_COLUMN)
    chapters = ROWS_SHOWN + ".map(r => Number(r.cells[7].innerText))"
    head = catalogue.page.get_by_role("columnheader", name="chapter")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert catalogue.js(chapters) == sorted(int(row.chapter[:2]) for row in ROWS)  # as numbers: 2 before 12
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert catalogue.js(chapters) == sorted((int(row.chapter[:2]) for row in ROWS), reverse=True)
    assert sorted(catalogue.js(FIRST_COLUMN)) == sorted(names)


def test_numbers_with_a_sign_and_an_interval_are_sorted_by_their_value(catalogue: Visit) -> None:
    points = (
        "[...document.querySelectorAll('.sortable tbody')[1].rows].map(r => r.cells[2].innerText.split(' ')[0])"
    )
    catalogue.page.get_by_role("columnheader", name="with the sum, points").get_by_role("button").click()
    found = [float(text.replace("−", "-")) for text in catalogue.js(points) if text]
    assert min(found) < 0 < max(found)
    assert found == sorted(found)


def test_a_name_in_the_catalogue_leads_to_its_card(catalogue: Visit) -> None:
    card = catalogue.page.locator("details:has(#card-upgrad)")
    assert card.get_attribute("open") is None
    catalogue.page.locator('a[href="#card-upgrad"]').click()
    assert card.get_attribute("open") is not None


def test_the_first_page_leads_into_the_book_and_says_what_it_is(book: Site) -> None:
    text = (HTML / "index.html").read_text()
    for kind in ('name="description"', 'property="og:title"', 'rel="canonical"'):
        assert kind in text
    page = book.context.new_page()
    page.goto(f"{book.address}index.html")
    page.wait_for_url(f"**/{PAGES[0]}")
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_says_to_others_what_it_is(name: str) -> None:
    text = (HTML / name).read_text()
    assert re.search(r'<meta property="og:description" content="[^"]{40,}', text)
    assert f"<loc>{BASE}{name}</loc>" in (HTML / "sitemap.xml").read_text()


def test_an_address_without_a_page_has_one() -> None:
    assert (HTML / "404.html").is_file()


def test_the_site_holds_what_a_page_loads_and_no_more() -> None:
    assert len(list((HTML / "_static" / "mathjax").glob("*.js"))) == 1
    assert not list(HTML.rglob("*.map"))


@pytest.mark.parametrize("check", [console_errors, third_parties, broken_links])
def test_search_needs_no_third_party(book: Site, check: Callable[[Visit], list[str]]) -> None:
    visit = book.open("search.html?q=balancing")
    visit.page.wait_for_selector("#search-results a")
    assert check(visit) == []
    visit.page.close()


GOOD = r"""<!doctype html><html lang="en" data-theme="light"><head><title>A page</title>
<script>window.MathJax = {options: {processHtmlClass: 'math', ignoreHtmlClass: '.*',
  menuOptions: {settings: {inTabOrder: false}}}};</script>
<script defer src="_static/mathjax/tex-chtml.js"></script></head>
<body><article id="top"><h1>A page</h1><p>Prose, <a href="#top">a link</a> and
<a href="#mjx-eqn:GD.1">another</a>.</p><div class="math">\[x = y \tag{GD.1}\]</div>
<img alt="a drop" src="_static/drop.svg"></article></body></html>"""
SPOILT = {
    "formulas": [
        r'<div class="math">\[ \frac{1 \]</div>',
        r'<div class="math">\[ \nosuchmacro \]</div>',
        r'<div class="math">\[ \eqref{nowhere} \]</div>',
        '<div class="math">x</div>',
        "<p>$$ x $$</p>",
    ],
    "console": ["<script>undefinedFunction()</script>", "<script src='missing.js'></script>"],
    "third parties": ['<script src="http://localhost:9/x.js"></script>'],
    "images": [
        '<img src="_static/drop.svg">',
        '<img alt="../x.png" src="_static/drop.svg">',
        '<img alt="a drop" src="missing.svg">',
    ],
    "links": [
        '<a href="missing.html">x</a>',
        '<a href="#missing">x</a>',
        '<a href="#mjx-eqn:GD.2">x</a>',
        '<a href="other.html#missing">x</a>',
    ],
    "cut code": [f"<pre style='width: 20rem; overflow: auto'>{'x' * 80}</pre>"],
    "checks": ['<div class="checks"><table><tr><td>1 = 1</td></tr></table></div>'],
    "tab stops": ['<mjx-container tabindex="0">x</mjx-container>'],
    "length": ['<div style="height: 17000px">x</div>'],
    "stretches": ['<div style="height: 4000px">x</div>'],
    "width": [
        '<div style="width: 900px">x</div>',
        '<div style="display: flex; flex-direction: row-reverse; overflow: auto">'
        '<div style="min-width: 900px">x</div></div>',
    ],
    "light": ['<p style="color: #ddd; background: #fff">pale</p>'],
    "dark": ['<p style="color: #222; background: #111">murky</p>'],
}


@pytest.fixture(scope="module")
def made(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "_static").mkdir()
    (folder / "_static" / "mathjax").symlink_to(HTML / "_static" / "mathjax")
    drop = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="4"/></svg>'
    (folder / "_static" / "drop.svg").write_text(drop)
    (folder / "favicon.ico").touch()
    (folder / "other.html").write_text(GOOD)
    site = Site(browser, folder)
    yield site
    site.close()


def faults(site: Site, check: str, spoilt: str) -> list[str]:
    page = GOOD.replace("</article>", spoilt + "</article>")
    name = f"{zlib.crc32(page.encode())}.html"  # a name of its own, so that no cache answers for it
    (site.folder / name).write_text(page)
    visit = site.open(name)
    found = CHECKS[check](visit)
    visit.page.close()
    return found


@pytest.mark.parametrize("check", CHECKS)
def test_a_good_page_passes(made: Site, check: str) -> None:
    assert faults(made, check, "") == []


FOLDED = "<details><summary>more</summary>{}</details>"


@pytest.mark.parametrize("check", ["checks", "cut code"])
def test_what_is_folded_is_not_seen(made: Site, check: str) -> None:
    assert faults(made, check, FOLDED.format(SPOILT[check][0])) == []
    assert faults(made, check, FOLDED.format(SPOILT[check][0]).replace("<details>", "<details open>")) != []


@pytest.mark.parametrize(("check", "spoilt"), [(check, html) for check, pages in SPOILT.items() for html in pages])
def test_the_check_bites(made: Site, check: str, spoilt: str) -> None:
    assert faults(made, check, spoilt) != []


def test_every_check_is_shown_to_bite() -> None:
    assert set(SPOILT) == set(CHECKS)
