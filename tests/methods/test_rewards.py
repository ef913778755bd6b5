"""GDPO: TRL's formula restated, what it does not depend on, and what the normalised sum cannot tell apart."""

import pytest
import torch
from torch import Tensor

import mtl_ref as mtl


def drawn(T: int = 3, N: int = 4, G: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(T, N, G, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def as_in_trl(rewards: Tensor, weights: Tensor, eps: float) -> Tensor:
    """A loop over rewards; then the whole batch."""
    total = torch.zeros_like(rewards[0])
    for w, r in zip(weights, rewards, strict=True):
        for n, group in enumerate(r):
            total[n] += w * (group - group.mean()) / (group.std() + eps)
    return (total - total.mean()) / (total.std() + eps)


def grpo(rewards: Tensor) -> Tensor:
    total = rewards.sum(0)
    return (total - total.mean(1, keepdim=True)) / total.std(1, keepdim=True)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 3.0, 1.0]])
def test_advantages_are_those_of_the_formula(weights: list[float]) -> None:
    rewards, w = drawn(), torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(mtl.gdpo(rewards, weights), as_in_trl(rewards, w, 0.0), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mtl.gdpo(rewards, weights), as_in_trl(rewards, w, 1e-4), rtol=1e-3, atol=1e-3)


def test_unit_and_origin_of_a_reward_do_not_count_in_any_group() -> None:
    rewards = drawn()
    moved = rewards * torch.tensor([1e-6, 1.0, 1e6])[:, None, None] + drawn(3, 4, 1, seed=1)
    torch.testing.assert_close(mtl.gdpo(moved), mtl.gdpo(rewards), rtol=1e-7, atol=1e-7)
    assert (grpo(moved) - grpo(rewards)).abs().max() > 0.1


def test_rewards_of_the_same_sum_can_be_told_apart() -> None:
    """Answers 0 and 1 earn 1 each; the first reward is rarer, so to earn it is worth more."""
    rewards = torch.tensor([[[1.0, 0.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]]])
    together, apart = grpo(rewards)[0], mtl.gdpo(rewards)[0]
    assert together[0] == together[1] == together[2]
    assert apart[0] > apart[1] == apart[2] > apart[3]


def test_advantages_have_mean_zero_and_deviation_one() -> None:
    found = mtl.gdpo(drawn(5, 7, 3))
    assert abs(found.mean()) < 1e-15
    assert found.std() == pytest.approx(1)


def test_a_reward_that_does_not_differ_in_a_group_says_nothing_there() -> None:
    rewards = drawn(2)
    rewards[1, 2] = 0.1
    without = rewards.clone()
    without[1, 2] = 7e5
    torch.testing.assert_close(mtl.gdpo(rewards), mtl.gdpo(without))
    assert not mtl.gdpo(torch.full((2, 3, 4), 0.1)).any()


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (0, 4, 2)])
def test_rewards_that_are_none_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rewards must be .* shape \(T, N, G\)"):
        mtl.gdpo(torch.zeros(shape))


def test_a_reward_that_is_missing_is_named_and_so_are_priorities_that_do_not_fit() -> None:
    rewards = drawn()
    with pytest.raises(ValueError, match="there are 3 rewards but 2 priorities"):
        mtl.gdpo(rewards, [1, 1])
    with pytest.raises(ValueError, match=r"the priority of task 1 .* is 0.* positive"):
        mtl.gdpo(rewards, [1, 0, 1])
    rewards[2, 1, 3] = torch.nan
    with pytest.raises(ValueError, match=r"reward 2 of answer 3 to prompt 1 .* is nan"):
        mtl.gdpo(rewards)
    with pytest.raises(ValueError, match=r"type torch\.int64"):
        mtl.gdpo(torch.ones(2, 2, 2).long())
