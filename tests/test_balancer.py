"""What a step does around any method's formula: which gradients are formed, in what memory, and where they go."""

import pytest
import torch
from benchmarks.step_cost import peak_memory
from cases import Net, draw, jacobian
from torch import Tensor, nn

import mtl_ref as mtl
from mtl_ref.gradients import gradient_norms, gram, task_gradients


class Weighted(mtl.GradientBalancer):
    """d = Σ wᵢ gᵢ with given weights; what the method sees is kept."""

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.w = torch.tensor(weights, dtype=torch.float64)

    def task_weights(self, M: Tensor, losses: Tensor | None = None) -> Tensor:
        self.seen = M, losses
        return self.w


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape, dtype=dtype))


# --- What is formed


def test_the_method_sees_the_gram_matrix_and_the_losses_in_float64() -> None:
    net, balancer = Net(dtype=torch.float32), Weighted(1.0, 1.0, 1.0)
    losses = net.losses()
    J = jacobian(losses, list(net.encoder.parameters())).double()
    balancer.backward(losses, **net.given("shared"))
    M, seen = balancer.seen
    assert M.dtype == seen.dtype == torch.float64
    assert not seen.requires_grad
    torch.testing.assert_close(M, J @ J.T, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(seen, losses.detach().double())
    assert not balancer(J.requires_grad_()).requires_grad


@pytest.mark.parametrize("columns", [1, 7, 100, 1000])
def test_the_gram_matrix_does_not_depend_on_its_blocks(columns: int) -> None:
    J = draw(3, 100)
    torch.testing.assert_close(gram(J, columns=columns), J @ J.T, rtol=1e-13, atol=1e-13)


def test_products_with_other_gradients_do_not_depend_on_their_blocks() -> None:
    J, other = draw(3, 100), draw(3, 100, 1)
    torch.testing.assert_close(gram(J, other, columns=7), J @ other.T, rtol=1e-13, atol=1e-13)


def test_the_gram_matrix_of_dependent_gradients_is_as_good_as_semidefinite() -> None:
    J = draw(40, 50_000, rank=3, dtype=torch.float32)
    M, exact = gram(J), J.double() @ J.double().T
    eigenvalues = torch.linalg.eigvalsh(M)
    assert eigenvalues[0] > -1e-13 * eigenvalues[-1]
    torch.testing.assert_close(M, exact, rtol=1e-11, atol=1e-11 * exact.abs().max().item())


def test_losses_that_one_node_makes_stay_apart() -> None:
    x = ones(2)
    first, second = torch.stack([3 * x[0], 5 * x[1]]).unbind()  # a node with two outputs
    assert task_gradients(torch.stack([second, first]), [x]).tolist() == [[0, 5], [3, 0]]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_a_loss_does_not_use_has_gradient_zero_and_so_has_all_for_a_constant(place: int) -> None:
    a, b, idle, head = ones(2), ones(1), ones(3), ones(2)
    losses, rows = [(a * head).sum(), (3 * a).sum() + 2 * b.sum()], [[1, 1, 0, 0, 0, 0], [3, 3, 2, 0, 0, 0]]
    losses.insert(place, torch.tensor(4.0))
    rows.insert(place, [0] * 6)
    norms = gradient_norms(torch.stack(losses), [a, b, idle])
    assert a.grad is head.grad is None
    J = task_gradients(torch.stack(losses), [a, b, idle], retain_graph=True)
    assert J.tolist() == rows
    torch.testing.assert_close(norms, J.double().norm(dim=1))
    head.grad = None
    Weighted(1.0, 1.0, 1.0).backward(torch.stack(losses), shared=[a, b, idle])
    assert [x.grad.tolist() for x in (a, b, idle, head)] == [[4, 4], [2], [0, 0, 0], [1, 1]]


@pytest.mark.parametrize(("by", "least", "most"), [("shared", 8, 8 + 2), ("features", 0, 1.5)])
def test_memory_is_at_most_that_of_t_plus_2_gradients_and_with_features_none_of_them(
    by: str, least: float, most: float
) -> None:
    encoder = nn.Sequential(nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 700))
    one = 4 * sum(p.numel() for p in encoder.parameters())
    z = encoder(torch.ones(2, 700))
    losses = torch.stack([z[:, t].square().mean() for t in range(8)])
    given = {"features": z} if by == "features" else {"shared": encoder.parameters()}
    assert least * one <= peak_memory(lambda: mtl.MGDA().backward(losses, **given)) <= most * one


# --- Where it goes


def test_encoder_parameters_that_are_not_given_get_the_plain_sum() -> None:
    net = Net()
    losses = net.losses() + net.encoder[0](net.x).mean()  # past the last layer: no hindrance to shared parameters
    first, last = (jacobian(losses, list(layer.parameters())) for layer in (net.encoder[0], net.encoder[2]))
    balancer = Weighted(0.5, 2.0, -1.0)
    balancer.backward(losses, shared=net.encoder[2].parameters())
    torch.testing.assert_close(net.grads("encoder"), torch.cat([first.sum(0), balancer.w @ last]))


def test_parameters_that_are_frozen_or_unused_stay_without_gradient() -> None:
    net = Net()
    net.unused = ones(2)
    net.encoder[0].weight.requires_grad_(False)
    net.heads[1].weight.requires_grad_(False)
    Weighted(0.5, 2.0, -1.0).backward(net.losses(), **net.given("shared"))
    without = {name for name, p in net.named_parameters() if p.grad is None}
    assert without == {"unused", "encoder.0.weight", "heads.1.weight"}


def test_a_parameter_in_two_heads_gets_the_sum_and_a_hook_sees_each_gradient_once() -> None:
    z, scale, deep, seen = ones(3) * 2, ones(), nn.Sequential(nn.Sequential(nn.Linear(3, 1))), []
    losses = torch.stack([scale * deep(z).square().sum(), scale * z.square().sum() + deep(z).sum()])
    wanted = jacobian(losses, [scale, *deep.parameters()]).sum(0)
    scale.register_hook(seen.append)
    Weighted(0.3, 0.7).backward(losses, features=z)
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in (scale, *deep.parameters())]), wanted)
    assert len(seen) == 2


def test_duplicates_count_once_and_one_tensor_may_stand_for_a_list() -> None:
    for given in (lambda a, z: {"shared": [a, a]}, lambda a, z: {"shared": a}, lambda a, z: {"features": [z, z]}):
        a, balancer = nn.Parameter(torch.tensor([1.0, 2.0])), Weighted(1.0, 1.0)
        z = a * 1
        balancer.backward(torch.stack([z.sum(), z.square().sum()]), **given(a, z))
        assert balancer.seen[0].tolist() == [[2, 6], [6, 20]]
        assert a.grad.tolist() == [3, 5]


@pytest.mark.parametrize("case", ["a feature computed from another", "a weight of the encoder in a head"])
def test_features_that_do_not_separate_heads_from_encoder_are_refused(case: str) -> None:
    W = ones(2)
    z = 3 * W
    second = z.square() if "feature" in case else W * z
    features = [z, second] if "feature" in case else [z]
    with pytest.raises(ValueError, match="the features do not separate the heads from the encoder"):
        Weighted(1.0, 1.0).backward(torch.stack([z.sum(), second.sum()]), features=features)
    assert W.grad is None


def test_two_parameters_never_share_the_memory_of_a_gradient() -> None:
    a, b, c = ones(3), ones(3), ones(3)
    for _ in range(2):
        Weighted(1.0, 1.0).backward(torch.stack([(a * (b + c)).sum(), a.square().sum()]), shared=[a])
    b.grad.mul_(0)
    assert c.grad.tolist() == [2, 2, 2]


def test_parameters_of_different_types_are_combined_in_the_wider_one() -> None:
    a, b = ones(2, dtype=torch.bfloat16), ones(3)
    Weighted(1.0, 1.0).backward(torch.stack([a.float().sum() + b.sum() * 1.001, b.square().sum()]), shared=[a, b])
    assert a.grad.dtype == torch.bfloat16
    torch.testing.assert_close(b.grad, torch.full((3,), 3.001))


def test_sparse_gradients_are_combined() -> None:
    table = nn.Embedding(3, 2, sparse=True)
    z = table(torch.tensor([0, 2]))
    Weighted(0.5, 2.0).backward(torch.stack([z[0].sum(), z[1].sum()]), shared=table.parameters())
    assert table.weight.grad.tolist() == [[0.5, 0.5], [0, 0], [2, 2]]
