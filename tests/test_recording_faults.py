"""What can go wrong in a loop of one's own, recorded by ``with record(...)``: the loop goes on, and is told once."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from hiddenscope import RecordingWarning, open_run, record
from hiddenscope.description import Snapshot
from hiddenscope.store import SnapshotWriter
from training_examples import STEPS, UNITS, Classifier


def test_the_plain_recorder_warns_once_and_goes_on_without_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, probe = Classifier(), torch.zeros(3, STEPS, 3)

    def train() -> None:
        with record(network, probe, tmp_path) as recorder:
            assert recorder.snapshot(-1)
            network.head.forward = _raise  # type: ignore[method-assign]
            assert recorder.snapshot(0) == {}
            assert recorder.snapshot(1) == {}

    with pytest.warns(RecordingWarning, match="RuntimeError: out of order") as caught:
        train()
    assert len(caught) == 1
    assert open_run(tmp_path).trace("lstm").shape == (1, STEPS, UNITS, 3)


def test_the_plain_recorder_says_when_the_last_epoch_did_not_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def append(self: SnapshotWriter, snapshot: Snapshot) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(SnapshotWriter, "append", append)

    def train(*, strict: bool) -> None:
        with record(Classifier(), torch.zeros(3, STEPS, 3), tmp_path / str(strict), strict=strict) as recorder:
            recorder.snapshot(-1)

    with pytest.warns(RecordingWarning, match="Input/output error.*the untrained network and what follows"):
        train(strict=False)
    with pytest.raises(OSError, match="Input/output error"):
        train(strict=True)


def test_the_plain_recorder_leaves_out_what_makes_no_sense_and_goes_on(tmp_path: Path) -> None:
    network, probe = Classifier(), torch.zeros(3, STEPS, 3)

    def left_out(said: str, epoch: float, **metrics: Any) -> None:
        with pytest.warns(RecordingWarning, match=said):
            assert recorder.snapshot(epoch, **metrics) == {}

    with record(network, probe, tmp_path) as recorder:
        assert recorder.snapshot(0)
        left_out("epochs must grow, got 0 after 0; within an epoch give a number in between, such as 0.5", 0)
        left_out("an epoch is a finite number", float("nan"))
        left_out("the metric 'loss' must be a number, got None", 1, loss=None)
        assert recorder.snapshot(1, loss=torch.tensor(0.5, requires_grad=True))
    left_out("has ended", 2)
    run = open_run(tmp_path)
    assert (run.status, run.epochs.tolist()) == ("finished", [0, 1])
    assert run.metrics()["loss"].tolist()[1] == 0.5
    with record(network, probe, tmp_path, resume_after=1, strict=True) as recorder:
        with pytest.raises(ValueError, match="epochs must grow, got 1 after 1"):
            recorder.snapshot(1)
        assert recorder.snapshot(2)
    assert open_run(tmp_path).epochs.tolist() == [0, 1, 2]


def test_the_plain_recorder_lets_the_training_run_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def train(*, strict: bool) -> None:
        with record(Classifier(), torch.zeros(3, STEPS, 3), tmp_path / "file", strict=strict) as recorder:
            assert recorder.layers == ("lstm",)
            assert recorder.snapshot(-1) == {}

    with pytest.warns(RecordingWarning, match="stopped recording") as caught:
        train(strict=False)
    assert len(caught) == 1
    with pytest.raises(NotADirectoryError):
        train(strict=True)


def _raise(*_: Any) -> Any:
    raise RuntimeError("out of order")
