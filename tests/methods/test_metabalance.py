"""MetaBalance: the official loop restated, tensor by tensor, and which task is the main one."""

import pytest
import torch
from cases import Net, draw, jacobian
from torch import Tensor

import mtl_ref as mtl


def restated(gradients: list[list[Tensor]], primary: int, relax: float, beta: float) -> Tensor:
    """The direction of the last step; `gradients` holds, for each step, J in pieces, one for each tensor."""
    averages: dict[tuple[int, int], Tensor] = {}
    for pieces in gradients:
        total = []
        for n, G in enumerate(pieces):
            for i, g in enumerate(G):
                averages[i, n] = beta * averages.get((i, n), torch.zeros(())) + (1 - beta) * g.norm()
            scaled = [relax * averages[primary, n] / averages[i, n] * g + (1 - relax) * g for i, g in enumerate(G)]
            total.append(sum(scaled))
    return torch.cat(total)


@pytest.mark.parametrize("primary", [0, 2])
@pytest.mark.parametrize("relax", [0.0, 0.7, 1.0])
def test_direction_is_that_of_the_official_loop(primary: int, relax: float) -> None:
    net, balancer = Net(), mtl.MetaBalance(3, primary, relax, beta=0.6)
    encoder, seen = list(net.encoder.parameters()), []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(4):
        losses = net.losses()
        J = jacobian(losses, encoder)
        seen.append(list(J.split([p.numel() for p in encoder], dim=1)))
        optimizer.zero_grad()
        assert balancer.backward(losses, shared=encoder) is None
        torch.testing.assert_close(net.grads("encoder"), restated(seen, primary, relax, 0.6))
        optimizer.step()
    assert balancer.norms.shape == (3, 4)


def test_all_the_way_every_gradient_is_as_long_as_the_main_one() -> None:
    J = draw(3, 6)
    expected = J[1].norm() * (J / J.norm(dim=1, keepdim=True)).sum(0)
    torch.testing.assert_close(mtl.MetaBalance(3, primary=1, relax=1.0)(J), expected)
    torch.testing.assert_close(mtl.MetaBalance(3, primary=1, relax=0.0)(J), J.sum(0))


def test_the_main_task_is_the_same_when_others_have_no_labels_and_without_it_nothing_is_scaled() -> None:
    for present, primary in (([0, 1, 1], 1), ([1, 0, 1], None)):
        net, plain = Net(), Net()
        there = [t for t in range(3) if present[t]]
        mtl.MetaBalance(3, primary=1).backward(net.losses(), **net.given("shared"), present=present)
        other = mtl.MetaBalance(2, there.index(1)) if primary else mtl.MetaBalance(2, relax=0.0)
        other.backward(plain.losses()[there], **plain.given("shared"))
        torch.testing.assert_close(net.grads("encoder"), plain.grads("encoder"))


def test_the_average_of_a_task_that_comes_later_starts_at_zero() -> None:
    net, balancer = Net(), mtl.MetaBalance(3, beta=0.5)
    balancer.backward(net.losses(), **net.given("shared"), present=[1, 1, 0])
    balancer.backward(net.losses(), **net.given("shared"))
    first, _, last = jacobian(net.losses(), [net.encoder[0].weight]).norm(dim=1)
    torch.testing.assert_close(balancer.norms[[0, 2], 0], torch.stack([0.75 * first, 0.5 * last]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "num_tasks is 0"),
        ((2, 2), "primary is 2, but there are the tasks 0 to 1"),
        ((2, 0, 1.5), "relax is 1.5, but must be between 0 and 1"),
        ((2, 0, 0.5, 1.0), "beta is 1.0, but must be at least 0 and below 1"),
    ],
)
def test_arguments_that_make_no_sense_are_named(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtl.MetaBalance(*arguments)
