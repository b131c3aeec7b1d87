"""The panel RNNVis in a real browser: pointing at words, clicking words and units, typing a sentence."""

import sys
import threading
from pathlib import Path

import pytest

from hiddenscope.analyses.cocluster import COCLUSTER
from hiddenscope.analyses.studies import make
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.command import listen, serve
from hiddenscope.dashboard.panels.rnnvis import PANEL
from hiddenscope.results import ResultStore

sys.path.insert(0, str(Path(__file__).parents[1]))
from text_examples import record_reader

pytestmark = pytest.mark.browser

MAP = ".rnnvis-map .js-plotly-plot"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logs")
    run, _ = record_reader(logdir / "version_0")
    with ResultStore.open(run.location, writable=True) as store:
        make(COCLUSTER, run, "rnn", store)
    listener = listen("127.0.0.1", 0)
    server = serve(create_app(logdir, panels=(PANEL,)), listener)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.close()
    thread.join(timeout=10)


def opened(page, address):
    page.goto(address + "?panel=rnnvis")
    page.wait_for_function(f"() => document.querySelectorAll('{MAP} .textpoint').length > 5")
    page.locator(MAP).scroll_into_view_if_needed()


def place(page, kind, position):
    """Where a word or a unit is on the screen."""
    return page.evaluate(
        """([selector, kind, position]) => {
          const g = document.querySelector(selector), box = g.getBoundingClientRect(), l = g._fullLayout;
          const trace = g._fullData[g.layout.meta.traces[kind]];
          const x = l.xaxis._offset + l.xaxis.d2p(trace.x[position]);
          return [box.left + x, box.top + l.yaxis._offset + l.yaxis.d2p(trace.y[position])];
        }""",
        [MAP, kind, position],
    )


def test_a_word_paints_the_units_it_moves_and_a_click_compares_it(page, address):
    opened(page, address)
    page.mouse.move(*place(page, "words", 2))
    page.wait_for_function(
        """selector => {
          const g = document.querySelector(selector), meta = g.layout.meta;
          const colors = Array.from(g.data[meta.traces.units].marker.color);
          const both = colors.some((value) => value > 0) && colors.some((value) => value < 0);
          return both && g.layout.shapes.length > meta.shapes;
        }""",
        arg=MAP,
    )
    painted = page.evaluate(
        """selector => {
          const g = document.querySelector(selector);
          return Array.from(g.data[g.layout.meta.traces.units].marker.color);
        }""",
        MAP,
    )
    largest = max(range(len(painted)), key=lambda i: abs(painted[i]))
    page.mouse.click(*place(page, "words", 2))
    page.wait_for_function(
        "() => Array.from(document.querySelectorAll('.rnnvis-details .js-plotly-plot')).some((g) => "
        "g.data && g.data.some((trace) => trace.fill === 'toself' && trace.mode === 'lines'))"
    )
    page.mouse.click(*place(page, "units", largest))
    page.wait_for_function(
        "unit => Array.from(document.querySelectorAll('.rnnvis-details .js-plotly-plot')).some((g) => "
        "g.layout && JSON.stringify(g.layout).includes('words that unit ' + unit + ' answers'))",
        arg=largest,
    )
    page.wait_for_function("unit => location.search.includes('units=' + unit)", arg=largest)


def test_a_typed_sentence_becomes_glyphs_beside_those_of_another_epoch(page, address):
    opened(page, address)
    page.locator("#rnnvis-text").fill("Not a very good film, but unheard of")
    words = "g => g.layout && g.layout.meta && g.layout.meta.words ? g.layout.meta.words.join(' ') : ''"
    page.wait_for_function(
        f"() => Array.from(document.querySelectorAll('#rnnvis-sentences .js-plotly-plot')).map({words})"
        ".some((text) => text.startsWith('not a very good film'))"
    )
    page.locator("#rnnvis-against").click()
    page.get_by_role("option", name="epoch 0", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('#rnnvis-sentences .js-plotly-plot').length === 2")
    page.wait_for_function(
        f"() => new Set(Array.from(document.querySelectorAll('#rnnvis-sentences .js-plotly-plot')).map({words}))"
        ".size === 1"
    )
    graph = page.locator("#rnnvis-sentences .js-plotly-plot").first
    graph.scroll_into_view_if_needed()
    at = graph.evaluate(
        """g => {
          const box = g.getBoundingClientRect(), l = g._fullLayout, cells = g._fullData[g.layout.meta.traces.cells];
          const x = l.xaxis._offset + l.xaxis.d2p(cells.x[1]), y = l.yaxis._offset + l.yaxis.d2p(cells.y[1]);
          return [box.left + x, box.top + y];
        }"""
    )
    page.mouse.move(*at)
    page.wait_for_function(
        """() => {
          const g = document.querySelector('#rnnvis-sentences .js-plotly-plot'), meta = g.layout.meta;
          return g.layout.annotations[meta.word_annotations + 1].font.color === meta.colors.accent;
        }"""
    )
