"""What a run is, apart from its numbers: which layers of which model were recorded on which probe sequences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"

Amendments: TypeAlias = Mapping[float, Mapping[str, float]]
"""Metrics by epoch and name."""

INPUTS = "inputs"
"""The kind of a layer that holds what was fed into another one."""
STEP = "hiddenscope/step"
"""The metric that says at which step the training's loggers draw an epoch."""


@dataclass(frozen=True)
class LayerDescription:
    """One recorded layer.

    Attributes:
        name: the layer's name in the model, such as ``"encoder.lstm"``.
        kind: the class of the layer, such as ``"LSTM"``.
        units: labels of the units: whole numbers, or strings such as ``"forward 3"``; shape (unit,).
        steps: the time steps that are kept, as whole numbers; shape (step,).
        settings: how the layer was built. Layers of torch's own modules have ``module`` (the module's name),
            ``module_kind``, ``level`` (0 for the first of a stack), ``input_size``, ``hidden_size``, ``num_layers``,
            ``bidirectional``, ``batch_first``, ``proj_size``, ``nonlinearity`` and ``bias``, as far as it has them.
    """

    name: str
    kind: str
    units: npt.NDArray[Any]
    steps: npt.NDArray[Any]
    settings: Mapping[str, JSON] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a layer needs a name, got an empty one")
        object.__setattr__(self, "units", _coordinate(self.units, f"units of layer {self.name!r}", strings=True))
        object.__setattr__(self, "steps", _coordinate(self.steps, f"steps of layer {self.name!r}", strings=False))
        object.__setattr__(self, "settings", plain_json(self.settings, f"settings of layer {self.name!r}"))


@dataclass(frozen=True)
class ModuleDescription:
    """A module whose parameters are recorded with every epoch.

    Attributes:
        name: the module's name in the model, such as ``"encoder.lstm"``.
        kind: its class, such as ``"LSTM"``.
        shapes: the shape of each parameter, by PyTorch's name for it, in the order in which they are stored.
        dtype: ``"float32"`` or ``"float64"``.
    """

    name: str
    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a module needs a name, got an empty one")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"parameters are stored as float32 or float64, got {self.dtype!r}")
        shapes = {str(name): tuple(int(size) for size in shape) for name, shape in self.shapes.items()}
        if not shapes or any(size < 1 for shape in shapes.values() for size in shape):
            raise ValueError(f"module {self.name!r} needs parameters of sizes above 0, got {shapes}")
        object.__setattr__(self, "shapes", shapes)

    @property
    def size(self) -> int:
        """How many numbers its parameters are."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def joined(self, parameters: Mapping[str, npt.ArrayLike]) -> npt.NDArray[Any]:
        """All parameters one after another, shape (size,); ``ValueError`` when one is missing or of another shape."""
        found = {name: np.asarray(values) for name, values in parameters.items()}
        shapes = {name: values.shape for name, values in found.items()}
        if shapes != dict(self.shapes):
            raise ValueError(f"module {self.name!r} has parameters {dict(self.shapes)}, got {shapes}")
        return np.concatenate([found[name].ravel() for name in self.shapes]).astype(self.dtype, copy=False)

    def parted(self, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """The parameters in ``values``, which `joined` gave.

        >>> ModuleDescription("rnn", "RNN", {"weight": (2, 1), "bias": (2,)}).parted(np.arange(4.0))["weight"].tolist()
        [[0.0], [1.0]]
        """
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        parts = np.split(values, ends[:-1])
        return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


@dataclass(frozen=True)
class RunDescription:
    """One run: its layers and its probe, fixed from the first epoch to the last.

    Attributes:
        layers: the recorded layers, in the model's order.
        samples: labels of the probe sequences, as whole numbers; shape (sample,).
        labels: the class of each probe sequence, as whole numbers, when known; shape (sample,).
        label_names: the names of classes 0, 1, …, when known.
        probe_fingerprint: a hash of the probe; a run resumes only with the probe it began with.
        model: the class of the model.
        settings: how the run is recorded, for the reader's eyes.
        probe: the probe's inputs (sample, step, feature), when they are one plain array.
        modules: the modules whose parameters are recorded too.
        token_names: the names of tokens 0, 1, …, when the probe consists of tokens.
    """

    layers: tuple[LayerDescription, ...]
    samples: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None
    label_names: tuple[str, ...] | None
    probe_fingerprint: str
    model: str
    settings: Mapping[str, JSON] = field(default_factory=dict)
    probe: npt.NDArray[Any] | None = None
    modules: tuple[ModuleDescription, ...] = ()
    token_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if not names:
            raise ValueError("a run needs at least one layer, got none")
        if len(set(names)) < len(names):
            raise ValueError(f"layers need different names, got {', '.join(map(repr, names))}")
        modules = [module.name for module in self.modules]
        if len(set(modules)) < len(modules):
            raise ValueError(f"modules need different names, got {', '.join(map(repr, modules))}")
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "modules", tuple(self.modules))
        object.__setattr__(self, "samples", _coordinate(self.samples, "samples", strings=False))
        if self.labels is not None:
            labels = _coordinate(self.labels, "labels", strings=False)
            if labels.shape != self.samples.shape:
                raise ValueError(f"one label per sample: got {labels.size} labels for {self.samples.size} samples")
            object.__setattr__(self, "labels", labels)
        if self.label_names is not None:
            object.__setattr__(self, "label_names", tuple(map(str, self.label_names)))
        if self.token_names is not None:
            object.__setattr__(self, "token_names", tuple(map(str, self.token_names)))
        object.__setattr__(self, "settings", plain_json(self.settings, "settings of the run"))
        if self.probe is not None:
            probe = np.array(self.probe)
            if probe.ndim == 0 or len(probe) != self.samples.size:
                raise ValueError(f"the probe needs {self.samples.size} samples first, got shape {probe.shape}")
            if probe.dtype.kind not in "biuf":
                raise ValueError(f"the probe needs real numbers, got dtype {probe.dtype}")
            object.__setattr__(self, "probe", probe)

    def layer(self, name: str) -> LayerDescription:
        """The layer called ``name``; ``ValueError`` names the layers there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        have = ", ".join(f'"{layer.name}"' for layer in self.layers)
        raise ValueError(f'got layer "{name}"; this run has {"layers" if len(self.layers) > 1 else "layer"} {have}')


@dataclass(frozen=True)
class Snapshot:
    """Everything recorded after one epoch.

    Attributes:
        epoch: the epoch, possibly with a fraction; -1 is the untrained network.
        states: the hidden states of each layer, a float array (step, unit, sample); NaN past a sequence's end.
        metrics: what was logged with that epoch, by name; NaN where it is not known.
        weights: the parameters of each recorded module, by their names in it.
        amended: metrics of epochs before, by epoch, that became known only after these were written.
    """

    epoch: float
    states: Mapping[str, npt.NDArray[np.floating[Any]]]
    metrics: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, npt.NDArray[np.floating[Any]]]] = field(default_factory=dict)
    amended: Amendments = field(default_factory=dict)


def differences(recorded: RunDescription, wanted: RunDescription) -> list[str]:
    """What keeps a run recorded as ``recorded`` from being continued as ``wanted``; empty when nothing does.

    Settings may change from one session of training to the next, and which modules' parameters are asked for; the
    model's layers and the probe may not.
    """
    found = []
    if recorded.model != wanted.model:
        found.append(f"its model is {recorded.model}, not {wanted.model}")
    old, new = ([layer.name for layer in description.layers] for description in (recorded, wanted))
    if old != new:
        found.append(f"its layers are {', '.join(map(repr, old))}, not {', '.join(map(repr, new))}")
    else:
        for before, after in zip(recorded.layers, wanted.layers, strict=True):
            found += [
                f"layer {before.name!r} has {change}"
                for change in (
                    _change("kind", before.kind, after.kind),
                    _change("units", before.units, after.units),
                    _change("steps", before.steps, after.steps),
                )
                if change
            ]
    shapes = {} if found else {module.name: module.shapes for module in recorded.modules}
    found += [
        f"module {module.name!r} has parameters {dict(shapes[module.name])}, not {dict(module.shapes)}"
        for module in wanted.modules
        if shapes.get(module.name, module.shapes) != module.shapes
    ]
    if recorded.probe_fingerprint != wanted.probe_fingerprint:
        found.append("its probe holds other sequences (the fingerprints differ)")
    for what in ("samples", "labels"):
        if change := _change(what, getattr(recorded, what), getattr(wanted, what)):
            found.append(f"it has {change}")
    return found


def plain_json(values: Mapping[str, JSON], what: str) -> dict[str, Any]:
    """``values`` as JSON gives them back (tuples and arrays become lists), or ``ValueError`` naming ``what``."""
    try:
        plain = json.loads(json.dumps(dict(values), default=_of_numpy, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be plain JSON (numbers, strings, lists, dicts): {error}") from None
    assert isinstance(plain, dict)
    return plain


def _coordinate(values: npt.ArrayLike, what: str, *, strings: bool) -> npt.NDArray[Any]:
    array = np.array(values)
    kinds = "whole numbers or strings" if strings else "whole numbers"
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{what} must be a list of {kinds}, got shape {array.shape}")
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and np.array_equal(array, np.trunc(array))):
        return array.astype(np.int64)
    if strings and (array.dtype.kind == "U" or all(isinstance(value, str) for value in array.tolist())):
        return np.array(array.tolist(), dtype=np.str_)
    raise ValueError(f"{what} must be {kinds}, got dtype {array.dtype}")


def _of_numpy(value: object) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got a {type(value).__name__}")


def _change(what: str, before: Any, after: Any) -> str | None:
    """A phrase on how an attribute changed, or None when it did not."""
    if before is None and after is None:
        return None
    if not isinstance(before, np.ndarray) and not isinstance(after, np.ndarray):
        return None if before == after else f"{what} {before}, not {after}"
    if before is None or after is None:
        return f"{'no' if before is None else 'known'} {what}, not {'no' if after is None else 'known'} {what}"
    if before.shape != after.shape:
        return f"{len(before)} {what}, not {len(after)}"
    return None if np.array_equal(before, after) else f"other {what}"
