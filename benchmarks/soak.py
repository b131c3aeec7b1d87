"""Watching for a long time: a training that goes on, the page and its worker beside it, and viewers that stay.

``python -m benchmarks.soak --seconds 1800`` prints the memory of the server and of the worker over time. Run follows
run, as in a folder that is used for days, and the viewers go on to each new one: what still grows from run to run is
lost for good. What one run needs while it grows is seen with a run longer than the watch, ``--epochs 100000``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.measure import machine
from benchmarks.page import append, served, writer_of
from benchmarks.viewers import Viewer

SHAPE = (16, 12)
EPOCHS = 300
"""Epochs of a run; then the next one begins."""


@dataclass(frozen=True)
class Soaked:
    """What was seen.

    Attributes:
        server: memory of the page's process in megabytes (10**6 bytes), every few seconds.
        worker: the same for its worker.
        epochs: how many were recorded.
        ticks: how often a viewer asked.
        newest_seen: epochs that a viewer saw.
        failures: what went wrong, in words.
    """

    server: tuple[float, ...]
    worker: tuple[float, ...]
    epochs: int
    ticks: int
    newest_seen: int
    failures: tuple[str, ...]

    def growth(self) -> tuple[float, float]:
        """Megabytes that server and worker hold more in the last fifth of the time than in the third fifth.

        A fifth must last as long as a few runs, else it tells where in a run it was rather than what stays of it.
        """
        return _growth(self.server), _growth(self.worker)


def soak(
    folder: Path,
    *,
    seconds: float,
    epochs: int = EPOCHS,
    viewers: int = 3,
    pace: float = 0.25,
    every: float = 5.0,
) -> Soaked:
    """Record, serve and watch for a while.

    Args:
        folder: empty.
        seconds: for how long.
        epochs: of each run.
        viewers: how many watch.
        pace: seconds between two epochs.
        every: seconds between two looks at the memory.
    """
    ended = threading.Event()
    counts = {"epochs": 0, "ticks": 0}
    seen: set[tuple[str, float]] = set()
    failures: list[str] = []
    server_memory: list[float] = []
    worker_memory: list[float] = []

    def train() -> None:
        number = 0
        while not ended.is_set():
            with writer_of(folder / f"version_{number}", SHAPE) as writer:
                for epoch in range(epochs):
                    if ended.wait(pace):
                        break
                    append(writer, epoch, SHAPE)
                    counts["epochs"] += 1
            number += 1

    def watch(port: int) -> None:
        viewer = Viewer("127.0.0.1", port)
        try:
            viewer.open()
            while not ended.wait(1.0):
                news = viewer.tick()
                counts["ticks"] += 1
                if news.get("epochs.data"):
                    seen.add((viewer.run, news["epochs.data"][-1]))
                if news.get("run.data"):
                    viewer.run = news["run.data"][0]["value"]  # the newest is listed first
        except OSError as error:
            failures.append(str(error))
        finally:
            viewer.close()

    with served(folder, "--host", "127.0.0.1") as (port, server):
        threads = [
            threading.Thread(target=train),
            *(threading.Thread(target=watch, args=(port,)) for _ in range(viewers)),
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until and not failures:
                time.sleep(min(every, max(0.0, until - time.monotonic())))
                server_memory.append(server.memory_info().rss / 1e6)
                worker_memory.append(max((_memory(child) for child in server.children()), default=0.0))
        finally:
            ended.set()
            for thread in threads:
                thread.join()
    return Soaked(
        tuple(server_memory), tuple(worker_memory), counts["epochs"], counts["ticks"], len(seen), tuple(failures)
    )


def _memory(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _growth(values: tuple[float, ...]) -> float:
    fifths = np.array_split(np.asarray(values), 5)
    return float(np.median(fifths[4]) - np.median(fifths[2]))


def main() -> None:
    """Soak, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="for how long (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of each run (default %(default)s)")
    args = parser.parse_args()
    print(json.dumps(machine()))
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder), seconds=args.seconds, epochs=args.epochs)
    shown = slice(None, None, max(1, len(found.server) // 20))
    print(json.dumps({"server MB": [round(value) for value in found.server[shown]]}))
    print(json.dumps({"worker MB": [round(value) for value in found.worker[shown]]}))
    server, worker = found.growth()
    told = {"epochs": found.epochs, "ticks": found.ticks, "seen": found.newest_seen, "failures": found.failures}
    print(json.dumps({**told, "growth MB, server": round(server, 1), "growth MB, worker": round(worker, 1)}))


if __name__ == "__main__":
    main()
