"""A Sphinx extension for the API page, where two kinds of signature would show what is not the package's own.

A class without an `__init__` of its own would show that of torch's `nn.Module`, `(*args, **kwargs)`: it takes no
arguments. A field that a dataclass makes anew would show `<factory>`, which Sphinx cannot read: it is `...`.
"""

from typing import Any

from sphinx.application import Sphinx


def plain(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """The signature to show, and what is returned."""
    if what == "class" and str(getattr(obj.__init__, "__module__", "")).startswith("torch."):
        return "()", returns
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", plain)
    return {"parallel_read_safe": True}
