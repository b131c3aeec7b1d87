"""Interventions on a model do what they say and nothing else, and leave the model as it was."""

import random
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenscope.analyses.models import ModelAccess, columns_of, recurrent_module
from hiddenscope.analyses.stepping import Replace, Silence
from hiddenscope.callbacks.monitor import HiddenStateMonitor
from hiddenscope.errors import HiddenscopeError
from hiddenscope.run import open_run

SHAPES = [
    (kind, layers, both, batch_first, bias)
    for kind in ("RNN", "LSTM", "GRU")
    for layers, both, batch_first, bias in (
        (1, False, True, True),
        (2, False, False, False),
        (2, True, True, True),
    )
]


class Reader(nn.Module):
    """A recurrent module with dropout around it, read out from outputs and last state."""

    def __init__(self, kind, layers=1, both=False, batch_first=True, bias=True, units=5, **options):
        super().__init__()
        self.core = getattr(nn, kind)(
            3, units, layers, bidirectional=both, batch_first=batch_first, bias=bias, dropout=0.3 * (layers > 1),
            **options,
        )  # fmt: skip
        self.drop = nn.Dropout(0.5)
        self.calls = 0
        self.register_buffer("seen", torch.zeros(1))
        self.head = nn.Linear((options.get("proj_size") or units) * (2 if both else 1), 4)

    def forward(self, x):
        self.calls += 1
        self.seen = self.seen + 1
        out, last = self.core(x)
        if not torch.is_tensor(out):
            out, _ = pad_packed_sequence(out, batch_first=self.core.batch_first)
        last = last[0] if isinstance(last, tuple) else last
        out = out if self.core.batch_first else out.transpose(0, 1)
        return self.head(self.drop(out)).sum(dim=1) + last.sum(dim=0).sum(dim=-1, keepdim=True)


def inputs(batch_first=True, seed=1, samples=6, steps=7):
    x = torch.randn(samples, steps, 3, generator=torch.Generator().manual_seed(seed))
    return x if batch_first else x.transpose(0, 1)


@pytest.mark.parametrize(("kind", "layers", "both", "batch_first", "bias"), SHAPES)
def test_without_an_intervention_the_answer_is_the_plain_one(kind, layers, both, batch_first, bias):
    torch.manual_seed(0)
    model = Reader(kind, layers, both, batch_first, bias).double().eval()
    x = inputs(batch_first).double()
    with torch.no_grad():
        plain = model(x)
    access = ModelAccess(model)
    assert torch.equal(access.answer(x), plain)
    assert_allclose(access.answer(x, stepwise=True), plain, atol=1e-12)
    assert_allclose(access.answer(x, [Silence(access.layers[0], [])]), plain, atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_single_precision_stepping_agrees_to_a_millionth(kind):
    torch.manual_seed(0)
    module = getattr(nn, kind)(3, 30, 2, bidirectional=True, batch_first=True)
    access = ModelAccess(module, call=lambda model, x: model(x)[0])
    x = inputs(steps=128)
    assert_allclose(access.answer(x, stepwise=True), access.answer(x), atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_packed_sequences_projections_and_given_states_are_stepped_exactly(kind):
    torch.manual_seed(3)
    options = {"proj_size": 2} if kind == "LSTM" else {}
    model = Reader(kind, 2, True, **options).double().eval()
    lengths = torch.tensor([7, 3, 5, 7, 1, 6])
    packed = pack_padded_sequence(inputs().double(), lengths, batch_first=True, enforce_sorted=False)
    assert_allclose(ModelAccess(model).answer(packed, stepwise=True), ModelAccess(model).answer(packed), atol=1e-12)
    width = 2 if kind == "LSTM" else 5
    start = torch.randn(4, 6, width).double()
    hx = (start, torch.randn(4, 6, 5).double()) if kind == "LSTM" else start
    asked = ModelAccess(model, call=lambda net, x: net.core(x, hx)[0])
    assert_allclose(asked.answer(inputs().double(), stepwise=True), asked.answer(inputs().double()), atol=1e-12)
    one = ModelAccess(model, call=lambda net, x: net.core(x)[0])
    assert_allclose(one.answer(inputs()[0].double(), stepwise=True), one.answer(inputs()[0].double()), atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_silence_in_the_recurrence_is_what_removing_the_units_weights_would_be(kind):
    torch.manual_seed(1)
    model = Reader(kind, 2).double().eval()
    silent = [1, 4]
    found = ModelAccess(model).answer(inputs().double(), [Silence("core.l0", silent)])
    cut = Reader(kind, 2).double().eval()
    cut.load_state_dict(model.state_dict())
    with torch.no_grad():
        cut.core.weight_hh_l0[:, silent] = 0
        cut.core.weight_ih_l1[:, silent] = 0
        out, last = cut.core(inputs().double())
        last = (last[0] if isinstance(last, tuple) else last).clone()
        last[0][:, silent] = 0  # the readout of this model adds up the last states of both levels
        expected = cut.head(out).sum(dim=1) + last.sum(dim=0).sum(dim=-1, keepdim=True)
    assert_allclose(found, expected, atol=1e-12)


def test_silence_in_the_readout_leaves_the_recurrence_alone():
    torch.manual_seed(1)
    model = Reader("GRU").double().eval()
    access = ModelAccess(model, call=lambda net, x: net.core(x)[0])
    x = inputs().double()
    plain = access.answer(x)
    found = access.answer(x, [Silence("core", [2], mode="readout")])
    assert torch.equal(found[..., 2], torch.zeros(6, 7).double())
    others = [0, 1, 3, 4]
    assert_allclose(found[..., others], plain[..., others], atol=1e-12)
    inside = access.answer(x, [Silence("core", [2])])
    assert (inside[:, 1:, others] - plain[:, 1:, others]).abs().max() > 1e-3
    assert_allclose(inside[:, 0, others], plain[:, 0, others], atol=1e-12)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_a_replaced_state_is_the_mean_or_anothers_from_that_step_on(kind):
    torch.manual_seed(2)
    core = getattr(nn, kind)(3, 5, batch_first=True).double()
    access = ModelAccess(core, call=lambda net, x: net(x)[0])
    x, order = inputs().double(), [3, 4, 5, 0, 1, 2]
    plain = access.answer(x)
    swapped = access.answer(x, [Replace("lstm" if kind == "LSTM" else kind.lower(), 2, order)])
    assert_allclose(swapped[:, :2], plain[:, :2], atol=1e-12)
    assert_allclose(swapped[:, 2], plain[order, 2], atol=1e-12)
    with torch.no_grad():
        _, state = core(x[:, :3])
        state = tuple(part[:, order] for part in state) if kind == "LSTM" else state[:, order]
        rest, _ = core(x[:, 3:], state)
        assert_allclose(swapped[:, 3:], rest, atol=1e-12)
        _, state = core(x[:, :3])
        mean = [part.mean(dim=1, keepdim=True).expand_as(part).contiguous() for part in
                (state if kind == "LSTM" else (state,))]  # fmt: skip
        rest, _ = core(x[:, 3:], tuple(mean) if kind == "LSTM" else mean[0])
    meant = access.answer(x, [Replace(kind.lower(), 2, "mean")])
    assert_allclose(meant[:, 2], plain[:, 2].mean(dim=0, keepdim=True).expand(6, 5), atol=1e-12)
    assert_allclose(meant[:, 3:], rest, atol=1e-12)


def test_sequences_that_have_ended_take_no_part_in_a_replacement():
    torch.manual_seed(2)
    core = nn.GRU(3, 4, batch_first=True).double()
    lengths = torch.tensor([7, 3, 5, 7, 1, 6])
    packed = pack_padded_sequence(inputs().double(), lengths, batch_first=True, enforce_sorted=False)
    access = ModelAccess(core, call=lambda net, x: pad_packed_sequence(net(x)[0], batch_first=True)[0])
    plain = access.answer(packed)
    found = access.answer(packed, [Replace("gru", 4, "mean")])
    running = lengths > 4
    mean = plain[running, 4].mean(dim=0)
    assert_allclose(found[running, 4], mean.expand(int(running.sum()), 4), atol=1e-12)
    assert_allclose(found[~running], plain[~running], atol=1e-12)


def test_the_model_is_afterwards_what_it_was():
    torch.manual_seed(4)
    model = Reader("LSTM", 2)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.drop.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, python, plain = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    seen, modes = model.seen, [module.training for module in model.modules()]
    ModelAccess(model).answer(inputs(), [Silence("core.l0", [0])])
    with pytest.raises(RuntimeError):
        ModelAccess(model).answer(torch.zeros(2, 2, 9))
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], plain)  # noqa: NPY002
    assert [module.training for module in model.modules()] == modes
    assert model.calls == 0
    assert model.seen is seen
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert model.head.weight.grad.eq(1).all()
    assert model.core.weight_hh_l0.grad is None
    assert not any(module._forward_hooks for module in model.modules())


def test_states_are_those_of_the_forward_with_or_without_a_change():
    torch.manual_seed(5)
    model = Reader("LSTM", 2, True).eval()
    access = ModelAccess(model)
    with torch.no_grad():
        out, _ = model.core(inputs())
    assert_allclose(access.states(inputs(), "core.l1"), out.permute(1, 2, 0), atol=1e-6)
    assert access.states(inputs(), "core.l0", [Silence("core.l0", [7])])[:, 7].abs().max() == 0
    assert access.layers == ("core.l0", "core.l1")
    assert access.width("core.l1") == 10


def test_what_cannot_be_done_is_refused_in_words():
    access = ModelAccess(Reader("GRU", 2))
    with pytest.raises(ValueError, match=r"got layer 'core'; the recurrent layers of Reader are: 'core.l0', 'core.l1'"):
        access.answer(inputs(), [Silence("core", [0])])
    with pytest.raises(ValueError, match=r"lie in 0..4, got \[9\]"):
        access.answer(inputs(), [Silence("core.l0", [9])])
    with pytest.raises(ValueError, match=r"step must lie in 0..6 of layer 'core', got 7"):
        access.answer(inputs(), [Replace("core.l1", 7, "mean")])
    with pytest.raises(ValueError, match="give call="):
        ModelAccess(nn.GRU(3, 2, batch_first=True)).answer(inputs())
    with pytest.raises(ValueError, match="was not called"):
        ModelAccess(Reader("GRU"), call=lambda net, x: net.head(x.new_zeros(1, 5))).answer(
            inputs(), [Silence("core", [0])]
        )
    with pytest.raises(ValueError, match="mode must be one of 'recurrence', 'readout', got 'both'"):
        Silence("core", [0], mode="both")
    twice = ModelAccess(Reader("GRU"), call=lambda net, x: net(x) + net(x))
    with pytest.raises(ValueError, match="more than once"):
        twice.answer(inputs(), [Replace("core", 1, "mean")])


class Lit(pl.LightningModule):
    def __init__(self, units=4, kind="LSTM"):
        super().__init__()
        self.save_hyperparameters()
        self.core = getattr(nn, kind)(3, units, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * units, 2)

    def forward(self, x):
        return self.head(self.core(x)[0].mean(dim=1))

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run, and a checkpoint of the same model after its last epoch."""
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    model, x = Lit(units=6), inputs(samples=12)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.arange(12) % 2), 6)
    monitor = HiddenStateMonitor((x[:5], torch.arange(5) % 2))
    with warnings.catch_warnings(action="ignore"):  # Lightning's advice
        trainer = pl.Trainer(
            max_epochs=2, accelerator="cpu", default_root_dir=folder, logger=pl.loggers.CSVLogger(folder),
            callbacks=[monitor], enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
            log_every_n_steps=1,
        )  # fmt: skip
        trainer.fit(model, data)
        trainer.save_checkpoint(folder / "last.ckpt")
    return folder, model.eval(), x


def test_a_checkpoint_gives_the_model_that_was_trained(trained):
    folder, model, x = trained
    with torch.no_grad():
        expected = model(x)
    assert_allclose(ModelAccess.from_checkpoint(Lit, folder / "last.ckpt").answer(x), expected, atol=1e-6)
    torch.save(model.state_dict(), folder / "weights.pt")
    loaded = ModelAccess.from_checkpoint(Lit, folder / "weights.pt", arguments={"units": 6})
    assert_allclose(loaded.answer(x), expected, atol=1e-6)
    with pytest.raises(HiddenscopeError, match=r"does not fit Lit\(units=5\)"):
        ModelAccess.from_checkpoint(Lit, folder / "last.ckpt", arguments={"units": 5})
    with pytest.raises(FileNotFoundError, match="not a file"):
        ModelAccess.from_checkpoint(Lit, folder / "none.ckpt")


class Trap:
    def __reduce__(self):
        return print, ("a checkpoint ran code",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"state_dict": {}, "more": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(HiddenscopeError, match="weights and plain values alone"):
        ModelAccess.from_checkpoint(Lit, tmp_path / "trap.ckpt")
    assert "ran code" not in capsys.readouterr().out


def test_a_module_rebuilt_from_a_run_gives_the_recorded_states(trained):
    folder, model, x = trained
    run = open_run(folder)
    state = torch.get_rng_state()
    module = recurrent_module(run, "core.l1")
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    access = ModelAccess(module, call=lambda net, batch: net(batch)[0])
    for level in (0, 1):
        recorded = run.trace(f"core.l{level}", epochs=run.epochs[-1]).values[0]
        assert_allclose(access.states(x[:5], f"lstm.l{level}"), recorded, atol=1e-5)
    with torch.no_grad():
        assert_allclose(module(x)[0], model.core(x)[0], atol=1e-6)
    untrained = recurrent_module(run, "core.l0", epoch=-1.0, dtype=torch.float64)
    assert untrained.weight_hh_l0.dtype == torch.float64
    recorded = run.trace("core.l0", epochs=-1.0).values[0]
    old = ModelAccess(untrained, call=lambda net, batch: net(batch)[0])
    assert_allclose(old.states(x[:5].double(), "lstm.l0"), recorded, atol=1e-5)
    assert columns_of(run.description.layer("core.l1").units, 12).tolist() == list(range(12))


def test_unit_labels_become_columns():
    assert columns_of(np.array([2, 5]), 6).tolist() == [2, 5]
    assert columns_of(np.array(["forward 1", "backward 0"]), 6).tolist() == [1, 3]
    with pytest.raises(ValueError, match="unit 'x' has no column"):
        columns_of(np.array(["x"]), 6)
