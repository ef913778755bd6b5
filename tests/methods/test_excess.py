"""ExcessMTL against TorchJD's weights, its recurrence by hand, and a task whose loss is noise."""

import pytest
import torch
from cases import Net, draw, vector
from torchjd.aggregation import ExcessMTLWeighting

import mtl_ref as mtl


def test_weights_are_those_of_the_formula() -> None:
    balancer, squares, w, first = mtl.ExcessMTL(3, rate=0.5), 0, torch.ones(3).double() / 3, None
    for seed in range(5):
        J = draw(3, 6, seed) / (1 + seed * vector(0.1, 0.5, 1))[:, None]
        squares = squares + J**2
        excess = (J**2 / squares.sqrt()).sum(1)
        if first is None:
            first = excess
        else:
            w = w * (0.5 * excess / first).exp()
            w = w / w.sum()
        d, weights = balancer.combine(J)
        torch.testing.assert_close(weights, w)
        torch.testing.assert_close(d, w @ J)
    assert (w - 1 / 3).abs().max() > 0.1


def test_weights_change_as_torchjds_from_the_second_step_on() -> None:
    """TorchJD's start: in the first step it multiplies by e^{ηE}, undivided, and adds 1e-7 here and there."""
    ours, theirs = mtl.ExcessMTL(3), ExcessMTLWeighting()
    ratios = []
    for seed in range(4):
        J = draw(3, 50, seed) / (1 + seed)
        _, weights = ours.combine(J)
        ratios.append(theirs(J).double() / weights)
    for ratio in ratios[1:]:
        torch.testing.assert_close(ratio / ratio.sum(), ratios[0] / ratios[0].sum(), rtol=1e-4, atol=0)


def test_a_task_that_has_reached_its_least_loss_counts_less_whatever_that_loss_is() -> None:
    balancer = mtl.ExcessMTL(2)
    for k in range(20):
        _, weights = balancer.combine(torch.tensor([[1.0, 2.0], [30.0, 40.0]]) * vector(1, 0.5**k)[:, None])
    assert weights[0] > 0.9


def test_noise_of_the_gradients_counts_as_excess() -> None:
    """With white noise E falls from E|g| = √(2/π) σ as about σ/√k, which is 1.25 times more than its start."""
    generator, balancer = torch.Generator().manual_seed(0), mtl.ExcessMTL(2, rate=0.1)
    for _ in range(100):
        noise = torch.randn(20_000, generator=generator)
        balancer(torch.stack([torch.ones(20_000), noise]))
    excess = (torch.ones(100).cumsum(0)[1:] ** -0.5).sum() * 0.1
    expected = (((torch.pi / 2) ** 0.5 - 1) * excess).exp()
    assert (balancer.weights[1] / balancer.weights[0]).item() == pytest.approx(expected.item(), rel=0.06)


def test_a_gradient_of_zero_gives_no_reference() -> None:
    J = draw(2, 4)
    balancer = mtl.ExcessMTL(2)
    balancer(torch.zeros(2, 4).double())
    assert balancer.initial.tolist() == [0, 0]
    _, weights = balancer.combine(J)
    assert weights.tolist() == [0.5, 0.5]
    assert (balancer.initial > 0).all()


def test_a_task_keeps_its_weight_in_the_step_that_gives_its_reference() -> None:
    balancer, first, later = mtl.ExcessMTL(2), draw(2, 4), draw(2, 4, 1)
    first[1] = 0
    balancer(first)
    _, weights = balancer.combine(later)
    excess = (later[0] ** 2 / torch.hypot(first[0], later[0])).sum() / first[0].abs().sum()
    torch.testing.assert_close(weights, torch.stack([excess, torch.zeros(()).double()]).softmax(0))


def test_a_weight_that_has_vanished_comes_back() -> None:
    balancer = mtl.ExcessMTL(2)
    for scales in ((1.0, 1.0), (1e4, 1.0), (1.0, 1e6)):
        _, weights = balancer.combine(vector(*scales)[:, None] * torch.eye(2).double())
        if scales == (1e4, 1.0):
            assert weights.tolist() == [1, 0]
    assert weights.tolist() == [0, 1]


def test_tasks_that_are_there_keep_what_they_have_together() -> None:
    net, balancer = Net(), mtl.ExcessMTL(3)
    for present in ([1, 1, 1], [1, 1, 1], [1, 0, 1]):
        before = balancer.weights.clone()
        weights = balancer.backward(net.losses(), **net.given("shared"), present=present)
        assert weights.sum() == pytest.approx(1)
        assert balancer.weights.sum() == pytest.approx(1)
    assert balancer.weights[1] == before[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "num_tasks is 0"), ((2, 0.0), "rate is 0.0, but must be a finite positive number")],
)
def test_arguments_that_make_no_sense_are_named(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtl.ExcessMTL(*arguments)
