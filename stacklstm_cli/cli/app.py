"""The commands: each parses, makes one call to the core, and reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stacklstm_cli.cli.messages import ErrorGroup, Messages
from stacklstm_cli.cli.options import Typed, takes
from stacklstm_cli.config import (
    DataConfig,
    EvaluationConfig,
    ForecastConfig,
    MetricConfig,
    ModelConfig,
    OutputConfig,
    PictureConfig,
    ReadingConfig,
    RuntimeConfig,
    SearchConfig,
    StudyConfig,
    TrainingConfig,
)
from stacklstm_cli.errors import UsageError

app = typer.Typer(
    name="stacklstm",
    cls=ErrorGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
main = app

Sources = Annotated[
    list[str],
    typer.Argument(metavar="DATA...", help="CSV, TSV or Parquet files, plain or compressed; - is standard input."),
]
ModelOption = Annotated[
    Path | None,
    typer.Option("--model", "-m", metavar="PATH", help="Model file.", show_default="DATA's name + .safetensors, here"),
]
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


@app.callback(invoke_without_command=True)
def stacklstm(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Forecast time series from a CSV file with a stacked LSTM."""
    if version:
        from stacklstm_cli import __version__

        sys.stdout.write(f"stacklstm {__version__}\n")
        raise typer.Exit


@app.command()
@takes
def train(
    sources: Sources,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    runtime: RuntimeConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    typed: Typed,
    model: ModelOption = None,
) -> int:
    """Fit a stacked LSTM, save it, and print its errors beside those of naive forecasts.

    Example: stacklstm train data.csv --layers 2
    """
    path = model_path(model, sources)
    from stacklstm_cli.cli import runs

    return runs.train(
        *(sources, path, data, reading, network, training, search, runtime, metrics, output, pictures, messages, typed)
    )


@app.command()
@takes
def tune(
    sources: Sources,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    study: StudyConfig,
    runtime: RuntimeConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    typed: Typed,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", metavar="PATH", help="Train the choice in full and save it.", show_default=False),
    ] = None,
) -> int:
    """Find out how many layers are enough, by rolling origins; and other options, as time allows.

    Example: stacklstm tune data.csv --max-time 10m
    """
    from stacklstm_cli.cli import tuning

    return tuning.tune(
        *(sources, model, data, reading, network, training, search, study, runtime, metrics, output, pictures),
        *(messages, typed),
    )


@app.command()
@takes
def predict(
    sources: Sources,
    forecast: ForecastConfig,
    reading: ReadingConfig,
    runtime: RuntimeConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    model: ModelOption = None,
) -> None:
    """Forecast the rows after the last observed one of every series.

    Example: stacklstm predict data.csv --horizon 6 > forecast.csv
    """
    path = model_path(model, sources)
    from stacklstm_cli.cli import runs

    runs.predict(sources, path, forecast, reading, runtime, output, pictures, messages)


@app.command()
@takes
def evaluate(
    sources: Sources,
    evaluation: EvaluationConfig,
    reading: ReadingConfig,
    metrics: MetricConfig,
    runtime: RuntimeConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    model: ModelOption = None,
) -> None:
    """Score a saved model on rows it has not seen, beside naive forecasts.

    Example: stacklstm evaluate data.csv --origins 12
    """
    path = model_path(model, sources)
    from stacklstm_cli.cli import runs

    runs.evaluate(sources, path, evaluation, reading, metrics, runtime, output, pictures, messages)


@app.command()
@takes
def check(
    sources: Sources,
    data: DataConfig,
    reading: ReadingConfig,
    network: ModelConfig,
    training: TrainingConfig,
    search: SearchConfig,
    metrics: MetricConfig,
    output: OutputConfig,
    messages: Messages,
    typed: Typed,
) -> None:
    """Say what DATA was understood to be, what is wrong with it, and what train would do. Trains nothing.

    Example: stacklstm check data.csv
    """
    from stacklstm_cli.cli import checking

    checking.check(sources, data, reading, network, training, search, metrics, output, messages, typed)


@app.command()
@takes
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    output: OutputConfig,
    messages: Messages,
) -> None:
    """Show what a model file says of itself.

    Example: stacklstm inspect data.safetensors
    """
    from stacklstm_cli.cli.report import check_output, write_card
    from stacklstm_cli.model.header import card

    check_output(output, model)
    messages.detail(f"read from the header of {model} alone; a forecast checks every bit of the file")
    write_card(card(model), output)


def model_path(model: Path | None, sources: list[str]) -> Path:
    """The model file: as typed, or the first data file's name with `.safetensors`, in this folder."""
    if model is not None:
        return model
    if sources[0] == "-":
        raise UsageError(
            "Data from standard input has no name to call the model after.",
            hint="Name the model file with --model PATH.",
            code="model_not_named",
        )
    name = Path(sources[0])
    if name.suffix.lower() in COMPRESSIONS:
        name = name.with_suffix("")
    return Path(name.stem + ".safetensors")
