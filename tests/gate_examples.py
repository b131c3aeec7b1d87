"""Gates and cell states by hand: cells of the same weights, stepped in a loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loop_examples import CellLoop
from recurrent_examples import FEATURES, SAMPLES, STEPS, UNITS, Around, Packed


def stepped_lstm(layer: nn.LSTM, x: Tensor, level: int, direction: int) -> dict[str, Tensor]:
    """One level and direction of an LSTM, batch first, from a cell of the same weights stepped in a loop."""
    suffix = f"_l{level}" + ("_reverse" if direction else "")
    cell = nn.LSTMCell(x.shape[2], layer.hidden_size)
    cell.load_state_dict({n: getattr(layer, n + suffix) for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")})
    h = c = x.new_zeros(len(x), layer.hidden_size)
    seen: dict[str, list[Tensor]] = {name: [] for name in ("", ".c", ".i", ".f", ".g", ".o")}
    for t in range(x.shape[1])[:: -1 if direction else 1]:
        rows = nn.functional.linear(x[:, t], cell.weight_ih, cell.bias_ih)
        rows = rows + nn.functional.linear(h, cell.weight_hh, cell.bias_hh)
        i, f, g, o = rows.chunk(4, dim=1)
        h, c = cell(x[:, t], (h, c))
        for name, value in zip(seen, (h, c, i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()), strict=True):
            seen[name].append(value)
    return {name: torch.stack(values[:: -1 if direction else 1], dim=1) for name, values in seen.items()}


def gates_by_hand(model: Around | Packed, x: Tensor) -> dict[str, Tensor]:
    found, below = {}, x
    for level in range(model.layer.num_layers):
        parts = [stepped_lstm(model.layer, below, level, d) for d in range(2 if model.layer.bidirectional else 1)]
        joined = {name: torch.cat([part[name] for part in parts], dim=2) for name in parts[0]}
        prefix = f"layer.l{level}" if model.layer.num_layers > 1 else "layer"
        found.update({prefix + name: values for name, values in joined.items()})
        below = joined[""]
    return found


def gru_gates_by_hand(model: Around, x: Tensor) -> dict[str, Tensor]:
    w_ih, w_hh, b_ih, b_hh = model.layer.all_weights[0]
    h = x.new_zeros(len(x), UNITS)
    seen: dict[str, list[Tensor]] = {"layer": [], "layer.r": [], "layer.z": [], "layer.n": []}
    for t in range(x.shape[1]):
        for row in ("r", "z", "n"):
            seen[f"layer.{row}"].append(torch.empty(len(x), UNITS))
        new = torch.empty(len(x), UNITS)
        for sample in range(len(x)):  # unit by unit, from the definition
            a, b = w_ih @ x[sample, t] + b_ih, w_hh @ h[sample] + b_hh
            for unit in range(UNITS):
                r = torch.sigmoid(a[unit] + b[unit])
                z = torch.sigmoid(a[UNITS + unit] + b[UNITS + unit])
                n = torch.tanh(a[2 * UNITS + unit] + r * b[2 * UNITS + unit])
                new[sample, unit] = (1 - z) * n + z * h[sample, unit]
                for row, value in zip("rzn", (r, z, n), strict=True):
                    seen[f"layer.{row}"][t][sample, unit] = value
        h = new
        seen["layer"].append(h)
    return {name: torch.stack(values, dim=1) for name, values in seen.items()}


def lstm_cell_gates_by_hand(model: CellLoop, x: Tensor) -> dict[str, Tensor]:
    layer = nn.LSTM(FEATURES, UNITS, batch_first=True)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    layer.load_state_dict({f"{name}_l0": getattr(model.cell, name) for name in names})
    return {f"cell{name}": values for name, values in stepped_lstm(layer, x, 0, 0).items()}


def packed_gates_by_hand(model: Packed, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    """Each sequence alone through a stepped cell."""
    x, lengths, _ = batch
    each = [gates_by_hand(model, x[i : i + 1, : lengths[i]]) for i in range(SAMPLES)]
    found = {name: torch.full((SAMPLES, STEPS, states.shape[2]), float("nan")) for name, states in each[0].items()}
    for row, states in enumerate(each):
        for name, values in states.items():
            found[name][row, : values.shape[1]] = values[0]
    return found


def projected_cells_by_hand(model: Around, x: Tensor) -> dict[str, Tensor]:
    """The whole network called once per step; its returned state has the cells of every level."""
    state, found = None, {name: [] for name in ("layer.l0", "layer.l1", "layer.l0.c", "layer.l1.c")}
    for t in range(x.shape[1]):
        _, state = model.layer(x[:, t : t + 1], state)
        for level in range(2):
            found[f"layer.l{level}"].append(state[0][level])
            found[f"layer.l{level}.c"].append(state[1][level])
    return {name: torch.stack(values, dim=1) for name, values in found.items()}
