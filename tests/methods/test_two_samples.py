"""MoDo and SDMGrad: what a second batch is for, TorchJD's weights, and MGDA and CAGrad without noise."""

import pytest
import torch
from cases import Net, Tiny, draw, gram, jacobian, vector
from torch import Tensor, nn
from torchjd.aggregation import MoDoWeighting, SDMGradWeighting

import mtl_ref as mtl
from mtl_ref.solvers.simplex import project

BOTH = [mtl.MoDo, mtl.SDMGrad]


def step_on(balancer: nn.Module, J: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Direction and weights of a step on losses that have these gradients, and others in a second batch."""
    x = nn.Parameter(torch.zeros_like(J[0]))
    weights = balancer.backward(J @ x, second=None if other is None else other @ x, shared=[x])
    return x.grad, weights


# --- The bias of one batch


@pytest.mark.parametrize("seed", range(3))
def test_the_step_of_the_weights_is_right_on_average_with_two_batches_and_not_with_one(seed: int) -> None:
    """With one batch the slope of task i is σᵢ² P λᵢ too large: a noisy task loses weight for its noise."""
    mean, noise, gamma, times = draw(3, 8, seed), vector(0.0, 1.0, 0.3)[:, None], 1e-3, 1500
    equal = vector(1, 1, 1) / 3
    generator = torch.Generator().manual_seed(seed)

    def noisy() -> Tensor:
        return mean + noise * torch.randn(3, 8, generator=generator, dtype=torch.float64)

    right = project(equal - gamma * gram(mean) @ equal) - equal  # linear in M as long as no weight is zero
    for two in (True, False):
        steps = []
        for _ in range(times):
            J = noisy()
            steps.append(mtl.MoDo(3, gamma).task_weights(J @ (noisy() if two else J).T) - equal)
        found = torch.stack(steps)
        standard_error = found.std(0) / times**0.5
        close = ((found.mean(0) - right).abs() < 4 * standard_error).all()
        assert close == two
        if not two:
            more = noise[:, 0] ** 2 * 8 * equal
            biased = project(equal - gamma * (gram(mean) @ equal + more)) - equal
            assert ((found.mean(0) - biased).abs() < 4 * standard_error).all()


# --- The step


@pytest.mark.parametrize("method", BOTH)
def test_with_two_batches_direction_and_heads_are_of_the_mean_of_the_losses(method: type) -> None:
    net, plain, balancer = Net(), Net(), method(3)
    x = (net.x.clone(), net.x.flip(1))

    def two_losses(net: Net) -> list[Tensor]:
        found = []
        for batch in x:
            net.x = batch
            found.append(net.losses())
        return found

    first, second = two_losses(net)
    alpha = balancer.backward(first, second=second, **net.given("shared"))
    mean = torch.stack(two_losses(plain)).mean(0)
    torch.testing.assert_close(net.grads("encoder"), alpha @ jacobian(mean, list(plain.encoder.parameters())))
    mean.sum().backward()
    torch.testing.assert_close(net.grads("heads"), plain.grads("heads"))
    J = [jacobian(losses, list(plain.encoder.parameters())) for losses in two_losses(plain)]
    fresh = method(3)
    torch.testing.assert_close(alpha, fresh.task_weights(J[0] @ J[1].T))
    torch.testing.assert_close(balancer.weights, fresh.weights)


@pytest.mark.parametrize("method", BOTH)
def test_the_same_batch_twice_is_the_default(method: type) -> None:
    J = draw(3, 6)
    for one, other in zip(step_on(method(3), J), step_on(method(3), J, J), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", BOTH)
def test_a_task_without_labels_has_no_part_and_the_others_keep_what_they_have(method: type) -> None:
    net, plain, balancer, other = Net(), Net(), method(3), method(2)
    losses = [net.losses() * vector(1, torch.nan, 1) for _ in range(2)]
    weights = balancer.backward(losses[0], second=losses[1], **net.given("shared"), present=[1, 0, 1])
    expected = other.backward(plain.losses()[[0, 2]], **plain.given("shared"))
    torch.testing.assert_close(weights[[0, 2]], expected)
    torch.testing.assert_close(net.grads("encoder"), plain.grads("encoder"))
    assert weights[1] == 0
    assert balancer.weights[1] == pytest.approx(1 / 3)
    assert balancer.weights.sum() == pytest.approx(1)
    assert not balancer.backward(losses[0], second=losses[1], **net.given("shared"), present=[0, 0, 0]).any()


@pytest.mark.parametrize("method", BOTH)
def test_a_second_batch_that_is_none_is_refused_before_anything_is_touched(method: type) -> None:
    net, balancer = Net(), method(3)
    losses, z = net.losses(), net.z
    for second, given, message in (
        (net.losses()[:2], {}, r"losses have shape \(3,\) and second \(2,\): they must be of the same tasks"),
        (net.losses().detach(), {}, "losses are not on a graph"),
        (net.losses() * torch.nan, {}, "the loss of task 0 .* is nan"),
        (net.losses(), {"features": z, "shared": None}, "Give shared=parameters"),
    ):
        with pytest.raises(ValueError, match=message):
            balancer.backward(losses, second=second, **{**net.given("shared"), **given})
        assert all(p.grad is None for p in net.parameters())
        assert balancer.weights.tolist() == [1 / 3] * 3


@pytest.mark.parametrize("method", BOTH)
def test_training_gives_them_the_two_halves_of_each_batch(method: type) -> None:
    seen = []

    class Watching(method):  # type: ignore[misc,valid-type]
        def backward(self, losses: Tensor, *, second: Tensor | None = None, **given: object) -> Tensor | None:
            seen.append((losses.detach(), second.detach()))
            return super().backward(losses, second=second, **given)

    history = mtl.train(Tiny(), Watching(3), epochs=1, device="cpu")
    ((first, second),) = seen
    assert not torch.equal(first, second)
    torch.testing.assert_close(torch.tensor(history.losses[0]), (first + second) / 2)


# --- Without noise


@pytest.mark.parametrize("seed", range(5))
def test_modo_goes_to_mgdas_answer(seed: int) -> None:
    J, balancer = draw(4, 6, seed), mtl.MoDo(4, gamma=0.05)
    for _ in range(2000):
        d = balancer(J)
    torch.testing.assert_close(d, mtl.MGDA()(J), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lam", [0.1, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_sdmgrad_is_cagrad_for_the_radius_that_belongs_to_it(lam: float, seed: int) -> None:
    """c = ‖g_w‖ / (λ ‖g₀‖) with the weights w that have settled."""
    J, balancer = draw(4, 6, seed), mtl.SDMGrad(4, lam)
    for _ in range(200):
        d = balancer(J)
    g_w, mean = balancer.weights @ J, J.mean(0)
    torch.testing.assert_close(d, (g_w + lam * mean) / (1 + lam))
    cagrad = mtl.CAGrad((g_w.norm() / (lam * mean.norm())).item())(J)
    assert torch.cosine_similarity(d, cagrad, dim=0) > 1 - 1e-9


def test_at_the_rate_of_the_released_code_the_weights_do_not_settle_where_the_formula_wants_them() -> None:
    cosines = []
    for seed in range(10):
        J, balancer = draw(4, 6, seed), mtl.SDMGrad(4, 0.3, rate=10.0)
        for _ in range(200):
            d = balancer(J)
        shifted = J + 0.3 * J.mean(0)
        cosines.append(torch.cosine_similarity(d, mtl.min_norm(gram(shifted)) @ shifted, dim=0))
    assert torch.stack(cosines).median() < 0.9


# --- TorchJD


def test_modos_weights_are_torchjds() -> None:
    ours, theirs = mtl.MoDo(3, gamma=0.05, rho=0.1), MoDoWeighting(gamma=0.05, rho=0.1)
    for seed in range(5):
        A = draw(3, 6, seed) @ draw(3, 6, seed + 100).T
        torch.testing.assert_close(ours.task_weights(A), theirs(A))
    assert (ours.weights - 1 / 3).abs().max() > 0.05


@pytest.mark.parametrize("rate", [0.5, 10.0])
def test_sdmgrads_weights_are_torchjds(rate: float) -> None:
    ours, theirs = mtl.SDMGrad(3, rate=rate), SDMGradWeighting(lr=rate)
    for seed in range(5):
        A = draw(3, 6, seed) @ draw(3, 6, seed).T
        torch.testing.assert_close(ours.task_weights(A), theirs(A), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mtl.MoDo(0), "num_tasks is 0"),
        (lambda: mtl.MoDo(2, gamma=0.0), "gamma is 0.0, but must be a finite positive number"),
        (lambda: mtl.MoDo(2, rho=-1.0), "rho is -1.0, but must be a finite number that is not negative"),
        (lambda: mtl.SDMGrad(2, steps=0), "steps is 0, but must be at least 1"),
        (lambda: mtl.SDMGrad(2, lam=-1.0), "lam is -1.0, but must be a finite number that is not negative"),
        (lambda: mtl.SDMGrad(2, rate=0.0), "rate is 0.0, but must be a finite positive number"),
        (lambda: mtl.SDMGrad(2, momentum=1.0), "momentum is 1.0, but must be at least 0 and below 1"),
    ],
)
def test_arguments_that_make_no_sense_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
