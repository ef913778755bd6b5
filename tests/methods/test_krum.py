"""Krum against its definition on the gradients, one by one, and TorchJD where squares and distances agree."""

import pytest
import torch
from cases import draw, matrix, vector
from torchjd.aggregation import Krum as TorchJD

import mtl_ref as mtl


def chosen(J: torch.Tensor, f: int, selected: int) -> list[int]:
    """The indices of the least sums of squared distances to the T − f − 2 nearest others."""
    scores = []
    for i, g in enumerate(J):
        apart = sorted(((g - h) @ (g - h)).item() for j, h in enumerate(J) if j != i)
        scores.append(sum(apart[: len(J) - f - 2]))
    return sorted(range(len(J)), key=lambda i: scores[i])[:selected]


@pytest.mark.parametrize(("T", "f", "selected"), [(5, 0, 1), (5, 1, 2), (8, 2, 3), (8, 0, 8)])
@pytest.mark.parametrize("seed", range(10))
def test_direction_is_the_mean_of_those_that_the_definition_chooses(
    T: int, f: int, selected: int, seed: int
) -> None:
    J = draw(T, 4, seed)
    d = mtl.Krum(f, selected)(J)
    torch.testing.assert_close(d, J[chosen(J, f, selected)].mean(0))


def test_squares_and_distances_can_choose_differently() -> None:
    """Two nearest count. From (1, 1): 1 and √20, from (5, 3): √5 and √13. The squares sum to 21 and 18."""
    J = matrix([[1.0, 0.0], [1.0, 1.0], [5.0, 3.0], [6.0, 1.0], [3.0, 6.0]])
    assert mtl.Krum(1)(J).tolist() == [5.0, 3.0]
    assert TorchJD(1)(J).tolist() == [1.0, 1.0]


def test_of_two_that_are_closest_to_each_other_both_count_half_and_one_far_away_not_at_all() -> None:
    J = matrix([[1.0, 0.0], [0.9, 0.1], [-5.0, 3.0]])
    _, alpha = mtl.Krum().combine(J)
    assert alpha.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(("T", "f"), [(1, 0), (2, 0), (3, 1), (4, 7)])
def test_where_no_neighbour_counts_it_is_the_mean(T: int, f: int) -> None:
    J = draw(T, 3)
    torch.testing.assert_close(mtl.Krum(f)(J), J.mean(0))


def test_a_faulty_gradient_of_any_size_changes_nothing_much() -> None:
    J = vector(1.0, 2.0) + 0.1 * draw(7, 2)
    for fault in (matrix([[1e9, -1e9]]), matrix([[-3.0, 0.0]])):
        assert (mtl.Krum(1)(torch.cat([J, fault])) - vector(1.0, 2.0)).norm() < 0.5


@pytest.mark.parametrize("arguments", [(-1, 1), (0, 0)])
def test_numbers_that_are_none_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="they must be at least 0 and at least 1"):
        mtl.Krum(*arguments)
