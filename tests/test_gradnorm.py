"""Normalised gradients and GradNorm against double backward, closed forms and properties over samples."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.gradients import gradient_norms
from mtl_ref.problems.toy.gradnorm import GradNormToy

ALPHAS = [0.0, 0.12, 0.5, 1.0, 1.5]


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, expected: Tensor, rel: float = 1e-12) -> bool:
    return bool(torch.allclose(found, expected, rtol=rel, atol=0))


@st.composite
def gradients(draw: st.DrawFn) -> Tensor:
    """J of any rank with rows of norm 1e-12 to 1e12, some of them zero, duplicate or opposite."""
    tasks, size = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    rank = draw(st.integers(1, max(1, min(tasks, size))))
    left = torch.randn(tasks, rank, generator=generator, dtype=torch.float64)
    J = left @ torch.randn(rank, size, generator=generator, dtype=torch.float64)
    J *= 10.0 ** (24 * torch.rand(tasks, 1, generator=generator, dtype=torch.float64) - 12)
    for row in range(1, tasks):
        kind = draw(st.sampled_from(["own", "own", "zero", "duplicate", "opposite"]))
        if kind != "own":
            J[row] = {"zero": 0, "duplicate": 1, "opposite": -1}[kind] * J[0]
    return J


# --- The rate term and plain normalisation


def test_plain_normalisation_is_the_sum_of_the_unit_gradients() -> None:
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


@given(gradients(), st.sampled_from(ALPHAS))
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


@given(gradients(), st.floats(-6, 6))
def test_direction_does_not_feel_the_scale_of_a_task(J: Tensor, exponent: float) -> None:
    scaled = J.clone()
    scaled[0] *= 10.0**exponent
    balancer = mtl.GradientNormalization()
    assert torch.allclose(balancer(J), balancer(scaled), rtol=1e-9, atol=1e-9)


@given(gradients(), st.randoms(use_true_random=False))
def test_normalisation_does_not_depend_on_the_order_of_the_tasks(J: Tensor, random: object) -> None:
    order = torch.randperm(len(J), generator=torch.Generator().manual_seed(random.randrange(2**31)))  # type: ignore[attr-defined]
    losses = torch.linspace(1, 2, len(J), dtype=torch.float64)
    one, other = mtl.GradientNormalization(1.5), mtl.GradientNormalization(1.5)
    one(J, losses.flip(0)), other(J[order], losses.flip(0)[order])
    assert torch.allclose(one(J, losses), other(J[order], losses[order]), rtol=1e-9, atol=1e-9)


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


def two_heads(dtype: torch.dtype = torch.float64, tasks: int = 3) -> tuple[nn.ModuleList, Callable[[], Tensor]]:
    """A trunk, a last shared layer and heads of very different scale, with the losses on one batch."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 3), *(nn.Linear(3, 2) for _ in range(tasks))]).to(dtype)
    x = torch.randn(7, 4, dtype=dtype)
    y = 10.0 ** torch.arange(tasks).to(dtype).view(-1, 1, 1) * torch.randn(tasks, 7, 2, dtype=dtype)

    def losses() -> Tensor:
        model.z = z = model[1](torch.tanh(model[0](x)))
        return torch.stack([(head(z) - target).square().mean() for head, target in zip(model[2:], y, strict=True)])

    return model, losses


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
def test_gradnorm_follows_the_papers_derivative_step_by_step(alpha: float) -> None:
    model, losses = two_heads()
    shared = list(model[1].parameters())
    balancer = mtl.GradNorm(3, alpha=alpha, lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    w, initial = torch.ones(3, dtype=torch.float64), losses().detach()
    for _ in range(30):
        slope = paper_slope(losses(), w, initial, alpha, shared)
        optimizer.zero_grad()
        assert close(balancer.backward(losses(), shared=shared), w)
        optimizer.step()
        w = w * torch.exp(-0.1 * slope.sign())
        w = 3 * w / w.sum()
        assert close(balancer.weights, w)


def test_slope_is_the_papers_derivative() -> None:
    model, losses = two_heads()
    shared = list(model[1].parameters())
    w, initial = vector(0.5, 1.5, 1.0), vector(1.0, 40.0, 9000.0)
    now = losses()
    norms = gradient_norms(now, shared)
    G, ratio = w * norms, now.detach() / initial
    target = G.mean() * (ratio / ratio.mean()) ** 0.7
    assert close(norms * torch.sign(G - target), paper_slope(now, w, initial, 0.7, shared), 1e-10)


def test_one_step_by_hand() -> None:
    balancer = mtl.GradNorm(2, alpha=1.0, lr=0.5)
    balancer.update(vector(3.0, 1.0), vector(2.0, 8.0))  # r = 1: the target is 2 for both
    down, up = math.exp(-0.5), math.exp(0.5)
    assert close(balancer.weights, 2 * vector(down, up) / (down + up))
    balancer = mtl.GradNorm(2, alpha=1.0, lr=0.5)
    balancer.rate(vector(2.0, 8.0))
    balancer.update(vector(3.0, 1.0), vector(2.0, 2.0))  # r = 1.6, .4: the targets are 3.2 and .8
    assert close(balancer.weights, 2 * vector(up, down) / (down + up))


def test_at_alpha_zero_gradnorm_settles_on_plain_normalisation() -> None:
    norms = vector(0.01, 1.0, 100.0)
    balancer = mtl.GradNorm(3, alpha=0.0, lr=0.01)
    for _ in range(2000):
        balancer.update(norms, vector(1, 1, 1))
    settled = (3 / (1 / norms).sum()) / norms
    assert (balancer.weights / settled).log().abs().max() < 2 * balancer.lr


@pytest.mark.parametrize("alpha", [0.5, 1.5])
def test_lengths_settle_within_the_band_that_the_targets_leave(alpha: float) -> None:
    balancer = mtl.GradNorm(2, alpha=alpha, lr=0.002)
    balancer.rate(vector(1, 1))
    norms, losses = vector(1.0, 30.0), vector(1.5, 0.5)  # r = 1.5, .5
    for _ in range(4000):
        balancer.update(norms, losses)
    G = balancer.weights * norms
    target = G.mean() * losses**alpha
    surplus = (G / target).log()
    assert (surplus < 0.01).all() if alpha > 1 else (surplus > -0.01).all()


# --- GradNorm leaves exactly the gradients of Σ w L


@pytest.mark.parametrize("how", ["shared", "features"])
def test_the_model_receives_the_gradients_of_the_weighted_sum_and_nothing_else(how: str) -> None:
    model, losses = two_heads()
    balancer = mtl.GradNorm(3, lr=0.3)
    for _ in range(3):
        w = balancer.weights.clone()
        (w * losses()).sum().backward()
        expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        now = losses()
        given = {"shared": model[1].parameters()} if how == "shared" else {"features": model.z}
        used = balancer.backward(now, **given)
        assert used.equal(w)
        for p, e in zip(model.parameters(), expected, strict=True):
            assert p.grad is not None
            assert p.grad.equal(e)
        model.zero_grad()
    assert not balancer.weights.equal(torch.ones(3, dtype=torch.float64))


def test_features_measure_the_norms_on_the_representation() -> None:
    z = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True) * 1.0
    losses = torch.stack([3 * z[0], 4 * z[1], (z * z).sum()])
    assert close(gradient_norms(losses, [z]), vector(3, 4, math.sqrt(20)))


def test_existing_gradients_are_added_to() -> None:
    model, losses = two_heads()
    mtl.GradNorm(3).backward(losses(), shared=model[1].parameters())
    once = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    mtl.GradNorm(3).backward(losses(), shared=model[1].parameters())
    for p, g in zip(model.parameters(), once, strict=True):
        assert p.grad is not None
        assert close(p.grad, 2 * g)


def test_weights_that_were_returned_do_not_change_later() -> None:
    model, losses = two_heads()
    balancer = mtl.GradNorm(3)
    used = balancer.backward(losses(), shared=model[1].parameters())
    balancer.backward(losses(), shared=model[1].parameters())
    assert used.tolist() == [1, 1, 1]


def test_norms_of_unused_parameters_and_constant_losses_are_zero() -> None:
    a, b = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses = torch.stack([a.sum(), (3 * b).sum(), torch.tensor(2.0).double()])
    assert close(gradient_norms(losses, [a]), vector(math.sqrt(2), 0, 0))
    assert a.grad is None
    mtl.GradNorm(3).backward(losses, shared=[a])
    assert a.grad.tolist() == [1, 1]


def test_float32_models_are_weighed_in_float32() -> None:
    model, losses = two_heads(torch.float32)
    used = mtl.GradNorm(3).backward(losses(), shared=model[1].parameters())
    assert used.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)


# --- Properties of the weights


@settings(max_examples=50)
@given(gradients(), st.sampled_from(ALPHAS), st.integers(1, 5))
def test_weights_stay_positive_finite_and_sum_to_the_number_of_tasks(J: Tensor, alpha: float, steps: int) -> None:
    balancer = mtl.GradNorm(len(J), alpha, lr=5.0)
    losses = torch.linspace(2, 0, len(J) + 1, dtype=torch.float64)[:-1]
    for step in range(steps):
        balancer.update(J.norm(dim=1), losses / (step + 1))
        assert (balancer.weights > 0).all()
        assert balancer.weights.sum().item() == pytest.approx(len(J))


@given(st.lists(st.floats(-12, 12), min_size=1, max_size=6), st.integers(-60, 60), st.sampled_from(ALPHAS))
def test_weights_do_not_feel_a_common_scale(exponents: list[float], power: int, alpha: float) -> None:
    norms = 10.0 ** vector(*exponents)
    one, other = mtl.GradNorm(len(norms), alpha), mtl.GradNorm(len(norms), alpha)
    for step in range(1, 4):
        losses = torch.linspace(1, 2, len(norms), dtype=torch.float64) ** step
        one.update(norms / step, losses)
        other.update(norms / step * 2.0**power, losses * 2.0**power)
    assert one.weights.equal(other.weights)


@given(st.permutations(range(4)), st.sampled_from(ALPHAS))
def test_weights_do_not_depend_on_the_order_of_the_tasks(order: list[int], alpha: float) -> None:
    norms, first, then = vector(1e-3, 2, 7, 100), vector(1, 2, 3, 4), vector(0.1, 1.5, 0.7, 2.2)
    one, other = mtl.GradNorm(4, alpha), mtl.GradNorm(4, alpha)
    for losses in (first, then, then):
        one.update(norms, losses)
        other.update(norms[order], losses[order])
    assert close(one.weights[order], other.weights)


def test_one_task_keeps_the_weight_one() -> None:
    balancer = mtl.GradNorm(1)
    for loss in (3.0, 1.0, 0.0, 2.0):
        balancer.update(vector(loss), vector(loss + 1))
        assert balancer.weights.tolist() == [1.0]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_duplicate_tasks_keep_one_weight(alpha: float) -> None:
    balancer = mtl.GradNorm(5, alpha)
    for _ in range(50):
        balancer.update(vector(0.3, 0.3, 0.3, 0.3, 0.3), vector(0.1, 0.1, 0.1, 0.1, 0.1))
    assert close(balancer.weights, torch.ones(5, dtype=torch.float64))


def test_a_task_at_its_target_moves_only_with_the_common_factor() -> None:
    balancer = mtl.GradNorm(3, alpha=0.0, lr=0.1)
    balancer.update(vector(1, 2, 3), vector(1, 1, 1))  # the mean is 2
    w = vector(math.exp(0.1), 1, math.exp(-0.1))
    assert close(balancer.weights, 3 * w / w.sum())


def test_a_task_without_a_gradient_does_not_enter_the_balance() -> None:
    with_zero, without = mtl.GradNorm(3, 0.0), mtl.GradNorm(2, 0.0)
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


@pytest.mark.parametrize("make", [lambda: mtl.GradNorm(3, 1.5, lr=0.2), lambda: mtl.GradientNormalization(1.5)])
def test_state_dict_resumes_exactly(make: Callable[[], nn.Module]) -> None:
    model, losses = two_heads()
    balancer = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step(b: nn.Module) -> Tensor:
        optimizer.zero_grad()
        weights = b.backward(losses(), shared=list(model[1].parameters()))
        optimizer.step()
        return weights

    for _ in range(3):
        step(balancer)
    state, network = copy.deepcopy(balancer.state_dict()), copy.deepcopy(model.state_dict())
    expected = [step(balancer) for _ in range(3)]
    model.load_state_dict(network)
    resumed = make()
    resumed.load_state_dict(state)
    assert all(step(resumed).equal(e) for e in expected)


def test_initial_losses_are_those_of_the_first_call_and_a_copy() -> None:
    balancer = mtl.GradNorm(2)
    losses = vector(2, 4)
    balancer.update(vector(1, 1), losses)
    losses.mul_(10)
    balancer.update(vector(1, 1), losses)
    assert balancer.rate.initial.tolist() == [2, 4]


def test_representation_names_what_a_checkpoint_must_agree_on() -> None:
    assert "num_tasks=3, lr=0.5" in repr(mtl.GradNorm(3, 0.12, lr=0.5))
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


def bad_calls() -> dict[str, tuple[Callable[[Tensor, nn.Linear], object], str]]:
    gradnorm, normalise = mtl.GradNorm(2), mtl.GradientNormalization(0.5)
    return {
        "T": (lambda L, W: mtl.GradNorm(3).backward(L, shared=W.parameters()), "built for 3 tasks"),
        "shape": (lambda L, W: gradnorm.backward(L.sum(), shared=W.parameters()), r"shape \(T,\)"),
        "off the graph": (lambda L, W: gradnorm.backward(L.detach(), shared=W.parameters()), "not on a graph"),
        "nan": (lambda L, W: gradnorm.backward(L * vector(1, math.nan), shared=W.parameters()), "loss of task 1"),
        "L(0) = 0": (
            lambda L, W: gradnorm.backward(L * vector(0, 1), shared=W.parameters()),
            "task 0 .* positive",
        ),
        "L(0) < 0": (
            lambda L, W: normalise.backward(L * vector(1, -1), shared=W.parameters()),
            "task 1 .* positive",
        ),
        "both": (lambda L, W: gradnorm.backward(L, shared=W.parameters(), features=L), "not both"),
        "neither": (lambda L, W: gradnorm.backward(L), "not neither"),
        "frozen": (lambda L, W: gradnorm.backward(L, shared=[torch.ones(2)]), "no tensor in shared"),
        "used up": (lambda L, W: gradnorm.backward(L, shared=iter([])), "already used up"),
        "detached": (lambda L, W: gradnorm.backward(L, features=L.detach()), "no tensor in features"),
        "no losses": (lambda L, W: normalise(torch.eye(2, dtype=torch.float64)), "give the losses"),
    }


@pytest.mark.parametrize("name", bad_calls())
def test_bad_input_is_named_and_nothing_is_touched(name: str) -> None:
    call, message = bad_calls()[name]
    torch.manual_seed(0)
    W = nn.Linear(2, 2).double()
    losses = W(vector(1, 2)).square()
    with pytest.raises(ValueError, match=message):
        call(losses, W)
    assert all(p.grad is None for p in W.parameters())


@pytest.mark.parametrize("make", [lambda: mtl.GradNorm(2), lambda: mtl.GradientNormalization(1.5)])
def test_a_refused_call_leaves_the_state(make: Callable[[], nn.Module]) -> None:
    W = torch.ones(2, dtype=torch.float64, requires_grad=True)
    balancer = make()
    balancer.backward(W.square(), shared=[W])
    before = copy.deepcopy(balancer.state_dict())
    with pytest.raises(ValueError, match=r"task 1 .* must not be negative"):
        balancer.backward(W * vector(1, -1), shared=[W])
    assert all(balancer.state_dict()[key].equal(value) for key, value in before.items())


def test_losses_may_be_negative_where_no_rate_is_asked_for() -> None:
    W = torch.ones(2, dtype=torch.float64, requires_grad=True)
    mtl.GradNorm(2, alpha=0.0).backward(-W, shared=[W])
    assert W.grad.tolist() == [-1, -1]


# --- The toy problem


def test_the_toy_is_the_papers_and_starts_at_one_per_task() -> None:
    problem = GradNormToy([1.0, 100.0], samples=200)
    assert repr(problem) == "GradNormToy([1.0, 100.0], seed=0, samples=200)"
    assert problem.y["train"].shape == (2, 200, 100)
    scale = problem.y["train"].square().mean((1, 2)).sqrt()
    assert scale.tolist() == pytest.approx([1, 100], rel=0.05)  # tanh of a spread of 50 is ±1
    model = problem.model()
    assert sum(p.numel() for p in model.encoder.parameters()) == 251 * 100 + 3 * 101 * 100
    assert problem.evaluate(model, "test")["normalised loss"] == pytest.approx(2, rel=0.1)
    shared = problem.y["test"][0] * problem.y["test"][1] / 100
    assert shared.mean() > 0.5  # the tasks agree on most signs, since B varies more than ε
    with pytest.raises(ValueError, match="one positive number per task"):
        GradNormToy([1.0, 0.0])


def test_training_gives_the_small_task_the_larger_weight() -> None:
    problem = GradNormToy([1.0, 100.0], samples=1000)
    last = lambda model: model.encoder[6].parameters()
    history = mtl.train(problem, mtl.GradNorm(2, 0.12), epochs=2, shared=last, device="cpu")
    small, large = history.weights[-1]
    assert small > 1 > large
