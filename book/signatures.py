"""A Sphinx extension for the API page: a class that takes no arguments is shown as `Name()`.

Such a class has no `__init__` of its own, and Sphinx would show that of torch's `nn.Module`: `(*args, **kwargs)`.
"""

from typing import Any

from sphinx.application import Sphinx


def without_torch(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The signature `()` for a class of ours whose `__init__` is another package's; None leaves it as it is."""
    module = getattr(obj.__init__, "__module__", "") if what == "class" else ""
    return ("()", returns) if module.startswith("torch.") else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", without_torch)
    return {"parallel_read_safe": True}
