"""The commands: each parses, makes one call to the core, and reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from stacklstm_cli.cli.command import App
from stacklstm_cli.cli.messages import ErrorGroup, Messages
from stacklstm_cli.cli.options import Overrides, Typed, takes
from stacklstm_cli.config import (
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    ForecastConfig,
    ForecastRuntimeConfig,
    InspectionConfig,
    MetricConfig,
    ModelConfig,
    OutputConfig,
    PictureConfig,
    PromotionConfig,
    ReadingConfig,
    RetrainConfig,
    RunConfig,
    RuntimeConfig,
    SearchConfig,
    StudyConfig,
    TrainingConfig,
)
from stacklstm_cli.errors import UsageError
from stacklstm_cli.ranks import Ranks
from stacklstm_cli.training.runtime import Clock, signals_stop

app = App(
    name="stacklstm",
    cls=ErrorGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
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
ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")]
SHARED = ("train", "predict", "evaluate")
"""What several processes do together; any other command is the first one's alone."""
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")


@app.callback(invoke_without_command=True)
def stacklstm(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Forecast time series from a CSV file with a stacked LSTM."""
    if version:
        from stacklstm_cli import __version__

        sys.stdout.write(f"stacklstm {__version__}\n")
        raise typer.Exit
    if context.invoked_subcommand not in SHARED and not Ranks.of().leads:
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
    run: RunConfig,
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
    clock = Clock(training.max_time)
    with signals_stop(clock):  # before torch is imported, which takes seconds
        with clock.interruptible():
            from stacklstm_cli.cli import runs
        return runs.train(
            *(sources, path, data, reading, network, training, search, run, runtime, metrics, output, pictures),
            *(messages, typed, clock),
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
    clock = Clock(training.max_time)
    clock.start()  # the limit is that of the whole run
    with signals_stop(clock):
        with clock.interruptible():
            from stacklstm_cli.cli import tuning
        return tuning.tune(
            *(sources, model, data, reading, network, training, search, study, runtime, metrics, output, pictures),
            *(messages, typed, clock),
        )


@app.command()
@takes
def predict(
    sources: Sources,
    forecast: ForecastConfig,
    reading: ReadingConfig,
    runtime: ForecastRuntimeConfig,
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
    runtime: ForecastRuntimeConfig,
    output: OutputConfig,
    pictures: PictureConfig,
    messages: Messages,
    model: ModelOption = None,
) -> None:
    """Score a saved model on rows it has not seen, beside naive forecasts.

    Example: stacklstm evaluate data.csv --origins 12
    """
    if evaluation.against is None:
        path = model_path(model, sources)
        from stacklstm_cli.cli import scores

        scores.evaluate(sources, path, evaluation, reading, metrics, runtime, output, pictures, messages)
    else:
        usual = None if sources[0] == "-" else model_path(None, sources)
        from stacklstm_cli.cli import scores

        scores.against(sources, model, usual, evaluation, reading, metrics, output, pictures, messages)


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
def retrain(
    sources: Sources,
    retraining: RetrainConfig,
    reading: ReadingConfig,
    typed: Annotated[Overrides, ModelConfig, TrainingConfig],
    run: RunConfig,
    runtime: RuntimeConfig,
    output: OutputConfig,
    messages: Messages,
    model: ModelOption = None,
) -> int:
    """Continue a saved model on new rows, and replace it only when that is safe. For cron.

    Example: stacklstm retrain data.csv -q --log retrain.ndjson
    """
    path = model_path(model, sources)
    clock = Clock(typed.get("max_time"))
    clock.start()
    with signals_stop(clock):
        with clock.interruptible():
            from stacklstm_cli.cli import retraining as night
        return night.retrain(sources, path, retraining, reading, typed, run, runtime, output, messages, clock)


@app.command()
@takes
def promote(
    model: ModelArgument,
    promotion: PromotionConfig,
    messages: Messages,
) -> None:
    """Go back to the model that the last promotion replaced, where retrain --keep has kept it.

    Example: stacklstm promote data.safetensors --previous
    """
    if not promotion.previous:
        raise UsageError(
            "promote needs to know which model.", hint="Add --previous for the one before.", code="nothing_to_promote"
        )
    from stacklstm_cli.locking import model_lock
    from stacklstm_cli.model.lineage import swap_with_previous

    with model_lock(model, on_note=messages.note, on_warning=messages.warning):
        promoted, replaced = swap_with_previous(model)
    messages.note(f"{model} is {promoted} again; {replaced or 'what was there'} is {model}.1 now")


@app.command()
@takes
def inspect(
    model: ModelArgument,
    inspection: InspectionConfig,
    output: OutputConfig,
    messages: Messages,
) -> None:
    """Show what a model file says of itself.

    Example: stacklstm inspect data.safetensors
    """
    from stacklstm_cli.cli.report import check_output, write_card
    from stacklstm_cli.model.header import card
    from stacklstm_cli.model.lineage import history_card

    check_output(output, model)
    messages.detail(f"read from the header of {model} alone; a forecast checks every bit of the file")
    write_card(history_card(model) if inspection.history else card(model), output)


@app.command()
@takes
def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Model file.")],
    comparison: ExportConfig,
    output: OutputConfig,
    messages: Messages,
) -> None:
    """Write a model as ONNX to --output, normalisation inside, once it was found to forecast as torch does.

    Example: stacklstm export data.safetensors --output data.onnx --data data.csv
    """
    from stacklstm_cli.cli.exporting import export as write_onnx

    write_onnx(model, comparison, output, messages)


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
