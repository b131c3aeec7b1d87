"""The lower part of the page in a real browser: tabs, what they draw and when, what is picked in them, addresses."""

import numpy as np
import plotly.graph_objects as go
import pytest
from dash import dcc, html

from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.panels import Panel
from hiddenscope.dashboard.worker import Worker
from hiddenscope.description import Snapshot
from hiddenscope.results import ResultStore
from hiddenscope.run import open_run
from hiddenscope.store import SnapshotWriter
from store_examples import of_one_layer

pytestmark = pytest.mark.browser

drawings: list[str] = []


def draw_units(scene):
    drawings.append("units")
    figure = go.Figure(
        go.Bar(
            x=list(range(5)),
            y=[1] * 5,
            customdata=[str(unit) for unit in scene.view.result["unit"].values],
            marker_color=["#000" if str(unit) in scene.units else "#ccc" for unit in range(5)],
        )
    )
    at = "all epochs" if scene.epoch is None else f"epoch {scene.epoch:g}"
    told = f"{at}, {scene.options['scale']}, units {'+'.join(scene.units)}, {scene.run.version == scene.view.version}"
    return [html.P(told, id="told"), dcc.Graph(id={"type": "panel-units", "name": "toy"}, figure=figure)]


def draw_epochs(scene):
    drawings.append("epochs")
    figure = go.Figure(go.Bar(x=scene.run.epochs.tolist(), y=[1] * len(scene.run.epochs)))
    return [dcc.Graph(id={"type": "panel-epochs", "name": "toy"}, figure=figure)]


def draw_broken(scene):
    raise RuntimeError("the moon is in the way")


PANELS = (
    Panel("toy", "Toy", "A toy.", (), draw_units, {"scale": ("scale", ("linear", "log"))}, follows_cursor=True),
    Panel("epochs", "Epochs", "Another toy.", (), draw_epochs),
    Panel("broken", "Broken", "It never draws.", (), draw_broken),
    Panel("later", "Later", "What comes later.", ("later",), draw_epochs),
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logs")
    description = of_one_layer(8, 5, 6)
    rng = np.random.default_rng(0)
    with SnapshotWriter.open(logdir / "version_0" / "hiddenscope", description) as writer:
        for epoch in range(4):
            states = rng.normal(size=(8, 5, 6)).astype(np.float32)
            writer.append(Snapshot(float(epoch), {"lstm": states}, {"loss": 1.0}))
        writer.finish("finished")
    worker = Worker(logdir)
    assert worker.turn()
    worker.close()
    return logdir


@pytest.fixture(scope="module")
def address(recorded, serve_here):
    return serve_here(create_app(recorded, panels=PANELS))


def told(page, text):
    page.wait_for_function("text => document.getElementById('told')?.innerText.includes(text)", arg=text)


def bar(page, at):
    """The middle of a bar on the screen, when it is drawn."""
    page.wait_for_function("() => document.querySelector('#panel-body .js-plotly-plot .bars path')")
    page.wait_for_function("() => !document.querySelector('#panel-body.drawing')")
    page.evaluate("() => document.querySelector('#panel-body .js-plotly-plot').scrollIntoView({block: 'center'})")
    return page.evaluate(
        """at => {
          const g = document.querySelector('#panel-body .js-plotly-plot'), box = g.getBoundingClientRect();
          return [box.left + g._fullLayout.xaxis._offset + g._fullLayout.xaxis.d2p(at), box.top + box.height / 2];
        }""",
        at,
    )


def test_a_panel_is_drawn_when_it_is_opened_and_again_only_when_it_would_look_different(page, address):
    page.goto(address)
    page.wait_for_selector("#unit-table .ag-row")
    drawings.clear()
    page.get_by_role("tab", name="Toy").click()
    told(page, "all epochs, linear, units , True")
    page.locator("#unit-table").wait_for(state="hidden")
    with page.expect_response(lambda answer: "panel-news" in (answer.request.post_data or "")):
        pass
    assert drawings == ["units"], "ticks alone draw nothing"
    page.evaluate("() => document.activeElement.blur()")  # arrows on a tab go to the next tab
    page.keyboard.press("ArrowLeft")
    told(page, "epoch 2")
    page.get_by_role("textbox", name="scale").click()
    page.get_by_role("option", name="log").click()
    told(page, "epoch 2, log")
    page.get_by_role("tab", name="Units").click()
    page.locator("#unit-table").wait_for(state="visible")
    page.wait_for_function("() => document.getElementById('panel-body').children.length === 0")
    count = len(drawings)
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.getElementById('epoch-label').innerText === 'epoch 1'")
    with page.expect_response(lambda answer: "panel-news" in (answer.request.post_data or "")):
        pass
    assert len(drawings) == count, "what is hidden is not drawn"


def test_units_picked_in_a_panel_are_seen_everywhere_and_clicks_on_epochs_move_the_cursor(page, address):
    page.goto(address + "?panel=toy")
    told(page, "all epochs")
    page.mouse.click(*bar(page, 3))
    told(page, "units 3")
    page.wait_for_function(
        "() => document.querySelector('#picture .js-plotly-plot')._fullData.some(trace => trace.name === 'unit 3')"
    )
    page.mouse.click(*bar(page, 1))
    told(page, "units 3+1")
    page.mouse.click(*bar(page, 3))
    told(page, "units 1")
    page.get_by_role("tab", name="Epochs").click()
    page.wait_for_function("() => !document.getElementById('told')")  # the panel before is gone
    page.mouse.click(*bar(page, 2))
    page.wait_for_function("() => document.getElementById('epoch-label').innerText === 'epoch 2'")


def test_the_address_holds_the_open_panel_and_its_options(page, address):
    page.goto(address + "?panel=toy&toy.scale=log&epoch=1")
    told(page, "epoch 1, log")
    page.wait_for_function("() => location.search.includes('toy.scale=log') && location.search.includes('run=')")
    page.get_by_role("tab", name="Broken").click()
    page.wait_for_function("() => location.search.includes('panel=broken')")
    assert "toy.scale" not in page.evaluate("() => location.search")
    page.goto(address + "?panel=nonsense&toy.scale=nonsense")
    page.wait_for_selector("#unit-table .ag-row")


def test_a_broken_panel_says_so_and_one_without_results_says_how_to_get_them(page, address, recorded):
    page.goto(address + "?panel=broken")
    page.wait_for_selector("text=the moon is in the way")
    assert page.locator("#picture .js-plotly-plot").is_visible()
    page.get_by_role("tab", name="Later").click()
    page.wait_for_selector("text=Not computed yet")
    assert f"hiddenscope analyze {recorded}/version_0" in page.inner_text("#panel-body")
    run = open_run(recorded)
    with ResultStore.open(run.location, writable=True) as store:
        store.put("lstm", "later", {}, run.results.get("lstm", "mmphate")[["inter_step_entropy"]])
    page.wait_for_function("() => document.querySelector('#panel-body .bars path')")
