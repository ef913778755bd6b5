"""The decision page's code runs as it stands, one block after the other."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

GUIDE = Path(__file__).parents[1] / "book" / "guide.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), flags=re.M | re.S)


def names() -> dict[str, object]:
    """What the page takes as given: a network for two digits and a regression, and one batch."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
    heads = [nn.Linear(6, 10), nn.Linear(6, 10), nn.Linear(6, 1)]
    parameters = [p for module in (encoder, *heads) for p in module.parameters()]
    x, labels, y = torch.randn(32, 8), torch.randint(10, (2, 32)), 10 * torch.randn(32, 1)

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        z = encoder(x)
        losses = [F.cross_entropy(head(z), target) for head, target in zip(heads[:2], labels, strict=True)]
        return torch.stack([*losses, F.mse_loss(heads[2](z), y)]), z

    return {
        "encoder": encoder,
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


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:|#)([^)#]+)", GUIDE.read_text()))
def test_a_link_of_the_page_leads_somewhere(target):
    assert (GUIDE.parent / target).exists()
