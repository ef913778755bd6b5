"""MoCo: MGDA's answer where gradients do not change, its recurrence restated, and the shares of absent tasks."""

import pytest
import torch
from cases import Net, draw, vector
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.solvers.simplex import project


@pytest.mark.parametrize("beta", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_with_gradients_that_stay_it_goes_to_the_shortest_weighted_mean(beta: float, seed: int) -> None:
    J = draw(4, 6, seed)
    balancer = mtl.MoCo(4, beta=beta, gamma=0.05)
    for _ in range(2000):
        d = balancer(J)
    torch.testing.assert_close(d, mtl.MGDA()(J), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(balancer.kept, J)


def test_direction_and_state_are_those_of_the_recurrence() -> None:
    balancer, y, lam = mtl.MoCo(3, beta=0.3, gamma=0.2), torch.zeros(3, 5).double(), torch.ones(3).double() / 3
    for seed in range(4):
        J = draw(3, 5, seed)
        y = 0.7 * y + 0.3 * J
        lam = project(lam - 0.2 * (y @ (y.T @ lam)))
        torch.testing.assert_close(balancer(J), y.T @ lam)
        torch.testing.assert_close(balancer.weights, lam)
    assert (lam - 1 / 3).abs().max() > 0.02


def test_the_tracked_gradients_are_less_noisy_by_the_factor_of_an_average() -> None:
    """Of white noise of variance 1, y has β/(2 − β) in the long run."""
    balancer, beta = mtl.MoCo(2, beta=0.1), 0.1
    for seed in range(200):
        balancer(draw(2, 20_000, seed, dtype=torch.float32))
    assert balancer.kept.var().item() == pytest.approx(beta / (2 - beta), rel=0.03)


def test_tasks_that_are_there_keep_what_they_have_together() -> None:
    net, balancer = Net(), mtl.MoCo(3, gamma=0.003)

    def step(present: list[int]) -> Tensor:
        balancer.backward(net.losses(), **net.given("shared"), present=present)
        assert balancer.weights.sum() == pytest.approx(1, abs=1e-12)
        return balancer.weights.clone()

    first, second = step([1, 1, 1]), step([1, 0, 1])
    assert second[1] == first[1] > 0
    assert second[0] != first[0]


def test_without_a_share_the_tasks_that_are_there_start_equal() -> None:
    net, balancer = Net(), mtl.MoCo(3, gamma=1e-9)
    balancer.weights = vector(0, 1, 0)
    balancer.backward(net.losses(), **net.given("shared"), present=[1, 0, 1])
    expected = balancer.kept[[0, 2]].mean(0)
    torch.testing.assert_close(net.grads("encoder"), expected, rtol=1e-6, atol=1e-9)
    assert balancer.weights.tolist() == [0, 1, 0]


def test_other_parameters_are_refused_before_anything_is_touched() -> None:
    net, balancer = Net(), mtl.MoCo(3)
    balancer.backward(net.losses(), **net.given("shared"))
    net.zero_grad()
    with pytest.raises(ValueError, match="MoCo remembers gradients of 43 entries, but these have 25"):
        balancer.backward(net.losses(), shared=net.encoder[0].parameters())
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 0}, "num_tasks is 0"),
        ({"num_tasks": 2, "beta": 0.0}, "beta is 0.0, but must be above 0 and at most 1"),
        ({"num_tasks": 2, "beta": 1.5}, "beta is 1.5"),
        ({"num_tasks": 2, "gamma": 0.0}, "gamma is 0.0, but must be a finite positive number"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtl.MoCo(**arguments)
