"""The pictures that chapters share: what is drawn, and under which names."""

import matplotlib.pyplot as plt
import pytest

from mtl_ref import plotting
from mtl_ref.training import History


def history(weights: list[list[float] | None]) -> History:
    validation = [{"accuracy": 0.5 + 0.1 * epoch} for epoch in range(3)]
    return History(("left", "right"), {"accuracy": True}, weights=weights, validation=validation)


def test_a_learning_curve_is_a_method_and_its_points_are_epochs() -> None:
    ax = plotting.learning_curves({"a": history([]), "b": history([])}, "accuracy", plt.figure().gca())
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert ax.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.6, 0.7])


def test_weights_are_drawn_a_task_a_line_without_the_epochs_that_have_none() -> None:
    ax = plotting.weights_over_time(history([[1.0, 2.0], None, [3.0, 4.0]]), plt.figure().gca())
    assert [line.get_label() for line in ax.lines] == ["left", "right"]
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 3], [2, 4]]
    with pytest.raises(ValueError, match="no weights"):
        plotting.weights_over_time(history([None]), plt.figure().gca())


def test_a_comparison_has_a_row_a_method_the_first_on_top() -> None:
    results = {"a": [{"error": 1.0}, {"error": 3.0}], "b": [{"error": 5.0}, {"error": 5.0}]}
    ax = plotting.comparison(results, "error", plt.figure().gca())
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in dots] == [[1, 3], [5, 5]]
    means = [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "D"]
    assert means == [[2], [5]]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
