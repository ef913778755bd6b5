"""The decision page's code runs as it stands, one block after the other."""

import json
import re
from functools import cache
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

GUIDE = Path(__file__).parents[1] / "book" / "guide.md"
TEXT = GUIDE.read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.M | re.S)
NOTES = dict(re.findall(r"^\[\^([\w-]+)\]: (.+)$", TEXT, flags=re.M))
CITED = re.findall(r"\[\^([\w-]+)\](?!:)", TEXT)


@cache
def checks(notebook: str) -> dict[str, list[str]]:
    """The names of the checks in each section of a stored notebook, by the section's anchor."""
    names: dict[str, list[str]] = {}
    anchor = ""
    for cell in json.loads((GUIDE.parent / notebook).read_text())["cells"]:
        if cell["cell_type"] == "markdown":
            for title in re.findall(r"^#+ +(.+?) *$", "".join(cell["source"]), flags=re.M):
                anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        html = "".join("".join(o.get("data", {}).get("text/html", "")) for o in cell.get("outputs", []))
        names.setdefault(anchor, []).extend(
            map(unescape, re.findall(r'<td>([^<]+)</td><td class="measured">', html))
        )
    return names


def faults(note: str) -> list[str]:
    """The links of a note that lead to no section of a chapter, or to one that checks nothing."""
    links = re.findall(r"\]\(([^)#]+)#([^)]+)\)", note)
    wrong = [] if links and len(links) == note.count("](") else [f"a link names no section: {note}"]
    return wrong + [
        f"{notebook}#{anchor} checks nothing" for notebook, anchor in links if not checks(notebook).get(anchor)
    ]


def names() -> dict[str, object]:
    """What the page takes as given: a network for two digits and a regression, and one batch."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU())
    heads = [nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(6, 1)]
    parameters = [p for module in (encoder, *heads) for p in module.parameters()]
    x, labels, y = torch.randn(32, 8), torch.randint(10, (2, 32)), 10 * torch.randn(32, 1)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        z = encoder(x)
        losses = [F.cross_entropy(head(z), target) for head, target in zip(heads[:2], labels, strict=True)]
        return torch.stack([*losses, F.mse_loss(heads[2](z), y)]), z

    return {
        "encoder": encoder,
        "last_shared_layer": encoder[2],
        "parameters": parameters,
        "labels": list(labels),
        "y": y,
        "forward": forward,
        "optimizer": torch.optim.Adam(parameters, lr=1e-3),
    }


def test_the_page_has_code_for_each_branch():
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_makes_a_step_that_moves_every_parameter(block):
    given = names()
    before = [p.detach().clone() for p in given["parameters"]]
    exec(BLOCKS[0] + block, given)  # the first block imports
    if "balancer" in block:
        if "optimizer.step()" not in block:
            step = next(b for b in BLOCKS if "optimizer.step()" in b)
            exec(step.replace("balancer = mtl.EqualWeighting()", ""), given)
        moved = [not torch.equal(p, b) for p, b in zip(given["parameters"], before, strict=True)]
        assert all(moved)


@pytest.mark.parametrize("name", NOTES)
def test_a_note_leads_to_a_section_that_checks_something(name):
    assert faults(NOTES[name]) == []


def test_a_note_that_leads_nowhere_is_found():
    link = "[Chapter 11: References](../notebooks/11_results.ipynb#{})"
    assert faults("no link") != []
    assert faults(link.format("nowhere")) != []
    assert faults(link.format("references")) != []
    assert faults("[Chapter 11](../notebooks/11_results.ipynb)") != []


def test_notes_and_citations_are_the_same():
    assert set(CITED) == set(NOTES)


BRANCHES = [text for text in re.split(r"^## ", TEXT, flags=re.M)[1:] if not text.startswith("What is not known")]


@pytest.mark.parametrize("section", BRANCHES, ids=lambda text: text.split("\n")[0])
def test_each_branch_cites_its_evidence(section):
    assert re.search(r"\[\^[\w-]+\](?!:)", section)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT))
def test_a_link_of_the_page_leads_somewhere(target):
    assert (GUIDE.parent / target).exists()
