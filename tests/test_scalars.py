"""The entropies beside the loss in TensorBoard: every epoch once, at the step of its loss, whatever was rewritten."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hiddenscope.dashboard.scalars import EntropyLog, logged_steps, series
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import Snapshot
from hiddenscope.run import Run, open_run
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

STEPS, UNITS, SAMPLES = 5, 6, 7


def write(folder: Path, epochs: range, *, logged: bool = True, status: str = "finished") -> Run:
    """A run whose epoch e was logged at step 10 e + 9."""
    description = of_one_layer(STEPS, UNITS, SAMPLES)
    after = epochs[0] - 1 if epochs[0] > -1 else None
    with SnapshotWriter.open(folder / "hiddenscope", description, resume_after=after) as writer:
        for epoch in epochs:
            states = np.random.default_rng(epoch + 1).normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
            metrics = {"hiddenscope/step": max(0.0, 10 * epoch + 9)} if logged else {}
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1.0, **metrics}))
        writer.finish(status)
    return open_run(folder)


def result(epochs: np.ndarray, *, shift: float = 0.0) -> xr.Dataset:
    intra = xr.DataArray(np.tile(epochs[:, None] + shift, (1, STEPS)), dims=("epoch", "step"), coords={"epoch": epochs})
    inter = xr.DataArray(np.tile(-epochs[:, None], (1, UNITS)), dims=("epoch", "unit"), coords={"epoch": epochs})
    return xr.Dataset({"intra_step_entropy": intra, "inter_step_entropy": inter})


def read(folder: Path, name: str) -> list[tuple[int, float]]:
    """What TensorBoard's own reader finds."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(f"hiddenscope/lstm/{name}")]


def test_every_epoch_is_a_point_at_the_step_of_its_loss(tmp_path: Path) -> None:
    run = write(tmp_path, range(-1, 3))
    log = EntropyLog(tmp_path)
    log.write(run, "lstm", result(run.epochs))
    log.close()
    assert read(tmp_path, "intra_step_entropy") == [(0, -1), (9, 0), (19, 1), (29, 2)]
    assert read(tmp_path, "inter_step_entropy") == [(0, 1), (9, 0), (19, -1), (29, -2)]
    times = [wall_time for _, wall_time, _ in series(run, result(run.epochs))["intra_step_entropy"]]
    assert times == run.written_at.tolist()


def test_new_epochs_are_appended_and_changed_ones_written_anew(tmp_path: Path) -> None:
    run = write(tmp_path, range(-1, 5))
    log = EntropyLog(tmp_path)
    log.write(run, "lstm", result(run.epochs[:3]))
    log.write(run, "lstm", result(run.epochs[:5]))
    (file,) = tmp_path.glob("events.out.tfevents.*")
    small = file.stat().st_size
    log.write(run, "lstm", result(run.epochs[:5]))
    assert file.stat().st_size == small, "nothing new, nothing written"
    assert read(tmp_path, "intra_step_entropy") == [(0, -1), (9, 0), (19, 1), (29, 2), (39, 3)]
    log.write(run, "lstm", result(run.epochs, shift=7))
    log.close()
    assert read(tmp_path, "intra_step_entropy") == [(0, 6), (9, 7), (19, 8), (29, 9), (39, 10), (49, 11)]


def test_a_later_worker_writes_a_file_of_its_own_and_no_epoch_is_there_twice(tmp_path: Path) -> None:
    run = write(tmp_path, range(-1, 5))
    for count in (4, 6):
        log = EntropyLog(tmp_path)
        log.write(run, "lstm", result(run.epochs[:count]))
        log.close()
        time.sleep(1.01 if count == 4 else 0)  # file names of TensorBoard count seconds
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert [step for step, _ in read(tmp_path, "intra_step_entropy")] == [0, 9, 19, 29, 39, 49]


def test_without_a_recorded_step_the_epoch_serves(tmp_path: Path) -> None:
    assert logged_steps(write(tmp_path / "a", range(-1, 3), logged=False)).tolist() == [0, 1, 2, 3]
    assert logged_steps(write(tmp_path / "b", range(4), logged=False)).tolist() == [0, 1, 2, 3]


@contextmanager
def tensorboard(logdir: Path, *options: str) -> Iterator[str]:
    """A real TensorBoard; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--port", str(port)]
    command += ["--host", "127.0.0.1", "--reload_interval", "1", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.DEVNULL
    server = subprocess.Popen(command, stdout=output, stderr=output, env=environment, stdin=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def asked(address: str, *, seconds: float = 60.0, until: Any = bool) -> Any:
    """The JSON at an address, asked again until it is there and as wanted."""
    deadline = time.monotonic() + seconds
    answer: Any = None
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(address, timeout=10) as response:
                answer = json.load(response)
        except OSError:
            pass
        else:
            if until(answer):
                return answer
        time.sleep(0.2)
    raise AssertionError(f"{address} answered {answer} for {seconds} s")


@pytest.mark.parametrize("loader", ["default", pytest.param("--load_fast=false", marks=pytest.mark.slow)])
def test_tensorboard_shows_the_tab_and_the_entropies_beside_the_loss_under_a_path_prefix(
    tmp_path: Path, loader: str
) -> None:
    run = write(tmp_path / "version_0", range(-1, 3))
    worker = Worker(tmp_path)
    assert worker.turn()
    worker.close()
    options = ["--path_prefix", "/some/where"] + ([] if loader == "default" else [loader])
    with tensorboard(tmp_path, *options) as address:
        data = f"{address}/some/where/data"
        plugins = asked(f"{data}/plugins_listing", until=lambda found: found.get("hiddenscope", {}).get("enabled"))
        assert plugins["hiddenscope"]["tab_name"] == "HIDDENSCOPE"
        view = asked(f"{data}/plugin/hiddenscope/view")
        assert view["run"] == "version_0"
        assert view["epochs"] == [-1, 0, 1, 2]
        assert view["picture"]["data"]
        panels = asked(f"{data}/plugin/hiddenscope/panel?run=version_0")
        assert {"panels"} <= set(panels)
        tags = asked(f"{data}/plugin/scalars/tags", until=lambda found: any(found.values()))
        assert set(tags["version_0/hiddenscope"]) == {
            "hiddenscope/lstm/intra_step_entropy", "hiddenscope/lstm/inter_step_entropy",
        }  # fmt: skip
        query = "run=version_0%2Fhiddenscope&tag=hiddenscope%2Flstm%2Fintra_step_entropy"
        points = asked(f"{data}/plugin/scalars/scalars?{query}")
    stored = run.results.get("lstm", "mmphate")
    assert stored is not None
    assert [step for _, step, _ in points] == [0, 9, 19, 29]
    np.testing.assert_allclose([value for *_, value in points], stored["intra_step_entropy"].mean("step"), rtol=1e-5)
