"""Bad input: a ValueError that names the task and the value, before any `.grad` or state is touched."""

import copy
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from cases import (
    Method,
    Net,
    both_ways,
    build,
    every_row,
    gradient_rows,
    loss_rows,
    rows,
    same,
    sharing_rows,
    vector,
)
from torch import Tensor

import mtl_ref as mtl
from mtl_ref.catalogue import METHODS

BAD_LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "a number": (lambda x: x.sum(), r"losses must be .* shape \(T,\).*has shape \(\)"),
    "a matrix": (lambda x: x[None], r"losses must be .* shape \(T,\).*has shape \(1, 3\)"),
    "none": (lambda x: x[:0], r"losses must be .* shape \(T,\).*has shape \(0,\)"),
    "whole numbers": (lambda x: x.detach().long(), r"losses must be a floating-point .* type torch\.int64"),
    "detached": (lambda x: x.detach(), "losses are not on a graph.* detached"),
    "nan": (lambda x: x * vector(1, math.nan, 1), r"the loss of task 1 \(counting from 0\) is nan.* finite"),
    "inf": (lambda x: x * vector(math.inf, 1, 1), r"the loss of task 0 \(counting from 0\) is inf.* finite"),
    "-inf": (lambda x: x * vector(1, 1, -math.inf), r"the loss of task 2 \(counting from 0\) is -inf.* finite"),
}
# these divide by the losses, or take their logarithm: at every step, or by those of the first
DIVIDE = {
    "initial", "realtime", "geometric", "power", "normalized-rate", "gradnorm", "mgda-loss", "mgda-loss+",
    "uw-so", "dwa", "relobralo", "go4align", "famo", "dbmtl",
}  # fmt: skip


def refuse(balancer, net: Net, losses: Tensor, message: str, given: Mapping[str, object]) -> None:
    """The step is refused, and neither gradients, parameters, state nor the random state have changed."""
    balancer.zero_grad()
    for p in net.parameters():
        p.grad = torch.full_like(p, 5.0)
    before = copy.deepcopy((net.state_dict(), balancer.state_dict(), torch.get_rng_state()))
    with pytest.raises(ValueError, match=message):
        balancer.backward(losses, **given)
    after = net.state_dict(), balancer.state_dict(), torch.get_rng_state()
    for old, new in zip(before[:2], after[:2], strict=True):
        assert old.keys() == new.keys()
        assert all(same(old[name], new[name]) for name in old)
    assert torch.equal(before[2], after[2])
    assert (net.grads() == 5).all()
    assert all(p.grad is None for p in balancer.parameters())


@every_row
@both_ways
@pytest.mark.parametrize("kind", BAD_LOSSES)
def test_losses_that_are_none_are_named(row: Method, by: str, kind: str) -> None:
    spoil, message = BAD_LOSSES[kind]
    net, balancer = Net(), build(row)
    refuse(balancer, net, spoil(net.losses()), message, net.given(by))
    balancer.backward(net.losses(), **net.given(by))  # and once there is state
    refuse(balancer, net, spoil(net.losses()), message, net.given(by))


@loss_rows
def test_forward_alone_names_them_too(row: Method) -> None:
    for kind, (spoil, message) in BAD_LOSSES.items():
        if kind != "detached":  # forward alone may be asked for a value
            with pytest.raises(ValueError, match=message):
                build(row)(spoil(Net().losses()))


@every_row
def test_a_method_built_for_T_tasks_takes_no_others(row: Method) -> None:
    net, balancer = Net(), build(row)
    balancer.backward(net.losses(), **net.given("shared"))
    per_task = [x for x in (*balancer.state_dict().values(), *balancer.buffers()) if x.shape[:1] == (3,)]
    for tasks in (2, 4):
        other = Net(tasks)
        losses = other.losses()
        if per_task:
            message = f"built for 3 tasks but was given {tasks} losses"
            refuse(balancer, other, losses, message, other.given("shared"))
        else:
            weights = balancer.backward(losses, **other.given("shared"))
            assert weights is None or weights.shape == (tasks,)


@every_row
@both_ways
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_loss_that_is_not_positive_is_named_or_harmless(row: Method, by: str, value: float) -> None:
    net, balancer = Net(), build(row)
    losses = net.losses()
    losses = losses - losses.detach() * vector(0, 0, 1) + vector(0, 0, value)  # exactly the value
    if row.key in DIVIDE:
        message = rf"the loss of task 2 \(counting from 0\) is {value}, but every loss must be positive and finite"
        refuse(balancer, net, losses, message, net.given(by))
    else:
        weights = balancer.backward(losses, **net.given(by))
        assert weights is None or weights.isfinite().all()
        assert net.grads().isfinite().all()


@rows([METHODS["normalized-rate"], METHODS["gradnorm"]])  # rates of training L / L(0)
def test_a_rate_is_not_negative_and_may_be_zero(row: Method) -> None:
    net, balancer = Net(), build(row)
    balancer.backward(net.losses(), **net.given("shared"))
    refuse(balancer, net, net.losses() * vector(1, -1, 1), "task 1 .* must not be negative", net.given("shared"))
    balancer.backward(net.losses() * 0, **net.given("shared"))


@sharing_rows
def test_exactly_one_of_shared_and_features_is_given(row: Method) -> None:
    net, balancer = Net(), build(row)
    losses = net.losses()
    refuse(balancer, net, losses, "exactly one of shared=parameters and features=.* not neither", {})
    refuse(balancer, net, losses, "not both", {**net.given("shared"), **net.given("features")})


@sharing_rows
def test_something_that_is_shared_must_require_a_gradient(row: Method) -> None:
    net, balancer = Net(), build(row)
    losses = net.losses()
    for given, message in [
        ({"shared": []}, "no tensor in shared requires a gradient, so there is nothing to combine"),
        ({"shared": iter([])}, "no tensor in shared .* already used up"),
        ({"shared": [torch.zeros(2)]}, "no tensor in shared .* frozen"),
        ({"features": net.z.detach()}, "no tensor in features .* detached"),
        ({"features": []}, "no tensor in features .* It may be empty"),
    ]:
        refuse(balancer, net, losses, message, given)


@gradient_rows
def test_features_must_separate_the_heads_from_the_encoder(row: Method) -> None:
    net, balancer = Net(), build(row)
    past_them = net.losses() + net.encoder[0].weight.square().sum()
    refuse(balancer, net, past_them, "the features do not separate the heads", net.given("features"))


@gradient_rows
@pytest.mark.parametrize("J", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.long)], ids=str)
def test_gradients_are_a_floating_point_matrix_of_one_row_a_task(row: Method, J: Tensor) -> None:
    with pytest.raises(ValueError, match=r"gradients must be a floating-point tensor of shape \(T, P\)"):
        build(row)(J)


@gradient_rows
def test_forward_needs_the_losses_where_they_count_and_one_for_each_gradient(row: Method) -> None:
    J = torch.eye(3, dtype=torch.float64)
    if "losses" in row.sees:
        with pytest.raises(ValueError, match=r"needs the losses|give the losses"):
            build(row)(J)
        for wrong in (vector(1, 2), vector(1, 2, 3, 4)):
            with pytest.raises(ValueError, match="built for 3 tasks"):
                build(row)(J, wrong)
        with pytest.raises(ValueError, match=r"the loss of task 1 .* is -1\.0, .* must be positive"):
            build(row)(J, vector(1, -1, 2))
    else:
        d = build(row)(J)
        assert torch.equal(d, build(row)(J, vector(-1, 0, 2)))  # nor may they be negative otherwise


BAD_ARGUMENTS: list[tuple[str, Callable[[], object]]] = [
    (r"the weight of task 1 \(counting from 0\) is -0\.5.* not negative", lambda: mtl.FixedWeighting([1, -0.5])),
    (r"the weight of task 0 .* is nan.* finite", lambda: mtl.FixedWeighting([math.nan, 1])),
    (r"the weight must hold one number per task, but has shape \(0,\)", lambda: mtl.FixedWeighting([])),
    (r"the weight must hold .* has shape \(1, 2\)", lambda: mtl.FixedWeighting([[1, 2]])),
    (r"the initial loss of task 1 .* is 0.* finite and positive", lambda: mtl.InitialLossScaling([1, 0])),
    (r"the prior loss of task 1 .* is inf.* finite and positive", lambda: mtl.PriorLossScaling([1, math.inf])),
    (r"gamma is nan, but must be a finite number", lambda: mtl.PowerMean(math.nan)),
    (r"num_classes is 1, but a classification has at least 2", lambda: mtl.uniform_cross_entropy(1)),
    (r"the class frequency of task 1 .* is -1.* not negative", lambda: mtl.prior_cross_entropy([1, -1])),
    (r"the class frequencies are all zero", lambda: mtl.prior_cross_entropy([0, 0])),
    (r"targets must have shape .* but have \(2, 3, 4\)", lambda: mtl.zero_mse(torch.zeros(2, 3, 4))),
    (r"targets must have shape .* but have \(0, 2\)", lambda: mtl.prior_mse(torch.zeros(0, 2))),
    (r"kinds must be a list of one kind per task", lambda: mtl.UncertaintyWeighting("regression")),
    (r"kinds must be a list .* but is \[\]", lambda: mtl.UncertaintyWeighting([])),
    (
        r"the kind of task 1 \(counting from 0\) is 'rank'",
        lambda: mtl.UncertaintyWeighting(["regression", "rank"]),
    ),
    (r"num_tasks is 0, but must be at least 1", lambda: mtl.AutomaticWeightedLoss(0)),
    (r"num_tasks is 0, but must be at least 1", lambda: mtl.GradNorm(0)),
    (r"alpha is -1\.0, .* finite number that is not negative", lambda: mtl.GradientNormalization(-1.0)),
    (r"alpha is inf, .* finite number that is not negative", lambda: mtl.GradNorm(2, math.inf)),
    (r"lr is 0\.0, but must be a finite positive number", lambda: mtl.GradNorm(2, lr=0.0)),
    (r"lr is nan, but must be a finite positive number", lambda: mtl.GradNorm(2, lr=math.nan)),
    (r"update is 'Adam', .* one of \['adam', 'sgd', 'relative'\]", lambda: mtl.GradNorm(2, update="Adam")),
    (r"normalize is 'L2', .* \['none', 'l2', 'loss', 'loss\+'\]", lambda: mtl.MGDA(normalize="L2")),
]


@pytest.mark.parametrize(("message", "make"), BAD_ARGUMENTS)
def test_an_argument_that_makes_no_sense_is_named(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        make()
