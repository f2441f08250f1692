"""How cells and names of columns stand in messages and in what a user is told to type."""

from __future__ import annotations

import re

LONGEST_SHOWN = 60
"""Characters of a cell; it may be a whole paragraph, where a quotation mark is not closed."""


def shown(cell: str) -> str:
    """A cell in quotation marks, cut where it is long."""
    return repr(cell if len(cell) <= LONGEST_SHOWN else cell[: LONGEST_SHOWN - 1] + "…")


def quoted(name: str) -> str:
    """The name of a column as it is typed in a shell."""
    return f"'{name}'" if re.search(r"[^\w.-]", name) or not name else name
