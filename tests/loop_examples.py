"""Models that step a cell, or a layer, in a loop of their own, and the states that the loop goes through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recurrent_examples import FEATURES, LENGTHS, SAMPLES, STEPS, UNITS, each_level


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
