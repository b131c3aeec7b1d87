"""The panels in TensorBoard's tab answer to the pointer: words and units picked there are seen in all of it."""

import threading
from types import SimpleNamespace

import pytest
from werkzeug.exceptions import NotFound
from werkzeug.serving import make_server

from drawn import point_until
from hiddenscope.dashboard.library import Library

pytest.importorskip("tensorboard")
pytestmark = pytest.mark.browser

PLACE = """([kind, at]) => {
  const g = document.querySelector('.rnnvis-map .js-plotly-plot'), l = g._fullLayout;
  g.scrollIntoView({block: 'center'});
  const box = g.getBoundingClientRect(), trace = g._fullData[g.layout.meta.traces[kind]];
  return [box.left + l.xaxis._offset + l.xaxis.d2p(trace.x[at]), box.top + l.yaxis._offset + l.yaxis.d2p(trace.y[at])];
}"""
MAP = "document.querySelector('.rnnvis-map .js-plotly-plot')"
PICTURE = "document.querySelector('#picture .js-plotly-plot')"


@pytest.fixture(scope="module")
def address(words_read):
    from hiddenscope.dashboard.tensorboard.plugin import HiddenscopePlugin

    plugin = HiddenscopePlugin(SimpleNamespace(logdir=str(words_read)))
    plugin._library = Library(words_read)  # which needs no worker: all is computed
    apps = plugin.get_plugin_apps()

    def serve(environ, start_response):
        return apps.get(environ["PATH_INFO"], NotFound())(environ, start_response)

    server = make_server("127.0.0.1", 0, serve, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/index.html"
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_words_and_units_picked_in_a_panel_are_seen_in_the_picture_and_the_other_panels(page, address):
    page.goto(address + "?panel=rnnvis")
    page.wait_for_function(f"() => {MAP} && document.querySelectorAll('.rnnvis-map .textpoint').length > 5")
    page.wait_for_function(f"() => {PICTURE} && {PICTURE}.data.length > 0")
    at = page.evaluate(f"{MAP}.layout.meta.names.indexOf('dull')")
    point_until(
        page,
        lambda: page.evaluate(PLACE, ["words", at]),
        f"() => Array.from({MAP}.data[{MAP}.layout.meta.traces.units].marker.color).some((value) => value !== 0)",
    )
    page.mouse.click(*page.evaluate(PLACE, ["words", at]))
    page.wait_for_function("() => document.getElementById('focus-label').textContent.includes('\u201cdull\u201d')")
    page.wait_for_function(f"() => {PICTURE}.data.some((trace) => (trace.name || '').startsWith('picked: '))")
    page.wait_for_function(f"() => {MAP} && document.querySelectorAll('.rnnvis-map .textpoint').length > 5")
    page.mouse.click(*page.evaluate(PLACE, ["units", 3]))
    page.wait_for_function(f"() => {PICTURE}.data.some((trace) => trace.name === 'unit 3')")
    page.get_by_role("tab", name="Activations").click()
    page.wait_for_function(
        """() => Array.from(document.querySelectorAll('#panel-body .js-plotly-plot')).some((g) =>
          g.layout && JSON.stringify(g.layout.xaxis.ticktext || '').includes('<b>dull</b>'))"""
    )
    page.locator("#focus-label").click()
    page.wait_for_function(f"() => !{PICTURE}.data.some((trace) => (trace.name || '').startsWith('picked: '))")
    assert page.locator("#focus-label").is_hidden()
