"""Normalised gradients and GradNorm against double backward, steps by hand and properties over samples."""

import math

import pytest
import torch
from cases import Net, gradient_matrices, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.methods.gradnorm import UPDATES

ALPHAS = [0.0, 0.12, 0.5, 1.0, 1.5]


def close(found: Tensor, expected: Tensor, rel: float = 1e-12) -> bool:
    return bool(torch.allclose(found, expected, rtol=rel, atol=0))


# --- Normalised gradients


def test_weights_by_hand() -> None:
    J = torch.tensor([[3.0, 4.0], [0.0, -2.0]], dtype=torch.float64)
    assert close(mtl.GradientNormalization().combine(J)[1], vector(1 / 5, 1 / 2))
    balancer = mtl.GradientNormalization(alpha=2.0)
    for losses, rates in [
        ((4, 10), (1, 1)),  # these are L(0)
        ((1, 7.5), (1 / 2, 3 / 2)),  # ratios 1/4 and 3/4
        ((0, 0), (0, 0)),  # all are solved
    ]:
        assert close(balancer.combine(J, vector(*losses))[1], vector(*rates) ** 2 * vector(1 / 5, 1 / 2))


@given(gradient_matrices(), st.sampled_from(ALPHAS))
def test_each_task_has_the_length_of_its_rate_and_one_without_a_gradient_the_weight_zero(J, alpha) -> None:
    balancer = mtl.GradientNormalization(alpha)
    losses = torch.linspace(1, 2, len(J), dtype=torch.float64)
    balancer(J, torch.ones_like(losses))
    _, weights = balancer.combine(J, losses)
    moving = J.norm(dim=1) > 0
    assert close((weights * J.norm(dim=1))[moving], ((losses / losses.mean()) ** alpha)[moving], 1e-9)
    assert (weights[~moving] == 0).all()


# --- GradNorm


def paper_slope(losses: Tensor, w: Tensor, initial: Tensor, alpha: float, shared: list[Tensor]) -> Tensor:
    """∇_w L_grad as the paper writes it: differentiated through the norms, with a second backward pass."""
    w = w.clone().requires_grad_()
    rows = [torch.autograd.grad(wi * li, shared, create_graph=True) for wi, li in zip(w, losses, strict=True)]
    G = torch.stack([torch.cat([g.flatten() for g in row]).norm() for row in rows])
    loss_ratio = losses.detach() / initial
    target = (G.mean() * (loss_ratio / loss_ratio.mean()) ** alpha).detach()
    return torch.autograd.grad((G - target).abs().sum(), w)[0]


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


@pytest.mark.parametrize(
    ("update", "lr", "norms", "ratios", "step"),
    [
        ("relative", 0.5, (3, 1), (1, 1), (math.exp(-0.5), math.exp(0.5))),  # the target is 2 for both
        ("relative", 0.5, (3, 1), (1, 0.25), (math.exp(0.5), math.exp(-0.5))),  # r = 1.6, .4: targets 3.2 and .8
        ("relative", 0.1, (1, 2, 3), (1, 1, 1), (math.exp(0.1), 1, math.exp(-0.1))),  # one is at its target
        ("relative", 0.1, (4, 0, 2), (1, 1, 1), (math.exp(-0.1), 1, math.exp(0.1))),  # one has no gradient
        ("adam", 0.1, (0, 0), (1, 1), (1, 1)),
        ("sgd", 0.1, (3, 1), (1, 1), (0.7, 1.1)),
        ("sgd", 1.5, (1, 2), (1, 1), (2.5, 1e-6)),  # past zero, to the floor
        ("adam", 1.5, (1, 2), (1, 1), (2.5, 1e-6)),  # its first step is ±lr
    ],
)
def test_one_step_by_hand(update, lr, norms, ratios, step) -> None:
    balancer = mtl.GradNorm(len(norms), alpha=1.0, lr=lr, update=update)
    balancer.rate(torch.ones(len(norms)))  # L(0)
    balancer.update(vector(*norms), vector(*ratios))
    assert close(balancer.weights, len(step) * vector(*step) / sum(step), 1e-7)


@settings(max_examples=50)
@given(gradient_matrices(), st.sampled_from(ALPHAS), st.integers(1, 5), st.sampled_from(UPDATES))
def test_weights_stay_positive_and_sum_to_the_number_of_tasks(J, alpha, steps, update) -> None:
    balancer = mtl.GradNorm(len(J), alpha, 5.0, update)
    losses = torch.linspace(2, 0, len(J) + 1, dtype=torch.float64)[:-1]
    for step in range(steps):
        balancer.update(J.norm(dim=1), losses / (step + 1))
        assert (balancer.weights > 0).all()
        assert balancer.weights.sum().item() == pytest.approx(len(J))


def test_a_norm_that_is_not_finite_passes_through_and_leaves_the_weights() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    losses = torch.stack([(x - 1).norm().sqrt(), x.sum()])  # the first has no gradient at x = 1
    balancer = mtl.GradNorm(2, alpha=0.0)
    balancer.backward(losses, shared=[x])
    assert not x.grad.isfinite().all()
    assert balancer.weights.tolist() == [1, 1]
