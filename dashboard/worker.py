"""The worker: embeds new epochs of every run below a folder, at low priority, in a process of its own.

It is started by the dashboard (`supervisor`), which holds the other end of its standard input: when the dashboard ends,
however it ends, the worker reads the end of that input and ends too.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hiddenscope.dashboard import journal
from hiddenscope.dashboard.journal import Entry
from hiddenscope.dashboard.picture import METHOD, Painter, parameters
from hiddenscope.errors import HiddenscopeError, RunLockedError
from hiddenscope.results import ResultStore
from hiddenscope.run import Run, RunInfo, find_runs

NICENESS = 10
PAUSE = 0.5
"""Seconds between two looks at the runs."""
RETRY = 30.0
"""Seconds before a layer whose picture failed is tried again although nothing is new."""


class Worker:
    """Keeps the pictures of all runs below a folder up to date.

    Args:
        logdir: the folder that is watched; it need not exist yet.
        dashboard: process id of the dashboard, told in the journal of each run.
        stopped: asked between two pictures.
    """

    def __init__(self, logdir: Path, *, dashboard: int = 0, stopped: Callable[[], bool] = lambda: False) -> None:
        self.logdir = logdir
        self.dashboard = dashboard
        self.stopped = stopped
        self._runs: dict[str, Run] = {}
        self._stores: dict[str, ResultStore] = {}
        self._done: dict[tuple[str, str], str] = {}
        """The version of the run up to which a layer's picture is known to be right."""
        self._failed: dict[tuple[str, str], float] = {}
        self._painters: dict[tuple[str, str], Painter] = {}

    def turn(self) -> bool:
        """Look at all runs, newest first, and make at most one picture; True if one was made or tried."""
        for info in find_runs(self.logdir):
            if self.stopped():
                return False
            if info.epoch_count and any(self._wanted(info, layer) for layer in info.layers) and self._serve(info):
                return True
        return False

    def close(self) -> None:
        """Let other workers in."""
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def _wanted(self, info: RunInfo, layer: str) -> bool:
        """Whether a layer has news, and has not just failed."""
        key = (info.path, layer)
        waited = time.monotonic() - self._failed.get(key, -RETRY)
        return self._done.get(key) != _stamp(info.version, info.status) and waited >= RETRY

    def _serve(self, info: RunInfo) -> bool:
        """Make the first missing picture of a run; True if one was made or tried."""
        folder = Path(info.path)
        layer = ""
        training = info.status == "training"
        try:
            run = self._runs.get(info.path) or self._runs.setdefault(info.path, _open(info))
            run.refresh()
            for layer in filter(lambda name: self._wanted(info, name), run.layers):
                missing = not _is_current(run, layer, training=training)
                if missing:
                    self._embed(run, layer, training=training)
                self._done[run.path, layer] = _stamp(run.version, info.status)
                if missing:
                    return True
            if not training:
                self._put_away(info.path)
        except RunLockedError:
            # Another dashboard makes the pictures of this run; its journal says so, ours stays silent.
            self._failed.update({(info.path, name): time.monotonic() for name in info.layers})
        except Exception as error:
            self._failed.update({(info.path, name): time.monotonic() for name in ([layer] if layer else info.layers)})
            self._say(folder, Entry("failed", layer=layer, error=_one_line(error), advice=_advice(error)))
            return True
        return False

    def _embed(self, run: Run, layer: str, *, training: bool) -> None:
        folder = Path(run.path)
        store = self._store(run)
        self._say(folder, Entry("embedding", layer=layer, epoch=float(run.epochs[-1])))
        painter = self._painters.pop((run.path, layer), None) or Painter()
        dataset = painter.paint(run, layer, training=training)
        store.put(layer, METHOD, parameters(), dataset)
        if training:
            self._painters[run.path, layer] = painter
        else:
            self._put_away(run.path)
        self._failed.pop((run.path, layer), None)
        self._say(folder, Entry("idle", layer=layer, epoch=float(run.epochs[-1]), note=str(dataset.attrs["note"])))

    def _put_away(self, path: str) -> None:
        """Forget a run that has ended, and let others write its results."""
        self._runs.pop(path, None)
        if path in self._stores:
            self._stores.pop(path).close()

    def _store(self, run: Run) -> ResultStore:
        if run.path not in self._stores:
            self._stores[run.path] = ResultStore.open(run.location, writable=True)
        return self._stores[run.path]

    def _say(self, folder: Path, entry: Entry) -> None:
        try:
            journal.write(folder, Entry(**{**vars(entry), "dashboard": self.dashboard}))
        except OSError as error:
            print(f"{folder}: the state of the worker cannot be written ({error})", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Watch a folder until the dashboard ends."""
    parser = argparse.ArgumentParser(prog="python -m hiddenscope.dashboard.worker", description=__doc__)
    parser.add_argument("logdir", type=Path)
    parser.add_argument("--dashboard", type=int, default=os.getppid(), help="process id of the dashboard")
    args = parser.parse_args(argv)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    ended = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(ended,), daemon=True).start()
    worker = Worker(args.logdir, dashboard=args.dashboard, stopped=ended.is_set)
    try:
        if not worker.turn():
            get_ready()
        while not ended.is_set():
            if not worker.turn():
                ended.wait(PAUSE)
    finally:
        worker.close()
    return 0


def get_ready() -> None:
    """Compile what the first picture needs, while there is nothing else to do: a quarter of a minute, once ever."""
    from hiddenscope.dashboard.picture import rehearse

    rehearse()


def _wait_for_the_end(ended: threading.Event) -> None:
    """Return when standard input ends; then a picture in the making gets a moment to be stored, not more."""
    while sys.stdin.buffer.read(4096):
        pass
    ended.set()
    time.sleep(2.0)
    os._exit(0)


def _open(info: RunInfo) -> Run:
    from hiddenscope.run import open_run

    return open_run(info.path)


def _stamp(version: str, status: str) -> str:
    """What a picture is made for: a commit, and whether more are expected."""
    return f"{version} {'training' if status == 'training' else 'ended'}"


def _is_current(run: Run, layer: str, *, training: bool) -> bool:
    """Whether the stored picture was made from exactly what the run holds now, and all at once if the run has ended."""
    stored = run.results.get(layer, METHOD, parameters())
    if stored is None or stored.attrs.get("covers_epoch") != float(run.epochs[-1]):
        return False
    if stored.attrs.get("made_live") and not training:
        return False
    return bool(stored.attrs.get("made_from") == run.fingerprint(layer))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no further word"
    return text if isinstance(error, HiddenscopeError) else f"{type(error).__name__}: {text}"


def _advice(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "close other programs or record fewer steps or epochs; it is tried again at the next epoch"
    if isinstance(error, PermissionError):
        return "make the run's folder writable for this user, or copy the run elsewhere; pictures are stored beside it"
    if isinstance(error, OSError):
        return "check that the disk is there and has room; it is tried again in half a minute"
    return "the recording goes on unharmed; it is tried again at the next epoch, or in half a minute"


if __name__ == "__main__":
    raise SystemExit(main())
