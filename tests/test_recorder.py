"""The recorder itself: the model is left alone, batches reach it as they should, and loops may change their length."""

from __future__ import annotations

import math
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from hiddenscope import RecordingWarning, open_run, record
from hiddenscope.callbacks.batches import copied, find_call, labels_of, map_tensors, tensors_of
from hiddenscope.callbacks.host import to_host
from hiddenscope.callbacks.probe import as_probe
from hiddenscope.callbacks.recorder import StateRecorder
from hiddenscope.callbacks.scalars import change, dispersion, entropy, summarize
from hiddenscope.callbacks.undisturbed import random_state_kept, undisturbed
from hiddenscope.errors import RecordingError
from loop_examples import CellLoop, StopsEarly

x0 = torch.zeros(1)


def everything_random() -> list[Any]:
    return [torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()]  # noqa: NPY002


class Restless(nn.Module):
    """Changes everything it can in its forward, and can be told to fail at the end of it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3), nn.Dropout()
        self.register_buffer("counter", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.plain, self.history, self.fails = torch.zeros(2), 0, False
        self.seen, self.last, self.kinds, self.recent = [x0], {"x": x0}, {1}, deque([x0], maxlen=1)
        self.drop.eval()

    def forward(self, x: Tensor) -> Tensor:
        everything_random()
        self.counter += 1
        self.replaced = torch.ones(2)
        self.plain += 1
        self.history += 1
        self.seen.append(x)
        self.last["x"] = self.last["y"] = x
        self.kinds.add(2)
        self.recent.append(x)
        self.novelty = "new"
        self.register_buffer("late", torch.ones(1))
        self.norm.train()
        out: Tensor = self.norm(x)
        if self.fails:
            raise ArithmeticError
        return out


@pytest.mark.parametrize("fails", [False, True])
def test_whatever_a_forward_changes_is_put_back_even_after_an_error(fails: bool) -> None:
    model = Restless()
    model.fails = fails
    state = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    expected = everything_random()
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    try:
        with undisturbed(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            assert not torch.is_autocast_cache_enabled()
            model(torch.randn(5, 3))
    except ArithmeticError:
        assert fails
    assert everything_random() == expected
    assert [module.training for module in model.modules()] == flags
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert (model.plain.tolist(), model.history, hasattr(model, "novelty")) == ([0, 0], 0, False)
    assert [len(model.seen), list(model.last), model.kinds, len(model.recent)] == [1, ["x"], {1}, 1]
    assert all(held is x0 for held in (model.seen[0], model.last["x"], model.recent[0]))
    assert torch.is_grad_enabled()
    assert torch.is_autocast_cache_enabled()


def test_autocast_does_not_hand_the_training_a_weight_without_gradient() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with undisturbed(model):
            model(x)
        model(x).sum().backward()
    assert model.weight.grad is not None


def test_a_seeded_block_is_reproducible_and_invisible() -> None:
    torch.manual_seed(1)
    with random_state_kept(5):
        first = everything_random()
    between = torch.rand(1)
    with random_state_kept(5):
        assert everything_random() == first
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), between)


class Asks(nn.Module):
    """Says which arguments it was called with."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.forward = forward  # type: ignore[method-assign]


X, LENGTHS, Y = torch.zeros(4, 5, 2), torch.full((4,), 5), torch.arange(4)


@pytest.mark.parametrize(
    ("forward", "batch", "text"),
    [
        (lambda x: x, X, "model(batch)"),
        (lambda x: x, (X, Y), "model(batch[0])"),
        (lambda x, start=None: x, (X, Y), "model(batch[0])"),
        (lambda x, lengths: x, (X, LENGTHS, Y), "model(batch[0], batch[1])"),
        (lambda x, lengths=None: x, [X, LENGTHS, Y], "model(batch[0], batch[1])"),
        (lambda x, y: x, (X, Y), "model(batch[0], batch[1])"),
        (lambda *parts: parts, (X, LENGTHS, Y), "model(batch[0], batch[1])"),
        (lambda batch: batch["x"], {"x": X, "y": Y}, "model(batch)"),
        (lambda x, mask=None: x, {"x": X, "y": Y}, "model(x=…)"),
    ],
)
def test_the_call_is_found_from_the_signature(forward: Any, batch: Any, text: str) -> None:
    model = Asks(forward)
    call = find_call(model, batch, lambda call: call(model, batch))
    assert call.text == text


def test_the_call_that_fails_is_followed_by_the_next() -> None:
    def whole_batch(batch: Any) -> Tensor:
        x, _ = batch
        assert x.ndim == 3
        return x

    model = Asks(whole_batch)
    assert find_call(model, (X, Y), lambda call: call(model, (X, Y))).text == "model(batch)"


def test_forward_can_be_said_and_its_failure_is_reported() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(2, 3, batch_first=True)

        def forward(self, *, sequences: Tensor, twice: bool) -> Any:
            return self.gru(sequences * (2 if twice else 1))

    probe = as_probe((X + 1, Y), max_samples=9, seed=0)
    model = Odd()
    recorder = StateRecorder(model, probe, forward=lambda net, batch: net(sequences=batch[0], twice=True))
    expected = model.gru((X + 1) * 2)[0].permute(1, 2, 0)
    torch.testing.assert_close(recorder.read().values["gru"], expected.detach())
    with pytest.raises(RecordingError, match="forward= raised TypeError"):
        StateRecorder(model, probe, forward=lambda net, batch: net(batch))
    with pytest.raises(RecordingError, match=r"rejects the probe .*forward= to say how"):
        StateRecorder(model, probe)


def test_labels_are_found_where_batches_have_them() -> None:
    def found(batch: Any) -> list[int] | None:
        labels = labels_of(batch)
        return None if labels is None else labels.tolist()

    assert found((X, Y)) == found([X, LENGTHS, Y]) == found({"x": X, "labels": Y}) == [0, 1, 2, 3]
    assert found((X, Y.unsqueeze(1))) == found((X, Y.to(torch.int8))) == [0, 1, 2, 3]
    assert found(X) is found((X, X)) is found((X, Y.float())) is found({"x": X}) is None


def test_batches_are_copied_whatever_they_are_made_of() -> None:
    batch = {"a": [X, (Y, "text")], "packed": pack_sequence([X[0], X[1, :3]])}
    copy = copied(batch)
    for original, other in zip(tensors_of(batch), tensors_of(copy), strict=True):
        assert torch.equal(original, other)
    copy["a"][0] += 1
    copy["packed"].data.add_(1)
    assert not X.any()
    assert copy["a"][1][1] == "text"
    doubled = map_tensors(batch, lambda tensor: tensor * 2)
    assert torch.equal(doubled["a"][1][0], Y * 2)


class Grows(nn.Module):
    """A loop that runs as long as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.steps = nn.RNNCell(2, 3), 4

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(len(x), 3)
        for t in range(self.steps):
            h = self.cell(x[:, t % x.shape[1]], h)
        return h


def test_a_loop_may_become_shorter_and_longer_as_far_as_room_was_made(tmp_path: Path) -> None:
    model = Grows()
    with record(model, X, tmp_path, loop_steps=6, strict=True) as recorder:
        for epoch, steps in enumerate((4, 2, 6)):
            model.steps = steps
            recorder.snapshot(epoch)
        model.steps = 8
        with pytest.warns(RecordingWarning, match="now runs 2 steps longer.*loop_steps="):
            recorder.snapshot(3)
    states = open_run(tmp_path).trace("cell").values
    assert (~np.isnan(states[:, :, 0, 0])).sum(axis=1).tolist() == [4, 2, 6, 6]
    np.testing.assert_array_equal(states[3], states[2])


def test_a_probe_of_several_batches_is_one_record_with_shorter_ones_ending_early() -> None:
    model = StopsEarly()
    torch.manual_seed(0)
    batches = [(torch.randn(n, 9, 4), torch.tensor(lengths)) for n, lengths in ((2, [5, 3]), (3, [9, 2, 2]))]
    loader: Any = type("Loader", (), {"__iter__": lambda self: iter(batches)})()
    recorder = StateRecorder(model, as_probe(loader, max_samples=50, seed=0), forward=lambda net, batch: net(*batch))
    states = recorder.read()
    assert states.values["cell"].shape == (9, 5, 5)
    assert (~torch.isnan(states.values["cell"][:, 0])).sum(dim=0).tolist() == [5, 3, 9, 2, 2]
    assert states.nonfinite["cell"] == 0


def test_the_recorder_keeps_nothing_of_the_model_and_leaves_no_hooks(tmp_path: Path) -> None:
    model = CellLoop(nn.LSTMCell)
    batch = torch.randn(3, 5, 4)
    with record(model, batch, tmp_path, strict=True) as recorder:
        recorder.snapshot(-1)
        recorder.snapshot(0.5, loss=torch.tensor(2.0))
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(parameter.grad is not None for parameter in model.parameters())
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0.5]
    assert run.metrics()["loss"].tolist()[1] == 2.0
    assert run.status == "finished"


def test_a_run_is_resumed_without_lightning_too(tmp_path: Path) -> None:
    model, batch = nn.GRU(4, 3, batch_first=True), torch.randn(3, 5, 4)
    with record(model, batch, tmp_path) as recorder:
        for epoch in (-1, 0, 1, 2):
            recorder.snapshot(epoch)
    with record(model, batch, tmp_path, resume_after=0) as recorder:
        recorder.snapshot(1)
    assert open_run(tmp_path).epochs.tolist() == [-1, 0, 1]
    with pytest.raises(RecordingError, match="already holds a run"), record(model, batch, tmp_path):
        pass


def test_an_exception_in_the_block_ends_the_run_as_interrupted(tmp_path: Path) -> None:
    model, batch = nn.GRU(4, 3, batch_first=True), torch.randn(3, 5, 4)

    def train() -> None:
        with record(model, batch, tmp_path) as recorder:
            recorder.snapshot(-1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    run = open_run(tmp_path)
    assert (run.status, run.epochs.tolist()) == ("interrupted", [-1])


def test_states_reach_the_host_as_they_were() -> None:
    values = {"a": torch.randn(2, 3, 4), "b": torch.randn(1, 1, 1)}
    arrays_ = to_host(values)()
    for name, tensor in values.items():
        np.testing.assert_array_equal(arrays_[name], tensor.numpy())


def test_copies_from_a_gpu_go_to_pinned_memory_and_are_waited_for_when_they_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The calls that a GPU would see, in their order; what a GPU makes of them is the business of the next test."""
    calls: list[str] = []
    real_empty = torch.empty

    class OnDevice(torch.Tensor):
        is_cuda = True  # type: ignore[assignment]

    class Pinned(torch.Tensor):
        def copy_(self, source: Any, non_blocking: bool = False) -> Any:  # type: ignore[override]
            calls.append(f"copy, non_blocking={non_blocking}")
            return self.as_subclass(torch.Tensor).copy_(source.as_subclass(torch.Tensor))

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking, "the writer thread sleeps until the copies are made"

        def record(self, stream: Any) -> None:
            calls.append(f"record on {stream}")

        def synchronize(self) -> None:
            calls.append("synchronize")

    def empty(*shape: Any, pin_memory: bool = False, **options: Any) -> Any:
        assert pin_memory
        return real_empty(*shape, **options).as_subclass(Pinned)

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    values = {name: torch.randn(2, 3, 4).as_subclass(OnDevice) for name in ("a", "b")}
    wait = to_host(values)
    assert calls == ["copy, non_blocking=True"] * 2 + ["record on the stream of cpu"]
    arrays_ = wait()
    assert calls[3:] == ["synchronize"]
    for name, tensor in values.items():
        np.testing.assert_array_equal(arrays_[name], tensor.as_subclass(torch.Tensor).numpy())


@pytest.mark.gpu
def test_states_of_a_model_on_the_gpu_reach_the_host_while_it_works_on() -> None:
    model = nn.LSTM(4, 8, batch_first=True).cuda()
    x = torch.randn(6, 20, 4)
    recorder = StateRecorder(model, as_probe(x, max_samples=9, seed=0))
    arrays_ = to_host(recorder.read().values)
    expected = model(x.cuda())[0].permute(1, 2, 0).detach().cpu()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    np.testing.assert_allclose(arrays_()["lstm"], expected.numpy(), atol=1e-6)


# Scalars


def test_dispersion_and_change_have_closed_forms() -> None:
    states = torch.tensor([[[0.0, 2.0], [1.0, 1.0]], [[3.0, 3.0], [0.0, 4.0]]])
    assert dispersion(states).item() == pytest.approx((1 + 0 + 0 + 2) / 4)
    assert change(states + 0.25, states).item() == pytest.approx(0.25)
    ended = states.clone()
    ended[1, :, 1] = math.nan
    assert dispersion(ended).item() == pytest.approx((1 + 0 + 0 + 0) / 4)
    assert change(ended + 0.5, ended).item() == pytest.approx(0.5)


@pytest.mark.parametrize("directions", [1, 2, 5])
def test_entropy_is_the_log_of_the_number_of_equal_directions(directions: int) -> None:
    scores = torch.linalg.qr(torch.randn(400, directions + 1, generator=torch.Generator().manual_seed(0)))[0]
    scores = torch.linalg.qr(torch.cat([torch.ones(400, 1), scores[:, :directions]], dim=1))[0][:, 1:]
    axes = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)))[0][:directions]
    states = (scores @ axes).reshape(4, 100, 12).permute(0, 2, 1)  # (step, unit, sample)
    assert entropy(states).item() == pytest.approx(math.log(directions), abs=1e-5)
    assert entropy(states * 7 + 3).item() == pytest.approx(math.log(directions), abs=1e-4)


def test_entropy_of_a_dead_layer_is_zero_and_of_too_few_rows_unknown() -> None:
    assert entropy(torch.full((3, 4, 5), 0.7)).item() == 0
    assert math.isnan(entropy(torch.zeros(1, 4, 1)).item())
    assert math.isnan(entropy(torch.full((3, 4, 5), math.nan)).item())


@given(arrays(np.float32, (3, 4, 5), elements=st.floats(-5, 5, width=32)), st.permutations(range(4)))
def test_scalars_do_not_depend_on_the_order_of_units(values: Any, order: list[int]) -> None:
    states = torch.from_numpy(values)
    one = summarize({"a": states}, {"a": states * 0.5}, {"a": torch.tensor(0)})
    other = summarize({"a": states[:, order]}, {"a": states[:, order] * 0.5}, {"a": torch.tensor(0)})
    assert one.keys() == other.keys() == {"a/dispersion", "a/entropy", "a/change", "a/nonfinite"}
    for name, value in one.items():
        assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-5)
