import math

import pytest
import torch
from cases import SCALES, draw
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import mtl_ref as mtl
from mtl_ref import metrics

numbers = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))


def test_delta_m_is_the_mean_relative_loss_in_percent():
    # accuracy falls from .8 to .6 (25 % worse), error falls from 2 to 1 (50 % better)
    assert metrics.delta_m([0.6, 1.0], [0.8, 2.0], [True, False]) == pytest.approx((25 - 50) / 2)


def test_delta_m_of_the_baseline_itself_is_zero():
    assert metrics.delta_m([0.9, 3.0], [0.9, 3.0], [True, False]) == 0


def test_delta_m_of_a_better_method_is_negative_also_for_negative_metrics():
    assert metrics.delta_m([-1.0], [-2.0], [True]) < 0


def test_mean_rank_averages_ranks_over_metrics():
    table = [[0.9, 1.0], [0.8, 3.0], [0.7, 2.0]]
    assert metrics.mean_rank(table, [True, False]).tolist() == [1.0, 2.5, 2.5]


def test_equals_share_the_mean_of_their_ranks():
    assert metrics.mean_rank([[1.0], [1.0], [0.0]], [True]).tolist() == [1.5, 1.5, 3.0]


@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=8))
def test_mean_rank_agrees_with_scipy(table):
    ours = metrics.mean_rank(table, [False, True, False])
    signed = [[a, -b, c] for a, b, c in table]
    assert ours.tolist() == pytest.approx(stats.rankdata(signed, axis=0).mean(1).tolist())


def test_the_best_row_is_the_first_of_those_that_tie():
    assert metrics.first_best([[0.7, 2.0], [0.8, 3.0], [0.9, 1.0]], [True, False]) == 2
    assert metrics.first_best([[0.0], [1.0], [1.0]], [True]) == 1


def test_hypervolume_of_boxes_is_their_union():
    assert metrics.hypervolume([[1, 3], [2, 1]], [4, 4]) == pytest.approx(3 * 1 + 2 * 3 - 2 * 1)


def test_points_beyond_the_reference_count_nothing():
    assert metrics.hypervolume([[5.0, 0.0]], [4, 4]) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_hypervolume_agrees_with_inclusion_and_exclusion(points):
    def union(subset):
        return math.prod(1 - max(p[k] for p in subset) for k in range(3))

    total = 0.0
    for mask in range(1, 2 ** len(points)):
        subset = [p for i, p in enumerate(points) if mask >> i & 1]
        total -= (-1) ** len(subset) * union(subset)
    assert metrics.hypervolume([list(p) for p in points], [1, 1, 1]) == pytest.approx(total, abs=1e-9)


def test_confidence_interval_is_students():
    values = [0.91, 0.93, 0.92, 0.95]
    mean, half = metrics.confidence_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.delta_m([1.0, 2.0], [1.0], [True]), "of one length"),
        (lambda: metrics.delta_m([1.0], [0.0], [True]), "has a zero"),
        (lambda: metrics.delta_m([math.nan], [1.0], [True]), "nan"),
        (lambda: metrics.mean_rank([[1.0, 2.0]], [True]), "2 metrics, higher_is_better 1"),
        (lambda: metrics.mean_rank([1.0, 2.0], [True]), "2 axes"),
        (lambda: metrics.hypervolume([[1.0, 2.0]], [1.0]), "2 costs, the reference point 1"),
        (lambda: metrics.confidence_interval([1.0]), "at least 2 values"),
        (lambda: metrics.mean_rank(torch.empty(0, 2), [True, True]), "shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_holm_by_hand():
    assert metrics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert metrics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert metrics.holm([0.2]) == pytest.approx([0.2])
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.holm([1.2])


def test_a_difference_that_is_the_same_for_every_seed_is_certain():
    assert metrics.paired_difference([1.0, 2.0], [1.0, 2.0]) == (0.0, 0.0, 1.0)
    assert metrics.paired_difference([2.0, 3.0], [1.0, 2.0]) == (1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="3 values cannot be paired with 2"):
        metrics.paired_difference([1.0, 2.0, 3.0], [1.0, 2.0])


def test_the_paired_test_agrees_with_scipy():
    a, b = [0.50, 0.60, 0.71, 0.55], [0.48, 0.61, 0.66, 0.50]
    mean, half, p = metrics.paired_difference(a, b)
    reference = stats.ttest_rel(a, b)
    assert p == pytest.approx(reference.pvalue)
    low, high = reference.confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((low, high))
    assert metrics.paired_difference(b, a)[2] == pytest.approx(p)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_exceeds_bonferroni(p):
    corrected = metrics.holm(p)
    assert all(
        raw - 1e-12 <= after <= min(1, len(p) * raw) + 1e-12 for raw, after in zip(p, corrected, strict=True)
    )
    by_size = [corrected[i] for i in sorted(range(len(p)), key=p.__getitem__)]
    assert by_size == sorted(by_size)


@pytest.mark.parametrize("scale", SCALES)
def test_conflict_gives_cosines_and_magnitude_similarities(scale):
    J = scale * torch.tensor([[1.0, 0.0], [-3.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    cosine, similarity = metrics.conflict(J)
    half = math.sqrt(0.5)
    torch.testing.assert_close(cosine, torch.tensor([[1, -1, half], [-1, 1, -half], [half, -half, 1]]).double())
    assert similarity[0, 1].item() == pytest.approx(2 * 1 * 3 / (1 + 9))
    assert similarity[0, 2].item() == pytest.approx(2 * math.sqrt(8) / (1 + 8))
    torch.testing.assert_close(similarity, similarity.T)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(3, dtype=torch.float64))


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_conflict_agrees_with_pytorchs_cosines(seed, T):
    J = draw(T, 3, seed, dtype=torch.float32)
    cosine, similarity = metrics.conflict(J)
    torch.testing.assert_close(
        cosine, torch.cosine_similarity(J.double().unsqueeze(0), J.double().unsqueeze(1), dim=2)
    )
    assert ((similarity > 0) & (similarity <= 1 + 1e-12)).all()


def test_a_gradient_of_zero_has_no_direction():
    cosine, similarity = metrics.conflict(torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    assert cosine[0].tolist() == [0.0, 0.0, 0.0]
    assert similarity[0].tolist() == [1.0, 0.0, 1.0]


def test_conflict_keeps_no_graph():
    J = draw(2, 2).requires_grad_()
    assert not metrics.conflict(J)[0].requires_grad


@pytest.mark.parametrize("gradients", [torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.long)])
def test_conflict_takes_one_row_a_task(gradients):
    with pytest.raises(ValueError, match="gradients must be a floating-point tensor"):
        metrics.conflict(gradients)


def test_first_order_changes_are_inner_products():
    J = torch.tensor([[1.0, 2.0, 0.0], [-1.0, 0.5, 4.0], [0.0, 0.0, 0.0]], requires_grad=True)
    step = torch.tensor([-0.5, 0.25, 1.0])
    changes = metrics.first_order_changes(J, step)
    assert changes.tolist() == [0.0, 4.625, 0.0]
    assert changes.dtype == torch.float64
    assert not changes.requires_grad


@pytest.mark.parametrize(
    ("optimizer", "lr", "raising"), [(torch.optim.SGD, 1e-3, 0), (torch.optim.Adam, 0.05, 20)]
)
def test_a_direction_that_raises_no_loss_may_do_so_through_adam(optimizer, lr, raising):
    A, b = draw(12, 6, 2).view(3, 4, 6), draw(3, 4, 102)  # three drawn least-squares problems of six numbers
    theta = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    descent, steps = optimizer([theta], lr=lr), []
    for _ in range(20):
        before, losses = theta.detach().clone(), (A @ theta - b).square().mean(1)
        J = torch.stack([torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses])
        descent.zero_grad()
        mtl.MGDA().backward(losses, shared=[theta])
        descent.step()
        step = theta.detach() - before
        steps.append(metrics.first_order_changes(J, step))
        quadratic = (A @ step).square().mean(1)  # the rest of a quadratic's change
        torch.testing.assert_close(steps[-1] + quadratic, (A @ theta - b).square().mean(1) - losses)
    rises = (torch.stack(steps) > 1e-12).any(1)
    assert rises.sum() == raising


@pytest.mark.parametrize(
    ("gradients", "step"),
    [
        (torch.ones(3), torch.ones(3)),
        (torch.ones(2, 3), torch.ones(2)),
        (torch.ones(2, 3), torch.ones(1, 3)),
        (torch.ones(2, 3), torch.ones(3).long()),
        (torch.ones(2, 3).long(), torch.ones(3)),
        (torch.zeros(0, 3), torch.ones(3)),
        (torch.zeros(2, 0), torch.ones(0)),
    ],
)
def test_a_step_has_one_entry_for_each_column_of_the_gradients(gradients, step):
    with pytest.raises(
        ValueError, match=r"gradients must be .* \(T, P\), one row per task, and step one of shape"
    ):
        metrics.first_order_changes(gradients, step)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_change_that_is_not_finite_is_named(bad):
    with pytest.raises(ValueError, match="the gradients or the step are not finite"):
        metrics.first_order_changes(torch.ones(2, 3), torch.tensor([1.0, bad, 0.0]))
