"""The playground computes what the package computes: states through its functions, and some through its controls.

Left out are the methods whose answer depends on steps before or on drawing, as GradNorm, DWA and random weights:
a state of the playground does not hold what they remember. FAMO is compared in its first step, and PCGrad in the
order that a seed draws. Needs the book and a Chromium, as `test_rendered` does.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from cases import DEGENERATE, SCALES, draw, matrix
from lint import NOTEBOOKS
from playground import KINDS, SHARED, STATIC
from playwright.sync_api import Locator, Page
from test_notebooks import code_tags
from test_rendered import BASE, HTML, PHONE, ROOT, Site, Visit, book, browser  # noqa: F401  (fixtures)
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS, ROWS
from mtl_ref.problems import toy
from mtl_ref.problems.toy.landscapes import direction, gradients

PAGE = "book/playground.html"
SEED = 7  # of PCGrad's orders
STATES = 200


@pytest.fixture(scope="module")
def visit(book: Site) -> Iterator[Visit]:  # noqa: F811
    visit = book.open(PAGE)
    yield visit
    visit.page.close()


@pytest.fixture(scope="module")
def keys(visit: Visit) -> list[str]:
    return visit.js("Object.keys(playground.methods)")


State = tuple[str, Tensor, Tensor]  # a name, the gradients and the losses


def sampled() -> list[State]:
    """Half of them in the plane, as a reader can set them, half in more dimensions and with more tasks."""
    states = []
    for seed in range(STATES):
        generator = torch.Generator().manual_seed(seed)
        plane = seed % 2 == 0
        T = 2 + seed // 2 % 2 if plane else 2 + seed % 6
        J = draw(T, 2 if plane else 3 + seed % 7, seed)
        if seed % 3 == 0:
            J = J * 10 ** torch.randn(T, 1, generator=generator, dtype=torch.float64)
        if seed % 5 == 1:
            J = J + 1.5 * J.norm(dim=1).mean() * draw(1, J.shape[1], seed + 1)  # gradients that agree
        states.append((f"state {seed}", J, 10 ** torch.randn(T, generator=generator, dtype=torch.float64)))
    return states


def degenerate() -> list[State]:
    """The cases of the contract, each in every scale."""
    found = {name: matrix(rows) for name, rows in DEGENERATE.items()}
    ones = {name: torch.arange(1.0, len(J) + 1, dtype=torch.float64) for name, J in found.items()}
    return [(name, scale * J, ones[name]) for name, J in found.items() for scale in SCALES]


def balancer(key: str, T: int) -> Any:
    call = METHODS[key].call.replace("(2)", f"({T})")
    made = eval(call, {"mtl": mtl})
    if key == "pcgrad":
        made.generator = torch.Generator().manual_seed(SEED)
    return made


def orders(T: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randperm(T, generator=generator).tolist() for _ in range(T)]


def weights(method: Any, J: Tensor, losses: Tensor) -> Tensor:
    if isinstance(method, mtl.GradientBalancer):
        return method.task_weights(J @ J.T, losses)
    losses = losses.clone().requires_grad_()
    return torch.autograd.grad(method(losses), losses)[0]


def faults(page: Page, keys: list[str], states: list[State]) -> list[str]:
    """Where a direction of the page differs from the package's by more than 1e-6 of it, and more than rounding."""
    given = [[J.tolist(), L.tolist(), orders(len(J))] for _, J, L in states]
    steps = "([keys, given]) => given.map(([J, L, o]) => keys.map(key => playground.step(key, J, L, o)))"
    wrong = []
    for (name, J, L), row in zip(states, page.evaluate(steps, [keys, given]), strict=True):
        lengths = J.norm(dim=1)
        for key, there in zip(keys, row, strict=True):
            alpha, d = weights(balancer(key, len(J)), J, L), direction(balancer(key, len(J)), J, L)
            theirs = torch.tensor(there["d"], dtype=torch.float64)
            terms = max(alpha.abs() @ lengths, lengths[lengths > 0].min() if lengths.any() else 0.0)
            same = (theirs - d).norm() <= 1e-6 * d.norm() + 1e-12 * terms
            if not same:
                wrong.append(f"{key}, {name}: {theirs.tolist()} for {d.tolist()}")
    return wrong


def test_every_method_without_memory_of_these_chapters_is_shown(keys: list[str]) -> None:
    chapters = "04", "05", "06", "07", "08"
    expected = {r.key for r in ROWS if r.chapter[:2] in chapters and r.gram and not r.state.startswith("T ")}
    stars = {"famo", "cagrad", "config", "upgrad", "aligned", "stch", "nash", "unit-upgrad"}
    assert expected | stars <= set(keys) <= set(METHODS)


def test_sampled_states_are_those_of_the_package(visit: Visit, keys: list[str]) -> None:
    assert len(sampled()) == STATES
    assert faults(visit.page, keys, sampled()) == []


def test_degenerate_states_are_those_of_the_package(visit: Visit, keys: list[str]) -> None:
    assert faults(visit.page, keys, degenerate()) == []


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("mgda", "alpha.map((x, i) => x * s[i]); // (MG.2)", "alpha.map((x, i) => -x * s[i]); // (MG.2)"),
        ("pcgrad", "x - share * M[j][k]); // (PC.2)", "x + share * M[j][k]); // (PC.2)"),
        (
            "upgrad",
            "slack = times(C, z).map((x, i) => inner[i] + x)",
            "slack = times(C, z).map((x, i) => inner[i] - x)",
        ),
        ("nash", "x + length * change[i]); // (BG.3)", "x - length * change[i]); // (BG.3)"),
    ],
)
def test_a_wrong_sign_is_found(book: Site, key: str, right: str, wrong: str) -> None:  # noqa: F811
    source = (STATIC / "methods.js").read_text()
    assert source.count(right) == 1
    for text, found in ((source, False), (source.replace(right, wrong), True)):
        page = book.context.new_page()
        page.add_script_tag(content=f"{text};globalThis.playground = playground")
        assert bool(faults(page, [key], sampled()[:40])) is found
        page.close()


def test_the_page_s_tags_are_the_package_s(visit: Visit) -> None:
    tags = set(re.findall(r"\(([A-Z]{2}\.\d+)\)", (STATIC / "methods.js").read_text()))
    served = (HTML / "_static" / "methods.js").read_text()
    assert len(tags) > 30
    assert tags <= {tag for path in (ROOT / "mtl_ref").rglob("*.py") for tag in code_tags(path.read_text())}
    assert all(f"({tag})" in served for tag in tags)


LANDSCAPES = {"fonseca": toy.fonseca, "pcgrad": toy.pcgrad_landscape, "cagrad": toy.cagrad_landscape}


@pytest.mark.parametrize("name", LANDSCAPES)
def test_landscapes_are_those_of_the_package(visit: Visit, name: str) -> None:
    points = 4 * draw(60, 2, 3)
    losses, J = gradients(LANDSCAPES[name], points)
    there = visit.page.evaluate(f"points => points.map(playground.toys['{name}'].f)", points.tolist())
    torch.testing.assert_close(matrix([x["L"] for x in there]), losses, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(matrix([x["J"] for x in there]), J, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("name", LANDSCAPES)
def test_ways_are_those_of_the_package(visit: Visit, name: str, optimizer: type[torch.optim.Optimizer]) -> None:
    start = visit.js(f"playground.toys['{name}'].start")
    for key in ("equal", "pcgrad", "mgda", "upgrad"):
        way = {"steps": 30, "lr": 0.01, "optimizer": optimizer}
        (ours,) = toy.trajectories(LANDSCAPES[name], balancer(key, 2), [start], **way)
        arguments = (
            f"playground.toys['{name}'].f, '{key}', {start}, 30, 0.01, {str('Adam' in str(optimizer)).lower()}"
        )
        theirs = visit.js(f"playground.walk({arguments}).map(p => p.theta)")
        torch.testing.assert_close(matrix(theirs), ours, rtol=1e-6, atol=1e-9)


def test_a_method_that_divides_by_a_negative_loss_stops(visit: Visit) -> None:
    with pytest.raises(ValueError, match="positive"):
        balancer("famo", 2)(torch.tensor([-1.0, 1.0]))
    assert visit.js("playground.walk(playground.toys.cagrad.f, 'famo', [0, -5], 30, 0.01, true).length") == 1


# --- The controls


def widget(visit: Visit, kind: str) -> Locator:
    return visit.page.locator(f'[data-widget="{kind}"]')


def table(place: Locator) -> list[list[str]]:
    return place.locator("tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.innerText.trim()))"
    )


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?[\d.]+(?:e-?\d+)?", text.replace("−", "-"))]


def run(code: str) -> list[Any]:
    """What the lines of a fold give: the values of those that only call something."""
    names: dict[str, Any] = {}
    values = []
    for line in filter(None, code.splitlines()):
        if re.match(r"direction|trajectories", line):
            values.append(eval(line, names))
        else:
            exec(line, names)
    return values


def shown_and_measured(place: Locator) -> list[tuple[list[float], Tensor]]:
    directions = run(place.locator("details pre").evaluate("e => e.textContent"))
    return list(zip([numbers(row[1]) for row in table(place)], directions, strict=True))


@pytest.mark.parametrize("preset", range(8))
def test_the_table_of_a_preset_is_what_its_python_gives(visit: Visit, preset: int) -> None:
    place = widget(visit, "cone")
    place.get_by_label("Start from").select_option(str(preset))
    pairs = shown_and_measured(place)
    assert pairs
    for shown, measured in pairs:
        torch.testing.assert_close(torch.tensor(shown).double(), measured, rtol=6e-3, atol=1e-9)


def test_what_the_page_says_of_its_presets_holds(visit: Visit) -> None:
    place = widget(visit, "cone")
    verdicts = {}
    for option in place.get_by_label("Start from").locator("option").all_inner_texts():
        place.get_by_label("Start from").select_option(option)
        verdicts[option] = {row[0]: row[-1] for row in table(place)}
    assert verdicts["conflicting"].pop("equal weights") == "loss 2 rises"
    assert set(verdicts["conflicting"].values()) == set(verdicts["aligned"].values()) == {"no loss rises"}
    assert verdicts["opposite"].pop("equal weights") == "loss 2 rises"
    assert set(verdicts["opposite"].values()) == {"no step"}
    assert verdicts["IMTL-G uphill"] == {"ConFIG": "no loss rises", "IMTL-G": "losses 1, 2, 3 rise"}
    assert verdicts["three tasks, from the first"]["PCGrad"] == "loss 1 rises"
    assert verdicts["three tasks, from the last"]["PCGrad"] == "losses 1, 3 rise"


def test_keys_move_a_gradient_and_a_live_region_says_which_loss_rises(visit: Visit) -> None:
    place = widget(visit, "cone")
    place.get_by_label("Start from").select_option("aligned")
    live = place.get_by_role("status")
    assert "loss 2 rises" not in live.inner_text()
    angle = place.get_by_label("g₂: angle")
    angle.focus()
    angle.press("End")  # 180 degrees
    for _ in range(5):
        angle.press("ArrowLeft")
    assert angle.get_attribute("aria-valuetext") == "175 degrees"
    assert "equal weights: loss 2 rises" in live.inner_text()
    assert numbers(table(place)[0][1])[0] < 0.3


def test_a_tip_can_be_dragged(visit: Visit) -> None:
    place = widget(visit, "cone")
    place.get_by_label("Start from").select_option("conflicting")
    before = place.get_by_label("g₁: angle").get_attribute("aria-valuetext")
    place.locator("svg[role=img]").scroll_into_view_if_needed()
    box = place.locator(".handle").first.bounding_box()
    assert box is not None
    visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] - 60, box["y"] - 60, steps=4)
    visit.page.mouse.up()
    assert place.get_by_label("g₁: angle").get_attribute("aria-valuetext") != before
    for shown, measured in shown_and_measured(place):
        torch.testing.assert_close(torch.tensor(shown).double(), measured, rtol=6e-3, atol=1e-9)


def test_a_finger_drags_a_tip_and_not_the_page(book: Site) -> None:  # noqa: F811
    browser = book.context.browser  # noqa: F811
    assert browser is not None
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(book.address + PAGE)
    handle = page.locator(".handle").first
    handle.scroll_into_view_if_needed()
    box, before = handle.bounding_box(), page.evaluate("scrollY")
    assert box is not None
    touch = context.new_cdp_session(page)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for kind, far in (("touchStart", 0), *(("touchMove", 8 * k) for k in range(1, 9))):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x - far, "y": y - far}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    (degrees,) = numbers(page.get_by_label("g₁: angle").get_attribute("aria-valuetext") or "")
    assert degrees > 15
    assert page.evaluate("scrollY") == before
    context.close()


def test_the_address_shows_what_its_sender_saw(visit: Visit, book: Site) -> None:  # noqa: F811
    place = widget(visit, "cone")
    place.get_by_label("Start from").select_option("three tasks, from the last")
    place.get_by_label("g₂: length").press("PageUp")
    place.get_by_role("checkbox", name="CAGrad").check()
    widget(visit, "landscape").get_by_role("combobox", name="Losses").select_option("cagrad")
    widget(visit, "scale").get_by_label("loss 1 times").press("End")
    visit.page.wait_for_url("**scale.unit=1000**")
    other = book.open(visit.page.url.removeprefix(book.address))
    for kind in KINDS:
        assert table(widget(other, kind)) == table(widget(visit, kind)), kind
    assert other.console == []
    other.page.close()


def test_the_map_gives_what_its_python_gives(visit: Visit) -> None:
    place = widget(visit, "landscape")
    place.get_by_role("combobox", name="Losses").select_option("fonseca")
    place.locator(".spot").click(position={"x": 120, "y": 90})
    for shown, ((*_, measured),) in shown_and_measured(place):
        torch.testing.assert_close(torch.tensor(shown).double(), measured, rtol=6e-3, atol=1e-6)


def test_a_unit_turns_some_directions_and_not_others(visit: Visit) -> None:
    place = widget(visit, "scale")
    place.get_by_label("loss 1 times").press("Home")
    turns = {row[0]: row[-1] for row in table(place)}
    assert {name for name, verdict in turns.items() if verdict == "turns"} == {"equal weights", "PCGrad", "MGDA"}
    assert turns["normalised gradients"] == "does not turn"


LINKED = [  # a chapter, and the state that it links to
    (path.stem, state)
    for path in NOTEBOOKS
    for state in re.findall(rf"\]\({re.escape(BASE + PAGE)}\?([^)]+)\)", path.read_text())
]


def test_chapters_link_to_the_playground_under_the_book_s_address() -> None:
    assert len(LINKED) >= 4
    assert len(LINKED) == sum(path.read_text().count("playground.html") for path in NOTEBOOKS)


@pytest.mark.parametrize(("chapter", "state"), LINKED)
def test_a_chapter_s_link_is_a_widget_in_its_state(book: Site, chapter: str, state: str) -> None:  # noqa: F811
    opened = book.open(f"notebooks/{chapter}.html")
    place = opened.page.locator(f'.widget[data-state="{state}"]')
    keys = re.findall(r"\.m=([\w,+-]+)", state)[0].split(",")
    assert all(f"{METHODS[key].name}: " in place.locator(".said").inner_text() for key in keys)
    assert opened.page.locator(f'a[href="../{PAGE}?{state}"]').count() == 1
    opened.page.close()


@pytest.mark.parametrize("page", [PAGE, "book/intro.html"])
def test_axe_has_no_complaint_of_any_weight(book: Site, page: str) -> None:  # noqa: F811
    visit = book.open(page)
    assert [(v["id"], v["impact"]) for v in Axe().run(visit.page).response["violations"]] == []
    visit.page.close()


def test_a_widget_without_a_method_says_so(book: Site) -> None:  # noqa: F811
    opened = book.open(f"{PAGE}?cone.m=&landscape.m=&scale.m=")
    assert [opened.console, widget(opened, "cone").locator(".said").inner_text()] == [[], "No method is chosen."]
    opened.page.close()


# --- What it costs, and what stands there without it


def test_the_landing_page_loads_less_than_the_picture_that_the_cone_stands_for() -> None:
    page = (HTML / "book" / "intro.html").read_text()
    data = re.findall(r'<script type="application/json".*?</script>', page)
    files = [*(f"{name}.js" for name in (*SHARED, "cone")), "playground.css"]
    assert all(f"_static/{name}" in page for name in files)
    weight = len(data[0]) + sum((HTML / "_static" / name).stat().st_size for name in files)
    assert weight < (HTML / "_static" / "two_gradients.svg").stat().st_size / 2


@pytest.mark.parametrize("page", [PAGE, "book/intro.html"])
def test_without_scripts_there_is_the_static_picture(book: Site, page: str) -> None:  # noqa: F811
    browser = book.context.browser  # noqa: F811
    assert browser is not None
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(book.address + page)
    assert opened.locator(".widget img").first.is_visible()
    context.close()
