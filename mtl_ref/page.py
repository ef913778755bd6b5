"""What a chapter needs to show the package's own source and to check its own numbers."""

import ast
import inspect
import os
import re
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from IPython.display import HTML, display
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

T = TypeVar("T")

TAG = re.compile(r"\(([A-Z]{2}\.\d+)\)")
FALLBACK = {".c1": "#6a737d", ".k": "#cf222e", ".s2": "#0a7d55", ".mf": "#8250df", ".mi": "#8250df"}


def profile() -> str:
    """How much a page runs: "quick" (default), or "full" if the environment variable MTL_REF_PROFILE says so."""
    name = os.environ.get("MTL_REF_PROFILE", "quick")
    if name not in ("quick", "full"):
        raise ValueError(f"MTL_REF_PROFILE is {name!r}, but must be 'quick' or 'full'.")
    return name


def choose(quick: T, full: T) -> T:
    """Whichever of the two values belongs to the current profile."""
    return quick if profile() == "quick" else full


def show(*objects: type | Callable[..., Any]) -> None:
    """Show the source of classes or functions, without docstrings, as it runs; a tag links to its equation."""
    code = "\n\n".join(source(o) for o in objects)
    page = highlight(code, PythonLexer(), HtmlFormatter())
    page = TAG.sub(lambda tag: f'<a href="#mjx-eqn:{tag[1]}">({tag[1]})</a>', page)
    # :where() has no weight, so these colours hold only where a page (Colab) has none of its own.
    style = "".join(f":where(.highlight {token}){{color:{colour}}}" for token, colour in FALLBACK.items())
    display(HTML(f"<style>{style}</style>{page}"))


def source(thing: type | Callable[..., Any]) -> str:
    """The source of a class or function without its own docstring."""
    code = textwrap.dedent(inspect.getsource(thing))
    lines = code.splitlines()
    definition = ast.parse(code).body[0]
    assert isinstance(definition, ast.ClassDef | ast.FunctionDef)
    if ast.get_docstring(definition) is not None:
        docstring = definition.body[0]
        end = docstring.end_lineno or docstring.lineno
        while end < len(lines) and not lines[end].strip():
            end += 1
        del lines[docstring.lineno - 1 : end]
    return "\n".join(lines).rstrip() + "\n"


def check(name: str, value: Any, expected: Any = True, tolerance: float = 0.0, *, full: Any = ...) -> None:
    """Print what was expected if a value agrees with it, and raise if not.

    What is printed does not depend on the machine, so that the page's text can be compared word for word.

    Args:
        name: what the value is, as a reader would say it.
        value: a truth value, a number, or numbers of any shape (a tensor, an array, a list).
        expected: the same kind of thing; True if left out, so that `check("it falls", a > b)` checks a claim.
        tolerance: the largest allowed `abs(value - expected)`, for every number.
        full: what is expected in the full profile instead, where that is something else. None if nothing has been
            recorded for it: then the full profile only prints the value.

    Raises:
        AssertionError: the value is further away than the tolerance, is nan, or has another shape.
    """
    if profile() == "full" and full is not ...:
        expected = full
    if expected is None:
        if profile() == "quick":
            raise ValueError(f"no number is recorded for {name}: give the expected value.")
        print(f"{name}: {value} (measured; nothing is recorded for the full profile)")
        return
    if isinstance(expected, bool | str):
        holds = type(expected)(value) == expected
        message = f"✓ {name}" if expected is True else f"✓ {name}: {expected}"
    else:
        measured, recorded = _numbers(value), _numbers(expected)
        holds = measured.shape == recorded.shape and bool(((measured - recorded).abs() <= tolerance).all())
        message = f"✓ {name} = {expected}" + (f" (within {tolerance:g})" if tolerance else "")
    if not holds:
        raise AssertionError(f"{name} is {value}, but {expected} (within {tolerance:g}) was expected.")
    print(message)


def _numbers(values: Any) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64).detach().cpu()
