"""IMTL-G, IMTL-L and both: the printed closed form, TorchJD, ConFIG, uncertainty weighting, one step by hand."""

import pytest
import torch
from cases import SCALES, Net, both_ways, draw, jacobian, matrix, vector
from torch import Tensor, nn
from torchjd.aggregation import IMTLG as TorchJD
from torchjd.scalarization import IMTLL as TorchJDLosses

import mtl_ref as mtl


def as_printed(J: Tensor) -> Tensor:
    """α₂…α_T = g₁ Uᵀ (D Uᵀ)⁻¹ with the rows g₁ − gⱼ of D and u₁ − uⱼ of U; α₁ is what is left to one."""
    u = J / J.norm(dim=1, keepdim=True)
    D, U = J[0] - J[1:], u[0] - u[1:]
    rest = torch.linalg.solve((D @ U.T).T, U @ J[0])
    return torch.cat([1 - rest.sum()[None], rest])


@pytest.mark.parametrize(("T", "P"), [(2, 5), (3, 3), (5, 8)])
@pytest.mark.parametrize("seed", range(5))
def test_weights_are_those_of_the_printed_closed_form_and_of_torchjd(T: int, P: int, seed: int) -> None:
    J = draw(T, P, seed)
    d, alpha = mtl.IMTLG().combine(J)
    torch.testing.assert_close(alpha, as_printed(J), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(d, TorchJD()(J), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_all_unit_gradients_have_one_projection_and_the_weights_sum_to_one(scale: float) -> None:
    J = vector(1.0, scale, 3.0, 1.0)[:, None] * draw(4, 6, 1)
    d, alpha = mtl.IMTLG().combine(J)
    along = J @ d / J.norm(dim=1)
    torch.testing.assert_close(along, along[:1].expand(4), rtol=1e-6, atol=0)
    torch.testing.assert_close(alpha.sum(), vector(1.0)[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("T", [1, 2, 3, 5, 8])
def test_direction_is_plus_or_minus_that_of_config(T: int) -> None:
    for seed in range(100):
        J = 10.0 ** draw(T, 1, seed + 1000) * draw(T, 8, seed)
        a, b = mtl.IMTLG()(J), mtl.ConFIG()(J)
        assert 1 - torch.cosine_similarity(a, b, dim=0).abs() < 1e-9
        assert T > 2 or a @ b > 0


def test_a_small_example_in_which_it_raises_every_loss_and_config_lowers_each() -> None:
    J = matrix([[-2.0, -1.0, 0.0], [1.0, 0.0, 2.0], [0.0, 0.0, 1.0]])
    d = mtl.IMTLG()(J)
    torch.testing.assert_close(d, vector(-0.121417, 1.392914, -0.514331), rtol=0, atol=1e-6)
    torch.testing.assert_close(J @ d, -0.514331 * vector(5**0.5, 5**0.5, 1.0), rtol=1e-6, atol=0)
    assert (J @ mtl.ConFIG()(J) > 0).all()
    assert (J @ TorchJD()(J) < 0).all()  # it is the formula, not this program


def test_opposite_gradients_leave_nothing_and_a_zero_gradient_takes_no_part() -> None:
    for unequal in (1.0, 10.0, 1e-6, 3e9):
        assert mtl.IMTLG()(matrix([[1.0, 2.0], [-unequal, -2 * unequal]])).tolist() == [0.0, 0.0]
    star = matrix([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])  # unit gradients that sum to zero
    assert mtl.IMTLG()(vector(1.0, 7.0, 1e-3)[:, None] * star).tolist() == [0.0, 0.0]
    J = draw(3, 4)
    torch.testing.assert_close(mtl.IMTLG()(torch.cat([J, torch.zeros(1, 4)])), mtl.IMTLG()(J))


def test_losses_as_in_torchjd_and_twice_uncertainty_weighting_at_minus_s() -> None:
    ours, theirs = mtl.IMTLL(3).double(), TorchJDLosses(3).double()
    twice = mtl.UncertaintyWeighting(["regression"] * 3).double()
    s, losses = draw(3, 1)[:, 0], vector(2.0, 0.5, 8.0)
    for parameter, value in ((ours.s, s), (theirs.log_scale, s), (twice.s, -s)):
        parameter.data = value.clone()
    torch.testing.assert_close(ours(losses), theirs(losses))
    torch.testing.assert_close(ours(losses), 2 * twice(losses))
    torch.testing.assert_close(ours.weights, s.exp())


def test_at_rest_every_scaled_loss_is_one() -> None:
    balancer, losses = mtl.IMTLL(3).double(), vector(0.1, 1.0, 20.0)
    optimizer = torch.optim.Adam(balancer.parameters(), lr=0.05)
    for _ in range(1000):
        optimizer.zero_grad()
        balancer(losses).backward()
        optimizer.step()
    torch.testing.assert_close(balancer.s.detach().exp() * losses, torch.ones(3).double(), rtol=1e-6, atol=0)


@both_ways
def test_both_together_scale_the_heads_and_take_imtl_g_of_the_scaled_gradients(by: str) -> None:
    net, plain, balancer = Net(), Net(), mtl.IMTL(3).double()
    balancer.s.data = vector(0.7, -0.4, 0.2)
    factors = balancer.s.detach().exp()
    losses = plain.losses()
    inputs = list(plain.encoder.parameters()) if by == "shared" else [plain.z]
    expected, alpha = mtl.IMTLG().combine(factors[:, None] * jacobian(losses, inputs))
    weights = balancer.backward(net.losses(), **net.given(by))
    torch.testing.assert_close(weights, alpha)
    if by == "shared":
        torch.testing.assert_close(net.grads("encoder"), expected)
    (factors * losses).sum().backward()
    torch.testing.assert_close(net.grads("heads"), plain.grads("heads"))
    torch.testing.assert_close(balancer.s.grad, factors * losses.detach() - 1)


def test_what_is_learned_once_a_step_is_the_derivative_of_imtl_l() -> None:
    net, both, alone = Net(), mtl.IMTL(3), mtl.IMTLL(3)
    step = mtl.Accumulation(both)
    for _ in range(2):
        step.add(net.losses() / 2, features=net.z)
    step.finish()
    alone.backward(Net().losses())
    torch.testing.assert_close(both.s.grad, alone.s.grad)


@pytest.mark.parametrize("method", [mtl.IMTL, mtl.IMTLL])
def test_no_task_is_refused(method: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="num_tasks is 0, but must be at least 1"):
        method(0)
