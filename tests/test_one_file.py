"""The single files do what the package does, and need PyTorch and NumPy alone."""

import ast
import sys

import one_file
import pytest
import torch
from cases import ways
from torch import nn

import mtl_ref as mtl

FILES = {key: one_file.text(row) for key, row in one_file.rows().items()}
GIVEN = {"prior": [0.7, 1.3], "fixed": [1.0, 0.1]}


def made(key, space):
    """The balancer of the card's call, from the package or from the file."""
    return eval(one_file.rows()[key].call.replace("mtl.", ""), space)


def from_file(key):
    space: dict[str, object] = {"__name__": key}
    exec(compile(FILES[key], f"{key}.py", "exec"), space)
    return space


def trained(balancer, where, steps=3):
    """All parameters of a small network after some steps, and the weights of the last."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh()).double()
    heads = [nn.Linear(3, 1).double() for _ in range(2)]
    parameters = [p for module in (encoder, *heads) for p in module.parameters()]
    optimizer = torch.optim.SGD([*parameters, *balancer.parameters()], lr=0.1)
    x, y = torch.randn(8, 5).double(), torch.randn(8, 2).double()
    for _ in range(steps):
        z = encoder(x)
        losses = torch.stack([(head(z) - y[:, [t]]).square().mean() * 10**t for t, head in enumerate(heads)])
        optimizer.zero_grad()
        given = {"shared": encoder.parameters()} if where == "shared" else {"features": z}
        weights = balancer.backward(losses, **given)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in (*parameters, *balancer.parameters())]), weights


BOTH = [(key, where) for key, row in one_file.rows().items() for where in ways(row)]


@pytest.mark.parametrize(("key", "where"), BOTH)
def test_the_file_takes_the_steps_of_the_package(key, where):
    results = []
    for space in (vars(mtl), from_file(key)):
        torch.manual_seed(1)  # some draw
        results.append(trained(made(key, dict(space)), where))
    (theirs, their_weights), (ours, our_weights) = results
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert (our_weights is None) == (their_weights is None)
    if our_weights is not None:
        assert torch.allclose(our_weights.double(), their_weights.double(), rtol=1e-6)


@pytest.mark.parametrize("key", FILES)
def test_the_file_imports_nothing_else(key):
    tree = ast.parse(FILES[key])
    modules = {
        getattr(n, "module", None) or n.names[0].name for n in ast.walk(tree) if "Import" in type(n).__name__
    }
    assert {m.split(".")[0] for m in modules} <= {"torch", "numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize("key", FILES)
def test_the_file_keeps_the_tags_and_is_short(key):
    row = one_file.rows()[key]
    assert f"({row.tag})" in FILES[key].partition("import torch")[2]
    assert len(FILES[key].splitlines()) < 250


def test_files_are_written(tmp_path):
    one_file.write(tmp_path)
    assert {path.stem: path.read_text() for path in tmp_path.glob("*.py")} == FILES
