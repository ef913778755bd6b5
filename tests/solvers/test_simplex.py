"""The closest point of the simplex, against every face of it, and on what is hard for it."""

import itertools

import pytest
import torch
from cases import draw, vector
from torch import Tensor

from mtl_ref.solvers.simplex import project


def by_faces(v: Tensor) -> Tensor:
    """The closest of the closest points of all faces, as long as they are in the simplex."""
    best = None
    for size in range(1, len(v) + 1):
        for face in itertools.combinations(range(len(v)), size):
            x = torch.zeros_like(v)
            inside = v[list(face)]
            x[list(face)] = inside - (inside.sum() - 1) / size
            if (x >= 0).all() and (best is None or (x - v).norm() < (best - v).norm()):
                best = x
    return best


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0, 100.0])
@pytest.mark.parametrize("T", [1, 2, 3, 6])
def test_it_is_the_closest_point_that_enumeration_finds(T: int, scale: float) -> None:
    for seed in range(20):
        v = scale * draw(1, T, seed)[0]
        torch.testing.assert_close(project(v), by_faces(v), rtol=1e-12, atol=1e-13 * max(1.0, scale))


def test_points_of_the_simplex_stay_and_a_common_number_does_not_count() -> None:
    inside = vector(0.2, 0.5, 0.0, 0.3)
    torch.testing.assert_close(project(inside), inside, rtol=0, atol=1e-15)
    torch.testing.assert_close(project(inside + 7), inside, rtol=0, atol=1e-14)


@pytest.mark.parametrize("v", [[0.0, 0.0], [1e30, 1e30], [-1e30, 3.0], [1e12, -1e12, 1e12 - 1]])
def test_it_is_a_point_of_the_simplex_whatever_it_is_given(v: list[float]) -> None:
    x = project(vector(*v))
    assert (x >= 0).all()
    assert x.sum() == pytest.approx(1, abs=1e-3)
