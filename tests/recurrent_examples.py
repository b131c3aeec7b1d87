"""Models around torch's own recurrent layers, and their states by hand: networks that are cut off after a level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

SAMPLES, STEPS, FEATURES, UNITS = 6, 9, 4, 5
LENGTHS = (4, 9, 7, 1, 9, 3)


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
