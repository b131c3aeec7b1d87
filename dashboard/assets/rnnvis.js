/* What happens under the pointer in the pictures of RNNVis: a word paints the units it moves and is tied to their chips,
   a unit marks the words that move it, a word of a sentence shows the states there. Nothing is asked of the server. */
(function () {
  "use strict";

  const decoded = new WeakMap();

  /* The rows of a table of bytes, -127 to 127, as plotly.py sends it. */
  function table(spec) {
    if (Array.isArray(spec)) return spec;
    if (!decoded.has(spec)) {
      const text = atob(spec.bdata);
      const bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
      const values = new Int8Array(bytes.buffer);
      const width = Number(String(spec.shape).split(",")[1]);
      const found = [];
      for (let i = 0; i + width <= values.length; i += width) found.push(values.subarray(i, i + width));
      decoded.set(spec, found);
    }
    return decoded.get(spec);
  }

  function tie(from, to, strength, widest, colors) {
    const middle = (from[0] + to[0]) / 2;
    return {
      type: "path",
      path: "M" + from[0] + "," + from[1] + " C" + middle + "," + from[1] + " " + middle + "," + to[1] + " " + to[0] + "," + to[1],
      line: { color: strength > 0 ? colors.positive : colors.negative, width: Math.max(0.5, widest * Math.abs(strength)) },
      opacity: strength ? 0.5 : 0,
      layer: "below",
    };
  }

  function blend(value, colors) {
    if (Math.abs(value) < 0.15) return colors.muted;
    return value > 0 ? colors.positive : colors.negative;
  }

  /* Word and unit are positions, or -1. */
  function paintMap(graph, word, unit) {
    const meta = graph.layout.meta, responses = table(meta.responses);
    const key = word + "/" + unit;
    if (graph.dataset.painted === key && graph.rnnvisData === graph.data) return;
    graph.dataset.painted = key;
    graph.rnnvisData = graph.data;
    if (!graph.rnnvisFonts || graph.rnnvisFonts.meta !== meta) {
      graph.rnnvisFonts = { meta, colors: graph.data[meta.traces.words].textfont.color.slice() };
      graph.rnnvisShapes = (graph.layout.shapes || []).slice(0, meta.shapes);
    }
    const count = meta.units.length;
    const values = word < 0 ? new Array(count).fill(0) : Array.from(responses[word], (value) => value * meta.scale);
    let fonts = graph.rnnvisFonts.colors;
    if (word >= 0) fonts = fonts.map((color, i) => (i === word ? meta.colors.accent : color));
    else if (unit >= 0) fonts = fonts.map((color, i) => blend((responses[i][unit] * meta.scale) / meta.limit, meta.colors));
    const ties = word < 0 ? [] : meta.chips.map((chip, k) =>
      tie(chip, [meta.words[word][0] - meta.fonts[word] * 0.3 * meta.lengths[word], meta.words[word][1]], meta.links[word][meta.link_columns[k]], 10, meta.colors));
    window.Plotly.update(
      graph,
      { "marker.color": [values, undefined], "textfont.color": [undefined, fonts] },
      { shapes: graph.rnnvisShapes.concat(ties) },
      [meta.traces.units, meta.traces.words],
    );
  }

  function paintSentence(graph, step) {
    const meta = graph.layout.meta, states = table(meta.states);
    if (graph.dataset.step === String(step) && graph.rnnvisData === graph.data) return;
    graph.dataset.step = String(step);
    graph.rnnvisData = graph.data;
    const shapes = (graph.layout.shapes || []).slice(0, meta.shapes).concat(
      meta.rows.map((y, k) => tie([meta.columns[step], y], [meta.chips_left, y], meta.links[step][k], 9, meta.colors)));
    const layout = { shapes };
    meta.words.forEach((_, i) => {
      layout["annotations[" + (meta.word_annotations + i) + "].font.color"] = i === step ? meta.colors.accent : meta.colors.text;
    });
    window.Plotly.update(
      graph, { "marker.color": [Array.from(states[step], (value) => value * meta.scale)] }, layout, [meta.traces.units]);
  }

  const pointOf = (event) => (event && event.points && event.points.length ? event.points[0] : null);
  const ready = (graph, kind) => graph && graph.layout && graph.layout.meta && graph.layout.meta.kind === kind && graph.data;

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    rnnvis: {
      hoverMap: function (event, words) {
        const paint = () => {
          const graph = document.querySelector(".rnnvis-map .js-plotly-plot");
          if (!ready(graph, "rnnvis")) return;
          const meta = graph.layout.meta, point = pointOf(event);
          let word = -1, unit = -1;
          if (point && point.curveNumber === meta.traces.words) word = point.pointNumber;
          else if (point && point.curveNumber === meta.traces.units) unit = point.pointNumber;
          else if (words && words.length) word = meta.names.indexOf(words[words.length - 1]);
          paintMap(graph, word, unit);
        };
        if (pointOf(event)) paint();
        else window.setTimeout(paint, 60); // a picture that has just come is not drawn yet
      },
      clickMap: function (event, words) {
        const graph = document.querySelector(".rnnvis-map .js-plotly-plot"), point = pointOf(event);
        if (!point || !ready(graph, "rnnvis") || point.curveNumber !== graph.layout.meta.traces.words) return window.dash_clientside.no_update;
        const name = graph.layout.meta.names[point.pointNumber];
        const kept = (words || []).filter((other) => other !== name);
        return kept.length < (words || []).length ? kept : kept.concat([name]).slice(-4);
      },
      hoverSentence: function (event, id) {
        const box = document.getElementById(JSON.stringify(id, Object.keys(id).sort()));
        const graph = box && box.querySelector(".js-plotly-plot");
        if (!ready(graph, "sentence")) return;
        const meta = graph.layout.meta, point = pointOf(event);
        const cell = point && point.curveNumber === meta.traces.cells;
        if (point && !cell) return;
        const place = cell ? point.customdata : null;
        paintSentence(graph, place ? Number(place[0]) : meta.selected);
      },
    },
  });
})();
