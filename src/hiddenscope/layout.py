"""How a run lies in its repository: names, dimensions and attributes, as ``docs/design/run-format.md`` tells them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import zarr

from hiddenscope._version import __version__
from hiddenscope.description import INPUTS, JSON, LayerDescription, ModuleDescription, RunDescription
from hiddenscope.errors import RunFormatError

FORMAT = 1
STATUSES = ("training", "finished", "interrupted")
DTYPES = ("float32", "float16")
_CHUNK_BYTES = 8 * 2**20  # an epoch larger than this is split along its steps
_EPOCHS = 128  # epochs per chunk of what is small: 1,000 epochs are 8 chunks
_METRICS = 8  # metrics per chunk


def check_format(attributes: Mapping[str, Any], where: object) -> None:
    """Raise `RunFormatError` unless this version can read a repository with these attributes."""
    found = attributes.get("hiddenscope_format")
    if not isinstance(found, int) or found < 1:
        raise RunFormatError(f"{where} is a Zarr store, but hiddenscope did not write it (no hiddenscope_format)")
    if found > FORMAT:
        raise RunFormatError(
            f"{where} has run format {found}, written by hiddenscope {attributes.get('hiddenscope_version', '?')}; "
            f"this is hiddenscope {__version__}, which reads formats up to {FORMAT}: upgrade hiddenscope"
        )


def format_attributes() -> dict[str, Any]:
    """What every repository of ours says about itself."""
    return {"hiddenscope_format": FORMAT, "hiddenscope_version": __version__, "created_at": time.time()}


def group_name(name: str) -> str:
    """A name as one component of a Zarr path; two names never share one."""
    quoted = quote(name, safe=" ()[]+,:=@")
    if not quoted:
        return "%"
    if quoted.startswith(("__", ".")):  # reserved by Zarr
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    return quoted


def write_description(root: zarr.Group, description: RunDescription, *, dtype: str) -> None:
    """An empty run: every array and attribute but the epochs."""
    root.update_attributes(
        {
            **format_attributes(),
            "status": "training",
            "model": description.model,
            "probe_fingerprint": description.probe_fingerprint,
            "label_names": None if description.label_names is None else list(description.label_names),
            "settings": dict(description.settings),
            "layers": [layer.name for layer in description.layers],
            "inputs": [layer.name for layer in description.layers if layer.kind == INPUTS],
            "modules": [module.name for module in description.modules],
            "states_dtype": dtype,
        }
    )
    for name in ("epoch", "written_at"):
        line(root, name, np.zeros(0), ("epoch",), chunk=_EPOCHS)
    line(root, "metric", np.zeros(0, dtype=np.str_), ("metric",), chunk=256)
    root.create_array(
        "metrics",
        shape=(0, 0),
        chunks=(_EPOCHS, _METRICS),
        compressors=None,
        dtype="float64",
        fill_value=np.nan,
        dimension_names=("epoch", "metric"),
    )
    line(root, "sample", description.samples, ("sample",))
    if description.labels is not None:
        line(root, "label", description.labels, ("sample",))
    if description.probe is not None:
        axes = ("input_step", "input_feature", *(f"input_axis_{axis}" for axis in range(3, description.probe.ndim)))
        line(root, "probe", description.probe, ("sample", *axes[: description.probe.ndim - 1]))
    if description.token_names is not None:
        line(root, "token", np.array(description.token_names, dtype=np.str_), ("token",))
    for module in description.modules:
        _write_module(root, module)
    for layer in description.layers:
        group = root.create_group(
            layer_path(layer.name),
            attributes={"name": layer.name, "kind": layer.kind, "settings": dict(layer.settings)},
        )
        line(group, "step", layer.steps, ("step",))
        line(group, "unit", layer.units, ("unit",))
        shape = (layer.steps.size, layer.units.size, description.samples.size)
        steps = max(1, min(shape[0], _CHUNK_BYTES // (shape[1] * shape[2] * np.dtype(dtype).itemsize)))
        group.create_array(
            "states",
            shape=(0, *shape),
            chunks=(1, steps, *shape[1:]),
            dtype=dtype,
            fill_value=np.nan,
            compressors=None,  # compression saves 7 % on hidden states, and costs more than it saves
            dimension_names=("epoch", "step", "unit", "sample"),
        )


def _write_module(root: zarr.Group, module: ModuleDescription) -> None:
    """The parameters of a module lie one after another in a single array: one more file per epoch, not four or more."""
    shapes = [{"name": name, "shape": list(shape)} for name, shape in module.shapes.items()]
    group = root.create_group(
        module_path(module.name), attributes={"name": module.name, "kind": module.kind, "parameters": shapes}
    )
    group.create_array(
        "weights",
        shape=(0, module.size),
        chunks=(1, min(module.size, _CHUNK_BYTES // np.dtype(module.dtype).itemsize)),
        dtype=module.dtype,
        fill_value=np.nan,
        compressors=None,
        dimension_names=("epoch", "parameter"),
    )


def read_modules(root: zarr.Group) -> tuple[ModuleDescription, ...]:
    """The modules whose parameters are recorded; none in runs of versions before 0.3."""
    modules = []
    for name in cast(list[str], root.attrs.get("modules", [])):
        attributes = root[module_path(name)].attrs.asdict()
        parameters = cast(list[dict[str, Any]], attributes["parameters"])
        shapes = {str(entry["name"]): tuple(entry["shape"]) for entry in parameters}
        dtype = str(array(root, f"{module_path(name)}/weights").dtype)
        modules.append(ModuleDescription(name, str(attributes["kind"]), shapes, dtype))
    return tuple(modules)


def read_description(root: zarr.Group) -> RunDescription:
    """The description that `write_description` wrote."""
    attributes = root.attrs.asdict()
    layers = []
    for name in cast(list[str], attributes["layers"]):
        group = root[layer_path(name)]
        assert isinstance(group, zarr.Group)
        layers.append(
            LayerDescription(
                name=name,
                kind=str(group.attrs["kind"]),
                units=values(group, "unit"),
                steps=values(group, "step"),
                settings=cast(Mapping[str, JSON], group.attrs["settings"]),
            )
        )
    names = cast("list[str] | None", attributes["label_names"])
    return RunDescription(
        layers=tuple(layers),
        samples=values(root, "sample"),
        labels=values(root, "label") if "label" in root else None,
        label_names=None if names is None else tuple(names),
        probe_fingerprint=str(attributes["probe_fingerprint"]),
        model=str(attributes["model"]),
        settings=cast(Mapping[str, JSON], attributes["settings"]),
        probe=values(root, "probe") if "probe" in root else None,
        modules=read_modules(root),
        token_names=tuple(values(root, "token").tolist()) if "token" in root else None,
    )


def layer_path(name: str) -> str:
    """Where a layer's group lies below the root."""
    return f"layers/{group_name(name)}"


def module_path(name: str) -> str:
    """Where a module's group lies below the root."""
    return f"modules/{group_name(name)}"


def array(group: zarr.Group, path: str) -> zarr.Array[Any]:
    """The array at ``path``."""
    found = group[path]
    if not isinstance(found, zarr.Array):
        raise RunFormatError(f"expected an array at {path!r}, got a group")
    return found


def values(group: zarr.Group, path: str) -> npt.NDArray[Any]:
    """All values of the array at ``path``; strings as numpy's own fixed-width strings."""
    found = np.asarray(array(group, path)[...])
    return found if found.dtype.kind in "biuf" else np.array(found.tolist(), dtype=np.str_).reshape(found.shape)


def line(
    group: zarr.Group,
    name: str,
    data: npt.NDArray[Any],
    dims: tuple[str, ...],
    *,
    chunk: int | None = None,
    attributes: dict[str, Any] | None = None,
) -> None:
    """A small array that is written at once (strings are allowed); ``chunk`` entries per chunk when it is to grow."""
    text = data.dtype.kind == "U"
    created = group.create_array(
        name,
        shape=data.shape,
        chunks=tuple(max(1, size) for size in data.shape) if chunk is None else (chunk,),
        dtype=str if text else data.dtype,
        dimension_names=dims,
        attributes=attributes,
        compressors="auto" if chunk is None or text else None,  # what grows is written without Zarr, see pages
    )
    if data.size:
        created[...] = data.astype(object) if text else data
