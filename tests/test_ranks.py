"""Processes that train together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stacklstm_cli.errors import UsageError
from stacklstm_cli.training.ranks import Ranks


def test_alone_without_torchrun() -> None:
    ranks = Ranks.of({})
    assert (ranks.rank, ranks.size, ranks.leads) == (0, 1, True)
    numbers = torch.tensor([1.0, 2.0])
    ranks.add([numbers])
    assert numbers.tolist() == [1, 2]
    assert ranks.largest(3, torch.device("cpu")) == 3


def test_as_torchrun_says() -> None:
    ranks = Ranks.of({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"})
    assert ranks == Ranks(2, 4, 1)
    assert not ranks.leads


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_what_cannot_be(environment: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Ranks.of(environment)


TOGETHER = """
import sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from panels import make_panel, small_spec, wave
from stacklstm_cli.model.heads import build_head
from stacklstm_cli.model.network import StackedRNN
from stacklstm_cli.model.windows import Windows
from stacklstm_cli.training.lessons import Lessons, lesson_origins
from stacklstm_cli.training.ranks import Ranks
from stacklstm_cli.training import shards as modules
from stacklstm_cli.training.shards import Shards

device, ranks = torch.device("cpu"), Ranks.of()
ranks.join(device)
spec = small_spec(context_length=8, hidden_size=6, dropout=0.2)
panel = make_panel(wave(400))
origins = lesson_origins(panel, np.array([8]), panel.lengths, spec)
lessons = Lessons(Windows(panel, spec, device), origins, np.array([0.7]))
torch.manual_seed(0)
network = StackedRNN(spec).train()
head = build_head(spec.loss, spec.quantiles, device)
modules.LEAST_WORK = 1
shards = Shards(network, lessons, head, batch_size=256, seed=3, ranks=ranks)
loss = shards.backward(torch.arange(256), step=5)
gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])
most = ranks.largest(ranks.rank, device)
np.save(f"{sys.argv[2]}/{ranks.size}-{ranks.rank}.npy", np.asarray([loss, most, *gradient.tolist()]))
ranks.leave()
"""


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """The same four shards, the same dropout: gradients equal but for the order of additions, the same on both."""
    import numpy as np

    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    words = [str(script), str(Path(__file__).parent), str(tmp_path)]
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words]
    subprocess.run(run, check=True, timeout=120, capture_output=True)
    alone, first, second = (np.load(tmp_path / f"{name}.npy") for name in ("1-0", "2-0", "2-1"))
    np.testing.assert_array_equal(first, second)
    assert (alone[1], first[1]) == (0, 1)
    np.testing.assert_allclose(first[2:], alone[2:], rtol=1e-4, atol=1e-7)
    assert first[0] == pytest.approx(alone[0], rel=1e-5)
