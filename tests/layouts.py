"""Files of every layout, long enough to cut: what `train` is told of them, and how they look up to a cutoff."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from panels import wave


@dataclass(frozen=True)
class Layout:
    """A file, and the words that train a small model of it."""

    frame: pd.DataFrame
    words: tuple[str, ...]
    keys: tuple[str, ...]
    """Columns of a forecast that tell series and time apart."""
    values: tuple[str, ...]
    """Columns of the file that are forecast."""
    known: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Columns of the file that name a series."""
        return tuple(self.words[self.words.index("--id") + 1].split(",")) if "--id" in self.words else ()

    @property
    def times(self) -> tuple[str, ...]:
        """Columns of a forecast that hold the time."""
        return tuple(name for name in self.keys if name not in (*self.ids, "series"))

    @property
    def n_series(self) -> int:
        return len(self.frame.groupby(list(self.ids))) if self.ids else len(self.values)

    def cut(self, rows: int) -> pd.DataFrame:
        """The file without the last `rows` rows of each series; of known covariates they stay, without a value."""
        groups = [group for _, group in self.frame.groupby(list(self.ids), sort=False)] if self.ids else [self.frame]
        pieces = []
        for group in groups:
            pieces.append(group.iloc[:-rows])
            if self.known:
                pieces.append(group.iloc[-rows:].assign(**dict.fromkeys(self.values, np.nan)))
        return pd.concat(pieces)

    def came(self) -> pd.DataFrame:
        """What came: the columns `keys` as text, and `came`."""
        frame = self.frame.astype({name: str for name in self.keys if name in self.frame})
        if "series" in self.keys:
            return frame.melt(list(self.times), list(self.values), "series", "came")
        if self.keys == ("step",):
            frame = frame.assign(step=np.arange(len(frame)).astype(str))
        return frame.rename(columns={self.values[0]: "came"})[[*self.keys, "came"]]


def stamps(rows: int, freq: str, form: str = "%Y-%m-%d %H:%M", start: str = "2024-01-03") -> list[str]:
    return pd.date_range(start, periods=rows, freq=freq).strftime(form).tolist()


def single() -> Layout:
    frame = pd.DataFrame({"time": stamps(200, "h"), "load": wave(200)})
    return Layout(frame, (), ("time",), ("load",))


def with_gaps() -> Layout:
    frame = pd.DataFrame({"time": stamps(220, "h"), "load": wave(220)})
    frame.loc[[20, 21, 90, 150, 188], "load"] = np.nan
    return Layout(frame.drop(index=[60, 61, 62, 185]), ("--gaps", "interpolate"), ("time",), ("load",))


def wide() -> Layout:
    frame = pd.DataFrame({"ts": stamps(160, "h"), "b": wave(160), "a": 1000 * wave(160, 1)})
    return Layout(frame, ("--loss", "student-t"), ("series", "ts"), ("b", "a"))


def long() -> Layout:
    """Two columns name a series; series begin and end at different days, written day first."""
    pieces = [
        pd.DataFrame(
            {"shop": shop, "item": item, "day": stamps(rows, "D", "%d.%m.%Y", start), "sold": wave(rows, rows, 7)}
        )
        for shop, item, rows, start in (("007", "x", 150, "2023-01-01"), ("7", "y", 120, "2023-02-11"))
    ]
    return Layout(pd.concat(pieces, ignore_index=True), ("--id", "shop,item"), ("shop", "item", "day"), ("sold",))


def without_time() -> Layout:
    return Layout(pd.DataFrame({"v": wave(150)}), ("--loss", "mse"), ("step",), ("v",))


def split_time() -> Layout:
    moments = pd.date_range("2024-01-30 05:00", periods=200, freq="h")
    parts = {name: getattr(moments, name) for name in ("year", "month", "day", "hour")}
    return Layout(pd.DataFrame(parts | {"load": wave(200)}), ("--min", "0"), tuple(parts), ("load",))


def business_days() -> Layout:
    frame = pd.DataFrame({"date": stamps(150, "B", "%Y-%m-%d"), "price": np.cumsum(wave(150, 3)) / 50})
    return Layout(frame, (), ("date",), ("price",))


def month_ends() -> Layout:
    days = pd.date_range("2010-01-31", periods=150, freq=pd.offsets.MonthEnd())
    frame = pd.DataFrame({"date": days.strftime("%Y-%m-%d"), "sales": wave(150, 4, 12)})
    return Layout(frame, ("--transform", "log1p"), ("date",), ("sales",))


def weeks() -> Layout:
    frame = pd.DataFrame({"week": stamps(150, "W-WED", "%m/%d/%Y"), "n": np.round(wave(150, 5, 26))})
    return Layout(frame, ("--loss", "negative-binomial"), ("week",), ("n",))


def zoned() -> Layout:
    """Local hours with their offset, over the night in autumn that has one hour twice."""
    moments = pd.date_range("2024-10-22", periods=200, freq="h", tz="Europe/Berlin")
    text = [f"{moment:%Y-%m-%dT%H:%M:%S}{moment:%z}" for moment in moments]
    frame = pd.DataFrame({"time": [f"{word[:-2]}:{word[-2:]}" for word in text], "load": wave(200)})
    return Layout(frame, ("--tz", "Europe/Berlin"), ("time",), ("load",))


def whole_numbers() -> Layout:
    frame = pd.DataFrame({"tick": np.arange(150) * 5 + 1000, "v": wave(150, 6)})
    return Layout(frame, ("--time", "tick"), ("tick",), ("v",))


def with_covariates() -> Layout:
    """Covariates of every role, one of them text; the forecast leans on the known one."""
    generator = np.random.default_rng(0)
    pieces = []
    for name, rows in (("a", 170), ("b", 140)):
        price, rain = generator.normal(10, 2, rows), generator.choice(["dry", "wet"], rows)
        sold = wave(rows, rows, 7) - 3 * price
        pieces.append(
            pd.DataFrame(
                {
                    "id": name, "ds": stamps(rows, "D", "%Y-%m-%d"), "y": sold, "price": price, "rain": rain,
                    "visits": sold + generator.normal(size=rows), "size": len(name) + rows,
                }
            )
        )  # fmt: skip
    words = ("--id", "id", "--known", "price,rain", "--past", "visits", "--static", "size")
    return Layout(pd.concat(pieces, ignore_index=True), words, ("id", "ds"), ("y",), ("price", "rain"))


LAYOUTS: dict[str, Callable[[], Layout]] = {
    make.__name__: make
    for make in (
        single, with_gaps, wide, long, without_time, split_time, business_days, month_ends, weeks, zoned, whole_numbers,
        with_covariates,
    )
}  # fmt: skip
QUICK = ("single", "wide", "long", "with_covariates")
"""Those that the quick tests look at."""
SMALL = ("--hidden-size", "4", "--layers", "1", "--epochs", "1", "--horizon", "5", "-q")
"""What makes a training short."""
