"""Which modules of a model are recorded: by name, by pattern, by a function, or every recurrent one.

A *source* is a module with a reader. One module can hold several layers: a stacked LSTM has one for each of its levels,
and its cell states and gates are layers of their own.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from hiddenscope.callbacks.readers import Reader, read_cell, read_extracted, read_output, read_recurrent
from hiddenscope.description import JSON
from hiddenscope.errors import RecordingError

Layers = str | Sequence[str] | Callable[[str, nn.Module], bool]
"""What ``layers=`` accepts; see `find_sources`."""

RECORDABLE = ("h", "c", "gates", "inputs")
_TORCH_FORWARDS = (nn.RNN.forward, nn.LSTM.forward, nn.GRU.forward)
_TORCH_CELL_FORWARDS = (nn.RNNCell.forward, nn.LSTMCell.forward, nn.GRUCell.forward)


@dataclass(frozen=True)
class Source:
    """A module to hook.

    ``wanted`` limits it to some of its layers, by full name; None means all. ``required`` tells a module that was asked
    for by its name, which must yield states, from one that merely matched a pattern.
    """

    name: str
    module: nn.Module
    read: Reader
    kind: str
    directions: int = 1
    wanted: frozenset[str] | None = None
    required: bool = True
    settings: Mapping[str, JSON] = field(default_factory=dict)


def is_recurrent(module: nn.Module) -> bool:
    """Whether torch itself defines the recurrence: an RNN, LSTM or GRU, or one of their cells."""
    return isinstance(module, (nn.RNNBase, nn.RNNCellBase))


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every submodule by its name, the model itself by its class; wrappers of ``torch.compile`` are looked through."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule":
            continue
        plain = ".".join(part for part in name.split(".") if part != "_orig_mod")
        found[plain or type(module).__name__.lower()] = module
    return found


def uncompiled(model: nn.Module) -> nn.Module:
    """The model that ``torch.compile`` was given."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def find_sources(model: nn.Module, layers: Layers | None, *, record: Sequence[str]) -> list[Source]:
    """The modules to record.

    Args:
        model: any module.
        layers: names as ``model.named_modules()`` has them; one level of a stacked network (``"lstm.l0"``); patterns,
            where ``*`` stands for any part of one name between dots and ``**`` for anything; or a function of a name
            and its module. None takes every recurrent layer.
        record: any of ``"h"`` (hidden states), ``"c"`` (cell states of LSTMs), ``"gates"``, ``"inputs"`` (of modules).

    Raises:
        RecordingError: nothing matches; the message lists what there is.
    """
    check_record(record)
    modules = named_modules(model)
    if layers is None:
        chosen = {name: module for name, module in modules.items() if is_recurrent(module)}
        if not chosen:
            raise RecordingError(
                f"{type(model).__name__} has no recurrent layer (RNN, LSTM, GRU or their cells); "
                f"name the layers to record with layers=, or give extract=. It has {_listing(modules)}"
            )
        return [_optional(source_of(name, module, record=record)) for name, module in chosen.items()]
    if callable(layers):
        taken = {name: module for name, module in modules.items() if layers(name, module)}
        if not taken:
            raise RecordingError(f"layers= chose none of the {len(modules)} modules of {type(model).__name__}")
        return [_optional(source_of(name, module, record=record)) for name, module in taken.items()]
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise RecordingError("layers= is an empty list; leave it out to record every recurrent layer")
    picked: dict[str, Source] = {}
    for name in names:
        for module_name, level in _matches(name, model, modules):
            source = source_of(
                module_name, modules[module_name], record=record, wanted=None if level is None else frozenset([level])
            )
            picked[module_name] = _both(picked.get(module_name), replace(source, required=not _is_pattern(name)))
    return list(picked.values())


def _optional(source: Source) -> Source:
    return replace(source, required=False)


def _both(earlier: Source | None, source: Source) -> Source:
    """One source for a module that was asked for twice."""
    if earlier is None:
        return source
    both = None if earlier.wanted is None or source.wanted is None else earlier.wanted | source.wanted
    return replace(source, wanted=both, required=earlier.required or source.required)


def _is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


def check_record(record: Sequence[str]) -> None:
    """Raise `ValueError` unless ``record`` holds some of `RECORDABLE` and nothing else."""
    if isinstance(record, str) or not record or not set(record) <= set(RECORDABLE):
        raise ValueError(f"record= takes a list of some of {', '.join(map(repr, RECORDABLE))}, got {record!r}")


def _matches(wanted: str, model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str | None]]:
    """(module name, name of one of its levels or None for all) for a name or pattern."""
    if wanted in modules:
        yield wanted, None
        return
    if _is_pattern(wanted):
        pattern = re.compile(_pattern(wanted))
        whole = uncompiled(model)
        found = [name for name, module in modules.items() if module is not whole and pattern.fullmatch(name)]
        if found:
            yield from ((name, None) for name in found)
            return
        raise RecordingError(f'got layers pattern "{wanted}", which matches nothing; {_what_there_is(modules)}')
    owner, _, _ = wanted.rpartition(".l")
    if isinstance(modules.get(owner), nn.RNNBase) and wanted in _level_names(owner, modules[owner]):
        yield owner, wanted
        return
    near = difflib.get_close_matches(wanted, modules, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    raise RecordingError(f'got layer "{wanted}"; {_what_there_is(modules)}{hint}')


def _pattern(glob: str) -> str:
    parts = re.split(r"(\*\*|\*|\?)", glob)
    regex = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return "".join(regex.get(part, re.escape(part)) for part in parts)


def _level_names(name: str, module: nn.Module) -> list[str]:
    levels = int(getattr(module, "num_layers", 1))
    return [f"{name}.l{level}" for level in range(levels)] if levels > 1 else []


def _what_there_is(modules: Mapping[str, nn.Module]) -> str:
    recurrent = [name for name, module in modules.items() if is_recurrent(module)]
    if recurrent:
        plural = "layers" if len(recurrent) > 1 else "layer"
        quoted = ", ".join(f'"{name}"' for name in recurrent)
        return f"this model has recurrent {plural} {quoted}"
    return f"this model has no recurrent layer, but {_listing(modules)}"


def _listing(modules: Mapping[str, nn.Module], most: int = 12) -> str:
    names = [f'"{name}" ({type(module).__name__})' for name, module in modules.items()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def source_of(name: str, module: nn.Module, *, record: Sequence[str], wanted: frozenset[str] | None = None) -> Source:
    """A module with the reader that suits it."""
    kind = type(module).__name__
    if isinstance(module, nn.RNNBase) and type(module).forward in _TORCH_FORWARDS:
        settings: dict[str, JSON] = {
            key: getattr(module, key)
            for key in ("input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "proj_size", "bias")
        }
        settings["nonlinearity"] = getattr(module, "nonlinearity", None)
        read = functools.partial(read_recurrent, module, tuple(record))
        return Source(name, module, read, kind, 2 if module.bidirectional else 1, wanted, settings=settings)
    if isinstance(module, nn.RNNCellBase) and type(module).forward in _TORCH_CELL_FORWARDS:
        sizes: dict[str, JSON] = {key: getattr(module, key) for key in ("input_size", "hidden_size", "bias")}
        sizes["nonlinearity"] = getattr(module, "nonlinearity", None)
        read = functools.partial(read_cell, module, tuple(record))
        return Source(name, module, read, kind, 1, wanted, settings=sizes)
    return Source(name, module, functools.partial(read_output, name, module), kind, 1, wanted)


def source_with(name: str, module: nn.Module, extract: Callable[[Any], Tensor]) -> Source:
    """A module whose output ``extract`` turns into (sample, step, unit)."""
    return Source(name, module, functools.partial(read_extracted, name, extract), type(module).__name__)
