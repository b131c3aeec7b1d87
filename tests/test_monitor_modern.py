"""The monitor in the trainings of today: several processes, compiled models, low precision, configuration files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from hiddenscope import HiddenStateMonitor, RecordingWarning, open_run, record
from hiddenscope.errors import RecordingError
from training_examples import (
    FEATURES,
    LIGHTNINGS_OWN_WARNINGS,
    STEPS,
    Classifier,
    Losses,
    assert_same_weights,
    fit,
    loaders,
    sequences,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]

HERE = Path(__file__).parent


def run_script(*arguments: str | Path) -> None:
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def states_of_the_last_epoch(folder: Path) -> Any:
    return open_run(folder).trace("lstm").values[-1]


def by_hand(model: Classifier) -> Any:
    with torch.no_grad():
        return model.lstm(sequences().tensors[0])[0].permute(1, 2, 0).numpy()


def test_two_processes_write_one_run_that_equals_what_their_model_computes(tmp_path: Path) -> None:
    run_script(HERE / "train_in_two_processes.py", tmp_path)
    run, other = (open_run(next(tmp_path.rglob(name))) for name in ("hiddenscope", "hiddenscope_2"))
    for each, samples in ((run, 96), (other, 4)):
        assert each.epochs.tolist() == [-1, 0, 1]
        assert each.status == "finished"
        assert each.trace("lstm").sizes["sample"] == samples, "the whole probe, not the share of one process"
    weights = torch.load(tmp_path / "weights.pt")
    model = Classifier()
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    np.testing.assert_allclose(run.trace("lstm").values[-1], by_hand(model), atol=1e-6)
    assert run.metrics()["accuracy"].notna().tolist() == [False, True, True]


@pytest.mark.slow
def test_two_processes_train_to_the_same_weights_with_and_without_it(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    run_script(HERE / "train_in_two_processes.py", tmp_path / "with")
    run_script(HERE / "train_in_two_processes.py", tmp_path / "without", "plain")
    one, other = (torch.load(tmp_path / name / "weights.pt") for name in ("with", "without"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_recorded_as_it_is_and_trains_the_same(tmp_path: Path) -> None:
    trained = []
    for monitors in ([], [HiddenStateMonitor(strict=True)]):
        torch._dynamo.reset()
        pl.seed_everything(0, verbose=False)
        model, counted = Classifier(), Losses()
        model.compile(backend="eager")
        trainer(tmp_path / str(len(monitors)), counted, *monitors, epochs=2).fit(model, *loaders())
        trained.append((model, counted.values))
    assert_same_weights(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1]
    run = open_run(tmp_path / "1")
    assert run.epochs.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(run.trace("lstm").values[-1], by_hand(trained[1][0]), atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_plain_recorder_sees_through_torch_compile(tmp_path: Path) -> None:
    torch._dynamo.reset()
    network = Classifier()
    compiled: Any = torch.compile(network, backend="eager")
    x = sequences().tensors[0]
    compiled(x)
    with record(compiled, x, tmp_path, strict=True) as recorder:
        recorder.snapshot(-1)
    assert recorder.layers == ("lstm",)
    np.testing.assert_allclose(states_of_the_last_epoch(tmp_path), by_hand(network), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "64-true"},
        {"accumulate_grad_batches": 2, "limit_train_batches": 4, "limit_val_batches": 1},
        {"limit_val_batches": 0},
        {"val_check_interval": 0.5},
        {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0, "gradient_clip_val": 0.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_ways_to_train_are_left_alone_too(options: dict[str, Any], tmp_path: Path) -> None:
    plain, _ = fit(tmp_path / "plain", epochs=2, **options)
    model, _ = fit(tmp_path / "monitored", HiddenStateMonitor(strict=True), epochs=2, **options)
    assert_same_weights(plain, model)
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(run.trace("lstm").values[-1], by_hand(model.float()), atol=1e-6)
    assert run.metrics()["train_loss"].notna().tolist() == [False, True, True]


class Embedded(Classifier):
    """Embeds before its recurrence, in bfloat16 under autocast. (Not every CPU has an LSTM in bfloat16.)"""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(FEATURES, FEATURES)
        self.lstm = nn.GRU(FEATURES, 6, batch_first=True)  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.norm(self.lstm(self.embed(x).float())[0].mean(dim=1))))
        return out


def test_mixed_precision_is_recorded_as_the_training_computes_it(tmp_path: Path) -> None:
    trained = []
    for monitors in ([], [HiddenStateMonitor(layers=["embed", "lstm"], strict=True)]):
        pl.seed_everything(0, verbose=False)
        model = Embedded()
        trainer(tmp_path, *monitors, epochs=2, precision="bf16-mixed").fit(model, *loaders())
        trained.append(model)
    assert_same_weights(*trained)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        embedded = model.embed(sequences().tensors[0])
    assert embedded.dtype == torch.bfloat16
    recorded = open_run(tmp_path).trace("embed").values[-1]
    np.testing.assert_array_equal(recorded, embedded.float().permute(1, 2, 0).numpy())


def test_worker_processes_and_a_shuffled_loader_see_the_same_order(tmp_path: Path) -> None:
    seen = []
    for monitors in ([], [HiddenStateMonitor(strict=True)]):
        pl.seed_everything(0, verbose=False)
        counted = Losses()
        workers = {"num_workers": 1, "generator": torch.Generator().manual_seed(1), "persistent_workers": True}
        trainer(tmp_path, counted, *monitors, epochs=2).fit(Classifier(), *loaders(**workers))
        seen.append(counted.values)
    assert seen[0] == seen[1]


CONFIGURATION = """
seed_everything: 0
model: {units: 4}
trainer:
  max_epochs: 1
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  enable_checkpointing: false
  logger: {class_path: pytorch_lightning.loggers.CSVLogger, init_args: {save_dir: "%s"}}
  callbacks:
    - class_path: hiddenscope.callbacks.monitor.HiddenStateMonitor
      init_args: {layers: [lstm], every: 1 epochs, record: [h, c], max_samples: 20, strict: true, verbose: false}
"""


class Data(pl.LightningDataModule):
    label_names = ("one", "two", "three")

    def train_dataloader(self) -> Any:
        return loaders()[0]

    def val_dataloader(self) -> Any:
        return loaders()[1]


@pytest.mark.filterwarnings("ignore")
def test_a_configuration_file_of_lightnings_command_line_can_have_it(tmp_path: Path) -> None:
    from pytorch_lightning.cli import LightningCLI

    (tmp_path / "config.yaml").write_text(CONFIGURATION % tmp_path)
    arguments = ["fit", "--config", str(tmp_path / "config.yaml")]
    LightningCLI(Classifier, Data, args=arguments, save_config_callback=None)
    run = open_run(tmp_path)
    assert run.layers == ("lstm", "lstm.c")
    assert run.label_names == ("one", "two", "three")
    assert dict(run.trace("lstm.c").sizes) == {"epoch": 2, "step": STEPS, "unit": 4, "sample": 20}


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_of_the_other_package_works_as_well(tmp_path: Path) -> None:
    other = pytest.importorskip("lightning.pytorch")

    class Module(other.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(FEATURES, 5, batch_first=True)

        def training_step(self, batch: Any, batch_index: int) -> Tensor:
            loss: Tensor = self.gru(batch[0])[0].square().mean()
            self.log("loss", loss)
            return loss

        def forward(self, x: Tensor) -> Any:
            return self.gru(x)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    stop = other.callbacks.EarlyStopping("hiddenscope/gru/change", check_on_train_epoch_end=True)
    engine = other.Trainer(
        max_epochs=2,
        callbacks=[HiddenStateMonitor(strict=True), stop],
        accelerator="cpu",
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=other.loggers.CSVLogger(tmp_path),
    )
    engine.fit(Module(), loaders()[0])
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0, 1]
    assert run.labels is not None
    assert run.metrics()["loss"].notna().tolist() == [False, True, True]


class Normalized(Classifier):
    """Changes batches on their way to the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 2, batch[1]]


def test_a_hook_that_changes_batches_is_warned_about_unless_forward_says_what_to_do(tmp_path: Path) -> None:
    with pytest.warns(RecordingWarning, match=r"Normalized\.on_after_batch_transfer changes batches.*give forward="):
        trainer(tmp_path / "1", HiddenStateMonitor(strict=True), epochs=1).fit(Normalized(), *loaders())
    model = Normalized()
    monitor = HiddenStateMonitor(strict=True, forward=lambda module, batch: module(batch[0] * 2))
    trainer(tmp_path / "2", monitor, epochs=1).fit(model, *loaders())
    with torch.no_grad():
        expected = model.lstm(sequences().tensors[0] * 2)[0].permute(1, 2, 0)
    np.testing.assert_allclose(states_of_the_last_epoch(tmp_path / "2"), expected.numpy(), atol=1e-6)


class LateLayers(Classifier):
    """Makes its layers when the trainer says so."""

    def __init__(self) -> None:
        super().__init__()
        del self.lstm

    def configure_model(self) -> None:
        if not hasattr(self, "lstm"):
            self.lstm = nn.LSTM(FEATURES, 6, batch_first=True)


def test_layers_may_be_made_after_setup(tmp_path: Path) -> None:
    x = sequences().tensors[0][:4]
    for number, options in enumerate(({}, {"probe": x}, {"layers": "lstm"})):
        trainer(tmp_path / str(number), HiddenStateMonitor(strict=True, **options), epochs=1).fit(
            LateLayers(), *loaders()
        )
        assert open_run(tmp_path / str(number)).epochs.tolist() == [-1, 0]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return zip(*sequences().tensors, strict=True)


def test_a_stream_gives_its_first_sequences_and_its_unknown_length_forbids_schedules_in_steps(tmp_path: Path) -> None:
    stream = DataLoader(Stream(), batch_size=16)
    engine = trainer(tmp_path, HiddenStateMonitor(strict=True, max_samples=20), epochs=1)
    engine.fit(Classifier(), stream)
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0]
    assert run.probe is not None
    np.testing.assert_array_equal(run.probe, sequences().tensors[0][:20].numpy())
    with pytest.raises(RecordingError, match="known length"):
        trainer(tmp_path, HiddenStateMonitor(every="3 steps"), epochs=1).fit(Classifier(), stream)


class Stateful(Classifier):
    """Keeps a memory from batch to batch, counts its calls, and logs inside of its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.memory: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        start = None if self.memory is None else (self.memory[:, : len(x)], self.memory[:, : len(x)])
        states, (h, _) = self.lstm(x, start)
        self.memory = h.detach() if self.memory is None or len(x) == 16 else self.memory
        self.log("memory", h.abs().mean())
        out: Tensor = self.head(self.drop(self.norm(states.mean(dim=1)))) + self.calls * 0.01 + torch.rand(())
        return out


def test_a_model_with_a_memory_keeps_its_own(tmp_path: Path) -> None:
    x, labels = sequences(16).tensors
    trained = []
    for monitors in ([], [HiddenStateMonitor((x, labels), strict=True, every="2 steps")]):
        pl.seed_everything(0, verbose=False)
        model = Stateful()
        trainer(tmp_path, *monitors, epochs=2, limit_val_batches=0).fit(model, loaders()[0])
        trained.append(model)
    assert_same_weights(*trained)
    assert trained[0].memory is not None
    assert trained[1].memory is not None
    assert torch.equal(trained[0].memory, trained[1].memory)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_benchmark_runs_at_toy_size(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE.parent)
    from benchmarks.recording import main

    assert main(["--quick"]) == 0
    printed = capsys.readouterr().out
    results = json.loads(printed[printed.index("{") :])
    assert results["cost"][0]["disk_bytes"] >= results["cost"][0]["recorded_bytes"] > 0
    assert len(results["memory_mb"]) == 10
