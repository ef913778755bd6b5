"""FixedWeighting and EqualWeighting, held to hand formulas through the public API."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import mtl_ref as mtl

DOUBLE = torch.float64

losses_and_weights = st.integers(1, 8).flatmap(
    lambda tasks: st.tuples(
        st.lists(st.floats(-1e12, 1e12), min_size=tasks, max_size=tasks),
        st.lists(st.floats(0, 1e6), min_size=tasks, max_size=tasks),
    )
)


def vector(values: Sequence[float], grad: bool = True) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE, requires_grad=grad)


class TwoHeads(nn.Module):
    """One shared matrix, two heads, squared losses: small enough for gradients by hand."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        randn = lambda *shape: torch.randn(*shape, generator=generator, dtype=DOUBLE)
        self.x, self.y = randn(7, 3), randn(2, 7)
        self.shared = nn.Parameter(randn(3, 4))
        self.heads = nn.ParameterList([nn.Parameter(randn(4)) for _ in range(2)])

    def losses(self) -> Tensor:
        z = self.x @ self.shared
        return torch.stack([(z @ h - y).square().mean() for h, y in zip(self.heads, self.y, strict=True)])

    def gradients_by_hand(self) -> tuple[list[Tensor], list[Tensor]]:
        """For each task, the gradient of its loss on the shared matrix and on its own head, without autograd."""
        z = (self.x @ self.shared).detach()
        residuals = [2 * (z @ h.detach() - y) / 7 for h, y in zip(self.heads, self.y, strict=True)]
        shared = [self.x.T @ torch.outer(r, h.detach()) for r, h in zip(residuals, self.heads, strict=True)]
        return shared, [z.T @ r for r in residuals]


BALANCERS: list[tuple[Callable[[], mtl.LossBalancer], list[float]]] = [
    (mtl.EqualWeighting, [0.5, 0.5]),
    (lambda: mtl.FixedWeighting(vector([0.3, 20.0], grad=False)), [0.3, 20.0]),
    (lambda: mtl.FixedWeighting([0.0, 2.0]), [0.0, 2.0]),
]
on_two_tasks = pytest.mark.parametrize(("make", "weights"), BALANCERS, ids=["equal", "fixed", "zero"])


def test_fixed_weighting_gives_the_weighted_sum() -> None:
    assert mtl.FixedWeighting([0.5, 2.0, 1.0])(vector([4.0, 3.0, -1.0])).item() == 7.0


def test_equal_weighting_gives_the_mean_and_not_the_sum() -> None:
    assert mtl.EqualWeighting()(vector([4.0, 3.0, -1.0])).item() == 2.0


def test_the_scalar_has_no_axes() -> None:
    losses = vector([1.0, 2.0])
    assert mtl.EqualWeighting()(losses).shape == mtl.FixedWeighting([1.0, 1.0])(losses).shape == ()


@given(losses_and_weights)
def test_fixed_weighting_agrees_with_an_exact_sum(drawn: tuple[list[float], list[float]]) -> None:
    losses, weights = drawn
    terms = [w * x for w, x in zip(weights, losses, strict=True)]
    found = mtl.FixedWeighting(vector(weights, grad=False))(vector(losses)).item()
    assert found == pytest.approx(math.fsum(terms), rel=1e-12, abs=1e-13 * math.fsum(map(abs, terms)))


@given(losses_and_weights)
def test_backward_of_fixed_weighting_returns_its_weights(drawn: tuple[list[float], list[float]]) -> None:
    losses, weights = drawn
    leaf = vector(losses)
    used = mtl.FixedWeighting(vector(weights, grad=False)).backward(leaf)
    assert used is not None
    assert leaf.grad is not None
    assert used.tolist() == weights
    assert leaf.grad.tolist() == weights


@given(losses_and_weights)
def test_equal_weighting_is_fixed_weighting_with_one_over_t(drawn: tuple[list[float], list[float]]) -> None:
    losses, _ = drawn
    tasks = len(losses)
    leaf = vector(losses)
    used = mtl.EqualWeighting().backward(leaf)
    assert used is not None
    assert used.tolist() == pytest.approx([1 / tasks] * tasks, rel=1e-15)
    fixed = mtl.FixedWeighting(torch.full((tasks,), 1 / tasks, dtype=DOUBLE))
    size = sum(map(abs, losses))
    assert mtl.EqualWeighting()(leaf).item() == pytest.approx(fixed(leaf).item(), rel=1e-12, abs=1e-13 * size)


@given(losses_and_weights, st.randoms(use_true_random=False))
def test_the_order_of_the_tasks_does_not_matter(drawn: tuple[list[float], list[float]], random: object) -> None:
    losses, weights = drawn
    order = list(range(len(losses)))
    random.shuffle(order)  # type: ignore[attr-defined]
    there = mtl.FixedWeighting(vector(weights, grad=False))(vector(losses)).item()
    back = mtl.FixedWeighting(vector([weights[k] for k in order], grad=False))(vector([losses[k] for k in order]))
    size = sum(abs(w * x) for w, x in zip(weights, losses, strict=True))
    assert back.item() == pytest.approx(there, rel=1e-12, abs=1e-13 * size)


@on_two_tasks
def test_shared_parameters_get_the_weighted_sum_of_gradients(
    make: Callable[[], mtl.LossBalancer], weights: list[float]
) -> None:
    model = TwoHeads()
    shared, _ = model.gradients_by_hand()
    make().backward(model.losses(), shared=[model.shared])
    torch.testing.assert_close(model.shared.grad, weights[0] * shared[0] + weights[1] * shared[1])


@on_two_tasks
def test_a_head_gets_its_weight_times_its_own_gradient(
    make: Callable[[], mtl.LossBalancer], weights: list[float]
) -> None:
    model = TwoHeads()
    _, heads = model.gradients_by_hand()
    make().backward(model.losses())
    for t in range(2):
        torch.testing.assert_close(model.heads[t].grad, weights[t] * heads[t])


@on_two_tasks
def test_gradients_already_there_are_added_to(make: Callable[[], mtl.LossBalancer], weights: list[float]) -> None:
    once, twice = TwoHeads(), TwoHeads()
    make().backward(once.losses())
    balancer = make()
    balancer.backward(twice.losses())
    balancer.backward(twice.losses())
    for one, two in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(two.grad, 2 * one.grad)


@on_two_tasks
def test_shared_and_features_are_accepted_and_change_nothing(
    make: Callable[[], mtl.LossBalancer], weights: list[float]
) -> None:
    plain, told = TwoHeads(), TwoHeads()
    make().backward(plain.losses())
    used = make().backward(told.losses(), shared=told.parameters(), features=told.x)
    assert used is not None
    torch.testing.assert_close(used, vector(weights, grad=False))
    for one, other in zip(plain.parameters(), told.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_returned_weights_are_off_the_graph() -> None:
    for balancer in (mtl.EqualWeighting(), mtl.FixedWeighting([1.0, 2.0])):
        used = balancer.backward(vector([1.0, 2.0]))
        assert used is not None
        assert not used.requires_grad


def test_the_plain_sum_steps_t_times_as_far_as_the_mean() -> None:
    mean, plain = TwoHeads(), TwoHeads()
    mtl.EqualWeighting().backward(mean.losses())
    mtl.FixedWeighting([1.0, 1.0]).backward(plain.losses())
    for one, other in zip(mean.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(other.grad, 2 * one.grad)


def test_a_single_task_is_left_as_it_is() -> None:
    for balancer in (mtl.EqualWeighting(), mtl.FixedWeighting([1.0])):
        loss = vector([3.5])
        assert balancer(loss).item() == 3.5
        used = balancer.backward(loss)
        assert used is not None
        assert used.tolist() == [1.0]


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scaled_losses_give_scaled_gradients(scale: float) -> None:
    for make, _ in BALANCERS:
        model, scaled = TwoHeads(), TwoHeads()
        make().backward(model.losses())
        make().backward(scale * scaled.losses())
        for one, other in zip(model.parameters(), scaled.parameters(), strict=True):
            torch.testing.assert_close(other.grad, scale * one.grad, rtol=1e-12, atol=0.0)


def test_equal_losses_count_once_each() -> None:
    loss = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    mtl.FixedWeighting([1.0, 3.0]).backward(torch.stack([loss, loss]))
    assert loss.grad is not None
    assert loss.grad.item() == 4.0


def test_losses_of_zero_are_no_error() -> None:
    leaf = vector([0.0, 0.0])
    assert mtl.EqualWeighting()(leaf).item() == 0.0
    mtl.FixedWeighting([2.0, 5.0]).backward(leaf)
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [2.0, 5.0]


def test_opposite_gradients_cancel_under_equal_weights() -> None:
    theta = torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)
    mtl.EqualWeighting().backward(torch.stack([3 * theta, -3 * theta]))
    assert theta.grad is not None
    assert theta.grad.item() == 0.0


def test_weights_are_kept_as_they_are_and_not_normalised() -> None:
    assert mtl.FixedWeighting([0.5, 50.0]).weights.tolist() == [0.5, 50.0]


def test_whole_numbers_are_accepted_as_weights() -> None:
    assert mtl.FixedWeighting([1, 2])(vector([1.0, 1.0])).item() == 3.0


def test_later_changes_to_the_given_tensor_do_not_reach_the_weights() -> None:
    given_weights = torch.tensor([1.0, 2.0])
    balancer = mtl.FixedWeighting(given_weights)
    given_weights.zero_()
    assert balancer.weights.tolist() == [1.0, 2.0]


def test_weights_are_state_and_are_not_learned() -> None:
    balancer = mtl.FixedWeighting([1.0, 2.0])
    assert list(balancer.parameters()) == []
    assert list(balancer.state_dict()) == ["weights"]
    assert list(mtl.EqualWeighting().state_dict()) == []


def test_state_dict_restores_the_weights() -> None:
    saved = mtl.FixedWeighting([1.0, 2.0]).state_dict()
    fresh = mtl.FixedWeighting([7.0, 7.0])
    fresh.load_state_dict(saved)
    assert fresh.weights.tolist() == [1.0, 2.0]
    assert fresh(vector([1.0, 1.0])).item() == 3.0


BAD_LOSSES: list[tuple[str, Callable[[Tensor], Tensor], str]] = [
    ("a scalar", lambda x: x.sum(), r"shape \(T,\).*but has shape \(\)"),
    ("a matrix", lambda x: x.unsqueeze(0), r"shape \(T,\).*but has shape \(1, 2\)"),
    ("empty", lambda x: x[:0], r"shape \(T,\).*but has shape \(0,\)"),
    ("whole numbers", lambda x: x.detach().long(), r"floating-point.*torch\.int64|not on a graph"),
    ("detached", lambda x: x.detach(), r"not on a graph.*detached"),
    ("nan", lambda x: x * vector([1.0, math.nan], grad=False), r"task 1 \(counting from 0\) is nan.*finite"),
    ("inf", lambda x: x * vector([math.inf, 1.0], grad=False), r"task 0 \(counting from 0\) is inf.*finite"),
    ("minus inf", lambda x: x * vector([-math.inf, 1.0], grad=False), r"task 0 .* is -inf.*finite"),
]


@pytest.mark.parametrize(("spoil", "message"), [b[1:] for b in BAD_LOSSES], ids=[b[0] for b in BAD_LOSSES])
@on_two_tasks
def test_bad_losses_are_named_and_nothing_is_touched(
    make: Callable[[], mtl.LossBalancer],
    weights: list[float],
    spoil: Callable[[Tensor], Tensor],
    message: str,
) -> None:
    model, balancer = TwoHeads(), make()
    before = {name: value.clone() for name, value in balancer.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        balancer.backward(spoil(model.losses()))
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in balancer.state_dict().items())


@pytest.mark.parametrize("make", [mtl.EqualWeighting, lambda: mtl.FixedWeighting([1.0, 1.0])])
def test_forward_names_whole_number_losses(make: Callable[[], mtl.LossBalancer]) -> None:
    with pytest.raises(ValueError, match=r"floating-point.*torch\.int64"):
        make()(torch.tensor([1, 2]))


def test_the_wrong_number_of_losses_is_named_and_nothing_is_touched() -> None:
    model = TwoHeads()
    with pytest.raises(ValueError, match="built for 3 tasks but was given 2 losses"):
        mtl.FixedWeighting([1.0, 1.0, 1.0]).backward(model.losses())
    assert all(p.grad is None for p in model.parameters())


BAD_WEIGHTS: list[tuple[list[float] | list[list[float]], str]] = [
    ([1.0, -0.5], r"weight of task 1 \(counting from 0\) is -0\.5.*not negative"),
    ([math.nan, 1.0], r"weight of task 0 \(counting from 0\) is nan.*finite"),
    ([1.0, math.inf], r"weight of task 1 \(counting from 0\) is inf.*finite"),
    ([], r"one number per task, but has shape \(0,\)"),
    ([[1.0, 2.0]], r"one number per task, but has shape \(1, 2\)"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
def test_bad_weights_are_named(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mtl.FixedWeighting(weights)
