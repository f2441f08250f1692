"""What a model knows of its past: revised rows, the models before it, the files kept beside it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panels import join_series, make_panel, wave

from stacklstm_cli import files
from stacklstm_cli.data.history import LEAST_BLOCK, MOST_BLOCKS, block_length, blocks, changes, remember
from stacklstm_cli.data.panel import Panel
from stacklstm_cli.errors import ModelError
from stacklstm_cli.model import lineage
from stacklstm_cli.model.checkpoint import Checkpoint, load, save
from stacklstm_cli.model.header import seal
from stacklstm_cli.model.lineage import MOST_ENTRIES, earlier, extended, keep_earlier, swap_with_previous


def part_of(panel: Panel, index: int, begin: int, end: int) -> tuple[tuple[str, ...], int, np.ndarray]:
    """The rows [begin, end) of one series, as `join_series` takes them."""
    return panel.keys[index], int(panel.starts[index]) + begin, panel.series(index)[begin:end].copy()


def panel_with(panel: Panel, pieces: list[tuple[tuple[str, ...], int, np.ndarray]]) -> Panel:
    keys, values, offsets, starts = join_series(pieces)
    return replace(panel, keys=keys, values=values, offsets=offsets, starts=starts)


def seen(panel: Panel, later: Panel, history: bool = True) -> Any:
    """What changed between two panels, for a model that has learned the first."""
    return changes(later, panel.keys, panel.ends, remember(panel) if history else None)


class TestHistory:
    @given(st.integers(0, 60), st.integers(1, 90), st.integers(1, 20))
    def test_blocks_cover_every_position_once(self, start: int, rows: int, block: int) -> None:
        covered = [position for begin, end in blocks(start, start + rows, block) for position in range(begin, end)]
        assert covered == list(range(start, start + rows))
        assert all(begin // block == (end - 1) // block for begin, end in blocks(start, start + rows, block))

    @given(st.lists(st.integers(1, 300_000), min_size=1, max_size=40))
    def test_digests_stay_few(self, lengths: list[int]) -> None:
        """At most `MOST_BLOCKS`, or one for each series; a series whose blocks begin elsewhere has one more."""
        block = block_length(np.asarray(lengths))
        count = sum(-(-length // block) for length in lengths)
        assert block >= LEAST_BLOCK
        assert count <= max(MOST_BLOCKS, len(lengths))

    @settings(deadline=None)
    @given(st.data())
    def test_revised_rows_are_found_to_within_a_block(self, data: st.DataObject) -> None:
        """Exactly the blocks, lying wholly in the newer file, that hold a changed row."""
        starts = [data.draw(st.integers(0, 40)) for _ in range(2)]
        panel = make_panel(wave(120, 1), wave(75, 2), starts=starts)
        pieces, expected, touched = [], 0, []
        for index in range(2):
            length = int(panel.lengths[index])
            front = data.draw(st.integers(0, 20))
            key, start, values = part_of(panel, index, front, length)
            rows = data.draw(st.lists(st.integers(0, values.size - 2), max_size=4))
            values[rows] = data.draw(st.sampled_from([1e6, np.nan]))
            first = int(panel.starts[index])
            spans = [
                (begin, end)
                for begin, end in blocks(first, first + length, LEAST_BLOCK)
                if begin >= start and any(begin <= start + row < end for row in rows)
            ]
            expected += sum(end - begin for begin, end in spans)
            touched += [panel.name(index)] if spans else []
            pieces.append((key, start, np.concatenate([values, [7.0, 8.0]])))
        found = seen(panel, panel_with(panel, pieces))
        assert found.revised_rows == expected
        assert list(found.revised_series) == touched
        assert found.rows == 4
        assert found.removed_rows == 0

    def test_nothing_new(self) -> None:
        """The same rows; fewer old ones; a series less; other signs of zero and kinds of NaN."""
        values = wave(60)
        values[[3, 7]] = 0.0, np.nan
        panel = make_panel(values, wave(40, 3), starts=[2, 9])
        other = panel.values.copy()
        other[3], other[7] = -0.0, -np.float64(np.nan)
        assert seen(panel, replace(panel, values=other)).nothing_new
        cut = panel_with(panel, [part_of(panel, 0, 5, 60)])
        found = seen(panel, cut)
        assert found.nothing_new
        assert (found.dropped_rows, found.vanished_series) == (5, 1)

    def test_what_is_new_and_what_is_gone(self) -> None:
        panel = make_panel(wave(60), wave(40, 3))
        longer = np.concatenate([wave(60), [1.0, np.nan, 2.0]])
        pieces = [(("s0",), 0, longer), part_of(panel, 1, 0, 30), (("new",), 0, wave(9))]
        found = seen(panel, panel_with(panel, pieces))
        assert found.rows == 2 + 9
        assert found.removed_rows == 10
        assert found.new_series == ("new",)
        assert found.revised_rows == 0

    def test_a_model_of_an_earlier_version_notices_no_revision(self) -> None:
        panel = make_panel(wave(60))
        assert seen(panel, replace(panel, values=panel.values + 1), history=False).nothing_new
        assert seen(panel, replace(panel, values=panel.values + 1)).revised_rows == 60


class TestFile:
    def test_lineage_and_history_come_back(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        panel = make_panel(wave(40), wave(30), starts=[5, 9])
        checkpoint.lineage = [{"parent": "a", "rows_added": 3, "champion": {"mase": 0.1}}]
        checkpoint.history = remember(panel)
        save(checkpoint, tmp_path / "m")
        found = load(tmp_path / "m")
        assert found.lineage == checkpoint.lineage
        assert found.history is not None
        assert found.history.block == checkpoint.history.block
        assert found.history.first.tolist() == [5, 9]
        assert found.history.digests.tolist() == checkpoint.history.digests.tolist()

    def test_a_file_without_either_loads(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """As earlier versions wrote them."""
        save(checkpoint, tmp_path / "m")
        changed_file(tmp_path / "m", lambda document, tensors: document.pop("lineage"))
        found = load(tmp_path / "m")
        assert (found.lineage, found.history) == ([], None)

    @pytest.mark.parametrize(
        "change",
        [
            lambda document, tensors: document.update(lineage={"parent": "x"}),
            lambda document, tensors: document.update(lineage=["x"]),
            lambda document, tensors: document.update(lineage=[{"rows_added": "x"}]),
            lambda document, tensors: document["history"].update(block=0),
            lambda document, tensors: document["history"].update(block=8),
            lambda document, tensors: tensors.pop("history.digests"),
            lambda document, tensors: tensors.update({"history.first": torch.zeros(1, dtype=torch.int64)}),
        ],
    )
    def test_what_makes_no_sense_is_refused(
        self, change: Callable[[Any, Any], Any], checkpoint: Checkpoint, tmp_path: Path
    ) -> None:
        checkpoint.history = remember(make_panel(wave(40), wave(30), starts=[5, 9]))
        save(checkpoint, tmp_path / "m")
        changed_file(tmp_path / "m", change)
        with pytest.raises(ModelError) as caught:
            load(tmp_path / "m")
        assert caught.value.code == "model_damaged"

    def test_only_the_newest_entries_stay(self) -> None:
        found: list[dict[str, Any]] = []
        for number in range(MOST_ENTRIES + 7):
            found = extended(found, {"rows_added": number})
        assert [entry["rows_added"] for entry in found] == list(range(7, MOST_ENTRIES + 7))

    def test_the_history_is_shown_from_the_header_alone(self, checkpoint: Checkpoint, tmp_path: Path) -> None:
        """Without torch and pandas, also where there is none."""
        save(checkpoint, tmp_path / "none")
        entry = {"parent": "abc", "last": "2024-01-01", "rows_added": 3, "champion": {"mase": 0.5}, "why": "better"}
        checkpoint.lineage = [entry]
        save(checkpoint, tmp_path / "one")
        code = (
            "import sys\nfrom stacklstm_cli.cli.app import main\n"
            "try:\n    main(['inspect', sys.argv[1], '--history', '--format', 'json'])\n"
            "except SystemExit as end:\n    assert not end.code\n"
            "assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys()"
        )
        shown = []
        for name in ("none", "one"):
            command = [sys.executable, "-c", code, tmp_path / name]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            shown.append(json.loads(done.stdout))
        assert shown[0]["retrainings"] == 0
        assert shown[1]["history"][0]["parent"] == "abc"
        assert shown[1]["history"][0]["champion_mase"] == 0.5


def changed_file(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], Any]) -> None:
    """The file with its document or tensors changed, and sealed again."""
    data = path.read_bytes()
    index = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    document, tensors = json.loads(index["__metadata__"]["stacklstm"]), safetensors.torch.load(data)
    change(document, tensors)
    document = {"digest": "0" * 64} | {name: value for name, value in document.items() if name != "digest"}
    data = safetensors.torch.save(tensors, {"stacklstm": json.dumps(document)})
    path.write_bytes(data.replace(b"0" * 64, seal(data).encode(), 1))


class Killed(BaseException):
    """The process ends here."""


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process end before its `number`th change of a name, counted from 0."""
    left = [number]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return function(*arguments, **options)

        return wrapper

    for owner, name in ((Path, "replace"), (Path, "unlink"), (files.os, "link")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))


def models(folder: Path) -> dict[str, str]:
    """Every model in the folder: name -> contents."""
    return {path.name: path.read_text() for path in sorted(folder.glob("m*"))}


class TestKeeping:
    def test_the_newest_stay(self, tmp_path: Path) -> None:
        path = tmp_path / "m"
        for number in range(6):
            keep_earlier(path, 3)
            files.write_atomically(path, str(number).encode())
        assert models(tmp_path) == {"m": "5", "m.1": "4", "m.2": "3", "m.3": "2"}

    def test_none_is_kept_unless_asked(self, tmp_path: Path) -> None:
        (tmp_path / "m").write_text("0")
        keep_earlier(tmp_path / "m", 0)
        assert models(tmp_path) == {"m": "0"}

    def test_the_mode_is_kept(self, tmp_path: Path) -> None:
        """What was private stays so."""
        (tmp_path / "m").write_text("0")
        (tmp_path / "m").chmod(0o600)
        keep_earlier(tmp_path / "m", 1)
        assert earlier(tmp_path / "m").stat().st_mode & 0o777 == 0o600

    def test_without_links(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a file system that has none, the model is copied."""

        def refuse(*arguments: Any) -> None:
            raise OSError

        monkeypatch.setattr(files.os, "link", refuse)
        (tmp_path / "m").write_text("0")
        keep_earlier(tmp_path / "m", 1)
        (tmp_path / "m").write_text("1")
        assert models(tmp_path) == {"m": "1", "m.1": "0"}

    @pytest.mark.parametrize("step", range(8))
    def test_killed_anywhere_nothing_kept_is_lost(
        self, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The model is always there; after the next run there are the newest three before it, each once."""
        path = tmp_path / "m"
        for number in range(4):
            keep_earlier(path, 3)
            files.write_atomically(path, str(number).encode())
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            with contextlib.suppress(Killed):
                keep_earlier(path, 3)
                files.write_atomically(path, b"4")
        assert path.read_text() in ("3", "4")
        keep_earlier(path, 3)
        files.write_atomically(path, b"5")
        newest = "543" if "4" in models(tmp_path).values() else "532"
        assert [text for name, text in models(tmp_path).items() if name != "m.3"] == list(newest)
        files.clear_leftovers(path)
        assert not list(tmp_path.glob(".*"))


class TestSwapping:
    @pytest.fixture
    def path(self, checkpoint: Checkpoint, tmp_path: Path) -> Path:
        """A model, and another before it."""
        save(checkpoint, tmp_path / "m.1")
        checkpoint.seasonality = 7
        save(checkpoint, tmp_path / "m")
        return tmp_path / "m"

    def test_twice_is_as_before(self, path: Path) -> None:
        before = path.read_bytes(), earlier(path).read_bytes()
        promoted, replaced = swap_with_previous(path)
        assert (path.read_bytes(), earlier(path).read_bytes()) == before[::-1]
        assert swap_with_previous(path) == (replaced, promoted)
        assert (path.read_bytes(), earlier(path).read_bytes()) == before

    @pytest.mark.parametrize("step", range(7))
    def test_killed_anywhere_both_are_there_after_the_next(
        self, step: int, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {path.read_bytes(), earlier(path).read_bytes()}
        with monkeypatch.context() as patch:
            killed_at(step, patch)
            with contextlib.suppress(Killed):
                swap_with_previous(path)
        assert path.read_bytes() in before
        lineage.finish_swap(path)
        assert {path.read_bytes(), earlier(path).read_bytes()} == before
        files.clear_leftovers(path)
        assert sorted(one.name for one in path.parent.iterdir()) == ["m", "m.1"]

    def test_a_lost_model_comes_back(self, path: Path) -> None:
        previous = earlier(path).read_bytes()
        path.unlink()
        assert swap_with_previous(path)[1] == ""
        assert path.read_bytes() == previous

    def test_a_damaged_model_is_replaced_and_a_damaged_earlier_one_refused(self, path: Path) -> None:
        good = earlier(path).read_bytes()
        path.write_bytes(b"x" * 50)
        swap_with_previous(path)
        assert path.read_bytes() == good
        with pytest.raises(ModelError) as caught:
            swap_with_previous(path)
        assert caught.value.code == "model_damaged"
        assert path.read_bytes() == good

    def test_none_kept(self, path: Path) -> None:
        earlier(path).unlink()
        with pytest.raises(ModelError) as caught:
            swap_with_previous(path)
        assert caught.value.code == "no_previous"
        assert "--keep" in caught.value.hint
