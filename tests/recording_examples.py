"""Models of many shapes, each with a probe and the states that its forward computes when it is called by hand.

The expectations share no code with the recorder: stacked networks are cut off after the layer in question, packed ones
are run sequence by sequence, gates come from stepping a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

SAMPLES, STEPS, FEATURES, UNITS = 6, 9, 4, 5
LENGTHS = (4, 9, 7, 1, 9, 3)


@dataclass(frozen=True)
class Example:
    """A model to record. ``by_hand`` gives the expected states by layer, (sample, step, unit), padding NaN."""

    what: str
    build: Callable[[], nn.Module]
    by_hand: Callable[[Any, Any], Mapping[str, Tensor]]
    batch: Callable[[], Any] = lambda: torch.randn(SAMPLES, STEPS, FEATURES)
    options: Mapping[str, Any] = field(default_factory=dict)
    how: str = "found by itself"


class Around(nn.Module):
    """One recurrent layer and a head with dropout, as in many a first model."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.layer = kind(FEATURES, UNITS, **options)
        width = (options.get("proj_size") or UNITS) * (2 if options.get("bidirectional") else 1)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(width, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x)[0])
        return out


def cut_off(layer: nn.RNNBase, levels: int) -> nn.RNNBase:
    """The first ``levels`` levels of a stacked network, as a network of its own with the same weights."""
    options = {"proj_size": layer.proj_size} if layer.proj_size else {}
    if layer.mode.startswith("RNN"):
        options["nonlinearity"] = "relu" if layer.mode == "RNN_RELU" else "tanh"
    lower = type(layer)(
        layer.input_size,
        layer.hidden_size,
        num_layers=levels,
        bias=layer.bias,
        batch_first=layer.batch_first,
        bidirectional=layer.bidirectional,
        **options,
    )
    lower.load_state_dict({name: layer.state_dict()[name] for name in lower.state_dict()})
    return lower.eval()


def each_level(layer: nn.RNNBase, x: Tensor, name: str) -> dict[str, Tensor]:
    """Hidden states of every level, batch first."""
    outs = [cut_off(layer, level + 1)(x)[0] for level in range(layer.num_layers)]
    outs = [out if layer.batch_first else out.transpose(0, 1) for out in outs]
    return {name: outs[0]} if len(outs) == 1 else {f"{name}.l{level}": out for level, out in enumerate(outs)}


def whole(model: Around, x: Tensor) -> dict[str, Tensor]:
    return each_level(model.layer, x, "layer")


class Packed(nn.Module):
    """Sequences of different lengths, packed."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.layer = kind(FEATURES, UNITS, batch_first=True, **options)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(SAMPLES, STEPS, FEATURES), torch.tensor(LENGTHS), torch.arange(SAMPLES) % 2


def one_by_one(layer: nn.RNNBase, sequences: list[Tensor], name: str) -> dict[str, Tensor]:
    """Each sequence alone, without padding; NaN beyond its end."""
    each = [each_level(layer, sequence.unsqueeze(0), name) for sequence in sequences]
    found = {}
    for key in each[0]:
        found[key] = torch.full((len(each), max(map(len, sequences)), each[0][key].shape[2]), float("nan"))
        for row, states in enumerate(each):
            found[key][row, : states[key].shape[1]] = states[key][0]
    return found


def packed_by_hand(model: Packed, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    x, lengths, _ = batch
    return one_by_one(model.layer, [x[i, : lengths[i]] for i in range(SAMPLES)], "layer")


class OwnStart(nn.Module):
    """Starts from learned states."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(FEATURES, UNITS, num_layers=2, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 2, 1, UNITS))

    def forward(self, x: Tensor) -> Tensor:
        h, c = (self.start[i].expand(2, len(x), UNITS).contiguous() for i in range(2))
        out: Tensor = self.layer(x, (h, c))[0]
        return out


def own_start_by_hand(model: OwnStart, x: Tensor) -> dict[str, Tensor]:
    first = cut_off(model.layer, 1)
    h, c = (model.start[i, :1].expand(1, len(x), UNITS).contiguous() for i in range(2))
    return {"layer.l0": first(x, (h, c))[0], "layer.l1": model(x)}


class CellLoop(nn.Module):
    """A cell in a Python loop, or two of them, one above the other."""

    def __init__(self, kind: type[nn.RNNCellBase], *, stacked: bool = False) -> None:
        super().__init__()
        self.cell = kind(FEATURES, UNITS)  # type: ignore[call-arg]
        self.above = kind(UNITS, 3) if stacked else None  # type: ignore[call-arg]
        self.head = nn.Linear(UNITS, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = upper = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            h = state[0] if isinstance(state, tuple) else state
            if self.above is not None:
                upper = self.above(h, upper)
        out: Tensor = self.head(h)
        return out


def loop_by_hand(model: CellLoop, x: Tensor) -> dict[str, Tensor]:
    def run(cell: nn.Module, inputs: Tensor) -> Tensor:
        state, seen = None, []
        for t in range(inputs.shape[1]):
            state = cell(inputs[:, t], state)
            seen.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(seen, dim=1)

    found = {"cell": run(model.cell, x)}
    return found if model.above is None else {**found, "above": run(model.above, found["cell"])}


class StopsEarly(nn.Module):
    """Ends its loop once all sequences say so, and drops those that have ended from the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(FEATURES, UNITS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        order = torch.argsort(lengths, descending=True)
        assert torch.equal(order, torch.arange(len(order)))
        h = x.new_zeros(len(x), UNITS)
        for t in range(int(lengths.max())):
            going = int((lengths > t).sum())
            h = torch.cat([self.cell(x[:going, t], h[:going]), h[going:]])
        return h


def sorted_batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(SAMPLES, STEPS, FEATURES), torch.tensor(sorted(LENGTHS, reverse=True)), torch.arange(SAMPLES)


def stops_early_by_hand(model: StopsEarly, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    x, lengths, _ = batch
    found = torch.full((SAMPLES, int(lengths.max()), UNITS), float("nan"))
    for row in range(SAMPLES):
        h = torch.zeros(1, UNITS)
        for t in range(int(lengths[row])):
            h = model.cell(x[row : row + 1, t], h)
            found[row, t] = h[0]
    return {"cell": found}


class Translator(nn.Module):
    """An encoder and a decoder with steps of its own, fed the right answer or its own."""

    def __init__(self, *, teacher: bool) -> None:
        super().__init__()
        self.teacher = teacher
        self.encoder = nn.LSTM(FEATURES, UNITS, batch_first=True)
        self.decoder = nn.GRUCell(2, UNITS)
        self.readout = nn.Linear(UNITS, 2)

    def forward(self, x: Tensor, answers: Tensor) -> Tensor:
        return self.decode(x, answers)[1]

    def decode(self, x: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        h, token, seen = self.encoder(x)[1][0][0], answers.new_zeros(len(x), 2), []
        for t in range(answers.shape[1]):
            h = self.decoder(token, h)
            seen.append(h)
            token = answers[:, t] if self.teacher else self.readout(h)
        return torch.stack(seen, dim=1), self.readout(h)


def translator_batch() -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(SAMPLES, STEPS, FEATURES), torch.randn(SAMPLES, 4, 2), torch.arange(SAMPLES)


def translator_by_hand(model: Translator, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Tensor]:
    return {"encoder": model.encoder(batch[0])[0], "decoder": model.decode(*batch[:2])[0]}


class StepwiseDecoder(nn.Module):
    """Calls an ``nn.GRU`` once per step, as decoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, UNITS, num_layers=2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            out, state = self.gru(x[:, t].unsqueeze(0), state)
        return out


def stepwise_by_hand(model: StepwiseDecoder, x: Tensor) -> dict[str, Tensor]:
    return each_level(model.gru, x.transpose(0, 1), "gru")


class OwnCell(nn.Module):
    """A recurrence that torch does not know: a minimal gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(FEATURES + UNITS, UNITS)
        self.update = nn.Linear(FEATURES + UNITS, UNITS)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        f = torch.sigmoid(self.gate(torch.cat([x, h], dim=1)))
        return (1 - f) * h + f * torch.tanh(self.update(torch.cat([x, f * h], dim=1)))


class OwnCellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unit = OwnCell()

    def forward(self, x: Tensor) -> Tensor:
        return self.all_steps(x)[:, -1]

    def all_steps(self, x: Tensor) -> Tensor:
        h, seen = x.new_zeros(len(x), UNITS), []
        for t in range(x.shape[1]):
            h = self.unit(x[:, t], h)
            seen.append(h)
        return torch.stack(seen, dim=1)


class StateSpace(nn.Module):
    """A diagonal linear recurrence with a gate: h = a * h + B x, y = C h * silu(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(UNITS))
        self.into, self.out, self.skip = (
            nn.Linear(FEATURES, UNITS),
            nn.Linear(UNITS, FEATURES),
            nn.Linear(FEATURES, FEATURES),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        a, u = torch.sigmoid(self.decay), self.into(x)
        h, seen = torch.zeros_like(u[:, 0]), []
        for t in range(x.shape[1]):
            h = a * h + u[:, t]
            seen.append(h)
        states = torch.stack(seen, dim=1)
        return x + self.out(states) * nn.functional.silu(self.skip(x)), {"states": states}


class StateSpaceStack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([StateSpace(), StateSpace()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x, _ = block(x)
        return x


def blocks_by_hand(model: StateSpaceStack, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for number, block in enumerate(model.blocks):
        x, _ = block(x)
        found[f"blocks.{number}"] = x
    return found


def inner_states_by_hand(model: StateSpaceStack, x: Tensor) -> dict[str, Tensor]:
    first = model.blocks[0](x)
    return {"blocks.0": first[1]["states"], "blocks.1": model.blocks[1](first[0])[1]["states"]}


@dataclass
class ModelOutput:
    """What libraries of language models return."""

    logits: Tensor
    last_hidden_state: Tensor


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 3)

    def forward(self, x: Tensor) -> ModelOutput:
        states = self.gru(x)[0]
        return ModelOutput(logits=self.head(states), last_hidden_state=torch.relu(states))


class Named(nn.Module):
    """Takes its input by name and gives a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()

    def forward(self, inputs: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": inputs.sum(), "logits": self.backbone(inputs).logits}


class Transformer(nn.Module):
    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(FEATURES, 2, dim_feedforward=8, batch_first=batch_first)
        self.batch_first = batch_first
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return out


def transformer_by_hand(model: Transformer, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for number, layer in enumerate(model.encoder.layers):
        x = layer(x if model.batch_first else x.transpose(0, 1))
        x = x if model.batch_first else x.transpose(0, 1)
        found[f"encoder.layers.{number}"] = x
    return found


class Convolution(nn.Module):
    """Channels before steps, as convolutions have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv1d(FEATURES, UNITS, 3), nn.BatchNorm1d(UNITS), nn.ReLU())
        self.lstm = nn.LSTM(UNITS, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]
        return out


class SeveralLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack = nn.ModuleList([nn.LSTM(FEATURES, UNITS, batch_first=True), nn.RNN(UNITS, 3, batch_first=True)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.stack:
            x = layer(x)[0]
        return x


def several_by_hand(model: SeveralLayers, x: Tensor) -> dict[str, Tensor]:
    first = model.stack[0](x)[0]
    return {"stack.0": first, "stack.1": model.stack[1](first)[0]}


class Overwriting(nn.Module):
    """Writes into what its layer returned, and into its own input."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(FEATURES, UNITS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)[0]
        if not torch.is_grad_enabled():
            x.zero_()
            out.zero_()
        return out * 1.0


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


def packed_sequence_batch() -> Any:
    return pack_sequence([torch.randn(n, FEATURES) for n in sorted(LENGTHS, reverse=True)])


class TakesPacked(nn.Module):
    """Is given packed sequences by the dataloader."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(FEATURES, UNITS, num_layers=2)

    def forward(self, sequences: Any) -> Any:
        return self.layer(sequences)[0]


def takes_packed_by_hand(model: TakesPacked, batch: Any) -> dict[str, Tensor]:
    padded, lengths = pad_packed_sequence(batch)
    batch_first = nn.LSTM(FEATURES, UNITS, num_layers=2, batch_first=True)
    batch_first.load_state_dict(model.layer.state_dict())
    return one_by_one(batch_first, [padded[: lengths[i], i] for i in range(SAMPLES)], "layer")


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


EVERYTHING = {"record": ("h", "c", "gates")}
FIRST = {"batch_first": True}

EXAMPLES: dict[str, Example] = {
    "rnn": Example("`nn.RNN`, tanh", lambda: Around(nn.RNN, **FIRST), whole),
    "rnn_relu": Example(
        "`nn.RNN`, relu, without biases", lambda: Around(nn.RNN, nonlinearity="relu", bias=False, **FIRST), whole
    ),
    "lstm": Example("`nn.LSTM`", lambda: Around(nn.LSTM, **FIRST), whole),
    "gru": Example("`nn.GRU`", lambda: Around(nn.GRU, **FIRST), whole),
    "step_first": Example(
        "`nn.LSTM`, steps first", lambda: Around(nn.LSTM), whole, lambda: torch.randn(STEPS, SAMPLES, FEATURES)
    ),
    "stacked": Example(
        "`nn.LSTM`, three levels with dropout", lambda: Around(nn.LSTM, num_layers=3, dropout=0.5, **FIRST), whole
    ),
    "bidirectional": Example("`nn.LSTM`, bidirectional", lambda: Around(nn.LSTM, bidirectional=True, **FIRST), whole),
    "stacked_bidirectional": Example(
        "`nn.GRU`, two levels, bidirectional", lambda: Around(nn.GRU, num_layers=2, bidirectional=True, **FIRST), whole
    ),
    "projection": Example(
        "`nn.LSTM`, `proj_size`, two levels, bidirectional",
        lambda: Around(nn.LSTM, num_layers=2, bidirectional=True, proj_size=3, **FIRST),
        whole,
    ),
    "unbatched": Example(
        "`nn.GRU`, two levels, one sequence without a batch axis",
        lambda: Around(nn.GRU, num_layers=2, **FIRST),
        lambda model, x: whole(model, x.unsqueeze(0)),
        lambda: torch.randn(STEPS, FEATURES),
    ),
    "packed": Example("`nn.LSTM`, packed inside", lambda: Packed(nn.LSTM), packed_by_hand, padded_batch),
    "packed_stacked": Example(
        "`nn.GRU`, packed, two levels, bidirectional",
        lambda: Packed(nn.GRU, num_layers=2, bidirectional=True),
        packed_by_hand,
        padded_batch,
    ),
    "packed_batch": Example(
        "`nn.LSTM`, two levels, given a `PackedSequence`", TakesPacked, takes_packed_by_hand, packed_sequence_batch
    ),
    "own_start": Example("`nn.LSTM`, two levels, learned initial states", OwnStart, own_start_by_hand),
    "several": Example("several layers of different kinds", SeveralLayers, several_by_hand),
    "rnn_cell": Example("`nn.RNNCell` in a loop", lambda: CellLoop(nn.RNNCell), loop_by_hand),
    "lstm_cell": Example("`nn.LSTMCell` in a loop", lambda: CellLoop(nn.LSTMCell), loop_by_hand),
    "gru_cells": Example("two `nn.GRUCell`s in one loop", lambda: CellLoop(nn.GRUCell, stacked=True), loop_by_hand),
    "stops_early": Example(
        "`nn.GRUCell`, loop that drops ended sequences", StopsEarly, stops_early_by_hand, sorted_batch
    ),
    "teacher": Example(
        "encoder and decoder, teacher forcing", lambda: Translator(teacher=True), translator_by_hand, translator_batch
    ),
    "free_running": Example(
        "encoder and decoder, fed its own answers",
        lambda: Translator(teacher=False),
        translator_by_hand,
        translator_batch,
    ),
    "stepwise": Example("`nn.GRU` called once per step", StepwiseDecoder, stepwise_by_hand),
    "overwriting": Example(
        "model that writes into its input and its layer's output",
        Overwriting,
        lambda model, x: {"layer": model.layer(x)[0]},
    ),
    "own_cell": Example(
        "a cell of one's own in a loop",
        OwnCellLoop,
        lambda model, x: {"unit": model.all_steps(x)},
        options={"layers": "unit"},
        how='`layers="unit"`',
    ),
    "model_output": Example(
        "a module that returns a `ModelOutput`, called by name",
        Named,
        lambda model, batch: {"backbone": model.backbone(batch["inputs"]).last_hidden_state},
        lambda: {"inputs": torch.randn(SAMPLES, STEPS, FEATURES), "labels": torch.arange(SAMPLES)},
        options={"layers": "backbone"},
        how='`layers="backbone"`',
    ),
    "state_space": Example(
        "state-space blocks that return tuples",
        StateSpaceStack,
        blocks_by_hand,
        options={"layers": "blocks.*"},
        how='`layers="blocks.*"`',
    ),
    "inner_states": Example(
        "the inner states of state-space blocks",
        StateSpaceStack,
        inner_states_by_hand,
        options={"extract": {f"blocks.{i}": lambda output: output[1]["states"] for i in range(2)}},
        how="`extract={name: function of the output}`",
    ),
    "transformer": Example(
        "transformer encoder, batch first",
        lambda: Transformer(batch_first=True),
        transformer_by_hand,
        options={"layers": "encoder.layers.*"},
        how='`layers="encoder.layers.*"`',
    ),
    "transformer_step_first": Example(
        "transformer encoder, steps first",
        lambda: Transformer(batch_first=False),
        transformer_by_hand,
        options={"layers": "encoder.layers.*"},
        how='`layers="encoder.layers.*"`',
    ),
    "convolution": Example(
        "anything else: features of a convolution",
        Convolution,
        lambda model, x: {"features": model.conv(x.transpose(1, 2)).transpose(1, 2)},
        options={"extract": lambda model, x: {"features": model.conv(x.transpose(1, 2)).transpose(1, 2)}},
        how="`extract=` a function of model and batch",
    ),
    "lstm_gates": Example(
        "cell states and gates of `nn.LSTM`, two levels, bidirectional",
        lambda: Around(nn.LSTM, num_layers=2, bidirectional=True, **FIRST),
        gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "packed_gates": Example(
        "cell states and gates of `nn.LSTM`, packed, bidirectional",
        lambda: Packed(nn.LSTM, num_layers=2, bidirectional=True),
        packed_gates_by_hand,
        padded_batch,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "projected_cells": Example(
        "cell states of `nn.LSTM` with `proj_size`, two levels",
        lambda: Around(nn.LSTM, num_layers=2, proj_size=3, **FIRST),
        projected_cells_by_hand,
        options={"record": ("h", "c")},
        how='`record=("h", "c")`',
    ),
    "gru_gates": Example(
        "gates of `nn.GRU`",
        lambda: Around(nn.GRU, **FIRST),
        gru_gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
    "cell_gates": Example(
        "cell states and gates of `nn.LSTMCell` in a loop",
        lambda: CellLoop(nn.LSTMCell),
        lstm_cell_gates_by_hand,
        options=EVERYTHING,
        how='`record=("h", "c", "gates")`',
    ),
}
"""One row of the table in docs/recording.md each."""
