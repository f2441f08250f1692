"""The time of each row: how it is written, the stamps, and the step between rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stacklstm_cli.config import ReadingConfig
from stacklstm_cli.data.calendar import OffGridError, Step, TimeForm, infer_step, parse_freq
from stacklstm_cli.data.cells import NA_WORDS
from stacklstm_cli.data.gridding import Rows, are_in_order, count_of, new_groups
from stacklstm_cli.data.panel import Columns, Ints, Stored
from stacklstm_cli.data.patterns import SEPARATOR, Stamps, typed_formats
from stacklstm_cli.data.split import joined, split_formats
from stacklstm_cli.data.stamps import Reading, StampError, find_forms
from stacklstm_cli.data.stepping import is_step_of, placed, usual_step
from stacklstm_cli.data.texts import Texts, Words
from stacklstm_cli.data.wording import shown
from stacklstm_cli.data.zones import UnorderedError, Zone, find_zone, instants_in_order
from stacklstm_cli.errors import DataError, ModelError, StacklstmError, UsageError

DATE_NAMES = ("date", "day", "datetime", "date_time", "datum", "fecha")
"""Of two equally good readings of a column of such a name, that as dates."""
FUTURE_ROWS = 3
"""So many rows behind the last one show whether a form can tell them apart."""
MUCH_FULLER = 2.0
"""How many times fewer grid rows settle whether dates are day-first."""


@dataclass(frozen=True)
class Fit:
    """A form of the time that makes a regular grid."""

    form: TimeForm
    stamps: Stamps
    """[rows]"""
    step: Step
    positions: Ints
    """[rows]"""
    note: str = ""

    @property
    def size(self) -> int:
        """Rows of the grid from the first stamp to the last."""
        return int(self.positions.max() - self.positions.min()) + 1


def read_time(
    rows: Rows,
    time: Sequence[Texts | Words],
    columns: Columns,
    freq: str | None,
    reading: ReadingConfig,
    stored: Stored | None,
    notes: list[str],
    ways: Sequence[str] = (),
    *,
    by_rank: bool = False,
) -> tuple[TimeForm, Stamps, Step]:
    """How time is written, the stamp of each row, and the step between rows.

    `time` are the columns of time, [rows] each; several together are one time. `stored` is what a
    model knows; `ways` are what may be typed where the rows make no grid. With `reading.aggregate` the stamps
    need not lie on the grid of the step; `by_rank`, rows on no grid are steps in the order of their time.

    Raises `DataError` for times that cannot be read one way only, `UsageError` for options that do not fit
    them, `ModelError` where their step is not the model's.
    """
    given = parse_freq(freq) if freq is not None else None
    search = _Search(rows, columns, given, reading, stored, notes, ways, by_rank)
    return search.run([Texts.of(column) for column in time])


class _Search:
    """One search for the form, the stamps and the step of a file's rows."""

    def __init__(
        self,
        rows: Rows,
        columns: Columns,
        given: Step | None,
        reading: ReadingConfig,
        stored: Stored | None,
        notes: list[str],
        ways: Sequence[str],
        by_rank: bool,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.given = given
        self.reading = reading
        self.zone: Zone | None = find_zone(reading.tz) if reading.tz is not None else None
        self.known_step = stored.step if stored else None
        self.known_form = stored.form if stored else None
        self.notes = notes
        self.ways = ways
        self.by_rank = by_rank
        self.ranked = by_rank and stored is not None and stored.form.kind == "row"
        """Whether the model's rows were steps though they had times."""
        self.label = " and ".join(map(repr, columns.time))
        """The columns of time, for messages."""

    def run(self, time: Sequence[Texts]) -> tuple[TimeForm, Stamps, Step]:
        if not time:
            return self._counted()
        if self.reading.aggregate is not None and self.given is None and self.known_step is None:
            raise UsageError(
                "--aggregate needs the step onto which rows are brought, and --freq is not given.",
                hint=f"Type for example --freq h --aggregate {self.reading.aggregate}.",
                code="aggregate_without_freq",
            )
        words = self._words(time)
        fit = self._settled(self._forms(time, words), words)
        self._refuse_finer_step(fit)
        if fit.note:
            self.notes.append(fit.note)
        if "%y" in fit.form.format:
            self.notes.append("Two-digit years are read as 1969 to 2068.")
        return fit.form, fit.stamps, fit.step

    def _counted(self) -> tuple[TimeForm, Stamps, Step]:
        """Time of a file without a column of it: the number of the row in its series."""
        if self.reading.date_format is not None:
            raise UsageError(
                f"No column of the file holds time as --date-format {self.reading.date_format!r} has it.",
                hint="Type the form in which the time is written, or leave --date-format out.",
                code="bad_date_format",
            )
        options = {"--freq": self.given, "--tz": self.reading.tz}
        for option, value in {**options, "--aggregate": self.reading.aggregate}.items():
            if value is not None:
                raise UsageError(
                    f"{option} needs a time column, and the file has none.",
                    hint=f"Name it with --time, or leave {option} out.",
                    code=f"bad_{option[2:].replace('-', '_')}",
                )
        codes = self.rows.codes
        order = np.argsort(codes, kind="stable")
        sizes = np.bincount(codes, minlength=len(self.rows.keys))
        stamps = np.empty(codes.size, dtype=np.int64)
        stamps[order] = np.arange(codes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        step = Step("step")
        self._refuse_other_step(step)
        return TimeForm("row"), stamps, step

    # --- text ---

    def _words(self, time: Sequence[Texts]) -> Texts:
        """The times as one column."""
        for name, column in zip(self.columns.time, time, strict=True):
            row = column.first(_is_missing)
            if row is not None:
                raise DataError(
                    f"{self.rows.place(row)}, column {name!r}: no time stamp.",
                    hint="Fill the cell, or take the row out.",
                    code="missing_timestamp",
                )
        if not len(time[0]):
            raise DataError(
                f"{self.rows.table.name}: the file holds no rows of data.",
                hint="Check how the file was written.",
                code="no_rows",
            )
        return joined(time) if len(time) > 1 else time[0]

    def _forms(self, time: Sequence[Texts], words: Texts) -> list[Reading]:
        """Every form that reads all rows."""
        years = self.given is not None and self.given.unit == "month" and self.given.count % 12 == 0
        formats: list[str] = []
        if self.reading.date_format is not None:
            formats = typed_formats(self.reading.date_format, len(time))
        elif len(time) > 1:
            formats = split_formats(self.columns.time, time)
            if not formats:
                found = ", ".join(shown(column[0]) for column in time)
                raise DataError(
                    f"{self.rows.place(0)}, columns {self.label}: {found} are no time together; expected year, month, "
                    "day, hour … in columns of these names, or a date and a clock.",
                    hint="Say what each column holds: --date-format '%Y %m %d', or name one column with --time.",
                    code="unreadable_time",
                )
        try:
            return find_forms(words, years=years, formats=formats, like=self.known_form)
        except StampError as error:
            raise self._bad_stamp(words, error.index) from error

    def _bad_stamp(self, words: Texts, row: int) -> DataError:
        columns = f"column{'s' if len(self.columns.time) > 1 else ''} {self.label}"
        cell, first = (words[at].replace(SEPARATOR, " ") for at in (row, 0))
        if self.reading.date_format is not None:
            return DataError(
                f"{self.rows.place(row)}, {columns}: {shown(cell)} found; expected --date-format "
                f"{self.reading.date_format!r}.",
                hint="Mend the cell, or type the form in which the time is written.",
                code="bad_timestamp",
            )
        expected = (
            f"the form of the first row, {shown(first)}" if row else "a date such as 2024-03-01 or a whole number"
        )
        if re.search(r"(?<!\d)24([:.]00)*$", cell):
            expected += "; 24:00 is midnight only where no row is written 0:00"
        return DataError(
            f"{self.rows.place(row)}, {columns}: {shown(cell)} is no time stamp; expected {expected}.",
            hint="Write all time stamps in one form, best as YYYY-MM-DD; or say how they are written with "
            "--date-format, or name another column with --time.",
            code="bad_timestamp",
        )

    # --- the one form ---

    def _settled(self, forms: list[Reading], words: Texts) -> Fit:
        """The one form whose stamps make a regular grid."""
        fits: list[tuple[Fit, Reading]] = []
        failures: list[StacklstmError] = []
        for reading in forms:
            try:
                fits.append((self._fit(reading), reading))
            except StacklstmError as error:
                failures.append(error)
        fits.sort(key=lambda one: one[0].size)
        if not fits:
            damaged = forms[0].damaged
            raise failures[0] if damaged is None else self._bad_stamp(words, damaged)
        known = [one for one in fits if self.known_form is not None and one[0].form.format == self.known_form.format]
        if known:
            fits = known
        if fits[0][0].form.kind != fits[-1][0].form.kind:
            fits = self._dates_or_counted(fits)
        if len(fits) > 1 and fits[1][0].size < MUCH_FULLER * fits[0][0].size:
            raise DataError(
                f"{self.rows.place(0)}, column {self.label}: {words[0].replace(SEPARATOR, ' ')!r} may be "
                "day-first or month-first, and both make a regular file.",
                hint="Say which with --date-format "
                + " or ".join(f"'{form.format.replace(SEPARATOR, ' ')}'" for form in (fits[0][0].form, fits[1][0].form))
                + ", or write the dates as YYYY-MM-DD.",
                code="ambiguous_dates",
            )
        fit, reading = fits[0]
        row = reading.damaged
        if row is not None:
            month = fit.form.texts(fit.stamps[row : row + 1])[0]
            self.notes.append(
                f"{self.rows.place(row)}: {words[row]!r} is a month that a spreadsheet has taken for a "
                f"day; it and those like it are read as {month}."
            )
        return fit

    def _dates_or_counted(self, fits: list[tuple[Fit, Reading]]) -> list[tuple[Fit, Reading]]:
        """Numbers such as 240131 are dates where these leave fewer gaps, or as few under a name for dates."""
        dates, counted = sorted(fits, key=lambda one: one[0].form.kind)[:2]
        named = self.columns.time[0].strip().lower() in DATE_NAMES
        return [dates if (dates[0].size, not named) <= (counted[0].size, False) else counted]

    def _fit(self, reading: Reading) -> Fit:
        """The stamps and the step of one form: calendar days by the local clock, else instants.

        Raises the errors of a user where they make no grid.
        """
        form, clock, instants = reading.form, reading.clock, reading.instants
        if form.kind != "datetime" or (instants is None and self.zone is None):
            if self.zone is not None:
                raise UsageError(
                    f"--tz needs dates, and column {self.label} holds whole numbers.",
                    hint="Leave --tz out.",
                    code="bad_tz",
                )
            return self._on_grid(form, clock)
        form = replace(form, tz=self.zone.name if self.zone else "")
        if instants is not None and self.zone is not None:
            numbers = instants.astype(np.int64)
            clock = (numbers + self.zone.ahead(numbers)).astype("datetime64[us]")
        local: Fit | StacklstmError
        try:
            local = self._on_grid(replace(form, local=True), clock)
        except StacklstmError as error:
            local = error
        if isinstance(local, Fit) and local.step.unit != "second":
            return local
        note = ""
        try:
            if instants is None:
                instants, note = self._instants(form, clock)
            return replace(self._on_grid(form, instants), note=note)
        except StacklstmError as error:
            if error.code != "irregular_time":
                raise
            # Twice a day at fixed hours of the clock is regular, if not in instants.
            if isinstance(local, Fit):
                return local
            raise local from error

    def _instants(self, form: TimeForm, clock: Stamps) -> tuple[Stamps, str]:
        """[rows] local times as UTC, and what to say of them.

        Raises `DataError` for those that the zone does not have.
        """
        assert self.zone is not None  # noqa: S101 - only called where there is one
        numbers = clock.astype(np.int64)
        readings = self.zone.readings(numbers)
        if readings.skipped.any():
            row = int(np.argmax(readings.skipped))
            clocked = replace(form, tz="").texts(clock[row : row + 1])[0]
            raise DataError(
                f"{self.rows.place(row)}: {self.rows.name(row)}time {clocked} is not there in {self.zone.name}, "
                "where the clocks are set forward over it; expected local times.",
                hint="Type the zone of these clocks with --tz, such as --tz UTC or --tz +01:00 for clocks that "
                "are never set.",
                code="skipped_time",
            )
        try:
            instants = instants_in_order(readings, numbers, self.rows.codes)
        except UnorderedError as error:
            clocked = replace(form, tz="").texts(clock[error.index : error.index + 1])[0]
            raise DataError(
                f"{self.rows.place(error.index)}: {self.rows.name(error.index)}time {clocked} stands twice, as the "
                f"clocks of {self.zone.name} are set back then, and the rows are in no order that tells which was "
                "first; expected rows sorted by time.",
                hint="Sort the rows by time, or write the offset behind each time: 2024-10-27 02:00+01:00.",
                code="duplicate_timestamps",
            ) from error
        twice = count_of(int((readings.switch >= 0).sum()), "row")
        note = f"{twice} at hours that the clocks of {self.zone.name} show twice: told apart by the order of the rows."
        return instants.astype("datetime64[us]"), note if (readings.switch >= 0).any() else ""

    def _on_grid(self, form: TimeForm, stamps: Stamps) -> Fit:
        if self.ranked:
            return self._by_rank(stamps)
        try:
            step = self._step(stamps)
            positions = step.floors(stamps) if self.reading.aggregate is not None else step.ordinals(stamps)
        except OffGridError as error:
            if self.by_rank and self.known_step is None and self.given is None:
                return self._by_rank(stamps)
            raise self._off_grid(form, stamps, error) from error
        return Fit(form, stamps, step, positions)

    def _by_rank(self, stamps: Stamps) -> Fit:
        """Each row's place in its series as its time."""
        codes = self.rows.codes
        order = np.lexsort((stamps, codes))
        sizes = np.bincount(codes, minlength=len(self.rows.keys))
        ranks = np.empty(codes.size, dtype=np.int64)
        ranks[order] = np.arange(codes.size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        note = f"The times in column {self.label} have no common step: rows are steps 0, 1, 2 … in their order."
        return Fit(TimeForm("row"), ranks, Step("step"), ranks, note)

    def _refuse_finer_step(self, fit: Fit) -> None:
        """Raise `UsageError` where rows of a typed step cannot be written in the form of the file."""
        if self.given is None or fit.form.kind != "datetime":
            return
        # The zone has hours that stand twice; what the form can show is the same without it.
        form = replace(fit.form, zone="", tz="", local=True)
        positions = fit.positions.max() + 1 + np.arange(FUTURE_ROWS)
        texts = form.write(fit.step, positions)
        try:
            stamps = form.parse(np.asarray(texts, dtype=object))
            read = fit.step.floors(stamps) if self.reading.aggregate is not None else fit.step.ordinals(stamps)
        except (StampError, OffGridError):
            read = positions if len(set(texts)) == len(texts) else positions - 1
        if (read != positions).any():
            raise UsageError(
                f"--freq {self.given.alias} is finer than the time stamps are written: rows behind the last one would "
                f"be {', '.join(texts)}.",
                hint="Give a step that the time stamps can show, or write them with the time of day.",
                code="bad_freq",
            )

    # --- the step ---

    def _step(self, stamps: Stamps) -> Step:
        """The step of these rows: given, found, or the model's. Raises `OffGridError` and the errors of a user."""
        if self.given is not None:
            counted = stamps.dtype.kind != "M"
            if counted != (self.given.unit == "step"):
                found, expected = ("whole numbers", "a whole number") if counted else ("dates", "an alias: D, h")
                raise UsageError(
                    f"--freq does not fit column {self.label}, which holds {found}; expected {expected}.",
                    hint="Give --freq as the time is counted, or leave it out.",
                    code="bad_freq",
                )
        if self.reading.aggregate is not None:
            step = self.given or self.known_step or Step("step")
            if self.known_step is not None and step.phase is None and step == self.known_step:
                step = self.known_step
            self._refuse_other_step(step)
            return step.at_origin()
        if self.given is not None:
            step = self.given.fitted(stamps)
            self._refuse_other_step(step)
            return step
        return self._found_step(stamps)

    def _found_step(self, stamps: Stamps) -> Step:
        rows, known = self.rows, self.known_step
        order = slice(None) if are_in_order(rows, stamps) else np.lexsort((stamps, rows.codes))
        ordered, series = stamps[order], rows.codes[order]
        new = new_groups(series, ordered)
        if not new.all():
            ordered, series = ordered[new], series[new]
        offsets = np.concatenate([[0], np.flatnonzero(series[1:] != series[:-1]) + 1, [series.size]])
        try:
            step = infer_step(ordered, offsets)
        except OffGridError as error:
            if known is not None and is_step_of(known, ordered, offsets):
                return placed(known, ordered)
            row = int(np.flatnonzero(new)[error.index])
            raise OffGridError(row if isinstance(order, slice) else int(order[row]), error.step) from error
        if step is None and known is None and self.by_rank:
            raise OffGridError(0, Step("step"))
        if step is None and known is None:
            raise DataError(
                f"{rows.table.name}: {count_of(rows.codes.size, 'row')} in {len(rows.keys)} series; "
                "a step between rows needs at least 2 rows in one series.",
                hint="Give more rows, or the step with --freq.",
                code="too_few_rows",
            )
        weekends = step is not None and step.unit == "business_day" and known is not None and known.unit == "day"
        if known is not None and step != known and not weekends and is_step_of(known, ordered, offsets):
            return placed(known, ordered)
        found = step if step is not None else known
        assert found is not None  # noqa: S101 - one of both is there, see above
        self._refuse_other_step(found)
        return found

    def _refuse_other_step(self, step: Step) -> None:
        known = self.known_step
        if known is None or step == known:
            return
        hint = "Name the model of this data with --model, or train one."
        if step.unit == "business_day" and known.unit == "day":
            hint += " Should weekends be gaps, type --freq D."
        raise ModelError(
            f"{self.rows.table.name}: the rows are {step.label} apart; the model was trained on {known.label}.",
            hint=hint,
            code="step_differs",
        )

    def _off_grid(self, form: TimeForm, stamps: Stamps, error: OffGridError) -> DataError:
        """The error for a row that is not a whole number of steps from the others; names it and its neighbour."""
        rows, row, step = self.rows, error.index, error.step
        mates = np.flatnonzero(rows.codes == rows.codes[row])
        mates = mates[np.argsort(stamps[mates], kind="stable")]
        at = int(np.flatnonzero(mates == row)[0])
        other = int(mates[at - 1] if at else mates[min(1, mates.size - 1)])
        this, that = form.texts(stamps[[row, other]])
        if other == row:
            found = f"{rows.place(row)}: {rows.name(row)}time {this} is"
        else:
            pair = sorted([(int(rows.places[row]), this), (int(rows.places[other]), that)])
            where = rows.table.places(pair[0][0], pair[1][0])
            found = f"{where}: {rows.name(row)}times {pair[0][1]} and {pair[1][1]} are"
        what = (
            f"not on the grid of --freq ({step.label})"
            if self.given is not None
            else f"not a whole number of steps apart ({step.label} is the usual one)"
        )
        usual = self.given or usual_step(step, stamps, mates)
        return DataError(
            f"{found} {what}.",
            hint="".join(f"{way[0].upper()}{way[1:]}. " for way in self.ways)
            + f"Bring the rows onto regular times with --freq {usual.alias} --aggregate mean (or sum, last); "
            "or give the true step with --freq.",
            code="irregular_time",
        )


def _is_missing(cells: pa.StringArray) -> pa.BooleanArray:
    return pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(cells)), pa.array(sorted(NA_WORDS)))
