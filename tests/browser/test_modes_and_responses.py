"""Modes and responses of a real encoder and decoder in a real browser: every view, and the time-lapse in 3-D."""

import os
import subprocess
import sys

import pytest

from hiddenscope.analyses.analyze import analyze
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.command import listen
from hiddenscope.dashboard.worker import Worker
from hiddenscope.experiments.experiment import Context
from hiddenscope.experiments.seq2seq import ellipses, observe

pytestmark = pytest.mark.browser

DRAWN = """names => {
  const graphs = [...document.querySelectorAll('#panel-body .js-plotly-plot')];
  const there = graphs.map(graph => graph.parentElement.id || graph.parentElement.parentElement.id);
  const drawn = graphs.every(graph => graph._fullLayout) && !document.querySelector('#panel-body.drawing');
  return drawn && names.every(name => there.some(id => id.includes(name)));
}"""
SCENE = "document.querySelector('#panel-body .js-plotly-plot')"
TITLED = f"text => {{ const graph = {SCENE}; return graph && graph._fullLayout && graph._fullLayout.scene && \
graph._fullLayout.scene._scene && graph._fullLayout.title.text.startsWith(text); }}"
EYE = f"() => {SCENE}._fullLayout.scene._scene.getCamera().eye.x"


def turn(page):
    """Turn the first graph with the mouse, as a reader does, and say where it is seen from then."""
    before = page.evaluate(EYE)
    page.evaluate(f"() => {SCENE}.scrollIntoView({{block: 'center'}})")
    box = page.locator("#panel-body .js-plotly-plot").first.bounding_box()
    x, y = box["x"] + box["width"] / 3, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y + 30, steps=8)
    page.mouse.up()
    page.wait_for_function(f"before => Math.abs(({EYE})() - before) > 0.01", arg=before)
    page.wait_for_timeout(500)  # the scene comes to rest
    page.evaluate("() => document.activeElement.blur()")  # arrows are for the page
    return page.evaluate(EYE)


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    context = Context(tmp_path_factory.mktemp("out"), quick=True)
    observe(ellipses(quick=True, seed=0), folder / "seq2seq", units=8, epochs=3, seed=0, quick=True, context=context)
    analyze(folder / "seq2seq", methods=["responses"], progress=False)
    worker = Worker(folder)
    while worker.turn():
        pass
    worker.close()
    return folder


@pytest.fixture(scope="module")
def address(logdir, serve_here):
    return serve_here(create_app(logdir))


def test_the_modes_are_drawn_and_a_step_in_time_keeps_the_point_of_view(page, address):
    page.goto(f"{address}/?run=seq2seq&layer=decoder&panel=pod")
    page.wait_for_function(DRAWN, arg=["pod-paths", "pod-course", "pod-scree", "pod-modes", "pod-segments"])
    page.wait_for_function(TITLED, arg="epoch 2")
    assert page.input_value("#layer") == "decoder"
    seen_from = turn(page)
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(TITLED, arg="epoch 1")
    assert page.evaluate(EYE) == pytest.approx(seen_from, abs=1e-3)


def test_the_responses_have_their_views(page, address):
    page.goto(f"{address}/?run=seq2seq&layer=encoder&panel=responses")
    names = ["responses-epochs", "responses-map", "responses-bode", "responses-extremes"]
    page.wait_for_function(DRAWN, arg=names)
    assert "Driven: " in page.inner_text("#panel-body")
    page.goto(f"{address}/?run=seq2seq&layer=encoder&panel=responses&responses.view=every+unit")
    page.wait_for_function(DRAWN, arg=["responses-bars"])
    page.goto(f"{address}/?run=seq2seq&layer=encoder&panel=responses&responses.view=removal")
    page.wait_for_function(DRAWN, arg=["responses-removal-none"])
    page.get_by_role("tab", name="Units").click()
    page.wait_for_selector("#unit-table .ag-row")
    header = page.inner_text("#unit-table .ag-header")
    for column in ("energy share", "settling time", "gain", "phase"):
        assert column in header.lower()


def test_both_are_in_the_tab_of_tensorboard(page, logdir):
    with listen("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True, env=environment)
    count = "count => document.querySelectorAll('#panel-body .js-plotly-plot .main-svg').length >= count"
    try:
        assert server.stderr is not None
        assert any("http://" in line for line in server.stderr), "TensorBoard did not start"
        page.goto(f"http://127.0.0.1:{port}/data/plugin/hiddenscope/index.html?panel=pod")
        page.wait_for_function(count, arg=5)
        page.wait_for_function(TITLED, arg="epoch 2")
        seen_from = turn(page)
        page.keyboard.press("ArrowLeft")
        page.wait_for_function(TITLED, arg="epoch 1")
        assert page.evaluate(EYE) == pytest.approx(seen_from, abs=1e-3)
        page.get_by_role("tab", name="Responses").click()
        page.wait_for_function("() => document.getElementById('panel-body').innerText.includes('Driven: ')")
        page.wait_for_function(count, arg=4)
    finally:
        page.goto("about:blank")  # it would miss the server
        server.terminate()
        server.wait(timeout=30)
        assert server.stderr is not None
        server.stderr.close()
