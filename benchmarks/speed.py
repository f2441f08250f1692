"""Training speed beside a bare torch loop of the same network, shape and batch.

    python benchmarks/speed.py [--rounds 5] [--steps 60] [--threads CORES] [--shape WORD]
    python benchmarks/speed.py --device cuda [--rounds 5] [--steps 60] [--shape WORD]

All run in this process, in turn: the program with batches in one piece, with its shards on one thread and on several,
and the bare loop on one thread. The medians of the windows per second and of the ratios within each round are printed:
what one thread reaches of the bare loop, what it keeps where batches are cut into shards, and what several threads
make of that. The bare loop draws its batches from memory, ready made; the program also gathers and normalises them.
Only a machine without other work shows what several threads are worth.

With --device cuda the bare loop is cuDNN's, and the program runs on that device in float32 and in bfloat16, and on two
cores: what it reaches of the bare loop in float32, what bfloat16 makes of that, and what the faster of them makes of
two cores.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch

from stacklstm_cli.config import MetricConfig, ModelConfig, TrainingConfig
from stacklstm_cli.data.calendar import Step, TimeForm
from stacklstm_cli.data.panel import Columns, Panel
from stacklstm_cli.model.heads import masked_mean, pinball
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Inputs
from stacklstm_cli.training import shards
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
    asked = parser.parse_args()
    on_gpu = asked.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("no CUDA device here: nothing was measured")
        return
    torch.set_num_threads(1)
    data = panel(4000)
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


if __name__ == "__main__":
    main()
