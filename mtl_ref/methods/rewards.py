"""GDPO: several rewards of language models, each normalised in its group before they are added (chapter 15).

Source: Liu, Dong, Lu et al., "GDPO: Group reward-Decoupled Normalization Policy Optimization for Multi-reward RL
Optimization", 2026, arXiv 2601.05242.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtl_ref.checks import as_vector


def gdpo(
    rewards: Tensor,
    priorities: Tensor | Sequence[float] | None = None,
) -> Tensor:
    """The advantage of each answer: every reward normalised in its group, added up, and whitened over the batch.

    GRPO adds the rewards first and normalises the sum: the reward that differs most decides, and different
    rewards with the same sum cannot be told apart. In TRL that is the default, and this is
    `multi_objective_aggregation="normalize_then_sum"`.

    Deviations are those of samples (divided by n − 1), as in TRL, which adds 1e-4 to them. Here nothing is added:
    a reward that does not differ in a group says nothing there, and an advantage that is the same everywhere is 0.

    Args:
        rewards: T rewards of G answers to each of N prompts, shape (T, N, G).
        priorities: your own weights v of the rewards, shape (T,), all > 0. Where None, all are 1.

    Returns:
        The advantages, shape (N, G), of mean 0 and deviation 1.

    Raises:
        ValueError: the rewards are no finite floating-point numbers of shape (T, N, G) with G ≥ 2, or a priority
            is not positive and finite, or there is not one a reward.
    """
    check_rewards(rewards)
    v = torch.ones(len(rewards))
    if priorities is not None:
        v = as_vector(priorities, "the priority", positive=True)
    check_number(v, rewards)
    A = normalized(rewards, dim=-1)  # (GP.1)  (T, N, G)
    total = torch.einsum("t,tng->ng", v.to(A), A)  # (GP.2)  (N, G)
    return normalized(total, dim=(0, 1))  # (GP.3)


def normalized(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x less its mean, divided by its deviation; 0 where it does not deviate but for rounding."""
    rest = x - x.mean(dim, keepdim=True)
    deviation = x.std(dim, keepdim=True)
    size = x.abs().amax(dim, keepdim=True)
    varies = deviation > 8 * torch.finfo(x.dtype).eps * size
    deviation = torch.where(varies, deviation, 1.0)
    return torch.where(varies, rest / deviation, 0.0)


def check_rewards(rewards: Tensor) -> None:
    """Raise a ValueError unless these are finite floating-point numbers of shape (T, N, G) with G ≥ 2."""
    if rewards.ndim != 3 or rewards.numel() == 0 or rewards.shape[-1] < 2 or not rewards.is_floating_point():
        raise ValueError(
            "rewards must be a floating-point tensor of shape (T, N, G): T rewards of G ≥ 2 answers to each of N "
            f"prompts; but it has shape {tuple(rewards.shape)} and type {rewards.dtype}."
        )
    if not rewards.isfinite().all():
        t, n, g = (~rewards.isfinite()).nonzero()[0].tolist()
        raise ValueError(
            f"reward {t} of answer {g} to prompt {n} (counting from 0) is {rewards[t, n, g].item()}, but must be "
            "finite. Leave out the answers that have no reward, or give them one."
        )


def check_number(priorities: Tensor, rewards: Tensor) -> None:
    """Raise a ValueError unless there is a priority for each reward."""
    if len(priorities) != len(rewards):
        raise ValueError(f"there are {len(rewards)} rewards but {len(priorities)} priorities.")
