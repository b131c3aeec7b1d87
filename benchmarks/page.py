"""Latency and load of the live page: first view, update after a commit, scrubbing, ten viewers at once.

``python -m benchmarks.page`` prints the table of docs/dashboard.md and the machine that it was taken on. The page is
served as `hiddenscope dashboard --no-worker` serves it, in a process of its own; the viewers speak HTTP to it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import xarray as xr

from benchmarks.measure import machine
from benchmarks.viewers import Viewer, seconds_of
from hiddenscope.dashboard.picture import METHOD, node_limit, parameters, thinned
from hiddenscope.results import ResultStore
from hiddenscope.run import Run, open_run
from hiddenscope.store import LayerDescription, RunDescription, Snapshot, SnapshotWriter

SAMPLES = 8
DEADLINE = 60.0


def main() -> None:
    """Measure runs of a short and of a long training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, nargs="+", default=[50, 1000], help="lengths of the runs")
    parser.add_argument("--viewers", type=int, default=10, help="how many at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long they watch (default %(default)s)")
    args = parser.parse_args()
    print(json.dumps(machine()))
    for epochs in args.epochs:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), (100, 128), epochs, viewers=args.viewers, seconds=args.seconds)))


def measure(
    folder: Path, shape: tuple[int, int], epochs: int, *, viewers: int = 10, seconds: float = 15.0
) -> dict[str, object]:
    """Serve a run and watch it.

    Args:
        folder: empty.
        shape: (step, unit).
        epochs: how many are recorded before anybody looks.
        viewers: how many watch at once.
        seconds: for how long.

    Returns:
        Times by the clock (median and most) and of the server's processors, and its memory in megabytes (10**6
        bytes).
    """
    with writer_of(folder / "version_0", shape) as writer:
        for epoch in range(epochs):
            append(writer, epoch, shape)
        run = open_run(folder)
        with ResultStore.open(run.location, writable=True) as store:
            stored = synthetic_picture(run, shape)
            store.put("lstm", METHOD, parameters(), stored)
        with served(folder) as (port, server):
            return {
                "run (epoch, step, unit)": (epochs, *shape),
                "points of the stored picture": int(np.prod(stored["embedding"].shape[:3])),
                **_latencies(port, server, writer, epochs, shape),
                **_load(port, server, viewers, seconds),
                "memory MB": round(server.memory_info().rss / 1e6),
            }


class Stopwatch:
    """Milliseconds of the clock, and of the server's processors, that calls take."""

    def __init__(self, server: psutil.Process) -> None:
        self._server = server

    def __call__(self, task: Callable[[], object], *, times: int = 1) -> tuple[list[float], float]:
        """The clock's milliseconds of each call, and the processors' of one on average."""
        before = self._processors()
        clock = [1e3 * seconds_of(task) for _ in range(times)]
        return clock, (self._processors() - before) / times

    def _processors(self) -> float:
        spent = self._server.cpu_times()
        return 1e3 * (spent.user + spent.system)


def _latencies(
    port: int, server: psutil.Process, writer: SnapshotWriter, epochs: int, shape: tuple[int, int]
) -> dict[str, object]:
    first, again, watch = Viewer("127.0.0.1", port), Viewer("127.0.0.1", port), Stopwatch(server)
    cold = watch(first.open)
    bytes_of_first = first.received
    warm = watch(again.open)
    nothing = watch(first.tick, times=20)
    wanted = iter(np.linspace(0, epochs - 1, 20).round().tolist())
    frames = watch(lambda: first.frame(next(wanted)), times=20)
    coming = iter(range(epochs, epochs + 5))

    def commit_and_see() -> None:
        epoch = next(coming)
        append(writer, epoch, shape)
        until = time.perf_counter() + DEADLINE
        while (first.tick().get("epochs.data") or [-1])[-1] != epoch:
            if time.perf_counter() > until:
                raise TimeoutError(f"epoch {epoch} did not appear within {DEADLINE} s")
            time.sleep(0.05)

    seen = watch(commit_and_see, times=5)
    first.close()
    again.close()
    return {
        "first view, of a server just started": _spread(*cold),
        "first view MB": round(bytes_of_first / 1e6, 2),
        "first view, of the next viewer": _spread(*warm),
        "tick without news": _spread(*nothing),
        "one epoch in full": _spread(*frames),
        "from commit to viewer, asked every 50 ms": _spread(*seen),
    }


def _load(port: int, server: psutil.Process, count: int, seconds: float) -> dict[str, object]:
    """Viewers that open the page together and then ask once a second."""
    opened: list[float] = []
    ticks: list[float] = []
    failures: list[str] = []
    until = time.monotonic() + seconds

    def watch() -> None:
        viewer = Viewer("127.0.0.1", port)
        try:
            opened.append(1e3 * seconds_of(viewer.open))
            while time.monotonic() < until:
                took = seconds_of(viewer.tick)
                ticks.append(1e3 * took)
                time.sleep(max(0.0, 1.0 - took))
        except OSError as error:
            failures.append(str(error))
        finally:
            viewer.close()

    threads = [threading.Thread(target=watch) for _ in range(count)]

    def together() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    (clock,), processors = Stopwatch(server)(together)
    if failures:
        raise RuntimeError(failures[0])
    return {
        f"first view, {count} viewers at once": _spread(opened),
        f"tick, {count} viewers": _spread(ticks) if ticks else None,
        f"{count} viewers, opening and watching": f"{clock / 1e3:.0f} s; {processors:.0f} ms of processors",
    }


def _spread(values: list[float], processors: float | None = None) -> str:
    """The clock's median and most, and the processors' share, in milliseconds."""
    told = f"{statistics.median(values):.0f} ms, most {max(values):.0f}"
    return told if processors is None else f"{told}; {processors:.0f} ms of processors"


@contextmanager
def served(folder: Path, *options: str) -> Iterator[tuple[int, psutil.Process]]:
    """The page of a folder in a process of its own: its port, and the process."""
    command = [sys.executable, "-W", "ignore", "-m", "hiddenscope", "dashboard", str(folder), "--port", "0"]
    options = options or ("--no-worker",)
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            yield int(said.partition("http://127.0.0.1:")[2].split()[0]), psutil.Process(process.pid)
        finally:
            process.terminate()


@contextmanager
def writer_of(folder: Path, shape: tuple[int, int]) -> Iterator[SnapshotWriter]:
    """A run that is being recorded."""
    steps, units = shape
    layer = LayerDescription("lstm", "LSTM", np.arange(units), np.arange(steps))
    description = RunDescription((layer,), np.arange(SAMPLES), np.arange(SAMPLES) % 3, ("a", "b", "c"), "", "Benchmark")
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        yield writer


def append(writer: SnapshotWriter, epoch: int, shape: tuple[int, int]) -> None:
    """Record one epoch."""
    states = np.random.default_rng(epoch).normal(size=(*shape, SAMPLES)).astype(np.float32)
    metrics = {"train_loss": 1 / (epoch + 2), "val_loss": 1.2 / (epoch + 2), "val_accuracy": epoch / (epoch + 5)}
    writer.append(Snapshot(float(epoch), {"lstm": states}, metrics))


def synthetic_picture(run: Run, shape: tuple[int, int]) -> xr.Dataset:
    """A picture as large as the worker's, without the minutes that it takes to compute: units that wander."""
    epochs, (steps, units) = run.epochs, shape
    kept, rows = thinned({"epoch": len(epochs), "step": steps, "unit": units}, node_limit("streaming"))
    at, labels = epochs[rows], np.arange(steps)[kept]
    dice = np.random.default_rng(0)
    walks = dice.normal(size=(len(at), len(labels), units, 3)).astype(np.float32).cumsum(axis=0) / 10
    coords: dict[str, Any] = {"epoch": at, "step": labels, "unit": np.arange(units)}
    embedding = xr.DataArray(walks, dims=("epoch", "step", "unit", "component"), coords=coords)
    return xr.Dataset(
        {
            "embedding": embedding,
            "intra_step_entropy": embedding.std(["unit", "component"]),
            "inter_step_entropy": embedding.std(["step", "component"]),
            "most_active_class": (embedding.isel(component=0) > 0).astype(np.int8),
        },
        attrs={
            "method": METHOD, "parameters": parameters(), "solver": "streaming", "made_live": False,
            "covers_epoch": float(epochs[-1]), "epoch_count": len(epochs), "made_from": run.fingerprint("lstm"),
            "computed_at": time.time(), "seconds": 1.0, "note": f"{len(labels)} of {steps} steps",
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
