"""The runs below a folder as the page sees them: looked up by name, never by path, and shared by all viewers."""

from __future__ import annotations

import copy
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from hiddenscope.allocator import give_back_memory
from hiddenscope.dashboard import journal
from hiddenscope.dashboard.picture import METHOD
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import Run, RunInfo, find_runs, open_run

KEPT_BYTES = 2**28
"""Results of one run that stay in memory; the one in use always does."""
MOST_STATES = 20_000_000
"""A run of so many hidden states is embedded by PCA while the viewer waits: a second or so."""
MOST_SHELVES = 8
"""Runs that stay open, those looked at last; the others are opened again when they are wanted."""
TIDY = 50
"""Commits after which memory that is free is given back to the system."""
LISTING_SECONDS = 1.0
REFRESH_SECONDS = 0.25


@dataclass(frozen=True)
class View:
    """One layer of one run, all from one commit of the recording and one of the results."""

    name: str
    layer: str
    layers: tuple[str, ...]
    status: str
    epochs: npt.NDArray[np.float64]
    updated_at: float
    metrics: pd.DataFrame
    class_names: tuple[str, ...] | None
    result: xr.Dataset | None
    version: str
    result_version: str
    nodes: int = 0
    """How many (epoch, step, unit) are recorded."""


class Library:
    """Reads runs for any number of viewers; each commit is read once.

    Args:
        logdir: the folder whose runs are shown; it need not exist yet.
    """

    def __init__(self, logdir: Path) -> None:
        self.logdir = logdir
        self._lock = threading.Lock()
        self._listed_at = -LISTING_SECONDS
        self._infos: dict[str, RunInfo] = {}
        self._shelves: OrderedDict[str, _Shelf] = OrderedDict()
        self._final: dict[str, tuple[str, dict[str, float]]] = {}

    def runs(self) -> dict[str, RunInfo]:
        """Name to run, the newest first, those that cannot be read last; looked up at most once a second."""
        with self._lock:
            if time.monotonic() - self._listed_at >= LISTING_SECONDS:
                found = find_runs(self.logdir, unreadable=True)
                self._infos = {_unique(info, found): info for info in found}
                self._listed_at = time.monotonic()
            return dict(self._infos)

    def view(self, name: str, layer: str | None = None) -> View:
        """The newest state of a run.

        Args:
            name: a key of `runs`; nothing else reaches the file system.
            layer: one of the run's layers; any other value stands for the first.

        Raises:
            KeyError: there is no such run.
            RunFormatError: it cannot be read.
        """
        return self._shelf(name).view(name, layer)

    def pinned(self, name: str, layer: str | None = None) -> tuple[View, Run]:
        """The view as `view` gives it, and the run itself, pinned to the same commit for as long as it is kept.

        Raises:
            KeyError, RunFormatError: as for `view`.
        """
        return self._shelf(name).pinned(name, layer)

    def stored(self, name: str, layer: str, methods: Sequence[str]) -> dict[str, float | None]:
        """When the newest result of each method was stored, in seconds since 1970; None where there is none.

        Raises:
            KeyError, RunFormatError: as for `view`.
        """
        stored = self._shelf(name).stored()
        return {method: stored.get((layer, method)) for method in methods}

    def result(
        self, name: str, layer: str, method: str, parameters: Mapping[str, Any] | None = None
    ) -> xr.Dataset | None:
        """The newest result of a method, read once for all viewers; it is shared, so do not change it.

        With ``parameters``, the newest that was made with these.

        Raises:
            KeyError, RunFormatError: as for `view`.
        """
        return self._shelf(name).result(layer, method, parameters)

    def at_once(self, name: str, layer: str) -> xr.Dataset | None:
        """The picture by PCA, computed here and now; None where that would take more than a moment.

        Raises:
            KeyError, RunFormatError: as for `view`.
            ValueError: there is too little to embed.
        """
        return self._shelf(name).at_once(name, layer)

    def unit_clusters(self, name: str, layer: str) -> xr.DataArray | None:
        """The name of each unit's cluster, dims (unit,); None before they are found.

        Raises:
            KeyError, RunFormatError: as for `view`.
        """
        result = self.result(name, layer, "clusters")
        return None if result is None else result["unit_cluster"]

    def unit_columns(self, name: str, layer: str) -> dict[str, xr.DataArray]:
        """What stored results know of each unit, by header: values of dims (unit,) or (epoch, unit).

        A result offers them by its attribute ``unit_columns``, from the name of a variable to the header of its column.

        Raises:
            KeyError, RunFormatError: as for `view`.
        """
        return self._shelf(name).unit_columns(layer)

    def _shelf(self, name: str) -> _Shelf:
        info = self.runs()[name]
        with self._lock:
            shelf = self._shelves.setdefault(info.path, _Shelf(info))
            self._shelves.move_to_end(info.path)
            while len(self._shelves) > MOST_SHELVES:
                self._shelves.popitem(last=False)
            return shelf

    def final_metrics(self, name: str) -> dict[str, float]:
        """The last known value of each metric that the training logged, losses first; none where it cannot be read."""
        info = self.runs().get(name)
        if info is None or not info.epoch_count:
            return {}
        kept = self._final.get(info.path)
        if kept is None or kept[0] != info.version:
            try:
                values = open_run(info.path).metrics().ffill().iloc[-1]
            except (HiddenscopeError, OSError, ValueError):
                return {}
            own = [str(column) for column in values.index if not str(column).startswith("hiddenscope/")]
            own.sort(key=lambda column: ("loss" not in column, column))
            kept = (info.version, {column: float(values[column]) for column in own if np.isfinite(values[column])})
            with self._lock:
                self._final = {**self._final, info.path: kept}
        return kept[1]

    def worker(self, name: str) -> journal.Entry | None:
        """What the worker of a run says, or None."""
        info = self.runs().get(name)
        return None if info is None else journal.read(Path(info.path))


class _Shelf:
    """One open run, and the last view of each of its layers."""

    def __init__(self, info: RunInfo) -> None:
        self._path = info.path
        self._run: Run | None = None
        self._lock = threading.RLock()
        self._refreshed_at = -REFRESH_SECONDS
        self._views: dict[str, View] = {}
        self._read = 0
        self._index: tuple[str, dict[tuple[str, str], float]] = ("", {})
        self._results: OrderedDict[tuple[str, str], tuple[float, xr.Dataset]] = OrderedDict()
        self._at_once: dict[str, tuple[str, xr.Dataset]] = {}
        self._columns: dict[tuple[str, str], tuple[float, dict[str, xr.DataArray]]] = {}

    def view(self, name: str, layer: str | None) -> View:
        with self._lock:
            if self._run is None:
                self._run = open_run(self._path)
            run = self._run
            if time.monotonic() - self._refreshed_at >= REFRESH_SECONDS:
                run.refresh()
                self._refreshed_at = time.monotonic()
            chosen = layer if layer in run.layers else run.layers[0]
            result_version = run.results.version
            last = self._views.get(chosen)
            status = run.status
            stale = last is None or (last.version, last.result_version) != (run.version, result_version)
            if last is not None and not stale and last.status == status:
                return last
            result = last.result if last is not None and last.result_version == result_version else None
            if result is None and result_version:
                result = run.results.get(chosen, METHOD)
            described = run.description.layer(chosen)
            view = View(
                name=name,
                layer=chosen,
                layers=run.layers,
                status=status,
                epochs=run.epochs,
                updated_at=run.updated_at,
                metrics=run.metrics() if stale or last is None else last.metrics,
                class_names=class_names(run),
                result=result,
                version=run.version,
                result_version=result_version,
                nodes=len(run.epochs) * len(described.steps) * len(described.units),
            )
            self._views[chosen] = view
            self._read += 1
            if self._read % TIDY == 0:
                give_back_memory()
            return view

    def pinned(self, name: str, layer: str | None) -> tuple[View, Run]:
        with self._lock:
            view = self.view(name, layer)
            assert self._run is not None
            return view, copy.copy(self._run)  # a copy stays at its commit when ours moves on

    def stored(self) -> dict[tuple[str, str], float]:
        """When the newest result of each layer and method was stored."""
        with self._lock:
            if self._run is None:
                self._run = open_run(self._path)
            version = self._run.results.version
            if self._index[0] != version:
                keys = self._run.results.keys()
                found = {(key.layer, key.method): key.stored_at for key in keys}
                self._index = (version, found)
            return self._index[1]

    def result(self, layer: str, method: str, parameters: Mapping[str, Any] | None) -> xr.Dataset | None:
        key = (layer, method if parameters is None else f"{method} {json.dumps(parameters, sort_keys=True)}")
        with self._lock:
            stored_at = self.stored().get((layer, method))
            if stored_at is None:
                return None
            kept = self._results.get(key)
            if kept is None or kept[0] != stored_at:
                assert self._run is not None
                dataset = self._run.results.get(layer, method, parameters)
                if dataset is None:
                    return None
                kept = (stored_at, dataset)
                self._results[key] = kept
            self._results.move_to_end(key)
            while len(self._results) > 1 and sum(held.nbytes for _, held in self._results.values()) > KEPT_BYTES:
                self._results.popitem(last=False)
            return kept[1]

    def at_once(self, name: str, layer: str) -> xr.Dataset | None:
        from hiddenscope.dashboard.desk import other_picture

        with self._lock:
            view, run = self.pinned(name, layer)
            described = run.description.layer(layer)
            states = len(view.epochs) * len(described.steps) * len(described.units) * len(run.description.samples)
            if states > MOST_STATES:
                return None
            kept = self._at_once.get(layer)
        if kept is None or kept[0] != view.version:
            kept = (view.version, other_picture(run, layer, "pca"))
            with self._lock:
                self._at_once[layer] = kept
        return kept[1]

    def unit_columns(self, layer: str) -> dict[str, xr.DataArray]:
        with self._lock:
            columns: dict[str, xr.DataArray] = {}
            for (owner, method), stored_at in self.stored().items():
                if owner != layer:
                    continue
                kept = self._columns.get((layer, method))
                if kept is None or kept[0] != stored_at:
                    kept = (stored_at, self._offered(layer, method))
                    self._columns[layer, method] = kept
                columns |= kept[1]
            return columns

    def _offered(self, layer: str, method: str) -> dict[str, xr.DataArray]:
        assert self._run is not None
        attributes = self._run.results.attributes(layer, method) or {}
        offered = attributes.get("unit_columns")
        if not isinstance(offered, dict) or not offered:
            return {}
        dataset = self._run.results.get(layer, method)
        if dataset is None:
            return {}
        return {
            str(header): dataset[name].load()
            for name, header in offered.items()
            if name in dataset and set(dataset[name].dims) in ({"unit"}, {"epoch", "unit"}) and "unit" in dataset.coords
        }


def alive(pid: int) -> bool:
    """Whether a process of this machine lives (its exit code, if any, not yet read)."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def class_names(run: Run) -> tuple[str, ...] | None:
    """A name for each class code of the probe, the codes themselves where they have none; None without labels."""
    if run.label_names is not None:
        return run.label_names
    labels = run.labels
    if labels is None:
        return None
    return tuple(str(code) for code in range(int(labels.max()) + 1))


def _unique(info: RunInfo, found: list[RunInfo]) -> str:
    """The run's name; its whole path where two runs share a name."""
    return info.name if sum(other.name == info.name for other in found) == 1 else info.path
