"""UPGrad and DualProj against enumeration of the faces of the cone, TorchJD, and their promise."""

import itertools

import pytest
import torch
from cases import SCALES, draw, matrix, vector
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import mtl_ref as mtl


def closest_by_faces(J: Tensor, x: Tensor) -> Tensor:
    """The closest point to x of {d : J d ≥ 0}: the projections on all faces, the closest that is in the cone."""
    best = None
    for size in range(len(J) + 1):
        for face in itertools.combinations(range(len(J)), size):
            A = J[list(face)]
            d = x - torch.linalg.pinv(A) @ (A @ x) if size else x
            inside = bool((J @ d >= -1e-9 * J.norm(dim=1) * x.norm()).all())
            if inside and (best is None or (d - x).norm() < (best - x).norm()):
                best = d
    return best


@pytest.mark.parametrize("P", [2, 3, 6])
@pytest.mark.parametrize("seed", range(20))
def test_both_are_the_closest_points_that_enumeration_finds(P: int, seed: int) -> None:
    J = draw(4, P, seed)
    mean = torch.stack([closest_by_faces(J, g) for g in J]).mean(0)
    torch.testing.assert_close(mtl.UPGrad()(J), mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(mtl.DualProj()(J), closest_by_faces(J, J.mean(0)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [mtl.UPGrad, mtl.DualProj])
def test_no_loss_rises_however_different_the_lengths_are(method: type) -> None:
    lengths = vector(1.0, 10.0, 100.0, 1000.0)
    for seed in range(500):
        J = lengths[:, None] * draw(4, 3 + seed % 6, seed)
        d = method()(J)
        least = 1e-9 * d.norm() + 1e-14 * lengths.max()  # d is zero, rounded, at a stationary point
        assert (J @ d >= -least * J.norm(dim=1)).all(), seed


def test_the_smallest_example_in_which_a_regularised_solver_goes_uphill() -> None:
    J = matrix([[1.0, 0.0, 0.0], [-30.0, 100.0, 0.0]])
    torch.testing.assert_close(J @ mtl.UPGrad()(J), vector(0.4587, 5000.0), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("balancer", "expected"), [(mtl.UPGrad(), [0.2924, 1.9006]), (mtl.DualProj(), [0.5556, 1.1111])]
)
def test_direction_is_that_of_torchjds_printed_example_but_for_its_regularisation(
    balancer: mtl.GradientBalancer, expected: list[float]
) -> None:
    """TorchJD prints .2929, 1.9004 and .5563, 1.1109: its regularisation moves the third digit."""
    d = balancer(matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    torch.testing.assert_close(d, vector(*expected, expected[1]), rtol=0, atol=5e-5)


@given(st.integers(0, 10_000))
def test_with_two_tasks_upgrad_is_half_of_pcgrad(seed: int) -> None:
    J = draw(2, 4, seed)
    torch.testing.assert_close(2 * mtl.UPGrad()(J), mtl.PCGrad()(J), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_upgrad_is_linear_in_the_length_of_each_gradient(scale: float) -> None:
    J = draw(4, 3, seed=3)
    ones, longer = torch.ones(4, 1), vector(1.0, scale, 1.0, 1.0)[:, None]
    d = mtl.UPGrad()(J)
    added = mtl.UPGrad()((ones + longer) * J) - mtl.UPGrad()(longer * J)
    torch.testing.assert_close(added, d, rtol=1e-6, atol=1e-9 * max(1.0, scale))


@pytest.mark.parametrize("method", [mtl.UPGrad, mtl.DualProj])
def test_gradients_that_do_not_conflict_are_averaged(method: type) -> None:
    J = draw(5, 4).abs()
    torch.testing.assert_close(method()(J), J.mean(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", [mtl.UPGrad, mtl.DualProj])
def test_opposite_gradients_leave_nothing(method: type) -> None:
    J = matrix([[1.0, 2.0], [-10.0, -20.0]])
    assert method()(J).norm() < 1e-12
