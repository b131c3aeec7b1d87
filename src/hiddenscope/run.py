"""Reading a run: while it is being written, or afterwards."""

from __future__ import annotations

import html
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr

from hiddenscope.description import INPUTS, RunDescription
from hiddenscope.errors import HiddenscopeError, RunFormatError, RunNotFoundError
from hiddenscope.layout import STATUSES, array, check_format, layer_path, module_path, read_description, values
from hiddenscope.locations import (
    BRANCH,
    Location,
    as_location,
    has_writer,
    open_repository,
    readable,
    version_of,
)
from hiddenscope.results import ResultStore
from hiddenscope.selection import Selection, positions, read_block
from hiddenscope.trace import TRACE_DIMS

_MOST_EPOCHS = 10_000_000  # no training has more; a damaged run may say that it has
_MOST_GLANCES = 1_000  # runs that are kept open for `find_runs`
_PATIENCE = 600.0  # seconds of silence before a training that cannot be asked counts as killed …
_PATIENCE_EPOCHS = 5  # … or so many times its longest epoch, whichever is longer

_glances: dict[tuple[object, ...], Run] = {}
_glances_lock = threading.Lock()


@dataclass(frozen=True)
class RunInfo:
    """A run at a glance.

    Attributes:
        path: the run's own folder or address, for `open_run`.
        name: what to call it, such as ``"version_0"``.
        status: as `Run.status`; ``"unreadable"`` when ``problem`` says why.
        layers: names of the recorded layers.
        epoch_count: how many epochs are recorded; 0 while the first is awaited.
        last_epoch: the newest epoch; None while the first is awaited.
        updated_at: when the newest epoch was written, else when the run began, in seconds since 1970.
        version: as `Run.version`.
        problem: why it cannot be read, or None.
    """

    path: str
    name: str
    status: str
    layers: tuple[str, ...]
    epoch_count: int
    last_epoch: float | None
    updated_at: float
    version: str
    problem: str | None = None


@dataclass
class _Pinned:
    """All that is read from one commit."""

    session: icechunk.Session
    root: zarr.Group
    where: Location
    attributes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def epochs(self) -> npt.NDArray[np.float64]:
        with readable(self.where):
            epochs = self._line("epoch")
        if not (np.isfinite(epochs).all() and (np.diff(epochs) > 0).all()):
            raise RunFormatError(f"{self.where} cannot be read (its epochs do not grow)")
        return epochs

    @cached_property
    def written_at(self) -> npt.NDArray[np.float64]:
        with readable(self.where):
            return np.nan_to_num(self._line("written_at"), posinf=0)

    def _line(self, name: str) -> npt.NDArray[np.float64]:
        shape = array(self.root, name).shape
        if len(shape) != 1 or shape[0] > _MOST_EPOCHS:  # before memory is asked for
            raise RunFormatError(f"{self.where} cannot be read (it claims {shape} epochs)")
        return np.asarray(values(self.root, name), dtype=np.float64)

    @cached_property
    def description(self) -> RunDescription:
        with readable(self.where):
            return read_description(self.root)


class Run:
    """A recorded run, pinned to one commit: everything read from it agrees, until `refresh`; made by `open_run`."""

    def __init__(self, location: Location, *, name: str | None = None) -> None:
        self.location = location
        self.name = name or _name(location)
        repository = open_repository(location / "snapshots")
        if repository is None:
            raise RunNotFoundError(f"{location} holds no run")
        self._repository = repository
        self._pinned = _pin(repository, location)

    @property
    def path(self) -> str:
        """The run's own folder or address."""
        return str(self.location)

    @property
    def description(self) -> RunDescription:
        """What was recorded, of which model, on which probe."""
        return self._pinned.description

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the recorded layers; recorded inputs of layers are not among them, see `inputs`."""
        inputs = self._pinned.attributes.get("inputs", [])
        return tuple(name for name in self._pinned.attributes["layers"] if name not in inputs)

    @property
    def epochs(self) -> npt.NDArray[np.float64]:
        """The recorded epochs, growing; -1 is the untrained network."""
        return self._pinned.epochs.copy()

    @property
    def written_at(self) -> npt.NDArray[np.float64]:
        """When each epoch was written, in seconds since 1970; shape (epoch,)."""
        return self._pinned.written_at.copy()

    @property
    def created_at(self) -> float:
        """When the run began, in seconds since 1970."""
        return float(self._pinned.attributes["created_at"])

    @property
    def updated_at(self) -> float:
        """When the newest epoch was written, else when the run began, in seconds since 1970."""
        return float(self._pinned.written_at[-1]) if self._pinned.epochs.size else self.created_at

    @property
    def labels(self) -> xr.DataArray | None:
        """The class of each probe sequence, dims (sample,), when known."""
        labels = self.description.labels
        if labels is None:
            return None
        return xr.DataArray(labels, dims="sample", coords={"sample": self.description.samples}, name="label")

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of classes 0, 1, …, when known."""
        return self.description.label_names

    @property
    def token_names(self) -> tuple[str, ...] | None:
        """The names of tokens 0, 1, …, when the probe consists of tokens and their names are known."""
        return self.description.token_names

    @property
    def probe(self) -> npt.NDArray[Any] | None:
        """The probe's inputs (sample, step, feature), when they were stored."""
        return self.description.probe

    @property
    def version(self) -> str:
        """The commit that this run is pinned to."""
        return str(self._pinned.session.snapshot_id)

    @property
    def status(self) -> str:
        """``"training"``, ``"finished"``, ``"interrupted"``, or ``"killed"``: never finished, and no longer written.

        Found out now, whatever commit the run is pinned to. Where no lock can be asked (on S3, or for a training on
        another machine), a training counts as killed when it has been silent for ten minutes, or for five times its
        longest epoch.
        """
        if has_writer(self.location / "snapshots"):
            return "training"
        newest = self._pinned if version_of(self._repository) == self.version else _pin(self._repository, self.location)
        return _status(newest, self.location)

    @cached_property
    def results(self) -> ResultStore:
        """What was computed from this run; for reading."""
        return ResultStore.open(self.location, writable=False)

    def refresh(self) -> bool:
        """Move to the newest commit; True if that is another one. Costs one small read when it is not."""
        if version_of(self._repository) == self.version:
            return False
        self._pinned = _pin(self._repository, self.location)
        return True

    def trace(
        self, layer: str | None = None, *, epochs: Selection | None = None, steps: Selection | None = None
    ) -> xr.DataArray:
        """The hidden states of one layer, float32, dims ``TRACE_DIMS``; only what is asked for is read.

        Args:
            layer: the layer's name; may be left out when there is only one.
            epochs: an epoch, several, or a slice from the first to the last wanted, ends included; default all.
            steps: the same for time steps.

        Raises:
            ValueError: an unknown layer, epoch or step, or no layer where there are several.
        """
        pinned = self._pinned
        layer = self._one_layer(layer)
        described = pinned.description.layer(layer)
        rows = positions(pinned.epochs, epochs, "epoch")
        columns = positions(described.steps, steps, "step")
        stored = array(pinned.root, f"{layer_path(layer)}/states")
        sizes = (pinned.epochs.size, described.steps.size, described.units.size, pinned.description.samples.size)
        if stored.shape != sizes:
            raise RunFormatError(
                f"{self.location} cannot be read (states of {layer!r} are {stored.shape}, not {sizes})"
            )
        with readable(self.location):
            data = read_block(stored, rows, columns)
        coords: dict[str, Any] = {
            "epoch": pinned.epochs[rows],
            "step": described.steps[columns],
            "unit": described.units,
            "sample": pinned.description.samples,
        }
        if pinned.description.labels is not None:
            coords["label"] = ("sample", pinned.description.labels)
        return xr.DataArray(data.astype(np.float32, copy=False), dims=TRACE_DIMS, coords=coords, name=layer)

    def weights(self, layer: str | None = None, epoch: float | None = None) -> dict[str, npt.NDArray[Any]] | None:
        """The parameters of the module that holds a layer, by PyTorch's names, as they were after an epoch.

        Args:
            layer: the layer's name; may be left out when there is only one.
            epoch: a recorded epoch; None for the newest.

        Returns:
            Such as ``{"weight_ih_l0": …, "weight_hh_l0": …, "bias_ih_l0": …}``; NaN where an epoch was recorded without
            them, None when the whole run was (too large, or imported).

        Raises:
            ValueError: an unknown layer or epoch.
        """
        pinned = self._pinned
        name = self.description.layer(self._one_layer(layer)).settings.get("module")
        module = next((module for module in self.description.modules if module.name == name), None)
        row = self._row(epoch)
        if module is None:
            return None
        stored = array(pinned.root, f"{module_path(module.name)}/weights")
        if stored.shape != (pinned.epochs.size, module.size):
            raise RunFormatError(f"{self.location} cannot be read (weights of {module.name!r} are {stored.shape})")
        with readable(self.location):
            return module.parted(np.asarray(stored[row]))

    def inputs(self, layer: str | None = None, epoch: float | None = None) -> npt.NDArray[np.float32] | None:
        """What a layer was fed with on the probe, (sample, step, feature).

        What was recorded with ``record=("h", "inputs")`` is at the steps that are recorded of the layer. The upper
        levels of a stack are fed with the states of the level below. Else it is the probe itself, with all its steps,
        when it has as many features as the layer takes.

        Args:
            layer: the layer's name; may be left out when there is only one.
            epoch: a recorded epoch; None for the newest.

        Returns:
            The inputs, or None when they are not known whole.

        Raises:
            ValueError: an unknown layer or epoch.
        """
        described = self.description.layer(self._one_layer(layer))
        at = float(self._pinned.epochs[self._row(epoch)])
        module, level = described.settings.get("module"), described.settings.get("level")
        source = f"{module}.l{level - 1}" if isinstance(level, int) and level > 0 else f"{module}.{INPUTS}"
        recorded = {each.name: each for each in self.description.layers}
        if source in recorded and recorded[source].settings.get("all_units") in (None, recorded[source].units.size):
            return np.ascontiguousarray(self.trace(source, epochs=[at]).values[0].transpose(2, 0, 1))
        size, probe = described.settings.get("input_size"), self.probe
        if level not in (None, 0) or probe is None or probe.ndim != 3 or probe.shape[-1] != size:
            return None
        return probe.astype(np.float32)

    def _one_layer(self, layer: str | None) -> str:
        if layer is None and len(self.layers) > 1:
            raise ValueError(f"this run has layers {', '.join(_quoted(self.layers))}; say which one")
        return self.layers[0] if layer is None else layer

    def _row(self, epoch: float | None) -> int:
        """The position of an epoch, of the newest by default."""
        if not self._pinned.epochs.size:
            raise ValueError("this run has no epoch yet")
        return self._pinned.epochs.size - 1 if epoch is None else int(positions(self._pinned.epochs, epoch, "epoch")[0])

    def metrics(self) -> pd.DataFrame:
        """What was logged with each epoch: one row per epoch, one column per name, NaN where it was not logged."""
        pinned = self._pinned
        with readable(self.location):
            names = values(pinned.root, "metric")
            table = values(pinned.root, "metrics")
        return pd.DataFrame(table, index=pd.Index(pinned.epochs, name="epoch"), columns=names.tolist())

    def fingerprint(self, layer: str, *, count: int | None = None) -> str:
        """Changes when the first ``count`` epochs (default: all) or the states of the last of them do.

        Reads one epoch; tells what was computed from these epochs from what was computed from superseded ones.
        """
        epochs = self.epochs[:count]
        digest = sha256(epochs.tobytes())
        if len(epochs):
            digest.update(np.ascontiguousarray(self.trace(layer, epochs=epochs[-1]).values).tobytes())
        return digest.hexdigest()[:16]

    def __repr__(self) -> str:
        return f"<hiddenscope.Run {self.name!r}: {self._summary()}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(layer.name)}</td><td>{html.escape(layer.kind)}</td>"
            f"<td>{layer.steps.size}</td><td>{layer.units.size}</td><td>{self.description.samples.size}</td></tr>"
            for layer in self.description.layers
        )
        head = "".join(f"<th>{name}</th>" for name in ("layer", "kind", "steps", "units", "samples"))
        return (
            f"<p><b>{html.escape(self.name)}</b> · {html.escape(self._summary())}<br>{html.escape(self.path)}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def _summary(self) -> str:
        epochs = self._pinned.epochs
        span = f" ({epochs[0]:g} to {epochs[-1]:g})" if epochs.size else ""
        return f"{self.status}, {epochs.size} epochs{span}, layers {', '.join(_quoted(self.layers))}"


def open_run(path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None) -> Run:
    """The newest run at or below ``path``.

    Args:
        path: a log folder, a version folder, a run's own folder, or an address such as ``s3://bucket/prefix`` (there,
            the run must lie at the address itself or in ``hiddenscope`` right below it).
        storage_options: for S3, see `hiddenscope.locations.Location`.

    Raises:
        RunNotFoundError: there is no run, or none with an epoch in it; the message says what there is.
        RunFormatError: there is one, but it cannot be read.
    """
    place = as_location(path, storage_options)
    infos = _look(place)
    recorded = [info for info in infos if info.epoch_count]
    if recorded:
        return Run(as_location(recorded[0].path, storage_options), name=recorded[0].name)
    empty = [info for info in infos if info.problem is None]
    if empty:
        age = max(0.0, time.time() - empty[0].updated_at)
        raise RunNotFoundError(
            f"the run at {empty[0].path} has no epoch yet (begun {age:.0f} s ago, {empty[0].status}); "
            "the first appears once the untrained network has been recorded"
        )
    if infos:
        raise RunFormatError(infos[0].problem or "")
    raise RunNotFoundError(_nothing_at(place))


def find_runs(
    path: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None, unreadable: bool = False
) -> list[RunInfo]:
    """All runs at or below ``path``, the newest first; a folder that cannot be read never hides the others.

    Args:
        path: as for `open_run`; a path that does not exist has no runs.
        storage_options: as for `open_run`.
        unreadable: list also what looks like a run and cannot be read, last, with ``problem`` saying why.
    """
    place = as_location(path, storage_options)
    return [info for info in _look(place) if unreadable or info.problem is None]


def _pin(repository: icechunk.Repository, location: Location) -> _Pinned:
    with readable(location):
        session = repository.readonly_session(BRANCH)
        try:
            root = zarr.open_group(session.store, mode="r", zarr_format=3)
        except FileNotFoundError:
            raise RunNotFoundError(f"the run at {location} has not begun yet") from None
        attributes = root.attrs.asdict()
        check_format(attributes, location)
        if attributes["status"] not in STATUSES:
            raise RunFormatError(f"{location} cannot be read (its status is {attributes['status']!r:.50})")
    return _Pinned(session, root, location, attributes)


def _status(pinned: _Pinned, location: Location) -> str:
    stored = str(pinned.attributes["status"])
    writer = has_writer(location / "snapshots")
    if writer:
        return "training"
    if stored != "training":
        return stored
    if writer is None:
        times = pinned.written_at
        patience = max(_PATIENCE, _PATIENCE_EPOCHS * float(np.max(np.diff(times), initial=0.0)))
        last = float(times[-1]) if times.size else float(pinned.attributes["created_at"])
        if time.time() - last < patience:
            return "training"
    return "killed"


def _look(place: Location) -> list[RunInfo]:
    """What looks like a run at or below ``place``, the newest first, what cannot be read last."""
    found = [_info(location, name) for location, name in _candidates(place)]
    return sorted(found, key=lambda info: (info.problem is None, info.updated_at), reverse=True)


def _info(location: Location, name: str) -> RunInfo:
    try:
        with readable(location):
            run = _glanced_at(location)
            epochs = run.epochs
            return RunInfo(
                path=run.path,
                name=name,
                status=run.status,
                layers=run.layers,
                epoch_count=int(epochs.size),
                last_epoch=float(epochs[-1]) if epochs.size else None,
                updated_at=run.updated_at,
                version=run.version,
            )
    except RunNotFoundError:  # its writer is about to begin it, or died just then
        status = "training" if has_writer(location / "snapshots") else "killed"
        return RunInfo(str(location), name, status, (), 0, None, _changed_at(location), "")
    except HiddenscopeError as error:
        return RunInfo(str(location), name, "unreadable", (), 0, None, _changed_at(location), "", str(error))


def _glanced_at(location: Location) -> Run:
    """The run there as of now, opened once: those who list runs do so again and again."""
    key = (str(location), tuple(sorted(location.options.items())))
    with _glances_lock:
        run = _glances.pop(key, None)
    if run is None:
        run = Run(location)
    else:
        run.refresh()
    with _glances_lock:
        _glances[key] = run  # the last to be dropped
        while len(_glances) > _MOST_GLANCES:
            _glances.pop(next(iter(_glances)))
    return run


def _changed_at(location: Location) -> float:
    """When the folder of a run that cannot be asked was last changed, in seconds since 1970; 0 when unknown."""
    folder = location.folder
    return folder.stat().st_mtime if folder is not None and folder.exists() else 0.0


def _candidates(place: Location) -> Iterator[tuple[Location, str]]:
    """Every place at or below ``place`` that looks like a run, with a name for it."""
    folder = place.folder
    if folder is None:
        for location in (place, place / "hiddenscope"):
            if open_repository(location / "snapshots") is not None:
                yield location, _name(location)
        return
    if folder.name == "snapshots" and _is_run(folder.parent):
        folder = folder.parent
    for parent, folders, _ in os.walk(folder):
        here = Path(parent)
        if _is_run(here):
            folders.clear()
            named = here.parent if here.name == "hiddenscope" else here
            inside = named != folder and folder in named.parents
            yield as_location(here), named.relative_to(folder).as_posix() if inside else named.name
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))


def _is_run(folder: Path) -> bool:
    snapshots = folder / "snapshots"
    return snapshots.is_dir() and (folder.name == "hiddenscope" or (snapshots / "refs").is_dir())


def _name(location: Location) -> str:
    if location.name != "hiddenscope":
        return location.name
    parent = location.path.rstrip("/").rpartition("/")[0]
    return parent.rpartition("/")[2] or location.name


def _nothing_at(place: Location) -> str:
    folder = place.folder
    advice = "train with callbacks=[hiddenscope.HiddenStateMonitor()] to record one"
    if folder is None:
        return f"no run at {place} nor at {place / 'hiddenscope'}; {advice}"
    if not folder.exists():
        nearest = next(parent for parent in folder.parents if parent.exists())
        return f"{folder} does not exist (the path is there up to {nearest}); {advice}"
    if not folder.is_dir():
        return f"{folder} is a file; a run is a folder named hiddenscope inside a log folder"
    inside = sorted(entry.name for entry in folder.iterdir())
    listing = ", ".join(inside[:5]) + (f" and {len(inside) - 5} more" if len(inside) > 5 else "")
    return f"no run in {folder}, which holds {listing or 'nothing'}; {advice}"


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]
