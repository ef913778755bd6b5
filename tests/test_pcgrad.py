import copy
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchjd.aggregation import PCGrad as TorchJD

import mtl_ref as mtl
from mtl_ref import metrics
from mtl_ref.problems.toy import landscapes as toy_landscapes

SCALES = [1e-12, 1e-6, 1.0, 1e6, 1e12]


def draw(T: int, P: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(T, P, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def project(J: Tensor, i: int, order: list[int]) -> Tensor:
    """Lines 2 to 7 of Algorithm 1, on the vectors themselves."""
    g = J[i].clone()
    for j in order:
        if g @ J[j] < 0:
            g = g - (g @ J[j]) / J[j].norm() ** 2 * J[j]
    return g


def by_hand(J: Tensor, orders: list[list[int]]) -> Tensor:
    return sum(project(J, i, order) for i, order in enumerate(orders))


def all_directions(J: Tensor) -> list[Tensor]:
    """The directions of Algorithm 1 for all orders of all tasks."""
    T = len(J)
    choices = [itertools.permutations([j for j in range(T) if j != i]) for i in range(T)]
    return [by_hand(J, [list(order) for order in orders]) for orders in itertools.product(*choices)]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("T", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_direction_is_that_of_algorithm_1_for_one_of_the_orders(T, seed):
    J = draw(T, 3, seed)
    ours = mtl.PCGrad(seeded(seed))(J)
    assert min((ours - d).norm() for d in all_directions(J)) < 1e-12 * J.norm()


@pytest.mark.parametrize("T", [2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(10))
def test_generator_decides_the_order_of_each_task(T, seed):
    J = draw(T, 3, seed)
    generator = seeded(seed)
    orders = [[j for j in torch.randperm(T, generator=generator).tolist() if j != i] for i in range(T)]
    torch.testing.assert_close(mtl.PCGrad(seeded(seed))(J), by_hand(J, orders), rtol=1e-11, atol=1e-12)


def test_every_order_of_every_task_occurs_equally_often():
    J = draw(3, 3, seed=1)
    J[2] = -J[0] - J[1] + 0.1 * J[2]  # all conflict, so that each order counts
    found = all_directions(J)
    balancer = mtl.PCGrad(seeded(0))
    counts = torch.zeros(len(found))
    for _ in range(1600):
        d = balancer(J)
        counts[min(range(len(found)), key=lambda k: (d - found[k]).norm())] += 1
    distinct = {tuple(round(x, 9) for x in d.tolist()) for d in found}
    assert len(distinct) == 8
    assert (counts - 200).abs().max() < 5 * math.sqrt(1600 / 8 * 7 / 8)


def test_direction_is_the_sum_of_the_printed_example():
    J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    torch.testing.assert_close(mtl.PCGrad()(J), torch.tensor([0.5848, 3.8012, 3.8012]), atol=5e-5, rtol=0)


@pytest.mark.parametrize("T", [2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(5))
def test_direction_agrees_with_torchjd(T, seed):
    J = draw(T, 4, seed)
    torch.manual_seed(seed)
    theirs = TorchJD()(J)
    torch.manual_seed(seed)
    torch.testing.assert_close(mtl.PCGrad()(J), theirs, rtol=1e-11, atol=1e-12)


@given(st.integers(0, 10_000))
def test_two_conflicting_tasks_follow_the_closed_form(seed):
    J = draw(2, 3, seed)
    (a, b), M = J.norm(dim=1), J @ J.T
    c = min(M[0, 1] / (a * b), torch.tensor(0.0))
    _, alpha = mtl.PCGrad(seeded(0)).combine(J)
    expected = torch.stack([1 - c * b / a, 1 - c * a / b])
    torch.testing.assert_close(alpha, expected, rtol=1e-9, atol=0)


@given(st.integers(0, 10_000))
def test_two_tasks_never_conflict_with_the_direction(seed):
    J = draw(2, 3, seed)
    d = mtl.PCGrad()(J)
    assert (J @ d >= -1e-12 * J.norm() * d.norm()).all()


@pytest.mark.parametrize("T", [1, 2, 5])
def test_gradients_that_do_not_conflict_are_summed(T):
    J = draw(T, 4).abs()
    d, alpha = mtl.PCGrad().combine(J)
    torch.testing.assert_close(d, J.sum(0))
    assert alpha.tolist() == [1.0] * T


def test_one_task_keeps_its_gradient():
    J = draw(1, 5)
    torch.testing.assert_close(mtl.PCGrad()(J), J[0])


def test_gradient_is_not_projected_on_itself():
    """With j = i among them, the projected first gradient could lose ⟨g^PC, g⟩ = −1/8 (errata of the blog)."""
    g, up, down = ((math.cos(math.radians(phi)), math.sin(math.radians(phi))) for phi in (0, 150, -150))
    J = torch.tensor([g, up, down], dtype=torch.float64)
    d = mtl.PCGrad(seeded(0))(J)
    with_itself = [
        sum(project(J, i, list(orders[i])) for i in range(3))
        for orders in itertools.product(itertools.permutations(range(3)), repeat=3)
        if all(o[-1] == i for i, o in enumerate(orders))
    ]
    assert min((d - e).norm() for e in all_directions(J)) < 1e-12
    assert min((d - e).norm() for e in with_itself) > 0.1


@given(st.integers(0, 10_000))
def test_order_of_two_tasks_does_not_matter(seed):
    J = draw(2, 3, seed)
    torch.testing.assert_close(mtl.PCGrad()(J), mtl.PCGrad()(J.flip(0)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_direction_is_scale_equivariant(scale, dtype):
    J = draw(5, 4, seed=2, dtype=dtype)
    d, scaled = (mtl.PCGrad(seeded(0))(gradients) for gradients in (J, scale * J))
    torch.testing.assert_close(scaled / scale, d, rtol=1e-4 if dtype == torch.float32 else 1e-9, atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_scaling_one_task_scales_its_own_part_alone(scale):
    J = draw(4, 3, seed=3)
    scales = torch.tensor([1.0, scale, 1.0, 1.0], dtype=torch.float64)
    generator = seeded(4)
    orders = [[j for j in torch.randperm(4, generator=generator).tolist() if j != i] for i in range(4)]
    parts = torch.stack([project(J, i, order) for i, order in enumerate(orders)])
    d = mtl.PCGrad(seeded(4))(scales.unsqueeze(1) * J)
    torch.testing.assert_close(d, scales @ parts, rtol=1e-9, atol=1e-9)


DEGENERATE = {
    "zeros": [[0.0, 0.0], [0.0, 0.0]],
    "one zero": [[0.0, 0.0], [1.0, -2.0], [-1.0, 1.0]],
    "duplicates": [[1.0, 2.0], [1.0, 2.0], [-1.0, 1.0]],
    "opposite": [[1.0, 2.0], [-1.0, -2.0]],
    "opposite, of unequal length": [[1.0, 2.0], [-10.0, -20.0]],
    "colinear": [[1.0, 1.0], [3.0, 3.0], [-2.0, -2.0]],
    "far apart": [[1e12, 1e12], [-1e-12, 0.0]],
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("rows", DEGENERATE.values(), ids=DEGENERATE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_degenerate_gradients_give_a_finite_direction(rows, scale, dtype):
    J = scale * torch.tensor(rows, dtype=dtype)
    d, alpha = mtl.PCGrad().combine(J)
    assert d.isfinite().all()
    assert alpha.isfinite().all()


def test_opposite_gradients_cancel():
    J = torch.tensor([[1.0, 2.0], [-10.0, -20.0]], dtype=torch.float64)
    assert mtl.PCGrad()(J).norm() < 1e-13


def test_a_gradient_of_zero_adds_nothing_and_conflicts_with_nothing():
    J = torch.tensor([[0.0, 0.0], [1.0, -2.0], [-1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(mtl.PCGrad(seeded(0))(J), mtl.PCGrad(seeded(1))(J[1:]))


def test_nan_passes_through_for_the_grad_scaler():
    assert mtl.PCGrad()(torch.tensor([[1.0, math.inf], [1.0, 2.0]])).isnan().all()


def test_half_precision_is_projected_in_double():
    J = draw(3, 4, seed=5)
    d = mtl.PCGrad(seeded(0))(J.half())
    assert d.dtype == torch.float16
    torch.testing.assert_close(d.double(), mtl.PCGrad(seeded(0))(J), rtol=0, atol=0.02)


def test_own_generator_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    mtl.PCGrad(seeded(0))(draw(3, 3))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_set_back_draws_the_same_orders_again():
    J = draw(6, 3, seed=6)
    generator = seeded(0)
    balancer = mtl.PCGrad(generator)
    balancer(J)
    state = generator.get_state()
    following = balancer(J)
    generator.set_state(state)
    assert torch.equal(balancer(J), following)


def network():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).double()
    heads = [nn.Linear(4, 1).double() for _ in range(3)]
    x = draw(8, 3)
    z = encoder(x)
    losses = torch.stack([(head(z) + k - 1).square().mean() for k, head in enumerate(heads)])
    return encoder, heads, z, losses


def flat(gradients) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def test_heads_get_their_own_gradient_and_the_encoder_the_direction():
    encoder, heads, _, losses = network()
    shared = list(encoder.parameters())
    J = torch.stack([flat(torch.autograd.grad(loss, shared, retain_graph=True)) for loss in losses])
    own = [
        torch.autograd.grad(loss, head.parameters(), retain_graph=True)
        for loss, head in zip(losses, heads, strict=True)
    ]
    assert metrics.conflict(J)[0].min() < 0
    before = [torch.full_like(p, 0.5) for p in shared]
    for parameter, old in zip(shared, before, strict=True):
        parameter.grad = old.clone()
    alpha = mtl.PCGrad(seeded(0)).backward(losses, shared=shared)
    torch.testing.assert_close(alpha, mtl.PCGrad(seeded(0)).combine(J)[1])
    torch.testing.assert_close(flat(p.grad for p in shared), mtl.PCGrad(seeded(0))(J) + 0.5)
    for head, gradient in zip(heads, own, strict=True):
        torch.testing.assert_close(flat(p.grad for p in head.parameters()), flat(gradient))


def test_features_are_projected_and_go_through_the_encoder_once():
    encoder, heads, z, losses = network()
    shared = list(encoder.parameters())
    J = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses])
    d = mtl.PCGrad(seeded(0))(J).view_as(z)
    expected = torch.autograd.grad(z, shared, d, retain_graph=True)
    own = [
        torch.autograd.grad(loss, head.parameters(), retain_graph=True)
        for loss, head in zip(losses, heads, strict=True)
    ]
    mtl.PCGrad(seeded(0)).backward(losses, features=z)
    torch.testing.assert_close(flat(p.grad for p in shared), flat(expected))
    for head, gradient in zip(heads, own, strict=True):
        torch.testing.assert_close(flat(p.grad for p in head.parameters()), flat(gradient))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda encoder, z, losses: (losses, {}), "not neither"),
        (lambda encoder, z, losses: (losses, {"shared": encoder.parameters(), "features": z}), "not both"),
        (lambda encoder, z, losses: (losses, {"shared": []}), "nothing to combine"),
        (lambda encoder, z, losses: (losses, {"shared": [torch.zeros(2)]}), "nothing to combine"),
        (lambda encoder, z, losses: (losses, {"features": z.detach()}), "nothing to combine"),
        (lambda encoder, z, losses: (losses.unsqueeze(0), {"features": z}), "one loss per task"),
        (lambda encoder, z, losses: (losses.detach(), {"features": z}), "not on a graph"),
        (lambda encoder, z, losses: (losses * math.inf, {"features": z}), "task 0 .* must be finite"),
    ],
)
def test_bad_input_is_named_and_nothing_is_touched(arguments, message):
    encoder, heads, z, losses = network()
    losses, keywords = arguments(encoder, z, losses)
    generator = seeded(0)
    state = generator.get_state()
    with pytest.raises(ValueError, match=message):
        mtl.PCGrad(generator).backward(losses, **keywords)
    assert all(p.grad is None for module in (encoder, *heads) for p in module.parameters())
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("gradients", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.long)])
def test_gradients_of_a_wrong_shape_or_type_are_named(gradients):
    with pytest.raises(ValueError, match="gradients must be a floating-point tensor"):
        mtl.PCGrad()(gradients)
    with pytest.raises(ValueError, match="gradients must be a floating-point tensor"):
        metrics.conflict(gradients)


# metrics.conflict


@pytest.mark.parametrize("scale", SCALES)
def test_conflict_gives_cosines_and_magnitude_similarities(scale):
    J = scale * torch.tensor([[1.0, 0.0], [-3.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    cosine, similarity = metrics.conflict(J)
    half = math.sqrt(0.5)
    torch.testing.assert_close(cosine, torch.tensor([[1, -1, half], [-1, 1, -half], [half, -half, 1]]).double())
    assert similarity[0, 1].item() == pytest.approx(2 * 1 * 3 / (1 + 9))
    assert similarity[0, 2].item() == pytest.approx(2 * math.sqrt(8) / (1 + 8))
    torch.testing.assert_close(similarity, similarity.T)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(3, dtype=torch.float64))


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_conflict_agrees_with_pytorchs_cosines(seed, T):
    J = draw(T, 3, seed, torch.float32)
    cosine, similarity = metrics.conflict(J)
    torch.testing.assert_close(
        cosine, torch.cosine_similarity(J.double().unsqueeze(0), J.double().unsqueeze(1), dim=2)
    )
    assert ((similarity > 0) & (similarity <= 1 + 1e-12)).all()


def test_a_gradient_of_zero_has_no_direction():
    cosine, similarity = metrics.conflict(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert cosine[0].tolist() == [0.0, 0.0, 0.0]
    assert similarity[0].tolist() == [1.0, 0.0, 1.0]


def test_conflict_keeps_no_graph():
    J = draw(2, 2).requires_grad_()
    assert not metrics.conflict(J)[0].requires_grad


# the landscapes


def points(n: int, seed: int = 0) -> Tensor:
    return 6 * draw(n, 2, seed)


def test_pcgrad_landscape_is_the_printed_one():
    x, y = toy_landscapes.PCGRAD_START
    first = 20 * math.log(max(abs(0.5 * x + math.tanh(y)), 5e-6))
    second = 25 * math.log(max(abs(0.5 * x - math.tanh(y) + 2), 5e-6))
    losses = toy_landscapes.pcgrad_landscape(torch.tensor([x, y], dtype=torch.float64))
    assert losses.tolist() == pytest.approx([first, second])


@pytest.mark.parametrize("point", [(-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0), (0.3, 0.0), (4.0, -0.1)])
def test_cagrad_landscape_is_that_of_the_released_code(point):
    x, y = point
    f_1 = math.log(max(abs(0.5 * (-x - 7) - math.tanh(-y)), 5e-6)) + 6
    f_2 = math.log(max(abs(0.5 * (-x + 3) + math.tanh(-y) + 2), 5e-6)) + 6
    h_1 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    h_2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    c_1, c_2 = max(math.tanh(0.5 * y), 0), max(math.tanh(-0.5 * y), 0)
    losses = toy_landscapes.cagrad_landscape(torch.tensor(point, dtype=torch.float64))
    assert losses.tolist() == pytest.approx([c_1 * f_1 + c_2 * h_1, c_1 * f_2 + c_2 * h_2])


@pytest.mark.parametrize("landscape", [toy_landscapes.pcgrad_landscape, toy_landscapes.cagrad_landscape])
def test_landscapes_take_points_of_any_shape(landscape):
    theta = points(12).view(3, 4, 2)
    assert landscape(theta).shape == (3, 4, 2)
    torch.testing.assert_close(landscape(theta)[1, 2], landscape(theta[1, 2]))


@pytest.mark.parametrize("landscape", [toy_landscapes.pcgrad_landscape, toy_landscapes.cagrad_landscape])
def test_floor_of_the_logarithms_keeps_gradients_finite(landscape):
    valley = torch.tensor([[0.0, 0.0], [-4.0, 0.0], [-7.0, 0.0]], dtype=torch.float64)
    losses, J = toy_landscapes.gradients(landscape, valley)
    assert losses.isfinite().all()
    assert J.isfinite().all()


def test_gradients_agree_with_finite_differences():
    theta = points(5, seed=1)
    losses, J = toy_landscapes.gradients(toy_landscapes.cagrad_landscape, theta)
    torch.testing.assert_close(losses, toy_landscapes.cagrad_landscape(theta))
    for k in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[k]
        up, down = (toy_landscapes.cagrad_landscape(theta + s * step) for s in (1, -1))
        torch.testing.assert_close(J[:, :, k], (up - down) / 2e-6, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [mtl.EqualWeighting, mtl.PCGrad, lambda: mtl.FixedWeighting([1.0, 3.0])])
def test_trajectories_are_those_of_backward_and_adam(make):
    starts = points(3, seed=2)
    together = toy_landscapes.trajectories(toy_landscapes.cagrad_landscape, make(), starts, steps=20, lr=0.1)
    assert together.shape == (3, 21, 2)
    for start, visited in zip(starts, together, strict=True):
        theta = nn.Parameter(start.clone())
        optimizer = torch.optim.Adam([theta], lr=0.1)
        balancer = copy.deepcopy(make())
        for point in visited:
            torch.testing.assert_close(theta.detach(), point, rtol=1e-9, atol=1e-9)
            optimizer.zero_grad()
            balancer.backward(toy_landscapes.cagrad_landscape(theta), shared=[theta])
            optimizer.step()
