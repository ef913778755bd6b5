"""Normalised gradients and GradNorm against double backward, closed forms and properties over samples."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from cases import Net, gradient_matrices, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.gradients import gradient_norms
from mtl_ref.methods.gradnorm import UPDATES
from mtl_ref.problems.toy.gradnorm import GradNormToy

ALPHAS = [0.0, 0.12, 0.5, 1.0, 1.5]


def close(found: Tensor, expected: Tensor, rel: float = 1e-12) -> bool:
    return bool(torch.allclose(found, expected, rtol=rel, atol=0))


# --- The rate term and plain normalisation


def test_plain_normalisation_is_the_sum_of_the_unit_gradient_matrices() -> None:
    J = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    d, weights = mtl.GradientNormalization().combine(J)
    assert close(weights, vector(1 / 5, 1 / 2))
    assert close(d, vector(0.6, -0.2))


def test_rate_term_by_hand() -> None:
    balancer = mtl.GradientNormalization(alpha=2.0)
    J = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    balancer(J, vector(4, 10))  # these are L(0): all rates are 1
    d, weights = balancer.combine(J, vector(1, 7.5))  # ratios 1/4 and 3/4, so r = 1/2 and 3/2
    assert close(weights, vector(0.25 / 5, 2.25 / 2))
    assert close(d, weights @ J)


def test_a_slower_task_has_the_longer_gradient() -> None:
    balancer = mtl.GradientNormalization(alpha=0.5)
    J = torch.eye(2, dtype=torch.float64)
    balancer(J, vector(1, 1))
    d = balancer(J, vector(0.1, 0.9))
    assert d[1] > 1 > d[0]


def test_all_rates_are_one_at_the_first_call() -> None:
    J = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    first = mtl.GradientNormalization(1.5)(J, vector(5, 0.1))
    assert close(first, mtl.GradientNormalization()(J))


@given(gradient_matrices(), st.sampled_from(ALPHAS))
def test_direction_is_finite_and_each_task_has_the_length_of_its_rate(J: Tensor, alpha: float) -> None:
    balancer = mtl.GradientNormalization(alpha)
    losses = torch.linspace(1, 2, len(J), dtype=torch.float64)
    balancer(J, torch.ones_like(losses))
    d, weights = balancer.combine(J, losses)
    assert d.isfinite().all()
    rate = (losses / losses.mean()) ** alpha
    lengths = (weights.unsqueeze(1) * J).norm(dim=1)
    moving = J.norm(dim=1) > 0
    assert close(lengths[moving], rate[moving], 1e-9)
    assert (weights[~moving] == 0).all()


@given(gradient_matrices(), st.floats(-6, 6))
def test_direction_does_not_feel_the_scale_of_a_task(J: Tensor, exponent: float) -> None:
    scaled = J.clone()
    scaled[0] *= 10.0**exponent
    balancer = mtl.GradientNormalization()
    assert torch.allclose(balancer(J), balancer(scaled), rtol=1e-9, atol=1e-9)


def test_one_task_has_a_direction_of_length_one() -> None:
    for alpha in ALPHAS:
        balancer = mtl.GradientNormalization(alpha)
        for loss in (2.0, 1.0):
            assert close(
                balancer(torch.tensor([[3.0, 4.0]]).double(), vector(loss)).norm(), torch.tensor(1.0).double()
            )


def test_tasks_that_are_all_solved_have_no_direction() -> None:
    balancer = mtl.GradientNormalization(1.5)
    J = torch.eye(2, dtype=torch.float64)
    balancer(J, vector(1, 1))
    assert balancer(J, vector(0, 0)).tolist() == [0, 0]


# --- GradNorm against double backward


def paper_slope(losses: Tensor, w: Tensor, initial: Tensor, alpha: float, shared: list[Tensor]) -> Tensor:
    """∇_w L_grad as the paper writes it: differentiated through the norms, with a second backward pass."""
    w = w.clone().requires_grad_()
    G = torch.stack(
        [
            torch.cat([g.flatten() for g in torch.autograd.grad(wi * li, shared, create_graph=True)]).norm()
            for wi, li in zip(w, losses, strict=True)
        ]
    )
    loss_ratio = losses.detach() / initial
    target = (G.mean() * (loss_ratio / loss_ratio.mean()) ** alpha).detach()
    L_grad = (G - target).abs().sum()
    return torch.autograd.grad(L_grad, w)[0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("update", UPDATES)
def test_gradnorm_follows_the_papers_derivative_step_by_step(alpha: float, update: str) -> None:
    model = Net()
    losses, shared = model.losses, list(model.encoder[2].parameters())
    balancer = mtl.GradNorm(3, alpha=alpha, lr=0.1, update=update)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    w, initial = nn.Parameter(torch.ones(3, dtype=torch.float64)), losses().detach()
    own = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "relative": torch.optim.SGD}[update]([w], lr=0.1)
    for _ in range(30):
        w.grad = paper_slope(losses(), w.detach(), initial, alpha, shared)
        optimizer.zero_grad()
        assert close(balancer.backward(losses(), shared=shared), w)
        optimizer.step()
        with torch.no_grad():
            if update == "relative":
                w *= torch.exp(-0.1 * w.grad.sign())
            else:
                own.step()
            w.clamp_(min=1e-6)
            w *= 3 / w.sum()
        assert close(balancer.weights, w, 1e-9)


def test_slope_is_the_papers_derivative() -> None:
    model = Net()
    losses, shared = model.losses, list(model.encoder[2].parameters())
    w, initial = vector(0.5, 1.5, 1.0), vector(1.0, 40.0, 9000.0)
    now = losses()
    norms = gradient_norms(now, shared)
    G, ratio = w * norms, now.detach() / initial
    target = G.mean() * (ratio / ratio.mean()) ** 0.7
    assert close(norms * torch.sign(G - target), paper_slope(now, w, initial, 0.7, shared), 1e-10)


def test_one_step_by_hand() -> None:
    balancer = mtl.GradNorm(2, alpha=1.0, lr=0.5, update="relative")
    balancer.update(vector(3.0, 1.0), vector(2.0, 8.0))  # r = 1: the target is 2 for both
    down, up = math.exp(-0.5), math.exp(0.5)
    assert close(balancer.weights, 2 * vector(down, up) / (down + up))
    balancer = mtl.GradNorm(2, alpha=1.0, lr=0.5, update="relative")
    balancer.rate(vector(2.0, 8.0))
    balancer.update(vector(3.0, 1.0), vector(2.0, 2.0))  # r = 1.6, .4: the targets are 3.2 and .8
    assert close(balancer.weights, 2 * vector(up, down) / (down + up))


def test_the_plain_step_by_hand() -> None:
    balancer = mtl.GradNorm(2, alpha=0.0, lr=0.1, update="sgd")
    balancer.update(vector(3.0, 1.0), vector(1.0, 1.0))
    assert close(balancer.weights, 2 * vector(0.7, 1.1) / 1.8)


@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_a_step_past_zero_ends_on_the_floor(update: str) -> None:
    balancer = mtl.GradNorm(2, alpha=0.0, lr=1.5, update=update)  # Adam's first step is ±lr
    balancer.update(vector(1.0, 2.0), vector(1.0, 1.0))
    assert close(balancer.weights, 2 * vector(2.5, 1e-6) / (2.5 + 1e-6), 1e-7)


def test_the_papers_adam_walks_past_zero_on_norms_1_and_100_and_comes_back() -> None:
    balancer = mtl.GradNorm(2, alpha=0.0)
    path = []
    for _ in range(2000):
        balancer.update(vector(1.0, 100.0), vector(1.0, 1.0))
        path.append(balancer.weights)
    second = torch.stack(path)[:, 1]
    assert 0 < second.min() < 1.1e-6
    assert (second[-500:] * 100 / 2).mean().log().abs() < 1.5  # of the order of its weight at rest, 2/101


@pytest.mark.parametrize("update", UPDATES)
def test_a_resumed_run_of_each_update_goes_on_exactly(update: str) -> None:
    one, two = (mtl.GradNorm(2, lr=0.1, update=update) for _ in range(2))
    for step in range(6):
        if step == 3:
            two.load_state_dict(copy.deepcopy(one.state_dict()))
        for balancer in (one, two)[: 1 + step // 3]:
            balancer.update(vector(1.0, 3.0 + step), vector(1.0, 1.0 / (1 + step)))
    assert torch.equal(one.weights, two.weights)
    assert {name: x.shape for name, x in one.named_buffers()} == {
        name: x.shape for name, x in mtl.GradNorm(2).named_buffers()
    }


def test_at_alpha_zero_gradnorm_settles_on_plain_normalisation() -> None:
    norms = vector(0.01, 1.0, 100.0)
    balancer = mtl.GradNorm(3, alpha=0.0, lr=0.01, update="relative")
    for _ in range(2000):
        balancer.update(norms, vector(1, 1, 1))
    settled = (3 / (1 / norms).sum()) / norms
    assert (balancer.weights / settled).log().abs().max() < 2 * balancer.lr


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_lengths_settle_within_the_band_that_the_targets_leave(alpha: float) -> None:
    balancer = mtl.GradNorm(2, alpha=alpha, lr=0.002, update="relative")
    balancer.rate(vector(1, 1))
    norms, losses = vector(1.0, 30.0), vector(1.5, 0.5)  # r = 1.5, .5
    for _ in range(4000):
        balancer.update(norms, losses)
    G = balancer.weights * norms
    target = G.mean() * losses**alpha
    surplus = (G / target).log()
    assert (surplus < 0.01).all() if alpha > 1 else (surplus > -0.01).all()


# --- Norms


def test_features_measure_the_norms_on_the_representation() -> None:
    z = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True) * 1.0
    losses = torch.stack([3 * z[0], 4 * z[1], (z * z).sum()])
    assert close(gradient_norms(losses, [z]), vector(3, 4, math.sqrt(20)))


def test_norms_of_unused_parameters_and_constant_losses_are_zero() -> None:
    a, b = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses = torch.stack([a.sum(), (3 * b).sum(), torch.tensor(2.0).double()])
    assert close(gradient_norms(losses, [a]), vector(math.sqrt(2), 0, 0))
    assert a.grad is None
    mtl.GradNorm(3).backward(losses, shared=[a])
    assert a.grad.tolist() == [1, 1]


# --- Properties of the weights


@settings(max_examples=50)
@given(gradient_matrices(), st.sampled_from(ALPHAS), st.integers(1, 5), st.sampled_from(UPDATES))
def test_weights_stay_positive_finite_and_sum_to_the_number_of_tasks(
    J: Tensor, alpha: float, steps: int, update: str
) -> None:
    balancer = mtl.GradNorm(len(J), alpha, 5.0, update)
    losses = torch.linspace(2, 0, len(J) + 1, dtype=torch.float64)[:-1]
    for step in range(steps):
        balancer.update(J.norm(dim=1), losses / (step + 1))
        assert (balancer.weights > 0).all()
        assert balancer.weights.sum().item() == pytest.approx(len(J))


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=6), st.integers(-60, 60), st.sampled_from(ALPHAS))
def test_weights_do_not_feel_a_common_scale(exponents: list[float], power: int, alpha: float) -> None:
    norms = 10.0 ** vector(*exponents)
    one, other = (mtl.GradNorm(len(norms), alpha, update="relative") for _ in range(2))
    for step in range(1, 4):
        losses = torch.linspace(1, 2, len(norms), dtype=torch.float64) ** step
        one.update(norms / step, losses)
        other.update(norms / step * 2.0**power, losses * 2.0**power)
    assert one.weights.equal(other.weights)


def test_one_task_keeps_the_weight_one() -> None:
    balancer = mtl.GradNorm(1)
    for loss in (3.0, 1.0, 0.0, 2.0):
        balancer.update(vector(loss), vector(loss + 1))
        assert balancer.weights.tolist() == [1.0]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("update", UPDATES)
def test_duplicate_tasks_keep_one_weight(alpha: float, update: str) -> None:
    balancer = mtl.GradNorm(5, alpha, update=update)
    for _ in range(50):
        balancer.update(vector(0.3, 0.3, 0.3, 0.3, 0.3), vector(0.1, 0.1, 0.1, 0.1, 0.1))
    assert close(balancer.weights, torch.ones(5, dtype=torch.float64))


def test_a_task_at_its_target_moves_only_with_the_common_factor() -> None:
    balancer = mtl.GradNorm(3, alpha=0.0, lr=0.1, update="relative")
    balancer.update(vector(1, 2, 3), vector(1, 1, 1))  # the mean is 2
    w = vector(math.exp(0.1), 1, math.exp(-0.1))
    assert close(balancer.weights, 3 * w / w.sum())


def test_a_task_without_a_gradient_does_not_enter_the_balance() -> None:
    with_zero, without = (mtl.GradNorm(T, 0.0, update="relative") for T in (3, 2))
    for _ in range(20):
        with_zero.update(vector(4, 0, 1), vector(1, 1, 1))
        without.update(vector(4, 1), vector(1, 1))
    assert (with_zero.weights[0] / with_zero.weights[2]).item() == pytest.approx(
        (without.weights[0] / without.weights[1]).item()
    )
    nothing = mtl.GradNorm(2)
    nothing.update(vector(0, 0), vector(0.5, 0.5))
    assert nothing.weights.tolist() == [1, 1]


def test_gradients_that_are_not_finite_pass_through_and_leave_the_weights() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([(x - 1).norm().sqrt(), x.sum()])  # the first has no gradient at x = 1
    balancer = mtl.GradNorm(2, alpha=0.0)
    balancer.backward(losses, shared=[x])
    assert not x.grad.isfinite().all()
    assert balancer.weights.tolist() == [1, 1]


# --- State


def test_representation_names_what_a_checkpoint_must_agree_on() -> None:
    assert "num_tasks=3, lr=0.5, update=sgd" in repr(mtl.GradNorm(3, 0.12, lr=0.5, update="sgd"))
    assert "alpha=0.12" in repr(mtl.GradNorm(3, 0.12))
    assert "alpha=0.5" in repr(mtl.GradientNormalization(0.5))


# --- Bad input


@pytest.mark.parametrize("alpha", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("make", [mtl.GradientNormalization, lambda a: mtl.GradNorm(2, a)])
def test_alpha_must_be_finite_and_not_negative(make: Callable[[float], nn.Module], alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha is .* finite number that is not negative"):
        make(alpha)


def test_other_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="num_tasks is 0"):
        mtl.GradNorm(0)
    for lr in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"lr is .* positive"):
            mtl.GradNorm(2, lr=lr)
    with pytest.raises(ValueError, match=r"update is 'Adam', but must be one of \['adam', 'sgd', 'relative'\]"):
        mtl.GradNorm(2, update="Adam")


def test_losses_may_be_negative_where_no_rate_is_asked_for() -> None:
    W = torch.ones(2, dtype=torch.float64, requires_grad=True)
    mtl.GradNorm(2, alpha=0.0).backward(-W, shared=[W])
    assert W.grad.tolist() == [-1, -1]


# --- The toy problem


def test_training_gives_the_small_task_the_larger_weight() -> None:
    problem = GradNormToy([1.0, 100.0], samples=1000)
    last = lambda model: model.encoder[6].parameters()
    history = mtl.train(problem, mtl.GradNorm(2, 0.12), epochs=2, shared=last, device="cpu")
    small, large = history.weights[-1]
    assert small > 1 > large
