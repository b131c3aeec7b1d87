"""Everything that can go wrong beside a training: it ends with the weights it would have had anyway."""

from __future__ import annotations

import ast
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from hiddenscope import HiddenStateMonitor, RecordingWarning, open_run, record
from hiddenscope.callbacks.background import BackgroundWriter
from hiddenscope.description import Amendments, Snapshot
from hiddenscope.errors import RunLockedError
from hiddenscope.store import SnapshotWriter
from training_examples import (
    EPOCHS,
    LIGHTNINGS_OWN_WARNINGS,
    STEPS,
    At,
    Classifier,
    assert_same_weights,
    fit,
    fit_with_one_warning,
    loaders,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return fit(tmp_path_factory.mktemp("plain"), epochs=EPOCHS)[0]


@pytest.fixture
def failing_append(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full from the third epoch on."""
    real = SnapshotWriter.append

    def append(self: SnapshotWriter, snapshot: Snapshot) -> None:
        if snapshot.epoch >= 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, snapshot)

    monkeypatch.setattr(SnapshotWriter, "append", append)


@pytest.mark.usefixtures("failing_append")
def test_a_full_disk_ends_the_recording_not_the_training(undisturbed: Classifier, tmp_path: Path) -> None:
    model, said = fit_with_one_warning(tmp_path, HiddenStateMonitor())
    assert_same_weights(model, undisturbed)
    assert "No space left on device" in said
    assert "epoch 1 and what follows is not recorded" in said, "the epoch that failed, not the one that found out"
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0]
    assert run.status == "interrupted"


@pytest.mark.usefixtures("failing_append")
def test_strict_raises_what_would_have_been_a_warning(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        fit(tmp_path, HiddenStateMonitor(strict=True), epochs=EPOCHS)
    assert open_run(tmp_path).epochs.tolist() == [-1, 0]


@pytest.mark.usefixtures("failing_append")
def test_early_stopping_survives_the_recording_and_no_number_is_logged_that_nobody_measured(
    undisturbed: Classifier, tmp_path: Path
) -> None:
    stop = EarlyStopping("hiddenscope/lstm/change", patience=100)
    model, _ = fit_with_one_warning(tmp_path, HiddenStateMonitor(), stop)
    assert_same_weights(model, undisturbed)
    (table,) = tmp_path.rglob("metrics.csv")
    logged = pd.read_csv(table).groupby("epoch")[["hiddenscope/lstm/change", "val_loss"]].count()
    assert logged["val_loss"].tolist() == [1, 1, 1, 1]
    assert logged["hiddenscope/lstm/change"].tolist() in ([1, 1, 0, 0], [1, 1, 1, 0])


def test_a_resume_into_a_damaged_run_begins_a_new_one_beside_it(undisturbed: Classifier, tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "checkpoints", save_top_k=-1, filename="{epoch}")
    logger = CSVLogger(tmp_path, "logs", 0)
    fit(tmp_path, HiddenStateMonitor(), keeper, epochs=2, logger=logger, enable_checkpointing=True)
    for file in (tmp_path / "logs" / "version_0" / "hiddenscope" / "snapshots").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    pl.seed_everything(0, verbose=False)
    model = Classifier()
    engine = trainer(tmp_path, HiddenStateMonitor(), epochs=EPOCHS, logger=logger)
    with pytest.warns(RecordingWarning, match=r"cannot be read.*a new run begins in .*hiddenscope_2"):
        engine.fit(model, *loaders(), ckpt_path=str(tmp_path / "checkpoints" / "epoch=1.ckpt"), weights_only=False)
    assert open_run(tmp_path / "logs" / "version_0" / "hiddenscope_2").epochs.tolist() == [1, 2, 3]


def test_a_folder_that_cannot_be_written_costs_the_recording_only(undisturbed: Classifier, tmp_path: Path) -> None:
    in_the_way = tmp_path / "a file where the folder should be"
    in_the_way.write_text("")
    model, said = fit_with_one_warning(tmp_path, HiddenStateMonitor(logdir=str(in_the_way)))
    assert_same_weights(model, undisturbed)
    assert "stopped recording" in said


def test_a_folder_that_disappears_costs_the_recording_only(undisturbed: Classifier, tmp_path: Path) -> None:
    monitor = HiddenStateMonitor(logdir=str(tmp_path / "run"))
    model, said = fit_with_one_warning(tmp_path, monitor, At(1, lambda _: (tmp_path / "run").rename(tmp_path / "gone")))
    assert_same_weights(model, undisturbed)
    assert "stopped recording" in said
    assert open_run(tmp_path / "gone").epochs.tolist()[:2] == [-1, 0]


NO_ROOM = """
import resource, sys, time, warnings
import torch
torch.set_num_threads(1)
from training_examples import fit
import pytorch_lightning as pl
from hiddenscope import HiddenStateMonitor, RecordingWarning

class NoRoom(pl.Callback):
    def on_train_epoch_end(self, trainer, module):
        if trainer.current_epoch == 1:
            while 0 not in monitor._session.written:  # a busy machine may still be writing it
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

monitor = HiddenStateMonitor(logdir=sys.argv[1], verbose=False)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model, _ = fit(sys.argv[1], NoRoom(), monitor, epochs=4)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
torch.save(model.state_dict(), sys.argv[1] + "/weights.pt")
print([str(each.message) for each in caught if issubclass(each.category, RecordingWarning)])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of processes")
def test_a_file_system_that_takes_no_more_costs_the_recording_only(undisturbed: Classifier, tmp_path: Path) -> None:
    command = [sys.executable, "-c", NO_ROOM, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    weights = torch.load(tmp_path / "weights.pt")
    assert all(torch.equal(value, weights[name]) for name, value in undisturbed.state_dict().items())
    (said,) = ast.literal_eval(done.stdout)
    assert "cannot be written" in said
    assert "File too large" in said
    assert "epoch 1 and what follows is not recorded" in said
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0]
    assert np.isfinite(run.trace("lstm").values).all()


def test_a_forward_that_fails_on_the_probe_leaves_the_model_as_it_was(undisturbed: Classifier, tmp_path: Path) -> None:
    def sabotage(model: Classifier) -> None:
        def fail(*_: Any) -> None:
            if model.lstm._forward_hooks:  # the recorder is looking
                raise ArithmeticError("no such number")

        model.drop.register_forward_hook(fail)

    model, said = fit_with_one_warning(tmp_path, At(0, sabotage), HiddenStateMonitor(every="steps"))
    assert_same_weights(model, undisturbed)
    assert "ArithmeticError: no such number" in said
    assert not model.lstm._forward_hooks
    run = open_run(tmp_path)
    assert run.epochs[-1] <= 0
    assert np.isfinite(run.trace("lstm").values).all()


def test_a_schedule_that_fails_costs_the_recording_only(undisturbed: Classifier, tmp_path: Path) -> None:
    def every(epoch: int) -> bool:
        return 1 // (2 - epoch) > 0

    model, said = fit_with_one_warning(tmp_path, HiddenStateMonitor(every=every))
    assert_same_weights(model, undisturbed)
    assert "ZeroDivisionError" in said
    assert "epoch 2 and what follows is not recorded" in said
    assert open_run(tmp_path).epochs.tolist() == [-1, 1]


class SlowDisk:
    """Holds every write until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.holding = threading.Event(), threading.Event()
        real = SnapshotWriter.append

        def append(writer: SnapshotWriter, snapshot: Snapshot) -> None:
            self.holding.set()
            assert self.go_on.wait(60)
            real(writer, snapshot)

        monkeypatch.setattr(SnapshotWriter, "append", append)


def test_a_slow_disk_costs_epochs_after_a_bounded_wait(
    undisturbed: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    monitor = HiddenStateMonitor(max_wait=0.05)

    def recover(_: Any) -> None:
        disk.go_on.set()
        deadline = time.monotonic() + 60
        while monitor._session is not None and not monitor._session.written and time.monotonic() < deadline:
            time.sleep(0.01)

    model, said = fit_with_one_warning(tmp_path, monitor, At(EPOCHS - 2, recover))
    assert_same_weights(model, undisturbed)
    assert "takes too long to write" in said
    run = open_run(tmp_path)
    assert run.status == "finished"
    assert run.epochs.tolist() == [-1, EPOCHS - 1]  # the one it hung on, and what came after


def test_the_queue_is_bounded_and_recovers(tmp_path: Path) -> None:
    go_on = threading.Event()
    kept: list[float] = []

    class Holding:
        def append(self, snapshot: Snapshot) -> None:
            assert go_on.wait(60)
            kept.append(snapshot.epoch)

        def finish(self, status: str, *, amended: Amendments) -> None:
            kept.append(np.inf if status == "finished" else np.nan)

    writer = BackgroundWriter(Holding(), queue_size=2, max_wait=0.01)
    accepted = [writer.submit(epoch, lambda epoch=epoch: Snapshot(epoch, {})) for epoch in range(50)]
    assert accepted == [True] * 2 + [False] * 48  # one being written and one that waits
    go_on.set()
    patient = BackgroundWriter(Holding(), queue_size=1, max_wait=30.0)
    assert all(patient.submit(epoch, lambda epoch=epoch: Snapshot(epoch, {})) for epoch in range(100, 120))
    assert patient.close("finished", timeout=30)
    assert writer.close("interrupted", timeout=30)
    assert [epoch for epoch in kept if 100 <= epoch < 1000] == list(range(100, 120))
    assert writer.written == [epoch for epoch, taken in enumerate(accepted) if taken]
    assert writer.given_up == [epoch for epoch, taken in enumerate(accepted) if not taken]
    assert not writer.submit(99, lambda: Snapshot(99, {}))


def test_when_a_writer_is_closed_its_thread_has_let_go_of_everything() -> None:
    class Nothing:
        def append(self, snapshot: Snapshot) -> None:
            pass

        def finish(self, status: str, *, amended: Amendments) -> None:
            pass

    class Slow:
        """As a tensor whose memory takes its time to be given back."""

        def __call__(self) -> Snapshot:
            return Snapshot(0.0, {})

        def __del__(self) -> None:
            time.sleep(0.3)
            gone.append(True)

    gone: list[bool] = []
    writer = BackgroundWriter(Nothing())
    assert writer.submit(0.0, Slow())
    assert writer.close("finished", timeout=30)
    assert gone, "a thread that frees tensors while Python ends aborts the process"


def test_a_disk_that_never_answers_is_left_after_a_bounded_wait(
    undisturbed: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    monkeypatch.setattr("hiddenscope.callbacks.monitor.CLOSING_PATIENCE", 0.2)
    model, said = fit_with_one_warning(tmp_path, HiddenStateMonitor(queue_size=10))
    assert_same_weights(model, undisturbed)
    assert "has not answered" in said
    disk.go_on.set()


def test_nan_states_are_recorded_and_flagged(tmp_path: Path) -> None:
    def spoil(module: Classifier) -> None:
        with torch.no_grad():
            module.lstm.weight_hh_l0[0] = float("nan")

    spoiled, _ = fit(tmp_path / "plain", At(1, spoil), epochs=EPOCHS, limit_val_batches=0)
    model, said = fit_with_one_warning(tmp_path, HiddenStateMonitor(), At(1, spoil), limit_val_batches=0)
    for name, value in spoiled.state_dict().items():
        assert torch.equal(value.nan_to_num(), model.state_dict()[name].nan_to_num())
    assert "hidden states of lstm are NaN or infinite" in said
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0, 1, 2, 3]
    bad = (~np.isfinite(run.trace("lstm").values)).sum(axis=(1, 2, 3))
    assert bad[:3].tolist() == [0, 0, 0]
    assert bad[3] > 0
    assert run.metrics()["hiddenscope/lstm/nonfinite"].tolist() == bad.tolist()
    assert torch.isnan(model.lstm.weight_hh_l0).any()


@pytest.mark.parametrize("kind", ["exception", "ctrl-c", "sigterm"])
def test_an_interrupted_training_writes_what_it_has(kind: str, tmp_path: Path) -> None:
    def interrupt(_: Any) -> None:
        if kind == "exception":
            raise ZeroDivisionError
        os.kill(os.getpid(), signal.SIGINT if kind == "ctrl-c" else signal.SIGTERM)

    raised = {"exception": ZeroDivisionError, "ctrl-c": SystemExit, "sigterm": SIGTERMException}[kind]
    handler = signal.getsignal(signal.SIGINT)
    pl.seed_everything(0, verbose=False)
    model = Classifier()
    try:
        with pytest.raises(raised):
            trainer(tmp_path, HiddenStateMonitor(strict=True), At(2, interrupt), epochs=50).fit(model, *loaders())
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning leaves Ctrl-C ignored
    assert_same_weights(model, fit(tmp_path / "plain", epochs=3)[0])
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [-1, 0, 1, 2]
    assert run.status == "interrupted"
    assert np.isfinite(run.metrics()["train_loss"].values[1:]).all()


KILLED = """
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from training_examples import fit
import pytorch_lightning as pl
from hiddenscope import HiddenStateMonitor
from hiddenscope.store import SnapshotWriter

real, at, committed = SnapshotWriter.append, int(sys.argv[2]), []

def append(writer, snapshot):
    time.sleep(0.3)  # a disk that is much slower than the training
    real(writer, snapshot)
    committed.append(snapshot.epoch)

SnapshotWriter.append = append

class Kill(pl.Callback):
    def on_train_epoch_end(self, trainer, module):  # runs after the monitor's hook
        if trainer.current_epoch == at:
            print(committed, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

fit(sys.argv[1], HiddenStateMonitor(verbose=False, strict=True, max_wait=60), Kill(), epochs=10)
"""


def test_a_killed_training_on_a_slow_disk_loses_the_epoch_being_written_and_no_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), "4"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    told = [float(epoch) for epoch in done.stdout.strip("[]\n").split(",")]
    run = open_run(tmp_path)
    assert told == [-1, 0, 1, 2, 3]  # epoch 4 has just ended
    assert run.epochs.tolist() in (told, [*told, 4])
    assert run.status == "killed"
    assert run.metrics()["logged_late"].tolist()[1:4] == [0, 1, 2]


def test_two_writers_on_one_run_are_refused_before_training(tmp_path: Path) -> None:
    probe = torch.zeros(2, STEPS, 3)
    network = Classifier()
    program = (
        "import sys, torch; from hiddenscope import record\n"
        f"with record(torch.nn.GRU(3, 2), torch.zeros({STEPS}, 2, 3), sys.argv[1]) as recorder:\n"
        "    recorder.snapshot(-1); print('writing', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"writing\n"
        with pytest.raises(RunLockedError), record(network, probe, tmp_path, resume_after=-1):
            pass
        engine = trainer(tmp_path, HiddenStateMonitor(probe, logdir=str(tmp_path)), epochs=1)
        engine.fit(network, *loaders())  # a new training takes the next folder instead
        other.communicate()
    assert open_run(tmp_path / "hiddenscope").epochs.tolist() == [-1]
    assert open_run(tmp_path / "hiddenscope_2").epochs.tolist() == [-1, 0]
