"""Files become panels, or one clear error."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import io
import lzma
import string

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacklstm_cli.config import DataConfig, ReadingConfig
from stacklstm_cli.data.calendar import Step, TimeForm, parse_freq
from stacklstm_cli.data.reading import SAMPLE_ROWS, read_panel
from stacklstm_cli.errors import DataError, ModelError, StacklstmError, UsageError

SINGLE = "date,passengers\n2024-01-01,1\n2024-01-02,2\n2024-01-03,4\n"
LONG = "id,when,v\nb,2024-01-01,1\nb,2024-01-02,2\na,2024-01-02,3\na,2024-01-03,4\n"


@pytest.fixture
def read(tmp_path):
    """Write text or bytes to a file and read it."""

    def read_text(text: str | bytes, name: str = "data.csv", stored=None, **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        names = {field.name for field in dataclasses.fields(ReadingConfig)}
        reading = ReadingConfig(**{name: options.pop(name) for name in names & options.keys()})
        return read_panel([str(path)], DataConfig(**options), reading, stored=stored)

    return read_text


def refused(read, text, error: type[StacklstmError] = DataError, **options) -> StacklstmError:
    with pytest.raises(error) as caught:
        read(text, **options)
    assert caught.value.code
    return caught.value


def same(one, other) -> bool:
    return (one.keys, one.step) == (other.keys, other.step) and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True)
        for name in ("values", "offsets", "starts")
    )


# --- layouts ---


def test_one_series(read):
    panel = read(SINGLE)
    assert panel.values.tolist() == [1, 2, 4]
    assert panel.stamps([panel.starts[0], panel.ends[0]]) == ["2024-01-01", "2024-01-04"]
    assert panel.rows_read == 3
    assert panel.sha256 == hashlib.sha256(SINGLE.encode()).hexdigest()
    assert panel.notes == ("one series: time 'date' (1 day), target 'passengers'",)


def test_a_long_file_keeps_the_order_of_its_series(read):
    panel = read(LONG)
    assert panel.keys == (("b",), ("a",))
    assert panel.values.tolist() == [1, 2, 3, 4]
    assert panel.notes == ("long file: 2 series by 'id', time 'when' (1 day), target 'v'",)


def test_a_wide_file(read):
    panel = read("t,a,b,c\n1,1,,x\n2,2,5,x\n3,3,6,x\n")
    assert panel.keys == (("a",), ("b",))
    assert panel.lengths.tolist() == [3, 2]
    assert panel.starts.tolist() == [1, 2]
    assert "ignored: c" in panel.notes[0]


def test_ids_stay_as_written_and_join(read):
    text = "shop,item,date,v\n001,x,2024-01-01,1\n001,x,2024-01-02,1\n001,y,2024-01-01,1\n01,y,2024-01-01,3\n"
    assert read(text, id=("shop", "item")).keys == (("001", "x"), ("001", "y"), ("01", "y"))


def test_without_time_rows_are_steps(read):
    panel = read("v\n5\n\n7\n")
    assert (panel.time_form.kind, panel.starts.tolist(), panel.gaps) == ("row", [0], 1)
    assert panel.stamps(panel.ends) == ["3"]
    panel = read("id,v\na,5\nb,6\na,7\n")
    assert panel.values.tolist() == [5, 7, 6]
    assert panel.starts.tolist() == [0, 0]
    assert refused(read, "v\n5\n6\n", UsageError, freq="D").code == "bad_freq"


def test_series_that_begin_behind_the_sample_are_found(read):
    days = np.datetime_as_string(np.arange(SAMPLE_ROWS + 100).astype("datetime64[D]"))
    text = "name,date,v\n" + "".join(f"{name},{day},1\n" for name in "ab" for day in days)
    assert read(text).keys == (("a",), ("b",))


# --- forms of files ---


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("data.csv.gz", gzip.compress),
        ("data.csv.bz2", bz2.compress),
        ("data.csv.xz", lzma.compress),
        ("data.csv.zst", lambda raw: bytes(pa.compress(raw, "zstd", asbytes=True))),
        ("data.csv", lambda raw: b"\xef\xbb\xbf" + raw),
        ("data.csv", lambda raw: raw.decode().encode("utf-16")),
        ("data.csv", lambda raw: raw.replace(b"\n", b"\r\n")),
        ("data.csv", lambda raw: raw.replace(b"\n", b"\r")),
        ("data.tsv", lambda raw: raw.replace(b",", b"\t")),
        ("data.csv", lambda raw: raw.replace(b",", b"|")),
        ("data.csv", lambda raw: raw.replace(b",", b", ")),
        ("data.csv", lambda raw: b"\n" + raw.replace(b"\n", b"\n\n") + b",\n,\n"),
        ("data.csv", lambda raw: raw.replace(b"\n", b",\n")),
    ],
)
def test_the_wrapping_of_a_file_does_not_matter(read, name, pack):
    packed = pack(SINGLE.encode())
    panel = read(packed, name)
    assert same(panel, read(SINGLE, "plain.csv"))
    assert panel.sha256 == hashlib.sha256(packed).hexdigest()


def test_standard_input_is_bytes():
    panel = read_panel(["-"], DataConfig(), stdin=io.BytesIO(gzip.compress(SINGLE.encode())))
    assert panel.values.tolist() == [1, 2, 4]
    with pytest.raises(DataError, match="standard input: the file is empty"):
        read_panel(["-"], DataConfig(), stdin=io.BytesIO(b""))


def test_decimal_commas(read):
    assert read("date;v\n2024-01-01;1,5\n2024-01-02;2\n").values.tolist() == [1.5, 2]
    late = "".join(f"{day};1\n" for day in range(SAMPLE_ROWS + 10))
    assert read(f"step;v\n{late}{SAMPLE_ROWS + 10};2,5\n").values[-1] == 2.5


def test_windows_text_is_read_with_a_note(read):
    panel = read("date,größe\n2024-01-01,1\n2024-01-02,2\n".encode("cp1252"))
    assert panel.columns.targets == ("größe",)
    assert any("Windows-1252" in note for note in panel.notes)


def test_parquet(tmp_path, read):
    frame = pd.DataFrame(
        {"id": ["a", "a", "b"], "ds": pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"]), "y": [1, 2, 4]}
    )
    frame.to_parquet(tmp_path / "data.parquet")
    panel = read_panel([str(tmp_path / "data.parquet")], DataConfig())
    assert same(panel, read("id,ds,y\na,2024-01-01,1\na,2024-01-02,2\nb,2024-01-01,4\n"))
    assert panel.stamps(panel.starts) == ["2024-01-01", "2024-01-01"]
    assert refused(read, b"PAR1 and no more", name="bad.parquet").code == "file_damaged"


def test_several_files_are_one(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("date,v\n2024-01-01,1\n2024-01-02,2\n")
    second.write_text("v,date\n3,2024-01-03\n4,2024-01-04\n")
    panel = read_panel([str(first), str(second)], DataConfig())
    assert panel.values.tolist() == [1, 2, 3, 4]
    assert panel.sha256 == hashlib.sha256(first.read_bytes() + second.read_bytes()).hexdigest()
    second.write_text("v,date\n3,2024-01-03\n4,2024-01-0x\n")
    with pytest.raises(DataError, match=r"b\.csv, line 3"):
        read_panel([str(first), str(second)], DataConfig())
    second.write_text("w,date\n3,2024-01-03\n")
    with pytest.raises(DataError, match=r"b\.csv.*missing: v; only here: w"):
        read_panel([str(first), str(second)], DataConfig())


# --- files that are refused ---


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "no_rows"),
        ("\n \n", "no_rows"),
        ("date,v\n", "no_rows"),
        ("date,v\n\n\n", "no_rows"),
        (b"\x00\x01\x02\x00", "not_text"),
        (b"PK\x03\x04zip", "not_text"),
        ('date,v\n2024-01-01,1\n2024-01-02,"2\n2024-01-03,3\n', "broken_csv"),
        ("date,v\n2024-01-01,1\n2024-01-02,2,3\n", "ragged_row"),
        ("date,v\n2024-01-01,\n2024-01-02,\n", "no_numbers"),
        ("date,v,v\n2024-01-01,1,2\n2024-01-02,2,3\n", "repeated_column"),
    ],
)
def test_files_without_a_table_are_refused_by_name(read, text, code):
    error = refused(read, text)
    assert error.code == code
    assert error.hint
    assert "data.csv" in error.message or code == "no_numbers"


def test_missing_files_and_damaged_ones(tmp_path, read):
    for path, code in ((tmp_path / "none.csv", "file_missing"), (tmp_path, "file_unreadable")):
        with pytest.raises(DataError) as caught:
            read_panel([str(path)], DataConfig())
        assert caught.value.code == code
        assert str(path) in caught.value.message
    for name in ("data.csv.gz", "data.csv.zst", "data.csv.xz", "data.csv.bz2"):
        assert refused(read, b"no archive", name=name).code == "file_damaged"
    assert refused(read, gzip.compress(SINGLE.encode() * 100)[:-20], name="data.csv.gz").code == "file_damaged"


# --- cells ---


def test_missing_words_in_any_case(read):
    words = ["", "NA", "n/a", "NaN", "nAn", "NULL", "None", "-", "?", ".", " na "]
    rows = "".join(f"{day},{word}\n" for day, word in enumerate(words, start=2))
    panel = read(f"step,v\n1,1\n{rows}{len(words) + 2},2\n")
    assert panel.gaps == len(words)
    assert panel.values[[0, -1]].tolist() == [1, 2]


def test_infinite_values_count_as_missing(read):
    panel = read("step,v\n1,1\n2,inf\n3,-Inf\n4,2\n")
    assert panel.gaps == 2
    assert any("2 infinite values" in note for note in panel.notes)


def test_text_in_a_target_is_named(read):
    error = refused(
        read, 'date,note,v\n2024-01-01,"two\nlines",1\n\n2024-01-02,x,2\n2024-01-03,x,oops\n', target=("v",)
    )
    assert "data.csv, line 6, column 'v': 'oops' found, expected a number" in error.message
    assert "--target" in error.hint


def test_a_bad_stamp_is_named(read):
    error = refused(read, "date,v\n2024-01-01,1\n01.02.2024,2\n2024-01-03,2\n")
    assert "line 3, column 'date': '01.02.2024'" in error.message
    assert "'2024-01-01'" in error.message
    assert "line 3" in refused(read, "date,v\n2024-01-01,1\n,2\n2024-01-03,2\n").message
    assert "line 2" in refused(read, "date,v\nsoon,1\nlater,2\n", time=("date",)).message


def test_numbers_are_exact(read):
    numbers = [0.1 + 0.2, 1e-300, 123456789.123456789, 2.2250738585072014e-308]
    panel = read("step,v\n" + "".join(f"{at},{number!r}\n" for at, number in enumerate(numbers)))
    assert panel.values.tolist() == numbers


# --- rows ---


def test_rows_in_any_order(read):
    panel = read("id,when,v\nb,2024-01-02,2\na,2024-01-03,4\nb,2024-01-01,1\na,2024-01-02,3\n")
    assert same(panel, read(LONG))
    assert any("not in time order" in note for note in panel.notes)
    by_time = "id,when,v\nb,2024-01-01,1\nb,2024-01-02,2\na,2024-01-02,3\na,2024-01-03,4\n"
    assert not any("order" in note for note in read(by_time).notes)


def test_repeated_rows(read):
    panel = read(SINGLE + "2024-01-03,4\n")
    assert panel.values.tolist() == [1, 2, 4]
    assert any("1 repeated row dropped" in note for note in panel.notes)
    error = refused(read, SINGLE + "2024-01-03,5\n")
    assert error.code == "duplicate_timestamps"
    assert "lines 4 and 5: time 2024-01-03 stands twice" in error.message
    assert "--duplicates" in error.hint
    assert "series 'b'" in refused(read, LONG + "b,2024-01-02,7\n").message


def test_an_id_must_be_there(read):
    error = refused(read, LONG + ",2024-01-04,7\n")
    assert (error.code, "line 6, column 'id'" in error.message) == ("missing_id", True)
    assert read("zone,when,v\nNA,2024-01-01,1\nNA,2024-01-02,2\nEU,2024-01-01,1\n", id=("zone",)).keys == (
        ("NA",),
        ("EU",),
    )
    dates = "cohort,date,v\n2023-01,2024-01-01,1\n2023-02,2024-01-01,1\n2023-01,2024-01-02,2\n2023-02,2024-01-02,2\n"
    assert read(dates, id=("cohort",)).keys == (("2023-01",), ("2023-02",))


def test_repeats_are_settled_after_the_series_are_told_apart(read):
    """Repeats behind the sample show that the file is long, whatever would settle them."""
    days = np.datetime_as_string(np.arange(SAMPLE_ROWS + 100).astype("datetime64[D]"))
    text = "name,date,v\n" + "".join(f"{name},{day},1\n" for name in "ab" for day in days)
    assert read(text, duplicates="first").keys == (("a",), ("b",))


def test_missing_stamps_are_gaps(read):
    panel = read("date,v\n2024-01-01,1\n2024-01-02,2\n2024-01-05,5\n")
    np.testing.assert_array_equal(panel.values, [1, 2, np.nan, np.nan, 5])
    assert "2 missing time stamps read as gaps." in panel.notes


def test_series_begin_and_end_observed(read):
    panel = read("id,step,v\na,1,\na,2,5\na,3,\na,4,6\na,5,\nb,1,\nb,2,\n")
    assert panel.keys == (("a",),)
    assert (panel.starts.tolist(), panel.lengths.tolist(), panel.gaps) == ([2], [3], 1)
    assert "1 series without any value left out: b." in panel.notes
    assert refused(read, "id,step,value\na,1,\na,2,\n").code == "no_values"


def test_gaps_may_be_refused(read):
    read(SINGLE).refuse_gaps()
    panel = read(
        "id,date,v\na,2024-01-01,1\na,2024-01-02,2\nb,2024-01-01,2\nb,2024-01-04,5\nb,2024-01-05,\nb,2024-01-06,5\n"
    )
    with pytest.raises(DataError, match=r"series 'b', time 2024-01-02: no value.*3 such rows") as caught:
        panel.refuse_gaps()
    assert caught.value.code == "gaps"
    assert "--gaps mask" in caught.value.hint


def test_a_huge_value_is_named(read):
    error = refused(read, SINGLE.replace(",4", ",-1e101"))
    assert (error.code, "line 4, column 'passengers'" in error.message) == ("number_too_large", True)


def test_names_of_output_columns_are_refused(read):
    for header in ("forecast,v", "q10,v", "q2.5,v"):
        time = header.split(",")[0]
        assert refused(read, f"{header}\n2024-01-01,1\n2024-01-02,1\n", time=(time,)).code == "column_clash"
    assert refused(read, "series,a,b\n2024-01-01,1,1\n2024-01-02,1,1\n", time=("series",)).code == "column_clash"
    assert refused(read, "v,step\n5,1.5\n6,2.5\n", known=("step",)).code == "column_clash"


def test_split_time_comes_out_as_it_went_in(read):
    hours = pd.date_range("2024-01-30", periods=48, freq="h")
    text = "year,month,day,hour,v\n" + "".join(f"{at.year},{at.month},{at.day},{at.hour},1\n" for at in hours)
    panel = read(text)
    assert panel.notes[0] == "one series: time 'year', 'month', 'day', 'hour' (1 hour), target 'v'"
    assert panel.time_columns(panel.ends) == {"year": ["2024"], "month": ["2"], "day": ["1"], "hour": ["0"]}


def test_a_far_stamp_is_named_before_memory_is_taken(read):
    hours = "".join(f"2024-01-01 {hour:02d}:00,1\n" for hour in range(24))
    error = refused(read, f"date,v\n{hours}9999-01-01 00:00,1\n")
    assert (error.code, "line 26" in error.message) == ("far_timestamp", True)


def test_irregular_rows_are_named(read):
    hours = "".join(f"a,2024-01-01 {time},1\n" for time in ("00:00", "01:00", "02:00", "02:40"))
    error = refused(read, "id,date,v\n" + hours)
    assert "lines 4 and 5: series 'a', times 2024-01-01 02:00 and 2024-01-01 02:40" in error.message
    assert "1 hour" in error.message
    assert "--freq" in error.hint


# --- steps ---


def test_a_given_step_must_fit(read):
    text = "date,v\n2024-01-01,1\n2024-01-03,2\n2024-01-05,2\n"
    assert read(text).step.label == "2 days"
    assert (read(text, freq="D").step.label, read(text, freq="D").gaps) == ("1 day", 2)
    assert "--freq (1 week" in refused(read, text, freq="W").message
    assert refused(read, text, UsageError, freq="5").code == "bad_freq"
    assert read("year,v\n1960,1\n1961,2\n", freq="YS").step.label == "1 year"
    assert read("date,v\n2024-01-01,1\n", freq="D").values.tolist() == [1]


def test_one_row_has_no_step(read):
    error = refused(read, "date,v\n2024-01-01,1\n")
    assert (error.code, "1 row in 1 series" in error.message) == ("too_few_rows", True)


def test_day_first_or_month_first_is_what_makes_a_regular_file(read):
    months = "".join(f"01/{month:02d}/{year},1\n" for year in (2023, 2024) for month in range(1, 13))
    panel = read("date,v\n" + months)
    assert (panel.step.label, panel.time_form.format) == ("1 month", "%d/%m/%Y")
    days = "".join(f"{day:%m/%d/%Y},1\n" for day in pd.date_range("2024-01-01", periods=40))
    assert read("date,v\n" + days).step.label == "1 day"
    error = refused(read, "date,v\n" + "".join(f"01/{month:02d}/2024,1\n" for month in range(1, 13)))
    assert error.code == "ambiguous_dates"
    assert "YYYY-MM-DD" in error.hint
    assert read("date,v\n" + "".join(f"01/{month:02d}/2024,1\n" for month in range(1, 13)), freq="MS").gaps == 0


def test_instants_with_offsets_and_the_switch_to_summer_time(read):
    stamps = pd.date_range("2024-03-30", "2024-04-01", freq="h", tz="Europe/Berlin")
    panel = read("date,v\n" + "".join(f"{stamp.isoformat()},1\n" for stamp in stamps))
    assert (panel.step.label, panel.gaps, panel.lengths.tolist()) == ("1 hour", 0, [len(stamps)])
    assert panel.stamps(panel.ends) == ["2024-04-01T01:00:00+02:00"]


# --- a model's columns and step ---


def test_a_models_roles_are_used_as_they_are(read):
    model = read(SINGLE)
    panel = read("passengers,date,more\n5,2024-02-01,1\n6,2024-02-02,2\n", stored=model.stored)
    assert panel.columns == model.columns
    assert "ignored: more" in panel.notes[0]
    error = refused(read, "date,riders\n2024-01-01,1\n", ModelError, stored=model.stored)
    assert "'passengers' is missing; the columns are date, riders" in error.message


def test_another_step_is_not_the_models(read):
    model = read(SINGLE)
    months = "date,passengers\n2024-01-01,1\n2024-02-01,2\n2024-03-01,2\n"
    error = refused(read, months, ModelError, stored=model.stored)
    assert error.code == "step_differs"
    assert "1 month" in error.message
    assert "1 day" in error.message
    other_days = "date,passengers\n2024-01-01,1\n2024-01-03,2\n2024-01-05,2\n"
    assert refused(read, other_days, ModelError, stored=model.stored).code == "step_differs"


def test_few_rows_take_the_models_step(read):
    model = read(SINGLE).stored
    monthly = dataclasses.replace(model, step=Step("month", 1, "end"))
    assert read("date,passengers\n2024-01-31,1\n", stored=monthly).step.anchor == "end"
    weekdays = dataclasses.replace(model, step=Step("business_day"))
    assert read(SINGLE, stored=weekdays).step.unit == "business_day"
    half_past = "date,passengers\n2024-01-01 05:30,1\n"
    hourly = dataclasses.replace(model, step=Step("second", 3600))
    assert read(half_past, stored=hourly).stamps([0]) == ["1970-01-01 00:30"]


# --- there and back ---

STEPS = ["h", "15min", "D", "B", "W-SAT", "MS", "ME", "QS-FEB", "YE-JUN", "3"]


@pytest.mark.parametrize("examples", [25, pytest.param(80, marks=pytest.mark.slow)])
def test_a_panel_is_read_as_it_was_written(tmp_path, examples):
    """Any step, gaps, names and row order of a long file; values exactly, NaN as empty cells or as rows left out."""

    @settings(max_examples=examples, deadline=None)
    @given(data=st.data())
    def holds(data):
        there_and_back(tmp_path, data)

    holds()


def there_and_back(tmp_path, data):
    freq = data.draw(st.sampled_from(STEPS))
    step = parse_freq(freq)
    anchor = "2024-01-31T06:00" if step.unit == "second" else "2024-01-31"
    step = step.fitted(np.array([7]) if freq == "3" else np.array([anchor], dtype="datetime64[us]"))
    form = (
        TimeForm("integer")
        if freq == "3"
        else TimeForm("datetime", "%Y-%m-%d %H:%M" if step.unit == "second" else "%d.%m.%Y")
    )
    number = st.floats(-1e100, 1e100)
    name_of = st.text(string.ascii_letters + '0 ,"é', min_size=1).map(lambda name: "s" + name.strip())
    names = data.draw(st.lists(name_of, min_size=1, max_size=3, unique=True))
    lines, truth = [], {}
    for name in names:
        start = int(step.floor(7 if freq == "3" else np.datetime64("2024-02-05"))) + data.draw(st.integers(0, 50))
        # Ten rows without a gap show business days for what they are.
        values = np.array(data.draw(st.lists(number, min_size=12, max_size=20)))
        values[data.draw(st.lists(st.integers(10, values.size - 2), max_size=6))] = np.nan
        truth[name] = (start, values)
        quoted = '"' + name.replace('"', '""') + '"'
        for stamp, value in zip(form.write(step, start + np.arange(values.size)), values.tolist(), strict=True):
            if value == value or data.draw(st.booleans()):
                lines.append(f"{quoted},{stamp},{value!r}\n")
    path = tmp_path / "panel.csv"
    path.write_text("series_id,time,value\n" + "".join(data.draw(st.permutations(lines))), encoding="utf-8")
    panel = read_panel([str(path)], DataConfig())
    assert panel.step == step
    assert {key[0] for key in panel.keys} == set(names)
    for index, (name,) in enumerate(panel.keys):
        start, values = truth[name]
        np.testing.assert_array_equal(panel.series(index), values)
        assert panel.stamps(panel.starts[index : index + 1]) == form.write(step, [start])
