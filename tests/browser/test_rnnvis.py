"""The panel RNNVis in a real browser: pointing at words, clicking words and units, typing a sentence."""

import pytest

from drawn import point_until
from hiddenscope.dashboard.app import create_app
from hiddenscope.dashboard.panels.activations import PANEL as ACTIVATIONS
from hiddenscope.dashboard.panels.rnnvis import PANEL
from hiddenscope.dashboard.panels.search import PANEL as SEARCH

pytestmark = pytest.mark.browser

MAP = ".rnnvis-map .js-plotly-plot"
CELL = """(g, k) => {
  const box = g.getBoundingClientRect(), l = g._fullLayout, cells = g._fullData[g.layout.meta.traces.cells];
  const x = l.xaxis._offset + l.xaxis.d2p(cells.x[k]), y = l.yaxis._offset + l.yaxis.d2p(cells.y[k]);
  return [box.left + x, box.top + y];
}"""
"""Where the glyph of a word of a sentence is on the screen."""


@pytest.fixture(scope="module")
def address(words_read, serve_here):
    return serve_here(create_app(words_read, panels=(PANEL, ACTIVATIONS, SEARCH)))


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
    point_until(
        page,
        lambda: place(page, "words", 2),
        """selector => {
          const g = document.querySelector(selector), meta = g.layout.meta;
          const colors = Array.from(g.data[meta.traces.units].marker.color);
          const both = colors.some((value) => value > 0) && colors.some((value) => value < 0);
          return both && g.layout.shapes.length > meta.shapes;
        }""",
        MAP,
    )
    colors = """selector => {
      const g = document.querySelector(selector);
      return Array.from(g.data[g.layout.meta.traces.units].marker.color);
    }"""
    painted = page.evaluate(colors, MAP)
    page.evaluate("() => window.dash_clientside.rnnvis.show(null)")  # as when a new epoch is drawn beneath the pointer
    assert page.evaluate(colors, MAP) == painted
    page.mouse.move(5, 5)
    page.wait_for_function(f"selector => ({colors})(selector).every((value) => value === 0)", arg=MAP)
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
    point_until(
        page,
        lambda: graph.evaluate(CELL, 1),
        """() => {
          const g = document.querySelector('#rnnvis-sentences .js-plotly-plot'), meta = g.layout.meta;
          return g.layout.annotations[meta.word_annotations + 1].font.color === meta.colors.accent;
        }""",
    )


RINGS = """() => {
  const g = document.querySelector('#picture .js-plotly-plot');
  const ring = g && g.data && g.data.find((trace) => (trace.name || '').startsWith('picked: '));
  return ring ? Array.from(new Set(ring.customdata.map((row) => row[2] + '/' + row[1]))).sort() : null;
}"""


def ringed(page, said):
    """Which (unit/step) of the picture are ringed, once the page tells what is picked."""
    page.wait_for_function("text => document.getElementById('focus-label')?.innerText.includes(text)", arg=said)
    page.wait_for_function(f"(({RINGS})() || []).length > 0")
    return page.evaluate(RINGS)


def test_a_word_picked_in_one_view_is_seen_in_all(page, address):
    opened(page, address)
    name = "dull"
    at = page.evaluate("([map, name]) => document.querySelector(map).layout.meta.names.indexOf(name)", [MAP, name])
    page.mouse.click(*place(page, "words", at))
    units = {each.split("/")[0] for each in ringed(page, f"\u201c{name}\u201d")}
    assert 1 <= len(units) <= 7
    page.wait_for_function("word => new URLSearchParams(location.search).getAll('word').includes(word)", arg=name)
    page.wait_for_function(
        """name => {
          const g = document.querySelector('#rnnvis-sentences .js-plotly-plot');
          if (!g || !g.layout.meta || !g.layout.meta.words.includes(name)) return false;
          const k = g.layout.meta.words.indexOf(name), meta = g.layout.meta;
          return g.layout.annotations[meta.word_annotations + k].font.color === meta.colors.accent;
        }""",
        arg=name,
    )
    page.get_by_role("tab", name="Units", exact=True).click()
    page.wait_for_function(
        """units => {
          const rows = Array.from(document.querySelectorAll('#unit-table .ag-row.ringed'));
          return new Set(rows.map((row) => row.getAttribute('row-id'))).size === units;
        }""",
        arg=len(units),
    )
    page.get_by_role("tab", name="Activations").click()
    page.wait_for_function(
        """name => Array.from(document.querySelectorAll('#panel-body .js-plotly-plot')).some((g) =>
          g.layout && JSON.stringify(g.layout.xaxis.ticktext || '').includes('<b>' + name + '</b>'))""",
        arg=name,
    )
    page.get_by_role("button", name="picked").click()
    page.wait_for_function("() => document.getElementById('focus-label').hidden")
    page.wait_for_function(f"({RINGS})() === null")


def test_a_period_picked_in_one_view_is_seen_in_all(page, address):
    page.goto(address + "?panel=activations&units=3")
    row = page.locator("#panel-body .ag-center-cols-container [role=row]").nth(1)
    row.wait_for()
    start, end = (int(row.locator(f"[col-id={name}]").inner_text()) for name in ("start", "end"))
    row.locator("[col-id=peak]").click()
    said = f"step {start}" if start == end else f"steps {start} to {end}"
    assert set(ringed(page, said)) == {f"3/{step}" for step in range(start, end + 1)}
    sample = page.evaluate("() => new URLSearchParams(location.search).get('sequence')")
    page.get_by_role("tab", name="Similar states").click()
    page.wait_for_function(
        """([start, end]) => {
          const g = document.querySelector('#panel-body .js-plotly-plot');
          const shape = g && g.layout.shapes && g.layout.shapes[0];
          return shape && shape.x0 === start - 0.5 && shape.x1 === end + 0.5;
        }""",
        arg=[start, end],
    )
    page.get_by_role("tab", name="RNNVis").click()
    page.wait_for_function(
        """([sample, start]) => {
          const g = document.querySelector('#rnnvis-sentences .js-plotly-plot'), meta = g && g.layout && g.layout.meta;
          if (!meta || meta.sample !== sample) return false;
          const k = meta.steps.indexOf(start);
          return g.layout.annotations[meta.word_annotations + k].font.color === meta.colors.accent;
        }""",
        arg=[int(sample), start],
    )
    page.reload()
    assert set(ringed(page, said)) == {f"3/{step}" for step in range(start, end + 1)}, "the address holds it"
    match = "#panel-body .ag-center-cols-container [role=row]"
    page.get_by_role("tab", name="Similar states").click()
    page.locator(match).first.wait_for()
    page.locator(match).first.locator("[col-id=start]").click()
    page.wait_for_function("old => new URLSearchParams(location.search).get('period') !== old", arg=f"{start}~{end}")


def test_what_is_pointed_at_in_a_sentence_is_lit_in_the_map_and_a_click_picks_it(page, address):
    opened(page, address)
    page.locator("#rnnvis-text").fill("a very dull film")
    sentence = "#rnnvis-sentences .js-plotly-plot"
    page.wait_for_function(
        """selector => {
          const g = document.querySelector(selector);
          return g && g.layout && g.layout.meta && g.layout.meta.words.join(' ') === 'a very dull film';
        }""",
        arg=sentence,
    )
    graph = page.locator(sentence).first
    graph.scroll_into_view_if_needed()
    point_until(
        page,
        lambda: graph.evaluate(CELL, 2),
        """selector => {
          const g = document.querySelector(selector), meta = g.layout.meta, k = meta.names.indexOf('dull');
          return g.data[meta.traces.words].textfont.color[k] === meta.colors.accent;
        }""",
        arg=MAP,
    )
    for _ in range(20):  # a click falls through a picture that is drawn anew at that moment
        page.mouse.click(*graph.evaluate(CELL, 2))
        page.wait_for_timeout(500)
        if page.evaluate(RINGS):
            break
    ringed(page, "\u201cdull\u201d")
    page.wait_for_function(
        "() => Array.from(document.querySelectorAll('.rnnvis-details .js-plotly-plot')).some((g) => "
        "g.data && g.data.some((trace) => trace.name === 'in the sentence'))"
    )
