"""What one epoch costs on disk: time, space and memory of the run store, for runs of any length.

``python -m benchmarks.storing`` prints the table of docs/design/run-format.md, and the machine that it was taken on.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measure import machine
from hiddenscope.listing import folder_bytes
from hiddenscope.run import find_runs, open_run
from hiddenscope.store import LayerDescription, RunDescription, Snapshot, SnapshotWriter

METRICS = 8


def main() -> None:
    """Measure the two shapes that the documentation speaks of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1500, help="commits of the smaller shape (default %(default)s)")
    args = parser.parse_args()
    print(json.dumps(machine()))
    for shape, epochs in (((128, 30, 42), args.epochs), ((100, 128, 60), max(1, args.epochs // 25))):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), shape, epochs=epochs)))


def measure(folder: Path, shape: tuple[int, int, int], *, epochs: int) -> dict[str, object]:
    """Write a run and read it again.

    Args:
        folder: empty.
        shape: (step, unit, sample) of its one layer.
        epochs: how many are written.

    Returns:
        Milliseconds (medians), megabytes (of 10⁶ bytes) and what they were measured on.
    """
    steps, units, samples = shape
    layer = LayerDescription("lstm", "LSTM", np.arange(units), np.arange(steps))
    description = RunDescription((layer,), np.arange(samples), np.arange(samples) % 3, None, "", "Benchmark")
    states = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    metrics = {f"metric_{number}": float(number) for number in range(METRICS)}
    wall, cpu = [], []
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(epochs):
            states[0, 0, 0] = epoch
            began, began_cpu = time.perf_counter(), time.process_time()
            writer.append(Snapshot(epoch, {"lstm": states}, metrics))
            wall.append(1e3 * (time.perf_counter() - began))
            cpu.append(1e3 * (time.process_time() - began_cpu))
    tenth = max(1, epochs // 10)
    run = open_run(folder)
    find_runs(folder)
    some = slice(0, min(epochs, 100) - 1)
    return {
        "shape (step, unit, sample)": shape,
        "epochs": epochs,
        "commit ms": round(statistics.median(wall), 1),
        "commit cpu ms": round(statistics.median(cpu), 1),
        "commit cpu ms, first tenth": round(statistics.median(cpu[:tenth]), 1),
        "commit cpu ms, last tenth": round(statistics.median(cpu[-tenth:]), 1),
        "states MB per epoch": round(states.nbytes / 1e6, 3),
        "stored MB per epoch": round(folder_bytes(folder) / epochs / 1e6, 3),
        "open ms": milliseconds(lambda: open_run(folder)),
        "metrics ms": milliseconds(run.metrics),
        "newest epoch ms": milliseconds(lambda: run.trace(epochs=run.epochs[-1])),
        f"read {min(epochs, 100)} epochs ms": milliseconds(lambda: run.trace(epochs=some)),
        "list again ms": milliseconds(lambda: find_runs(folder)),
        "poll ms": milliseconds(run.refresh),
        "peak MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }


def milliseconds(task: Callable[[], object], *, times: int = 5) -> float:
    """The median time of a task."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        task()
        taken.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(taken), 2)


if __name__ == "__main__":
    main()
