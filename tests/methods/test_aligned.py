"""Aligned-MTL against the singular value decomposition of J, and TorchJD."""

import pytest
import torch
from cases import SCALES, draw, matrix
from torchjd.aggregation import AlignedMTL as TorchJD

import mtl_ref as mtl


@pytest.mark.parametrize(("T", "P"), [(1, 3), (2, 5), (4, 4), (5, 3)])
@pytest.mark.parametrize("seed", range(5))
def test_direction_is_the_sum_of_the_rows_of_the_polar_factor(T: int, P: int, seed: int) -> None:
    J = draw(T, P, seed)
    U, sigma, Vh = torch.linalg.svd(J, full_matrices=False)
    torch.testing.assert_close(mtl.AlignedMTL()(J), sigma[-1] * (U @ Vh).sum(0), rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(mtl.AlignedMTL()(J), T * TorchJD()(J), rtol=1e-8, atol=1e-9)


def test_the_aligned_gradients_are_orthogonal_and_as_long_as_the_least_singular_value() -> None:
    """Of orthogonal gradients with one length nothing changes, and no others are closer (Procrustes)."""
    J = draw(3, 5, 1)
    squares, V = torch.linalg.eigh(J @ J.T)
    aligned = squares[0].sqrt() * (V / squares.sqrt()) @ V.T @ J
    torch.testing.assert_close(aligned @ aligned.T, squares[0] * torch.eye(3).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(mtl.AlignedMTL()(J), aligned.sum(0))
    torch.testing.assert_close(mtl.AlignedMTL()(aligned), aligned.sum(0))
    for seed in range(50):
        Q, _ = torch.linalg.qr(draw(5, 3, seed))
        assert (squares[0].sqrt() * Q.T - J).norm() > (aligned - J).norm()


@pytest.mark.parametrize("scale", SCALES)
def test_singular_values_that_are_zero_are_left_out_at_any_scale(scale: float) -> None:
    J = draw(5, 6, rank=2)
    U, sigma, Vh = torch.linalg.svd(J)
    expected = sigma[1] * (U[:, :2] @ Vh[:2]).sum(0)
    torch.testing.assert_close(mtl.AlignedMTL()(scale * J), scale * expected, rtol=1e-7, atol=1e-9 * scale)


def test_direction_is_the_one_of_torchjds_printed_example() -> None:
    d = mtl.AlignedMTL()(matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
    torch.testing.assert_close(d / 2, matrix([0.2133, 0.9673, 0.9673]), rtol=0, atol=5e-5)
