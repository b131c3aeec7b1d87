"""What was computed from a run, stored once and the same for every viewer."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import icechunk
import numpy as np
import xarray as xr
import zarr

from hiddenscope.description import JSON, plain_json
from hiddenscope.errors import RunFormatError
from hiddenscope.layout import check_format, format_attributes, group_name, line, values
from hiddenscope.locations import (
    BRANCH,
    Location,
    RepositoryLock,
    as_location,
    commit,
    continued,
    create_repository,
    open_repository,
    readable,
    version_of,
)

_GRACE = 30.0  # seconds that a replaced result stays readable for those who are reading it
_SWEEP_EVERY = 10.0  # seconds between two sweeps of what was replaced


@dataclass(frozen=True)
class ResultKey:
    """What a result was computed from and how.

    Attributes:
        layer: the layer's name.
        method: such as ``"mmphate"``.
        parameters_json: the parameters, as JSON with sorted keys.
        stored_at: when it was stored, in seconds since 1970.
    """

    layer: str
    method: str
    parameters_json: str
    stored_at: float

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters as a dict."""
        found = json.loads(self.parameters_json)
        assert isinstance(found, dict)
        return found


class ResultStore:
    """Derived results of one run, keyed by (layer, method, parameters); made by `open`.

    A reader may outlive many writers; it finds results that appear after it was opened. Any number of threads may read.
    """

    def __init__(self, location: Location, repository: icechunk.Repository | None, lock: RepositoryLock | None) -> None:
        """Use `open`."""
        self.location = location
        self._repository = repository
        self._lock = lock
        self._swept = time.monotonic()
        self._version = "" if lock is None or repository is None else version_of(repository)

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str] | Location,
        *,
        writable: bool,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The results of the run at ``location`` (the folder that `SnapshotWriter.open` was given).

        Raises:
            RunLockedError: ``writable``, and another process writes results to this run.
            RunFormatError: what is there cannot be read.
        """
        place = as_location(location, storage_options) / "results"
        if not writable:
            return cls(place, open_repository(place), None)
        lock = RepositoryLock(place)
        try:
            repository = open_repository(place) or create_repository(place)
            with readable(place):
                session = repository.writable_session(BRANCH)
                root = zarr.open_group(session.store, mode="a", zarr_format=3)
                begun = "hiddenscope_format" in root.attrs
                if begun or any(True for _ in root):
                    check_format(root.attrs.asdict(), place)
            if not begun:
                root.update_attributes({**format_attributes(), "results": []})
                commit(session, "begin", lock=lock, where=place)
            return cls(place, repository, lock)
        except BaseException:
            lock.release()
            raise

    @property
    def version(self) -> str:
        """Changes with every result that is stored; empty while there is none. Costs one small read."""
        repository = self._found()
        return "" if repository is None else version_of(repository)

    def keys(self) -> list[ResultKey]:
        """All results, the newest last."""
        root = self._root()
        return [] if root is None else [key for key, _ in _index(root)]

    def put(self, layer: str, method: str, parameters: Mapping[str, JSON], dataset: xr.Dataset) -> None:
        """Store a result in one commit, in the place of the former one with the same layer, method and parameters.

        Args:
            layer: the layer's name.
            method: such as ``"mmphate"``.
            parameters: everything that the result depends on, the random seed included; plain JSON.
            dataset: numbers, booleans or strings; attributes of plain JSON.
        """
        if self._lock is None or self._repository is None:
            raise ValueError("these results were opened for reading; open them with writable=True")
        canonical = _canonical(parameters)
        digest = sha256(canonical.encode()).hexdigest()[:16]
        path = f"{group_name(layer)}/{group_name(method)}/{digest}"
        attributes = _stored_attributes(dataset.attrs, "a result")
        session = continued(self._repository, self._version, lock=self._lock, where=self.location)
        root = zarr.open_group(session.store, mode="r+", zarr_format=3)
        if path in root:
            del root[path]
        coordinates: list[JSON] = [str(name) for name in dataset.coords]
        group = root.create_group(path, attributes={"attributes": attributes, "coordinate_names": coordinates})
        for name, variable in dataset.variables.items():
            data = np.asarray(variable.values)
            if data.dtype.kind == "O" and all(isinstance(value, str) for value in data.flat):
                data = data.astype(np.str_)
            if data.dtype.kind not in "biufU":
                raise ValueError(f"a result holds numbers, booleans or strings; {name!r} has dtype {data.dtype}")
            line(
                group,
                group_name(str(name)),
                data,
                tuple(map(str, variable.dims)),
                attributes={"name": str(name), "attributes": _stored_attributes(variable.attrs, repr(name))},
            )
        entry: JSON = {
            "layer": layer,
            "method": method,
            "parameters": canonical,
            "path": path,
            "stored_at": time.time(),
        }
        root.update_attributes({"results": [*(old for old in _entries(root) if old["path"] != path), entry]})
        self._version = commit(session, f"{method} of {layer}", lock=self._lock, where=self.location)
        if time.monotonic() - self._swept > _SWEEP_EVERY:
            self.sweep()

    def get(self, layer: str, method: str, parameters: Mapping[str, JSON] | None = None) -> xr.Dataset | None:
        """The stored result, fully read; with ``parameters=None`` the newest of that layer and method; else None."""
        wanted = None if parameters is None else _canonical(parameters)
        seen = None
        while True:
            root = self._root()
            if root is None:
                return None
            matches = [
                path
                for key, path in _index(root)
                if (key.layer, key.method) == (layer, method) and wanted in (None, key.parameters_json)
            ]
            if not matches:
                return None
            try:
                with readable(self.location):
                    return _read(root, matches[-1])
            except RunFormatError:
                # Replaced and swept away while we read, slower than the grace period? Then there is a newer version.
                if seen == self.version:
                    raise
                seen = self.version

    def attributes(self, layer: str, method: str) -> dict[str, Any] | None:
        """What the newest result of a layer and method says of itself, without reading its numbers; None without it."""
        root = self._root()
        paths = (
            [] if root is None else [path for key, path in _index(root) if (key.layer, key.method) == (layer, method)]
        )
        if root is None or not paths:
            return None
        with readable(self.location):
            about: dict[str, Any] = dict(root[paths[-1]].attrs)
        return _read_attributes(about["attributes"])

    def sweep(self, *, grace: float = _GRACE) -> int:
        """Free the space of results that were replaced more than ``grace`` seconds ago; returns the bytes freed."""
        if self._lock is None or self._repository is None:
            raise ValueError("these results were opened for reading; open them with writable=True")
        self._swept = time.monotonic()
        before = datetime.now(UTC) - timedelta(seconds=grace)
        self._repository.expire_snapshots(before)
        return self._repository.garbage_collect(before).bytes_deleted

    def close(self) -> None:
        """Let the next writer in; calling it again does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _found(self) -> icechunk.Repository | None:
        if self._repository is None:
            self._repository = open_repository(self.location)
        return self._repository

    def _root(self) -> zarr.Group | None:
        repository = self._found()
        if repository is None:
            return None
        with readable(self.location):
            try:
                root = zarr.open_group(repository.readonly_session(BRANCH).store, mode="r", zarr_format=3)
            except FileNotFoundError:
                return None  # being created at this moment
            check_format(root.attrs.asdict(), self.location)
        return root


def _canonical(parameters: Mapping[str, JSON]) -> str:
    return json.dumps(plain_json(parameters, "parameters of a result"), sort_keys=True)


def _entries(root: zarr.Group) -> list[Any]:
    found = root.attrs["results"]
    assert isinstance(found, list)
    return found


def _index(root: zarr.Group) -> list[tuple[ResultKey, str]]:
    return [
        (ResultKey(entry["layer"], entry["method"], entry["parameters"], entry["stored_at"]), entry["path"])
        for entry in _entries(root)
    ]


def _dims(found: zarr.Array[Any]) -> tuple[str, ...]:
    named = getattr(found.metadata, "dimension_names", None) or ()
    return tuple(map(str, named))


def _read(root: zarr.Group, path: str) -> xr.Dataset:
    group = root[path]
    assert isinstance(group, zarr.Group)
    about: dict[str, Any] = dict(group.attrs)
    variables = {}
    for name, found in group.arrays():
        told: dict[str, Any] = dict(found.attrs)
        variables[told["name"]] = (_dims(found), values(group, name), _read_attributes(told["attributes"]))
    return xr.Dataset(variables, attrs=_read_attributes(about["attributes"])).set_coords(about["coordinate_names"])


def _stored_attributes(attributes: Mapping[Any, Any], what: str) -> dict[str, Any]:
    """Attributes as plain JSON; JSON has no NaN and infinities, so they are told as strings, as Zarr does."""
    told = {str(name): _told(value) for name, value in attributes.items()}
    return plain_json(told, f"attributes of {what}")


def _told(value: Any) -> Any:
    if isinstance(value, float | np.floating) and not np.isfinite(value):
        return {np.inf: "Infinity", -np.inf: "-Infinity"}.get(float(value), "NaN")
    return value


def _read_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}
    return {name: numbers.get(value, value) if isinstance(value, str) else value for name, value in attributes.items()}
