"""The min-norm solvers against brute force in exact arithmetic, least squares, and the optimality test."""

import itertools
from collections.abc import Callable
from fractions import Fraction
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.checks import check_gram

Solver = Callable[[Tensor], Tensor]
Vector = list[Fraction]

generous = settings(deadline=None, max_examples=150)
two_or_more = pytest.mark.parametrize("solver", [mtl.min_norm, mtl.min_norm_two], ids=["min_norm", "two"])


def gram(J: Tensor) -> Tensor:
    return J @ J.T


def exact_dot(a: Vector, b: Vector) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def exact_rows(J: Tensor) -> list[Vector]:
    """The gradients as the rational numbers that their floats are."""
    return [[Fraction(x) for x in row] for row in J.tolist()]


def exact_combination(rows: list[Vector], weights: Vector) -> Vector:
    return [exact_dot(weights, list(column)) for column in zip(*rows, strict=True)]


def exact_solve(A: list[Vector], b: Vector) -> Vector | None:
    """Gauss's elimination; None if the matrix is singular."""
    rows = [[*row, right] for row, right in zip(A, b, strict=True)]
    for k in range(len(rows)):
        pivot = next((i for i in range(k, len(rows)) if rows[i][k] != 0), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def shortest_by_brute_force(J: Tensor) -> tuple[Vector, float]:
    """The min-norm point, exactly: the shortest of what is nearest to 0 on each face's plane, if inside the face.

    By Carathéodory's theorem, faces whose corners are affinely independent are enough.

    Returns:
        The point, and the sum of the terms αᵢ ‖gᵢ‖ that make it.
    """
    gradients = exact_rows(J)
    found = []
    for size in range(1, len(gradients) + 1):
        for face in itertools.combinations(gradients, size):
            # Lagrange: M α − λ 1 = 0, 1·α = 1
            A = [[*(exact_dot(g, h) for h in face), Fraction(-1)] for g in face]
            A.append([Fraction(1)] * size + [Fraction(0)])
            solution = exact_solve(A, [Fraction(0)] * size + [Fraction(1)])
            if solution is not None and min(solution[:-1]) >= 0:
                terms = sum(float(a) * float(exact_dot(g, g)) ** 0.5 for a, g in zip(solution, face, strict=False))
                found.append((exact_combination(list(face), solution[:-1]), terms))
    return min(found, key=lambda pair: exact_dot(pair[0], pair[0]))


def assert_on_simplex(alpha: Tensor, T: int) -> None:
    assert alpha.shape == (T,)
    assert alpha.dtype == torch.float64
    assert (alpha >= 0).all()
    assert alpha.sum().item() == pytest.approx(1, abs=1e-14)


def assert_agrees_with_brute_force(J: Tensor, alpha: Tensor, tolerance: float = 1e-11) -> None:
    """The point is as near to the exact one as rounding allows: relative to the terms αᵢ ‖gᵢ‖ that are summed."""
    assert_on_simplex(alpha, len(J))
    weights = [Fraction(x) for x in alpha.tolist()]
    weights = [x / sum(weights) for x in weights]
    found = exact_combination(exact_rows(J), weights)
    exact, terms = shortest_by_brute_force(J)
    terms = max(terms, (alpha * J.norm(dim=1)).sum().item())
    difference = [x - y for x, y in zip(found, exact, strict=True)]
    excess = exact_dot(found, found) - exact_dot(exact, exact)
    assert exact_dot(difference, difference) <= excess  # so it is for every point of the hull
    assert float(excess) <= tolerance * terms**2


def assert_optimal(J: Tensor, alpha: Tensor, tolerance: float = 1e-10) -> None:
    """The certificate ⟨gᵢ, ĝ⟩ ≥ ‖ĝ‖², for every i in units of ‖gᵢ‖ and of the terms that are summed."""
    assert_on_simplex(alpha, len(J))
    norms = J.norm(dim=1)
    M = gram(J)
    slack = M @ alpha - alpha @ M @ alpha
    assert (slack >= -tolerance * norms * (alpha * norms).sum()).all()


# --- The oracle itself


def test_the_brute_force_finds_what_can_be_seen() -> None:
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [3.0, 3.0]])
    assert shortest_by_brute_force(square)[0] == [1, 0]
    around = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert shortest_by_brute_force(around)[0] == [0, 0]
    apart = torch.tensor([[2.0, 0.0], [5.0, 1.0]])
    assert shortest_by_brute_force(apart) == ([2, 0], 2.0)


# --- By hand


BY_HAND = {
    "perpendicular": ([[1.0, 0.0], [0.0, 2.0]], [0.8, 0.2]),
    "inside, obtuse": ([[1.0, 0.0], [-1.0, 1.0]], [0.6, 0.4]),
    "clipped to the first": ([[1.0, 0.0], [3.0, 1.0]], [1.0, 0.0]),
    "clipped to the second": ([[2.0, 5.0], [1.0, 1.0]], [0.0, 1.0]),
    "at the edge of being clipped": ([[1.0, 0.0], [1.0, 4.0]], [1.0, 0.0]),
    "colinear": ([[1.0, 0.0], [3.0, 0.0]], [1.0, 0.0]),
    "colinear, the other way round": ([[3.0, 0.0], [1.0, 0.0]], [0.0, 1.0]),
    "opposite": ([[1.0, 1.0], [-3.0, -3.0]], [0.75, 0.25]),
    "equal": ([[2.0, 1.0], [2.0, 1.0]], [0.5, 0.5]),
    "the first is zero": ([[0.0, 0.0], [2.0, 1.0]], [1.0, 0.0]),
    "the second is zero": ([[2.0, 1.0], [0.0, 0.0]], [0.0, 1.0]),
    "both are zero": ([[0.0, 0.0], [0.0, 0.0]], [0.5, 0.5]),
}


@two_or_more
@pytest.mark.parametrize(("J", "alpha"), BY_HAND.values(), ids=BY_HAND)
def test_two_gradients_by_hand(solver: Solver, J: list[list[float]], alpha: list[float]) -> None:
    found = solver(gram(torch.tensor(J, dtype=torch.float64)))
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(alpha, abs=1e-12)


THREE_BY_HAND = {
    "a triangle around zero": ([[0.0, 2.0], [1.0, -1.0], [-1.0, -1.0]], [1 / 3, 1 / 3, 1 / 3]),
    "axes": ([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]], [36 / 49, 9 / 49, 4 / 49]),
    "a long one between two": ([[1.0, 1.0], [-1.0, 1.0], [0.5, 9.0]], [0.5, 0.5, 0.0]),
    "a vertex": ([[9.0, 1.0], [1.0, 0.0], [9.0, -1.0]], [0.0, 1.0, 0.0]),
    "three equal ones": ([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [1 / 3, 1 / 3, 1 / 3]),
    "two equal ones share": ([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], [0.5, 0.25, 0.25]),
    "two zeros share, the third has none": ([[0.0, 0.0], [5.0, 0.0], [0.0, 0.0]], [0.5, 0.0, 0.5]),
    "all zero": ([[0.0], [0.0], [0.0]], [1 / 3, 1 / 3, 1 / 3]),
    "one task": ([[3.0, 4.0]], [1.0]),
    "one task, zero": ([[0.0, 0.0]], [1.0]),
}


@pytest.mark.parametrize(("J", "alpha"), THREE_BY_HAND.values(), ids=THREE_BY_HAND)
def test_more_gradients_by_hand(J: list[list[float]], alpha: list[float]) -> None:
    assert mtl.min_norm(gram(torch.tensor(J, dtype=torch.float64))).tolist() == pytest.approx(alpha, abs=1e-9)


# --- Two gradients


@pytest.mark.parametrize("seed", range(20))
def test_no_weight_of_a_fine_grid_is_better_for_two(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    J[1] += J[0] * (seed % 4)  # inside, and clipped
    first = torch.linspace(0, 1, 10001, dtype=torch.float64)
    grid = (torch.stack([first, 1 - first], 1) @ J).norm(dim=1)
    alpha = mtl.min_norm_two(gram(J))
    assert (alpha @ J).norm() <= grid.min() + 1e-12
    assert alpha[0].item() == pytest.approx(first[grid.argmin()].item(), abs=1e-4)


@generous
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=4), st.lists(st.integers(-3, 3), min_size=4, max_size=4)
)
def test_weights_of_two_gradients_that_differ_in_the_last_bits_sum_to_one(
    g: list[float], steps: list[int]
) -> None:
    first = torch.tensor(g, dtype=torch.float64)
    second = first * (1 + 2.0**-52 * torch.tensor(steps[: len(g)], dtype=torch.float64))
    J = torch.stack([first, second])
    for rows in (J, J.float()):
        alpha = mtl.min_norm_two(gram(rows))
        assert_on_simplex(alpha, 2)
        assert (alpha @ J).norm() <= (1 + 1e-14) * J.norm(dim=1).min()


@pytest.mark.parametrize("exponent", [-1, -20, -26, -40])
def test_two_gradients_that_differ_by_little(exponent: int) -> None:
    e = 2.0**exponent
    J = torch.tensor([[1.0, e], [1.0, -3 * e]], dtype=torch.float64)
    alpha = mtl.min_norm_two(gram(J))
    assert_on_simplex(alpha, 2)
    assert (alpha @ J).norm() <= (1 + 1e-14) * J.norm(dim=1).min()


# --- Sampled matrices: small integers times powers of two, so that exact arithmetic knows every product

integers = st.integers(-4, 4)


@st.composite
def sampled(draw: st.DrawFn, max_tasks: int = 5, max_exponent: int = 0, exactly: int | None = None) -> Tensor:
    """Gradients of any rank: random rows, zero, equal, opposite and colinear ones, and sums; of scales 2^±e."""
    T = exactly or draw(st.integers(1, max_tasks))
    P = draw(st.integers(1, 5))
    rows: list[Tensor] = []
    for _ in range(T):
        kind = draw(st.sampled_from(["new", "new", "new", "multiple", "sum", "zero"] if rows else ["new", "zero"]))
        if kind == "new":
            row = torch.tensor(draw(st.lists(integers, min_size=P, max_size=P)), dtype=torch.float64)
        elif kind == "multiple":
            row = draw(st.sampled_from([1, -1, 2, -3])) * draw(st.sampled_from(rows))
        elif kind == "sum":
            row = draw(st.sampled_from(rows)) + draw(st.sampled_from(rows))
        else:
            row = torch.zeros(P, dtype=torch.float64)
        rows.append(row)
    exponents = draw(st.lists(st.integers(-max_exponent, max_exponent), min_size=T, max_size=T))
    return torch.stack(rows) * 2.0 ** torch.tensor(exponents, dtype=torch.float64).unsqueeze(1)


WILD = 40  # 2^±40 ≈ 1e±12


@generous
@given(sampled())
def test_min_norm_agrees_with_brute_force_over_all_faces(J: Tensor) -> None:
    assert_agrees_with_brute_force(J, mtl.min_norm(gram(J)))


@generous
@given(sampled(max_exponent=WILD))
@example(torch.tensor([[0.0, 1.0], [0.0, -1.0], [2.0**-26, 0.0]], dtype=torch.float64))
@example(torch.tensor([[2.0**-40], [-(2.0**40)]], dtype=torch.float64))
def test_min_norm_agrees_with_brute_force_at_scales_from_1e_minus_12_to_1e12_in_one_matrix(J: Tensor) -> None:
    assert_agrees_with_brute_force(J, mtl.min_norm(gram(J)))


@generous
@given(sampled(exactly=2, max_exponent=WILD))
def test_min_norm_two_agrees_with_brute_force(J: Tensor) -> None:
    assert_agrees_with_brute_force(J, mtl.min_norm_two(gram(J)))


@generous
@given(sampled(max_tasks=8, max_exponent=WILD))
def test_min_norm_passes_the_optimality_test(J: Tensor) -> None:
    assert_optimal(J, mtl.min_norm(gram(J)))


def random_gradients(T: int, P: int, rank: int, seed: int, spread: float = 0.0) -> Tensor:
    """Gradients of a given rank with a common part, of lengths that spread over 10^±spread."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, rank, generator=generator, dtype=torch.float64) @ torch.randn(
        rank, P, generator=generator, dtype=torch.float64
    )
    J += 0.3 * torch.randn(P, generator=generator, dtype=torch.float64) * rank**0.5
    return J * 10 ** (spread * (2 * torch.rand(T, 1, generator=generator, dtype=torch.float64) - 1))


@pytest.mark.parametrize("spread", [0, 2, 6, 12])
@pytest.mark.parametrize(
    ("T", "P", "rank"), [(2, 9, 2), (3, 2, 2), (10, 50, 10), (10, 50, 4), (40, 200, 40), (40, 9, 9)]
)
def test_min_norm_passes_the_optimality_test_for_up_to_forty_tasks(
    T: int, P: int, rank: int, spread: float
) -> None:
    for seed in range(4):
        J = random_gradients(T, P, rank, seed, spread)
        assert_optimal(J, mtl.min_norm(gram(J)))


@pytest.mark.parametrize(
    ("T", "P", "rank"), [(2, 9, 2), (3, 2, 2), (10, 50, 10), (10, 50, 4), (40, 200, 40), (40, 9, 9)]
)
def test_min_norm_agrees_with_non_negative_least_squares(T: int, P: int, rank: int) -> None:
    """The least ‖Jᵀ y‖² + (1·y − 1)² over y ≥ 0 has y ∝ α: for y = sα it is least at s = 1/(1 + ‖ĝ‖²)."""
    for seed in range(4):
        J = random_gradients(T, P, rank, seed)
        J /= J.norm(dim=1).mean()
        y, _ = nnls(np.vstack([J.T.numpy(), np.ones(T)]), np.array([0.0] * P + [1.0]))
        oracle = torch.from_numpy(y / y.sum()) @ J
        assert mtl.min_norm(gram(J)) @ J == pytest.approx(oracle, abs=1e-7)


@pytest.mark.parametrize("T", [2, 3, 10, 40])
def test_gap_at_forty_tasks_is_below_1e_minus_10_of_the_matrix(T: int) -> None:
    for seed in range(5):
        M = gram(random_gradients(T, 3 * T, T, seed))
        assert mtl.duality_gap(M, mtl.min_norm(M)) <= 1e-10 * torch.linalg.matrix_norm(M, 2)


# --- Properties


@generous
@given(sampled(max_tasks=6, max_exponent=10), st.randoms(use_true_random=False))
def test_min_norm_point_is_permutation_equivariant(J: Tensor, random: object) -> None:
    order = torch.randperm(len(J), generator=torch.Generator().manual_seed(random.randrange(2**31)))  # type: ignore[attr-defined]
    point, again = mtl.min_norm(gram(J)) @ J, mtl.min_norm(gram(J[order])) @ J[order]
    assert again == pytest.approx(point, abs=1e-5 * shortest_length(J))


def shortest_length(J: Tensor) -> float:
    return J.norm(dim=1).min().item()


@pytest.mark.parametrize("seed", range(10))
def test_unique_weights_follow_a_permutation(seed: int) -> None:
    J = random_gradients(6, 20, 6, seed, spread=2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert mtl.min_norm(gram(J[order])) == pytest.approx(mtl.min_norm(gram(J))[order], abs=1e-10)


@pytest.mark.parametrize("solver", [mtl.min_norm, mtl.min_norm_two], ids=["min_norm", "two"])
@pytest.mark.parametrize("exponent", [-40, -1, 1, 40])
@pytest.mark.parametrize("seed", range(4))
def test_weights_do_not_change_when_all_gradients_are_scaled(solver: Solver, exponent: int, seed: int) -> None:
    J = random_gradients(2 if solver is mtl.min_norm_two else 5, 8, 4, seed, spread=3)
    assert torch.equal(solver(gram(J * 2.0**exponent)), solver(gram(J)))  # a power of two rounds nothing
    assert solver(gram(J * 1e-12)) == pytest.approx(solver(gram(J)), rel=1e-6, abs=1e-12)
    assert solver(gram(J * 1e12)) == pytest.approx(solver(gram(J)), rel=1e-6, abs=1e-12)


@generous
@given(sampled(exactly=2, max_exponent=WILD))
def test_both_solvers_find_the_same_point_for_two(J: Tensor) -> None:
    M = gram(J)
    two, exact = mtl.min_norm_two(M), mtl.min_norm(M)
    terms = (torch.maximum(exact, two) * J.norm(dim=1)).sum().item()
    assert (two @ J).numpy() == pytest.approx((exact @ J).numpy(), abs=1e-6 * terms + 1e-300)


@generous
@given(sampled(max_tasks=6, max_exponent=10))
@example(torch.tensor([[0.0, -1.0]] * 3 + [[2.0**-10, 2.0**-9]] + [[0.0, 1.0]] * 2, dtype=torch.float64))
def test_repeated_gradients_do_not_move_the_point(J: Tensor) -> None:
    twice = torch.cat([J, J])
    alpha = mtl.min_norm(gram(twice))
    terms = (alpha * twice.norm(dim=1)).sum().item()
    assert alpha @ twice == pytest.approx(mtl.min_norm(gram(J)) @ J, abs=1e-6 * terms + 1e-300)


@generous
@given(sampled(max_tasks=6, max_exponent=WILD))
@example(torch.tensor([[1.0, 0.0], [-1.0, 2.0**-40]], dtype=torch.float64))
@example(torch.tensor([[0, 0, 4, -3], [0, 0, -24, 18], [0, 0, -1, 0], [0, 2**-15, 2**-15, 2**-15]]).double())
def test_repeated_gradients_of_any_length_pass_the_optimality_test(J: Tensor) -> None:
    twice = torch.cat([J, J])
    assert_optimal(twice, mtl.min_norm(gram(twice)))


# --- What users give it


def nearly_dependent(T: int, P: int, seed: int) -> Tensor:
    """Gradients of which a third are nearly one, with coordinates and lengths that spread over many digits."""
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator, dtype=torch.float64)
    close = torch.randint(T, (T // 3,), generator=generator)
    J[close] = J[0] * (1 + 1e-9 * torch.randn(len(close), P, generator=generator, dtype=torch.float64))
    J *= 10 ** (-9 * torch.rand(P, generator=generator, dtype=torch.float64))
    return J * 10 ** (12 * torch.rand(T, 1, generator=generator, dtype=torch.float64))


@generous
@given(st.integers(2, 30), st.integers(1, 20), st.integers(0, 10**6))
def test_nearly_dependent_gradients_pass_the_optimality_test(T: int, P: int, seed: int) -> None:
    J = nearly_dependent(T, P, seed)
    assert_optimal(J, mtl.min_norm(gram(J)))


@generous
@given(st.integers(2, 20), st.integers(1, 4), st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 3.0]))
@example(3, 1, 2, 0.0)
def test_a_matrix_formed_in_float32_is_solved_as_well_as_it_was_formed(
    T: int, P: int, seed: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator) * torch.exp(spread * torch.randn(T, 1, generator=generator))
    for M in (gram(J), gram(J).double()):  # with eigenvalues below zero, as T > P
        assert_optimal(J.double(), mtl.min_norm(M), tolerance=T * 2.0**-20)


@pytest.mark.parametrize("seed", range(10))
def test_halves_of_a_matrix_may_differ_by_rounding(seed: int) -> None:
    J = random_gradients(6, 20, 6, seed)
    M = gram(J)
    assert_optimal(J, mtl.min_norm(M + 1e-15 * torch.rand(6, 6, dtype=torch.float64)))
    assert_optimal(J, mtl.min_norm(M + 1e-15 * torch.rand(6, 6, dtype=torch.float64).tril()))


@pytest.mark.parametrize("solver", [mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe])
@pytest.mark.parametrize("length", [1e-150, 1e-155, 1e-160, 1e-200, 1e-320, 1e150])
def test_the_shortest_and_the_longest_gradients_that_float64_holds(solver: Solver, length: float) -> None:
    J = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64) * length
    alpha = solver(gram(J))
    assert_on_simplex(alpha, 2)
    if length > 1e-161:  # below, float64 does not hold the squares
        assert alpha.tolist() == pytest.approx([0.8, 0.2], abs=1e-3)


@generous
@given(st.integers(1, 12), st.integers(1, 3), st.integers(0, 10**6), st.floats(-170, -140))
def test_gradients_whose_squares_are_denormal_are_weighted(T: int, P: int, seed: int, exponent: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator, dtype=torch.float64)
    alpha = mtl.min_norm(gram(J * 10**exponent))
    assert_on_simplex(alpha, T)
    if exponent > -153:  # nothing is lost yet
        assert_optimal(J, alpha)


@two_or_more
@pytest.mark.parametrize("e", [1e-3, 1e-6, 1e-7])
def test_near_a_stationary_point_no_product_is_negative(solver: Solver, e: float) -> None:
    M = gram(torch.tensor([[1.0, e], [-2.0, e]], dtype=torch.float64))
    alpha = solver(M)
    assert alpha.tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-14)
    assert (M @ alpha).tolist() == pytest.approx([e**2, e**2], rel=0.1)


def solves(M: Tensor) -> int:
    with mock.patch.object(np.linalg, "solve", wraps=np.linalg.solve) as solve:
        mtl.min_norm(M)
    return solve.call_count


def test_few_solves_are_needed() -> None:
    apart = [solves(gram(random_gradients(40, 80, 40, seed))) for seed in range(20)]
    common = [solves(gram(torch.randn(40, 80) + torch.randn(80)).double()) for seed in range(20)]
    twice = [solves(gram(random_gradients(20, 80, 20, seed).repeat(2, 1))) for seed in range(20)]
    assert max(apart + common + twice) <= 12
    assert solves(torch.eye(40)) == solves(torch.ones(40, 40)) == 1


def test_a_thousand_gradients() -> None:
    J = random_gradients(1000, 1200, 1000, 0, spread=1)
    assert_optimal(J, mtl.min_norm(gram(J)))


# --- The gap


def test_duality_gap_by_hand() -> None:
    M = gram(torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)  # ĝ = (½, 1): ‖ĝ‖² = 1.25, ⟨gᵢ, ĝ⟩ = ½, 2
    assert mtl.duality_gap(M, half).item() == 0.75
    assert mtl.duality_gap(M, torch.tensor([0.8, 0.2], dtype=torch.float64)).item() == pytest.approx(0, abs=1e-15)
    assert mtl.duality_gap(M, torch.tensor([1.0, 0.0], dtype=torch.float64)).shape == ()


@generous
@given(sampled(max_tasks=5), st.lists(st.integers(0, 8), min_size=5, max_size=5))
def test_duality_gap_is_never_negative_and_bounds_the_distance_to_the_optimum(
    J: Tensor, counts: list[int]
) -> None:
    share = torch.tensor(counts[: len(J)], dtype=torch.float64)
    alpha = share / share.sum() if share.sum() > 0 else torch.full_like(share, 1 / len(share))
    M, (exact, _) = gram(J), shortest_by_brute_force(J)
    gap = mtl.duality_gap(M, alpha).item()
    assert gap >= -1e-12
    assert (alpha @ M @ alpha).item() - float(exact_dot(exact, exact)) <= 2 * gap + 1e-10


# --- Bad input


BAD = {
    "a vector": (torch.ones(3), r"shape \(T, T\) is needed, but M has shape \(3,\)"),
    "not square": (torch.ones(2, 3), r"shape \(T, T\) is needed, but M has shape \(2, 3\)"),
    "a batch": (torch.ones(2, 2, 2), r"M has shape \(2, 2, 2\)"),
    "empty": (torch.ones(0, 0), r"M has shape \(0, 0\)"),
    "nan": (torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "M has entries that are not finite"),
    "infinite": (torch.tensor([[torch.inf, 0.0], [0.0, 1.0]]), "M has entries that are not finite"),
    "not symmetric": (
        torch.tensor([[1.0, 0.5], [0.2, 1.0]]),
        r"M\[i, j\] = M\[j, i\]: M\[0, 1\] is 0.5, M\[1, 0\] is 0.2",
    ),
    "a negative square": (torch.tensor([[1.0, 0.0], [0.0, -1.0]]), r"‖gⱼ‖: M\[1, 1\] is -1"),
    "a product of zero": (torch.tensor([[1.0, 1.0], [1.0, 0.0]]), r"‖gⱼ‖: M\[0, 1\] is 1, .* M\[0, 0\] is 1"),
    "a product too large": (
        torch.tensor([[1.0, 2.1], [2.1, 4.0]]),
        r"\|M\[i, j\]\| ≤ ‖gᵢ‖ ‖gⱼ‖: M\[0, 1\] is 2.1",
    ),
}


@pytest.mark.parametrize("function", [mtl.min_norm, mtl.frank_wolfe, check_gram])
@pytest.mark.parametrize(("M", "message"), BAD.values(), ids=BAD)
def test_bad_matrices_are_refused(function: Solver, M: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        function(M)


def test_a_matrix_with_an_eigenvalue_clearly_below_zero_is_refused() -> None:
    M = torch.full((3, 3), -0.9, dtype=torch.float64)
    M.fill_diagonal_(1)  # eigenvalues 1.9, 1.9 and −0.8
    with pytest.raises(ValueError, match=r"an eigenvalue of -0.8, but .* M = J @ J.T .* in float32 or better"):
        mtl.min_norm(100 * M)


@pytest.mark.parametrize("M", [torch.ones(1, 1), torch.eye(3), torch.ones(2), torch.ones(2, 3)])
def test_min_norm_two_wants_two_by_two(M: Tensor) -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 2\) is needed"):
        mtl.min_norm_two(M)
    with pytest.raises(ValueError, match="not finite"):
        mtl.min_norm_two(torch.full((2, 2), torch.nan))


def test_check_gram_returns_float64_off_the_graph() -> None:
    M = torch.eye(2, requires_grad=True)
    checked = check_gram(M)
    assert checked.dtype == torch.float64
    assert not checked.requires_grad
    assert check_gram(M, 2).tolist() == M.tolist()


@two_or_more
def test_half_precision_is_solved_in_float64_and_the_matrix_is_left_alone(solver: Solver) -> None:
    M = gram(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).half()
    before = M.clone()
    assert solver(M).tolist() == pytest.approx([0.8, 0.2], abs=1e-12)
    assert torch.equal(M, before)
