/* What happens in the browser alone: the epoch cursor, playing, selected units, the address of a view.
   Scrubbing asks nothing of the server: the points of an epoch are one contiguous block of the cloud. */
(function () {
  "use strict";

  const KINDS = {
    f4: Float32Array, f8: Float64Array, i1: Int8Array, u1: Uint8Array,
    i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array,
  };
  const decoded = new WeakMap();
  /* None is a color of the curves, and none drowns in a scale or in the background, light or dark. */
  const UNIT_COLORS = ["#e0218a", "#7c4dff", "#a0622d", "#0e9aa7", "#8a9a00", "#d55e00"];
  const MOST_UNITS = 64;
  const TRAIL = [[6, 10, 0.14], [3, 5, 0.3], [1, 2, 0.55]];
  const FRAME_MS = 110;
  const HOVER = "unit %{customdata[2]}<br>step %{customdata[1]}<br>epoch %{customdata[0]}<extra></extra>";

  /* The numbers of a plain list, or of plotly's {dtype, bdata}. */
  function numbers(spec) {
    if (!spec || !spec.bdata) return spec;
    if (!decoded.has(spec)) {
      const text = atob(spec.bdata);
      const bytes = new Uint8Array(text.length);
      for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
      decoded.set(spec, new KINDS[spec.dtype](bytes.buffer));
    }
    return decoded.get(spec);
  }

  function rows(spec) {
    const flat = numbers(spec);
    if (!spec || !spec.bdata) return flat;
    const width = Number(String(spec.shape).split(",")[1]);
    if (!flat.rows) {
      flat.rows = [];
      for (let i = 0; i < flat.length; i += width) flat.rows.push(flat.subarray(i, i + width));
    }
    return flat.rows;
  }

  function part(base, take, looks) {
    const marker = Object.assign({}, base.marker, looks.marker, { showscale: false });
    if (!looks.marker || looks.marker.color === undefined) marker.color = take(numbers(base.marker.color));
    const trace = Object.assign({}, base, looks, { marker, customdata: take(rows(base.customdata)) });
    trace.x = take(numbers(base.x));
    trace.y = take(numbers(base.y));
    if (base.z) trace.z = take(numbers(base.z));
    if (Array.isArray(base.text)) trace.text = take(base.text);
    return trace;
  }

  function block(from, to) {
    return (values) => values.slice(from, to);
  }

  function pick(indices) {
    return (values) => Array.from(indices, (i) => values[i]);
  }

  /* The same figure, which says what epoch it was composed for. */
  function stamped(figure, cursor) {
    const meta = figure.layout && figure.layout.meta;
    return meta ? { data: figure.data, layout: Object.assign({}, figure.layout, { meta: Object.assign({}, meta, { cursor }) }) } : figure;
  }

  /* Position in epochs of the last one not after `epoch`. */
  function indexOf(epochs, epoch) {
    let found = 0;
    for (let i = 0; i < epochs.length; i++) if (epochs[i] <= epoch + 1e-9) found = i;
    return found;
  }

  function unitPath(base, indices, perStep) {
    /* Mean over steps, epoch by epoch: where the unit travels. */
    const axes = ["x", "y", "z"].filter((axis) => base[axis]);
    const path = {};
    for (const axis of axes) {
      const values = numbers(base[axis]);
      path[axis] = [];
      for (let i = 0; i < indices.length; i += perStep) {
        let sum = 0;
        for (let k = i; k < i + perStep; k++) sum += values[indices[k]];
        path[axis].push(sum / perStep);
      }
    }
    return path;
  }

  let zoomTold = null, ratioGiven = null;

  /* Plotly keeps a turned camera, but no zoom: that is the scale of the axes, by which the reader has changed it. */
  function keepZoom(layout, scene) {
    const given = layout.scene && layout.scene.aspectratio;
    if (!given) return;
    const drawn = scene && scene.glplot && scene.glplot.getAspectratio ? scene.glplot.getAspectratio() : null;
    const zoom = drawn && ratioGiven ? drawn.x / ratioGiven.x : 1;
    ratioGiven = Object.assign({}, given);
    if (!(zoom > 0) || !Number.isFinite(zoom) || Math.abs(zoom - 1) < 1e-3) return;
    for (const axis of ["x", "y", "z"]) given[axis] *= zoom;
  }

  /* A copy of the layout, with the camera, or the part of the plane in view, where the reader left it. */
  function keptLayout(figure) {
    const layout = structuredClone(figure.layout);
    const graph = document.querySelector("#picture .js-plotly-plot");
    const scene = graph && graph._fullLayout && graph._fullLayout.scene && graph._fullLayout.scene._scene;
    if (layout.scene && scene && scene.getCamera) layout.scene.camera = scene.getCamera();
    keepZoom(layout, scene);
    return layout.scene ? layout : withRanges(layout, graph);
  }

  /* The part of the curves that the reader has zoomed into: what arrives must not undo it, another run does. */
  function keptRanges(figure) {
    const graph = document.querySelector("#curves .js-plotly-plot");
    return { data: figure.data, layout: withRanges(figure.layout, graph) };
  }

  function withRanges(wanted, graph) {
    const drawn = graph && graph._fullLayout, layout = Object.assign({}, wanted);
    if (!drawn || graph.layout.uirevision !== layout.uirevision) return layout;
    for (const name of Object.keys(layout).filter((key) => /^[xy]axis[0-9]*$/.test(key))) {
      const axis = drawn[name];
      if (!axis || axis.autorange || !axis.range || (layout[name].type || axis.type) !== axis.type) continue;
      layout[name] = Object.assign({}, layout[name], { range: axis.range.slice(), autorange: false });
    }
    return layout;
  }

  /* What a panel draws, its 3-D graphs seen from where those of the same kind were seen before them. */
  function keepCameras(parts) {
    for (const part of Array.isArray(parts) ? parts : [parts]) {
      if (!part || !part.props) continue;
      const { id, figure, children } = part.props;
      const place = figure && id && document.getElementById(typeof id === "string" ? id : JSON.stringify(id, Object.keys(id).sort()));
      const graph = place && place.querySelector(".js-plotly-plot");
      const scene = graph && graph._fullLayout && graph._fullLayout.scene && graph._fullLayout.scene._scene;
      const same = scene && figure.layout.scene && figure.layout.uirevision && graph.layout.uirevision === figure.layout.uirevision;
      if (same && scene.getCamera) figure.layout.scene.camera = scene.getCamera();
      keepCameras(children);
    }
    return parts;
  }

  /* A picture with gaps gets the epoch at the cursor in full from the server, one request at a time. */
  let frameAsked = 0, frameFor = null;
  function askFrame(epoch) {
    if (frameFor !== null && performance.now() - frameAsked < 3000) return;
    frameFor = epoch;
    frameAsked = performance.now();
    dash_clientside.set_props("frame-wanted", { data: epoch });
  }

  function same(a, b) { return JSON.stringify(a) === JSON.stringify(b); }

  /* The points of the epoch at the cursor: from the cloud, or in full from the server. */
  function nowTrace(base, meta, now, per, cursor, frame, looks) {
    if (!meta.complete && frame && frame.trace && frame.epoch === cursor && same(frame.look, meta.look)) {
      const marker = Object.assign({}, frame.trace.marker, looks.marker, { showscale: false });
      return Object.assign({}, frame.trace, looks, { marker, x: numbers(frame.trace.x), y: numbers(frame.trace.y),
        customdata: rows(frame.trace.customdata) }, frame.trace.z ? { z: numbers(frame.trace.z) } : {});
    }
    return part(base, block(now * per, (now + 1) * per), looks);
  }

  /* The table of units asks this of each of its rows. */
  let ringedUnits = new Set();
  window.dashAgGridFunctions = Object.assign(window.dashAgGridFunctions || {}, { ringed: (unit) => ringedUnits.has(String(unit)) });

  /* The nodes of what is picked in a panel (a sequence, a period, a word), at the epoch that is shown: rings. */
  function ringTrace(base, meta, now, per, cursor, frame, focus) {
    const whole = !meta.complete && frame && frame.trace && frame.epoch === cursor && same(frame.look, meta.look);
    const source = whole ? frame.trace : base;
    const labels = rows(source.customdata), from = whole ? 0 : now * per, to = whole ? labels.length : (now + 1) * per;
    const wanted = new Map();
    for (const [unit, first, last] of focus.nodes) {
      if (!wanted.has(String(unit))) wanted.set(String(unit), []);
      wanted.get(String(unit)).push([first === null ? -Infinity : first, last === null ? Infinity : last]);
    }
    const chosen = [], near = new Map();
    for (let i = from; i < to; i++) {
      const spans = wanted.get(String(labels[i][2]));
      if (!spans) continue;
      const step = Number(labels[i][1]);
      spans.forEach((span, k) => {
        if (step >= span[0] && step <= span[1]) { chosen.push(i); near.set(span, null); return; }
        // Of a period between two steps that are drawn, the nearer one stands for it.
        const far = Math.min(Math.abs(step - span[0]), Math.abs(step - span[1])), best = near.get(span);
        if (best !== null && (best === undefined || far < best[0])) near.set(span, [far, i]);
      });
    }
    for (const best of near.values()) if (best) chosen.push(best[1]);
    const color = getComputedStyle(document.documentElement).getPropertyValue("--text").trim() || "#1c2530";
    const take = pick(Array.from(new Set(chosen)));
    const trace = { type: base.type, mode: "markers", name: "picked: " + focus.text, hovertemplate: HOVER, showlegend: false,
      x: take(numbers(source.x)), y: take(numbers(source.y)), customdata: take(labels),
      marker: { symbol: "circle-open", size: (base.z ? 9 : 11) - (chosen.length > 40 ? 2 : 0), color, line: { color, width: chosen.length > 40 ? 1.2 : 2 } } };
    if (source.z) trace.z = take(numbers(source.z));
    return trace;
  }

  function composePicture(figure, cursor, units, frame, focus) {
    if (!figure || !figure.layout || !figure.layout.meta || !figure.data.length) return figure;
    const meta = figure.layout.meta;
    if (frame && frame.epoch === frameFor) frameFor = null;
    if (!meta.complete && cursor !== null && !(frame && frame.epoch === cursor && same(frame.look, meta.look))) askFrame(cursor);
    const chosen = (units || []).map((unit) => meta.units.findIndex((label) => String(label) === String(unit)));
    const selected = chosen.map((at, k) => [at, UNIT_COLORS[k % UNIT_COLORS.length]]).filter(([at]) => at >= 0);
    const ringed = focus && focus.nodes && focus.nodes.length;
    if (cursor === null && !selected.length && !ringed) return { data: figure.data, layout: keptLayout(figure) };
    const base = figure.data[0];
    const steps = meta.steps.length, count = meta.units.length, per = steps * count;
    const now = cursor === null ? meta.epochs.length - 1 : indexOf(meta.epochs, cursor);
    const layout = keptLayout(figure);
    const unseen = base.opacity === 0;
    (layout.images || []).forEach((image) => { image.opacity = cursor === null ? 0.35 : 0.18; });
    // Faded points can still be picked, unless the epoch at the cursor stands before them.
    const mute = cursor === null ? {} : { hoverinfo: "skip", hovertemplate: null };
    const traces = [Object.assign({}, base, { opacity: unseen ? 0 : cursor === null ? 0.13 : 0.07 }, mute)];
    for (const detail of figure.data.slice(1)) {
      traces.push(Object.assign({}, detail, { opacity: cursor === null ? 0.3 : 0.15 }, mute));
    }
    const bright = { opacity: 1, hovertemplate: HOVER, hoverinfo: "all" };
    if (cursor !== null) {
      const quiet = selected.length ? 0.35 : 1;
      for (const [youngest, oldest, opacity] of TRAIL) {
        // An empty trail is drawn too: a constant number of traces keeps frames cheap.
        const to = Math.max(0, now - youngest + 1), from = Math.min(to, Math.max(0, now - oldest));
        traces.push(part(base, block(from * per, to * per), { opacity: opacity * quiet, hoverinfo: "skip", hovertemplate: null, name: "trail" }));
      }
      traces.push(nowTrace(base, meta, now, per, cursor, frame, Object.assign({}, bright, { opacity: quiet, name: "now" })));
    }
    const pathOf = (at) => {
      const indices = [];
      for (let e = 0; e <= now; e++) for (let s = 0; s < steps; s++) indices.push(e * per + s * count + at);
      return indices;
    };
    if (selected.length > UNIT_COLORS.length) {
      // Many units, such as a cluster, are one trace without paths.
      const shown = [], colors = [];
      for (const [at, color] of selected) {
        const indices = pathOf(at);
        for (const i of cursor === null ? indices : indices.slice(-steps)) { shown.push(i); colors.push(color); }
      }
      traces.push(part(base, pick(shown), Object.assign({}, bright, { name: selected.length + " units", marker: { color: colors } })));
    } else for (const [at, color] of selected) {
      const indices = pathOf(at);
      const shown = cursor === null ? indices : indices.slice(-steps);
      const name = "unit " + meta.units[at];
      traces.push(part(base, pick(shown), Object.assign({}, bright, { name, marker: { color } })));
      const path = unitPath(base, indices, steps);
      const line = { color, width: base.z ? 4 : 2 };
      traces.push(Object.assign({ type: base.type, mode: "lines", name: name + " path", line, hoverinfo: "skip", opacity: 0.9 }, path));
    }
    if (ringed) traces.push(ringTrace(base, meta, now, per, cursor, frame, focus));
    traces.forEach((trace, i) => { trace.uid = "layer-" + i; });
    return { data: traces, layout };
  }

  const unitsOf = (focus) => Array.from(new Set(((focus && focus.nodes) || []).map((node) => String(node[0]))));

  function composeCurves(figure, units, focus) {
    const ringed = unitsOf(focus).length <= UNIT_COLORS.length ? unitsOf(focus) : [];
    if (!figure || !figure.data || !((units || []).length || ringed.length)) return figure;
    const color = {};
    const ink = getComputedStyle(document.documentElement).getPropertyValue("--text").trim() || "#1c2530";
    ringed.forEach((unit) => { color[unit] = ink; });
    units = units || [];
    units.forEach((unit, k) => { color[String(unit)] = UNIT_COLORS[k % UNIT_COLORS.length]; });
    const label = (trace) => (trace.meta && trace.meta.unit !== undefined ? String(trace.meta.unit) : null);
    const front = figure.data.filter((trace) => color[label(trace)]);
    const rest = figure.data.filter((trace) => !color[label(trace)]);
    const bright = front.map((trace) => Object.assign({}, trace, {
      line: {
        color: color[label(trace)],
        width: units.length > UNIT_COLORS.length ? 1.3 : 2.4,
        dash: units.map(String).includes(label(trace)) ? "solid" : "dot",
      },
    }));
    return { data: rest.concat(bright), layout: figure.layout };
  }

  /* The epoch cursor over the curves: an element above the plot, so that moving it redraws nothing. */
  let cursorAt = null;
  function placeCursor() {
    const line = document.getElementById("curve-cursor");
    const graph = document.querySelector("#curves .js-plotly-plot");
    if (!line || !graph || !graph._fullLayout || !graph._fullLayout.xaxis) return;
    if (!graph.dataset.watched) {
      graph.dataset.watched = "yes";
      graph.on("plotly_afterplot", placeCursor);
    }
    const axis = graph._fullLayout.xaxis;
    const at = cursorAt === null ? NaN : axis._offset + axis.d2p(cursorAt);
    const size = graph._fullLayout._size;
    const inside = at >= axis._offset - 1 && at <= axis._offset + axis._length + 1;
    line.style.display = inside ? "block" : "none";
    if (!inside) return;
    line.style.left = at + "px";
    line.style.top = size.t + "px";
    line.style.height = size.h + "px";
    line.firstChild.textContent = epochName(cursorAt);
  }

  function epochName(epoch) {
    return epoch === -1 ? "before training" : "epoch " + Number(epoch.toFixed(3));
  }

  /* Playing waits for the picture: a frame begins when the last one is drawn, so that none is skipped. */
  let timer = null, epochs = [], drawnFor = null, askedAt = 0;
  function watchPicture() {
    const graph = document.querySelector("#picture .js-plotly-plot");
    if (graph && graph.on && !graph.dataset.watched) {
      graph.dataset.watched = "yes";
      graph.on("plotly_afterplot", () => {
        const meta = graph.layout && graph.layout.meta;
        drawnFor = meta && meta.cursor !== undefined ? meta.cursor : cursorAt;
      });
    }
  }
  function frame() {
    const now = performance.now();
    if (drawnFor !== cursorAt && now - askedAt < 2000) return;
    askedAt = now;
    if (!step(1)) setPlaying(false);
  }

  function playing() { return timer !== null; }
  function setPlaying(on) {
    if (timer !== null) { clearInterval(timer); timer = null; }
    if (on && epochs.length > 1) {
      watchPicture();
      if (cursorAt === null || cursorAt >= epochs[epochs.length - 1]) { askedAt = performance.now(); moveTo(epochs[0]); }
      timer = setInterval(frame, FRAME_MS);
    }
    dash_clientside.set_props("play", { children: playing() ? "\u275a\u275a" : "\u25b6" });
  }
  function moveTo(epoch) { cursorAt = epoch; dash_clientside.set_props("cursor", { data: epoch }); }
  function step(by) {
    if (!epochs.length) return false;
    const at = cursorAt === null ? epochs.length - 1 : indexOf(epochs, cursorAt);
    const next = Math.min(epochs.length - 1, Math.max(0, at + by));
    if (next === at && cursorAt !== null) return false;
    moveTo(epochs[next]);
    return true;
  }

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    const typing = target && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
    const grid = target && target.closest && target.closest(".ag-root, [role=slider], [role=listbox], [role=tablist]");
    if (typing || grid || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") { if (target.tagName !== "BUTTON") { setPlaying(!playing()); event.preventDefault(); } }
    else if (event.key === "ArrowLeft") { setPlaying(false); step(-1); }
    else if (event.key === "ArrowRight") { setPlaying(false); step(1); }
    else if (event.key === "Escape") {
      setPlaying(false);
      dash_clientside.set_props("cursor", { data: null });
      dash_clientside.set_props("units", { data: [] });
      dash_clientside.set_props("focus", { data: null });
    }
  });

  let held = false, letGo = null;
  function hold(event) {
    const slider = event.target && event.target.closest && event.target.closest("#scrub");
    if (!slider) return;
    clearTimeout(letGo);
    held = true;
    if (event.type === "keydown") release();
  }
  function release() { clearTimeout(letGo); letGo = setTimeout(() => { held = false; }, 400); }
  document.addEventListener("pointerdown", hold, true);
  document.addEventListener("keydown", hold, true);
  document.addEventListener("pointerup", release, true);
  document.addEventListener("pointercancel", release, true);

  /* The unit that was clicked: that of a curve, or that of a point. */
  function unitOf(event, id) {
    if (!event || !event.points || !event.points.length) return undefined;
    const point = event.points[0];
    const graph = document.querySelector("#" + id + " .js-plotly-plot");
    const trace = graph && graph.data && graph.data[point.curveNumber];
    if (!trace) return undefined;
    if (trace.meta && trace.meta.unit !== undefined) return trace.meta.unit;
    const labels = trace.customdata && rows(trace.customdata)[point.pointNumber];
    return labels ? labels[2] : undefined;
  }

  /* The label, in the open run, of the unit whose point was clicked among those of several runs; none where it has none. */
  function unitCompared(trace, event) {
    const unit = unitOf(event, "compare-graph");
    const cloud = trace.meta && document.querySelector("#compare-graph .js-plotly-plot").layout.meta.clouds[trace.meta.cloud];
    if (!cloud) return unit;
    const label = cloud.picks[cloud.units.findIndex((one) => String(one) === String(unit))];
    return label === null ? undefined : label;
  }

  /* The units of the cluster whose median was clicked. */
  function clusterOf(event) {
    const graph = document.querySelector("#curves .js-plotly-plot");
    const trace = graph && graph.data && graph.data[event.points[0].curveNumber];
    return trace && trace.meta && trace.meta.units ? trace.meta.units.map(String).slice(0, MOST_UNITS) : null;
  }

  /* The picked units by name, each in its color, to be put back by a click. */
  function showChosen(units) {
    const place = document.getElementById("chosen");
    if (!place) return;
    const chip = (text, color, said, left) => {
      const made = document.createElement("button"), dot = document.createElement("i"), cross = document.createElement("span");
      dot.style.background = color;
      cross.textContent = "\u00d7";
      made.append(dot, text, cross);
      made.setAttribute("aria-label", said);
      made.addEventListener("click", () => dash_clientside.set_props("units", { data: left }));
      return made;
    };
    const names = units || [];
    if (names.length > UNIT_COLORS.length) {
      place.replaceChildren(chip(names.length + " units", "var(--muted)", "put " + names.length + " units back", []));
      return;
    }
    place.replaceChildren(...names.map((unit, k) => chip("unit " + unit, UNIT_COLORS[k], "put unit " + unit + " back", toggled(names, unit))));
  }

  function toggled(units, unit) {
    const label = String(unit);
    const kept = (units || []).map(String).filter((other) => other !== label);
    return kept.length < (units || []).length ? kept : kept.concat([label]).slice(-MOST_UNITS);
  }

  /* A panel that follows the cursor is asked for at most every PANEL_MS while it moves, and once it stands still. */
  const PANEL_MS = 500;
  let panelTimer = null, panelAsked = 0, panelTold = null;
  function tellPanel(cursor) {
    clearTimeout(panelTimer);
    if (cursor === panelTold) return;
    const tell = () => { panelAsked = performance.now(); panelTold = cursor; dash_clientside.set_props("panel-cursor", { data: cursor }); };
    if (performance.now() - panelAsked > PANEL_MS) tell();
    else panelTimer = setTimeout(tell, 180);
  }

  let zoomTimer = null, rangeTold = {};
  function tellZoom(window_) {
    if (same(window_, zoomTold)) return;
    zoomTold = window_;
    dash_clientside.set_props("zoom", { data: window_ });
  }

  let compareAsked = new URLSearchParams(window.location.search).getAll("compare");
  const COMPARED = ["compare", "mode", "match", "compare-color", "compare-view"];

  /* Clouds and curves of several runs, with the cursor in each. */
  function composeCompare(figure, cursor, units) {
    const meta = figure.layout && figure.layout.meta;
    if (!meta || !meta.clouds || (cursor === null && !(units || []).length)) return figure;
    const layout = structuredClone(figure.layout);
    const graph = document.querySelector("#compare-graph .js-plotly-plot");
    for (const key of Object.keys(layout).filter((name) => name.startsWith("scene"))) {
      const scene = graph && graph._fullLayout && graph._fullLayout[key] && graph._fullLayout[key]._scene;
      if (scene && scene.getCamera) layout[key].camera = scene.getCamera();
    }
    const clouds = new Map(meta.clouds.map((one) => [one.at, one]));
    const traces = [], front = [];
    figure.data.forEach((base, i) => {
      const one = clouds.get(i);
      if (!one) { traces.push(base); return; }
      traces.push(Object.assign({}, base, { opacity: 0.1, hoverinfo: "skip", hovertemplate: null }));
      const steps = one.steps.length, count = one.units.length, per = steps * count;
      const now = cursor === null ? one.epochs.length - 1 : indexOf(one.epochs, cursor);
      const quiet = (units || []).length ? 0.4 : 1;
      if (cursor !== null) front.push(part(base, block(now * per, (now + 1) * per), { opacity: quiet, name: base.name + " now" }));
      (units || []).slice(0, UNIT_COLORS.length).forEach((unit, k) => {
        // Where units of two runs are matched, one is picked for both, by its label in the open run.
        const at = (one.picks || one.units).findIndex((label) => label !== null && String(label) === String(unit));
        if (at < 0) return;
        const indices = [];
        for (let e = 0; e <= now; e++) for (let s = 0; s < steps; s++) indices.push(e * per + s * count + at);
        const color = UNIT_COLORS[k % UNIT_COLORS.length];
        front.push(part(base, pick(indices.slice(-steps)), { opacity: 1, name: "unit " + unit, marker: { color } }));
        const axes = { scene: base.scene, xaxis: base.xaxis, yaxis: base.yaxis };
        for (const axis of Object.keys(axes)) if (axes[axis] === undefined) delete axes[axis];
        const line = { color, width: base.z ? 4 : 2 };
        front.push(Object.assign({ type: base.type, mode: "lines", name: "unit " + unit + " path", line, hoverinfo: "skip" }, axes, unitPath(base, indices, steps)));
      });
    });
    if (cursor !== null) {
      const color = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
      for (let k = 0; k < meta.columns; k++) {
        (layout.shapes = layout.shapes || []).push({ type: "line", xref: k ? "x" + (k + 1) : "x", yref: "paper", x0: cursor, x1: cursor, y0: 0, y1: 0.415, line: { color, width: 1.5 }, name: "cursor" });
      }
    }
    return { data: traces.concat(front), layout };
  }

  /* sequence=3&period=10~20&of=7&word=good in the address, for what is picked apart from units */
  function focusAsked(asked) {
    const sample = asked.get("sequence") === null ? NaN : Number(asked.get("sequence")), words = asked.getAll("word");
    if (!(sample >= 0) && !words.length) return null;
    const ends = (asked.get("period") || "").split("~").map(Number);
    const whole = ends.length !== 2 || !ends.every(Number.isFinite);
    const by = sample >= 0 && asked.get("by") !== "word" ? "sequence" : "word";
    return { run: asked.get("run"), by, words, sample: sample >= 0 ? sample : null, start: whole ? null : ends[0], end: whole ? null : ends[1],
      units: asked.get("of") ? asked.get("of").split(",") : [] };
  }
  function rememberFocus(now, focus) {
    if (!focus) return;
    if (focus.sample !== null && focus.sample !== undefined) {
      now.set("sequence", focus.sample);
      if (focus.start !== null && focus.start !== undefined) now.set("period", focus.start + "~" + focus.end);
      if ((focus.units || []).length) now.set("of", focus.units.join(","));
      if (focus.by === "word") now.set("by", "word");
    }
    for (const word of focus.words || []) now.append("word", word);
  }

  const valueOf = (choice) => (choice.value === undefined ? choice : choice.value);

  /* Which of several graphs was clicked: the first point of that click. */
  function clickedPoint(events) {
    const changed = window.dash_clientside.callback_context.triggered;
    const event = changed && changed.length ? changed[0].value : null;
    return event && event.points && event.points.length ? event.points[0] : null;
  }

  window.dash_clientside = Object.assign({}, window.dash_clientside, {
    hiddenscope: {
      /* comparing runs: what can be chosen, what is shown, and its address */
      compareChoices: function (runs, run, current) {
        const keep = window.dash_clientside.no_update;
        const others = (runs || []).filter((one) => one.value !== run);
        let value = (current || []).filter((one) => one !== run);
        if (compareAsked && others.length && run) {
          // A choice made before there is anything to choose from would be forgotten.
          value = compareAsked.filter((name) => others.some((one) => one.value === name)).slice(0, 3);
          compareAsked = null;
        }
        return [others, same(value, current || []) ? keep : value];
      },
      compareOpen: function (others) {
        const open = (others || []).length > 0;
        window.requestAnimationFrame(() => window.dispatchEvent(new Event("resize")));
        return [open ? "views away" : "views", open ? {} : { display: "none" }, open ? -1 : 0];
      },
      compareMode: (mode) => (mode === "joint" ? {} : { display: "none" }),
      compareDrawn: (figure, cursor, units) => figure ? composeCompare(figure, cursor === undefined ? null : cursor, units) : window.dash_clientside.no_update,
      restoreCompare: function (search) {
        const asked = new URLSearchParams(search || ""), keep = window.dash_clientside.no_update;
        const one = (key, known) => (known.includes(asked.get(key)) ? asked.get(key) : keep);
        return [
          one("mode", ["beside", "joint"]),
          one("match", ["auto", "number", "response"]),
          one("compare-color", ["epoch", "step", "unit", "class", "intra", "inter", "loss"]),
          one("compare-view", ["2", "3"]),
        ];
      },
      rememberCompare: function (others, mode, match, color, dimensions, run) {
        const now = new URLSearchParams(window.location.search);
        if (!run || compareAsked) return;
        COMPARED.forEach((key) => now.delete(key));
        if ((others || []).length) {
          others.forEach((other) => now.append("compare", other));
          if (mode !== "beside") now.set("mode", mode);
          if (mode === "joint" && match !== "auto") now.set("match", match);
          if (color !== "epoch") now.set("compare-color", color);
          if (dimensions !== "2") now.set("compare-view", dimensions);
        }
        window.history.replaceState(null, "", "?" + now.toString());
      },

      /* the open panel: its controls, and room for what it draws */
      openPanel: function (panel, ids) {
        const shown = (wanted) => (wanted ? {} : { display: "none" }), tables = ["units", "runs"];
        return [ids.map((id) => shown(id.name === panel)), ...tables.map((name) => shown(name === panel)), shown(!tables.includes(panel))];
      },

      /* the list of runs: a name opens, a tick compares */
      runClicked: function (event) {
        return event && event.colId === "run" && event.rowId ? event.rowId : window.dash_clientside.no_update;
      },
      runsTicked: function (rows, compared, listed) {
        if (!Array.isArray(rows) || !(listed || []).length) return window.dash_clientside.no_update;
        const ticked = rows.map((row) => row.run), known = listed.map((row) => row.run), before = compared || [];
        const stay = before.filter((name) => ticked.includes(name) || !known.includes(name));
        const names = stay.concat(ticked.filter((name) => !stay.includes(name))).slice(0, 3);
        return same(names, before) ? window.dash_clientside.no_update : names;
      },
      runsCompared: (names) => ({ ids: names || [] }),
      panelNews: (parts) => keepCameras(parts),
      panelCursor: function (cursor, panel, followers) {
        if ((followers || []).includes(panel)) tellPanel(cursor === undefined ? null : cursor);
        return window.dash_clientside.no_update;
      },
      panelUnits: function (events, units) {
        const point = clickedPoint(events);
        const label = point && (Array.isArray(point.customdata) ? point.customdata[0] : point.customdata);
        return label === null || label === undefined ? window.dash_clientside.no_update : toggled(units, label);
      },
      panelEpochs: function (events) {
        const point = clickedPoint(events);
        if (!point || !Number.isFinite(Number(point.x))) return window.dash_clientside.no_update;
        setPlaying(false);
        return Number(point.x);
      },
      restorePanel: function (search, heads, ids, choices) {
        const asked = new URLSearchParams(search || "");
        const keep = window.dash_clientside.no_update;
        const values = ids.map((id, k) => {
          const value = asked.get(id.panel + "." + id.option);
          return (choices[k] || []).some((choice) => valueOf(choice) === value) ? value : keep;
        });
        const known = heads.some((id) => id.name === asked.get("panel"));
        return [known ? asked.get("panel") : keep, values];
      },
      rememberPanel: function (panel, values, ids, choices) {
        const now = new URLSearchParams(window.location.search);
        const first = now.get("run") !== null || panel !== "units";
        for (const key of Array.from(now.keys())) if (key === "panel" || key.includes(".")) now.delete(key);
        if (panel && panel !== "units") {
          now.set("panel", panel);
          ids.forEach((id, k) => { if (id.panel === panel && values[k] && values[k] !== valueOf(choices[k][0])) now.set(id.panel + "." + id.option, values[k]); });
        }
        if (first) window.history.replaceState(null, "", "?" + now.toString());
      },

      picture: function (figure, cursor, units, frame, focus) {
        if (!figure) return window.dash_clientside.no_update;
        const at = cursor === undefined ? null : cursor;
        return stamped(composePicture(figure, at, units, frame, focus), at);
      },

      /* what part of the plane is in view, once the hand rests; only pictures with gaps are drawn anew for it */
      zoomed: function (event, dimensions) {
        clearTimeout(zoomTimer);
        const causes = (window.dash_clientside.callback_context.triggered || []).map((one) => one.prop_id);
        if (causes.some((cause) => cause !== "picture.relayoutData" && cause !== ".")) {
          tellZoom(null);  // another picture is in another place
          return window.dash_clientside.no_update;
        }
        zoomTimer = setTimeout(() => {
          const graph = document.querySelector("#picture .js-plotly-plot");
          const meta = graph && graph.layout && graph.layout.meta;
          if (!meta || meta.complete !== false || dimensions !== "2") { tellZoom(null); return; }
          const x = graph._fullLayout.xaxis, y = graph._fullLayout.yaxis;
          tellZoom(x.autorange || y.autorange ? null : [...x.range, ...y.range]);
        }, 250);
        return window.dash_clientside.no_update;
      },

      /* the steps and epochs that are shown: sliders, and what they choose */
      rangeBounds: function (extent, range) {
        const found = [];
        for (const axis of ["steps", "epochs"]) {
          const full = (extent || {})[axis] || [0, 1];
          const kept = (range || {})[axis];
          found.push(full[0], Math.max(full[1], full[0] + 1), kept ? [Math.max(kept[0], full[0]), Math.min(kept[1], full[1])] : full, !extent || full[0] === full[1]);
        }
        return found;
      },
      rangeChosen: function (steps, epochs, extent, lastStep, lastEpoch) {
        const keep = window.dash_clientside.no_update;
        // Sliders that have not been given their bounds yet say nothing.
        if (!extent || lastStep < extent.steps[1] || lastEpoch < extent.epochs[1]) return [keep, keep];
        const chosen = {};
        if (steps && !(steps[0] <= extent.steps[0] && steps[1] >= extent.steps[1])) chosen.steps = steps;
        if (epochs && !(epochs[0] <= extent.epochs[0] && epochs[1] >= extent.epochs[1])) chosen.epochs = epochs;
        return [same(chosen, rangeTold) ? keep : (rangeTold = chosen), Object.keys(chosen).length ? "filled" : "default"];
      },
      rangeReset: function (clicks, extent) {
        const keep = window.dash_clientside.no_update;
        return clicks && extent ? [extent.steps, extent.epochs] : [keep, keep];
      },
      curves: (figure, units, focus) => figure ? composeCurves(keptRanges(figure), units, focus) : window.dash_clientside.no_update,

      /* cursor and recorded epochs -> slider and label */
      transport: function (cursor, recorded) {
        epochs = recorded || [];
        if (!playing()) cursorAt = cursor === undefined ? null : cursor;
        window.requestAnimationFrame(placeCursor);
        const last = Math.max(epochs.length - 1, 0);
        const at = cursorAt === null ? last : indexOf(epochs, cursorAt);
        const every = epochs.length > 1 ? "all " + epochs.length + " epochs" : epochs.length ? "one epoch" : "";
        const label = cursorAt === null ? every : epochName(cursorAt);
        return [Math.max(last, 1), at, label];
      },
      scrubbed: function (value) {
        // The slider also moves by itself, when an epoch arrives or while playing; only a hand on it counts.
        if (!held || !epochs.length || !(value < epochs.length)) return window.dash_clientside.no_update;
        setPlaying(false);
        return epochs[value];
      },
      all: (clicks) => { if (!clicks) return window.dash_clientside.no_update; setPlaying(false); return null; },
      play: (clicks) => { if (clicks) setPlaying(!playing()); return window.dash_clientside.no_update; },
      clickCurves: function (event, units) {
        if (!event || !event.points || !event.points.length) return [window.dash_clientside.no_update, window.dash_clientside.no_update];
        const unit = unitOf(event, "curves"), members = clusterOf(event);
        setPlaying(false);
        const x = Number(event.points[0].x);
        if (members) return [window.dash_clientside.no_update, same(members, units) ? [] : members];
        return [x, unit === undefined ? window.dash_clientside.no_update : toggled(units, unit)];
      },
      clickCompare: function (event, units) {
        const keep = window.dash_clientside.no_update, point = event && event.points && event.points[0];
        const graph = document.querySelector("#compare-graph .js-plotly-plot"), trace = point && graph.data[point.curveNumber];
        if (!trace) return [keep, keep];
        if (!trace.customdata) { setPlaying(false); return [Number(point.x), keep]; }
        const unit = unitCompared(trace, event);
        return [keep, unit === undefined ? keep : toggled(units, unit)];
      },
      clickPicture: function (event, units) {
        const unit = unitOf(event, "picture");
        return unit === undefined ? window.dash_clientside.no_update : toggled(units, unit);
      },

      /* the table of units and the chosen units follow each other */
      tableToUnits: function (rows, units) {
        if (!Array.isArray(rows)) return window.dash_clientside.no_update;
        const chosen = rows.map((row) => String(row.unit)).slice(-MOST_UNITS);
        const same = chosen.length === (units || []).length && chosen.every((unit) => units.map(String).includes(unit));
        return same ? window.dash_clientside.no_update : chosen;
      },

      /* what is picked apart from units: in words, and as marked rows of the table */
      focusTold: function (focus) {
        ringedUnits = new Set(unitsOf(focus));
        const table = window.dash_ag_grid && window.dash_ag_grid.getApi && document.querySelector("#unit-table .ag-row") && window.dash_ag_grid.getApi("unit-table");
        if (table) table.redrawRows();
        const text = focus && focus.text;
        return [text ? "picked: " + text + " \u00d7" : "", !text];
      },
      focusForgotten: (clicks) => (clicks ? null : window.dash_clientside.no_update),
      unitsToTable: (units) => { showChosen(units); return { ids: (units || []).map(String) }; },
      chosen: showChosen,
      toggled,

      /* light or dark: the address first, then the reader's last choice, then the system's */
      theme: function (clicks, dark) {
        const stored = window.localStorage.getItem("hiddenscope-theme");
        const asked = new URLSearchParams(window.location.search).get("theme");
        if (!clicks) dark = (asked || stored || (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
        else { dark = !dark; window.localStorage.setItem("hiddenscope-theme", dark ? "dark" : "light"); }
        document.documentElement.dataset.agThemeMode = dark ? "dark" : "light";
        return [dark, dark ? "dark" : "light"];
      },

      /* the address -> the view, once */
      restore: function (search) {
        const asked = new URLSearchParams(search || "");
        const keep = window.dash_clientside.no_update;
        const number = asked.get("epoch") === null ? NaN : Number(asked.get("epoch"));
        const colors = ["epoch", "step", "unit", "class", "cluster", "intra", "inter", "loss"];
        const methods = ["mmphate", "pca", "phate", "mphate", "tsne", "umap", "isomap", "lle"];
        const range = {};
        for (const axis of ["steps", "epochs"]) {
          const ends = (asked.get(axis) || "").split("~").map(Number);
          if (asked.get(axis) && ends.length === 2 && ends.every(Number.isFinite)) range[axis] = ends;
        }
        rangeTold = range;
        return [
          methods.includes(asked.get("method")) ? asked.get("method") : keep,
          colors.includes(asked.get("color")) ? asked.get("color") : keep,
          ["2", "3"].includes(asked.get("view")) ? asked.get("view") : keep,
          Number.isFinite(number) ? number : keep,
          asked.get("units") ? asked.get("units").split(",").slice(0, MOST_UNITS) : keep,
          asked.get("log") === "1" ? true : keep,
          Object.keys(range).length ? range : keep,
          Number(asked.get("smooth")) > 0 && Number(asked.get("smooth")) < 1 ? Number(asked.get("smooth")) : keep,
          focusAsked(asked) || keep,
        ];
      },
      /* the view -> the address */
      remember: function (run, layer, method, color, view, cursor, units, log, range, smooth, focus) {
        if (!run) return;
        const now = new URLSearchParams({ run });
        if (layer) now.set("layer", layer);
        if (method && method !== "mmphate") now.set("method", method);
        if (color && color !== "epoch") now.set("color", color);
        for (const axis of ["steps", "epochs"]) if (range && range[axis]) now.set(axis, range[axis].join("~"));
        if (view && view !== "3") now.set("view", view);
        if (cursor !== null && cursor !== undefined) now.set("epoch", cursor);
        if (units && units.length) now.set("units", units.join(","));
        if (log) now.set("log", "1");
        if (smooth) now.set("smooth", smooth);
        rememberFocus(now, focus);
        for (const [key, value] of new URLSearchParams(window.location.search)) {
          if (["theme", "panel", ...COMPARED].includes(key) || key.includes(".")) now.append(key, value);
        }
        window.history.replaceState(null, "", "?" + now.toString());
      },
    },
  });

  /* The clock stands still while an answer is awaited; should one never come, it goes on. */
  setInterval(() => {
    for (const clock of ["tick", "panel-tick", "compare-tick"]) window.dash_clientside.set_props(clock, { disabled: false });
  }, 20000);

  window.addEventListener("resize", () => window.requestAnimationFrame(placeCursor));
})();
