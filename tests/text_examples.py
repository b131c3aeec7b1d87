"""Small language networks, recorded for real: what the tests of sentences, pictures and panels look at."""

import numpy as np
import torch

import hiddenscope as hs

NAMES = ("<pad>", "<unk>", "a", "good", "bad", "film", "not", "very", "dull", "fun", "and", ".")


class Reader(torch.nn.Module):
    """An embedding below any recurrent module; ``shift`` adds the position to what the module is fed with."""

    def __init__(self, kind="GRU", units=7, shift=False, **options):
        super().__init__()
        self.embedding = torch.nn.Embedding(len(NAMES), 5)
        self.rnn = getattr(torch.nn, kind)(5, units, batch_first=True, **options)
        self.shift = shift

    def forward(self, tokens):
        inputs = self.embedding(tokens)
        if self.shift:
            inputs = inputs + torch.arange(tokens.shape[1])[:, None]
        return self.rnn(inputs)[0][:, -1]


def tokens(samples=24, steps=9, seed=0):
    """Every token but the padding occurs."""
    rng = np.random.default_rng(seed)
    found = rng.integers(1, len(NAMES), (samples, steps))
    found[0, :steps] = np.arange(1, steps + 1)
    return torch.from_numpy(found)


def record_reader(folder, *, epochs=3, record=("h", "inputs"), seed=0, tokens_=None, **options):
    """A run of so many records, or at such epochs, between which the network moves; the run and the network."""
    torch.manual_seed(seed)
    model = Reader(**options)
    with hs.record(
        model, tokens() if tokens_ is None else tokens_, folder, record=record, token_names=NAMES, strict=True
    ) as recorder:
        for epoch in range(epochs) if isinstance(epochs, int) else epochs:
            recorder.snapshot(epoch, loss=1.0 / (epoch + 1))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.05 * torch.randn_like(parameter)
    return hs.open_run(folder), model
