"""A trained network that answers what-if questions: with some units silent, or with another's state at one step.

`ModelAccess` is all that the analyses know of a network; it comes from a module in memory or from a checkpoint, and
leaves the network as it was. `recurrent_module` needs neither: it rebuilds one recurrent layer from a recorded run.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from hiddenscope.analyses.stepping import Intervention, Replace, Silence, run_stepwise, width_of
from hiddenscope.errors import HiddenscopeError, RunFormatError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hiddenscope.run import Run

Call = Callable[["nn.Module", Any], "Tensor"]


class ModelAccess:
    """One small interface to a model, for analyses that the recorded states alone cannot answer.

    Everything runs in evaluation mode, without gradients. The modes of all modules, their attributes, buffers and
    hooks, and the random state of torch, numpy and Python are afterwards what they were.

    Args:
        model: any module that holds an ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``, or is one.
        call: how the model answers to inputs, when ``model(inputs)`` is not the answer itself: a function of the model
            and the inputs that returns one tensor, such as ``lambda model, batch: model(*batch)[0]``.

    >>> import torch
    >>> access = ModelAccess(torch.nn.LSTM(2, 3, num_layers=2), call=lambda model, x: model(x)[0])
    >>> access.layers
    ('lstm.l0', 'lstm.l1')
    >>> access.answer(torch.zeros(5, 1, 2), [Silence("lstm.l1", [0, 2])])[..., [0, 2]].abs().max().item()
    0.0
    """

    def __init__(self, model: nn.Module, *, call: Call | None = None) -> None:
        self.model: nn.Module = getattr(model, "_orig_mod", model)
        self.call = call

    @classmethod
    def from_checkpoint(
        cls,
        model_class: type[nn.Module],
        path: str | os.PathLike[str],
        *,
        arguments: Mapping[str, Any] | None = None,
        call: Call | None = None,
    ) -> Self:
        """The model of a Lightning checkpoint, or of a saved ``state_dict``, on the CPU.

        Only weights and plain values are loaded (``torch.load(weights_only=True)``), so that a checkpoint from anywhere
        cannot run code.

        Args:
            model_class: the class that was trained.
            path: the checkpoint.
            arguments: of the class; default: what ``save_hyperparameters()`` stored.
            call: see the class.

        Raises:
            FileNotFoundError: there is no such file.
            HiddenscopeError: it holds more than weights and plain values, or does not fit the class.
        """
        import torch

        if not Path(path).is_file():
            raise FileNotFoundError(f"expected a checkpoint, got {path}, which is not a file")
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise HiddenscopeError(
                f"{path} cannot be loaded as weights and plain values alone ({str(error).splitlines()[0]}); load the "
                "model yourself and hand it over: ModelAccess(model)"
            ) from None
        weights = found.get("state_dict", found)
        chosen = dict(found.get("hyper_parameters", {})) if arguments is None else dict(arguments)
        with _random_state_kept():
            try:
                model = model_class(**chosen)
                model.load_state_dict(weights)
            except (TypeError, RuntimeError) as error:
                given = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
                raise HiddenscopeError(
                    f"{path} does not fit {model_class.__name__}({given}): "
                    f"{' '.join(str(error).split())}; give the arguments of the class that was trained"
                ) from None
        return cls(model, call=call)

    @property
    def layers(self) -> tuple[str, ...]:
        """The recurrent layers that can be changed, named as the monitor names them."""
        return tuple(
            name
            for owner, module in self._recurrent().items()
            for name in ([f"{owner}.l{i}" for i in range(module.num_layers)] if module.num_layers > 1 else [owner])
        )

    def width(self, layer: str) -> int:
        """How many units a layer has: columns of its output, both directions together."""
        module, _ = self._find(layer)
        return width_of(module)

    def answer(self, inputs: Any, interventions: Sequence[Intervention] = (), *, stepwise: bool = False) -> Tensor:
        """What the model says to some inputs, on the CPU.

        Args:
            inputs: what the model takes: a tensor or array, or anything that ``call`` understands. Sent to the model's
                device.
            interventions: what to change on the way.
            stepwise: compute the recurrent layers step by step even where nothing is changed. Then a change that has no
                effect makes a difference of exactly 0, not of a rounding error.

        Raises:
            ValueError: an unknown layer, a unit or step that does not exist, an answer that is not one tensor, or a
                layer that was not called.
        """
        return self._run(inputs, interventions, stepwise=stepwise)[0]

    def states(self, inputs: Any, layer: str, interventions: Sequence[Intervention] = ()) -> Tensor:
        """Hidden states of a layer as later layers see them, (step, unit, sample), on the CPU; see `answer`."""
        import torch

        self._find(layer)
        _, states = self._run(inputs, interventions, stepwise=True)
        return torch.cat(states[layer]).permute(0, 2, 1).cpu()

    def _run(
        self, inputs: Any, interventions: Sequence[Intervention], *, stepwise: bool
    ) -> tuple[Tensor, dict[str, list[Tensor]]]:
        import torch

        plans: dict[str, dict[int, list[Intervention]]] = {}
        for one in interventions:
            module, level = self._find(one.layer)
            _check(one, module)
            plans.setdefault(self._owner(one.layer), {}).setdefault(level, []).append(one)
        stepped = self._recurrent() if stepwise else {name: self._recurrent()[name] for name in plans}
        states: dict[str, list[Tensor]] = {}
        with _untouched(self.model), torch.no_grad():
            handles = []
            try:
                for name, module in stepped.items():
                    hook = _hook(name, plans.get(name, {}), states)
                    handles.append(module.register_forward_hook(hook, with_kwargs=True))
                ready = _to_device(inputs, _device_of(self.model))
                answer = self.model(ready) if self.call is None else self.call(self.model, ready)
            finally:
                for handle in handles:
                    handle.remove()
        silent = [name for name in plans if _first_level(name, stepped[name]) not in states]
        if silent:
            raise ValueError(f"layer {silent[0]!r} was not called, so nothing could be changed in it")
        if not isinstance(answer, torch.Tensor):
            raise ValueError(
                f"the model answers with a {type(answer).__name__}; give call=, a function (model, inputs) -> tensor"
            )
        return answer.detach().cpu(), states

    def _recurrent(self) -> dict[str, nn.RNNBase]:
        from torch import nn

        found = {}
        for name, module in self.model.named_modules():
            plain = ".".join(part for part in name.split(".") if part != "_orig_mod")
            if isinstance(module, nn.RNNBase):
                found[plain or type(module).__name__.lower()] = module
        return found

    def _owner(self, layer: str) -> str:
        return layer if layer in self._recurrent() else layer.rpartition(".l")[0]

    def _find(self, layer: str) -> tuple[nn.RNNBase, int]:
        """The module that holds a layer, and its level in it."""
        if layer not in self.layers:
            there = ", ".join(map(repr, self.layers)) or "none"
            raise ValueError(f"got layer {layer!r}; the recurrent layers of {type(self.model).__name__} are: {there}")
        modules = self._recurrent()
        if layer in modules:
            return modules[layer], 0
        owner, _, level = layer.rpartition(".l")
        return modules[owner], int(level)


def recurrent_module(
    run: Run, layer: str, *, epoch: float | None = None, dtype: torch.dtype | None = None
) -> nn.RNNBase:
    """The recurrent module that held a layer, rebuilt from the weights that were recorded with an epoch.

    A ``*Cell`` becomes the module of one level that computes the same.

    Args:
        run: a run with recorded weights.
        layer: one of its layers; of a stacked module all levels are rebuilt.
        epoch: whose weights; default the newest.
        dtype: of the module; default that of the weights.

    Returns:
        An ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU`` in evaluation mode, without gradients, ``batch_first`` as in the model.

    Raises:
        ValueError: an unknown layer or epoch, or no weights were recorded with the run.
        RunFormatError: the weights do not fit the module that is described.
    """
    import torch

    weights = run.weights(layer, epoch)
    settings = run.description.layer(layer).settings
    if not weights:
        raise ValueError(f"the run {run.name!r} holds no weights of layer {layer!r}; only the monitor records them")
    kind = str(settings.get("module_kind", ""))
    name = kind.removesuffix("Cell")
    if name not in ("RNN", "LSTM", "GRU"):
        raise ValueError(f"layer {layer!r} is no RNN, LSTM or GRU, but {kind or 'of unknown kind'}")
    options: dict[str, Any] = {
        "num_layers": settings.get("num_layers", 1),
        "bias": settings.get("bias", True),
        "batch_first": settings.get("batch_first", True),
        "bidirectional": settings.get("bidirectional", False),
    }
    if name == "RNN":
        options["nonlinearity"] = settings.get("nonlinearity") or "tanh"
    if name == "LSTM":
        options["proj_size"] = settings.get("proj_size", 0)
    module: nn.RNNBase = getattr(torch.nn, name)(
        settings["input_size"], settings["hidden_size"], device="meta", **options
    )
    tensors = {
        key + ("_l0" if kind != name else ""): torch.from_numpy(np.array(value)) for key, value in weights.items()
    }
    module = module.to_empty(device="cpu").to(dtype or next(iter(tensors.values())).dtype)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunFormatError(
            f"the weights of {layer!r} do not fit its {kind}: {' '.join(str(error).split())}"
        ) from None
    return module.eval().requires_grad_(False)


def columns_of(units: npt.NDArray[Any], width: int) -> npt.NDArray[np.int64]:
    """Columns of a layer's output for the recorded labels of its units.

    >>> columns_of(np.array(["forward 1", "backward 0"]), 6)
    array([1, 3])
    """
    half = width // 2
    found = []
    for label in np.asarray(units).tolist():
        side, _, number = str(label).rpartition(" ")
        try:
            found.append(int(number) + (half if side == "backward" else 0))
        except ValueError:
            raise ValueError(f"unit {label!r} has no column of its own in the layer's output") from None
    return np.array(found, dtype=np.int64)


def column_of(run: Run, layer: str, module: nn.RNNBase, unit: object) -> int:
    """The column of a module's output that one recorded unit of its layer is.

    Raises:
        ValueError: the layer has no such unit, or one without a column of its own.
    """
    units = run.description.layer(layer).units
    return int(columns_of(units, width_of(module))[list(map(str, units)).index(str(unit))])


def _hook(name: str, plan: dict[int, list[Intervention]], states: dict[str, list[Tensor]]) -> Callable[..., Any]:
    def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        given = args[0] if args else kwargs["input"]
        hx = args[1] if len(args) > 1 else kwargs.get("hx")
        fresh, levels = run_stepwise(module, given, hx, plan)
        for change in (one for changes in plan.values() for one in changes if isinstance(one, Replace)):
            if _first_level(name, module) in states:
                raise ValueError(f"layer {name!r} is called more than once; its step {change.step} is ambiguous")
            if not 0 <= change.step < len(levels[0]):
                raise ValueError(f"step must lie in 0..{len(levels[0]) - 1} of layer {name!r}, got {change.step}")
        for level, found in enumerate(levels):
            states.setdefault(f"{name}.l{level}" if module.num_layers > 1 else name, []).append(found)
        return fresh

    return hook


def _first_level(name: str, module: nn.RNNBase) -> str:
    return f"{name}.l0" if module.num_layers > 1 else name


def _check(one: Intervention, module: nn.RNNBase) -> None:
    width = width_of(module)
    if isinstance(one, Silence) and not all(0 <= unit < width for unit in one.units):
        raise ValueError(f"units of {one.layer!r} lie in 0..{width - 1}, got {list(one.units)}")


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; modes, attributes, buffers and random state are put back at the end."""
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    registries = [dict(module._buffers) for module in modules]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with _random_state_kept():
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, before, registry in zip(modules, attributes, registries, strict=True):
                for name in module.__dict__.keys() - before.keys():
                    del module.__dict__[name]
                module.__dict__.update(before)
                module._buffers.clear()
                module._buffers.update(registry)
            for buffer, content in buffers:
                if not buffer.equal(content):
                    buffer.copy_(content)


@contextlib.contextmanager
def _random_state_kept() -> Iterator[None]:
    import torch

    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002


def _device_of(model: nn.Module) -> torch.device:
    import torch

    tensor = next((tensor for tensors in (model.parameters(), model.buffers()) for tensor in tensors), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _to_device(inputs: Any, device: torch.device) -> Any:
    import torch
    from torch.nn.utils.rnn import PackedSequence

    if isinstance(inputs, np.ndarray):
        return torch.from_numpy(inputs).to(device)
    if isinstance(inputs, torch.Tensor):
        return inputs.to(device)
    if isinstance(inputs, PackedSequence):
        moved: Any = inputs.to(device)  # type: ignore[arg-type]
        return moved
    if isinstance(inputs, tuple | list):
        return type(inputs)(_to_device(part, device) for part in inputs)
    if isinstance(inputs, Mapping):
        return {name: _to_device(part, device) for name, part in inputs.items()}
    return inputs
