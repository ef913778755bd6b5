"""The map of the methods on the landing page, made from the catalogue: a line for each title.

python book/method_map.py      (rewrites the lines between the two comments in intro.md)
"""

import re
from pathlib import Path

from mtl_ref.catalogue import CONTESTANTS, ROWS, Method

PAGE = Path(__file__).parent / "intro.md"
BEGIN = "<!-- made by: python book/method_map.py -->"
END = "<!-- end of the map -->"
HEAD = ["| method | looks at | decides by | backward passes through the encoder |", "|---|---|---|---|"]


def lines() -> list[str]:
    """The table: each method in its first form, and MGDA-UB, which has a chapter of its own."""
    rows: dict[str, Method] = {}
    for row in (*ROWS, CONTESTANTS["mgda-ub"]):
        rows.setdefault(row.title, row)
    cells = ((f"[{r.title}](../notebooks/{r.chapter}.ipynb)", r.sees, r.decides, r.passes) for r in rows.values())
    return HEAD + [re.sub(r"\bT\b", "$T$", f"| {' | '.join(cell)} |") for cell in cells]


def with_map(text: str) -> str:
    """The page with the table between the two comments."""
    before, rest = text.split(f"{BEGIN}\n")
    after = rest.split(f"{END}\n")[1]
    return before + "\n".join([BEGIN, "", *lines(), "", END]) + "\n" + after


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
