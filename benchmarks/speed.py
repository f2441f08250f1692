"""Training speed beside a bare torch loop of the same network, shape and batch.

    python benchmarks/speed.py [--rounds 5] [--steps 60] [--threads CORES] [--shape WORD] [--peers]
    python benchmarks/speed.py --device cuda [--rounds 5] [--steps 60] [--shape WORD]

All run in this process, in turn: the program with batches in one piece, with its shards on one thread and on several,
and the bare loop on one thread. The medians of the windows per second and of the ratios within each round are printed:
what one thread reaches of the bare loop, what it keeps where batches are cut into shards, and what several threads
make of that. The bare loop draws its batches from memory, ready made; the program also gathers and normalises them.
Only a machine without other work shows what several threads are worth.

With --device cuda the bare loop is cuDNN's, and the program runs on that device in float32 and in bfloat16, and on two
cores: what it reaches of the bare loop in float32, what bfloat16 makes of that, and what the faster of them makes of
two cores.

--peers compares with the LSTMs of neuralforecast and Darts instead, where they are installed: two layers of the same
width, without patches, the same context, horizon, quantiles, series, batch and number of steps, one thread. They are no
dependencies; in an environment of their own: pip install -c constraints.txt . neuralforecast darts
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.model.heads import masked_mean, pinball
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Inputs
from stacklstm_cli.training import loop, shards
from stacklstm_cli.training.defaults import Plan, resolve
from stacklstm_cli.training.fitting import Trainer
from stacklstm_cli.training.placement import Place, Places, finished_at
from stacklstm_cli.training.runtime import Clock, set_threads

HERE = Place(torch.device("cpu"))
WHOLE = 10**18
"""As the least work of a shard: no batch is cut."""
SHAPES = {
    "L 36, P 3, hidden 32, batch 32": ModelConfig(context_length=36, patch_length=3, hidden_size=(32,), horizon=12),
    "L 96, P 1, hidden 128, batch 32": ModelConfig(context_length=96, patch_length=1, hidden_size=(128,), horizon=96),
    "L 168, P 12, hidden 64, batch 128": ModelConfig(
        context_length=168, patch_length=12, hidden_size=(64,), horizon=48
    ),
    "L 168, P 12, hidden 128, batch 256": ModelConfig(
        context_length=168, patch_length=12, hidden_size=(128,), horizon=48
    ),
    "L 336, P 24, hidden 128, batch 256": ModelConfig(
        context_length=336, patch_length=24, hidden_size=(128,), horizon=96
    ),
}
PEERS = ("neuralforecast", "darts")
PEER_SHAPES = {
    "L 36, H 12, hidden 32, batch 32": ModelConfig(context_length=36, hidden_size=(32,), horizon=12),
    "L 96, H 96, hidden 128, batch 32": ModelConfig(context_length=96, hidden_size=(128,), horizon=96),
    "L 168, H 48, hidden 64, batch 128": ModelConfig(context_length=168, hidden_size=(64,), horizon=48),
}
"""Patches are one row, as those of the peers; beside them stands the patch that the rules choose."""
WARM_STEPS = 3
"""First steps, which are not counted."""
LAYERS = 2


def panel(rows: int) -> Panel:
    """One noisy daily wave, hourly."""
    values = np.sin(np.arange(rows) * 2 * np.pi / 24) + np.random.default_rng(0).normal(size=rows)
    return Panel(
        columns=Columns("single", ("time",), (), ("value",)),
        step=Step("second", 3600),
        time_form=TimeForm("datetime", "%Y-%m-%d %H:%M"),
        keys=((),),
        values=values,
        offsets=np.asarray([0, rows]),
        starts=np.asarray([0]),
    )


def own_speed(plan: Plan, data: Panel, threads: int, least_work: int = shards.LEAST_WORK, place: Place = HERE) -> float:
    """Windows per second of one fit through the program's own loop."""
    set_threads(threads)
    shards.LEAST_WORK = least_work
    trainer = Trainer(data, plan, device=Places.at(place), clock=Clock())
    found, _ = trainer.choose()
    return found.windows_per_second or 0.0


def bare_speed(plan: Plan, steps: int, place: Place = HERE) -> float:
    """Windows per second of the same network in the shortest loop torch allows."""
    spec, size, device = plan.spec, plan.schedule.batch_size, place.device
    network = StackedRNN(spec).to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, foreach=True)
    context, observed = torch.randn(size, spec.context_length), torch.ones(size, spec.context_length)
    batch = Inputs(
        context,
        observed,
        past=torch.empty(size, spec.context_length, 0),
        future=torch.empty(size, spec.horizon, 0),
        static=torch.empty(size, 0),
        calendar=torch.randint(0, 7, (size, spec.horizon, len(spec.inputs.cycles))),
    )
    inputs = batch.to(device, torch.float32)
    target, known = torch.randn(size, spec.horizon, device=device), torch.ones(size, spec.horizon, device=device)
    quantiles = torch.tensor(spec.quantiles, device=device)
    begin = 0.0
    for step in range(steps + 3):
        if step == 3:
            begin = finished_at(place)
        loss = masked_mean(pinball(network(inputs), target, quantiles), known)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    return steps * size / (finished_at(place) - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=shards.cores())
    parser.add_argument("--shape", default="", help="only shapes whose name holds this")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--peers", action="store_true", help="beside neuralforecast and Darts")
    asked = parser.parse_args()
    on_gpu = asked.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured")
        return
    torch.set_num_threads(1)
    data = panel(4000)
    if asked.peers:
        compare_peers(data, asked.rounds, asked.steps, asked.shape)
        return
    if on_gpu:
        print(torch.cuda.get_device_name())
        print(f"{'windows per second':36s} bare cuDNN  float32  bfloat16  2 cores   of bare  by bfloat16  by GPU")
    else:
        threads = f"{asked.threads} threads"
        print(f"{'windows per second':36s} bare torch  uncut   cut  {threads}   of bare  by cut  by threads")
    for name, model in SHAPES.items():
        if asked.shape not in name:
            continue
        batch = int(name.rsplit(" ", 1)[1])
        plan = resolve(data, model, TrainingConfig(batch_size=batch, refit=False), MetricConfig())
        schedule = replace(plan.schedule, max_steps=asked.steps + 3, check_every=10**6, validation_windows=64)
        plan = replace(plan, schedule=schedule)
        if on_gpu:
            print(f"{name:36s} {gpu_line(plan, data, asked.steps, asked.rounds)}", flush=True)
            continue
        rounds = np.asarray([speeds(plan, data, asked.steps, asked.threads) for _ in range(asked.rounds)])
        bare, whole, one, several = np.median(rounds, axis=0)
        ratios = np.median(rounds[:, 1:] / rounds[:, :-1], axis=0)
        print(
            f"{name:36s} {bare:10.0f} {whole:6.0f} {one:5.0f} {several:10.0f}   "
            f"{ratios[0]:7.2f} {ratios[1]:7.2f} {ratios[2]:11.2f}",
            flush=True,
        )


def speeds(plan: Plan, data: Panel, steps: int, threads: int) -> list[float]:
    """Windows per second: of the bare loop, of batches in one piece, of shards on one thread and on several."""
    return [
        bare_speed(plan, steps),
        own_speed(plan, data, 1, WHOLE),
        own_speed(plan, data, 1),
        own_speed(plan, data, threads),
    ]


def gpu_line(plan: Plan, data: Panel, steps: int, rounds: int) -> str:
    """Medians of the bare loop on the GPU, of the program there in both precisions and on two cores; and ratios."""
    exact, rough = Place(torch.device("cuda")), Place(torch.device("cuda"), "bfloat16")
    found = np.asarray(
        [
            [
                bare_speed(plan, steps, exact),
                own_speed(plan, data, 1, place=exact),
                own_speed(plan, data, 1, place=rough),
                own_speed(plan, data, 2),
            ]
            for _ in range(rounds)
        ]
    )
    bare, own, lower, cores = np.median(found, axis=0)
    of_bare, by_lower = np.median(found[:, 1:3] / found[:, :2], axis=0)
    by_gpu = np.median(found[:, 1:3].max(1) / found[:, 3])
    return f"{bare:10.0f} {own:8.0f} {lower:9.0f} {cores:8.0f}   {of_bare:7.2f} {by_lower:12.2f} {by_gpu:7.1f}"


@dataclass
class Stopwatch:
    """When each optimiser step began, by the clock and by the processor."""

    begins: list[tuple[float, float]] = field(default_factory=list)

    def step(self) -> None:
        """One begins."""
        self.begins.append((time.perf_counter(), time.process_time()))

    def speed(self, batch: int) -> list[float]:
        """Windows per second of the clock and of the processor, from the start of one step to that of another."""
        (clock, processor), (clock_end, processor_end) = self.begins[WARM_STEPS], self.begins[-1]
        windows = batch * (len(self.begins) - 1 - WARM_STEPS)
        return [windows / (clock_end - clock), windows / (processor_end - processor)]


def compare_peers(data: Panel, rounds: int, steps: int, shape: str) -> None:
    """Print a table of the medians of interleaved fits."""
    there = [name for name in PEERS if importlib.util.find_spec(name) is not None]
    for name in PEERS:
        if name not in there:
            print(f"{name} is not installed and left out; pip install -c constraints.txt {name}")
    kinds: dict[str, Callable[[Panel, Plan], list[float]]] = {
        "stacklstm": own_fit,
        "stacklstm, patches": own_fit,
        "neuralforecast": neuralforecast_fit,
        "darts": darts_fit,
    }
    print(f"{'windows per second':34s} {'':20s} by clock  by processor  of stacklstm's")
    for title, model in PEER_SHAPES.items():
        if shape not in title:
            continue
        batch = int(title.rsplit(" ", 1)[1])
        plans = {
            name: fixed_plan(data, replace(model, layers=LAYERS, patch_length=patch), batch, steps)
            for name, patch in (("stacklstm", 1), ("stacklstm, patches", None))
        }
        names = [name for name in kinds if name in (*plans, *there)]
        found = [[kinds[name](data, plans.get(name, plans["stacklstm"])) for name in names] for _ in range(rounds)]
        speeds = np.asarray(found)  # [rounds, names, 2]
        ratios = np.median(speeds / speeds[:, :1], axis=0)
        for at, name in enumerate(names):
            clock, processor = np.median(speeds[:, at], axis=0)
            ratio = f"{ratios[at, 0]:6.2f} {ratios[at, 1]:6.2f}"
            print(f"{title:34s} {name:20s} {clock:8.0f} {processor:13.0f}  {ratio}", flush=True)


def fixed_plan(data: Panel, model: ModelConfig, batch: int, steps: int) -> Plan:
    """A training of so many steps, hardly validated."""
    plan = resolve(data, model, TrainingConfig(batch_size=batch, refit=False), MetricConfig())
    most = steps + WARM_STEPS + 1
    return replace(plan, schedule=replace(plan.schedule, max_steps=most, check_every=10**6, validation_windows=64))


def own_fit(data: Panel, plan: Plan) -> list[float]:
    """By the program's own loop."""
    watch, train_step = Stopwatch(), loop.train_step

    def watched(*arguments: Any) -> float:
        watch.step()
        return train_step(*arguments)

    loop.train_step = watched  # type: ignore[assignment]
    try:
        own_speed(plan, data, 1)
    finally:
        loop.train_step = train_step
    return watch.speed(plan.schedule.batch_size)


def lightning_settings(watch: Stopwatch) -> dict[str, Any]:
    """What a trainer of Lightning is told so that it does nothing else than train."""
    from pytorch_lightning import Callback

    class Watching(Callback):  # type: ignore[misc, unused-ignore]  # Lightning may be there or not
        def on_train_batch_start(self, *arguments: Any) -> None:
            watch.step()

    return {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "callbacks": [Watching()],
    }


@contextlib.contextmanager
def in_silence() -> Iterator[None]:
    """In a folder that may be littered, without warnings."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    before = os.getcwd()  # noqa: PTH109
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def neuralforecast_fit(data: Panel, plan: Plan) -> list[float]:
    """Its LSTM, which decodes each row of the horizon by a perceptron."""
    import pandas as pd
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import MQLoss
    from neuralforecast.models import LSTM

    spec, schedule, watch = plan.spec, plan.schedule, Stopwatch()
    width = spec.stack.hidden_sizes[0]
    times = pd.date_range("2020-01-01", periods=len(data.values), freq="h")
    rows = pd.DataFrame({"unique_id": "one", "ds": times, "y": data.values})
    with in_silence():
        model = LSTM(
            h=spec.horizon,
            input_size=spec.context_length,
            encoder_n_layers=LAYERS,
            encoder_hidden_size=width,
            decoder_hidden_size=width,
            loss=MQLoss(quantiles=list(spec.quantiles)),
            max_steps=schedule.max_steps,
            batch_size=1,
            windows_batch_size=schedule.batch_size,
            scaler_type="standard",
            **lightning_settings(watch),
        )
        NeuralForecast(models=[model], freq="h").fit(rows)
    return watch.speed(schedule.batch_size)


def darts_fit(data: Panel, plan: Plan) -> list[float]:
    """Its BlockRNNModel, which decodes the last state by one linear layer."""
    from darts import TimeSeries
    from darts.models import BlockRNNModel
    from darts.utils.likelihood_models.torch import QuantileRegression

    spec, schedule, watch = plan.spec, plan.schedule, Stopwatch()
    with in_silence():
        model = BlockRNNModel(
            model="LSTM",
            input_chunk_length=spec.context_length,
            output_chunk_length=spec.horizon,
            hidden_dim=spec.stack.hidden_sizes[0],
            n_rnn_layers=LAYERS,
            batch_size=schedule.batch_size,
            n_epochs=10**6,
            likelihood=QuantileRegression(list(spec.quantiles)),
            pl_trainer_kwargs=lightning_settings(watch) | {"max_steps": schedule.max_steps},
        )
        model.fit(TimeSeries.from_values(data.values.astype(np.float32)))
    return watch.speed(schedule.batch_size)


if __name__ == "__main__":
    main()
