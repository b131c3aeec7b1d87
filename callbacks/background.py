"""Writing beside the training: a bounded queue, one thread, and nothing that could hold the training up for long."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hiddenscope.description import Amendments, Snapshot


class Writer(Protocol):
    """What is done with snapshots; `hiddenscope.store.SnapshotWriter` is one."""

    def append(self, snapshot: Snapshot) -> None: ...

    def finish(self, status: str, *, amended: Amendments) -> None: ...


def check_queue(queue_size: int, max_wait: float) -> None:
    """Raise `ValueError` unless a `BackgroundWriter` can be made of these."""
    if queue_size < 1:
        raise ValueError(f"queue_size must be at least 1, got {queue_size}")
    if not max_wait >= 0:
        raise ValueError(f"max_wait must be 0 seconds or more, got {max_wait}")


class BackgroundWriter:
    """Hands snapshots to a writer in a thread of its own.

    At most ``queue_size`` snapshots are on their way: waiting, or being written. So whoever kills the process costs so
    many epochs at most. When there is no room, `submit` waits ``max_wait`` seconds at most and then gives the snapshot
    up; while the writer has not got one done since, later snapshots are given up at once. After an error in the writer
    everything is given up: ``error`` has it. ``written`` and ``given_up`` list epochs. ``amended`` is for metrics that
    became known after their epoch was queued; the end of the run writes what is in it then.

    A process that ends without `close` still writes what waits.
    """

    def __init__(self, writer: Writer, *, queue_size: int = 1, max_wait: float = 2.0) -> None:
        check_queue(queue_size, max_wait)
        self.error: BaseException | None = None
        self.written: list[float] = []
        self.given_up: list[float] = []
        self.amended: dict[float, dict[str, float]] = {}
        self.process = os.getpid()
        self._writer = writer
        self._queue_size, self._max_wait = queue_size, max_wait
        self._waiting: deque[tuple[float, Callable[[], Snapshot]]] = deque()
        self._changed = threading.Condition()
        self._current: float | None = None  # the epoch that is being written
        self._lost: list[float] = []  # by an error, the one that failed first
        self._stuck = False
        self._status: str | None = None  # set when the end was asked for
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="hiddenscope-writer", daemon=True)
        _OPEN.add(self)
        self._thread.start()

    def submit(self, epoch: float, make: Callable[[], Snapshot]) -> bool:
        """Queue the snapshot that ``make`` returns when the thread calls it; False if it was given up."""
        with self._changed:
            patience = 0.0 if self._stuck else self._max_wait
            self._changed.wait_for(lambda: self._has_room() or self._is_over(), timeout=patience)
            if self._is_over() or not self._has_room():
                self._stuck = not self._is_over()
                self.given_up.append(epoch)
                return False
            self._waiting.append((epoch, make))
            self._changed.notify_all()
            return True

    def close(self, status: str, *, timeout: float) -> bool:
        """Write what waits, finish with ``status`` and end the thread, within ``timeout`` seconds; True if it did.

        When the time is up, the thread is left to the disk it hangs on, and dies with the process.
        """
        began = time.monotonic()
        with self._changed:
            if self._status is None:
                self._status = status
            self._changed.notify_all()
            ended = self._changed.wait_for(lambda: self._ended, timeout=timeout)
        if ended:
            # The thread still lets go of its last tensors. Should Python end meanwhile, that would abort the process.
            self._thread.join(timeout=max(1.0, timeout - (time.monotonic() - began)))
        return ended

    @property
    def unwritten(self) -> list[float]:
        """Epochs on their way, the first first: being written, or waiting; after an error those that it has cost."""
        with self._changed:
            current = [] if self._current is None else [self._current]
            return self._lost or [*current, *(epoch for epoch, _ in self._waiting)]

    def _has_room(self) -> bool:
        return len(self._waiting) + (self._current is not None) < self._queue_size

    def _is_over(self) -> bool:
        return self.error is not None or self._status is not None

    def _work(self) -> None:
        while (item := self._next()) is not None:
            epoch, make = item
            try:
                self._writer.append(make())
            except BaseException as error:
                with self._changed:
                    self.error = error
                    self._lost = [epoch, *(waiting for waiting, _ in self._waiting)]
                    self.given_up += self._lost
                    self._waiting.clear()
                    self._changed.notify_all()
                break
            with self._changed:
                self.written.append(epoch)
                self._current, self._stuck = None, False
                self._changed.notify_all()
        self._finish()

    def _next(self) -> tuple[float, Callable[[], Snapshot]] | None:
        """The next item, waited for; None when the end was asked for and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._status is not None)
            if not self._waiting:
                return None
            item = self._waiting.popleft()
            self._current = item[0]
            return item

    def _finish(self) -> None:
        try:
            status = "interrupted" if self.error is not None else self._status or "interrupted"
            self._writer.finish(status, amended=self.amended)
        except BaseException as error:
            self.error = self.error or error
        finally:
            _OPEN.discard(self)
            with self._changed:
                self._ended = True
                self._changed.notify_all()


_OPEN: set[BackgroundWriter] = set()


@atexit.register
def _flush() -> None:
    """A training that ends without saying so (``sys.exit`` in the middle of an epoch) still writes what it has."""
    for writer in list(_OPEN):
        if writer.process == os.getpid():  # a forked child has the writer, but not its thread
            writer.close("interrupted", timeout=10.0)
