"""Kendall's two lines: their slopes, their noise, and the seed they are drawn from."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_ref.problems import toy


@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_kendalls_lines_are_what_they_say(seed: int) -> None:
    x, y = toy.kendall_lines(20_000, generator=torch.Generator().manual_seed(seed))
    assert (x.shape, y.shape, x.dtype, y.dtype) == ((20_000, 1), (20_000, 2), torch.float64, torch.float64)
    design = torch.cat([x, torch.ones_like(x)], 1)
    fit = torch.linalg.lstsq(design, y).solution
    sigma = torch.tensor(toy.KENDALL_SIGMAS, dtype=torch.float64)
    truth = torch.tensor([[2, 3], [8, 3]], dtype=torch.float64)
    assert ((fit - truth).abs() < 6 * sigma / 20_000**0.5).all()
    residual = (y - design @ fit).square().mean(0).sqrt()
    assert ((residual / sigma - 1).abs() < 6 / (2 * 20_000) ** 0.5).all()


def test_kendalls_lines_have_100_points_and_are_drawn_from_the_seed() -> None:
    one, again, other = (toy.kendall_lines(generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one[0].shape == (100, 1)
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[1], other[1])
