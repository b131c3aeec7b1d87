"""Traces that somebody else recorded, as runs: for Keras and JAX, for old experiments, for a quick look."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.errors import MissingExtraError
from hiddenscope.locations import as_location
from hiddenscope.run import Run
from hiddenscope.store import SnapshotWriter
from hiddenscope.trace import TRACE_DIMS

_SUFFIXES = ".npy, .npz, .h5, .hdf5, .nc, .zarr"
_BESIDE = (*TRACE_DIMS, "label", "label_names", "metric", "metrics")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class _Foreign:
    """An array somewhere, read one epoch at a time, with the small arrays that lay beside it."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    take: Callable[[tuple[int | slice, ...]], Array]
    beside: Mapping[str, Array] = field(default_factory=dict)

    def size(self, dim: str) -> int:
        return self.shape[self.dims.index(dim)] if dim in self.dims else 1

    def epoch(self, row: int) -> Array:
        """The states of one epoch, (step, unit, sample); axes that the array does not have are of length 1."""
        index = tuple(row if dim == "epoch" else slice(None) for dim in self.dims)
        block = np.asarray(self.take(index))
        rest = [dim for dim in self.dims if dim != "epoch"]
        order = [rest.index(dim) for dim in TRACE_DIMS[1:] if dim in rest]
        return block.transpose(order).reshape([self.size(dim) for dim in TRACE_DIMS[1:]])


def import_trace(
    source: xr.DataArray | npt.ArrayLike | str | os.PathLike[str],
    logdir: str | os.PathLike[str],
    *,
    axes: Sequence[str] = TRACE_DIMS,
    variable: str | None = None,
    layer: str | None = None,
    epochs: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    metrics: Mapping[str, npt.ArrayLike] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> Run:
    """Make a run of a trace from elsewhere, so that everything else can be used on it.

    A file is read epoch by epoch, so it may be larger than memory (an array inside an .npz may not). Arrays of the
    names epoch, step, unit, sample, label, metric and metrics that lie beside the trace are taken along; files that
    ``hiddenscope export`` has written have them. No pickle is ever loaded.

    Args:
        source: a DataArray with named dims, a plain array, or the path of a .npy, .npz, HDF5 or netCDF file or of a
            Zarr folder.
        logdir: the log folder; the run becomes ``<logdir>/hiddenscope``. An ``s3://bucket/prefix`` will do.
        axes: what the axes of a plain array are, in order, out of epoch, step, unit and sample; those that it does not
            have get length 1. Names that come with the data (a DataArray, netCDF, Zarr, HDF5 dimension labels) win.
        variable: which array of the file, when there are several that could be meant.
        layer: what to call the layer; default: the name of the array or of the file.
        epochs: the epoch of each entry along the epoch axis, growing; -1 is the untrained network. Default: what lies
            beside the trace, else 0, 1, 2, …
        labels: the class of each sample: whole numbers, or names.
        metrics: values per epoch, by name; a DataFrame will do.
        storage_options: for S3, see `hiddenscope.locations.Location`.

    Returns:
        The run, opened.

    Raises:
        ValueError: what the axes are cannot be told, sizes do not fit, or the values are not real numbers.
        RecordingError: there is a run in ``logdir`` already.
        MissingExtraError: reading this kind of file needs a package that is not installed.

    >>> states = np.random.default_rng(0).normal(size=(20, 5, 8))           # e.g. from Keras: (epoch, sample, unit)
    >>> run = import_trace(states, "memory://keras", axes=("epoch", "sample", "unit"), labels=["a", "b", "a", "b", "b"])
    >>> dict(run.trace().sizes), run.label_names
    ({'epoch': 20, 'step': 1, 'unit': 8, 'sample': 5}, ('a', 'b'))
    """
    with _opened(source, tuple(axes), variable) as found:
        if found.dtype.kind not in "biuf":
            raise ValueError(f"a trace needs real numbers, got dtype {found.dtype}")
        count = found.size("epoch")
        numbered = _line(epochs if epochs is not None else found.beside.get("epoch"), count, "epochs", "epoch")
        numbered = np.arange(float(count)) if numbered is None else numbered.astype(np.float64)
        if not np.isfinite(numbered).all() or (np.diff(numbered) <= 0).any():
            raise ValueError(f"epochs must grow, got {', '.join(f'{epoch:g}' for epoch in numbered[:6])}, …")
        logged = _metrics(metrics, found.beside, count)
        name = layer or found.name
        description = _description(found, name, labels)
        place = as_location(logdir, storage_options)
        with SnapshotWriter.open(str(place / "hiddenscope"), description, storage_options=storage_options) as writer:
            for row, epoch in enumerate(numbered.tolist()):
                values = {metric: float(column[row]) for metric, column in logged.items()}
                writer.append(Snapshot(epoch, {name: found.epoch(row)}, values))
    return Run(place / "hiddenscope")


def _description(found: _Foreign, layer: str, labels: npt.ArrayLike | None) -> RunDescription:
    sizes = {dim: found.size(dim) for dim in TRACE_DIMS}
    coords = {dim: _line(found.beside.get(dim), sizes[dim], f"{dim}s", dim) for dim in TRACE_DIMS[1:]}
    filled = {dim: np.arange(sizes[dim]) if values is None else values for dim, values in coords.items()}
    classes = _line(labels if labels is not None else found.beside.get("label"), sizes["sample"], "labels", "sample")
    names = None
    if classes is not None and classes.dtype.kind not in "biuf":
        unique, classes = np.unique(np.array(classes.tolist(), dtype=np.str_), return_inverse=True)
        names = tuple(unique.tolist())
    elif classes is not None and labels is None and "label_names" in found.beside:
        names = tuple(map(str, found.beside["label_names"].tolist()))
    return RunDescription(
        layers=(LayerDescription(layer, "imported", filled["unit"], filled["step"], {"axes": list(found.dims)}),),
        samples=filled["sample"],
        labels=classes,
        label_names=names,
        probe_fingerprint=sha256(repr((sizes, filled["sample"].tolist())).encode()).hexdigest()[:16],
        model="imported",
    )


def _line(values: npt.ArrayLike | None, size: int, what: str, dim: str) -> Array | None:
    """Values along one axis, checked for their number; None when there are none."""
    if values is None:
        return None
    line = np.asarray(values)
    if line.shape != (size,):
        raise ValueError(f"the trace has {size} entries along {dim}, got {what} of shape {line.shape}")
    return line


def _metrics(given: Mapping[str, npt.ArrayLike] | None, beside: Mapping[str, Array], count: int) -> dict[str, Array]:
    if given is None and {"metric", "metrics"} <= set(beside):
        names, table = beside["metric"], beside["metrics"]
        if table.shape != (count, names.size):
            raise ValueError(f"metrics need shape ({count}, {names.size}), got {table.shape}")
        given = {str(name): table[:, column] for column, name in enumerate(names.tolist())}
    columns: dict[str, Array] = {}
    if given is None:
        return columns
    for name in given:
        line = _line(np.asarray(given[name], dtype=np.float64), count, f"metric {name!r}", "epoch")
        assert line is not None
        columns[str(name)] = line
    return columns


@contextmanager
def _opened(source: object, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    if isinstance(source, xr.DataArray):
        yield _named(source)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        readers = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5, ".nc": _netcdf, ".zarr": _zarr}
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise ValueError(f"{path.name} is none of {_SUFFIXES}; save the trace as one of these")
        with reader(path, axes, variable) as found:
            yield found
    else:
        yield _plain("imported", np.asarray(source), axes)


def _plain(name: str, array: Any, axes: tuple[str, ...], beside: Mapping[str, Array] | None = None) -> _Foreign:
    """An array whose axes the caller has named; anything with shape, dtype and indexing will do."""
    unknown = [axis for axis in axes if axis not in TRACE_DIMS]
    if unknown or len(set(axes)) < len(axes) or "unit" not in axes:
        raise ValueError(f"axes are different ones of {', '.join(TRACE_DIMS)}, unit among them; got {axes}")
    if len(array.shape) != len(axes):
        raise ValueError(
            f"the array {name!r} has shape {tuple(array.shape)}, and {len(axes)} axes were named: {', '.join(axes)}; "
            'say what its axes are, such as axes=("epoch", "sample", "unit")'
        )
    return _Foreign(name, axes, tuple(array.shape), np.dtype(array.dtype), array.__getitem__, beside or {})


def _named(array: xr.DataArray, beside: Mapping[str, Array] | None = None) -> _Foreign:
    dims = tuple(map(str, array.dims))
    coords = {str(name): np.asarray(values.values) for name, values in array.coords.items()}

    def take(index: tuple[int | slice, ...]) -> Array:
        return np.asarray(array.isel(dict(zip(array.dims, index, strict=True))).values)

    checked = _plain(str(array.name or "imported"), array, dims, {**coords, **(beside or {})})
    return _Foreign(checked.name, dims, checked.shape, checked.dtype, take, checked.beside)


def _chosen(path: Path, shapes: Mapping[str, int], variable: str | None, axes: int | None) -> str:
    """Which array of a file is the trace, given the number of axes of each."""
    if variable is not None:
        if variable not in shapes:
            raise ValueError(f"got variable {variable!r}; {path.name} has {', '.join(map(repr, shapes)) or 'none'}")
        return variable
    beside = (*_BESIDE, "layer")
    candidates = [name for name, count in shapes.items() if name not in beside and axes in (None, count)]
    if len(candidates) != 1:
        listing = ", ".join(f"{name!r} ({count} axes)" for name, count in shapes.items())
        wanted = "one array" if axes is None else f"one array of {axes} axes"
        raise ValueError(f"expected {wanted} in {path.name}, which has {listing or 'none'}; say which with variable=")
    return candidates[0]


@contextmanager
def _npy(path: Path, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    yield _plain(path.stem, _load(path, mmap_mode="r"), axes)


@contextmanager
def _npz(path: Path, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    with _load(path) as archive:
        arrays = {}
        for name in archive.files:
            try:
                arrays[name] = archive[name]
            except ValueError as error:
                raise _pickled(path, error) from None
    name = _chosen(path, {name: array.ndim for name, array in arrays.items()}, variable, len(axes))
    label = str(arrays.pop("layer")) if "layer" in arrays else name
    yield _plain(label, arrays.pop(name), axes, arrays)


@contextmanager
def _hdf5(path: Path, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "files", f"reading {path.name}") from error
    with h5py.File(path, "r") as file:
        arrays: dict[str, Any] = {}
        file.visititems(lambda name, node: arrays.update({name: node}) if isinstance(node, h5py.Dataset) else None)
        labelled = {name: tuple(dim.label for dim in array.dims) for name, array in arrays.items()}
        known = [name for name, labels in labelled.items() if "unit" in labels and len(labels) > 1]
        shapes = {name: len(array.shape) for name, array in arrays.items()}
        name = known[0] if variable is None and len(known) == 1 else _chosen(path, shapes, variable, len(axes))
        beside = {
            each: np.asarray(array.asstr()[...] if array.dtype.kind == "O" else array[...])
            for each, array in arrays.items()
            if each in _BESIDE
        }
        yield _plain(name.rpartition("/")[2], arrays[name], labelled[name] if all(labelled[name]) else axes, beside)


@contextmanager
def _netcdf(path: Path, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    try:
        dataset = xr.open_dataset(path)
    except ValueError as error:  # no engine for this kind of netCDF
        raise MissingExtraError("netCDF4", "files", f"reading {path.name}") from error
    with dataset:
        yield _of_dataset(path, dataset, variable)


@contextmanager
def _zarr(path: Path, axes: tuple[str, ...], variable: str | None) -> Iterator[_Foreign]:
    try:
        node = zarr.open(path, mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"{path.name} is no Zarr array or group ({str(error).splitlines()[0]})") from None
    if isinstance(node, zarr.Array):
        yield _of_zarr(path.stem, node, axes)
        return
    arrays = dict(node.arrays())
    if all(_dims_of_zarr(array) for array in arrays.values()):
        with xr.open_dataset(path, engine="zarr", consolidated=False) as dataset:
            yield _of_dataset(path, dataset, variable)
        return
    name = _chosen(path, {name: array.ndim for name, array in arrays.items()}, variable, len(axes))
    beside = {each: np.asarray(array[...]) for each, array in arrays.items() if each in _BESIDE}
    yield _of_zarr(name, arrays[name], axes, beside)


def _of_zarr(
    name: str, array: zarr.Array[Any], axes: tuple[str, ...], beside: Mapping[str, Array] | None = None
) -> _Foreign:
    return _plain(name, array, _dims_of_zarr(array) or axes, beside)


def _dims_of_zarr(array: zarr.Array[Any]) -> tuple[str, ...]:
    """What the axes of an array are called, in version 3 or as xarray writes it in version 2; empty when nowhere."""
    named = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    return tuple(map(str, named)) if isinstance(named, list | tuple) else ()


def _of_dataset(path: Path, dataset: xr.Dataset, variable: str | None) -> _Foreign:
    variables = {str(name): array.ndim for name, array in dataset.data_vars.items()}
    array = dataset[_chosen(path, variables, variable, None)]
    beside = {name: dataset[name].values for name in ("metric", "metrics", "label") if name in dataset}
    if names := json.loads(dataset.attrs.get("label_names", "[]")):
        beside["label_names"] = np.array(names)
    return _named(array.rename(str(array.attrs.get("layer", array.name))), beside)


def _load(path: Path, mmap_mode: Any = None) -> Any:
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except ValueError as error:
        raise _pickled(path, error) from None


def _pickled(path: Path, error: ValueError) -> ValueError:
    return ValueError(f"{path.name} is not a plain array of numbers ({error}); pickles are never loaded")
