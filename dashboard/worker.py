"""The worker: embeds new epochs of every run below a folder, at low priority, in a process of its own.

It is started by the dashboard (`supervisor`), which holds the other end of its standard input: when the dashboard ends,
however it ends, the worker reads the end of that input and ends too.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import xarray as xr

from hiddenscope.allocator import allocate_from_few_arenas, give_back_memory
from hiddenscope.analyses.studies import Study
from hiddenscope.dashboard import journal
from hiddenscope.dashboard.desk import JOINT, METHODS, Desk, Request, parse
from hiddenscope.dashboard.journal import Entry
from hiddenscope.dashboard.picture import METHOD, Painter, parameters
from hiddenscope.dashboard.scalars import EntropyLog
from hiddenscope.dashboard.studio import Studio, live_studies, one_line
from hiddenscope.errors import RunLockedError
from hiddenscope.results import ResultStore
from hiddenscope.run import Run, RunInfo, find_runs

NICENESS = 10
PAUSE = 0.5
"""Seconds between two looks at the runs."""
RETRY = 30.0
"""Seconds before a layer whose picture failed is tried again although nothing is new."""
EVERYBODY = 4
"""Of so many pictures one is not of the newest run, if others lack theirs."""
TIDY = 50
"""Pictures after which memory that is free is given back to the system."""


class Worker:
    """Keeps the pictures of all runs below a folder up to date.

    Args:
        logdir: the folder that is watched; it need not exist yet.
        dashboard: process id of the dashboard, told in the journal of each run.
        stopped: asked between two pictures.
        studies: what else to make of every layer, when no picture is missing.
    """

    def __init__(
        self,
        logdir: Path,
        *,
        dashboard: int = 0,
        stopped: Callable[[], bool] = lambda: False,
        studies: Sequence[Study] = (),
    ) -> None:
        self.logdir = logdir
        self.dashboard = dashboard
        self.stopped = stopped
        self._runs: dict[str, Run] = {}
        self._stores: dict[str, ResultStore] = {}
        self._done: dict[tuple[str, str], str] = {}
        """The version of the run up to which a layer's picture is known to be right."""
        self._failed: dict[tuple[str, str], tuple[str, float]] = {}
        """For which version a layer's picture could not be made, and when that was tried."""
        self._painters: dict[tuple[str, str], Painter] = {}
        self._served: dict[str, float] = {}
        self._said: dict[Path, Entry] = {}
        self._logs: dict[str, EntropyLog] = {}
        self.studio = Studio(studies)
        self.desk = Desk()
        self._painted = 0

    def turn(self) -> bool:
        """Make at most one picture, or else one study, of the newest run that lacks one; True if anything was tried.

        One picture in a few goes to the run that has waited longest, so that a training which always has news keeps no
        other from its picture. What viewers have asked for is computed beside it, in another process.
        """
        self._attend()
        found = [info for info in find_runs(self.logdir) if info.epoch_count]
        growing = {info.path for info in found if info.status == "training"}
        self._painters = {key: painter for key, painter in self._painters.items() if key[0] in growing}
        for removed in {*self._runs, *self._stores} - {info.path for info in found}:
            self._put_away(removed)
        for info in self._in_order(found):
            if self.stopped():
                return False
            if any(self._wanted(info, layer) for layer in info.layers) and self._serve(info):
                self._served[info.path] = time.monotonic()
                return True
        return any(self._study(info) for info in found if not self.stopped())

    def close(self) -> None:
        """Let other workers in."""
        self.desk.close()
        for store in self._stores.values():
            store.close()
        self._stores.clear()
        for log in self._logs.values():
            log.close()
        self._logs.clear()

    def _in_order(self, found: list[RunInfo]) -> list[RunInfo]:
        """The newest run first, or now and then the one that was served longest ago."""
        if (self._painted + 1) % EVERYBODY:
            return found
        return sorted(found, key=lambda info: self._served.get(info.path, -math.inf))

    def _wanted(self, info: RunInfo, layer: str) -> bool:
        """Whether a layer has news, and these have not just failed."""
        key, stamp = (info.path, layer), _stamp(info.version, info.status)
        failed, at = self._failed.get(key, ("", 0.0))
        return self._done.get(key) != stamp and (failed != stamp or time.monotonic() - at >= RETRY)

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
            self._put_off(info, info.layers)
        except Exception as error:
            self._put_off(info, [layer] if layer else info.layers)
            self._say(folder, Entry("failed", layer=layer, error=one_line(error), advice=_advice(error)))
            return True
        return False

    def _put_off(self, info: RunInfo, layers: Sequence[str]) -> None:
        """Try layers again with the next epoch, or after a while."""
        stamp = _stamp(info.version, info.status)
        self._failed.update({(info.path, name): (stamp, time.monotonic()) for name in layers})

    def _embed(self, run: Run, layer: str, *, training: bool) -> None:
        folder = Path(run.path)
        store = self._store(run)
        self._say(folder, Entry("embedding", layer=layer, epoch=float(run.epochs[-1])))
        painter = self._painters.pop((run.path, layer), None) or Painter()
        dataset = painter.paint(run, layer, training=training)
        store.put(layer, METHOD, parameters(), dataset)
        self._log_entropies(run, layer, dataset)
        if training:
            self._painters[run.path, layer] = painter
        else:
            self._put_away(run.path)
        self._failed.pop((run.path, layer), None)
        self._painted += 1
        if self._painted % TIDY == 0:
            give_back_memory()
        self._say(folder, Entry("idle", layer=layer, epoch=float(run.epochs[-1]), note=str(dataset.attrs["note"])))

    def _log_entropies(self, run: Run, layer: str, dataset: xr.Dataset) -> None:
        """Also as scalars for TensorBoard; without them nothing else is missing."""
        try:
            self._logs.setdefault(run.path, EntropyLog(Path(run.path))).write(run, layer, dataset)
        except OSError as error:
            print(f"{run.path}: the scalars for TensorBoard cannot be written ({error})", file=sys.stderr)

    def _study(self, info: RunInfo) -> bool:
        """Make the first study that a run lacks; True if one was made or tried."""
        training = info.status == "training"
        for layer in info.layers:
            while (study := self.studio.due(info.path, layer, info.version, training=training)) is not None:
                try:
                    run = self._runs.get(info.path) or self._runs.setdefault(info.path, _open(info))
                    run.refresh()
                    store = self._store(run)  # another worker may have the run: then nothing is said, and nothing done
                except Exception:
                    self.studio.put_off(info.path, layer, study)
                    self._put_away(info.path)
                    return False
                before = self._before(Path(info.path), layer)
                self._say(Path(info.path), replace(before, doing=study.title))
                tried = self.studio.make(study, run, layer, store)
                self._say(Path(info.path), before)
                if not training:
                    self._put_away(info.path)
                if tried:
                    return True
        return False

    def _attend(self) -> None:
        """Store what was asked for and is ready; begin what is asked for next."""
        done = self.desk.finished()
        if done is not None:
            self._keep(*done)
        request = self.desk.waiting()
        if request is None:
            return
        folder = Path(request.run)
        try:
            if not _is_answered(request):
                self.studio.problems.get(request.run, {}).pop(request.name, None)
                self.desk.begin(request)
                title = METHODS.get(request.method, "two runs in one picture")
                self._say(folder, replace(self._before(folder), doing=title))
        except Exception as error:
            self._tell(request, one_line(error))

    def _keep(self, request: Request, answer: xr.Dataset | str) -> None:
        if isinstance(answer, str):
            self._tell(request, answer)
            return
        try:
            run = self._runs.get(request.run) or self._runs.setdefault(request.run, _open_path(request.run))
            self._store(run).put(request.layer, request.method, request.parameters(), answer)
            if run.status != "training":
                self._put_away(request.run)
            self._tell(request, "")
        except Exception as error:
            self._tell(request, one_line(error))

    def _tell(self, request: Request, problem: str) -> None:
        """Say how a request ended."""
        problems = self.studio.problems.setdefault(request.run, {})
        problems.pop(request.name, None)
        if problem:
            problems[request.name] = problem
        folder = Path(request.run)
        self._say(folder, replace(self._before(folder), doing=""))

    def _before(self, folder: Path, layer: str = "") -> Entry:
        """What was last said of a run; what another worker was about when it ended is not going on any more."""
        own = self._said.get(folder)
        if own is not None:
            return own
        left = journal.read(folder) or Entry("idle", layer=layer)
        return replace(left, doing="", state="idle" if left.state == "embedding" else left.state)

    def _put_away(self, path: str) -> None:
        """Forget a run that has ended or was removed, and let others write its results."""
        self._runs.pop(path, None)
        if path in self._stores:
            self._stores.pop(path).close()
        if path in self._logs:
            self._logs.pop(path).close()

    def _store(self, run: Run) -> ResultStore:
        if run.path not in self._stores:
            self._stores[run.path] = ResultStore.open(run.location, writable=True)
        return self._stores[run.path]

    def _say(self, folder: Path, entry: Entry) -> None:
        problems: Mapping[str, str] = self.studio.problems.get(str(folder), {})
        entry = replace(entry, dashboard=self.dashboard, pid=os.getpid(), studies=dict(problems))
        self._said[folder] = replace(entry, doing="")
        try:
            journal.write(folder, entry)
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
    allocate_from_few_arenas()
    ended = threading.Event()
    studies, problems = live_studies()
    for place, problem in problems.items():
        print(f"the study {place} is left out ({problem})", file=sys.stderr)
    worker = Worker(args.logdir, dashboard=args.dashboard, stopped=ended.is_set, studies=studies)
    threading.Thread(target=_take_requests, args=(worker.desk, ended), daemon=True).start()
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


def _take_requests(desk: Desk, ended: threading.Event) -> None:
    """Read what viewers ask for until standard input ends; a picture in the making then gets a moment to be stored."""
    for line in sys.stdin.buffer:
        request = parse(line)
        if request is not None:
            desk.ask(request)
    ended.set()
    time.sleep(2.0)
    os._exit(0)


def _open(info: RunInfo) -> Run:
    return _open_path(info.path)


def _open_path(path: str) -> Run:
    from hiddenscope.run import open_run

    return open_run(path)


def _is_answered(request: Request) -> bool:
    """Whether what is asked for is stored, made from what the runs hold now."""
    run = _open_path(request.run)
    stored = run.results.get(request.layer, request.method, request.parameters())
    made_from: object = run.fingerprint(request.layer)
    if request.method == JOINT:
        other = _open_path(request.other)
        if request.layer in other.layers:
            made_from = [made_from, other.fingerprint(request.layer)]
    return stored is not None and bool(stored.attrs.get("made_from") == made_from)


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


def _advice(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "close other programs or record fewer steps or epochs; it is tried again at the next epoch"
    if isinstance(error, PermissionError):
        return "make the run's folder writable for this user, or copy the run elsewhere; pictures are stored beside it"
    if isinstance(error, OSError) or "(os error " in str(error):  # the storage tells the system's word in its own error
        return "check that the disk is there and has room; it is tried again in half a minute"
    return "the recording goes on unharmed; it is tried again at the next epoch, or in half a minute"


if __name__ == "__main__":
    raise SystemExit(main())
