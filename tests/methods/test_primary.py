"""PrimaryTask and PCD against enumeration of the faces, the closed forms of two tasks, and TorchJD."""

import itertools

import pytest
import torch
from cases import SCALES, Net, draw, matrix, vector
from torch import Tensor
from torchjd.aggregation import PCD as TorchJD

import mtl_ref as mtl


def closest_by_faces(A: Tensor, margins: Tensor, x: Tensor) -> Tensor | None:
    """The closest point to x of {d : A d ≥ margins}: the closest projection on a face that lies in it."""
    best = None
    for size in range(len(A) + 1):
        for face in map(list, itertools.combinations(range(len(A)), size)):
            d = x - torch.linalg.pinv(A[face]) @ (A[face] @ x - margins[face]) if size else x
            inside = bool((A @ d >= margins - 1e-9).all())
            if inside and (best is None or (d - x).norm() < (best - x).norm()):
                best = d
    return best


@pytest.mark.parametrize("P", [2, 3, 6])
@pytest.mark.parametrize("primary", [0, 2])
@pytest.mark.parametrize("seed", range(10))
def test_primary_task_is_the_closest_point_that_enumeration_finds(P: int, primary: int, seed: int) -> None:
    J = draw(4, P, seed)
    others = J[[i for i in range(4) if i != primary]]
    expected = closest_by_faces(others, torch.zeros(3).double(), J[primary])
    torch.testing.assert_close(mtl.PrimaryTask(primary)(J), expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_two_tasks_have_sus_closed_form_in_any_units(scale: float) -> None:
    for seed in range(20):
        g0, g1 = J = vector(1.0, scale)[:, None] * draw(2, 4, seed)
        lam = (-g0 @ g1).clamp(min=0) / (g1 @ g1)
        torch.testing.assert_close(mtl.PrimaryTask()(J), g0 + lam * g1, rtol=1e-9, atol=1e-12)


def test_no_loss_rises_and_it_is_dualproj_where_the_primary_gradient_is_the_mean() -> None:
    for seed in range(200):
        J = 10.0 ** draw(4, 1, seed + 500) * draw(4, 5, seed)
        d = mtl.PrimaryTask()(J)
        assert (J @ d >= -1e-9 * J.norm(dim=1) * d.norm()).all()
        with_mean = torch.cat([J.mean(0, keepdim=True), J])
        torch.testing.assert_close(mtl.PrimaryTask()(with_mean), mtl.DualProj()(J), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.02, 0.3])
@pytest.mark.parametrize(("T", "P"), [(1, 3), (2, 4), (3, 3), (5, 8)])
def test_pcd_takes_the_steps_of_torchjd(tau: float, T: int, P: int) -> None:
    ours, theirs = mtl.PCD(tau=tau, beta=0.9), TorchJD(tau=tau, beta=0.9, eps=0.0)
    for seed in range(6):
        J = vector(1.0, 10.0, 0.1, 3.0, 1.0)[:T, None] * draw(T, P, seed)
        torch.testing.assert_close(ours(J), theirs(J), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_pcd_is_the_closest_point_with_margins_as_long_as_the_primary_gradient(seed: int) -> None:
    balancer, squares = mtl.PCD(1, tau=0.2, beta=0.5), torch.zeros(3).double()
    for step in (1, 2, 3):
        J = draw(3, 5, 10 * seed + step)
        squares = 0.5 * squares + 0.5 * J.square().sum(1)
        scaled = J / (squares / (1 - 0.5**step)).sqrt()[:, None]
        others = scaled[[0, 2]]
        d = closest_by_faces(others, 0.2 * others.square().sum(1), scaled[1])
        torch.testing.assert_close(balancer(J), J[1].norm() * d / d.norm(), rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(balancer.average[:, 0], squares)


def test_pcd_has_a_start_for_each_task_of_its_own() -> None:
    balancer, (first, second) = mtl.PCD(tau=0.2, beta=0.9), (draw(3, 5, 1), 3 * draw(3, 5, 2))
    with balancer.only(torch.tensor([True, True, False])):
        balancer(first[:2])
    squares = torch.stack([first.square().sum(1), second.square().sum(1)])
    usual = torch.tensor([0.09, 0.1]).double() @ squares / 0.19
    usual[2] = squares[1, 2]  # which was not there before
    scaled = second / usual.sqrt()[:, None]
    d = closest_by_faces(scaled[1:], 0.2 * scaled[1:].square().sum(1), scaled[0])
    torch.testing.assert_close(balancer(second), second[0].norm() * d / d.norm(), rtol=1e-6, atol=1e-8)


def test_pcd_drops_conditions_that_no_direction_meets() -> None:
    J = matrix([[1.0, 0.0], [0.0, 1.0], [0.0, -2.0]])
    torch.testing.assert_close(mtl.PCD()(J), J[0])
    torch.testing.assert_close(mtl.PCD(tau=0.0)(J), J[0])


def test_an_opposite_gradient_turns_pcd_round_and_stops_the_primary_task() -> None:
    J = matrix([[3.0, 4.0], [-0.3, -0.4]])
    torch.testing.assert_close(mtl.PCD()(J), -J[0])  # at every τ > 0: the other's own direction, at full length
    assert mtl.PrimaryTask()(J).norm() < 1e-12
    assert mtl.PCD(tau=0.0)(J).norm() < 1e-6


@pytest.mark.parametrize("method", [mtl.PrimaryTask, mtl.PCD])
def test_the_primary_task_is_found_among_those_present_and_without_it_the_encoder_rests(method: type) -> None:
    net, balancer, expected = Net(), method(2), method(1)
    weights = balancer.backward(net.losses(), **net.given("shared"), present=[True, False, True])
    other = Net()
    alone = expected.backward(other.losses()[[0, 2]], **other.given("shared"))
    torch.testing.assert_close(weights[[0, 2]], alone)
    net.zero_grad()
    balancer.backward(net.losses(), **net.given("shared"), present=[True, True, False])
    assert not net.grads("encoder").any()
    assert net.grads("heads.0").any()
    assert balancer.primary == 2


@pytest.mark.parametrize("around", [lambda m: m, mtl.Normalized, lambda m: mtl.CRMOGM(m, 0.0)])
@pytest.mark.parametrize("method", [mtl.PrimaryTask, mtl.PCD])
def test_its_place_is_counted_among_those_before_it_that_are_present(method: type, around: type) -> None:
    net, other = Net(4), Net(4)
    weights = around(method(3)).backward(net.losses(), **net.given("shared"), present=[True, False, True, True])
    alone = around(method(2)).backward(other.losses()[[0, 2, 3]], **other.given("shared"))
    torch.testing.assert_close(weights[[0, 2, 3]], alone)
    torch.testing.assert_close(net.grads("encoder"), other.grads("encoder"))


@pytest.mark.parametrize("method", [mtl.PrimaryTask, mtl.PCD])
def test_a_primary_task_that_is_none_is_named_before_anything_is_touched(method: type) -> None:
    with pytest.raises(ValueError, match="primary is -1, but must be the index of a task"):
        method(-1)
    net = Net()
    for there in (None, [True, True, False]):
        with pytest.raises(ValueError, match=r"primary is 3, counting from 0, but there are \d tasks"):
            method(3).backward(net.losses(), **net.given("shared"), present=there)
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(ValueError, match="primary is 3, counting from 0, but there are 2 tasks"):
        method(3)(draw(2, 3))


def test_arguments_of_pcd_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match=r"tau is 1\.5, but must be a number from 0 to 1"):
        mtl.PCD(tau=1.5)
    with pytest.raises(ValueError, match=r"beta is 1\.0, but must be at least 0 and less than 1"):
        mtl.PCD(beta=1.0)
