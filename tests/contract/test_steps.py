"""What a step of any method keeps to: what lies in `.grad` is added to, the order and the scale of the losses."""

import pytest
import torch
from cases import SCALES, Method, Net, Tiny, both_ways, build, every_row, ordered_rows, rows, vector
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import ROWS

# the degree of the direction in a number that all losses are multiplied by; that of a row not named is 1, and None
# stands for a direction that turns
DEGREES: dict[str, float | None] = {
    "initial": 0,  # by the losses of the first step
    "realtime": 0,
    "dbmtl": 0,
    "normalized": 0,
    "normalized-rate": 0,
    "mgda-l2": 0,
    "mgda-loss": 0,
    "mgda-loss+": -1,
    "nash": 0,
    "unit-upgrad": 0,
    "fairgrad": -1 / 3,  # (p − 1)/(p + 1) with p = ½
    "modo": None,  # as of
    "moco": None,  # the rate of its weights is one of products of gradients
}

# in other units these are other methods: a number in them has the unit of a loss
OF_ONE_UNIT = {"uw-so", "softadapt", "groupdro", "go4align", "stch", "cosmos"}

# but for its length, their direction does not depend on the unit that one task's loss is measured in
UNITLESS = {"initial", "realtime", "geometric", "normalized", "normalized-rate", "mgda-l2", "mgda-loss"} | {
    "config",
    "dbmtl",
    "nash",
    "unit-upgrad",
    "famo",
    "ntkmtl",
    "imtl-g",  # its sign may, but does not here
    "imtl",
    "primary",
    "pcd",
}

ENCODER = slice(sum(p.numel() for p in Net().encoder.parameters()))


def two_steps(
    row: Method, by: str = "shared", order: tuple[int, ...] = (0, 1, 2), scale: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """The gradients that a second step leaves, on losses that have changed unequally, and its weights."""
    net, balancer = Net(), build(row, order)
    for decay in ((1.0, 1.0, 1.0), (0.5, 0.9, 0.7)):
        net.zero_grad()
        losses = scale * net.losses() * torch.tensor(decay, dtype=torch.float64)
        weights = balancer.backward(losses[list(order)], **net.given(by))
    return net.grads(), weights


@every_row
@both_ways
def test_gradients_that_are_there_are_added_to(row: Method, by: str) -> None:
    once, twice = Net(), Net()
    for p in twice.parameters():
        p.grad = torch.full_like(p, 0.5)
    for net in (once, twice):
        build(row).backward(net.losses(), **net.given(by))
    torch.testing.assert_close(twice.grads(), once.grads() + 0.5)


@ordered_rows
@both_ways
def test_the_order_of_the_tasks_orders_the_weights_and_nothing_else(row: Method, by: str) -> None:
    gradients, weights = two_steps(row, by)
    for order in ((1, 2, 0), (2, 1, 0)):
        moved, moved_weights = two_steps(row, by, order)
        torch.testing.assert_close(moved, gradients, rtol=1e-8, atol=1e-12)
        assert (weights is None) == (moved_weights is None)
        if weights is not None:
            torch.testing.assert_close(moved_weights, weights[list(order)], rtol=1e-8, atol=1e-12)


@every_row
@both_ways
def test_one_task_keeps_its_direction(row: Method, by: str) -> None:
    gradients, _ = two_steps(row, by, (0,))
    plain = Net()
    plain.losses()[0].backward()
    torch.testing.assert_close(*(x[ENCODER] / x[ENCODER].norm() for x in (gradients, plain.grads())))


@rows([row for row in ROWS if row.key not in OF_ONE_UNIT])
@pytest.mark.parametrize("scale", SCALES)
def test_a_common_scale_of_the_losses_leaves_the_direction_up_to_its_degree(row: Method, scale: float) -> None:
    (plain, _), (scaled, _) = two_steps(row), two_steps(row, scale=scale)
    degree = DEGREES.get(row.key, 1)
    if degree is None:
        (scaled, _) = two_steps(row, scale=1e3)
        assert torch.cosine_similarity(scaled[ENCODER], plain[ENCODER], dim=0) < 1 - 1e-6
        return
    factor = scale**degree
    torch.testing.assert_close(scaled[ENCODER] / factor, plain[ENCODER], rtol=1e-6, atol=1e-9)


@every_row
def test_the_unit_of_one_loss_leaves_the_direction_where_the_row_says_so(row: Method) -> None:
    plain, _ = two_steps(row)
    scaled = [two_steps(row, scale=vector(1.0, unit, 1.0))[0] for unit in (1e-6, 0.1, 1e6)]
    cosines = torch.stack([torch.cosine_similarity(x[ENCODER], plain[ENCODER], dim=0) for x in scaled])
    assert (cosines > 1 - 1e-9).all() == (row.key in UNITLESS)


@every_row
@both_ways
def test_a_single_precision_model_keeps_its_type(row: Method, by: str) -> None:
    net = Net(dtype=torch.float32)
    weights = build(row).backward(net.losses(), **net.given(by))
    assert weights is None or weights.dtype == torch.float32
    assert net.grads().dtype == torch.float32
    exact = Net()
    build(row).backward(exact.losses(), **exact.given(by))
    torch.testing.assert_close(net.grads().double(), exact.grads(), rtol=1e-3, atol=1e-4)


@every_row
@both_ways
def test_it_trains_a_problem(row: Method, by: str) -> None:
    settings = {"epochs": 30, "lr": 0.1, **({"features": True} if by == "features" else row.train)}
    history = mtl.train(Tiny(), build(row), device="cpu", **settings)
    assert all(last < first for first, last in zip(history.losses[0], history.losses[-1], strict=True))
