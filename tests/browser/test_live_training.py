"""The whole page, and TensorBoard's tab, in use while a real Lightning training goes on in another process.

One training serves the module. It advances by an epoch where a test says so: what the reader has done must have its
effect, and must outlive what that epoch brings.
"""

import json
import os
import sys
import time

import numpy as np
import pytest

from drawn import CURVE, EYE, NAMELESS, PATIENCE_MS, TRACES, assert_fits, choose, turn_camera, until
from hiddenscope.analyses.phases import phases_of_all
from hiddenscope.analyses.standard import PHASES
from hiddenscope.dashboard import journal
from hiddenscope.description import Snapshot
from hiddenscope.errors import HiddenscopeError
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter
from live_training import STEPS, UNITS, Training

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

FIRST = 6
"""Epochs that are there before most tests begin."""
FINISHED = {"earlier": 4, "other": 3, "long": 30}
"""Runs that have finished, and their epochs."""
CURVES = "document.querySelector('#curves .js-plotly-plot')"
LABEL = "document.getElementById('epoch-label').innerText"


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    return tmp_path_factory.mktemp("live") / "lightning_logs"


@pytest.fixture(scope="module")
def address(serve, logdir):
    """The page, served with its worker before there is anything to show."""
    return serve(logdir)


@pytest.fixture(scope="module")
def live(address, logdir):
    """The training that goes on through all tests."""
    with Training(logdir, "live") as training:
        yield training
        assert training.process.poll() is None, "the training has ended by itself"


@pytest.fixture(scope="module")
def finished(live, logdir):
    """Runs on the same probe that have finished, one of them with phases; the worker sees them whole, or not yet."""
    aside = logdir.parent / "aside"
    description = recorded(live).description
    rng = np.random.default_rng(0)
    for name, epochs in FINISHED.items():
        with SnapshotWriter.open(aside / name / "hiddenscope", description) as writer:
            for epoch in range(epochs):
                shape = (STEPS, UNITS, len(description.samples))
                writer.append(
                    Snapshot(float(epoch), {"lstm": rng.normal(size=shape).astype(np.float32)}, {"train_loss": 0.5})
                )
            writer.finish("finished")
    run = open_run(aside / "long")
    rises = run.trace("lstm")["epoch"].astype(float).drop_vars("epoch") / 10
    rises = rises.assign_coords(epoch=run.epochs) + 0.1 * rng.normal(size=FINISHED["long"])
    with ResultStore.open(run.location, writable=True) as store:
        made = {"made_from": run.fingerprint("lstm"), "covers_epoch": run.epochs[-1]}
        found = phases_of_all({"intra-step entropy (picture)": rises}, n_controls=99).assign_attrs(made)
        store.put("lstm", PHASES.method, PHASES.parameters, found)
    for name in FINISHED:
        os.rename(aside / name, logdir / name)
    return found


def recorded(training):
    """The run of a training, once its first epoch is there."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while True:
        assert training.process.poll() is None, "the training has ended by itself"
        try:
            run = open_run(training.run)
            if len(run.epochs):
                return run
        except HiddenscopeError:
            pass
        assert time.monotonic() < deadline, "no epoch was recorded"
        time.sleep(0.05)


def wait(page, condition, arg=None):
    return page.wait_for_function(condition, arg=arg, timeout=PATIENCE_MS)


def opened(page, address, live, query=""):
    """The page of the live run, with all that is recorded so far."""
    if live.allowed < FIRST:
        live.allow(FIRST)
    page.goto(f"{address}?run=live{query}")
    arrived(page, live)


def arrived(page, live):
    """Wait until the newest epoch is on the curves."""
    wait(page, f"count => ({CURVE})('mean over steps') === count", live.recorded)
    wait(page, f"count => ({CURVE})('train_loss') === count", live.allowed)


def one_more(page, live):
    """Let an epoch be trained, and wait until it is on the curves, and in the picture unless that shows a part."""
    epoch = live.one_more()
    arrived(page, live)
    return epoch


def pictured(page, epoch, condition="true"):
    """Wait until an epoch is in the picture, and a condition holds for its traces."""
    return until(page, f"traces.length && traces[0].epochs.includes({epoch}) && ({condition})")


def test_an_empty_page_waits_for_the_training_and_grows_with_it_from_the_untrained_network_on(page, address, request):
    page.goto(address)
    page.wait_for_selector("text=Waiting for the first run")
    assert "HiddenStateMonitor" in page.inner_text("#empty")
    live = request.getfixturevalue("live")
    (cloud,) = pictured(page, -1)
    assert cloud["count"] == STEPS * UNITS
    wait(page, f"() => {LABEL} === 'one epoch'")
    wait(page, "() => document.getElementById('status').innerText.includes('untrained network recorded')")
    page.wait_for_selector("#status .dot.training")
    mean = next(trace for trace in until(page, "traces.length > 0", "curves") if trace["name"] == "mean over steps")
    assert mean["count"] == 1
    assert "markers" in mean["mode"], "a line through one epoch would be invisible"
    assert page.evaluate(f"() => {CURVES}._fullLayout.annotations.some(a => a.text === 'no metric is logged yet')")
    assert page.locator("#picture-note .gauge").count() == 0, "six slices have no ten neighbors"
    page.keyboard.press(" ")  # there is nothing to play
    assert page.inner_text("#play") == "\u25b6"
    live.allow(FIRST)
    (cloud,) = pictured(page, FIRST - 1)
    assert cloud["count"] == (FIRST + 1) * STEPS * UNITS
    arrived(page, live)
    for name in ("train_accuracy", "10th percentile", "90th percentile", "intra-step entropy", "unit 3"):
        wait(page, f"() => ({CURVE})('{name}') === {FIRST + (not name.startswith('train'))}")
    wait(page, f"() => document.getElementById('status').innerText.includes('picture of epoch {FIRST - 1}')")
    page.wait_for_selector("#picture-note .trust .gauge >> nth=3")
    said = page.get_attribute("#picture-note .trust", "aria-label")
    for phrase in ("within a step", "across steps", "no false neighbors", "distances in order", "by chance"):
        assert phrase in said
    assert_fits(page, 1280, 720)
    assert page.evaluate(NAMELESS) == []


def test_every_color_outlives_the_epochs_that_arrive(page, address, live):
    opened(page, address, live)
    titles = {
        "step": "step",
        "unit": "unit",
        "most active class": "most active class",
        "intra-step entropy": "intra-step entropy (nats)",
        "inter-step entropy": "inter-step entropy (nats)",
        "loss": "train_loss",
        "unit cluster": "unit cluster",
    }
    values = {"step": set(range(STEPS)), "unit": set(range(UNITS)), "most active class": {0, 1}}
    for label, title in titles.items():
        choose(page, "color", label)
        until(page, f"traces.length && traces[0].title === '{title}'")
        epoch = live.one_more()
        cloud = pictured(page, epoch, f"traces[0].title === '{title}'")[0]
        assert cloud["count"] == live.recorded * STEPS * UNITS
        if label in values:
            assert set(cloud["colors"]) == values[label]
        if label == "loss":
            losses = open_run(live.run).metrics()["train_loss"].to_numpy()[1:]
            drawn = np.array(cloud["colors"], dtype=float).reshape(live.recorded, -1)
            np.testing.assert_allclose(drawn[1:, 0], losses, rtol=1e-5)
    # The units are clustered after the picture is made, and the colors follow then.
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while (clusters := open_run(live.run).results.get("lstm", "clusters")).attrs["covers_epoch"] != epoch:
        assert time.monotonic() < deadline, "the units of the newest epoch were never clustered"
        time.sleep(0.1)
    names = [str(name) for name in clusters["unit_cluster"].values]
    codes = [sorted({name for name in names if name}).index(name) if name else None for name in names]
    wait(
        page, f"codes => JSON.stringify(({TRACES})()[0].colors.slice(0, codes.length)) === JSON.stringify(codes)", codes
    )


def test_camera_zoom_and_filter_outlive_the_epochs_that_arrive_and_a_reload(page, address, live):
    opened(page, address, live)
    until(page, "traces.length > 0 && traces[0].type === 'scatter3d'")
    turned = turn_camera(page)
    pictured(page, one_more(page, live))
    assert page.evaluate(EYE) == pytest.approx(turned, abs=1e-6)
    page.locator("#dimensions").get_by_text("2-D").click()
    until(page, "traces.length && traces[0].type === 'scattergl'")
    ranges = """() => { const l = document.querySelector('#picture .js-plotly-plot')._fullLayout;
      return [...l.xaxis.range, ...l.yaxis.range]; }"""
    whole = page.evaluate(ranges)
    box = page.locator("#picture .nsewdrag").first.bounding_box()
    for _ in range(5):  # a busy machine may miss a fast hand
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] * 0.3)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=8)
        page.mouse.up()
        page.wait_for_timeout(500)
        zoomed = page.evaluate(ranges)
        if abs(zoomed[1] - zoomed[0]) < 0.8 * abs(whole[1] - whole[0]):
            break
    assert abs(zoomed[1] - zoomed[0]) < 0.8 * abs(whole[1] - whole[0])
    pictured(page, one_more(page, live), "traces[0].type === 'scattergl'")
    assert page.evaluate(ranges) == pytest.approx(zoomed)
    page.click("#part")
    page.get_by_role("slider", name="first of the steps shown").press("ArrowRight")
    until(page, f"traces[0].steps.length === {STEPS - 1} && !traces[0].steps.includes(0)")
    page.get_by_role("slider", name="last of the epochs shown").press("ArrowLeft")
    last = live.newest - 1
    shown = f"Math.max(...traces[0].epochs) === {last} && traces[0].steps.length === {STEPS - 1}"
    until(page, shown)
    page.keyboard.press("Escape")
    one_more(page, live)
    wait(page, f"() => document.getElementById('status').innerText.includes('picture of epoch {live.newest}')")
    until(page, shown)
    page.reload()
    arrived(page, live)
    until(page, f"traces.length && traces[0].type === 'scattergl' && {shown}")
    page.click("#part")
    page.click("text=show all steps and epochs")
    pictured(page, live.newest, f"traces[0].steps.length === {STEPS}")


def test_cursor_play_log_and_smoothing_outlive_the_epochs_that_arrive_and_a_reload(page, address, live):
    opened(page, address, live)
    pictured(page, live.newest)
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    at = live.newest - 2

    def stands(page):
        """The cursor is at its epoch, everywhere."""
        traces = until(page, f"traces.some(t => t.name === 'now' && t.epochs.length === 1 && t.epochs[0] === {at})")
        trails = {epoch for trace in traces if trace["name"] == "trail" for epoch in trace["epochs"]}
        assert trails == set(range(max(-1, at - 10), at)), "what went before fades behind"
        wait(page, f"() => {LABEL} === 'epoch {at}'")
        x = page.evaluate(
            f"() => {{ const g = {CURVES}, a = g._fullLayout.xaxis;"
            f" return g.getBoundingClientRect().left + a._offset + a.d2p({at}); }}"
        )
        assert page.locator("#curve-cursor").bounding_box()["x"] == pytest.approx(x, abs=2)

    stands(page)
    pictured(page, one_more(page, live))
    stands(page)
    log = f"() => {CURVES}._fullLayout.yaxis.type"
    smooth = f"() => ({CURVES}.layout.annotations[0].text.match(/smoothed by [.0-9]+/) || [''])[0]"
    raw = f"() => {CURVES}._fullData.filter(t => t.name === 'train_loss').length"
    assert (page.evaluate(log), page.evaluate(smooth), page.evaluate(raw)) == ("linear", "", 1), "off by default"
    page.get_by_role("switch", name="log loss").click()
    wait(page, f"() => ({log})() === 'log'")
    for _ in range(10):
        page.get_by_role("slider", name="smoothing of loss and metrics").press("ArrowRight")
    wait(page, f"() => ({smooth})() === 'smoothed by 0.5'")
    assert page.evaluate(raw) == 2, "the values themselves stay visible"

    def looks_like_that(page):
        wait(page, f"() => ({log})() === 'log' && ({smooth})() === 'smoothed by 0.5' && ({raw})() === 2")
        stands(page)

    one_more(page, live)
    pictured(page, live.newest)
    looks_like_that(page)
    page.reload()
    arrived(page, live)
    looks_like_that(page)
    thumb = page.get_by_role("slider", name="epoch", exact=True)
    thumb.focus()
    thumb.press("Home")
    wait(page, f"() => {LABEL} === 'before training'")
    until(page, "traces.some(t => t.name === 'now' && t.epochs[0] === -1)")
    page.evaluate("() => document.activeElement.blur()")
    page.evaluate(
        "() => { window.seen = []; new MutationObserver(() => window.seen.push("
        "document.getElementById('epoch-label').innerText)).observe(document.getElementById('epoch-label'),"
        " {childList: true, characterData: true, subtree: true}); }"
    )
    newest = live.one_more()
    page.keyboard.press(" ")
    arrived(page, live)
    wait(page, "() => document.getElementById('play').innerText.includes('\u25b6')")
    if page.evaluate(f"() => {LABEL}") != f"epoch {newest}":  # it was through before the epoch came
        page.keyboard.press(" ")
        wait(page, f"() => {LABEL} === 'epoch {newest}'")
    seen = page.evaluate("() => Array.from(new Set(window.seen))")
    for epoch in range(newest + 1):
        assert f"epoch {epoch}" in seen
    page.keyboard.press("Escape")
    pictured(page, newest, "traces.length === 1")
    assert not page.locator("#curve-cursor").is_visible()


def test_a_zoom_of_the_curves_outlives_the_epochs_that_arrive(page, address, live):
    opened(page, address, live)
    box = page.locator("#curves .nsewdrag").first.bounding_box()
    span = f"() => {{ const r = {CURVES}._fullLayout.xaxis.range; return r[1] - r[0]; }}"
    whole = page.evaluate(span)
    for _ in range(5):  # a busy machine may miss a fast hand
        y = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.2, y)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=8)
        page.mouse.up()
        page.wait_for_timeout(500)
        zoomed = page.evaluate(span)
        if zoomed < 0.6 * whole:
            break
    assert zoomed < 0.6 * whole
    one_more(page, live)
    assert page.evaluate(span) == pytest.approx(zoomed)


def test_phases_stay_shaded_while_another_run_is_trained(page, address, live, finished):
    kinds = [str(kind) for kind in finished["phase_kind"].values.ravel() if kind in ("processing", "compression")]
    assert kinds
    page.goto(f"{address}?run=long")
    shaded = f"() => ({CURVES}?._fullLayout?.shapes || []).filter(s => s.layer === 'below').map(s => s.name)"
    wait(page, f"kinds => JSON.stringify(({shaded})()) === JSON.stringify(kinds)", kinds)
    assert page.evaluate(f"() => {CURVES}.layout.annotations.filter(a => a.text === '{kinds[0]}').length") == 1
    live.one_more()
    page.wait_for_timeout(1500)
    assert page.evaluate(shaded) == kinds


def test_what_is_picked_and_how_the_table_is_sorted_outlive_the_epochs_that_arrive(page, address, live):
    opened(page, address, live)
    pictured(page, live.newest)
    rows = """() => Array.from(document.querySelectorAll('#unit-table .ag-center-cols-container .ag-row'))
      .sort((a, b) => Number(a.getAttribute('row-index')) - Number(b.getAttribute('row-index')))
      .map(row => row.getAttribute('row-id'))"""
    wait(page, f"count => ({rows})().length === count", UNITS)
    header = page.locator("#unit-table .ag-header-cell[col-id='entropy']")
    header.locator(".ag-header-cell-label").click()
    page.wait_for_selector("#unit-table .ag-header-cell[col-id='entropy'][aria-sort='ascending']")

    def by_entropy():
        result = open_run(live.run).results.get("lstm", "mmphate")
        assert result.attrs["covers_epoch"] == live.newest
        values = result["inter_step_entropy"].isel(epoch=-1)
        return [str(values["unit"].values[at]) for at in np.argsort(values.values, kind="stable")]

    wait(page, f"order => JSON.stringify(({rows})()) === JSON.stringify(order)", by_entropy())
    page.locator("#unit-table .ag-row[row-id='4'] .ag-cell").nth(1).click()
    picked = "traces.some(t => t.name === 'unit 4' && t.units.length === 1 && t.count === {})"
    until(page, picked.format(live.recorded * STEPS))
    until(page, f"traces.some(t => t.name === 'unit 4 path' && t.count === {live.recorded})")
    epoch = one_more(page, live)
    pictured(page, epoch, picked.format(live.recorded * STEPS))
    until(page, f"traces.some(t => t.name === 'unit 4 path' && t.count === {live.recorded})")
    until(page, f"traces.some(t => t.name === 'unit 4' && t.width > 2 && t.count === {live.recorded})", "curves")
    assert page.inner_text("#chosen").startswith("unit 4")
    page.wait_for_selector("#unit-table .ag-row-selected[row-id='4']")
    page.wait_for_selector("#unit-table .ag-header-cell[col-id='entropy'][aria-sort='ascending']")
    wait(page, f"order => JSON.stringify(({rows})()) === JSON.stringify(order)", by_entropy())
    header = page.locator("#unit-table .ag-header-cell[col-id='unit']")
    header.hover()
    header.locator(".ag-header-cell-filter-button").click()
    page.locator(".ag-filter input[type=text]").first.fill("4")
    wait(page, f"() => JSON.stringify(({rows})()) === '[\"4\"]'")
    pictured(page, one_more(page, live))
    wait(page, f"() => JSON.stringify(({rows})()) === '[\"4\"]'")
    click_of = """name => { const g = document.querySelector('#curves .js-plotly-plot');
      const at = g.data.findIndex(trace => trace.name === name);
      g.emit('plotly_click', { points: [{ curveNumber: at, pointNumber: 1, x: g._fullData[at].x[1] }] }); }"""
    page.evaluate(click_of, "unit 7")
    until(page, "traces.some(t => t.name === 'unit 7') && traces.some(t => t.name === 'unit 4')")
    page.keyboard.press("Escape")
    wait(page, f"() => {CURVES}.data.some(trace => (trace.name || '').startsWith('cluster '))")
    members = page.evaluate(
        f"() => {CURVES}.data.filter(t => (t.name || '').startsWith('cluster ')).map(t => [t.name, t.meta.units])"
    )
    name, units = max(members, key=lambda one: len(one[1]))
    page.evaluate(click_of, name)
    brought = f"traces.filter(t => {json.dumps(units)}.includes(t.name.replace('unit ', ''))).length === {len(units)}"
    until(page, f"{brought} || traces.some(t => t.name === '{len(units)} units')")
    pictured(page, one_more(page, live), f"{brought} || traces.some(t => t.name === '{len(units)} units')")


def test_a_sequence_from_a_link_stays_ringed_everywhere_as_epochs_arrive(page, address, live):
    opened(page, address, live, "&sequence=3&epoch=2")
    ringed = "traces.some(t => t.name.startsWith('picked: sequence 3') && t.count > 0 && t.epochs[0] === 2)"
    until(page, ringed)
    assert page.locator("#focus-label").inner_text().startswith("picked: sequence 3")
    page.wait_for_selector("#unit-table .ag-row.ringed")
    pictured(page, one_more(page, live), ringed)
    page.wait_for_selector("#unit-table .ag-row.ringed")
    page.click("#focus-label")
    until(page, "!traces.some(t => (t.name || '').startsWith('picked: '))")


def test_another_method_follows_the_training_or_says_how_far_it_goes(page, address, live):
    opened(page, address, live)
    before = pictured(page, live.newest)[0]["first"]
    choose(page, "method", "PCA")
    (cloud,) = until(page, f"traces.length === 1 && traces[0].first !== {before}")
    assert cloud["count"] == live.recorded * STEPS * UNITS
    assert "by chance" in page.get_attribute("#picture-note .trust", "aria-label")
    made_at = one_more(page, live)
    pca = pictured(page, made_at)[0]["first"]
    assert page.input_value("#method") == "PCA"
    choose(page, "method", "PHATE")
    pictured(page, made_at, f"traces[0].first !== {pca}")
    one_more(page, live)
    wait(page, f"() => document.getElementById('picture-note').innerText.includes('up to epoch {made_at} of')")
    page.wait_for_selector("#picture-note .trust .gauge >> nth=3")
    page.reload()
    arrived(page, live)
    assert page.input_value("#method") == "PHATE"
    pictured(page, made_at)
    choose(page, "method", "MM-PHATE")
    pictured(page, live.newest)


def test_an_open_panel_is_drawn_anew_with_the_epochs_that_arrive(page, address, live):
    live.allow(max(live.allowed, 14))  # phases are not looked for in fewer
    opened(page, address, live, "&panel=checks&checks.entropy=inter-step")
    holds = """epoch => Array.from(document.querySelectorAll('#panel-body .js-plotly-plot'))
      .some(graph => (graph._fullData || []).some(trace => Array.from(trace.x || []).map(Number).includes(epoch)))"""
    wait(page, holds, live.newest)
    wait(page, holds, one_more(page, live))
    assert page.get_by_role("textbox", name="other embeddings").input_value() == "inter-step"
    kept = page.evaluate("() => new URLSearchParams(location.search).getAll('panel').join()")
    assert kept == "checks"


def test_runs_beside_each_other_grow_on_linked_axes_and_come_into_one_picture(page, address, live, finished):
    opened(page, address, live, "&panel=runs")
    for name in FINISHED:
        row = f"#runs-table .ag-row[row-id='{name}']"
        page.wait_for_selector(row)
        assert "finished" in page.inner_text(row)
        page.locator(f"{row} .ag-selection-checkbox input").click()
        wait(page, f"() => new URLSearchParams(location.search).getAll('compare').includes('{name}')")
    clouds = "traces.filter(t => t.type === 'scattergl' && t.mode === 'markers' && t.count > 7)"
    counts = [STEPS * UNITS * epochs for epochs in (live.recorded, *FINISHED.values())]
    until(page, f"JSON.stringify({clouds}.map(t => t.count)) === '{json.dumps(counts, separators=(',', ':'))}'",
          "compare-graph")  # fmt: skip
    page.evaluate("() => document.activeElement.blur()")  # in a table arrows go from row to row
    page.keyboard.press("ArrowLeft")
    one_more(page, live)
    counts[0] = STEPS * UNITS * live.recorded
    layout = "document.querySelector('#compare-graph .js-plotly-plot')._fullLayout"
    until(
        page,
        f"{clouds}.length >= 4 && {clouds}[0].count === {counts[0]}"
        f" && traces.filter(t => t.name.endsWith(' now')).length === 4",
        "compare-graph",
    )
    lines = page.evaluate(f"() => {layout}.shapes.filter(s => s.name === 'cursor').map(s => [s.xref, s.x0])")
    assert len(lines) == 4
    assert [ref for ref, _ in lines] == ["x", "x2", "x3", "x4"]
    assert len({x for _, x in lines}) == 1
    assert page.evaluate(f"() => [2, 3, 4].map(k => {layout}['xaxis' + k].matches)") == ["x", "x", "x"]
    assert page.evaluate(f"() => {layout}.xaxis4.range.join() === {layout}.xaxis.range.join()")
    page.reload()
    until(page, f"{clouds}.length >= 4 && {clouds}[0].count === {counts[0]}", "compare-graph")
    for name in ("other", "long"):
        page.locator(f"#runs-table .ag-row[row-id='{name}'] .ag-selection-checkbox input").click()
    wait(page, "() => new URLSearchParams(location.search).getAll('compare').join() === 'earlier'")
    page.get_by_text("in one picture").click()
    both = (
        "traces.some(t => t.name === 'live' && t.count === {}) && "
        "traces.some(t => t.name === 'earlier' && t.count === {})"
    )
    until(page, both.format(counts[0], counts[1]), "compare-graph")
    live.one_more()
    until(page, both.format(STEPS * UNITS * live.recorded, counts[1]), "compare-graph")
    wait(page, "() => new URLSearchParams(location.search).get('mode') === 'joint'")


def test_a_training_that_is_killed_and_resumed_is_called_so_and_the_other_goes_on(page, address, live, logdir):
    opened(page, address, live, "&panel=runs")
    row = "#runs-table .ag-row[row-id='second']"
    said = f"document.querySelector(\"{row} [col-id='status']\")?.innerText"
    with Training(logdir, "second") as second:
        wait(page, f"() => {said} === 'training'")
        page.locator(f"{row} [col-id='run']").click()
        wait(page, "() => new URLSearchParams(location.search).get('run') === 'second'")
        until(page, "traces.length && traces[0].epochs.join() === '-1'")
        wait(page, f"() => {LABEL} === 'one epoch'")
        second.allow(2)
        pictured(page, 1)
        second.wait_until_it_stands()
        second.kill()
        wait(page, f"() => ({said} || '').startsWith('killed')")
        wait(page, "() => document.getElementById('status').innerText.includes('killed')")
        page.wait_for_selector("#status .dot.killed")
        wait(page, "() => document.getElementById('run').value === 'second (killed)'")
    with Training(logdir, "second", allowed=3, epochs=4, resume=True) as second:
        wait(page, f"() => {said} === 'training, resumed after epoch 1'")
        second.allow(4)
        wait(page, f"() => {said} === 'finished, resumed after epoch 1'")
        (cloud,) = pictured(page, 3)
        assert cloud["count"] == 5 * STEPS * UNITS
        assert second.process.wait(timeout=PATIENCE_MS / 1000) == 0
    wait(page, "() => document.getElementById('status').innerText.includes('picture of epoch 3')")
    choose(page, "run", "live (training)")
    pictured(page, one_more(page, live))


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of another process")
def test_a_worker_that_cannot_store_its_pictures_is_named_with_advice_until_it_can(page, address, live):
    import resource

    opened(page, address, live)
    before = live.newest
    pictured(page, before)
    worker = journal.read(live.run).pid
    # As where a disk is full: nothing larger than the worker's own journal can be written.
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (3_500, resource.RLIM_INFINITY))
    try:
        live.one_more()
        page.wait_for_selector("#notice >> text=No new picture of layer lstm", timeout=PATIENCE_MS)
        assert "What to do: check that the disk is there and has room" in page.inner_text("#notice")
        wait(page, f"count => ({CURVE})('train_loss') === count", live.allowed)
        assert max(page.evaluate(TRACES)[0]["epochs"]) == before, "the last picture stays"
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    pictured(page, one_more(page, live))
    wait(page, "() => document.getElementById('notice').innerText === ''")


def test_the_tab_of_tensorboard_follows_the_training_and_draws_entropies_at_the_steps_of_the_loss(
    page, tensorboard, address, live, logdir
):
    if live.allowed < FIRST:
        live.allow(FIRST)
    server = tensorboard(logdir, "--reload_interval", "1")
    page.goto(f"{server}/data/plugin/hiddenscope/index.html")
    wait(page, "() => Array.from(document.getElementById('run').options, o => o.value).includes('live')")
    page.select_option("#run", "live")
    pictured(page, live.newest)
    arrived(page, live)
    assert page.inner_text("#status").startswith("training")
    page.select_option("#color", "unit")
    page.select_option("#dimensions", "2")
    page.check("#log")
    page.locator("#panel-body tr[data-unit='3']").click(timeout=PATIENCE_MS)
    page.keyboard.press("ArrowLeft")
    at = live.newest - 1
    looks = (
        "traces[0].type === 'scattergl' && traces[0].title === 'unit' && traces.some(t => t.name === 'unit 3')"
        f" && traces.some(t => t.name === 'now' && t.epochs[0] === {at})"
    )
    until(page, looks)
    wait(page, f"() => {CURVES}._fullLayout.yaxis.type === 'log'")
    live.one_more()
    pictured(page, live.newest, looks)
    arrived(page, live)
    until(page, f"traces.some(t => t.name === 'unit 3' && t.width > 2 && t.count === {live.recorded})", "curves")
    assert page.evaluate(f"() => {CURVES}._fullLayout.yaxis.type") == "log"
    assert page.locator("#panel-body tr.picked").get_attribute("data-unit") == "3"
    assert page.inner_text("#epoch-label") == f"epoch {at}"
    assert page.input_value("#run") == "live"

    def series(tag, run):
        """What Time Series draws: (step, value) of a scalar."""
        asked = json.dumps([{"plugin": "scalars", "tag": tag}])
        answer = page.request.post(f"{server}/data/plugin/timeseries/timeSeries", form={"requests": asked})
        found = answer.json()[0].get("runToSeries", {}).get(run, []) if answer.ok else []
        return [(point["step"], point["value"]) for point in found]

    def drawn():
        return series("train_loss", "live"), series("hiddenscope/lstm/intra_step_entropy", "live/hiddenscope")

    for _ in range(2):
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while [len(points) for points in drawn()] != [live.allowed, live.recorded]:
            assert time.monotonic() < deadline, f"{[len(points) for points in drawn()]} points of {live.allowed} epochs"
            time.sleep(0.5)
        losses, entropies = drawn()
        assert [step for step, _ in entropies[1:]] == [step for step, _ in losses], "side by side"
        expected = open_run(live.run).results.get("lstm", "mmphate")["intra_step_entropy"].mean("step").values
        assert [value for _, value in entropies] == pytest.approx(expected, abs=0.03)
        pictured(page, live.one_more())
    assert [step for step, _ in losses] == sorted({step for step, _ in losses})
