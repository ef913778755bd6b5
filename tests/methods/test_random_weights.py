"""Random weights: their distribution, and whose draw it is."""

import pytest
import torch
from cases import draw, vector

import mtl_ref as mtl


def weights(distribution: str, T: int, draws: int) -> torch.Tensor:
    balancer = mtl.RLW(distribution, torch.Generator().manual_seed(0))
    losses = torch.ones(T, dtype=torch.float64, requires_grad=True)
    return torch.stack([balancer.backward(losses) for _ in range(draws)])


def test_normal_weights_are_the_softmax_of_normal_numbers() -> None:
    expected = torch.randn(4, generator=torch.Generator().manual_seed(0)).softmax(0)
    torch.testing.assert_close(weights("normal", 4, 1)[0], expected.double())


@pytest.mark.parametrize("T", [2, 5])
def test_dirichlet_weights_are_uniform_over_the_simplex(T: int) -> None:
    w = weights("dirichlet", T, 4000)
    torch.testing.assert_close(w.mean(0), torch.full((T,), 1 / T).double(), rtol=0.05, atol=0)
    # a coordinate of the uniform distribution over the simplex has the distribution function 1 − (1 − x)^(T−1)
    for x in (0.1, 0.3, 0.7):
        assert abs((w[:, 0] < x).double().mean() - (1 - (1 - x) ** (T - 1))) < 0.03


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_they_sum_to_one_differ_from_step_to_step_and_are_equal_on_average(distribution: str) -> None:
    w = weights(distribution, 3, 2000)
    torch.testing.assert_close(w.sum(1), torch.ones(2000).double())
    assert (w > 0).all()
    assert w.std(0).min() > 0.1
    assert ((w.mean(0) - 1 / 3).abs() < 4 * w.std(0) / 2000**0.5).all()


def test_a_given_generator_draws_and_the_global_one_does_not() -> None:
    before = torch.get_rng_state()
    weights("normal", 3, 1)
    assert torch.equal(before, torch.get_rng_state())
    mtl.RLW().backward(draw(1, 3)[0].abs().requires_grad_())
    assert not torch.equal(before, torch.get_rng_state())


def test_a_distribution_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"distribution is 'uniform', .* one of \['normal', 'dirichlet'\]"):
        mtl.RLW("uniform")
    assert "distribution=normal" in repr(mtl.RLW())
    torch.testing.assert_close(mtl.RLW()(vector(2.0, 2.0)), vector(2.0)[0])
