"""The min-norm solvers by hand, against brute force and least squares, and by the optimality test."""

import itertools
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch
from cases import draw, gradient_matrices, gram, matrix
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.checks import check_gram

Solver = Callable[[Tensor], Tensor]

generous = settings(max_examples=150)
two_or_more = pytest.mark.parametrize("solver", [mtl.min_norm, mtl.min_norm_two], ids=["min_norm", "two"])


def common(T: int, P: int, rank: int, seed: int, spread: float = 0.0) -> Tensor:
    """Gradients with a part in common, of lengths that spread over 10^±spread."""
    J = draw(T, P, seed, rank) + 0.3 * rank**0.5 * draw(1, P, seed + 1000)
    generator = torch.Generator().manual_seed(seed)
    return J * 10 ** (spread * (2 * torch.rand(T, 1, generator=generator, dtype=torch.float64) - 1))


def assert_on_simplex(alpha: Tensor, T: int) -> None:
    assert (alpha.shape, alpha.dtype) == ((T,), torch.float64)
    assert (alpha >= 0).all()
    assert alpha.sum().item() == pytest.approx(1, abs=1e-14)


def assert_optimal(J: Tensor, alpha: Tensor, tolerance: float = 1e-10) -> None:
    """The certificate ⟨gᵢ, ĝ⟩ ≥ ‖ĝ‖², for every i in units of ‖gᵢ‖ and of the terms αᵢ ‖gᵢ‖ that are summed.

    With weights β of the min-norm point, it bounds ‖ĝ‖² − ‖Jᵀ β‖² by 2 · tolerance · Σ αᵢ ‖gᵢ‖ · Σ βᵢ ‖gᵢ‖.
    """
    assert_on_simplex(alpha, len(J))
    norms, M = J.norm(dim=1), gram(J)
    slack = M @ alpha - alpha @ M @ alpha
    assert (slack >= -tolerance * norms * (alpha * norms).sum()).all()


BY_HAND = {
    "perpendicular": ([[1, 0], [0, 2]], [0.8, 0.2]),
    "inside, obtuse": ([[1, 0], [-1, 1]], [0.6, 0.4]),
    "clipped to the first": ([[1, 0], [3, 1]], [1, 0]),
    "clipped to the second": ([[2, 5], [1, 1]], [0, 1]),
    "at the edge of being clipped": ([[1, 0], [1, 4]], [1, 0]),
    "colinear": ([[3, 0], [1, 0]], [0, 1]),
    "opposite": ([[1, 1], [-3, -3]], [0.75, 0.25]),
    "equal": ([[2, 1], [2, 1]], [0.5, 0.5]),
    "one is zero": ([[0, 0], [2, 1]], [1, 0]),
    "both are zero": ([[0, 0], [0, 0]], [0.5, 0.5]),
    "a triangle around zero": ([[0, 2], [1, -1], [-1, -1]], [1 / 3, 1 / 3, 1 / 3]),
    "axes": ([[1, 0, 0], [0, 2, 0], [0, 0, 3]], [36 / 49, 9 / 49, 4 / 49]),
    "a long one between two": ([[1, 1], [-1, 1], [0.5, 9]], [0.5, 0.5, 0]),
    "a vertex": ([[9, 1], [1, 0], [9, -1]], [0, 1, 0]),
    "two equal ones share": ([[1, 0], [0, 1], [0, 1]], [0.5, 0.25, 0.25]),
    "two zeros share, the third has none": ([[0, 0], [5, 0], [0, 0]], [0.5, 0, 0.5]),
}


@pytest.mark.parametrize(("J", "alpha"), BY_HAND.values(), ids=BY_HAND)
def test_weights_by_hand(J: list[list[float]], alpha: list[float]) -> None:
    for solver in (mtl.min_norm, mtl.min_norm_two)[: 1 + (len(J) == 2)]:
        assert solver(gram(matrix(J))).tolist() == pytest.approx(alpha, abs=1e-12)


@st.composite
def integers(draw_: st.DrawFn, exponent: int = 0) -> Tensor:
    """Up to 6 gradients of small integers, of which many are dependent, each times a power 2^±exponent."""
    P = draw_(st.integers(1, 4))
    rows = draw_(st.lists(st.lists(st.integers(-4, 4), min_size=P, max_size=P), min_size=1, max_size=6))
    exponents = draw_(st.lists(st.integers(-exponent, exponent), min_size=len(rows), max_size=len(rows)))
    return matrix(rows) * 2.0 ** matrix(exponents)[:, None]


def shortest_by_brute_force(J: Tensor) -> float:
    """The least ‖ĝ‖²: of what is nearest to 0 on each face's plane, if it is inside the face, the shortest."""
    least = np.inf
    for corners in itertools.product([False, True], repeat=len(J)):
        face = J[torch.tensor(corners)]
        A = gram(face) + 1  # A x = 1 has a solution x ∝ α, where M α = λ 1
        if any(corners) and torch.linalg.matrix_rank(A) == len(A):  # Carathéodory: no other face is needed
            x = torch.linalg.solve(A, torch.ones_like(A[0]))
            if (x >= 0).all():
                least = min(least, (x / x.sum() @ face).square().sum().item())
    return least


@generous
@given(integers())
@example(matrix([[1, 0], [-1, 1], [-1, -1]]))
def test_no_face_of_the_hull_has_a_shorter_vector(J: Tensor) -> None:
    least, scale = shortest_by_brute_force(J), J.square().sum().item()
    assert (mtl.min_norm(gram(J)) @ J).square().sum().item() == pytest.approx(least, abs=1e-12 * scale)


@generous
@given(st.one_of(integers(exponent=40), gradient_matrices()), st.booleans())
@example(matrix([[0, 1], [0, -1], [2**-26, 0]]), False)
@example(matrix([[2**-40], [-(2**40)]]), False)
@example(matrix([[0, -1]] * 3 + [[2**-10, 2**-9]] + [[0, 1]] * 2), True)
@example(matrix([[1, 0], [-1, 2**-40]]), True)
@example(matrix([[0, 0, 4, -3], [0, 0, -24, 18], [0, 0, -1, 0], [0, 2**-15, 2**-15, 2**-15]]), True)
def test_any_scales_in_one_matrix_and_repeated_gradients_are_solved(J: Tensor, twice: bool) -> None:
    pair = J[[0, -1]]  # in `gradient_matrices` often equal, opposite or colinear, or one of them is zero
    assert_optimal(pair, mtl.min_norm_two(gram(pair)))
    J = torch.cat([J, J]) if twice else J
    assert_optimal(J, mtl.min_norm(gram(J)))


SHAPES = [(2, 9, 2), (3, 2, 2), (10, 50, 10), (10, 50, 4), (40, 200, 40), (40, 9, 9)]


@pytest.mark.parametrize("spread", [0, 2, 6, 12])
@pytest.mark.parametrize(("T", "P", "rank"), SHAPES)
def test_up_to_forty_tasks_are_solved(T: int, P: int, rank: int, spread: float) -> None:
    for seed in range(4):
        J = common(T, P, rank, seed, spread)
        M = gram(J)
        alpha = mtl.min_norm(M)
        assert_optimal(J, alpha)
        assert mtl.duality_gap(M, alpha) <= 1e-10 * torch.linalg.matrix_norm(M, 2)


def test_a_thousand_tasks_are_solved() -> None:
    J = common(1000, 1200, 1000, 0, spread=1)
    assert_optimal(J, mtl.min_norm(gram(J)))


@pytest.mark.parametrize(("T", "P", "rank"), SHAPES)
def test_min_norm_agrees_with_non_negative_least_squares(T: int, P: int, rank: int) -> None:
    """The least ‖Jᵀ y‖² + (1·y − 1)² over y ≥ 0 has y ∝ α: for y = sα it is least at s = 1/(1 + ‖ĝ‖²)."""
    for seed in range(4):
        J = common(T, P, rank, seed)
        J /= J.norm(dim=1).mean()
        y, _ = nnls(np.vstack([J.T.numpy(), np.ones(T)]), np.array([0.0] * P + [1.0]))
        oracle = torch.from_numpy(y / y.sum()) @ J
        assert mtl.min_norm(gram(J)) @ J == pytest.approx(oracle, abs=1e-7)


@two_or_more
@pytest.mark.parametrize("seed", range(4))
def test_weights_follow_a_permutation_and_ignore_a_common_scale(solver: Solver, seed: int) -> None:
    J = common(2 if solver is mtl.min_norm_two else 5, 8, 5, seed, spread=3)
    alpha = solver(gram(J))
    assert solver(gram(J.flip(0))).flip(0) == pytest.approx(alpha, abs=1e-10)
    for exponent in (-40, -1, 1, 40):
        assert torch.equal(solver(gram(J * 2.0**exponent)), alpha)  # a power of two rounds nothing


# --- What rounding leaves: matrices that are not quite singular, or have eigenvalues below zero


@generous
@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 10**6))
def test_nearly_dependent_gradients_are_solved(T: int, P: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    J = rng.standard_normal((T, P))
    close = rng.integers(T, size=T // 3)
    J[close] = J[0] * (1 + 1e-9 * rng.standard_normal((len(close), P)))
    J *= 10 ** (12 * rng.random((T, 1)) - 9 * rng.random(P))
    assert_optimal(torch.from_numpy(J), mtl.min_norm(gram(torch.from_numpy(J))))


@generous
@given(st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([1, 20, 26, 40, 52]))
def test_weights_of_two_gradients_that_differ_in_the_last_bits_sum_to_one(P: int, seed: int, bits: int) -> None:
    g, steps = draw(1, P, seed), draw(1, P, seed + 1).round()
    J = torch.cat([g, g * (1 + 2.0**-bits * steps)])
    alpha = mtl.min_norm_two(gram(J))
    assert_on_simplex(alpha, 2)
    assert_on_simplex(mtl.min_norm_two(gram(J.float())), 2)
    assert (alpha @ J).norm() <= (1 + 1e-14) * J.norm(dim=1).min()


@generous
@given(st.integers(2, 20), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 3.0]))
@example(3, 1, 2, 0.0)
def test_a_matrix_formed_in_float32_is_solved_as_well_as_it_was_formed(
    T: int, P: int, seed: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator) * torch.exp(spread * torch.randn(T, 1, generator=generator))
    assert_optimal(J.double(), mtl.min_norm(gram(J)), tolerance=T * 2.0**-20)


def test_halves_of_a_matrix_may_differ_by_rounding() -> None:
    for seed in range(10):
        J = common(6, 20, 6, seed)
        assert_optimal(J, mtl.min_norm(gram(J) + 1e-15 * draw(6, 6, seed).tril()))


@pytest.mark.parametrize("length", [1e-150, 1e-155, 1e-160, 1e-162, 1e-165, 1e-200, 1e-320, 1e150])
def test_the_shortest_and_the_longest_gradients_that_float64_holds(length: float) -> None:
    for solver in (mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe):
        alpha = solver(gram(length * matrix([[1, 0], [0, 2]])))
        assert_on_simplex(alpha, 2)
        if length > 1e-161:  # below, float64 does not hold the squares
            assert alpha.tolist() == pytest.approx([0.8, 0.2], abs=1e-3)
    for seed in range(40):
        J = length * draw(1 + seed % 12, 1 + seed % 3, seed)
        assert_on_simplex(mtl.min_norm(gram(J)), len(J))
        if length > 1e-153:  # nothing is lost yet
            assert_optimal(J / length, mtl.min_norm(gram(J)))


@two_or_more
@pytest.mark.parametrize("e", [1e-3, 1e-6, 1e-7])
def test_near_a_stationary_point_no_product_is_negative(solver: Solver, e: float) -> None:
    M = gram(matrix([[1, e], [-2, e]]))
    alpha = solver(M)
    assert alpha.tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-14)
    assert (M @ alpha).tolist() == pytest.approx([e**2, e**2], rel=0.1)


def solves(J: Tensor) -> int:
    with mock.patch.object(np.linalg, "solve", wraps=np.linalg.solve) as solve:
        mtl.min_norm(gram(J))
    return solve.call_count


def test_few_solves_are_needed() -> None:
    for seed in range(20):
        assert solves(common(40, 80, 40, seed)) <= 12
        assert solves(common(20, 80, 20, seed).repeat(2, 1)) <= 12
        assert solves(draw(40, 80, seed) + draw(1, 80, seed + 1000)) <= 12
    assert solves(torch.eye(40)) == solves(torch.ones(40, 1)) == 1
    path = [[3, -2, -2, -2, -2, 3], [-3, 1, 3, -2, 3, -2], [2, 3, 3, 0, -3, -3]]
    path += [[-2, 2, 2, -2, -1, -3], [0, 0, 1, -2, 3, 1], [2, 3, 2, 2, -3, -2]]
    assert solves(matrix(path)) == 3  # 4 from another start than the middle, or by other steps than (MN.5)


def test_duality_gap_by_hand() -> None:
    M = gram(matrix([[1, 0], [0, 2]]))
    assert mtl.duality_gap(M, matrix([0.5, 0.5])).tolist() == 0.75  # ĝ = (½, 1): ‖ĝ‖² = 1.25, ⟨gᵢ, ĝ⟩ = ½, 2
    assert mtl.duality_gap(M, matrix([0.8, 0.2])).item() == pytest.approx(0, abs=1e-15)


@generous
@given(integers(), st.lists(st.integers(1, 8), min_size=6, max_size=6))
def test_duality_gap_is_never_negative_and_bounds_the_error(J: Tensor, counts: list[int]) -> None:
    alpha = matrix(counts[: len(J)]) / sum(counts[: len(J)])
    gap = mtl.duality_gap(gram(J), alpha).item()
    assert gap >= -1e-12
    assert (alpha @ J).square().sum().item() - shortest_by_brute_force(J) <= 2 * gap + 1e-10


# --- What it is given


@two_or_more
def test_half_precision_is_solved_in_float64_and_the_matrix_is_left_alone(solver: Solver) -> None:
    M = gram(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).half().requires_grad_()
    before = M.clone()
    alpha = solver(M)
    assert (alpha.dtype, alpha.requires_grad) == (torch.float64, False)
    assert alpha.tolist() == pytest.approx([0.8, 0.2], abs=1e-12)
    assert torch.equal(M, before)


BAD = {
    "a vector": ([1, 1, 1], r"shape \(T, T\) is needed, but M has shape \(3,\)"),
    "not square": ([[1, 1, 1], [1, 1, 1]], r"shape \(T, T\) is needed, but M has shape \(2, 3\)"),
    "a batch": ([[[1, 1], [1, 1]]] * 2, r"M has shape \(2, 2, 2\)"),
    "empty": (np.ones((0, 0)), r"M has shape \(0, 0\)"),
    "nan": ([[1, np.nan], [np.nan, 1]], "M has entries that are not finite"),
    "infinite": ([[np.inf, 0], [0, 1]], "M has entries that are not finite"),
    "not symmetric": ([[1, 0.5], [0.2, 1]], r"M\[i, j\] = M\[j, i\]: M\[0, 1\] is 0.5, M\[1, 0\] is 0.2"),
    "a negative square": ([[1, 0], [0, -1]], r"‖gⱼ‖: M\[1, 1\] is -1"),
    "a product of zero": ([[1, 1], [1, 0]], r"‖gⱼ‖: M\[0, 1\] is 1, .* M\[0, 0\] is 1"),
    "a product too large": ([[1, 2.1], [2.1, 4]], r"\|M\[i, j\]\| ≤ ‖gᵢ‖ ‖gⱼ‖: M\[0, 1\] is 2.1"),
}


@pytest.mark.parametrize("function", [mtl.min_norm, mtl.frank_wolfe, check_gram])
@pytest.mark.parametrize(("M", "message"), BAD.values(), ids=BAD)
def test_what_is_no_gram_matrix_is_refused(function: Solver, M: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(matrix(M))


def test_an_eigenvalue_clearly_below_zero_is_refused() -> None:
    M = matrix([[1, -0.9, -0.9], [-0.9, 1, -0.9], [-0.9, -0.9, 1]])  # eigenvalues 1.9, 1.9 and −0.8
    with pytest.raises(ValueError, match=r"an eigenvalue of -0.8, but .* M = J @ J.T .* in float32 or better"):
        mtl.min_norm(100 * M)


@pytest.mark.parametrize("M", [torch.ones(1, 1), torch.eye(3), torch.ones(2), torch.ones(2, 3)], ids=str)
def test_min_norm_two_wants_two_by_two(M: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\) is needed"):
        mtl.min_norm_two(M)
