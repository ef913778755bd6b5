"""What is one direction under several names: the lines of chapter 14's table that no method's own tests hold."""

import pytest
import torch
from cases import draw, vector
from torch import Tensor

import mtl_ref as mtl


def apart(a: Tensor, b: Tensor) -> float:
    """One less the cosine of two directions."""
    return 1 - torch.cosine_similarity(a, b, dim=0).item()


BISECTORS = [
    mtl.GradientNormalization(),
    mtl.NTKMTL(),
    mtl.ConFIG(),
    mtl.NashMTL(),
    mtl.MGDA(normalize="l2"),
    mtl.Normalized(mtl.PCGrad()),
]


@pytest.mark.parametrize("method", BISECTORS, ids=lambda method: type(method).__name__)
def test_of_two_tasks_all_of_these_are_imtl_g_the_bisector(method: mtl.GradientBalancer) -> None:
    for seed in range(50):
        J = 10.0 ** draw(2, 1, seed + 100) * draw(2, 6, seed)
        assert apart(method(J), mtl.IMTLG()(J)) < 1e-9


@pytest.mark.parametrize("T", [3, 4])
def test_mgda_of_unit_gradients_is_imtl_g_where_all_its_weights_are_positive_and_else_mostly_not(T: int) -> None:
    found = {True: [], False: []}
    for seed in range(200):
        J = vector(1.0, 2.0, 3.0, 0.5)[:T, None] * draw(T, 6, seed)
        d, alpha = mtl.MGDA(normalize="l2").combine(J)
        found[bool(alpha.min() > 1e-9)].append(apart(d, mtl.IMTLG()(J)))
    assert len(found[True]) > 50
    assert max(found[True]) < 1e-9
    assert sum(x > 1e-3 for x in found[False]) > len(found[False]) / 2


@pytest.mark.parametrize("T", [1, 2, 5])
def test_nash_is_fairgrad_with_one(T: int) -> None:
    for seed in range(20):
        J = draw(T, 8, seed)
        torch.testing.assert_close(mtl.NashMTL()(J), mtl.FairGrad(1.0)(J))


def test_pcd_without_a_margin_is_the_primary_task_as_long_as_its_gradient() -> None:
    for seed in range(50):
        J = 10.0 ** draw(4, 1, seed + 100) * draw(4, 6, seed)
        d = mtl.PrimaryTask()(J)
        torch.testing.assert_close(mtl.PCD(tau=0.0)(J), J[0].norm() * d / d.norm(), rtol=1e-6, atol=1e-9)
