"""The studies that the worker makes in its free time: one at a time, and for a run in training never most of the time.

Pictures come first: a study begins only when no picture is missing, and after it the worker looks for pictures again.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence

from hiddenscope.analyses import studies
from hiddenscope.analyses.studies import Study
from hiddenscope.results import ResultStore
from hiddenscope.run import Run

REST = 2.0
"""While a run trains, so many times the duration of a study passes before the next one begins."""
RETRY = 60.0
"""Seconds before a study that failed is tried again, if the run has grown."""


class Studio:
    """Keeps the studies of all runs up to date.

    Args:
        chosen: the studies to make, in this order.
    """

    def __init__(self, chosen: Sequence[Study] = ()) -> None:
        self.chosen = tuple(chosen)
        self.problems: dict[str, dict[str, str]] = {}
        """What went wrong, by path of the run and then by ``"layer/method"``."""
        self._done: dict[tuple[str, str, str], str] = {}
        self._failed: dict[tuple[str, str, str], float] = {}
        self._rest_until = 0.0

    def due(self, path: str, layer: str, version: str, *, training: bool) -> Study | None:
        """The first study that a layer lacks for a version of its run, unless it is time to rest."""
        now = time.monotonic()
        if training and now < self._rest_until:
            return None
        for study in self.chosen:
            key = (path, layer, study.method)
            if self._done.get(key) != version and now - self._failed.get(key, -RETRY) >= RETRY:
                return study
        return None

    def put_off(self, path: str, layer: str, study: Study) -> None:
        """Try a study again later; it is no fault of its own that it cannot be made now."""
        self._failed[path, layer, study.method] = time.monotonic()

    def make(self, study: Study, run: Run, layer: str, store: ResultStore) -> bool:
        """Make a study unless it is stored already; True if it was made, or tried in vain.

        Whatever goes wrong is kept in `problems`, and nothing is raised.
        """
        key = (run.path, layer, study.method)
        problems = self.problems.setdefault(run.path, {})
        name = f"{layer}/{study.method}"
        began = time.monotonic()
        try:
            current = studies.is_current(study, run, layer)
            if not current:
                studies.make(study, run, layer, store)
            problems.pop(name, None)
            self._failed.pop(key, None)
        except Exception as error:
            current = False
            self._failed[key] = time.monotonic()
            problems[name] = one_line(error)
        self._done[key] = run.version
        self._rest_until = time.monotonic() + REST * (time.monotonic() - began)
        return not current


def live_studies() -> tuple[tuple[Study, ...], dict[str, str]]:
    """The studies that are made while trainings go on, and why some could not be loaded, by their place."""
    found, problems = [], {}
    for place in studies.STUDIES:
        module, _, name = place.partition(":")
        try:
            study = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            problems[place] = one_line(error)
            continue
        if study.live:
            found.append(study)
    return tuple(found), problems


def one_line(error: BaseException) -> str:
    """An error in one line, with its class where its message alone would not be understood."""
    from hiddenscope.errors import HiddenscopeError

    text = " ".join(str(error).split())[:500] or "no further word"
    return text if isinstance(error, HiddenscopeError) else f"{type(error).__name__}: {text}"
