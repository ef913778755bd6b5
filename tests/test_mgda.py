"""Frank–Wolfe and MGDA: closed forms, the exact solver, TorchJD, sampled matrices, and networks by hand."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torchjd import aggregation

import mtl_ref as mtl
from mtl_ref.methods.mgda import NORMALIZERS

Solver = Callable[[Tensor], Tensor]

ZIGZAG = [[1.0, 1.0], [-1.0, 1.0], [0.1, 2.5]]
generous = settings(deadline=None, max_examples=100)
each_normalizer = pytest.mark.parametrize("normalize", NORMALIZERS)


def matrix(rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def draw(T: int, P: int, seed: int, rank: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(T, P, generator=generator, dtype=torch.float64)
    if rank is None:
        return J
    left = torch.randn(T, rank, generator=generator, dtype=torch.float64)
    return left @ torch.randn(rank, P, generator=generator, dtype=torch.float64)


def gram(J: Tensor) -> Tensor:
    return J @ J.T


def half_square(M: Tensor, alpha: Tensor) -> float:
    return (alpha @ M @ alpha).item() / 2


@st.composite
def gradient_matrices(draw_: st.DrawFn) -> Tensor:
    """T up to 6 gradients of any rank and scale, some of them equal, opposite, colinear or zero."""
    T, P = draw_(st.integers(1, 6)), draw_(st.integers(1, 8))
    J = draw(T, P, draw_(st.integers(0, 10**6)), rank=draw_(st.integers(1, min(T, P))))
    exponents = draw_(st.sampled_from([[0], [-12], [12], [-12, 12, 0], [-3, 2]]))
    J = J * 10.0 ** matrix([exponents[i % len(exponents)] for i in range(T)])[:, None]
    special = draw_(st.sampled_from(["none", "zero", "equal", "opposite", "colinear"]))
    if special == "none":
        return J
    factor = {"zero": 0.0, "equal": 1.0, "opposite": -1.0, "colinear": 3.0}[special]
    return torch.cat([J, factor * J[:1]])


# --- Frank–Wolfe


def test_frank_wolfe_starts_in_the_middle() -> None:
    assert mtl.frank_wolfe(gram(draw(5, 9, 0)), iterations=0).tolist() == [0.2] * 5


def test_first_step_by_hand() -> None:
    # ĝ = (1/30, 1.5), inner products 46/30, 44/30, 3.75 + 1/300: to g₂ with γ = ⟨ĝ − g₂, ĝ⟩/‖ĝ − g₂‖²
    G, start = matrix(ZIGZAG), matrix([1 / 30, 1.5])
    gamma = ((start - G[1]) @ start / (start - G[1]).square().sum()).item()
    alpha = mtl.frank_wolfe(gram(G), iterations=1)
    assert alpha.tolist() == pytest.approx([(1 - gamma) / 3, (1 - gamma) / 3 + gamma, (1 - gamma) / 3], abs=1e-15)
    assert gamma == pytest.approx(0.595278, abs=1e-6)


def test_a_step_does_not_leave_the_simplex() -> None:
    # from (2, 0) to (1, 0) the shortest point of the whole line would be at γ = 2
    assert mtl.frank_wolfe(gram(matrix([[1, 0], [3, 0]]))).tolist() == [1, 0]


@pytest.mark.parametrize("iterations", [1, 2, 5, 10, 30, 100, 300])
@pytest.mark.parametrize("seed", range(6))
def test_frank_wolfe_keeps_its_bound_on_the_value(iterations: int, seed: int) -> None:
    G = matrix(ZIGZAG) if seed == 0 else draw(6, 4, seed)
    M = gram(G)
    alpha = mtl.frank_wolfe(M, iterations=iterations, tolerance=0)
    error = half_square(M, alpha) - half_square(M, mtl.min_norm(M))
    diameter = torch.cdist(G, G).max().item()
    assert -1e-12 <= error <= 2 * diameter**2 / (iterations + 2)
    assert error <= mtl.duality_gap(M, alpha) + 1e-12


def test_frank_wolfe_really_is_as_slow_as_one_over_k() -> None:
    M = gram(matrix(ZIGZAG))
    gaps = [k * mtl.duality_gap(M, mtl.frank_wolfe(M, k, tolerance=0)).item() for k in (10, 100, 1000)]
    assert gaps == pytest.approx([0.789131, 0.954907, 0.993071], abs=1e-6)


@given(gradient_matrices())
@generous
def test_frank_wolfe_stays_on_the_simplex_and_its_gap_bounds_the_error(J: Tensor) -> None:
    M = gram(J)
    alpha = mtl.frank_wolfe(M)
    assert (alpha >= 0).all()
    assert alpha.sum().item() == pytest.approx(1, abs=1e-12)
    best = mtl.min_norm(M)
    scale = M.diag().max().item()
    gap = mtl.duality_gap(M, alpha).item()
    distance = J.T @ (alpha - best)
    assert (distance @ distance).item() <= gap + 1e-10 * scale
    assert (M @ alpha).min().item() >= (alpha @ M @ alpha).item() - gap - 1e-12 * scale


def test_frank_wolfe_stops_at_its_tolerance() -> None:
    for seed in range(20):
        M = gram(draw(5, 20, seed))
        for tolerance in (1e-1, 1e-2, 1e-3):
            alpha = mtl.frank_wolfe(M, iterations=100_000, tolerance=tolerance)
            assert mtl.duality_gap(M, alpha) <= tolerance * M.diag().max()
    far_apart = torch.diag(matrix([1.0, 1.0, 1e4]))  # relative to the longest, not to the shortest
    assert mtl.frank_wolfe(far_apart, tolerance=0.5).tolist() == [1 / 3] * 3
    G = gram(matrix(ZIGZAG))
    early, late = (mtl.frank_wolfe(G, 1000, tolerance=t) for t in (0.1, 0))
    assert mtl.duality_gap(G, early) > 10 * mtl.duality_gap(G, late)


@pytest.mark.parametrize("factor", [1e-12, 1e12])
def test_frank_wolfe_does_not_depend_on_the_scale_of_all_gradients(factor: float) -> None:
    J = draw(5, 3, 1)
    torch.testing.assert_close(mtl.frank_wolfe(gram(factor * J)), mtl.frank_wolfe(gram(J)), rtol=1e-6, atol=1e-8)


def test_the_slides_argmax_never_moves() -> None:
    for seed in range(100):
        M = gram(draw(5, 10, seed))
        alpha = torch.full((5,), 0.2, dtype=torch.float64)
        inner = M @ alpha
        t = inner.argmax()
        gamma = (inner @ alpha - inner[t]) / (inner @ alpha + M[t, t] - 2 * inner[t])
        assert gamma.clamp(0, 1) == 0
        assert half_square(M, mtl.frank_wolfe(M, iterations=5)) < half_square(M, alpha)


@pytest.mark.parametrize(
    "M", [torch.zeros(2, 3), torch.zeros(2), torch.zeros(0, 0), torch.full((2, 2), torch.nan)], ids=str
)
def test_frank_wolfe_refuses_what_is_no_gram_matrix(M: Tensor) -> None:
    with pytest.raises(ValueError, match=r"Gram matrix|not finite"):
        mtl.frank_wolfe(M)


# --- Closed forms of MGDA


def mgda(J: Tensor, losses: list[float] | None = None, **settings_: object) -> tuple[Tensor, Tensor]:
    d, weights = mtl.MGDA(**settings_).combine(J, None if losses is None else matrix(losses))  # type: ignore[arg-type]
    assert weights is not None
    return d, weights


def test_two_tasks_by_the_formula() -> None:
    for seed in range(50):
        g1, g2 = J = draw(2, 3, seed)
        alpha = float(np.clip(((g2 - g1) @ g2 / (g1 - g2).square().sum()).item(), 0, 1))
        for solver in (mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe):
            d, weights = mgda(J, solver=solver)
            assert weights.tolist() == pytest.approx([alpha, 1 - alpha], abs=1e-12)
            torch.testing.assert_close(d, alpha * g1 + (1 - alpha) * g2)


@pytest.mark.parametrize(
    ("normalize", "weights"),
    [
        ("none", lambda n, L: n**-2 / (n**-2).sum()),
        ("l2", lambda n, L: n**-1 / len(n)),
        ("loss", lambda n, L: L * n**-2 / (L**2 * n**-2).sum()),
        ("loss+", lambda n, L: L * n**-1 / (L**2).sum()),
    ],
)
def test_orthogonal_gradients_by_the_formula(normalize: str, weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    norms, losses = matrix([1.0, 3.0, 0.2, 10.0]), matrix([2.0, 0.5, 8.0, 1.0])
    Q, _ = torch.linalg.qr(draw(6, 6, 0))
    J = norms[:, None] * Q[:4]
    d, found = mgda(J, losses.tolist(), normalize=normalize)
    torch.testing.assert_close(found, weights(norms, losses), rtol=1e-9, atol=0)
    torch.testing.assert_close(d, found @ J)


def test_opposite_gradients_cancel_and_equal_gradients_are_kept() -> None:
    d, weights = mgda(matrix([[2.0, 0.0], [-1.0, 0.0]]))
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3], abs=1e-9)
    assert d.tolist() == pytest.approx([0, 0], abs=1e-9)
    d, weights = mgda(matrix([[1.0, 2.0]] * 3))
    assert weights.tolist() == pytest.approx([1 / 3] * 3)
    assert d.tolist() == pytest.approx([1, 2])


@each_normalizer
def test_one_task_keeps_its_direction(normalize: str) -> None:
    J = draw(1, 4, 0)
    d, weights = mgda(J, [2.0], normalize=normalize)
    scale = {"none": 1, "l2": 1 / J.norm(), "loss": 0.5, "loss+": 0.5 / J.norm()}[normalize]
    torch.testing.assert_close(d, scale * J[0])
    assert weights.tolist() == pytest.approx([float(scale)])


def test_l2_is_gradient_normalisation_for_two_tasks() -> None:
    for seed in range(20):
        J = draw(2, 5, seed)
        half = mtl.GradientNormalization()(J) / 2
        torch.testing.assert_close(mgda(J, normalize="l2")[0], half, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [-12, -1, 1, 12])
def test_what_each_normaliser_is_invariant_to(exponent: int) -> None:
    J, losses = draw(3, 7, 3), matrix([2.0, 0.5, 8.0])
    factor = matrix([1.0, 10.0**exponent, 1.0])

    def direction(normalize: str, J: Tensor, losses: Tensor) -> Tensor:
        return mgda(J, losses.tolist(), normalize=normalize)[0]

    longer, other_unit = factor[:, None] * J, factor * losses
    same = {"rtol": 1e-8, "atol": 1e-12}
    torch.testing.assert_close(direction("l2", longer, losses), direction("l2", J, losses), **same)
    torch.testing.assert_close(direction("loss+", longer, losses), direction("loss+", J, losses), **same)
    torch.testing.assert_close(direction("loss", longer, other_unit), direction("loss", J, losses), **same)
    torch.testing.assert_close(direction("l2", longer, other_unit), direction("l2", J, losses), **same)
    for normalize in ("none", "loss+"):
        changed = direction(normalize, longer, other_unit)
        assert (changed - direction(normalize, J, losses)).norm() > 0.01 * changed.norm()


# --- TorchJD


def test_mgda_agrees_with_torchjd_on_its_documented_example() -> None:
    J = matrix([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    for solver in (mtl.min_norm, mtl.min_norm_two, mtl.frank_wolfe):
        d = mtl.MGDA(solver)(J)
        assert d.tolist() == pytest.approx([0, 1, 1], abs=1e-6)
        torch.testing.assert_close(d, aggregation.MGDA()(J), rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_frank_wolfe_agrees_with_torchjd_step_for_step(seed: int) -> None:
    J = draw(4, 6, seed)
    theirs = aggregation.MGDA(epsilon=1e-12, max_iters=20)(J)
    ours = mtl.MGDA(lambda M: mtl.frank_wolfe(M, iterations=20, tolerance=0))(J)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


def test_the_exact_solver_is_never_longer_than_torchjds_hundred_iterations() -> None:
    ratios = []
    for seed in range(10):
        J = draw(40, 50, seed) * draw(40, 1, seed + 100).exp()
        ratios.append((aggregation.MGDA()(J).norm() / mtl.MGDA()(J).norm()).item())
    assert min(ratios) >= 1 - 1e-9
    assert max(ratios) > 1.05


# --- Properties over sampled matrices


def shortest_length(J: Tensor, normalize: str, losses: Tensor) -> Tensor:
    """The smallest length of the scaled gradients, to which rounding is compared."""
    s = mtl.MGDA(normalize=normalize).scale(gram(J), losses)
    return (s * J.norm(dim=1)).min()


@each_normalizer
@given(J=gradient_matrices(), seed=st.integers(0, 1000))
@generous
def test_direction_increases_no_loss_and_is_finite(normalize: str, J: Tensor, seed: int) -> None:
    losses = draw(len(J), 1, seed).squeeze(1).exp()
    d, weights = mgda(J, losses.tolist(), normalize=normalize)
    assert d.isfinite().all()
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    torch.testing.assert_close(d, weights @ J)
    norms = J.norm(dim=1)
    along = J @ d / torch.where(norms > 0, norms, 1.0)
    assert along.min() >= -1e-9 * shortest_length(J, normalize, losses)


@each_normalizer
def test_every_task_with_a_weight_descends_at_the_same_rate(normalize: str) -> None:
    for seed in range(30):
        J, losses = draw(6, 8, seed), draw(6, 1, seed + 50).squeeze(1).exp()
        d, weights = mgda(J, losses.tolist(), normalize=normalize)
        s = mtl.MGDA(normalize=normalize).scale(gram(J), losses)
        rates = s * (J @ d)  # of the scaled losses
        assert rates[weights > 0].tolist() == pytest.approx([(d @ d).item()] * int((weights > 0).sum()), rel=1e-8)
        assert (rates >= (d @ d) * (1 - 1e-8)).all()


def test_direction_does_not_depend_on_the_order_of_the_tasks() -> None:
    J, losses = draw(4, 6, 0), matrix([1.0, 2.0, 0.3, 5.0])
    for normalize in NORMALIZERS:
        balancer = mtl.MGDA(normalize=normalize)
        for order in itertools.permutations(range(4)):
            torch.testing.assert_close(balancer(J[list(order)], losses[list(order)]), balancer(J, losses))


@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1e12])
def test_direction_is_scale_equivariant(factor: float) -> None:
    J = draw(5, 8, 2)
    for solver in (mtl.min_norm, mtl.frank_wolfe):
        torch.testing.assert_close(mtl.MGDA(solver)(factor * J) / factor, mtl.MGDA(solver)(J))


@each_normalizer
def test_direction_is_zero_at_a_pareto_stationary_point(normalize: str) -> None:
    for seed in range(20):
        J = draw(4, 6, seed)
        positive = draw(4, 1, seed + 9).squeeze(1).exp()
        J[3] = -(positive[:3] @ J[:3]) / positive[3]  # Σ positiveᵢ gᵢ = 0
        d, _ = mgda(J, [1.0, 2.0, 0.5, 3.0], normalize=normalize)
        assert d.norm() <= 1e-8 * shortest_length(J, normalize, matrix([1.0, 2.0, 0.5, 3.0]))


@each_normalizer
def test_a_zero_gradient_takes_all_the_weight_and_stops_the_step(normalize: str) -> None:
    J = torch.cat([draw(2, 3, 0), torch.zeros(1, 3, dtype=torch.float64)])
    d, weights = mgda(J, [1.0, 2.0, 4.0], normalize=normalize)
    assert d.tolist() == [0, 0, 0]
    assert weights[:2].tolist() == [0, 0]
    d, weights = mgda(torch.zeros(3, 4, dtype=torch.float64), [1.0, 2.0, 4.0], normalize=normalize)
    assert d.tolist() == [0] * 4
    assert weights.isfinite().all()


def test_direction_has_the_type_of_the_gradients() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        J = draw(3, 5, 0).to(dtype)
        d = mtl.MGDA()(J)
        assert d.dtype == dtype
        torch.testing.assert_close(d.double(), mtl.MGDA()(J.double()), rtol=0, atol=0.02)


# --- Networks


class Net(nn.Module):
    """An encoder with a part that only the first task uses, and a head per task."""

    def __init__(self, tasks: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Linear(5, 4)
            self.extra = nn.Linear(5, 4)
            self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(tasks))
        self.double()

    def shared(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.extra.parameters()]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(self.encoder(x)), torch.sigmoid(self.extra(x))

    def losses(self, features: tuple[Tensor, Tensor]) -> list[Tensor]:
        z, extra = features
        inputs = [z + extra] + [z] * (len(self.heads) - 1)
        return [
            (head(i) - 3 * t).square().mean() * 10.0**t
            for t, (head, i) in enumerate(zip(self.heads, inputs, strict=True))
        ]


def batch() -> Tensor:
    return draw(7, 5, 11)


def rows(losses: list[Tensor], inputs: list[Tensor]) -> Tensor:
    """J by autograd, one task and one input at a time."""
    table = []
    for loss in losses:
        found = torch.autograd.grad(loss, inputs, retain_graph=True, allow_unused=True)
        pieces = [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]
        table.append(torch.cat([p.reshape(-1) for p in pieces]))
    return torch.stack(table)


def flat_grad(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])


@each_normalizer
def test_shared_parameters_get_the_direction_and_heads_their_own_gradient(normalize: str) -> None:
    net = Net()
    losses = net.losses(net.features(batch()))
    J = rows(losses, net.shared())
    assert (J[1:, 24:] == 0).all()  # only the first task uses `extra`
    expected, alpha = mgda(J, [loss.item() for loss in losses], normalize=normalize)
    own = [rows([loss], list(head.parameters()))[0] for loss, head in zip(losses, net.heads, strict=True)]
    weights = mtl.MGDA(normalize=normalize).backward(torch.stack(losses), shared=net.shared())
    torch.testing.assert_close(weights, alpha)
    torch.testing.assert_close(flat_grad(net.shared()), expected)
    for head, gradient in zip(net.heads, own, strict=True):
        torch.testing.assert_close(flat_grad(list(head.parameters())), gradient)


@each_normalizer
def test_features_get_one_direction_that_goes_back_through_the_encoder_once(normalize: str) -> None:
    net = Net()
    features = net.features(batch())
    losses = net.losses(features)
    J = rows(losses, list(features))  # with respect to both feature tensors
    _, alpha = mgda(J, [loss.item() for loss in losses], normalize=normalize)
    through = rows(losses, net.shared())  # J_encᵀ ∇_Z Lᵢ for each task
    own = [rows([loss], list(head.parameters()))[0] for loss, head in zip(losses, net.heads, strict=True)]
    passes = []
    features[0].grad_fn.register_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    weights = mtl.MGDA(normalize=normalize).backward(torch.stack(losses), features=features)
    assert len(passes) == 1
    torch.testing.assert_close(weights, alpha)
    torch.testing.assert_close(flat_grad(net.shared()), alpha @ through)
    for head, gradient in zip(net.heads, own, strict=True):
        torch.testing.assert_close(flat_grad(list(head.parameters())), gradient)


def test_one_feature_tensor_or_a_list_of_it_is_the_same() -> None:
    found = []
    for wrap in (lambda z: z, lambda z: [z], lambda z: iter([z])):
        net = Net()
        z, extra = net.features(batch())
        losses = torch.stack(net.losses((z, extra.detach())))
        weights = mtl.MGDA().backward(losses, features=wrap(z))
        found.append((weights, flat_grad(list(net.encoder.parameters()))))
    for weights, gradient in found[1:]:
        assert torch.equal(weights, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_the_encoder_is_passed_once_per_task_with_shared() -> None:
    net = Net()
    features = net.features(batch())
    passes = []
    features[0].grad_fn.register_hook(lambda *_: passes.append(1))  # type: ignore[union-attr]
    mtl.MGDA().backward(torch.stack(net.losses(features)), shared=net.shared())
    assert len(passes) == 3


@pytest.mark.parametrize("by_features", [False, True])
def test_gradients_that_are_there_are_added_to(by_features: bool) -> None:
    def run(net: Net) -> None:
        features = net.features(batch())
        given_: dict[str, object] = {"features": features} if by_features else {"shared": net.shared()}
        mtl.MGDA().backward(torch.stack(net.losses(features)), **given_)  # type: ignore[arg-type]

    once, twice = Net(), Net()
    run(once)
    for p in twice.parameters():
        p.grad = torch.ones_like(p)
    run(twice)
    for p, q in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad + 1)  # type: ignore[operator]


def test_it_does_not_matter_how_the_losses_were_put_together() -> None:
    ways: list[Callable[[list[Tensor]], Tensor]] = [
        torch.stack,
        lambda losses: torch.cat([loss.reshape(1) for loss in losses]),
        lambda losses: torch.stack(losses) * 1.0,
        lambda losses: torch.stack([*losses, losses[0]])[:3],
    ]
    results = []
    for way in ways:
        net = Net()
        weights = mtl.MGDA().backward(way(net.losses(net.features(batch()))), shared=net.shared())
        results.append((weights, flat_grad(list(net.parameters()))))
    for weights, gradient in results[1:]:
        torch.testing.assert_close(weights, results[0][0])
        torch.testing.assert_close(gradient, results[0][1])


def test_a_step_along_the_direction_decreases_every_loss() -> None:
    net = Net()
    before = net.losses(net.features(batch()))
    mtl.MGDA().backward(torch.stack(before), shared=net.shared())
    with torch.no_grad():
        for p in net.shared():
            assert p.grad is not None
            p -= 1e-4 * p.grad
    after = net.losses(net.features(batch()))
    assert all(b < a for a, b in zip(before, after, strict=True))


def test_training_with_frozen_parameters_leaves_them_without_gradient() -> None:
    net = Net()
    net.extra.requires_grad_(False)
    mtl.MGDA().backward(torch.stack(net.losses(net.features(batch()))), shared=net.shared())
    assert net.extra.weight.grad is None
    assert net.encoder.weight.grad is not None


@pytest.mark.parametrize("by_features", [False, True])
def test_a_grad_scaler_sees_gradients_that_are_not_finite_and_skips_the_step(by_features: bool) -> None:
    encoder, head = nn.Linear(3, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = encoder.weight.detach().clone()
    for overflow in (True, False):
        optimizer.zero_grad()
        z = encoder(torch.ones(4, 3))
        losses = scaler.scale(head(z).square().mean(0))
        if overflow:  # the root of 0 has an infinite derivative
            losses = losses + (z - z.detach()).sum().sqrt()
        given_: dict[str, object] = {"features": z} if by_features else {"shared": encoder.parameters()}
        weights = mtl.MGDA().backward(losses, **given_)  # type: ignore[arg-type]
        assert weights is not None
        assert encoder.weight.grad is not None
        assert weights.isnan().all() == overflow
        assert encoder.weight.grad.isnan().all() == overflow
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(encoder.weight, before) == overflow


def test_gradients_that_are_not_finite_give_nan_and_no_error() -> None:
    for bad in (torch.nan, torch.inf):
        J = draw(3, 4, 0).float()
        J[1, 2] = bad
        d, weights = mtl.MGDA().combine(J)
        assert d.isnan().all()
        assert weights is not None
        assert weights.isnan().all()


def test_none_is_the_normaliser_for_a_grad_scaler() -> None:
    J, losses = draw(3, 5, 0), matrix([1.0, 2.0, 3.0])
    for normalize, power in {"none": 1, "l2": 0, "loss": 0, "loss+": -1}.items():
        balancer = mtl.MGDA(normalize=normalize)
        expected = 1024.0**power * balancer(J, losses)
        torch.testing.assert_close(balancer(1024 * J, 1024 * losses), expected)


def test_mgda_trains_a_problem_both_ways() -> None:
    class Tiny(mtl.problems.Problem):
        tasks = ("a", "b")

        def __init__(self) -> None:
            self.metrics = {"a loss": False, "b loss": False}
            self.x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))

        def __repr__(self) -> str:
            return "Tiny()"

        def to(self, device: torch.device | str) -> "Tiny":
            return self

        def model(self) -> mtl.problems.HardSharing:
            heads = {task: nn.Linear(4, 1) for task in self.tasks}
            return mtl.problems.HardSharing(nn.Linear(3, 4), heads)

        def batches(
            self, split: str, generator: torch.Generator | None = None
        ) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
            yield self.x, {"a": self.x.sum(1), "b": 10 * self.x[:, 0]}

        def losses(self, outputs: object, targets: object) -> Tensor:
            return torch.stack([F.mse_loss(outputs[t][:, 0], targets[t]) for t in self.tasks])  # type: ignore[index]

        def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
            with torch.no_grad():
                x, targets = next(self.batches(split))
                return dict(zip(self.metrics, self.losses(model(x), targets).tolist(), strict=True))

    for features in (False, True):
        history = mtl.train(Tiny(), mtl.MGDA(normalize="l2"), epochs=60, lr=0.05, device="cpu", features=features)
        assert history.losses[-1][0] < 0.3 * history.losses[0][0]
        assert history.losses[-1][1] < 0.3 * history.losses[0][1]


# --- Bad input


def assert_refused(message: str, balancer: mtl.MGDA, net: Net, losses: Tensor, **given_: object) -> None:
    with pytest.raises(ValueError, match=message):
        balancer.backward(losses, **given_)  # type: ignore[arg-type]
    assert all(p.grad is None for p in net.parameters())


def test_bad_input_is_refused_before_anything_changes() -> None:
    net = Net()
    features = net.features(batch())
    losses = torch.stack(net.losses(features))
    shared = net.shared()
    balancer = mtl.MGDA()
    assert_refused("exactly one of.*neither", balancer, net, losses)
    assert_refused("exactly one of.*both", balancer, net, losses, shared=shared, features=features)
    assert_refused("no tensor in shared", balancer, net, losses, shared=[])
    exhausted = net.encoder.parameters()
    list(exhausted)
    assert_refused("already used up", balancer, net, losses, shared=exhausted)
    assert_refused("no tensor in features", balancer, net, losses, features=features[0].detach())
    assert_refused("not on a graph", balancer, net, losses.detach(), shared=shared)
    assert_refused(r"shape \(T,\)", balancer, net, losses.sum(), shared=shared)
    assert_refused(r"shape \(T,\)", balancer, net, losses[None], shared=shared)
    assert_refused("task 1 .* is nan", balancer, net, losses * matrix([1, torch.nan, 1]), shared=shared)
    assert_refused("task 2 .* is inf", balancer, net, losses * matrix([1, 1, torch.inf]), shared=shared)
    two = mtl.MGDA(mtl.min_norm_two)
    assert_refused("built for 2 tasks but was given 3", two, net, losses, shared=shared)
    for normalize in ("loss", "loss+"):
        for factor in (-1.0, 0.0):
            bad = losses * matrix([1, 1, factor])
            assert_refused("task 2 .* positive", mtl.MGDA(normalize=normalize), net, bad, shared=shared)


def test_losses_may_be_negative_where_they_do_not_count() -> None:
    J = draw(2, 3, 0)
    for normalize in ("none", "l2"):
        balancer = mtl.MGDA(normalize=normalize)
        assert torch.equal(balancer(J, matrix([-1.0, 0.0])), balancer(J))


def test_unknown_normalisers_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'L2'.*\['none', 'l2', 'loss', 'loss\+'\]"):
        mtl.MGDA(normalize="L2")
    for J in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"shape \(T, P\)"):
            mtl.MGDA()(J)
    J = draw(2, 3, 0)
    for normalize in ("loss", "loss+"):
        with pytest.raises(ValueError, match="needs the losses"):
            mtl.MGDA(normalize=normalize)(J)
        for wrong in ([1.0], [1.0, 2.0, 3.0]):
            with pytest.raises(ValueError, match="built for 2 tasks"):
                mtl.MGDA(normalize=normalize)(J, matrix(wrong))
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        mtl.MGDA(mtl.min_norm_two)(draw(3, 3, 0))


def test_it_says_what_it_is() -> None:
    assert repr(mtl.MGDA()) == "MGDA(solver=min_norm, normalize=none)"
    assert repr(mtl.MGDA(mtl.frank_wolfe, "l2")) == "MGDA(solver=frank_wolfe, normalize=l2)"
