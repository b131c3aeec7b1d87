"""The page in a real browser: what it draws of a run whose numbers are known."""

import shutil
import time

import numpy as np
import pytest

from drawn import CURVE, EYE, NAMELESS, POINTS, TRACES, assert_fits, turn_camera
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter

pytestmark = pytest.mark.browser

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
    turned = turn_camera(page)
    page.click("#color")
    page.click("[role=option]:has-text('unit')")
    page.wait_for_function(f"() => new Set(({TRACES})()[0].colors).size === {UNITS}")
    assert page.evaluate(EYE) == pytest.approx(turned, abs=1e-6)


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
    open_view(page, address)
    assert_fits(page, 1280, 720)


def test_every_control_has_a_name_that_a_screen_reader_can_say(page, address):
    open_view(page, address)
    assert page.evaluate(NAMELESS) == []


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
