"""The Lightning callback: what it records of an ordinary training, and that the training is none the wiser."""

from __future__ import annotations

import pickle
import random
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from hiddenscope import HiddenStateMonitor, open_run
from hiddenscope.callbacks.scalars import scalar_names
from hiddenscope.description import STEP
from hiddenscope.errors import RecordingError, RunNotFoundError
from hiddenscope.run import Run
from training_examples import (
    FEATURES,
    LIGHTNINGS_OWN_WARNINGS,
    STEPS,
    UNITS,
    Classifier,
    Losses,
    assert_same_weights,
    fit,
    loaders,
    sequences,
    trainer,
)

pytestmark = [pytest.mark.filterwarnings(warning) for warning in LIGHTNINGS_OWN_WARNINGS]


class Trained(NamedTuple):
    """Two trainings from one seed, one of them monitored, and all that could tell them apart."""

    plain: Classifier
    monitored: Classifier
    plain_losses: list[float]
    monitored_losses: list[float]
    random_states: list[Any]
    run: Run
    said: str
    trainer: pl.Trainer
    checkpoint: Path


def random_state() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("logs")
    losses, states, models = [], [], []
    printed: list[str] = []
    for monitors in ([], [HiddenStateMonitor(strict=True)]):
        counted = Losses()
        keeper = ModelCheckpoint(folder / "checkpoints" / str(len(monitors)), save_top_k=-1, filename="{epoch}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
            model, engine = fit(folder, counted, keeper, *monitors, enable_checkpointing=True)
        models.append(model)
        losses.append(counted.values)
        states.append(random_state())
    assert engine.log_dir is not None
    return Trained(
        *models,
        *losses,
        random_states=states,
        run=open_run(engine.log_dir),
        said="\n".join(line for line in printed if "hiddenscope" in line),
        trainer=engine,
        checkpoint=folder / "checkpoints" / "1" / "epoch=1.ckpt",
    )


def test_weights_losses_and_random_states_are_bitwise_those_of_a_training_without_it(trained: Trained) -> None:
    assert_same_weights(trained.plain, trained.monitored)
    assert trained.plain_losses == trained.monitored_losses
    (torch_plain, numpy_plain, python_plain), (torch_now, numpy_now, python_now) = trained.random_states
    assert torch.equal(torch_plain, torch_now)
    assert python_plain == python_now
    assert np.array_equal(numpy_plain[1], numpy_now[1])
    assert numpy_plain[2:] == numpy_now[2:]


def test_epochs_begin_with_the_untrained_network(trained: Trained) -> None:
    assert trained.run.epochs.tolist() == [-1, 0, 1, 2]
    assert trained.run.status == "finished"
    assert dict(trained.run.trace("lstm").sizes) == {"epoch": 4, "step": STEPS, "unit": UNITS, "sample": 96}


def test_the_states_of_the_untrained_and_of_the_last_epoch_are_those_of_the_model(trained: Trained) -> None:
    x, labels = sequences().tensors
    assert trained.run.labels is not None
    assert trained.run.labels.values.tolist() == labels.tolist()
    pl.seed_everything(0, verbose=False)
    untrained = Classifier()
    for epoch, model in ((-1, untrained), (2, trained.monitored)):
        with torch.no_grad():
            expected = model.lstm(x)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(trained.run.trace("lstm", epochs=[epoch]).values[0], expected, atol=1e-6)
    assert trained.run.probe is not None
    np.testing.assert_array_equal(trained.run.probe, x.numpy())


def test_metrics_of_training_and_validation_come_with_their_epoch_even_those_logged_last(trained: Trained) -> None:
    metrics = trained.run.metrics()
    assert metrics.index.tolist() == [-1, 0, 1, 2]
    assert metrics["train_loss"].isna().tolist() == [True, False, False, False]
    per_epoch = np.array(trained.monitored_losses).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(metrics["train_loss"].values[1:], per_epoch, rtol=1e-5)
    with torch.no_grad():
        x, labels = sequences().tensors
        last = nn.functional.cross_entropy(trained.monitored.eval()(x), labels).item()
    assert metrics["val_loss"].values[-1] == pytest.approx(last, rel=1e-5)
    assert metrics["logged_late"].tolist()[1:] == [0, 1, 2]


def test_scalars_are_logged_and_equal_what_the_states_say(trained: Trained) -> None:
    states = trained.run.trace("lstm").values
    metrics = trained.run.metrics()
    change = np.sqrt(((states[1:] - states[:-1]) ** 2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(metrics["hiddenscope/lstm/change"].values[1:], change, rtol=1e-4)
    spread = states.std(axis=3).mean(axis=(1, 2))
    np.testing.assert_allclose(metrics["hiddenscope/lstm/dispersion"].values, spread, rtol=1e-4)
    rows = states.transpose(0, 1, 3, 2).reshape(4, -1, UNITS)
    spectrum = [np.linalg.eigvalsh(np.cov(row.T)) for row in rows]
    entropy = [-np.log(((s / s.sum()) ** 2).sum()) for s in spectrum]
    np.testing.assert_allclose(metrics["hiddenscope/lstm/entropy"].values, entropy, rtol=1e-4)
    assert (metrics["hiddenscope/lstm/nonfinite"] == 0).all()
    assert trained.trainer.callback_metrics["hiddenscope/lstm/change"] == pytest.approx(change[-1], rel=1e-4)


@pytest.mark.parametrize(("options", "metric"), [({}, "val_loss"), ({"limit_val_batches": 0}, "train_loss")])
def test_each_epoch_knows_the_step_at_which_the_logger_drew_it(
    tmp_path: Path, options: dict[str, int], metric: str
) -> None:
    fit(tmp_path, HiddenStateMonitor(verbose=False, strict=True), **options)
    run = open_run(tmp_path)
    (table,) = tmp_path.rglob("metrics.csv")
    logged = pd.read_csv(table).dropna(subset=[metric])
    assert run.metrics()["hiddenscope/step"].tolist()[1:] == logged["step"].tolist()


def test_one_line_says_what_is_recorded_how_much_where_and_how_to_watch_it(trained: Trained) -> None:
    assert trained.said.count("\n") == 0
    for part in (
        "lstm (6 units, 8 steps)",
        "96 sequences",
        "every epoch",
        "0.019 MB",  # 4 * 8 * 6 * 96 bytes of states, 4 * 24 * (3 + 6 + 2) of weights
        "version_",
        "hiddenscope dashboard",
    ):
        assert part in trained.said


def test_a_resumed_training_continues_its_run_and_supersedes_what_came_after(trained: Trained, tmp_path: Path) -> None:
    version = Path(trained.run.path).parent
    again = tmp_path / "logs" / version.name
    shutil.copytree(version, again)
    engine = trainer(
        tmp_path, HiddenStateMonitor(strict=True), epochs=4, logger=CSVLogger(tmp_path, "logs", version.name)
    )
    engine.fit(Classifier(), *loaders(), ckpt_path=str(trained.checkpoint), weights_only=False)
    run = open_run(again)
    assert run.epochs.tolist() == [-1, 0, 1, 2, 3]
    before = trained.run.trace("lstm").values
    np.testing.assert_array_equal(run.trace("lstm").values[:3], before[:3])
    assert run.metrics()["train_loss"].isna().tolist() == [True, False, False, False, False]


def test_a_training_resumed_elsewhere_begins_a_run_with_the_state_it_resumes_from(
    trained: Trained, tmp_path: Path
) -> None:
    engine = trainer(tmp_path, HiddenStateMonitor(strict=True), epochs=3)
    engine.fit(Classifier(), *loaders(), ckpt_path=str(trained.checkpoint), weights_only=False)
    run = open_run(tmp_path)
    assert run.epochs.tolist() == [1, 2]
    np.testing.assert_array_equal(run.trace("lstm").values[0], trained.run.trace("lstm", epochs=[1]).values[0])


def test_a_resume_with_another_probe_is_refused_before_training(trained: Trained, tmp_path: Path) -> None:
    version = Path(trained.run.path).parent
    shutil.copytree(version, tmp_path / "logs" / version.name)
    monitor = HiddenStateMonitor(torch.zeros(96, STEPS, FEATURES), strict=True)
    engine = trainer(tmp_path, monitor, epochs=4, logger=CSVLogger(tmp_path, "logs", version.name))
    with pytest.raises(RecordingError, match="fingerprints differ"):
        engine.fit(Classifier(), *loaders(), ckpt_path=str(trained.checkpoint), weights_only=False)


def test_a_second_training_into_the_same_folder_leaves_the_first_run_alone(trained: Trained, tmp_path: Path) -> None:
    for _ in range(2):
        fit(tmp_path, HiddenStateMonitor(strict=True), epochs=1, logger=CSVLogger(tmp_path, "logs", 0))
    folder = tmp_path / "logs" / "version_0"
    assert open_run(folder / "hiddenscope").epochs.tolist() == [-1, 0]
    assert open_run(folder / "hiddenscope_2").epochs.tolist() == [-1, 0]


def test_without_a_logger_every_training_has_a_numbered_folder(tmp_path: Path) -> None:
    for number in range(2):
        monitor = HiddenStateMonitor(strict=True)
        fit(tmp_path, monitor, epochs=1, logger=False, default_root_dir=tmp_path)
        assert monitor.location == str(tmp_path / "hiddenscope_logs" / f"version_{number}" / "hiddenscope")
        assert open_run(monitor.location).epochs.tolist() == [-1, 0]


def test_fast_dev_run_checks_everything_and_writes_nothing(tmp_path: Path) -> None:
    fit(tmp_path, HiddenStateMonitor(strict=True, dashboard=True), fast_dev_run=True, default_root_dir=tmp_path)
    with pytest.raises(RunNotFoundError):
        open_run(tmp_path)
    with pytest.raises(RecordingError, match='got layer "gru"'):
        fit(tmp_path, HiddenStateMonitor(layers="gru"), fast_dev_run=True)


def test_validation_alone_records_nothing(tmp_path: Path) -> None:
    engine = trainer(tmp_path, HiddenStateMonitor(strict=True))
    engine.validate(Classifier(), loaders()[1], verbose=False)
    with pytest.raises(RunNotFoundError):
        open_run(tmp_path)


@pytest.mark.parametrize("check_on_train_epoch_end", [None, True])
def test_early_stopping_can_watch_a_scalar(tmp_path: Path, check_on_train_epoch_end: bool | None) -> None:
    stop = EarlyStopping(
        "hiddenscope/lstm/change", stopping_threshold=10.0, check_on_train_epoch_end=check_on_train_epoch_end
    )
    _, engine = fit(tmp_path, HiddenStateMonitor(strict=True, every="2 epochs"), stop, epochs=4)
    assert engine.current_epoch == 1, "the scalar is known after every epoch, also those the schedule leaves out"
    assert open_run(tmp_path).epochs.tolist() == [-1]


def test_steps_within_an_epoch_are_fractional_epochs(tmp_path: Path) -> None:
    fit(tmp_path, HiddenStateMonitor(strict=True, every="4 steps"), epochs=2)  # six batches per epoch
    run = open_run(tmp_path)
    np.testing.assert_allclose(run.epochs, [-1, -1 + 4 / 6, 2 / 6, 1])
    metrics = run.metrics()
    assert metrics["train_loss"].notna().tolist() == [False, False, True, True]
    assert metrics["logged_late"].tolist()[2:] == [0, 1]


def test_a_training_that_stops_within_an_epoch_is_recorded_there_and_resumed_there(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, every_n_train_steps=1)
    logger = CSVLogger(tmp_path, "logs", 0)
    options: dict[str, Any] = {"logger": logger, "enable_checkpointing": True}
    fit(tmp_path, HiddenStateMonitor(strict=True), keeper, epochs=-1, max_steps=8, **options)  # six batches per epoch
    np.testing.assert_allclose(open_run(tmp_path).epochs, [-1, 0, 2 / 6])
    engine = trainer(tmp_path, HiddenStateMonitor(strict=True), epochs=2, **options)
    engine.fit(Classifier(), *loaders(), ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"), weights_only=False)
    np.testing.assert_allclose(open_run(tmp_path).epochs, [-1, 0, 2 / 6, 1])


def test_a_training_resumed_within_an_epoch_goes_on_there(tmp_path: Path) -> None:
    keeper = ModelCheckpoint(tmp_path / "checkpoints", every_n_train_steps=4, save_top_k=-1, filename="{step}")
    logger = CSVLogger(tmp_path, "logs", 0)
    options: dict[str, Any] = {"epochs": 1, "logger": logger, "enable_checkpointing": True}
    fit(tmp_path, HiddenStateMonitor(strict=True, every="2 steps"), keeper, **options)
    first = open_run(tmp_path)
    np.testing.assert_allclose(first.epochs, [-1, -1 + 2 / 6, -1 + 4 / 6, 0])
    engine = trainer(tmp_path, HiddenStateMonitor(strict=True, every="2 steps"), keeper, **options)
    engine.fit(Classifier(), *loaders(), ckpt_path=str(tmp_path / "checkpoints" / "step=4.ckpt"), weights_only=False)
    again = open_run(tmp_path)
    np.testing.assert_allclose(again.epochs, [-1, -1 + 2 / 6, -1 + 4 / 6, 0])
    assert np.array_equal(again.written_at[:3], first.written_at[:3]), "what came before the checkpoint stays"
    assert again.written_at[3] > first.written_at[3]


def test_a_schedule_in_steps_counts_optimizer_steps_not_batches(tmp_path: Path) -> None:
    fit(tmp_path, HiddenStateMonitor(strict=True, every="2 steps"), epochs=1, accumulate_grad_batches=2)
    np.testing.assert_allclose(open_run(tmp_path).epochs, [-1, -1 + 4 / 6])


def test_several_monitors_on_one_trainer_keep_apart(tmp_path: Path) -> None:
    small = sequences().tensors[0][:5]
    fit(tmp_path, HiddenStateMonitor(strict=True), HiddenStateMonitor(small, every="2 epochs", strict=True), epochs=2)
    first = open_run(tmp_path / "lightning_logs" / "version_0" / "hiddenscope")
    second = open_run(tmp_path / "lightning_logs" / "version_0" / "hiddenscope_2")
    assert (first.epochs.tolist(), second.epochs.tolist()) == ([-1, 0, 1], [-1, 1])
    assert second.trace("lstm").sizes["sample"] == 5
    assert {"hiddenscope/lstm/change", "hiddenscope_2/lstm/change"} <= set(first.metrics().columns)


def test_the_names_of_the_scalars_do_not_depend_on_what_lies_in_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        stop = EarlyStopping("hiddenscope/lstm/change", patience=9)
        fit(tmp_path, HiddenStateMonitor(strict=True), stop, epochs=1, logger=CSVLogger(tmp_path, "logs", 0))
    assert "hiddenscope/lstm/change" in open_run(tmp_path / "logs" / "version_0" / "hiddenscope_2").metrics()


@pytest.mark.parametrize(
    ("wanted", "probe", "said"),
    [
        ("hiddenscope/separability", torch.zeros(4, STEPS, FEATURES), "needs sequences of two classes.*has no labels"),
        ("hiddenscope/ltsm/change", None, 'is not recorded; there are .* did you mean "hiddenscope/lstm/change"'),
    ],
)
def test_waiting_for_a_scalar_that_will_never_come_fails_before_the_training(
    tmp_path: Path, wanted: str, probe: Any, said: str
) -> None:
    counted = Losses()
    with pytest.raises(RecordingError, match=f'EarlyStopping waits for "{wanted}", which {said}'):
        fit(tmp_path, counted, HiddenStateMonitor(probe), EarlyStopping(wanted))
    assert counted.values == []


def test_the_names_of_scalars_are_foretold(trained: Trained) -> None:
    labels = sequences().tensors[1].numpy()
    foretold = {f"hiddenscope/{name}" for name in scalar_names(["lstm"], labels)}
    assert foretold | {STEP} == {name for name in trained.run.metrics() if name.startswith("hiddenscope/")}


@pytest.mark.parametrize("every", [1, "200 steps", "log", [1, 5]])
def test_a_monitor_can_be_pickled_as_spawned_processes_want_it(every: Any) -> None:
    again = pickle.loads(pickle.dumps(HiddenStateMonitor(torch.zeros(2, 3, 4), every=every)))
    schedules = again.schedule, HiddenStateMonitor(every=every).schedule
    epochs = [[s.after_epoch(epoch) for epoch in range(9)] for s in schedules]
    assert epochs[0] == epochs[1]
    steps = [[s.after_steps(step, step + 1) for step in range(401)] for s in schedules]
    assert steps[0] == steps[1]
    assert again.state_key == HiddenStateMonitor(torch.zeros(2, 3, 4), every=every).state_key


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"probe": torch.zeros(4, STEPS, FEATURES), "label_names": ["a", "b"]}, "the probe has none: give its labels"),
        ({"label_names": ["a", "b"]}, "names classes 0 to 1, but the probe has labels from 0 to 2"),
        ({"layers": "lstm2"}, 'got layer "lstm2"; this model has recurrent layer "lstm"; did you mean "lstm"'),
        (
            {"probe": torch.zeros(4, STEPS, FEATURES + 1)},
            r"rejects the probe \(float32 \(4, 8, 4\)\).*Expected 3, got 4",
        ),
        ({"probe": torch.zeros(4)}, "rejects the probe"),
        ({"probe": "probe_batches"}, "has no method of that name"),
    ],
)
def test_wrong_use_fails_before_the_training_with_a_sentence_that_helps(
    tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    counted = Losses()
    with pytest.raises(RecordingError, match=said):
        fit(tmp_path, counted, HiddenStateMonitor(**options))
    assert counted.values == []


class WithoutRecurrence(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.Linear(FEATURES, UNITS)  # type: ignore[assignment]


def test_a_model_without_a_recurrent_layer_is_told_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r'no recurrent layer.*name the layers.*"lstm" \(Linear\)'):
        trainer(tmp_path, HiddenStateMonitor()).fit(WithoutRecurrence(), *loaders())


@pytest.mark.parametrize(
    "options",
    [
        {"record": "h"},
        {"record": ["x"]},
        {"max_units": 0},
        {"max_samples": 0},
        {"every": "weekly"},
        {"dashboard": "yes"},
        {"dtype": "float64"},
        {"queue_size": 0},
        {"max_wait": -1},
        {"logdir": "gs://bucket"},
        {"logdir": "logs", "storage_options": {"region": "here"}},
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        HiddenStateMonitor(**options)
