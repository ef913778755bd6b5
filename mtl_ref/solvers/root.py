"""Where a falling function of one number is zero."""

from collections.abc import Callable


def root(f: Callable[[float], float], low: float, high: float, tolerance: float = 1e-14) -> float:
    """The x in [low, high] with f(x) = 0, where f falls from f(low) ≥ 0 to f(high) ≤ 0, or one end if it does not.

    Regula falsi in the form called Illinois: the secant between the two ends gives the next point, and an end that
    stays twice counts half, so that both ends close in. Ten to twenty values of f are
    needed where it is smooth, more where it bends.

    Args:
        f: the function.
        low, high: where it is looked for.
        tolerance: it ends when the interval or the value is this share of the first.
    """
    at_low, at_high = f(low), f(high)
    if at_low <= 0:
        return low
    if at_high >= 0:
        return high
    enough = tolerance * max(at_low, -at_high)
    side = 0
    for _ in range(100):
        x = (low * at_high - high * at_low) / (at_high - at_low)
        value = f(x)
        if abs(value) <= enough or high - low <= tolerance * high:
            break
        if value > 0:
            low, at_low = x, value
            at_high = at_high / 2 if side > 0 else at_high
            side = 1
        else:
            high, at_high = x, value
            at_low = at_low / 2 if side < 0 else at_low
            side = -1
    return x
