"""One run, read while it is being written, or afterwards."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from typing import Any, Protocol

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
    has_writer,
    open_repository,
    readable,
    run_name,
    version_of,
)
from hiddenscope.results import ResultStore
from hiddenscope.selection import Selection, positions, read_block
from hiddenscope.trace import TRACE_DIMS

_MOST_EPOCHS = 10_000_000  # no training has more; a damaged run may say that it has
_PATIENCE = 600.0  # seconds of silence before a training that cannot be asked counts as killed …
_PATIENCE_EPOCHS = 5  # … or so many times its longest epoch, whichever is longer


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


class InlinePage(Protocol):
    """What `Run.dashboard` returns."""

    address: str

    def stop(self) -> None: ...


class Run:
    """A recorded run, pinned to one commit: everything read from it agrees, until `refresh`; made by `open_run`."""

    def __init__(self, location: Location, *, name: str | None = None) -> None:
        self.location = location
        self.name = name or run_name(location)
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
    def resumed_after(self) -> tuple[float, ...]:
        """After which epochs the training was interrupted and went on, in the order in which that happened."""
        told = self._pinned.attributes.get("resumed_after", [])
        return tuple(float(epoch) for epoch in told if isinstance(epoch, int | float)) if isinstance(told, list) else ()

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

    def dashboard(self, *, height: int = 860, worker: bool = True) -> InlinePage:
        """The live page of this run, for a notebook to show in place, served by this process to this machine alone.

        Args:
            height: of the frame, in pixels.
            worker: whether to make the pictures that are missing, in a process of its own.

        Returns:
            An object that a notebook displays; it has an ``address`` and a ``stop()``.

        Raises:
            ValueError: the run does not lie in a folder.
        """
        page: InlinePage = import_module("hiddenscope.dashboard.notebook").InlinePage(
            self, height=height, worker=worker
        )
        return page

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
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{self._thumbnails()}"
        )

    def _thumbnails(self) -> str:
        """Small pictures of the layers; empty where none is stored, or what draws them is not installed."""
        if not self.results.version:
            return ""
        try:
            drawn: str = import_module("hiddenscope.dashboard.notebook").thumbnails(self)
        except (HiddenscopeError, ImportError, OSError, KeyError):
            return ""
        return drawn

    def _summary(self) -> str:
        epochs = self._pinned.epochs
        span = f" ({epochs[0]:g} to {epochs[-1]:g})" if epochs.size else ""
        return f"{self.status}, {epochs.size} epochs{span}, layers {', '.join(_quoted(self.layers))}"


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


def _quoted(names: Sequence[str]) -> list[str]:
    return [f'"{name}"' for name in names]
