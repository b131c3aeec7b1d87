"""How hidden states are read: hooks on the chosen layers during one forward of the probe. Needs torch, no Trainer."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddenscope.callbacks.batches import Call, copied, find_call
from hiddenscope.callbacks.budget import Budget, IntArray, choose
from hiddenscope.callbacks.cells import GRU_GATES, LSTM_GATES
from hiddenscope.callbacks.joining import Joined, along_samples, along_steps, chosen_steps
from hiddenscope.callbacks.layers import (
    Layers,
    Source,
    check_record,
    find_sources,
    is_recurrent,
    named_modules,
    source_with,
    uncompiled,
)
from hiddenscope.callbacks.probe import Probe
from hiddenscope.callbacks.readers import Reading
from hiddenscope.callbacks.undisturbed import undisturbed
from hiddenscope.callbacks.weights import weight_reader
from hiddenscope.description import INPUTS, JSON, LayerDescription, RunDescription
from hiddenscope.errors import RecordingError

Extract = Callable[[nn.Module, Any], Mapping[str, Tensor]] | Mapping[str, Callable[[Any], Tensor]]
"""A function of model and batch that returns named tensors (sample, step, unit); or, by the name of a module, a
function from that module's output to such a tensor."""

Forward = Callable[[nn.Module, Any], Any]
"""How to call the model with a probe batch; what it returns is ignored."""


_INTERNALS = frozenset(("c", *LSTM_GATES, *GRU_GATES))


@dataclass(frozen=True)
class States:
    """Hidden states of every layer, float32 tensors (step, unit, sample) on the model's device; padding is NaN.

    ``nonfinite`` counts, by layer, the activations that are NaN or infinite without being padding. ``steps_dropped``
    counts the steps beyond those described, when a loop has become longer than it was. ``weights`` has the parameters
    of each module in one line, as `ModuleDescription.joined` has them.
    """

    values: dict[str, Tensor]
    nonfinite: dict[str, Tensor]
    steps_dropped: dict[str, int] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)


class StateRecorder:
    """Reads the hidden states of a model on a probe, again and again, leaving the model as it was.

    Building it runs the probe through the model once, so whatever cannot work fails here.

    Args:
        model: any module.
        probe: what the model is shown.
        layers: which layers, see `find_sources`; None for every recurrent one.
        record: hidden states ``"h"``, cell states ``"c"``, ``"gates"``, ``"inputs"``.
        extract: for layers that hooks cannot read, see `Extract`.
        forward: how the model is called with a batch; None finds out, see `ways_to_call`.
        budget: how much of large layers is kept.
        seed: of the choice of units.
        loop_steps: steps to make room for in cell loops, whose length may grow while the model trains.
        around: context in which the model runs, such as autocast.
        prepare: last change to a batch before the model sees it, such as a cast.

    Attributes:
        layers: what is recorded.
        left_out: recurrent layers that are not, though they were chosen, with the reason.

    Raises:
        RecordingError: there is no such layer, a layer returns nothing that could be recorded, or the model rejects
            the probe.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Probe,
        *,
        layers: Layers | None = None,
        record: Sequence[str] = ("h",),
        extract: Extract | None = None,
        forward: Forward | None = None,
        budget: Budget | None = None,
        seed: int = 0,
        loop_steps: int | None = None,
        around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self.model = model
        self.probe = probe
        self._around = around
        self._prepare = prepare
        self._run: Callable[[Call, Any], Any] = lambda call, batch: call(self.model, batch)
        self._extract = extract if callable(extract) else None
        check_record(record)
        self._sources = _all_sources(model, layers, record, extract)
        self._units: dict[str, Tensor] = {}
        self.left_out: dict[str, str] = {}
        self._call = self._find_call(forward)
        with self._looking():
            first = self._settle(self._raw())
        self._steps_chosen: dict[str, IntArray] = {}
        self._units_chosen: dict[str, IntArray] = {}
        self._sizes = {name: _size(raw, loop_steps) for name, raw in first.items()}
        self.sample_count = next(iter(self._sizes.values()))[2]
        kin = {name: self._kin(name) for name in first}
        for name, (steps, units) in choose(self._sizes, budget or Budget(), seed=seed, kin=kin).items():
            self._steps_chosen[name], self._units_chosen[name] = steps, units
            if len(units) < self._sizes[name][1]:
                self._units[name] = torch.from_numpy(units)
        self.layers = tuple(self._describe(name) for name in first)
        self.weights = weight_reader(self._sources, max_mb=(budget or Budget()).max_weights_mb)

    def bytes_per_epoch(self, dtype: str = "float32") -> int:
        """Size of one record, the states as ``dtype``."""
        states = sum(layer.steps.size * layer.units.size for layer in self.layers) * self.sample_count
        return states * np.dtype(dtype).itemsize + self.weights.bytes_per_epoch

    def description(
        self,
        *,
        model: str | None = None,
        label_names: Sequence[str] | None = None,
        token_names: Sequence[str] | None = None,
        settings: Mapping[str, JSON] | None = None,
    ) -> RunDescription:
        """What a run of this recorder holds."""
        probe = self.probe
        inputs, positions = probe.inputs, self._per_sample(probe.positions)
        return RunDescription(
            layers=self.layers,
            samples=np.arange(self.sample_count) if positions is None else positions,
            labels=self._per_sample(probe.labels),
            label_names=None if label_names is None else tuple(label_names),
            probe_fingerprint=probe.fingerprint,
            model=model or type(self.model).__name__,
            settings={"called_as": self._call.text, **(settings or {})},
            probe=inputs if inputs is not None and len(inputs) == self.sample_count else None,
            modules=self.weights.descriptions,
            token_names=None if token_names is None else tuple(token_names),
        )

    def run_under(
        self, around: Callable[[], contextlib.AbstractContextManager[Any]], prepare: Callable[[Any], Any]
    ) -> None:
        """From now on run the model inside ``around()``, such as autocast, on batches that ``prepare`` has cast."""
        self._around, self._prepare = around, prepare

    def read(self) -> States:
        """The hidden states and weights as they are now."""
        with self._looking():
            raw, weights = self._raw(), self.weights.read()
        values, dropped = {}, {}
        for layer in self.layers:
            if layer.name not in raw:
                raise RecordingError(f'layer "{layer.name}" took no part in the forward of the probe')
            found = raw[layer.name].values
            if found.shape[0] != self.sample_count:
                raise RecordingError(
                    f'layer "{layer.name}" saw {found.shape[0]} sequences, and {self.sample_count} at the beginning'
                )
            values[layer.name] = chosen_steps(found, self._steps_chosen[layer.name])
            if found.shape[1] > self._sizes[layer.name][0]:
                dropped[layer.name] = found.shape[1] - self._sizes[layer.name][0]
        nonfinite = {name: raw[name].nonfinite.to(found.device) for name, found in values.items()}
        return States(values, nonfinite, dropped, weights)

    def _find_call(self, forward: Forward | None) -> Call:
        if forward is not None:
            own = Call("forward=", lambda batch: ((batch,), {}))
            given = forward
            self._run = lambda call, batch: given(self.model, batch)
            try:
                self._attempt(own)
            except RecordingError:
                raise
            except Exception as error:
                raise RecordingError(f"forward= raised {type(error).__name__}: {error}") from error
            return own
        if self._extract is not None and not self._sources:
            return Call("extract=", lambda batch: ((batch,), {}))
        return find_call(uncompiled(self.model), self.probe.batches[0], self._attempt)

    def _attempt(self, call: Call) -> None:
        with self._looking():
            for batch in self.probe.batches[:1]:
                self._run(call, self._ready(batch))

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        with undisturbed(self.model), self._around():
            yield

    def _ready(self, batch: Any) -> Any:
        fresh = copied(batch, _device_of(self.model))
        return fresh if self._prepare is None else self._prepare(fresh)

    def _raw(self) -> dict[str, Joined]:
        """Every layer's states on the whole probe; call it inside `_looking`."""
        parts: dict[str, list[Joined]] = {}
        for batch in self.probe.batches:
            for name, raw in self._one_batch(batch).items():
                parts.setdefault(name, []).append(raw)
        return {name: along_samples(raws) for name, raws in parts.items()}

    def _one_batch(self, batch: Any) -> dict[str, Joined]:
        collected: dict[str, list[Reading]] = {}
        if self._sources:
            with self._hooks(collected):
                self._run(self._call, self._ready(batch))
        if self._extract is not None:
            for name, values in self._extract(self.model, self._ready(batch)).items():
                if not isinstance(values, Tensor) or values.ndim != 3:
                    raise RecordingError(f'extract= must return tensors (sample, step, unit); "{name}" is not one')
                collected.setdefault(name, []).append(self._kept(name, Reading(values)))
        return {name: along_steps(readings) for name, readings in collected.items()}

    @contextlib.contextmanager
    def _hooks(self, collected: dict[str, list[Reading]]) -> Iterator[None]:
        handles = []
        try:
            for source in self._sources:
                hook = self._hook(source, collected)
                handles.append(source.module.register_forward_hook(hook, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, source: Source, collected: dict[str, list[Reading]]) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            try:
                readings = source.read(args, kwargs, output)
            except RecordingError:
                if source.required:
                    raise
                return
            for suffix, reading in readings.items():
                name = source.name + suffix
                if suffix == f".{INPUTS}" or _is_wanted(name, source):
                    collected.setdefault(name, []).append(self._kept(name, reading))

        return hook

    def _kept(self, name: str, reading: Reading) -> Reading:
        """A copy (the model may go on to write into its output) of the units that are kept."""
        values = reading.values.detach()
        units = self._units.get(name)
        if units is None:
            return Reading(values.clone(), reading.lengths)
        if units.device != values.device:
            units = self._units[name] = units.to(values.device)
        return Reading(values.index_select(2, units), reading.lengths)

    def _settle(self, raw: dict[str, Joined]) -> dict[str, Joined]:
        """The layers that will be recorded, of those that the first forward yielded."""
        silent = [s.name for s in self._sources if s.required and not any(_belongs(name, s) for name in raw)]
        if silent or not raw:
            names = ", ".join(f'"{name}"' for name in silent or [source.name for source in self._sources])
            raise RecordingError(
                f"nothing could be recorded from {names}: not called in the forward of the probe, "
                "or without the states that record= asks for"
            )
        counts = Counter(len(entry.values) for entry in raw.values())
        labels = self.probe.labels
        expected = len(labels) if labels is not None and len(labels) in counts else counts.most_common(1)[0][0]
        other = {name: len(entry.values) for name, entry in raw.items() if len(entry.values) != expected}
        required = {name for name in other for s in self._sources if s.required and _belongs(name, s)}
        if required:
            name = min(required)
            raise RecordingError(
                f'layer "{name}" sees {other[name]} sequences where others see {expected}; record it with a '
                "monitor of its own, or give extract= to bring it into the shape (sample, step, unit)"
            )
        empty = [name for name, entry in raw.items() if 0 in entry.values.shape]
        if empty:
            raise RecordingError(f'layer "{empty[0]}" gave no states: shape {tuple(raw[empty[0]].values.shape)}')
        kept = {name: entry for name, entry in raw.items() if name not in other}
        for source in self._sources:
            if is_recurrent(source.module) and not any(_belongs(name, source) for name in kept):
                seen = [count for name, count in other.items() if _belongs(name, source)]
                self.left_out[source.name] = (
                    f"it sees {seen[0]} sequences where others see {expected}"
                    if seen
                    else "it takes no part in the forward of the probe, or has nothing of what record= asks for"
                )
        return kept

    def _source_of(self, name: str) -> Source | None:
        return next((source for source in self._sources if _belongs(name, source)), None)

    def _kin(self, name: str) -> str:
        """The layer of hidden states whose cell states or gates ``name`` is, else itself."""
        source = self._source_of(name)
        owner, _, quantity = name.rpartition(".")
        return owner if source is not None and source.settings and quantity in _INTERNALS else name

    def _describe(self, name: str) -> LayerDescription:
        source = self._source_of(name)
        units, total = self._units_chosen[name], self._sizes[name][1]
        labels: Any = units
        is_input = source is not None and name == f"{source.name}.{INPUTS}"
        if source is not None and source.directions == 2 and not is_input:
            half = total // 2
            labels = np.array([f"forward {unit}" if unit < half else f"backward {unit - half}" for unit in units])
        sizes: dict[str, JSON] = {"all_units": total, "all_steps": self._sizes[name][0]}
        settings = {**(_place_of(name, source) if source else {}), **sizes}
        kind = "extract" if source is None else INPUTS if is_input else source.kind
        return LayerDescription(name, kind, labels, self._steps_chosen[name], settings)

    def _per_sample(self, values: IntArray | None) -> IntArray | None:
        return values if values is not None and len(values) == self.sample_count else None


def _all_sources(
    model: nn.Module, layers: Layers | None, record: Sequence[str], extract: Extract | None
) -> list[Source]:
    sources = find_sources(model, layers, record=record) if layers is not None or extract is None else []
    if isinstance(extract, Mapping):
        modules = named_modules(model)
        for name, function in extract.items():
            if name not in modules:
                find_sources(model, name, record=record)  # raises, saying what there is
            sources = [source for source in sources if source.name != name]
            sources.append(source_with(name, modules[name], function))
    return sources


def _belongs(name: str, source: Source) -> bool:
    return name == source.name or name.startswith(f"{source.name}.")


def _is_wanted(name: str, source: Source) -> bool:
    return source.wanted is None or any(name == one or name.startswith(f"{one}.") for one in source.wanted)


def _place_of(name: str, source: Source) -> dict[str, JSON]:
    """Which module a layer belongs to, and which level and quantity of it the layer is."""
    place: dict[str, JSON] = {"module": source.name, "module_kind": source.kind}
    if source.settings:  # one of torch's own
        parts = name.removeprefix(source.name).strip(".").split(".")
        levels = [int(part[1:]) for part in parts if part[:1] == "l" and part[1:].isdigit()]
        quantities = [part for part in parts if part in (INPUTS, *_INTERNALS)]
        place |= {"level": levels[0] if levels else 0, "quantity": quantities[0] if quantities else "h"}
    return {**place, **source.settings}


def _device_of(model: nn.Module) -> torch.device:
    tensor = next((tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _size(raw: Joined, loop_steps: int | None) -> tuple[int, int, int]:
    samples, steps, units = raw.values.shape
    return (max(steps, loop_steps) if loop_steps and raw.calls > 1 else steps), units, samples
