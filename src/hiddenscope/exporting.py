"""A run as one file, for other tools: ``hiddenscope export``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import xarray as xr

from hiddenscope._version import __version__
from hiddenscope.errors import MissingExtraError
from hiddenscope.run import Run, open_run

_SUFFIXES = (".nc", ".zarr", ".npz")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``hiddenscope export``."""
    parser.add_argument("path", metavar="RUN", help="a run, or a folder whose newest run is meant")
    parser.add_argument("--to", metavar="FILE", required=True, help=f"the file to write: {', '.join(_SUFFIXES)}")
    parser.add_argument("--layer", help="which layer; may be left out when there is only one")


def run(args: argparse.Namespace) -> int:
    """Export one layer of a run."""
    opened = open_run(args.path)
    written = export_trace(opened, args.to, layer=args.layer)
    print(f"wrote {written} ({opened.epochs.size} epochs of {opened.name})")
    return 0


def export_trace(run: Run, to: str | os.PathLike[str], *, layer: str | None = None) -> Path:
    """Write one layer of a run, with its coordinates, labels and metrics, to a file that `import_trace` can read.

    The file appears whole or not at all; one that is there already is never written over.

    Args:
        run: the run, as of the commit that it is pinned to.
        to: a path that ends in ``.nc`` (netCDF), ``.zarr`` (a Zarr v3 folder) or ``.npz``.
        layer: may be left out when there is only one.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, an unknown layer, or ``to`` exists.
        MissingExtraError: netCDF files this large need a package that is not installed.
    """
    path = Path(to)
    if path.suffix not in _SUFFIXES:
        raise ValueError(f"a trace is exported to {', '.join(_SUFFIXES)}; got {path.name!r}")
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or choose another name")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder; make it first")
    dataset = as_dataset(run, layer)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        draft = Path(scratch) / path.name
        if path.suffix == ".npz":
            arrays = {str(name): np.asarray(variable.values) for name, variable in dataset.variables.items()}
            texts = {name: array.astype(np.str_) for name, array in arrays.items() if array.dtype.kind == "O"}
            arrays |= {**texts, "layer": np.array(dataset["states"].attrs["layer"])}
            if run.label_names:
                arrays["label_names"] = np.array(run.label_names)
            np.savez(draft, **arrays)  # type: ignore[arg-type]
        elif path.suffix == ".zarr":
            dataset.to_zarr(draft, mode="w-", zarr_format=3, consolidated=False)
        else:
            try:
                dataset.to_netcdf(draft)
            except ValueError as error:
                raise MissingExtraError("netCDF4", "files", f"writing {path.name}") from error
        shutil.move(draft, path)
    return path


def as_dataset(run: Run, layer: str | None = None) -> xr.Dataset:
    """One layer as a Dataset: ``states`` (epoch, step, unit, sample) and ``metrics`` (epoch, metric)."""
    trace = run.trace(layer)
    table = run.metrics()
    dataset = trace.rename("states").to_dataset()
    if dataset["unit"].dtype.kind == "U":
        dataset = dataset.assign_coords(unit=dataset["unit"].astype(object))
    names = np.array([str(name) for name in table.columns], dtype=object)
    if names.size:
        dataset = dataset.assign(metrics=(("epoch", "metric"), table.to_numpy())).assign_coords(metric=names)
    dataset["states"].attrs["layer"] = str(trace.name)
    return dataset.assign_attrs(
        source=run.name,
        model=run.description.model,
        hiddenscope_version=__version__,
        label_names=json.dumps(run.label_names or ()),
    )
