"""Batches of any shape: moving them between devices, and finding out how a model wants to be called with one."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from hiddenscope.errors import RecordingError

LABEL_NAMES = ("labels", "label", "targets", "target", "y")


def map_tensors(batch: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``batch`` with ``function`` applied to every tensor in it; containers are rebuilt, other values shared."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, PackedSequence):
        return PackedSequence(
            function(batch.data),
            batch.batch_sizes,
            _map_optional(batch.sorted_indices, batch.data, function),
            _map_optional(batch.unsorted_indices, batch.data, function),
        )
    if isinstance(batch, Mapping):
        entries = {key: map_tensors(value, function) for key, value in batch.items()}
        return entries if type(batch) is dict else _rebuilt(batch, entries)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(value, function) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(value, function) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        fields = {field.name: map_tensors(getattr(batch, field.name), function) for field in dataclasses.fields(batch)}
        return dataclasses.replace(batch, **fields)
    return batch


def _map_optional(
    indices: torch.Tensor | None, data: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor | None:
    return None if indices is None else indices.to(function(data[:0]).device)


def _rebuilt(original: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    try:
        return type(original)(entries)  # type: ignore[call-arg]
    except TypeError:
        return entries


def copied(batch: Any, device: torch.device | None = None) -> Any:
    """``batch`` on ``device``, sharing no memory with the original: a model may write into its input."""
    return map_tensors(batch, lambda tensor: tensor.detach().to(device, copy=True))


def tensors_of(batch: Any) -> Iterator[torch.Tensor]:
    """Every tensor in ``batch``, in order."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, PackedSequence):
        yield from (part for part in batch if part is not None)
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from tensors_of(value)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for field in dataclasses.fields(batch):
            yield from tensors_of(getattr(batch, field.name))


def labels_of(batch: Any) -> torch.Tensor | None:
    """One integer per sequence, where ``batch`` has it: an entry named like a label, else the last of several parts."""
    candidate: Any = None
    if isinstance(batch, Mapping):
        candidate = next((batch[name] for name in LABEL_NAMES if name in batch), None)
    elif isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence) and len(batch) > 1:
        candidate = batch[-1]
    if not isinstance(candidate, torch.Tensor):
        return None
    if candidate.ndim == 2 and candidate.shape[1] == 1:
        candidate = candidate[:, 0]
    if candidate.ndim != 1 or candidate.is_floating_point() or candidate.is_complex():
        return None
    labels: torch.Tensor = candidate.to(torch.int64)
    return labels


@dataclasses.dataclass(frozen=True)
class Call:
    """One way to call a model: ``choose`` picks the arguments from a batch; ``text`` says which."""

    text: str
    choose: Callable[[Any], tuple[tuple[Any, ...], dict[str, Any]]]

    def __call__(self, model: nn.Module, batch: Any) -> Any:
        args, kwargs = self.choose(batch)
        return model(*args, **kwargs)


def ways_to_call(model: nn.Module, batch: Any) -> list[Call]:
    """The calls worth trying for ``batch``, the likeliest first.

    A batch of several parts is taken to end in its labels: the parts before them become arguments, as many as
    ``forward`` accepts; then as many as it requires; then the batch as one argument. A mapping gives ``forward`` the
    entries it has parameters for.
    """
    required, accepted, names = _parameters_of(model)
    whole = Call("model(batch)", lambda parts: ((parts,), {}))
    if isinstance(batch, Mapping):
        chosen = [name for name in batch if name in names]
        if not chosen:
            return [whole]
        by_name = Call(
            f"model({', '.join(f'{name}=…' for name in chosen)})",
            lambda parts: ((), {name: parts[name] for name in chosen}),
        )
        return [by_name, whole]
    if isinstance(batch, (list, tuple)) and not isinstance(batch, PackedSequence) and len(batch) > 0:
        before_labels = max(len(batch) - 1, 1)
        counts = [min(max(before_labels, required), accepted), max(required, 1)]
        usable = [count for count in dict.fromkeys(counts) if 1 <= count <= len(batch)]
        return [*map(_first_parts, usable), whole]
    return [whole]


def _first_parts(count: int) -> Call:
    return Call(f"model({', '.join(f'batch[{i}]' for i in range(count))})", lambda parts: (tuple(parts[:count]), {}))


def _parameters_of(model: nn.Module) -> tuple[int, int, set[str]]:
    """How many positional arguments ``forward`` requires, how many it accepts, and the names of all it accepts."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    accepted = sys.maxsize if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(positional)
    return required, accepted, {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def find_call(model: nn.Module, batch: Any, attempt: Callable[[Call], Any]) -> Call:
    """The first of `ways_to_call` with which ``attempt`` succeeds.

    Raises:
        RecordingError: none does; the message has what the model said to the first two.
    """
    complaints = []
    for call in ways_to_call(model, batch):
        try:
            attempt(call)
        except RecordingError:
            raise
        except Exception as error:
            complaints.append(f"{call.text} raised {type(error).__name__}: {_first_line(error)}")
        else:
            return call
    said = "; ".join(complaints[:2])
    raise RecordingError(
        f"the model rejects the probe ({describe(batch)}): {said}. "
        "Give a probe of the shape the model is trained on, or forward= to say how it is called"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:200]


def describe(batch: Any) -> str:
    """What a batch is, in a few words, for messages.

    >>> describe((torch.zeros(4, 7, 2), torch.zeros(4)))
    'tuple of float32 (4, 7, 2), float32 (4,)'
    """
    if isinstance(batch, torch.Tensor):
        return f"{str(batch.dtype).removeprefix('torch.')} {tuple(batch.shape)}"
    if isinstance(batch, PackedSequence):
        return f"PackedSequence of {int(batch.batch_sizes[0])} sequences, {describe(batch.data)}"
    if isinstance(batch, Mapping):
        return "{" + ", ".join(f"{key}: {describe(value)}" for key, value in batch.items()) + "}"
    if isinstance(batch, (list, tuple)):
        return f"{type(batch).__name__} of {', '.join(map(describe, batch))}"
    return type(batch).__name__
