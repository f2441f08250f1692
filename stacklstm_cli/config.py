"""Every option of the program, defined once.

Each field below is one option: its name, type, default, help and bounds. The command line, the
`--config` file, the model file and the README's table of options derive from these classes.
`None` as a default means "chosen from the data": `training/defaults.py` holds the rules.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

from stacklstm_cli.errors import UsageError

MEDIAN = 0.5
SWITCH = (False, True)
CELLS = ("lstm", "gru", "rnn")
POINT_LOSSES = ("mae", "mse", "huber")
LOSSES = ("quantile", *POINT_LOSSES, "student-t", "negative-binomial")
BASELINES = ("naive", "seasonal_naive", "drift", "seasonal_average")
LABEL_BASELINES = ("majority", "nearest_neighbour")
STATISTICAL_BASELINES = ("auto_ets", "auto_theta")
NO_BASELINES = "none"
"""What leaves the statistical ones out."""
GATES = ("strict", "unless-worse", "always")
PICKS = ("one-se", "best")
AUTO = "auto"
"""In place of a value: to be searched."""
OUTPUT_FORMATS = ("auto", "table", "csv", "json", "ndjson", "markdown", "parquet")


def option(
    default: Any,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    short: str | None = None,
    parse: str = "",
    unset: str = "",
    search: tuple[Any, ...] = (),
    around: float = 0,
    log: bool = False,
) -> Any:
    """A dataclass field that is an option.

    `minimum` and `maximum` are inclusive and hold for each item of a tuple; `parse` names a special
    spelling on the command line ("duration"); `unset` says what happens where there is no default.

    What a search tries: with `search` the numbers from its first to its second, on a logarithmic scale with `log`, or
    the words that it holds; with `around` up to so many times more and less than what would be chosen from the data.
    An option with neither sets the task, not the network, and is not searched; on and off always are.
    """
    metadata = {
        "help": help,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "short": short,
        "parse": parse,
        "unset": unset,
        "search": search,
        "around": around,
        "log": log,
    }
    return dataclasses.field(default=default, metadata=metadata)


FOUND = "from the data"
"""What `unset` says of an option that is then chosen by what the data is like."""


def option_name(field: dataclasses.Field[Any] | str) -> str:
    """The option as typed: `hidden_size` -> `--hidden-size`."""
    name = field if isinstance(field, str) else field.name
    return "--" + name.replace("_", "-")


def searchable(field: dataclasses.Field[Any]) -> bool:
    """Whether `tune` may look for a value of this option."""
    return bool(field.metadata["search"] or field.metadata["around"])


class Checked:
    """Checks the bounds of each option where a configuration is made, whoever makes it."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            check_bounds(field, getattr(self, field.name))


def check_bounds(field: dataclasses.Field[Any], value: Any) -> None:
    """Raise `UsageError` if `value` is outside the field's bounds or choices."""
    choices = field.metadata.get("choices", ())
    if choices and value is not None and value not in choices:
        raise UsageError(
            f"{option_name(field)} is {value!r}; expected one of {', '.join(choices)}.", code="option_out_of_bounds"
        )
    low, high = field.metadata.get("minimum"), field.metadata.get("maximum")
    for item in value if isinstance(value, tuple) else (value,):
        if not isinstance(item, (int, float)) or isinstance(item, bool):
            continue
        if (low is not None and item < low) or (high is not None and item > high) or not math.isfinite(item):
            expected = bounds_text(low, high)
            raise UsageError(f"{option_name(field)} is {item}; expected {expected}.", code="option_out_of_bounds")


def bounds_text(low: float | None, high: float | None) -> str:
    """What a number is expected to be."""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    return "a number" if high is None else f"at most {high:g}"


def interval_quantiles(interval: tuple[float, ...]) -> set[float]:
    """The two quantiles that bound each central interval, given in percent: 80 is 0.1 and 0.9."""
    shares = [percent / 100 for percent in interval]
    return {round((1 + sign * share) / 2, 12) for share in shares for sign in (-1, 1)}


def parse_duration(text: str) -> float:
    """`90s`, `10m`, `1.5h` or a bare number of seconds, as seconds. Raises `UsageError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?", text.strip().lower())
    if match is None:
        raise UsageError(f"{text!r} is no duration; expected a number with s, m, h or d, such as 90s, 10m or 1h.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400, None: 1}[match[2]]


@dataclass(frozen=True)
class DataConfig(Checked):
    """Which column is what, and the step between rows. What is not set is guessed, and the guess is said."""

    time: tuple[str, ...] = option((), "Column of the time stamps; several (year,month,day) together.", unset=FOUND)
    target: tuple[str, ...] = option((), "Column to forecast; several (a,b) in a wide file.", unset=FOUND)
    id: tuple[str, ...] = option((), "Column naming the series in a long file; several (a,b) together.", unset=FOUND)
    past: tuple[str, ...] = option((), "Covariates known up to now only, numbers or text; several as a,b.")
    known: tuple[str, ...] = option((), "Covariates known for the future too, numbers or text; several as a,b.")
    static: tuple[str, ...] = option((), "Covariates that never change within a series, numbers or text.")
    label: str | None = option(None, "Column of classes to learn: one for each series, or one for each row.")
    freq: str | None = option(
        None, "Step between rows: 15min, h, D, B, W-SUN, MS, ME, QS, YS, or a whole number.", unset=FOUND
    )


@dataclass(frozen=True)
class ReadingConfig(Checked):
    """How the cells of DATA are written and what happens to its rows. Kept in the model; what is typed wins."""

    delimiter: str | None = option(None, "Character between cells, or tab.", unset="found")
    decimal: str | None = option(None, "Decimal sign, . or ,.", choices=(".", ","), unset="found")
    encoding: str | None = option(None, "Encoding of the text, such as cp1252.", unset="found")
    date_format: str | None = option(None, "How time stamps are written, as in strptime: %d/%m/%Y.", unset="found")
    tz: str | None = option(None, "Time zone of local times, such as Europe/Berlin.")
    missing_value: tuple[str, ...] = option((), "Cells that stand for a missing value: -200 or -99,unknown.")
    duplicates: str | None = option(
        None,
        "What becomes of a repeated time stamp with another value.",
        choices=("error", "first", "last", "mean", "sum"),
        unset="error",
    )
    aggregate: str | None = option(
        None, "Bring rows that are finer than --freq, or irregular, onto it.", choices=("mean", "sum", "last")
    )


@dataclass(frozen=True)
class ModelConfig(Checked):
    """The network."""

    layers: int = option(2, "Recurrent layers stacked on each other.", minimum=1, maximum=64, search=(1, 4))
    hidden_size: tuple[int, ...] = option(
        (), "Width of the layers; several (64,32) from bottom to top.", minimum=1, maximum=8192, unset=FOUND, around=2
    )
    cell: str = option("lstm", "Recurrent cell: lstm, gru, or rnn, the plain one.", choices=CELLS, search=CELLS)
    bidirectional: bool = option(False, "Read the context from both ends.", search=SWITCH)
    attention: bool = option(False, "Decode a weighted mean of all steps beside the newest one.", search=SWITCH)
    residual: bool = option(True, "Add the input of each layer but the first to its output.", search=SWITCH)
    layer_norm: bool = option(False, "Normalise the input of each layer but the first.", search=SWITCH)
    dilations: tuple[int, ...] = option((), "Steps between states, for each layer: 1,2,4.", minimum=1, maximum=100_000)
    dropout: float | None = option(
        None, "Dropout between layers and before the head.", minimum=0, maximum=0.95, unset=FOUND, search=(0.0, 0.5)
    )
    recurrent_dropout: float = option(
        0.0, "Dropout of the weights from state to state.", minimum=0, maximum=0.95, search=(0.0, 0.5)
    )
    forget_bias: float | None = option(
        None,
        "What the forget gates of an LSTM start with: 1 remembers longer.",
        minimum=-10,
        maximum=10,
        unset=FOUND,
        search=(-1.0, 2.0),
    )
    context_length: int | None = option(
        None, "Rows the network sees before each forecast.", minimum=1, maximum=100_000, unset=FOUND, around=4
    )
    patch_length: int | None = option(
        None, "Rows per step of the stack; 1 is one row at a time.", minimum=1, maximum=10_000, unset=FOUND, around=4
    )
    horizon: int | None = option(None, "Rows to forecast.", minimum=1, maximum=100_000, unset=FOUND)
    quantiles: tuple[float, ...] = option(
        (), "Quantiles to learn, 0.1 and 0.9 if none is named; 0.5 always.", minimum=0.001, maximum=0.999
    )
    interval: tuple[float, ...] = option(
        (), "Central intervals to learn as well, in percent: 80 or 80,95.", minimum=0.2, maximum=99.8
    )
    skip: bool = option(True, "Let the stack learn what a linear forecast from the context leaves over.", search=SWITCH)
    loss: str = option("quantile", "What is learned: " + ", ".join(LOSSES) + ".", choices=LOSSES)
    supervise: str = option(
        "last",
        "Train the newest step's forecast, or that of all steps.",
        choices=("last", "all"),
        search=("last", "all"),
    )
    calendar: bool = option(
        True, "Show the network hour, weekday and season of each row, as the step allows.", search=SWITCH
    )
    holidays: str | None = option(None, "Public holidays of a country, or of a part of it: US, DE, DE-BY.")
    gaps: str = option(
        "mask",
        "What stands in for missing values before a forecast; error refuses them.",
        choices=("mask", "ffill", "interpolate", "error"),
        search=("mask", "ffill", "interpolate"),
    )
    transform: str | None = option(
        None,
        "Learn the values, their log(1 + y), or sign(y) log(1 + |y|).",
        choices=("none", "log1p", "symlog"),
        unset=FOUND,
        search=("none", "symlog"),
    )
    min: float | None = option(None, "No forecast is below this.")
    max: float | None = option(None, "No forecast is above this.")


@dataclass(frozen=True)
class TrainingConfig(Checked):
    """How the network is trained, judged and refitted."""

    epochs: int | None = option(None, "Most passes over the training windows.", minimum=1, search=(1, 100), log=True)
    max_time: float | None = option(
        None,
        "Longest training time, from the first step on: 90s, 10m, 1h; in retrain of the whole run.",
        minimum=0,
        parse="duration",
    )
    batch_size: int | None = option(
        None, "Windows per optimiser step.", minimum=1, maximum=1_000_000, unset=FOUND, around=2
    )
    learning_rate: float | None = option(
        None, "Step size of AdamW.", minimum=1e-8, maximum=10, unset=FOUND, around=5, log=True
    )
    weight_decay: float | None = option(
        None, "Weight decay of AdamW.", minimum=0, maximum=10, unset=FOUND, around=10, log=True
    )
    grad_clip: float = option(
        1.0, "Largest norm of a gradient; 0 does not clip.", minimum=0, search=(0.1, 10.0), log=True
    )
    patience: int | None = option(
        None, "Validations without improvement before training stops.", minimum=1, unset=FOUND, around=2
    )
    holdout: int | None = option(
        None, "Last rows of each series kept to judge the model; 0 skips judging.", minimum=0, unset=FOUND
    )
    refit: bool = option(True, "Refit on all rows after judging, for the number of steps found.")
    class_weights: str = option(
        "none", "With --label: balanced counts every class alike, however rare.", choices=("none", "balanced")
    )
    seed: int = option(0, "Seed of everything random.", minimum=0, maximum=2**63 - 1)
    precision: str = option(
        "auto",
        "Arithmetic of training: float32, bfloat16, or auto, which is float32 but on a GPU that is faster in bfloat16.",
        choices=("auto", "float32", "bfloat16"),
    )


@dataclass(frozen=True)
class RuntimeConfig(Checked):
    """Where a network is trained."""

    device: str = option("auto", "cpu, cuda, cuda:N, mps, or auto: a CUDA device where a trial finds it faster.")
    threads: int | None = option(
        None,
        "Threads of the CPU that share a training step; they change no model.",
        minimum=1,
        maximum=1024,
        unset="as many as are fastest",
    )


@dataclass(frozen=True)
class ForecastRuntimeConfig(RuntimeConfig):
    """Where forecasts are computed."""

    device: str = option("auto", "cpu, cuda, cuda:N, mps, or auto: a CUDA device for very many forecasts.")
    threads: int | None = option(
        None,
        "Threads of the CPU that compute forecasts; the last digits may differ by them.",
        minimum=1,
        maximum=1024,
        unset="1",
    )


@dataclass(frozen=True)
class RunConfig(Checked):
    """How a run that writes a model goes beside others, and after an interruption."""

    resume: bool = option(True, "Go on where the same command was interrupted.")
    wait: float | None = option(
        None, "How long to wait for another run on the same model: 90s, 10m.", minimum=0, parse="duration", unset="not"
    )


@dataclass(frozen=True)
class RetrainConfig(Checked):
    """How a saved model is continued, and when it is replaced."""

    gate: str = option(
        "unless-worse",
        "When the new model replaces the old one: strict is clearly better, unless-worse not clearly worse, or always.",
        choices=GATES,
    )
    keep: int = option(0, "Earlier models to keep beside the model, as PATH.1, PATH.2 …", minimum=0, maximum=1000)
    from_scratch: bool = option(False, "Fit a new network with the model's options instead of continuing its weights.")
    refit_scaling: bool = option(
        False, "Take the means, deviations and categories of covariates from the rows as they are now."
    )
    fail_if_unchanged: bool = option(False, "End with status 7, not 0, where there is nothing new to learn.")
    log: str | None = option(None, "Add what was found to this file, one line of JSON a run.")


@dataclass(frozen=True)
class PromotionConfig(Checked):
    """Which earlier model becomes the model."""

    previous: bool = option(False, "The one that the last promotion replaced; doing it twice undoes it.")


@dataclass(frozen=True)
class InspectionConfig(Checked):
    """What is shown of a model file."""

    history: bool = option(False, "Show its retrainings instead: rows added, errors of both models, decisions.")


@dataclass(frozen=True)
class EvaluationConfig(Checked):
    """Which forecasts are scored."""

    start: str | None = option(None, "First time stamp that is forecast; origins then count forward.")
    end: str | None = option(None, "Last row that is forecast.")
    step: int | None = option(None, "Rows between origins; default: the horizon.", minimum=1)
    origins: int | None = option(None, "Score the last N origins only.", minimum=1)
    refit_every: int | None = option(
        None, "Fit the network anew, on the rows up to there, before every so many cutoffs.", minimum=1, unset="never"
    )
    in_sample: bool = option(False, "Also allow rows the model was trained on; the result is marked.")
    quantiles: tuple[float, ...] = option(
        (), "Quantiles to score; learned ones are interpolated.", minimum=0.001, maximum=0.999
    )
    interval: tuple[float, ...] = option(
        (), "Central intervals to score, in percent: 80 or 80,95.", minimum=0.2, maximum=99.8
    )
    fail_if_worse_than: str | None = option(
        None,
        "End with status 5 where the model is worse than this baseline.",
        choices=(*BASELINES, *LABEL_BASELINES),
    )
    against: str | None = option(None, "Score this saved forecast on the rows of DATA that have come since.")
    append: str | None = option(None, "Add what --against found to this file, one line of JSON a run.")
    forecasts: str | None = option(None, "Write every forecast, its cutoff and what came: .csv, .parquet or .json.")
    report: str | None = option(None, "Write tables and plots to this HTML file, which needs no other.")


@dataclass(frozen=True)
class MetricConfig(Checked):
    """How errors are scaled and reported."""

    seasonality: int | None = option(
        None,
        "Rows in a season, for seasonal naive, MASE, RMSSE and, in training, the network.",
        minimum=1,
        maximum=1_000_000,
        unset=FOUND,
    )
    per_series: bool = option(False, "Report the metrics of each series too.")
    per_step: bool = option(False, "Report the metrics of each step of the horizon too.")
    baselines: tuple[str, ...] = option(
        (),
        "Baselines beside the naive ones: auto_ets, auto_theta, or none (pip install 'stacklstm[baselines]').",
        unset="evaluate: both, where they are installed and take seconds",
    )


@dataclass(frozen=True)
class OutputConfig(Checked):
    """Where results go, and in which form."""

    format: str = option("auto", f"One of {', '.join(OUTPUT_FORMATS)}.", choices=OUTPUT_FORMATS)
    output: str | None = option(None, "Write the result to this file instead of standard output.", short="-o")


@dataclass(frozen=True)
class PictureConfig(Checked):
    """What is drawn."""

    plot: str | None = option(None, "Draw the result to this file: .png, .svg or .pdf.")
    show: bool = option(False, "Draw the result in the terminal, on standard error.")


@dataclass(frozen=True)
class ExportConfig(Checked):
    """What an exported model is compared on, beside random windows."""

    data: str | None = option(None, "Compare on the windows of this file too.")


@dataclass(frozen=True)
class ForecastConfig(Checked):
    """Which part of the forecast is written."""

    horizon: int | None = option(None, "Rows to forecast; at most the trained horizon.", minimum=1)
    quantiles: tuple[float, ...] = option(
        (), "Quantiles to write; learned ones are interpolated.", minimum=0.001, maximum=0.999
    )
    interval: tuple[float, ...] = option(
        (), "Central intervals to write, in percent: 80 or 80,95.", minimum=0.2, maximum=99.8
    )
    future: str | None = option(None, "File with the future rows of the known covariates.")
    future_template: bool = option(False, "Write the future rows of the known covariates to fill in, and no forecast.")
    attention_weights: bool = option(False, "Write how much each step of the context counts, and no forecast.")
    wide: bool = option(False, "One column per series, as in a wide input; point forecasts only.")


@dataclass(frozen=True)
class SearchConfig(Checked):
    """What is tried, and how the choice is made."""

    search: tuple[str, ...] = option(
        (),
        "Options to search: layers,hidden-size=16..128,cell=lstm/gru; as does --layers auto.",
        unset="tune: layers; then width, cell, context, patch, dropout, rate",
    )
    max_layers: int = option(4, "Deepest stack to try.", minimum=1, maximum=64)
    trials: int | None = option(
        None, "Most candidates to try, depths included.", minimum=1, unset="the depths; 20 if --search names more"
    )
    pick: str = option(
        "one-se", "Choose the shallowest within one standard error of the best (one-se), or the best.", choices=PICKS
    )
    folds: int | None = option(
        None, "Cutoffs at which every candidate is fitted anew.", minimum=1, maximum=100, unset="2, where rows allow"
    )
    fits: int = option(1, "Fits of each candidate at each of them, with seeds of their own.", minimum=1, maximum=100)


@dataclass(frozen=True)
class StudyConfig(Checked):
    """Where a search is kept, and how many work on it."""

    study: str | None = option(
        None, "Keep the search in this file (.db, .log) or database (a URL), continue it, or help with it."
    )
    jobs: int = option(1, "Processes that search.", minimum=1, maximum=256)
