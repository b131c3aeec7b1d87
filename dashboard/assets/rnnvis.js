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

  /* Step is a position, or -1 for the one that the picture was drawn with; words are names that are pointed at. */
  function paintSentence(graph, step, pointed) {
    const meta = graph.layout.meta, states = table(meta.states);
    const at = step < 0 ? meta.selected : step;
    const inPeriod = (k) => meta.sample !== null && meta.sample === picked.sample && picked.start !== null && meta.steps[k] >= picked.start && meta.steps[k] <= picked.end;
    const lit = meta.words.map((word, k) => k === at || pointed.includes(word) || picked.words.includes(word) || inPeriod(k));
    const key = at + "/" + lit.join();
    if (graph.dataset.painted === key && graph.rnnvisData === graph.data) return;
    graph.dataset.painted = key;
    graph.rnnvisData = graph.data;
    const shapes = (graph.layout.shapes || []).slice(0, meta.shapes).concat(
      meta.rows.map((y, k) => tie([meta.columns[at], y], [meta.chips_left, y], meta.links[at][k], 9, meta.colors)));
    meta.words.forEach((word, k) => {
      if (!(picked.words.includes(word) || inPeriod(k))) return;
      const half = meta.pitch / 2;
      shapes.push({ type: "rect", x0: meta.middles[k] - half, x1: meta.middles[k] + half, y0: meta.top, y1: meta.bottom, line: { width: 0 }, fillcolor: meta.colors.accent, opacity: 0.1, layer: "below" });
    });
    const layout = { shapes };
    lit.forEach((on, k) => { layout["annotations[" + (meta.word_annotations + k) + "].font.color"] = on ? meta.colors.accent : meta.colors.text; });
    window.Plotly.update(
      graph, { "marker.color": [Array.from(states[at], (value) => value * meta.scale)] }, layout, [meta.traces.units]);
  }

  const pointOf = (event) => (event && event.points && event.points.length ? event.points[0] : null);
  const ready = (graph, kind) => graph && graph.layout && graph.layout.meta && graph.layout.meta.kind === kind && graph.data;

  let picked = { words: [], sample: null, start: null, end: null };

  const map = () => document.querySelector(".rnnvis-map .js-plotly-plot");
  const sentences = () => Array.from(document.querySelectorAll("#rnnvis-sentences .js-plotly-plot")).filter((graph) => ready(graph, "sentence"));

  /* Paints what is pointed at, by name, wherever it is drawn; null for nothing, and then what is picked. */
  function point(word, unit) {
    const graph = map();
    if (ready(graph, "rnnvis")) {
      const meta = graph.layout.meta, last = picked.words[picked.words.length - 1];
      const shown = word !== null || unit !== null ? word : last === undefined ? null : last;
      paintMap(graph, shown === null ? -1 : meta.names.indexOf(shown), unit === null ? -1 : meta.units.indexOf(String(unit)));
    }
    for (const one of sentences()) paintSentence(one, -1, word === null ? [] : [word]);
  }

  /* What is pointed at stays painted when its picture is drawn anew beneath the hand, which then tells of no new point. */
  let pointed = [null, null];
  function pointAt(word, unit) { pointed = [word, unit]; point(word, unit); }
  document.addEventListener("pointerover", (event) => {
    const inside = event.target.closest && event.target.closest(".rnnvis-map, .rnnvis-details, #rnnvis-sentences");
    if (!inside && pointed.some((one) => one !== null)) pointAt(null, null);
  });

  const pickedOf = (focus) => ({
    words: (focus && focus.words) || [],
    sample: focus && focus.sample !== undefined ? focus.sample : null,
    start: focus && focus.start !== undefined ? focus.start : null,
    end: focus && focus.end !== undefined ? focus.end : null,
  });

  function withWord(focus, name, run) {
    const words = ((focus && focus.words) || []).filter((other) => other !== name);
    const removed = words.length < ((focus && focus.words) || []).length;
    const now = removed ? words : words.concat([name]).slice(-4);
    const sequence = focus && focus.sample !== null && focus.sample !== undefined;
    return Object.assign({}, focus, { run, words: now, by: now.length ? "word" : sequence ? "sequence" : "" });
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    rnnvis: {
      show: function (focus) {
        picked = pickedOf(focus);
        point(...pointed);
      },
      drawnAnew: function (frame, children, focus) {
        picked = pickedOf(focus);
        window.setTimeout(() => point(...pointed), 60); // a picture that has just come is not drawn yet
      },
      hoverMap: function (event) {
        const graph = map(), at = pointOf(event);
        if (!ready(graph, "rnnvis")) return;
        const meta = graph.layout.meta;
        if (at && at.curveNumber === meta.traces.words) pointAt(meta.names[at.pointNumber], null);
        else if (at && at.curveNumber === meta.traces.units) pointAt(null, meta.units[at.pointNumber]);
        else pointAt(null, null);
      },
      hoverUnits: function (event) {
        const at = pointOf(event);
        pointAt(null, at && typeof at.customdata === "string" ? at.customdata : null);
      },
      clickMap: function (event, focus, run) {
        const graph = map(), at = pointOf(event);
        if (!at || !ready(graph, "rnnvis") || at.curveNumber !== graph.layout.meta.traces.words) return window.dash_clientside.no_update;
        return withWord(focus, graph.layout.meta.names[at.pointNumber], run);
      },
      hoverSentence: function (event, id) {
        const graph = sentenceOf(id), at = pointOf(event);
        if (!ready(graph, "sentence")) return;
        const meta = graph.layout.meta;
        if (at && at.curveNumber === meta.traces.cells) {
          const step = Number(at.customdata[0]);
          pointAt(meta.words[step], null);
          for (const one of sentences()) paintSentence(one, step < one.layout.meta.words.length && one.layout.meta.words[step] === meta.words[step] ? step : -1, [meta.words[step]]);
        } else if (at && at.curveNumber === meta.traces.units) pointAt(null, at.customdata);
        else pointAt(null, null);
      },
      /* A word of a sentence picks the word, and the step where a probe sequence is shown; a unit picks the unit. */
      clickSentence: function (event, id, focus, units, run) {
        const none = window.dash_clientside.no_update;
        const graph = sentenceOf(id), at = pointOf(event);
        if (!at || !ready(graph, "sentence")) return [none, none, none];
        const meta = graph.layout.meta;
        if (at.curveNumber === meta.traces.units) return [none, none, window.dash_clientside.hiddenscope.panelUnits([event], units)];
        if (at.curveNumber !== meta.traces.cells) return [none, none, none];
        const step = Number(at.customdata[0]), word = meta.words[step];
        const words = ((focus && focus.words) || []).filter((other) => other !== word).concat([word]).slice(-4);
        const found = Object.assign({}, focus, { run, words, by: "word" });
        if (meta.sample !== null) Object.assign(found, { sample: meta.sample, start: meta.steps[step], end: meta.steps[step], units: [] });
        return [found, { step, word }, none];
      },
      sampleChosen: function (value, frame, focus, run) {
        const none = window.dash_clientside.no_update;
        if (typeof value !== "number" || !frame) return none;
        const known = focus && focus.sample !== null && focus.sample !== undefined ? focus.sample : frame.sample;
        if (value - 1 === known) return none;
        return Object.assign({}, focus, { run, by: "sequence", sample: value - 1, start: null, end: null, units: [] });
      },
    },
  });

  function sentenceOf(id) {
    const box = document.getElementById(JSON.stringify(id, Object.keys(id).sort()));
    return box && box.querySelector(".js-plotly-plot");
  }
})();
