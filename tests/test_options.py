"""`stacklstm_cli.cli.options`: each option reaches its configuration, from the command line and from TOML."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner, Result

from stacklstm_cli import config
from stacklstm_cli.cli.messages import ErrorGroup, Messages
from stacklstm_cli.cli.options import takes

CONFIGS = [
    item
    for item in vars(config).values()
    if isinstance(item, type) and dataclasses.is_dataclass(item) and issubclass(item, config.Checked)
]
FIELDS = [(item, field) for item in CONFIGS for field in dataclasses.fields(item)]
each_field = pytest.mark.parametrize(("item", "field"), FIELDS, ids=[f"{c.__name__}.{f.name}" for c, f in FIELDS])


def command_with(item: type) -> tuple[typer.Typer, list[Any]]:
    """An app with one command, `run`, that takes `item`, and the list that it leaves what it was given in."""
    given: list[Any] = []

    def run(settings: Any) -> None:
        given.append(settings)

    run.__annotations__["settings"] = item
    app = typer.Typer(cls=ErrorGroup)
    app.callback()(lambda: None)
    app.command()(takes(run))
    return app, given


def invoke(app: typer.Typer, *words: str) -> Result:
    return CliRunner().invoke(app, words, env={"COLUMNS": "500"})


def another(item: type, field: dataclasses.Field[Any]) -> tuple[str, Any, Any]:
    """A value unlike the default: as typed, as TOML has it, as the configuration holds it."""
    hint = get_type_hints(item)[field.name]
    kinds = [hint, *get_args(hint)]
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    number = next(n for n in (3, 0.25, 50) if (low is None or n >= low) and (high is None or n <= high))
    if field.metadata["choices"]:
        last = field.metadata["choices"][-1]
        return last, last, last
    if field.metadata["parse"] == "duration":
        return "2m", "2m", 120.0
    if hint is bool:
        return str(not field.default), not field.default, not field.default
    if get_origin(hint) is tuple:
        if get_args(hint)[0] is str:
            return "a, b", ["a", "b"], ("a", "b")
        return f"{number},{number}", [number, number], (float(number), float(number))
    if int in kinds:
        return str(number), number, number
    if float in kinds:
        return str(number), number, float(number)
    return "word", "word", "word"


@each_field
def test_each_option_reaches_its_configuration(item: type, field: dataclasses.Field[Any]) -> None:
    app, given = command_with(item)
    typed, _, expected = another(item, field)
    name = config.option_name(field)
    words = [name, typed]
    if isinstance(expected, bool):
        words = [name if expected else name.replace("--", "--no-", 1)]
    result = invoke(app, "run", *words)
    assert result.exit_code == 0, result.stderr
    assert given == [item(**{field.name: expected})]
    assert type(getattr(given[0], field.name)) is type(expected)


@each_field
def test_each_option_can_be_in_a_file_under_its_name(item: type, field: dataclasses.Field[Any], tmp_path: Path) -> None:
    app, given = command_with(item)
    _, stored, expected = another(item, field)
    text = str(stored).lower() if isinstance(stored, bool) else repr(stored)
    for key in (field.name, field.name.replace("_", "-")):
        (tmp_path / "options.toml").write_text(f"{key} = {text}\n")
        result = invoke(app, "run", "--config", str(tmp_path / "options.toml"))
        assert result.exit_code == 0, result.stderr
    assert given == [item(**{field.name: expected})] * 2


@pytest.mark.parametrize("item", CONFIGS)
def test_nothing_typed_is_the_default_configuration(item: type) -> None:
    app, given = command_with(item)
    assert invoke(app, "run").exit_code == 0
    assert given == [item()]


@pytest.mark.parametrize(
    ("item", "words", "said"),
    [
        (config.ModelConfig, ["--layers", "two"], "--layers is 'two'; expected a whole number"),
        (config.ModelConfig, ["--layers", "100"], "--layers is 100; expected 1 to 64"),
        (config.ModelConfig, ["--dropout", "nan"], "--dropout is nan"),
        (config.ModelConfig, ["--quantiles", "0.1,x"], "--quantiles is '0.1,x'; expected numbers"),
        (config.ModelConfig, ["--quantiles", "0.1,,0.9"], "--quantiles"),
        (config.DataConfig, ["--target", ""], "--target is ''"),
        (config.TrainingConfig, ["--max-time", "soon"], "--max-time: 'soon' is no duration"),
        (config.OutputConfig, ["--format", "xml"], "--format is 'xml'"),
        (config.ForecastConfig, ["--no-wide"], "--no-wide"),
        (config.ModelConfig, ["--hidden_size", "3"], "--hidden_size"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error_naming_the_option(item: type, words: list[str], said: str) -> None:
    app, given = command_with(item)
    result = invoke(app, "run", *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert given == []


def two_commands() -> tuple[typer.Typer, list[Any]]:
    given: list[Any] = []
    app = typer.Typer(cls=ErrorGroup)

    @app.command()
    @takes
    def train(
        network: config.ModelConfig,
        output: config.OutputConfig,
        messages: Messages,
        model: Annotated[str, typer.Option("--model", "-m")] = "m",
    ) -> None:
        given.append((network, output, messages.verbosity, model))

    @app.command()
    @takes
    def predict(forecast: config.ForecastConfig) -> None:
        given.append(forecast)

    return app, given


def run_with(text: str, *words: str, folder: Path) -> tuple[Result, list[Any]]:
    app, given = two_commands()
    (tmp := folder / "o.toml").write_text(text, encoding="utf-8")
    return invoke(app, words[0], "--config", str(tmp), *words[1:]), given


def test_the_command_line_wins_over_the_table_and_the_table_over_the_top(tmp_path: Path) -> None:
    text = 'layers = 3\nhidden-size = 8\nmodel = "a"\n[train]\nlayers = 4\ndropout = 0.5\n[predict]\nwide = true\n'
    result, given = run_with(text, "train", "--dropout", "0.25", folder=tmp_path)
    assert result.exit_code == 0, result.stderr
    network, _, _, model = given[0]
    assert (network.layers, network.hidden_size, network.dropout, model) == (4, (8,), 0.25, "a")


@pytest.mark.parametrize(
    ("text", "widths"), [("8", (8,)), ("[8]", (8,)), ("[8, 4]", (8, 4)), ('"8,4"', (8, 4)), ('"8"', (8,))]
)
def test_a_list_of_one_needs_no_brackets(text: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    """As on the command line, where a list is numbers with commas between them."""
    result, given = run_with(f"hidden-size = {text}\n", "train", folder=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert given[0][0].hidden_size == widths


def test_options_of_other_commands_at_the_top_are_no_concern(tmp_path: Path) -> None:
    result, given = run_with("wide = true\nlayers = 3\n", "predict", folder=tmp_path)
    assert result.exit_code == 0, result.stderr
    assert given == [config.ForecastConfig(wide=True)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layer = 3", "Did you mean layers?"),
        ("hidden-sise = 3", "Did you mean hidden-size?"),
        ("xyzzy = 3", "xyzzy"),
        ("[train]\nwide = true", "wide"),
        ("[predict]\nlayers = 3", "layers"),
        ("[trian]\nlayers = 3", "trian"),
        ("train = 3", "train"),
        ('layers = "two"', "--layers is 'two'"),
        ('layers = "2"', "--layers is '2'"),
        ("layers = 2.5", "--layers is 2.5"),
        ("layers = true", "--layers is True"),
        ("layers = [1]", "--layers is [1]"),
        ("layers = 100", "--layers is 100; expected 1 to 64"),
        ("quantiles = true", "--quantiles is True"),
        ('quantiles = ["a"]', "--quantiles"),
        ("[layers]\na = 1", "--layers"),
        ("hidden-size = 3\nhidden_size = 4", "twice"),
        ('config = "x"', "config"),
        ("layers = ", "no TOML file"),
    ],
)
def test_a_file_that_cannot_be_meant_is_a_usage_error_naming_it(text: str, said: str, tmp_path: Path) -> None:
    result, given = run_with(text, "train", folder=tmp_path)
    assert result.exit_code == 2
    assert str(tmp_path / "o.toml") in result.stderr
    assert said in result.stderr
    assert given == []


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    app, _ = two_commands()
    result = invoke(app, "train", "--config", str(tmp_path / "none.toml"))
    assert result.exit_code == 2
    assert "none.toml" in result.stderr


def test_a_byte_order_mark_and_dates_are_read(tmp_path: Path) -> None:
    app, given = command_with(config.EvaluationConfig)
    (tmp_path / "o.toml").write_text("\ufeffstart = 2020-01-31\n", encoding="utf-8")
    result = invoke(app, "run", "--config", str(tmp_path / "o.toml"))
    assert result.exit_code == 0, result.stderr
    assert given == [config.EvaluationConfig(start="2020-01-31")]


def test_a_format_in_the_file_decides_how_errors_are_shown(tmp_path: Path) -> None:
    result, _ = run_with('format = "json"\n', "train", "--layers", "100", folder=tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith('{"error": {"code": "option_out_of_bounds"')
    result, _ = run_with('format = "json"\n', "train", "--layers", "100", "--format", "csv", folder=tmp_path)
    assert result.stderr.startswith("error: --layers")


@pytest.mark.parametrize(("words", "verbosity"), [([], 0), (["-q"], -1), (["-qq"], -2), (["-v"], 1), (["-v", "-q"], 0)])
def test_verbosity(words: list[str], verbosity: int) -> None:
    app, given = two_commands()
    result = invoke(app, "train", *words)
    assert result.exit_code == 0, result.stderr
    assert given[0][2] == verbosity


def test_help_shows_the_panels_in_order_with_defaults() -> None:
    app, _ = two_commands()
    text = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).stdout
    assert text.index(" Model ") < text.index(" Output ")
    for part in ("--hidden-size", "[default: 2]", "(from the data)", "LIST", "--output", "-o", "-q"):
        assert part in text


def test_two_definitions_of_one_option_are_a_bug_found_at_import() -> None:
    def both(network: config.ModelConfig, forecast: config.ForecastConfig) -> None: ...
    def own(network: config.ModelConfig, layers: int = 1) -> None: ...
    def short(output: config.OutputConfig, other: Annotated[str, typer.Option("--other", "-o")] = "") -> None: ...

    for command, option in ((both, "--horizon"), (own, "--layers"), (short, "-o")):
        with pytest.raises(TypeError, match=f"{option} is defined twice"):
            takes(command)


def test_importing_options_and_messages_is_cheap() -> None:
    code = (
        "import sys, stacklstm_cli.cli.options, stacklstm_cli.cli.messages, stacklstm_cli.cli.progress\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pyarrow', 'pydantic', 'rich.table', 'rich.progress'}\n"
        "print(*(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((), []),
        ((80.0,), [0.1, 0.9]),
        ((95.0, 80.0), [0.025, 0.1, 0.9, 0.975]),
        ((99.8,), [0.001, 0.999]),
        ((33.3,), [0.3335, 0.6665]),
    ],
)
def test_an_interval_is_two_quantiles(interval: tuple[float, ...], expected: list[float]) -> None:
    """As many per cent between them, as many below as above; the very numbers that --quantiles would give."""
    assert sorted(config.interval_quantiles(interval)) == expected
