"""Methods, parts, very many points, and runs beside each other, in a real browser."""

import numpy as np
import pytest
import xarray as xr

from hiddenscope.dashboard.picture import parameters
from hiddenscope.description import Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

pytestmark = pytest.mark.browser

STEPS, UNITS = 20, 20
EPOCHS = {"large": 60, "first": 5, "second": 4, "wide": 3}
WIDER = 26

TRACES = """id => {
  const graph = document.querySelector('#' + id + ' .js-plotly-plot');
  return (graph && graph._fullData || []).map(trace => ({
    name: trace.name, type: trace.type, count: trace.x ? trace.x.length : 0, opacity: trace.opacity,
    epochs: Array.from(new Set(Array.from(trace.customdata || [], row => row[0]))),
    steps: Array.from(new Set(Array.from(trace.customdata || [], row => row[1]))),
  }));
}"""


def record(folder, epochs, seed, units=UNITS):
    rng = np.random.default_rng(seed)
    description = of_one_layer(STEPS, units, 6)
    with SnapshotWriter.open(folder / "hiddenscope", description) as writer:
        for epoch in range(epochs):
            states = rng.normal(size=(STEPS, units, 6)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1 / (epoch + 1)}))
        writer.finish("finished")
    run = open_run(folder)
    cloud = xr.DataArray(
        rng.normal(size=(epochs, STEPS, units, 3)).astype(np.float32),
        dims=("epoch", "step", "unit", "component"),
        coords={"epoch": np.arange(float(epochs)), "step": np.arange(STEPS), "unit": np.arange(units)},
    )
    picture = xr.Dataset(
        {
            "embedding": cloud,
            "intra_step_entropy": cloud.mean(["unit", "component"]),
            "inter_step_entropy": cloud.mean(["step", "component"]),
            "most_active_class": xr.zeros_like(cloud.isel(component=0, drop=True), dtype=np.int32) - 1,
        },
        attrs={"covers_epoch": epochs - 1.0, "made_from": run.fingerprint("lstm"), "computed_at": 1.0, "seconds": 1.0},
    )
    with ResultStore.open(run.location, writable=True) as store:
        store.put("lstm", "mmphate", parameters(), picture)
        halves = xr.DataArray(np.repeat(["A", "B"], units // 2), dims="unit", coords={"unit": np.arange(units)})
        store.put("lstm", "clusters", {}, xr.Dataset({"unit_cluster": halves}))


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logs")
    for seed, (name, epochs) in enumerate(EPOCHS.items()):
        record(logdir / name, epochs, seed, WIDER if name == "wide" else UNITS)
    return serve(logdir)


def drawn(page, condition, graph="picture"):
    page.wait_for_function(f"() => {{ const traces = ({TRACES})('{graph}'); return {condition}; }}", timeout=150_000)
    return page.evaluate(TRACES, graph)


def test_a_cursor_in_a_cloud_with_gaps_shows_its_epoch_in_full(page, address):
    page.goto(address + "?run=large&epoch=7")
    traces = drawn(page, f"traces.some(t => t.name === 'now' && t.epochs[0] === 7 && t.count === {STEPS * UNITS})")
    assert traces[0]["count"] <= 5_000 < EPOCHS["large"] * STEPS * UNITS
    assert "of 24,000 points" in page.inner_text("#picture-note")
    page.keyboard.press("ArrowRight")
    drawn(page, f"traces.some(t => t.name === 'now' && t.epochs[0] === 8 && t.count === {STEPS * UNITS})")


def test_very_many_points_are_an_image_and_all_of_a_part_are_drawn_when_zoomed_into(page, address):
    page.goto(address + "?run=large&view=2")
    drawn(page, "traces.length === 1 && traces[0].type === 'scattergl' && traces[0].opacity === 0")
    image = "() => document.querySelectorAll('#picture .layer-below image, #picture image').length"
    assert page.evaluate(image) >= 1
    assert "all 24,000 points as an image" in page.inner_text("#picture-note")
    left, top, right, bottom = page.evaluate(
        """() => {
          const graph = document.querySelector('#picture .js-plotly-plot'), box = graph.getBoundingClientRect();
          const x = graph._fullLayout.xaxis, y = graph._fullLayout.yaxis;
          const place = at => [box.left + x._offset + x.d2p(at), box.top + y._offset + y.d2p(-at)];
          return [...place(-0.5), ...place(0.5)];
        }"""
    )
    page.mouse.move(left, top)
    page.mouse.down()
    page.mouse.move(right, bottom, steps=6)
    page.mouse.up()
    traces = drawn(page, "traces.some(t => t.name === 'in view')")
    seen = next(trace for trace in traces if trace["name"] == "in view")
    assert 500 < seen["count"] <= 20_000
    assert f"all {seen['count']:,} points here, of 24,000" in page.inner_text("#picture-note")
    low, high = page.evaluate("() => document.querySelector('#picture .js-plotly-plot')._fullLayout.yaxis.range")
    assert high - low < 2, "the zoom is kept"


def test_a_part_of_the_picture_is_chosen_by_sliders_and_held_by_the_address(page, address):
    page.goto(address + "?run=first&steps=3~5&epochs=1~2")
    traces = drawn(page, f"traces.length === 1 && traces[0].count === {2 * 3 * UNITS}")
    assert traces[0]["steps"] == [3, 4, 5]
    assert traces[0]["epochs"] == [1, 2]
    page.click("#part")
    page.get_by_role("slider", name="last of the steps shown").press("ArrowRight")
    drawn(page, f"traces[0].count === {2 * 4 * UNITS}")
    page.wait_for_function("() => location.search.includes('steps=3%7E6')")
    page.click("text=show all steps and epochs")
    drawn(page, f"traces[0].count === {EPOCHS['first'] * STEPS * UNITS}")


def test_another_method_is_shown_when_it_is_chosen(page, address):
    page.goto(address + "?run=first")
    before = drawn(page, "traces.length === 1 && traces[0].count > 0")
    first = "() => Array.from(document.querySelector('#picture .js-plotly-plot')._fullData[0].x.slice(0, 3))"
    places = page.evaluate(first)
    page.click("#method")
    page.click("[role=option]:has-text('PCA')")
    page.wait_for_function(f"places => JSON.stringify(({first})()) !== JSON.stringify(places)", arg=places)
    assert page.evaluate(TRACES, "picture")[0]["count"] == before[0]["count"]
    page.wait_for_function("() => location.search.includes('method=pca')")


def test_runs_side_by_side_share_cursor_and_axes_and_two_come_into_one_picture(page, address):
    page.goto(address + "?run=first&compare=second")
    traces = drawn(page, "traces.filter(t => t.type === 'scattergl').length === 2", "compare-graph")
    assert [trace["count"] for trace in traces if trace["type"] == "scattergl"] == [2_000, 1_600]
    layout = "document.querySelector('#compare-graph .js-plotly-plot')._fullLayout"
    assert page.evaluate(f"() => {layout}.xaxis2.matches") == "x"
    assert page.evaluate(f"() => {layout}.xaxis2.range.join() === {layout}.xaxis.range.join()")
    assert not page.locator("#picture").is_visible()
    page.keyboard.press("ArrowLeft")
    drawn(page, "traces.filter(t => t.name === 'embedding now').length === 2", "compare-graph")
    lines = page.evaluate(f"() => {layout}.shapes.map(shape => [shape.xref, shape.x0])")
    assert lines == [["x", 3], ["x2", 3]]
    page.click("text=in one picture")
    traces = drawn(
        page, "traces.some(t => t.name === 'first') && traces.some(t => t.name === 'second')", "compare-graph"
    )
    counts = {trace["name"]: trace["count"] for trace in traces}
    assert (counts["first"], counts["second"]) == (2_000, 1_600)
    page.wait_for_function("() => location.search.includes('mode=joint') && location.search.includes('compare=second')")
    page.keyboard.press("Escape")
    page.locator("#compare ~ * button, .picker button").first.click()
    page.wait_for_selector("#picture", state="visible")


CLICK = """name => {
  const graph = document.querySelector('#compare-graph .js-plotly-plot');
  const at = graph._fullData.findIndex(trace => trace.name === name), trace = graph._fullData[at];
  const point = { curveNumber: at, pointNumber: 2, x: trace.x[2], y: trace.y[2], data: graph.data[at] };
  graph.emit('plotly_click', { points: [point] });
}"""


def test_a_click_among_runs_side_by_side_picks_a_unit_or_an_epoch(page, address):
    page.goto(address + "?run=first&compare=second")
    drawn(page, "traces.filter(t => t.type === 'scattergl').length === 2", "compare-graph")
    page.evaluate(CLICK, "embedding")
    drawn(page, "traces.filter(t => t.name === 'unit 2').length === 2", "compare-graph")
    page.wait_for_function("() => location.search.includes('units=2')")
    page.evaluate(CLICK, "intra-step entropy")
    page.wait_for_function("() => document.getElementById('epoch-label').textContent === 'epoch 2'")


def test_a_click_in_the_picture_of_two_runs_picks_a_unit_with_its_match(page, address):
    page.goto(address + "?run=wide&compare=first&mode=joint")
    drawn(page, "traces.some(t => t.name === 'first')", "compare-graph")
    match = page.evaluate(
        """() => document.querySelector('#compare-graph .js-plotly-plot')._fullData
          .find(t => t.name === 'first').text[2]"""
    )
    page.evaluate(CLICK, "first")
    drawn(page, f"traces.filter(t => t.name === '{match}').length === 2", "compare-graph")
    label = match.removeprefix("unit ")
    page.wait_for_function(f"() => location.search.includes('units={label}')")


def test_runs_of_different_size_come_into_one_picture_with_their_units_matched(page, address):
    page.goto(address + "?run=wide&compare=first&mode=joint&units=3,25")
    traces = drawn(
        page,
        "traces.some(t => t.name === 'first') && traces.filter(t => t.name === 'unit 25').length === 1",
        "compare-graph",
    )
    counts = {trace["name"]: trace["count"] for trace in traces}
    assert (counts["first"], counts["wide"]) == (EPOCHS["first"] * STEPS * UNITS, EPOCHS["wide"] * STEPS * WIDER)
    said = page.inner_text("#compare-note")
    assert "units matched by response" in said
    assert f"{WIDER - UNITS} units of wide without a match" in said
    labels = page.evaluate(
        """() => document.querySelector('#compare-graph .js-plotly-plot')._fullData
          .filter(t => t.name === 'unit 3').map(t => [t.customdata[0][2], t.text[0], t.hovertemplate])"""
    )
    # The unit that is picked is the open run's; its match in the other run, if any, comes forward under its own number.
    wide = next(label for label in labels if "of wide<br>\u2194" in label[2])
    assert wide[0] == 3
    others = [label for label in labels if "of first<br>\u2194" in label[2]]
    assert ([f"unit {label[0]:g}" for label in others] or ["no unit"]) == [wide[1]]
    assert all(label[1] == "unit 3" for label in others)
    choice = page.get_by_role("textbox", name="how the units of the two runs are matched")
    choice.click()
    number = page.locator("[role=option]:has-text('by number')")
    assert number.get_attribute("data-combobox-disabled") == "true"
    page.click("[role=option]:has-text('by response')")
    page.wait_for_function("() => location.search.includes('match=response')")
    page.goto(address + "?run=wide&compare=first&mode=joint&match=number")
    page.wait_for_function(
        "() => (document.querySelector('#compare-graph .js-plotly-plot')?._fullLayout?.annotations || [])"
        ".some(note => note.text.includes('matching by number needs the same units'))"
    )
    page.click("text=side by side")
    choice.wait_for(state="hidden")
    page.wait_for_function("() => !location.search.includes('match=')")


def test_runs_are_listed_opened_by_their_name_and_compared_by_a_tick(page, address):
    page.goto(address + "?run=first&panel=runs")
    row = "#runs-table .ag-row[row-id='second']"
    page.wait_for_selector(row)
    said = page.inner_text(row)
    assert "finished" in said
    assert f"{EPOCHS['second']}" in said
    tick = page.locator(f"{row} .ag-selection-checkbox input")
    tick.click()
    page.wait_for_function("() => location.search.includes('compare=second')")
    drawn(page, "traces.filter(t => t.type === 'scattergl').length === 2", "compare-graph")
    assert tick.is_checked()
    tick.click()
    page.wait_for_function("() => !location.search.includes('compare=')")
    page.wait_for_selector("#picture", state="visible")
    page.locator(f"{row} [col-id='run']").click()
    page.wait_for_function("() => location.search.includes('run=second')")
    drawn(page, f"traces.length >= 1 && traces[0].count === {EPOCHS['second'] * STEPS * UNITS}")


def test_picked_units_stand_by_name_below_and_a_click_puts_one_back(page, address):
    page.goto(address + "?run=first&units=3,8")
    drawn(page, "traces.some(t => t.name === 'unit 8')")
    page.wait_for_selector("#chosen button >> nth=1")
    assert page.inner_text("#chosen").split("\u00d7")[0].strip() == "unit 3"
    page.click("#chosen button >> nth=0")
    drawn(page, "!traces.some(t => t.name === 'unit 3') && traces.some(t => t.name === 'unit 8')")
    page.wait_for_function("() => location.search.includes('units=8')")


def test_the_bars_below_the_picture_say_how_far_to_trust_it(page, address):
    page.goto(address + "?run=first&method=pca")
    drawn(page, "traces.length === 1 && traces[0].count > 0")
    page.wait_for_selector("#picture-note .trust .gauge >> nth=3")
    shown = page.evaluate(
        """() => Array.from(document.querySelectorAll('#picture-note .trust-part'), part => ({
          name: part.firstChild.textContent, full: parseFloat(part.querySelector('i').style.width),
          mark: parseFloat(part.querySelector('u').style.left),
          number: Number(part.querySelector('b').textContent) }))"""
    )
    whole = {"within a step": 10, "across steps": 10, "no false neighbors": 1, "distances in order": 1}
    assert [bar["name"] for bar in shown] == list(whole)
    for bar in shown:
        assert bar["full"] == pytest.approx(100 * bar["number"] / whole[bar["name"]], abs=1)
    marks = {bar["name"]: bar["mark"] for bar in shown}
    assert marks["no false neighbors"] == pytest.approx(50, abs=2)
    assert marks["distances in order"] == pytest.approx(0, abs=5)
    said = page.get_attribute("#picture-note .trust", "aria-label")
    assert "by chance" in said
    assert "trustworthiness" in said
    page.set_viewport_size({"width": 1280, "height": 720})
    strip = page.locator("#picture-note .trust")
    assert strip.evaluate("part => part.scrollWidth <= part.clientWidth"), "it fits on a small laptop"


def test_a_question_mark_explains_each_view(page, address):
    page.goto(address + "?run=first")
    drawn(page, "traces.length === 1 && traces[0].count > 0")
    page.get_by_role("button", name="how to read the embedding").click()
    page.wait_for_selector("text=Each point is one hidden unit at one time step")
    page.wait_for_selector("text=Distances in order: 1 when what lies farther apart always responds more differently")


def test_a_click_on_the_curve_of_a_cluster_brings_all_its_units_forward_and_another_puts_them_back(
    page, serve, tmp_path
):
    record(tmp_path / "alone", EPOCHS["first"], seed=7)
    page.goto(serve(tmp_path, "--no-worker"))  # a worker would find clusters of its own
    drawn(page, "traces.length === 1 && traces[0].count > 0")
    click = """() => {
      const graph = document.querySelector('#curves .js-plotly-plot');
      const at = graph.data.findIndex(trace => trace.name === 'cluster B'), trace = graph.data[at];
      const point = { curveNumber: at, pointNumber: 1, x: graph._fullData[at].x[1], data: trace };
      graph.emit('plotly_click', { points: [point] });
    }"""
    page.wait_for_function(
        "() => document.querySelector('#curves .js-plotly-plot').data.some(trace => trace.name === 'cluster B')"
    )
    page.evaluate(click)
    traces = drawn(page, f"traces.some(t => t.name === '{UNITS // 2} units')")
    brought = next(trace for trace in traces if trace["name"] == f"{UNITS // 2} units")
    assert brought["count"] == EPOCHS["first"] * STEPS * UNITS // 2
    page.wait_for_function(f"() => document.getElementById('chosen').innerText.includes('{UNITS // 2} units')")
    page.wait_for_selector(f"#unit-table .ag-row-selected[row-id='{UNITS // 2}']")
    page.evaluate(click)
    drawn(page, "traces.length === 1")
