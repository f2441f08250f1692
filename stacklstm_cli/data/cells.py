"""What a cell means: a number, in any usual notation, or a missing value."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

NA_WORDS = frozenset(
    (
        "",
        "na",
        "n/a",
        "n.a.",
        "nan",
        "null",
        "none",
        "-",
        "?",
        ".",
        "..",
        "...",
        "<na>",
        "#n/a",
        "#na",
        "nat",
        "#div/0!",
    )
)
"""Cells without a value, in any case."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
UNITS = "$€£¥%"
"""A column may carry one of these behind or before each of its numbers."""
BLANKS = " \u00a0\u202f\u2009"
"""Spaces that part thousands; two of them do not break lines."""
APOSTROPHES = "'’"
"""In Switzerland."""
DOUBTFUL = r"[+-]?[1-9]\d{0,2}[.,]\d{3}"
"""1,234 or 1.234: one of them parts thousands, or neither does."""


def _notation(decimal: str) -> re.Pattern[str]:
    other = "," if decimal == "." else "."
    return re.compile(
        rf"(?P<sign>[+\-−]?)\s?(?P<before>[{UNITS}]?)\s?(?P<inner>[+\-−]?)"
        rf"(?P<whole>[1-9]\d{{0,2}}(?P<mark>[{BLANKS}{APOSTROPHES}{other}])\d{{3}}(?:(?P=mark)\d{{3}})*|\d*)"
        rf"(?:{re.escape(decimal)}(?P<rest>\d*))?(?P<power>e[+-]?\d+)?\s?(?P<behind>[{UNITS}]?)",
        re.IGNORECASE,
    )


NOTATIONS: dict[str, re.Pattern[str]] = {".": _notation("."), ",": _notation(",")}


def is_missing(word: str) -> bool:
    return word.strip().lower() in NA_WORDS


def number_of(word: str) -> float | None:
    """A cell as a number with a decimal point; NaN where it is missing, None where it is neither."""
    cleaned = word.strip()
    if cleaned.lower() in NA_WORDS:
        return float("nan")
    return float(cleaned) if NUMBER.fullmatch(cleaned) else None


def plain_number(word: str, decimal: str) -> tuple[str, str] | None:
    """A number as Python writes it, without parted thousands and unit, and its unit; None for any other cell."""
    cleaned = word.strip()
    if decimal == "." and NUMBER.fullmatch(cleaned):
        return cleaned, ""
    found = NOTATIONS[decimal].fullmatch(cleaned)
    if found is None:
        return (cleaned, "") if re.fullmatch(r"[+-]?inf(inity)?", cleaned, re.IGNORECASE) else None
    sign, inner, unit, behind = found["sign"], found["inner"], found["before"], found["behind"]
    if not (found["whole"] or found["rest"]) or (sign and inner) or (unit and behind):
        return None
    whole = re.sub(r"\D", "", found["whole"])
    point = f".{found['rest']}" if found["rest"] else ""
    return f"{sign or inner}{whole}{point}{found['power'] or ''}".replace("−", "-"), unit or behind


def decimals_of(cells: Iterable[str]) -> tuple[set[str], str]:
    """The decimal signs that some cell has beyond doubt, and a cell that fits both, such as 1,234.

    A cell that fits both by its point is taken for a plain decimal number, and is not named.
    """
    certain: set[str] = set()
    doubtful = ""
    for cell in cells:
        if "." not in cell and "," not in cell:
            continue
        readings = {sign: plain_number(cell, sign) for sign in NOTATIONS}
        fitting = [sign for sign, reading in readings.items() if reading is not None]
        if len(fitting) == 1:
            certain.add(fitting[0])
        elif fitting and "," in cell and readings["."] != readings[","]:
            doubtful = doubtful or cell
    return certain, doubtful


@dataclass(frozen=True)
class Missing:
    """What counts as missing besides the usual words, as told by --missing-value."""

    words: frozenset[str] = frozenset()
    numbers: tuple[float, ...] = ()

    @classmethod
    def of(cls, values: Iterable[str]) -> Missing:
        """`values` as typed: a word, or a number with a decimal point."""
        stripped = [value.strip() for value in values]
        numbers = [number_of(value) for value in stripped]
        return cls(
            frozenset(value.lower() for value in stripped),
            tuple(number for number in numbers if number is not None and number == number),
        )

    def holds(self, word: str) -> bool:
        """Whether a cell of text or of a column of numbers is missing."""
        cleaned = word.strip().lower()
        return cleaned in NA_WORDS or cleaned in self.words


USUAL = Missing()
"""The usual words alone."""
