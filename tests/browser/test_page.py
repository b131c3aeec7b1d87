"""The page in a real browser: what it draws, while a real training records in another process."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

pytestmark = pytest.mark.browser

TRAINING = """
import sys, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import pytorch_lightning as pl, torch
from torch import nn
import hiddenscope as hs

torch.set_num_threads(1)
pl.seed_everything(0)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

    def training_step(self, batch, _):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Steered(pl.Callback):
    # Trains only as many epochs as the file allows.

    def on_train_epoch_end(self, trainer, module):
        while int(Path(sys.argv[2]).read_text() or 0) <= trainer.current_epoch:
            time.sleep(0.05)


x = torch.randn(64, 10, 3)
y = (x[:, :, 0].sum(1) > 0).long()
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=16)
monitor = hs.HiddenStateMonitor(probe=(x[:12], y[:12]))
pl.Trainer(
    max_epochs=9, default_root_dir=sys.argv[1], callbacks=[monitor, Steered()], accelerator="cpu",
    enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False,
).fit(Net(), data)
"""

CURVE = """name => {
  const graph = document.querySelector('#curves .js-plotly-plot');
  const found = graph && graph._fullData && graph._fullData.find(trace => trace.name === name);
  return found ? (found.type === 'heatmap' ? found.z[0].length : found.x.length) : 0;
}"""
POINTS = """() => {
  const graph = document.querySelector('#picture .js-plotly-plot');
  return graph && graph._fullData && graph._fullData.length ? graph._fullData[0].x.length : 0;
}"""
TRACES = """() => {
  const graph = document.querySelector('#picture .js-plotly-plot');
  return graph._fullData.map(trace => ({
    name: trace.name, type: trace.type, count: trace.x.length, opacity: trace.opacity,
    epochs: Array.from(new Set(Array.from(trace.customdata || [], row => row[0]))),
    units: Array.from(new Set(Array.from(trace.customdata || [], row => row[2]))),
    colors: trace.marker && trace.marker.color && trace.marker.color.length > 7
      && typeof trace.marker.color !== 'string' ? Array.from(trace.marker.color) : null,
  }));
}"""
EPOCHS, STEPS, UNITS, SAMPLES = 6, 8, 7, 12


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A finished run of known numbers, with its picture."""
    logdir = tmp_path_factory.mktemp("logs")
    rng = np.random.default_rng(0)
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(SAMPLES),
        labels=np.arange(SAMPLES) % 3,
        label_names=("walk", "sit", "stand"),
        probe_fingerprint="probe",
        model="Net",
    )
    with SnapshotWriter.open(logdir / "version_0" / "hiddenscope", description) as writer:
        for epoch in range(-1, EPOCHS - 1):
            states = rng.normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1 / (epoch + 2)}))
        writer.finish("finished")
    worker = Worker(logdir)
    assert worker.turn()
    worker.close()
    assert open_run(logdir).results.get("lstm", "mmphate") is not None, "no picture was made"
    return logdir


@pytest.fixture(scope="module")
def address(serve, recorded):
    """Where the finished run is shown; one server for all tests that only look."""
    return serve(recorded, "--no-worker")


def open_view(page, address, query=""):
    page.goto(address + query)
    page.wait_for_function(f"() => ({POINTS})() > 0")
    page.wait_for_function(f"() => ({CURVE})('train_loss') > 0")


@pytest.mark.timeout(900)
def test_points_and_curves_appear_and_grow_while_a_training_runs(page, serve, tmp_path):
    page.goto(serve(tmp_path))
    page.wait_for_selector("text=Waiting for the first run")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    allowed = tmp_path / "allowed"
    allowed.write_text("3")
    training = subprocess.Popen([sys.executable, "-c", TRAINING, str(tmp_path), str(allowed)], env=environment)
    try:
        page.wait_for_function(f"() => ({CURVE})('train_loss') >= 1", timeout=240_000)
        page.wait_for_function(f"() => ({POINTS})() > 0", timeout=240_000)
        first_points = page.evaluate(POINTS)
        assert first_points % (10 * 8) == 0, "every step and unit of each embedded epoch"
        first = {name: page.evaluate(CURVE, name) for name in ("mean over steps", "intra-step entropy", "unit 3")}
        assert all(count >= 1 for count in first.values())
        assert page.locator("#status .dot.training").is_visible()
        allowed.write_text("6")
        page.wait_for_function(f"() => ({CURVE})('train_loss') >= 5", timeout=240_000)
        page.wait_for_function(f"() => ({POINTS})() > {first_points}", timeout=240_000)
        for name, count in first.items():
            page.wait_for_function(f"() => ({CURVE})('{name}') > {count}", timeout=240_000)
        allowed.write_text("9")
        assert training.wait(timeout=150) == 0
        page.wait_for_function("() => document.getElementById('status').innerText.includes('finished')")
        page.wait_for_function(
            "() => document.getElementById('status').innerText.includes('picture of epoch 8')", timeout=240_000
        )
        page.wait_for_function(f"() => ({CURVE})('train_loss') === 9")
        page.wait_for_function(f"() => ({POINTS})() === {10 * 10 * 8}", timeout=240_000)
    finally:
        training.kill()
        training.wait()


def test_a_commit_is_on_the_curves_within_two_seconds(page, serve, tmp_path):
    description = RunDescription(
        layers=(LayerDescription("gru", "GRU", np.arange(4), np.arange(5)),),
        samples=np.arange(6),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
    )
    page.goto(serve(tmp_path, "--no-worker"))
    with SnapshotWriter.open(tmp_path / "hiddenscope", description) as writer:
        delays = []
        for epoch in range(4):
            states = np.zeros((5, 4, 6), dtype=np.float32)
            writer.append(Snapshot(float(epoch), {"gru": states}, {"loss": 1.0}))
            committed = time.monotonic()
            page.wait_for_function(f"() => ({CURVE})('loss') === {epoch + 1}", polling=20)
            delays.append(time.monotonic() - committed)
    # The first epoch also draws the page for the first time; and this machine may be busy, so the best counts.
    assert min(delays[1:]) < 2.0, delays


def test_the_picture_holds_every_node_and_its_colors_follow_the_choice(page, address):
    open_view(page, address, "?color=class")
    trace = page.evaluate(TRACES)[0]
    assert trace["type"] == "scatter3d"
    assert trace["count"] == EPOCHS * STEPS * UNITS
    assert set(trace["colors"]) == {0, 1, 2}
    page.click("#color")
    page.click("[role=option]:has-text('unit')")
    page.wait_for_function(f"() => new Set(({TRACES})()[0].colors).size === {UNITS}")
    page.click("text=2-D")
    page.wait_for_function(f"() => ({TRACES})()[0].type === 'scattergl'")


def test_the_camera_stays_where_the_reader_turned_it(page, address):
    open_view(page, address)
    eye = "() => document.querySelector('#picture .js-plotly-plot')._fullLayout.scene._scene.getCamera().eye"
    page.wait_for_function(f"() => {{ try {{ return ({eye})().x > 0; }} catch {{ return false; }} }}")
    before = page.evaluate(eye)
    box = page.locator("#picture").bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    for _ in range(5):  # a busy machine may miss a fast hand
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 120, y + 30, steps=8)
        page.mouse.up()
        page.wait_for_timeout(1_000)
        turned = page.evaluate(eye)
        if abs(turned["x"] - before["x"]) > 0.01:
            break
    assert abs(turned["x"] - before["x"]) > 0.01
    page.click("#color")
    page.click("[role=option]:has-text('unit')")
    page.wait_for_function(f"() => new Set(({TRACES})()[0].colors).size === {UNITS}")
    after = page.evaluate(eye)
    assert after == pytest.approx(turned, abs=1e-6)


def test_a_zoom_outlives_what_is_drawn_anew(page, address):
    open_view(page, address)
    ratio = (
        "() => document.querySelector('#picture .js-plotly-plot')._fullLayout.scene._scene.glplot.getAspectratio().x"
    )
    page.wait_for_function(f"() => {{ try {{ return ({ratio})() > 0; }} catch {{ return false; }} }}")
    whole = page.evaluate(ratio)
    box = page.locator("#picture").bounding_box()
    for _ in range(10):  # a busy machine may miss a fast hand
        page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(1_000)
        if abs(page.evaluate(ratio) / whole - 1) > 0.02:
            break
    zoomed = page.evaluate(ratio)
    assert abs(zoomed / whole - 1) > 0.02
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === 'now')")
    assert page.evaluate(ratio) == pytest.approx(zoomed, rel=0.05)


def test_arrow_keys_move_one_epoch_everywhere_and_escape_shows_all(page, address):
    open_view(page, address)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === 'now' && trace.epochs[0] === 3)")
    now = next(trace for trace in page.evaluate(TRACES) if trace["name"] == "now")
    assert now["count"] == STEPS * UNITS
    assert now["epochs"] == [EPOCHS - 3]
    trails = {epoch for trace in page.evaluate(TRACES) if trace["name"] == "trail" for epoch in trace["epochs"]}
    assert trails == set(range(-1, EPOCHS - 3)), "what went before fades behind"
    assert "epoch 3" in page.inner_text("#epoch-label")
    line = page.locator("#curve-cursor")
    assert line.is_visible()
    expected = page.evaluate(
        "() => { const g = document.querySelector('#curves .js-plotly-plot'); const a = g._fullLayout.xaxis;"
        " return g.getBoundingClientRect().left + a._offset + a.d2p(3); }"
    )
    assert line.bounding_box()["x"] == pytest.approx(expected, abs=2)
    page.keyboard.press("Escape")
    page.wait_for_function(f"() => ({TRACES})().length === 1")
    assert not line.is_visible()


def test_space_plays_through_all_epochs_and_stops_at_the_end(page, address):
    open_view(page, address)
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => window.seen.push("
        "document.getElementById('epoch-label').innerText)).observe(document.getElementById('epoch-label'),"
        " {childList: true, characterData: true, subtree: true}); }"
    )
    page.keyboard.press(" ")
    page.wait_for_function(f"() => window.seen.includes('epoch {EPOCHS - 2}')")
    seen = page.evaluate("() => window.seen")
    assert seen[0] == "before training"
    assert list(dict.fromkeys(seen))[1:] == [f"epoch {epoch}" for epoch in range(EPOCHS - 1)]
    page.wait_for_function("() => document.getElementById('play').innerText.includes('\u25b6')")


def test_a_link_holds_the_whole_view(page, address):
    query = "?run=version_0&layer=lstm&color=step&view=2&epoch=2&units=1,5&log=1"
    open_view(page, address, query)
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === 'unit 5')")
    traces = {trace["name"]: trace for trace in page.evaluate(TRACES)}
    assert traces["now"]["type"] == "scattergl"
    assert traces["now"]["epochs"] == [2]
    assert traces["unit 1"]["units"] == [1]
    page.wait_for_function("() => document.querySelector('#curves .js-plotly-plot')._fullLayout.yaxis.type === 'log'")
    kept = page.evaluate("() => location.search")
    for part in ("run=version_0", "color=step", "view=2", "epoch=2", "units=1", "log=1"):
        assert part in kept


def test_a_unit_picked_on_its_curve_is_brought_forward_in_both_views(page, address):
    open_view(page, address)
    spot = page.evaluate(
        """() => {
          const g = document.querySelector('#curves .js-plotly-plot');
          const trace = g._fullData.find(t => t.name === 'unit 2'), box = g.getBoundingClientRect();
          const x = g._fullLayout.xaxis, y = g._fullLayout['yaxis' + trace.yaxis.slice(1)];
          return [box.left + x._offset + x.d2p(trace.x[3]), box.top + y._offset + y.d2p(trace.y[3])];
        }"""
    )
    page.mouse.move(*spot)
    page.wait_for_selector("#curves .hoverlayer .hovertext")
    picked = page.text_content("#curves .hoverlayer .hovertext").split(":")[0].strip()
    assert picked.startswith("unit ")
    page.mouse.click(*spot)
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === '{picked}')")
    page.wait_for_function(
        "name => document.querySelector('#curves .js-plotly-plot')._fullData.find(t => t.name === name).line.width > 2",
        arg=picked,
    )


def test_a_point_picked_in_the_picture_brings_its_unit_forward(page, address):
    open_view(page, address, "?view=2")
    page.wait_for_function(f"() => ({TRACES})()[0].type === 'scattergl'")
    spot = page.evaluate(
        """() => {
          const g = document.querySelector('#picture .js-plotly-plot'), box = g.getBoundingClientRect();
          const trace = g._fullData[0], x = g._fullLayout.xaxis, y = g._fullLayout.yaxis;
          return [box.left + x._offset + x.d2p(trace.x[40]), box.top + y._offset + y.d2p(trace.y[40])];
        }"""
    )
    page.mouse.move(*spot)
    page.wait_for_selector("#picture .hoverlayer .hovertext")
    picked = page.text_content("#picture .hoverlayer .hovertext").split("step")[0].strip()
    page.mouse.click(*spot)
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === '{picked}')")
    units = next(trace for trace in page.evaluate(TRACES) if trace["name"] == picked)["units"]
    assert [f"unit {unit}" for unit in units] == [picked]
    page.evaluate("() => dash_clientside.set_props('units', {data: []})")
    page.wait_for_function(f"() => ({TRACES})().length === 1")


def test_a_unit_picked_in_the_table_is_brought_forward_and_the_table_follows_the_views(page, address):
    open_view(page, address)
    page.locator("#unit-table .ag-row[row-id='4'] .ag-cell").nth(1).click()
    page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === 'unit 4')")
    assert page.locator("#unit-table .ag-row[role=row][row-id]").count() >= UNITS
    page.evaluate("() => dash_clientside.set_props('units', {data: ['2']})")
    page.wait_for_selector("#unit-table .ag-row-selected[row-id='2']")
    page.wait_for_function(f"() => !({TRACES})().some(trace => trace.name === 'unit 4')")


def test_the_theme_is_kept_and_both_appearances_are_drawn_in_their_own_colors(page, address):
    open_view(page, address)
    color = "() => document.querySelector('#curves .js-plotly-plot')._fullLayout.font.color"
    light = page.evaluate(color)
    page.click("#theme")
    page.wait_for_function(f"() => ({color})() !== '{light}'")
    assert page.evaluate("() => document.documentElement.dataset.mantineColorScheme") == "dark"
    page.reload()
    page.wait_for_function(f"() => ({CURVE})('train_loss') > 0")
    assert page.evaluate("() => document.documentElement.dataset.mantineColorScheme") == "dark"


def test_everything_essential_fits_on_a_small_laptop_screen(page, address):
    page.set_viewport_size({"width": 1280, "height": 720})
    open_view(page, address)
    for part in ("#picture", "#curves", "#status", "#transport"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0, part
        assert box["y"] + box["height"] <= 720, part
        assert box["x"] + box["width"] <= 1280, part
        assert box["width"] > 100, part
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 1280


def test_every_control_has_a_name_that_a_screen_reader_can_say(page, address):
    open_view(page, address)
    nameless = page.evaluate(
        """() => Array.from(document.querySelectorAll('main button, main input, main [role=slider]'))
          .filter(e => !e.closest('.modebar-container') && e.type !== 'hidden' && !e.hidden)
          .filter(e => !(e.getAttribute('aria-label') || e.getAttribute('aria-labelledby') || e.innerText
                         || (e.labels && e.labels.length)))
          .map(e => e.outerHTML.slice(0, 120))"""
    )
    assert nameless == []


def test_a_run_that_cannot_be_read_harms_no_other(page, serve, tmp_path, recorded):
    broken = tmp_path / "broken" / "hiddenscope" / "snapshots"
    broken.mkdir(parents=True)
    (broken / "repo").write_bytes(b"\x00\x01 not a repository")
    shutil.copytree(recorded / "version_0", tmp_path / "version_0")
    open_view(page, serve(tmp_path, "--no-worker"))
    assert page.evaluate(POINTS) == EPOCHS * STEPS * UNITS
    page.click("#run")
    page.click("[role=option]:has-text('broken (killed)')")
    page.wait_for_selector("text=broken ended before its first epoch")
    page.click("#run")
    page.click("[role=option]:has-text('version_0')")
    page.wait_for_selector("#picture", state="visible")
    assert not page.is_visible("#empty")
