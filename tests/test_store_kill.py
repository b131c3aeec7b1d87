"""A writer that is killed at any moment loses at most the epoch in flight, and no reader ever sees half of one."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from hiddenscope import open_run
from hiddenscope.errors import HiddenscopeError, RunNotFoundError
from hiddenscope.run import Run, find_runs
from store_examples import UNITS, assert_equal_weights, assert_holds, metrics, states, weights, write_until_killed

# A fork server that has imported the store starts a writer in milliseconds; nothing else is imported there.
spawner = multiprocessing.get_context("forkserver")
spawner.set_forkserver_preload(["hiddenscope.run"])


class Watcher(threading.Thread):
    """Reads without pause, as a page would, and checks the newest epoch against the seeds that may have written it."""

    def __init__(self, location: Path) -> None:
        super().__init__()
        self.location = location
        self.done = threading.Event()
        self.seeds = 0
        self.reads = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        run: Run | None = None
        try:
            while not self.done.is_set():
                if run is None:
                    try:
                        run = open_run(self.location)
                    except RunNotFoundError:
                        continue
                run.refresh()
                self.check(run)
                self.reads += 1
        except BaseException as error:
            self.failure = error

    def check(self, run: Run) -> None:
        epoch = float(run.epochs[-1])
        traces = {layer: run.trace(layer, epochs=epoch).values[0] for layer in UNITS}
        loss = run.metrics().loc[epoch, "train_loss"]
        for seed in range(self.seeds, -1, -1):
            if np.array_equal(traces["lstm"], states(epoch, seed=seed)["lstm"]):
                np.testing.assert_array_equal(traces["decoder/gru.0"], states(epoch, seed=seed)["decoder/gru.0"])
                assert loss == metrics(epoch, seed=seed)["train_loss"]
                for layer in UNITS:
                    assert_equal_weights(run.weights(layer, epoch), weights(epoch, seed=seed)[layer])
                return
        raise AssertionError(f"the states of epoch {epoch} were never written")


def test_killed_writers_lose_nothing_but_the_epoch_in_flight(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=20)


@pytest.mark.slow
def test_a_hundred_killed_writers_lose_nothing_but_the_epoch_in_flight(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=100)


def kill_and_resume(folder: Path, *, kills: int) -> None:
    location = folder / "hiddenscope"
    dice = random.Random(kills)
    watcher = Watcher(folder)
    watcher.start()
    expected: dict[float, int] = {}
    torn_off = 0
    try:
        for seed in range(kills):
            watcher.seeds = seed
            after = max(expected) - dice.choice([0, 0, 0, 1, 4]) if expected else None
            kept = {epoch: old for epoch, old in expected.items() if after is None or epoch <= after}
            told = write_and_kill(location, after, seed, dice)
            written = [epoch for word, epoch in told if word == "committed"]
            run = reopened(folder)
            if run is None:
                assert not written
                assert not expected
                continue
            found = run.epochs.tolist()
            if written or found != list(expected):
                # all that was told to be committed, and at most one more: the kill came between commit and telling
                continued = {**kept, **dict.fromkeys(written, seed)}
                extra = found[len(continued) :]
                assert found[: len(continued)] == list(continued)
                assert len(extra) <= 1
                expected = {**continued, **dict.fromkeys(extra, seed)}
                torn_off += 1
            assert_holds(run, expected)
            assert run.status == "killed"
            assert watcher.failure is None, repr(watcher.failure)
    finally:
        watcher.done.set()
        watcher.join()
    if watcher.failure is not None:
        raise watcher.failure
    assert len(expected) > kills, "the writers were killed before they could write; the test proved nothing"
    assert torn_off > kills / 3
    assert watcher.reads > kills


def write_and_kill(location: Path, after: float | None, seed: int, dice: random.Random) -> list[tuple[str, float]]:
    """Start a writer, kill it at a random moment (now and then before it has begun); what it told until then."""
    ours, theirs = spawner.Pipe(duplex=False)
    process = spawner.Process(target=write_until_killed, args=(str(location), after, seed, theirs))
    process.start()
    theirs.close()
    told: list[tuple[str, float]] = []
    word, heavy = receive(ours)
    assert (word, heavy) == ("started", [])
    if dice.random() < 0.7:  # else anywhere from the first look at the folder on
        told.append(receive(ours))
        assert told[0][0] == "opened"
    time.sleep(dice.uniform(0, 0.25))  # the random moment; nothing is waited for
    process.kill()
    process.join()
    process.close()
    with ours:
        try:
            while True:
                told.append(ours.recv())
        except EOFError:
            return told


def receive(pipe: Connection) -> tuple[str, float]:
    assert pipe.poll(60), "the writer did not start within a minute"
    word, value = pipe.recv()
    return word, value


def reopened(folder: Path) -> Run | None:
    """The run, or None when its writer died before the first epoch; any other state of affairs is an error."""
    try:
        return open_run(folder)
    except RunNotFoundError:
        assert all(info.epoch_count == 0 and info.problem is None for info in find_runs(folder, unreadable=True))
        return None
    except HiddenscopeError as error:
        raise AssertionError(f"a kill left a run that cannot be read: {error}") from error
