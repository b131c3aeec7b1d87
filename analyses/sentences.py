"""What a recorded layer does with a sentence that somebody types: rebuilt from the run, the model itself is not needed.

The weights of the layer were recorded, and so was what it is fed with at each token of the probe; as an embedding gives
a token the same vector wherever it stands, that vector is known for each token the probe holds. Ours; RNNVis ran the
model. The state before the first token is 0, as in a model that is not handed one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from hiddenscope.analyses.expected_response import Events, events_of
from hiddenscope.description import INPUTS
from hiddenscope.run import Run

if TYPE_CHECKING:
    from torch import Tensor, nn

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

UNKNOWN_NAMES = ("<unk>", "[UNK]", "<UNK>", "UNK", "unk")
"""Tokens of these names stand for every word that has none of its own."""
_WORDS = re.compile(r"<[\w/]+>|\[[A-Z]+\]|\w+(?:['\u2019]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class TokenInputs:
    """What a layer is fed with at each token.

    Attributes:
        vectors: one for each code, shape (word, feature); NaN for codes that the probe does not hold.
        spread: the largest deviation within a token, over the size of the vectors: 0 where a token always gives the
            same vector, so that sentences come out exactly.
    """

    vectors: Floats
    spread: float


def tokenize(text: str, names: Sequence[str]) -> list[tuple[str, int]]:
    """Cut a sentence into the tokens of a vocabulary: pairs of what is written, and its code or -1.

    Characters where all names are single characters; else words and punctuation marks, as written or in lower case.
    What the vocabulary does not hold gets the code of its token for unknown words, if there is one. Punctuation that
    the vocabulary does not hold is left out, as RNNVis does.

    >>> tokenize("Not bad, Bob", ["bad", "not", "<unk>"])
    [('not', 1), ('bad', 0), ('Bob', 2)]
    >>> tokenize("ab", ["a", "b"])
    [('a', 0), ('b', 1)]
    """
    codes: dict[str, int] = {}
    for code, name in enumerate(names):
        codes.setdefault(name, code)
    if names and all(len(name) == 1 or name.startswith("<") for name in names):
        parts = list(text)
    else:
        parts = _WORDS.findall(text)
    unknown = next((codes[name] for name in UNKNOWN_NAMES if name in codes), -1)
    found = []
    for part in parts:
        written = part if part in codes else part.lower()
        if written in codes:
            found.append((written, codes[written]))
        elif any(letter.isalnum() for letter in part):
            found.append((part, unknown))
    return found


def token_inputs(
    run: Run, layer: str, *, epoch: float | None = None, events: Events | None = None
) -> TokenInputs | None:
    """The vector that enters a layer's module at each token, from the inputs recorded at an epoch.

    Args:
        run: recorded with ``record=("h", "inputs")``, or with inputs that are the probe itself.
        layer: any layer of the module; the inputs are those of the module.
        epoch: a recorded epoch; None for the newest.
        events: of the run; default `events_of`.

    Returns:
        None where the inputs or the tokens are not known.
    """
    found = events_of(run, layer) if events is None else events
    base = _first_level(run, layer)
    if found is None or found.words.shape[2] != 1 or base is None:
        return None
    inputs = run.inputs(base, epoch)
    if inputs is None:
        return None
    own = run.description.layer(layer).steps
    recorded = f"{run.description.layer(base).settings.get('module')}.{INPUTS}"
    known_layers = {each.name: each for each in run.description.layers}
    steps = known_layers[recorded].steps if recorded in known_layers else np.arange(inputs.shape[1])
    shared, at, there = np.intersect1d(steps, own, return_indices=True)
    if not len(shared):
        return None
    words, rows = found.words[:, there, 0], inputs[:, at].astype(np.float64)
    known = (words >= 0) & np.isfinite(rows).all(axis=-1)
    codes, values = words[known], rows[known]
    counts = np.bincount(codes, minlength=len(found.names))
    sums = np.zeros((len(found.names), inputs.shape[2]))
    np.add.at(sums, codes, values)
    vectors = np.where(counts[:, np.newaxis] > 0, sums / np.maximum(counts, 1)[:, np.newaxis], np.nan)
    size = float(np.abs(values).max(initial=0.0))
    spread = float(np.abs(values - vectors[codes]).max(initial=0.0)) / size if size > 0 else 0.0
    return TokenInputs(vectors, spread)


def sentence_states(run: Run, layer: str, vectors: npt.ArrayLike, *, epoch: float | None = None) -> xr.DataArray:
    """The states of a layer while its module reads one sequence of inputs, from the weights recorded at an epoch.

    Args:
        run: with recorded weights.
        layer: a level of the module: its hidden states, or its cell states (``"lstm.c"``).
        vectors: inputs of the module, shape (step, feature).
        epoch: a recorded epoch; None for the newest.

    Returns:
        Dims (step, unit), with the layer's unit labels.

    Raises:
        ValueError: the run has no weights of this layer, inputs of another width, or the layer holds gates.
    """
    import torch

    from hiddenscope.analyses.models import columns_of, recurrent_module
    from hiddenscope.analyses.stepping import run_stepwise

    described = run.description.layer(layer)
    quantity = str(described.settings.get("quantity") or "h")
    if quantity not in ("h", "c"):
        raise ValueError(f"sentences run through hidden and cell states, and {layer!r} holds neither")
    module = recurrent_module(run, layer, epoch=epoch)
    values = np.asarray(vectors, dtype=np.float32)
    if values.ndim != 2 or values.shape[1] != module.input_size:
        raise ValueError(f"{layer!r} reads inputs of shape (step, {module.input_size}), got {values.shape}")
    if not len(values):
        return xr.DataArray(
            np.zeros((0, described.units.size)), dims=("step", "unit"), coords={"unit": described.units}, name=layer
        )
    given = torch.from_numpy(values).to(next(module.parameters()).dtype)
    with torch.no_grad():
        _, levels = run_stepwise(module, given, None, {})
        level = described.settings.get("level")
        level = level if isinstance(level, int) else 0
        states = levels[level][:, 0]
        if quantity == "c":
            states = _cell_states(module, level, levels[level - 1][:, 0] if level else given, states)
    found = states.double().numpy()
    columns = columns_of(described.units, found.shape[1])
    return xr.DataArray(
        found[:, columns],
        dims=("step", "unit"),
        coords={"step": np.arange(len(found)), "unit": described.units},
        name=layer,
    )


def replay_error(
    run: Run, layer: str, *, epoch: float | None = None, events: Events | None = None, sample: int = 0
) -> float | None:
    """How far the rebuilt layer is from the recorded states on one probe sequence, over their size.

    About 1e-6 where sentences can be trusted; more where the model feeds the layer with something else than its token,
    or hands it a first state. None where it cannot be told.
    """
    found = events_of(run, layer) if events is None else events
    inputs = token_inputs(run, layer, epoch=epoch, events=found)
    steps = run.description.layer(layer).steps
    if found is None or inputs is None or not np.array_equal(steps, np.arange(len(steps))):
        return None
    words = found.words[sample, :, 0]
    recorded = run.trace(layer, epochs=float(run.epochs[-1]) if epoch is None else epoch).values[0, :, :, sample]
    usable = (words >= 0) & np.isfinite(recorded).all(axis=1) & np.isfinite(inputs.vectors[words]).all(axis=1)
    length = len(usable) if usable.all() else int(np.argmin(usable))
    if length == 0:
        return None
    again = sentence_states(run, layer, inputs.vectors[words[:length]], epoch=epoch).values
    size = float(np.abs(recorded[:length]).max())
    return float(np.abs(again - recorded[:length]).max()) / size if size > 0 else 0.0


def _cell_states(module: nn.RNNBase, level: int, below: Tensor, states: Tensor) -> Tensor:
    """The cell states of an LSTM from its inputs and hidden states, (step, column): c = f * c + i * g, from 0."""
    import torch

    width = module.proj_size or module.hidden_size
    found = []
    for direction, suffix in enumerate(("", "_reverse") if module.bidirectional else ("",)):
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if module.bias else ()))
        w_ih, w_hh, *biases = (getattr(module, f"{name}_l{level}{suffix}") for name in names)
        inputs, hidden = below, states[:, direction * width : (direction + 1) * width]
        if direction:
            inputs, hidden = inputs.flip(0), hidden.flip(0)
        before = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
        rows = inputs @ w_ih.T + before @ w_hh.T + sum(biases)
        i, f, g, _ = rows.chunk(4, dim=1)
        kept, added = torch.sigmoid(f), torch.sigmoid(i) * torch.tanh(g)
        cell, cells = torch.zeros_like(added[0]), []
        for step in range(len(added)):
            cell = kept[step] * cell + added[step]
            cells.append(cell)
        column = torch.stack(cells)
        found.append(column.flip(0) if direction else column)
    return torch.cat(found, dim=1)


def _first_level(run: Run, layer: str) -> str | None:
    """A layer of the same module whose inputs are those of the module."""
    module = run.description.layer(layer).settings.get("module")
    for described in run.description.layers:
        same = described.name == layer or (module is not None and described.settings.get("module") == module)
        if same and described.settings.get("level") in (None, 0) and described.kind != INPUTS:
            return described.name
    return None
