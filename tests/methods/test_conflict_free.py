"""ConFIG against its defining property, least squares on the vectors, and TorchJD."""

import pytest
import torch
from cases import SCALES, draw, matrix, vector
from torchjd.aggregation import ConFIG as TorchJD

import mtl_ref as mtl


@pytest.mark.parametrize("T", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_all_gradients_have_the_same_cosine_and_the_length_is_what_they_have_along_it(T: int, seed: int) -> None:
    J = vector(*[10.0 ** (i % 4) for i in range(T)])[:, None] * draw(T, 9, seed)
    d = mtl.ConFIG()(J)
    cosines = J @ d / J.norm(dim=1) / d.norm()
    torch.testing.assert_close(cosines, cosines[:1].expand(T), rtol=1e-9, atol=0)
    assert (cosines > 0).all()
    torch.testing.assert_close(d.norm(), (J @ d).sum() / d.norm())


@pytest.mark.parametrize(("T", "P"), [(2, 5), (4, 4), (6, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_direction_is_torchjds_and_that_of_least_squares(T: int, P: int, seed: int) -> None:
    J = draw(T, P, seed)
    d = mtl.ConFIG()(J)
    torch.testing.assert_close(d, TorchJD()(J), rtol=1e-8, atol=1e-9)
    U = J / J.norm(dim=1, keepdim=True)
    x = torch.linalg.lstsq(U, torch.ones(T, 1).double(), driver="gelsd").solution[:, 0]
    torch.testing.assert_close(d / d.norm(), x / x.norm(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("scale", SCALES)
def test_a_unit_changes_the_length_alone(scale: float) -> None:
    J = draw(4, 6, 2)
    d, other = mtl.ConFIG()(J), mtl.ConFIG()(vector(1.0, scale, 1.0, 1.0)[:, None] * J)
    torch.testing.assert_close(other / other.norm(), d / d.norm(), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_two_tasks_have_the_bisector(seed: int) -> None:
    J = draw(2, 5, seed)
    d, bisector = mtl.ConFIG()(J), mtl.GradientNormalization()(J)
    torch.testing.assert_close(d / d.norm(), bisector / bisector.norm(), rtol=1e-9, atol=1e-12)


def test_a_zero_gradient_takes_no_part_and_opposite_ones_leave_nothing() -> None:
    J = draw(3, 4)
    torch.testing.assert_close(mtl.ConFIG()(torch.cat([J, torch.zeros(1, 4)])), mtl.ConFIG()(J))
    assert mtl.ConFIG()(matrix([[1.0, 2.0], [-10.0, -20.0]])).tolist() == [0.0, 0.0]
