"""The root of a falling function: where it is, at an end, and in few values."""

import math
from collections.abc import Callable

import pytest

from mtl_ref.solvers.root import root

FALLING: dict[str, tuple[Callable[[float], float], float, float, float]] = {
    "straight": (lambda x: 3 - x, 0.0, 10.0, 3.0),
    "steep": (lambda x: math.exp(-x) - 1e-3, 0.0, 20.0, math.log(1000)),
    "flat": (lambda x: 1e-9 * (2 - x**3), 0.0, 5.0, 2 ** (1 / 3)),
    "a bend": (lambda x: 1 - x if x < 1 else 100 * (1 - x), 0.0, 7.0, 1.0),
}


@pytest.mark.parametrize("name", FALLING)
def test_it_is_found_in_few_values(name: str) -> None:
    f, low, high, expected = FALLING[name]
    seen: list[float] = []

    def watched(x: float) -> float:
        seen.append(x)
        return f(x)

    assert root(watched, low, high) == pytest.approx(expected, rel=1e-10)
    assert len(seen) < 100
    assert all(low <= x <= high for x in seen)


def test_a_function_without_a_root_between_the_ends_gives_the_nearer_end() -> None:
    assert root(lambda x: -1 - x, 0.0, 2.0) == 0.0
    assert root(lambda x: 5 - x, 0.0, 2.0) == 2.0
