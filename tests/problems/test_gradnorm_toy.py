"""GradNorm's toy: the paper's sizes and scales, and one unit of loss a task at the start."""

import pytest

from mtl_ref.problems.toy.gradnorm import GradNormToy


def test_the_toy_is_the_papers_and_starts_at_one_per_task() -> None:
    problem = GradNormToy([1.0, 100.0], samples=200)
    assert repr(problem) == "GradNormToy([1.0, 100.0], seed=0, samples=200)"
    assert problem.y["train"].shape == (2, 200, 100)
    scale = problem.y["train"].square().mean((1, 2)).sqrt()
    assert scale.tolist() == pytest.approx([1, 100], rel=0.05)  # tanh of a spread of 50 is ±1
    model = problem.model()
    assert sum(p.numel() for p in model.encoder.parameters()) == 251 * 100 + 3 * 101 * 100
    assert problem.evaluate(model, "test")["normalised loss"] == pytest.approx(2, rel=0.1)
    shared = problem.y["test"][0] * problem.y["test"][1] / 100
    assert shared.mean() > 0.5  # the tasks agree on most signs, since B varies more than ε
    with pytest.raises(ValueError, match="one positive number per task"):
        GradNormToy([1.0, 0.0])
