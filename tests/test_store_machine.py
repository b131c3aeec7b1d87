"""Random histories of appends, resumes and reads, played against a plain dict."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hiddenscope.errors import RunLockedError
from hiddenscope.locations import as_location
from hiddenscope.run import Run
from hiddenscope.store import Snapshot, SnapshotWriter
from store_examples import SAMPLES, UNITS, assert_holds, description, metrics, states, weights

_names = (f"memory://machine-{number}/hiddenscope" for number in itertools.count())


class StoreAgainstDict(RuleBasedStateMachine):
    """``recorded`` is what a reader must find: epoch to the seed of its states."""

    def __init__(self) -> None:
        super().__init__()
        self.location = next(_names)
        self.recorded: dict[float, int] = {}
        self.writer: SnapshotWriter | None = None
        self.kept: dict[float, int] = {}  # what the writer goes on with
        self.pinned: list[tuple[Run, dict[float, int]]] = []

    @initialize()
    def begin(self) -> None:
        self.writer = SnapshotWriter.open(self.location, description())

    @precondition(lambda self: self.writer is not None)
    @rule(step=st.sampled_from([0.25, 1, 1, 3]), seed=st.integers(0, 99))
    def append(self, step: float, seed: int) -> None:
        assert self.writer is not None
        epoch = max(self.kept, default=-1 - step) + step
        handed = states(epoch, seed=seed)
        handed_metrics, handed_weights = metrics(epoch, seed=seed), weights(epoch, seed=seed)
        self.writer.append(Snapshot(epoch, handed, handed_metrics, handed_weights))
        for values in (*handed.values(), *(each for module in handed_weights.values() for each in module.values())):
            values[...] = np.nan  # the store must have its own copy by now
        handed_metrics.clear()
        self.kept = {**self.kept, epoch: seed}
        self.recorded = dict(self.kept)

    @precondition(lambda self: self.writer is not None)
    @rule(status=st.sampled_from(["finished", "interrupted"]))
    def finish(self, status: str) -> None:
        assert self.writer is not None
        self.writer.finish(status)
        self.writer = None
        assert self.reader().status == status

    @precondition(lambda self: self.writer is None)
    @rule(back=st.sampled_from([0, 0, 0.3, 1, 2.5, 100]))
    def resume(self, back: float) -> None:
        after = max(self.recorded, default=0) - back
        self.writer = SnapshotWriter.open(self.location, description(), resume_after=after)
        self.kept = {epoch: seed for epoch, seed in self.recorded.items() if epoch <= after}
        np.testing.assert_array_equal(self.writer.epochs, list(self.kept))

    @precondition(lambda self: self.writer is not None)
    @rule()
    def a_second_writer_is_refused(self) -> None:
        try:
            SnapshotWriter.open(self.location, description(), resume_after=100)
        except RunLockedError:
            return
        raise AssertionError("two writers on one run")

    @rule()
    def pin(self) -> None:
        self.pinned = [*self.pinned[-1:], (self.reader(), dict(self.recorded))]

    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        run = self.reader()
        layer = data.draw(st.sampled_from(list(UNITS)))
        epochs = data.draw(st.lists(st.sampled_from(sorted(self.recorded)), max_size=5)) if self.recorded else []
        steps = data.draw(st.lists(st.integers(0, 2), max_size=4))
        trace = run.trace(layer, epochs=epochs, steps=steps)
        assert trace.shape == (len(epochs), len(steps), UNITS[layer].size, SAMPLES)
        for row, epoch in enumerate(epochs):
            np.testing.assert_array_equal(trace.values[row], states(epoch, seed=self.recorded[epoch])[layer][steps])

    @rule()
    def pinned_readers_find_what_was_written_when_they_were_pinned(self) -> None:
        for run, expected in self.pinned:
            assert_holds(run, expected)

    @invariant()
    def readers_find_what_was_written(self) -> None:
        assert_holds(self.reader(), self.recorded)

    def reader(self) -> Run:
        return Run(as_location(self.location))

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.finish("interrupted")


TestStoreAgainstDict = StoreAgainstDict.TestCase
TestStoreAgainstDict.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
