"""The experiment on encoder and decoder: data with known modes, clips that are checked, and a run for the page."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hiddenscope.errors import MissingExtraError
from hiddenscope.experiments.datasets import motion
from hiddenscope.experiments.datasets.ellipses import KINDS, ellipse, load_ellipses
from hiddenscope.experiments.experiment import Context, all_experiments, carry_out
from hiddenscope.experiments.seq2seq import draw, ellipses, known_modes, observe
from hiddenscope.experiments.seq2seq import motion as motion_task
from hiddenscope.experiments.sequence_models import EncoderDecoder, predictor, train
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run


def test_ellipses_lie_on_their_ellipse_and_have_the_modes_of_their_axes():
    points = ellipse((2.0, 0.5), 40, phase=0.3)
    assert_allclose((points[:, 0] / 2) ** 2 + (points[:, 1] / 0.5) ** 2, 1)
    sequences, labels = load_ellipses(per_kind=4, steps=50, noise=0.0)
    assert sequences.shape == (4 * len(KINDS), 50, 2)
    assert np.bincount(labels).tolist() == [4] * len(KINDS)
    table = known_modes(0)
    assert_allclose(table.measured, table.expected, atol=2e-3)


def test_the_decoder_goes_on_from_the_encoders_last_state_by_its_own_predictions():
    torch.manual_seed(0)
    model = EncoderDecoder(features=2, units=5, steps=4)
    sequences = torch.randn(3, 6, 2)
    predictions, states = model.follow(sequences)
    _, hidden = model.encoder(sequences)
    state, frame = hidden[0], sequences[:, -1]
    for step in range(4):
        state = model.decoder(frame, state)
        frame = frame + model.readout(state)
        assert torch.equal(states[:, step], state)
        assert torch.equal(predictions[:, step], frame)
    alone = predictor(model)(sequences[1].numpy().astype(np.float64))
    assert_allclose(alone[0], predictions[1].detach(), atol=1e-6)
    assert alone[1].shape == (4, 5)


def write_clip(path, *, loop="wrap", frames=40, seconds=1 / 30):
    values = np.random.default_rng(0).normal(size=(frames, 44))
    values[:, 0] = seconds
    path.write_text(json.dumps({"Loop": loop, "Frames": values.tolist()}))
    return values


def test_a_clip_is_resampled_in_time_and_repeated_if_it_loops(tmp_path):
    values = write_clip(tmp_path / "a.txt")
    clip = motion.read_clip(tmp_path / "a.txt")
    assert clip.shape == (2 * 39, 41)
    heights = clip[::2, 0]
    assert_allclose(heights, values[:39, 2], atol=1e-9)
    assert len(motion.read_clip(tmp_path / "a.txt", shortest=4.0)) >= 240
    write_clip(tmp_path / "b.txt", loop="none")
    assert len(motion.read_clip(tmp_path / "b.txt", shortest=4.0)) == 78


def test_what_is_no_clip_is_refused(tmp_path):
    for text in ("no json", "{}", json.dumps({"Frames": [[1, 2], [3, 4]]})):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(ValueError, match="is not a motion clip"):
            motion.read_clip(tmp_path / "bad.txt")


def test_the_clips_of_the_package_are_found_without_importing_it(tmp_path, monkeypatch):
    folder = tmp_path / "pybullet_data" / "data" / "motions"
    folder.mkdir(parents=True)
    (tmp_path / "pybullet_data" / "__init__.py").write_text("raise RuntimeError('imported')")
    for name in ("walk", "spin_kick"):
        write_clip(folder / f"humanoid3d_{name}.txt", frames=100)
    write_clip(folder / "dog_walk.txt")
    monkeypatch.syspath_prepend(tmp_path)
    assert motion.motion_installed()
    clips = motion.load_motion()
    assert list(clips) == ["spin kick", "walk"]
    assert all(clip.shape[0] >= 240 and clip.shape[1] == 41 for clip in clips.values())
    task = motion_task(quick=True, seed=0)
    assert task.names == ("spin kick", "walk")
    assert task.train.shape[1:] == (50, 41)
    assert_allclose(task.train.mean(axis=(0, 1)), 0, atol=1e-4)
    assert set(task.held_out_labels) == {0, 1}
    assert task.long.shape == (160, 41)  # of the clips that are strung together, the walk alone is there
    assert set(task.long_truth) == {1}


def test_without_the_package_the_loader_says_what_to_install(monkeypatch):
    monkeypatch.setattr(motion.importlib.util, "find_spec", lambda name: None)
    assert not motion.motion_installed()
    with pytest.raises(MissingExtraError, match="pybullet"):
        motion.load_motion()


def test_the_experiment_leaves_a_run_that_the_page_can_show(tmp_path, monkeypatch):
    pytest.importorskip("seglearn")
    monkeypatch.setattr("hiddenscope.experiments.datasets.motion.motion_installed", lambda: False)
    experiment = all_experiments()["seq2seq"]
    first = Context(tmp_path, quick=True)
    summary = json.loads(carry_out(experiment, first, pictures=False).read_text())
    assert summary["status"] == "finished"
    assert any("pybullet" in note for note in summary["notes"])
    assert {"epochs.csv", "known-modes.csv", "ellipses-paths-after.html", "watch-segments.html"} <= set(
        summary["files"]
    )
    run = open_run(tmp_path / "runs" / "watch")
    assert run.layers == ("encoder", "decoder")
    stored = {(key.layer, key.method) for key in run.results.keys()}  # noqa: SIM118
    assert stored >= {("decoder", "pod"), ("encoder", "pod"), ("decoder", "separability"), ("decoder", "segmentation")}
    assert run.results.get("decoder", "pod").attrs["parts"] == ["encoder", "decoder"]
    again = Context(tmp_path, quick=True)
    carry_out(experiment, again, pictures=False)
    assert again.reused == first.computed == ["ellipses", "watch"]


def test_a_page_that_writes_the_results_does_not_stop_the_experiment(tmp_path, monkeypatch):
    """As one does that is open on the folder: it holds the results of every run below it."""
    task = ellipses(quick=True, seed=0)
    opened = []

    def train_and_be_watched(folder, *given, **named):
        model = train(folder, *given, **named)
        opened.append(ResultStore.open(open_run(folder).location, writable=True))
        return model

    monkeypatch.setattr("hiddenscope.experiments.sequence_models.train", train_and_be_watched)
    context = Context(tmp_path, quick=True)
    found = observe(task, tmp_path / "run", units=4, epochs=1, seed=0, quick=True, context=context)
    opened.pop().close()
    assert any("a page that is open" in note for note in context.notes)
    assert found["label"].shape == found["truth"].shape == task.long_truth.shape
    draw(context, "ellipses", open_run(tmp_path / "run"), found)
    assert "ellipses-segments.html" in context.files
