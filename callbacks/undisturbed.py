"""Looking at a model without touching it: whatever a probe forward changes is put back, even after an error.

Put back are: the training flag of every submodule, attributes set or replaced during the forward (a stateful network
keeps its last hidden state, say), what was put into lists, dicts and sets among them, buffers written in place (batch
normalisation), the random state of torch, numpy and Python, the gradient mode, the autocast cache, and the stance of
``torch.compile``. Weights are not copied: a forward without gradients has no business writing them.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import nn

_REGISTRIES = ("_buffers", "_parameters", "_modules")
_OWN = frozenset(nn.Module().__dict__)
"""What every module has: the registries, and hooks."""


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluate ``model`` inside this block: eval mode, no gradients, eager; everything is restored at its end.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    >>> with undisturbed(network):
    ...     network[2].training
    False
    >>> network[2].training
    True
    """
    modules = list(model.modules())
    restore = [_attributes_of(module) for module in modules]
    with random_state_kept(), torch.inference_mode(False), torch.no_grad(), _autocast_cache_off(), _eager():
        try:
            for module in modules:
                module.training = False
                _mute(module)
            yield
        finally:
            for put_back in restore:
                put_back()


@contextlib.contextmanager
def random_state_kept(seed: int | None = None) -> Iterator[None]:
    """The global random state of torch, CUDA, numpy and Python is the same after this block as before it.

    With ``seed``, the block itself starts from that seed.
    """
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda_states = torch.cuda.get_rng_state_all() if on_cuda else None
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002  the user's data set may draw from the global generator
            torch.manual_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(torch_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


def _attributes_of(module: nn.Module) -> Callable[[], None]:
    """A function that gives ``module`` back the attributes, and the contents of the buffers, it has now."""
    if isinstance(module, torch.jit.ScriptModule):
        was_training = module.training

        def put_back_flag() -> None:
            module.training = was_training

        return put_back_flag
    attributes = dict(module.__dict__)
    registries = {name: dict(attributes[name]) for name in _REGISTRIES}
    candidates = [*registries["_buffers"].values(), *attributes.values()]
    tensors = [tensor for tensor in candidates if isinstance(tensor, torch.Tensor) and _has_version(tensor)]
    containers = [
        (value, copy(value))
        for name, value in attributes.items()
        if name not in _OWN and type(value) in (list, dict, set, deque)
    ]
    contents = [(tensor, tensor._version, tensor.detach().clone()) for tensor in tensors]

    def put_back() -> None:
        for name in module.__dict__.keys() - attributes.keys():
            del module.__dict__[name]
        module.__dict__.update(attributes)
        for name, entries in registries.items():
            registry = module.__dict__[name]
            if registry.keys() != entries.keys() or any(registry[key] is not entries[key] for key in entries):
                registry.clear()
                registry.update(entries)
        for container, held in containers:
            if not _holds_the_same(container, held):
                container.clear()
                (container.update if isinstance(container, (dict, set)) else container.extend)(held)
        for tensor, version, content in contents:
            # Batch normalization writes its statistics without counting the version up. Asking a GPU whether anything
            # has changed would wait for it, so there the content is put back in any case.
            if tensor._version != version or tensor.is_cuda or not torch.equal(tensor, content):
                tensor.copy_(content)

    return put_back


def _holds_the_same(container: Any, held: Any) -> bool:
    """Whether the very objects that were in a container are still there, in their order."""
    now, before = ([*each.items()] if isinstance(each, dict) else [*each] for each in (container, held))
    flat = [[*itertools.chain(*entries)] if isinstance(container, dict) else entries for entries in (now, before)]
    return len(flat[0]) == len(flat[1]) and all(map(operator.is_, *flat))


def _has_version(tensor: torch.Tensor) -> bool:
    return not tensor.is_inference() and not isinstance(tensor, nn.Parameter)


def _mute(module: nn.Module) -> None:
    """Let ``self.log`` inside a forward do nothing: a look at the model must not appear among its metrics."""
    for name in ("log", "log_dict"):
        if callable(getattr(type(module), name, None)) and hasattr(type(module), "training_step"):
            module.__dict__[name] = _say_nothing


def _say_nothing(*args: Any, **kwargs: Any) -> None:
    pass


@contextlib.contextmanager
def _autocast_cache_off() -> Iterator[None]:
    """Weights cast without gradients must not be found in the cache by the training step that follows."""
    was_enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(was_enabled)


def _eager() -> contextlib.AbstractContextManager[Any]:
    """Hooks added after the first compiled call are skipped by compiled code, so run the model uncompiled."""
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        return contextlib.nullcontext()
    stance: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
