"""Random panels, written in random dialects, are read back equal, or refused where there are two readings."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.data.reading import read_panel
from stacklstm_cli.errors import DataError

NUMERIC_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d.%m.%y", "%m/%d/%y")
NAMED_DAYS = ("%d %b %Y", "%d-%b-%Y", "%B %d, %Y", "%b %d, %Y", "%d-%b-%y", "%d %B %Y")
DAYS = (*NUMERIC_DAYS, *NAMED_DAYS, "%Y%m%d")
HOURS = (
    *(f"{day} %H:%M" for day in (*NUMERIC_DAYS, "%d %b %Y")),
    *("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%m/%d/%Y %I:%M %p", "%d.%m.%Y %H:%M:%S", "%Y%m%d%H%M"),
)
STEPS: dict[str, tuple[str, ...]] = {
    "15min": HOURS,
    "h": HOURS,
    "D": DAYS,
    "B": DAYS,
    "W-SUN": DAYS,
    "MS": (*DAYS, "%Y-%m", "%b-%y", "%b %Y", "%B %Y", "%m/%Y", "%Y%m"),
    "ME": DAYS,
    "QS": (*DAYS, "%YQq", "%Y-Qq", "Qq %Y"),
    "YS": (*DAYS, "%Y"),
    "1": ("",),
    "5": ("",),
}
WORDS = ("sun", "Größe 2", "a;b", "x, y", 'he said "hi"', "c|d", "5 Uhr")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "cp1252")
REFUSALS = {"ambiguous_dates": "date_format", "ambiguous_comma": "decimal"}


@dataclass(frozen=True)
class Truth:
    """What the file means; every series has a row for every stamp from its first to its last value."""

    stamps: dict[str, list[str]]
    """Of each series, with those of three more rows behind its last."""
    values: dict[str, list[float]]
    degrees: dict[str, list[float]]
    weather: dict[str, list[str]]


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    delimiter: str
    decimal: str
    thousands: str
    encoding: str
    quoting: Any
    newline: str
    missing: str

    def number(self, value: float, places: int) -> str:
        if np.isnan(value):
            return self.missing
        plain = f"{value:,.{places}f}"
        return plain.replace(",", "\0").replace(".", self.decimal).replace("\0", self.thousands)

    def write(self, header: list[str], rows: list[list[str]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=self.delimiter, quoting=self.quoting, lineterminator=self.newline)
        writer.writerows([header, *rows])
        return text.getvalue().encode(self.encoding)


def stamps_of(freq: str, form: str, first: datetime, start: int, rows: int, short: bool) -> list[str]:
    """The stamps of rows on the grid of `freq` from position `start` on, as text."""
    if not form:
        return [str((start + at) * int(freq)) for at in range(rows)]
    stamps = pd.date_range(first, periods=start + rows, freq=freq)[start:]
    texts = [f"{one.strftime(form)}".replace("q", str(one.quarter)) if "Qq" in form else one.strftime(form)
             for one in stamps]  # fmt: skip
    return [shortened(text) for text in texts] if short else texts


def shortened(text: str) -> str:
    """Days and months without a leading zero: 01/07/2020 as 1/7/2020, 2020/01/07 as 2020/1/7; clocks as they are."""
    text = re.sub(r"(?<![\d:])0(\d)(?=[/.-])", r"\1", text)
    return re.sub(r"^(\d{4}[/.-]\d+[/.-])0(?=\d)", r"\1", text)


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, DataConfig, str, Dialect, Truth]:
    """A file, the roles to name, the form of its time, its dialect, and what it means."""
    layout = draw(st.sampled_from(("single", "long", "wide")))
    freq = draw(st.sampled_from(sorted(STEPS)))
    form = draw(st.sampled_from(STEPS[freq]))
    zone = draw(st.sampled_from(("", "Z", "+05:30"))) if form.startswith("%Y-%m-%d") and "%H" in form else ""
    dialect = draw(dialects())
    places = draw(st.sampled_from((0, 1, 2) if dialect.thousands != "." else (1, 2)))
    short = bool(re.search(r"%[md][/.]", form)) and not zone and draw(st.booleans())
    numeric, texts = draw(st.booleans()), layout != "wide" and draw(st.booleans())
    names = ["y"] if layout == "single" else draw(
        st.lists(st.sampled_from(("north", "Süd", "b 2", "x-3", "total")), min_size=2, max_size=3, unique=True)
    )  # fmt: skip
    # Calendars begin far enough from each other's turns for every reading to be tried.
    first = datetime(draw(st.integers(1995, 2030)), draw(st.integers(1, 12)), draw(st.integers(1, 28)))
    truth = Truth({}, {}, {}, {})
    most = draw(st.sampled_from((99, 99_999, 9_999_999)))
    number = st.integers(-most if draw(st.booleans()) else 0, most)
    for name in names:
        start, rows = draw(st.integers(0, 3)), draw(st.integers(16, 24))
        values = [value / 10**places for value in draw(st.lists(number, min_size=rows, max_size=rows))]
        for at in draw(st.lists(st.integers(12, rows - 2), max_size=3)):
            values[at] = float("nan")
        truth.stamps[name] = [one + zone for one in stamps_of(freq, form, first, start, rows + 3, short)]
        truth.values[name] = values
        truth.degrees[name] = [draw(st.integers(-50, 400)) / 10 for _ in range(rows)]
        truth.weather[name] = [draw(st.sampled_from(WORDS)) for _ in range(rows)]
    time = draw(st.sampled_from(("when", "Datum", "ds", "time"))) if form else "step"
    header, rows_of_file = written(draw, layout, time, truth, dialect, places, numeric, texts)
    past = (("degrees",) if numeric else ()) + (("weather",) if texts else ())
    target = ("y",) if layout != "wide" else tuple(names) if past else ()
    return dialect.write(header, rows_of_file), DataConfig(past=past, target=target), form, dialect, truth


@st.composite
def dialects(draw: st.DrawFn) -> Dialect:
    decimal = draw(st.sampled_from(".,"))
    return Dialect(
        delimiter=draw(st.sampled_from((",", ";", "\t", "|"))),
        decimal=decimal,
        thousands=draw(st.sampled_from(("", "", ",." [decimal == ","], " ", "'"))),
        encoding=draw(st.sampled_from(ENCODINGS)),
        quoting=draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))),
        newline=draw(st.sampled_from(("\n", "\r\n"))),
        missing=draw(st.sampled_from(("", "NA", "null", "NaN", "-"))),
    )  # fmt: skip


def written(
    draw: st.DrawFn, layout: str, time: str, truth: Truth, dialect: Dialect, places: int, numeric: bool, texts: bool
) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, in any order; a missing value is an empty cell or a row left out."""
    rows: list[list[str]] = []
    if layout == "wide":
        cells: dict[str, dict[str, str]] = {}
        for name, values in truth.values.items():
            for stamp, value in zip(truth.stamps[name], values, strict=False):
                cells.setdefault(stamp, {})[name] = dialect.number(value, places)
        # One covariate for all series: that of the first, where it has rows.
        first = next(iter(truth.values))
        degrees = dict(zip(truth.stamps[first], truth.degrees[first], strict=False))
        for name in truth.values:
            truth.degrees[name] = [degrees.get(stamp, float("nan")) for stamp in truth.stamps[name]]
        extra = ["degrees"] if numeric else []
        for stamp, own in cells.items():
            row = [stamp, *(own.get(name, dialect.missing) for name in truth.values)]
            rows.append(row + ([dialect.number(degrees.get(stamp, float("nan")), 1)] if numeric else []))
        return [time, *truth.values, *extra], draw(st.permutations(rows))
    for name, values in truth.values.items():
        for at, value in enumerate(values):
            if np.isnan(value) and draw(st.booleans()):
                truth.degrees[name][at], truth.weather[name][at] = float("nan"), ""
                continue
            row = [truth.stamps[name][at], dialect.number(value, places)]
            row += [dialect.number(truth.degrees[name][at], 1)] if numeric else []
            row += [truth.weather[name][at]] if texts else []
            rows.append([name, *row] if layout == "long" else row)
    header = [time, "y", *(["degrees"] if numeric else []), *(["weather"] if texts else [])]
    return ["region", *header] if layout == "long" else header, draw(st.permutations(rows))


def same_text(ours: list[str], theirs: list[str]) -> bool:
    """Equal, but for zeros before numbers that no stamp of the file may have shown."""
    return [shortened(text) for text in ours] == [shortened(text) for text in theirs]


def assert_equal(panel: Panel, truth: Truth, roles: DataConfig) -> None:
    assert {panel.keys[at][0] if panel.keys[at] else "y" for at in range(panel.n_series)} == set(truth.values)
    for at in range(panel.n_series):
        name = panel.keys[at][0] if panel.keys[at] else "y"
        np.testing.assert_array_equal(panel.series(at), truth.values[name])
        positions = panel.starts[at] + np.arange(panel.lengths[at] + 3)
        (found,) = panel.time_columns(positions).values()
        assert same_text(found, truth.stamps[name]), (found, truth.stamps[name])
        rows = int(panel.lengths[at])
        for place, role in enumerate(roles.past):
            begin = int(panel.timed_at[at])
            cells = panel.timed[begin : begin + rows, place]
            if role == "degrees":
                np.testing.assert_array_equal(cells, np.asarray(truth.degrees[name][:rows], dtype=np.float32))
            else:
                categories = panel.covariates[place].categories or ()
                words = ["" if np.isnan(cell) else categories[int(cell)] for cell in cells]
                assert words == truth.weather[name]


def has_two_readings(code: str, form: str, dialect: Dialect, data: bytes, truth: Truth) -> bool:
    """Whether a refusal is right: both orders of day and month parse, or no number shows what a comma is."""
    if code == "ambiguous_comma":
        rows = csv.reader(io.StringIO(data.decode(dialect.encoding), newline=""), delimiter=dialect.delimiter)
        telling = re.compile(r"[\d.,' -]*(\.\d*,|,\d*\.|,\d{3},\d{3})[\d.,' ]*")
        return not any(telling.fullmatch(cell) for row in rows for cell in row)
    other = form.replace("%d", "\0").replace("%m", "%d").replace("\0", "%m")
    given = [stamp for name, stamps in truth.stamps.items() for stamp in stamps[: len(truth.values[name])]]
    try:
        days = {datetime.strptime(stamp.removesuffix("Z"), other) for stamp in given}
    except ValueError:
        return False
    return len(days) > 1


SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck)}


def there_and_back(folder: Path, data: bytes, roles: DataConfig, form: str, dialect: Dialect, truth: Truth) -> None:
    path = folder / "data.csv"
    path.write_bytes(data)
    refusal: DataError | None = None
    try:
        panel = read_panel([str(path)], roles)
    except DataError as error:
        refusal = error
    if refusal is not None:
        assert refusal.code in REFUSALS, refusal.message
        assert has_two_readings(refusal.code, form, dialect, data, truth), refusal.message
        assert "--" + REFUSALS[refusal.code].replace("_", "-") in refusal.hint
        # What the hint asks for settles it.
        settled = ReadingConfig(date_format=form if form.count("%") > 1 else None, decimal=dialect.decimal)
        panel = read_panel([str(path)], roles, settled)
    assert_equal(panel, truth, roles)


@settings(max_examples=25, **SETTINGS)
@given(file=files())
def test_a_panel_in_any_dialect(tmp_path: Path, file: Any) -> None:
    there_and_back(tmp_path, *file)


@pytest.mark.slow
@settings(max_examples=3000, **SETTINGS)
@given(file=files())
def test_many_panels_in_any_dialect(tmp_path: Path, file: Any) -> None:
    there_and_back(tmp_path, *file)
