"""`import mtl_ref`, and a step of every method, need torch and numpy only."""

import re
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions

import pytest

STEPS = """
import sys

ALLOWED = set(sys.argv[1].split(","))


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r} is allowed", name=name)


sys.meta_path.insert(0, Refuse())
PLANTED

import torch
from torch import nn

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS, last_layer
from mtl_ref.problems.base import HardSharing, Problem


class Two(Problem):
    tasks = ("a", "b")
    kinds = {"a": "classification", "b": "regression"}

    def prior_losses(self):
        return [1.0, 2.0]


torch.manual_seed(0)
x, y = torch.randn(6, 4), torch.randn(6, 1)
for key, row in METHODS.items():
    model = HardSharing(nn.Linear(4, 3), {task: nn.Linear(3, 1) for task in Two.tasks})
    balancer = row.make(Two())
    losses = torch.stack([(output - y).square().mean() for output in model(x).values()])
    shared = row.train.get("shared", lambda model: model.encoder.parameters())(model)
    balancer.backward(losses, shared=list(shared))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), key
print(len(METHODS), "methods")
"""


def normal(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(name: str, known: set[str]) -> set[str]:
    """The known distributions, this one, and what it requires, unless for an extra."""
    name = normal(name)
    if name in known:
        return known
    try:
        requires = distribution(name).requires or []
    except ModuleNotFoundError:  # for another platform
        return known
    known = known | {name}
    for line in requires:
        if "extra ==" not in line:
            known = closure(re.split(r"[^\w.-]", line, maxsplit=1)[0], known)
    return known


def run(planted: str = "") -> subprocess.CompletedProcess[str]:
    needed = closure("torch", closure("numpy", set()))
    modules = {m for m, names in packages_distributions().items() if {normal(name) for name in names} & needed}
    return subprocess.run(
        [sys.executable, "-c", STEPS.replace("PLANTED", planted), ",".join(modules | {"mtl_ref"})],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_method_steps_with_torch_and_numpy_alone() -> None:
    ran = run()
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"[1-9]\d* methods\n", ran.stdout)


@pytest.mark.parametrize("module", ["scipy", "torchvision", "matplotlib", "moocore", "IPython", "PIL", "tqdm"])
def test_another_import_would_be_noticed(module: str) -> None:
    ran = run(f"import {module}")
    assert ran.returncode != 0
    assert f"No module named '{module}' is allowed" in ran.stderr
