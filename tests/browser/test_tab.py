"""The tab HIDDENSCOPE in a real TensorBoard and a real browser."""

import numpy as np
import pytest

from hiddenscope.description import LayerDescription, RunDescription, Snapshot
from hiddenscope.store import SnapshotWriter

pytestmark = pytest.mark.browser

STEPS, UNITS, SAMPLES = 6, 5, 8
COUNT = """([id, k]) => {
  const graph = document.querySelector('#' + id + ' .js-plotly-plot');
  return graph && graph._fullData && graph._fullData[k] ? graph._fullData[k].x.length : 0;
}"""


def record(writer, epoch):
    states = np.random.default_rng(int(epoch)).normal(size=(STEPS, UNITS, SAMPLES)).astype(np.float32)
    writer.append(Snapshot(float(epoch), {"lstm": states}, {"train_loss": 1.0 / (epoch + 1)}))


TRACES = """() => document.querySelector('#picture .js-plotly-plot')._fullData.map(
  trace => ({ name: trace.name, count: trace.x.length }))"""


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "options", [(), ("--load_fast=false", "--path_prefix=/deep/down")], ids=["default loader", "slow loader, prefix"]
)
def test_the_tab_shows_a_run_as_it_grows_in_the_page_of_tensorboard(page, tensorboard, tmp_path, options):
    page.set_default_timeout(240_000)  # TensorBoard, its data server and the worker start together
    description = RunDescription(
        layers=(LayerDescription("lstm", "LSTM", np.arange(UNITS), np.arange(STEPS)),),
        samples=np.arange(SAMPLES),
        labels=None,
        label_names=None,
        probe_fingerprint="probe",
        model="Net",
    )
    with SnapshotWriter.open(tmp_path / "version_0" / "hiddenscope", description) as writer:
        record(writer, 0)
        record(writer, 1)
        page.goto(f"{tensorboard(tmp_path, *options)}/data/plugin/hiddenscope/index.html")
        page.wait_for_function(f"() => ({COUNT})(['curves', 0]) === 2")
        page.wait_for_function(f"() => ({COUNT})(['picture', 0]) === {2 * STEPS * UNITS}")
        record(writer, 2)
        page.wait_for_function(f"() => ({COUNT})(['curves', 0]) === 3")
        page.wait_for_function(f"() => ({COUNT})(['picture', 0]) === {3 * STEPS * UNITS}")
        page.keyboard.press("ArrowLeft")
        page.wait_for_function("() => document.getElementById('epoch-label').textContent === 'epoch 1'")
        assert page.locator("#curve-cursor").is_visible()
        assert page.input_value("#run") == "version_0"
        page.keyboard.press("Escape")
        page.wait_for_selector("#panel-body tr[data-unit]")
        rows = "() => Array.from(document.querySelectorAll('#panel-body tr[data-unit]'), row => row.dataset.unit)"
        assert page.evaluate(rows) == [str(unit) for unit in range(UNITS)]
        page.click("#panel-body th button >> nth=0")
        assert page.evaluate(rows) == [str(unit) for unit in reversed(range(UNITS))]
        page.click("#panel-body tr[data-unit='3']")
        page.wait_for_function(f"() => ({TRACES})().some(trace => trace.name === 'unit 3')")
        assert "unit 3" in page.inner_text("#chosen")
        page.click("#chosen button")
        page.wait_for_function(f"() => ({TRACES})().length === 1")
        page.select_option("#method", "pca")
        page.wait_for_function("() => document.getElementById('note').textContent.includes('embedded')")
        page.select_option("#dimensions", "2")
        page.wait_for_function(f"() => ({COUNT})(['picture', 0]) === {3 * STEPS * UNITS}")
