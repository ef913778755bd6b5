"""The playground computes what the package computes: states through its functions, and some through its controls.

Left out are the methods whose answer depends on steps before or on drawing, as GradNorm, DWA and random weights: a
state of the playground does not hold what they remember. FAMO is compared in its first step, and PCGrad in the order
that a seed draws. Needs the book and a Chromium, as `test_rendered` does.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import DEGENERATE, SCALES, draw, matrix
from test_notebooks import code_tags
from test_rendered import HTML, ROOT, Site, Visit, book, browser  # noqa: F401  (fixtures)
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS, ROWS
from mtl_ref.problems.toy.landscapes import direction

SCRIPTS = ROOT / "book" / "_static"
SEED = 7  # of PCGrad's orders
STATES = 200


@pytest.fixture(scope="module")
def visit(book: Site) -> Iterator[Visit]:  # noqa: F811
    visit = book.open("book/playground.html")
    yield visit
    visit.page.close()


@pytest.fixture(scope="module")
def keys(visit: Visit) -> list[str]:
    return visit.js("Object.keys(playground.methods)")


def sampled() -> list[tuple[Tensor, Tensor]]:
    """Gradients and losses: half of them in the plane, as a reader can set them, half in more dimensions."""
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
        states.append((J, 10 ** torch.randn(T, generator=generator, dtype=torch.float64)))
    return states


def degenerate() -> list[tuple[Tensor, Tensor]]:
    """The cases of the contract, a stationary point, and each in every scale."""
    found = [matrix(rows) for rows in DEGENERATE.values()]
    found.append(matrix([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]))
    return [(scale * J, torch.arange(1.0, len(J) + 1, dtype=torch.float64)) for J in found for scale in SCALES]


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


def faults(visit: Visit, keys: list[str], states: list[tuple[Tensor, Tensor]]) -> list[str]:
    """Where the page's directions differ from the package's: by 1e-6, or by what rounding leaves of a sum."""
    given = [[J.tolist(), L.tolist(), orders(len(J))] for J, L in states]
    found = visit.page.evaluate(
        "([keys, given]) => given.map(([J, L, o]) => keys.map(key => playground.step(key, J, L, o)))", [keys, given]
    )
    wrong = []
    for (J, L), row in zip(states, found, strict=True):
        for key, there in zip(keys, row, strict=True):
            alpha = weights(balancer(key, len(J)), J, L)
            d = direction(balancer(key, len(J)), J, L)
            # nan and infinity come as such; a number that JSON lacks would be None
            theirs = torch.tensor(there["d"], dtype=torch.float64)
            rounding = 1e-12 * (alpha.abs() @ J.norm(dim=1))
            bound = 1e-6 * d.norm() + rounding
            if not (theirs - d).norm() <= bound:
                wrong.append(f"{key}: {J.tolist()}, {L.tolist()}: {theirs.tolist()} for {d.tolist()}")
    if wrong: print("\n".join(wrong))
    return wrong


def test_every_method_without_memory_of_these_chapters_is_shown(keys: list[str]) -> None:
    chapters = tuple("04 05 06 07 08".split())
    expected = {r.key for r in ROWS if r.chapter.startswith(chapters) and r.gram and not r.state.startswith("T ")}
    stars = {"famo", "cagrad", "config", "upgrad", "aligned", "stch", "nash", "unit-upgrad"}
    assert expected | stars <= set(keys) <= set(METHODS)


def test_sampled_states_are_those_of_the_package(visit: Visit, keys: list[str]) -> None:
    assert faults(visit, keys, sampled()) == []


def test_degenerate_states_are_those_of_the_package(visit: Visit, keys: list[str]) -> None:
    assert faults(visit, keys, degenerate()) == []
