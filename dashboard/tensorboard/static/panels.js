/* The lower part of the tab: one panel at a time, drawn anew when it would look different. */
(function () {
  "use strict";

  const scope = window.dash_clientside.hiddenscope;
  const at = (id) => document.getElementById(id);
  const config = { displaylogo: false, responsive: true };
  let panel = new URLSearchParams(location.search).get("panel") || "";
  let options = {};
  let mark = "";
  let asking = false;
  let focus = null;
  let shown = { run: null };
  const rnnvis = window.dash_clientside.rnnvis;

  function tabs(panels, open) {
    const wanted = JSON.stringify([panels, open]);
    const strip = at("panel-tabs");
    if (strip.dataset.shown === wanted) return;
    strip.dataset.shown = wanted;
    strip.replaceChildren(...panels.map((each) => {
      const button = document.createElement("button");
      button.textContent = each.label;
      button.setAttribute("role", "tab");
      button.setAttribute("aria-selected", String(each.value === open));
      button.addEventListener("click", () => { panel = each.value; options = {}; mark = ""; });
      return button;
    }));
  }

  function controls(wanted) {
    const held = JSON.stringify(wanted.map((each) => [each.name, each.choices]));
    const place = at("panel-controls");
    if (place.dataset.shown === held) return;
    place.dataset.shown = held;
    place.replaceChildren(...wanted.map((each) => {
      const label = document.createElement("label");
      const select = document.createElement("select");
      select.append(...each.choices.map((choice) => new Option(choice, choice)));
      select.value = each.value;
      select.setAttribute("aria-label", each.label);
      select.addEventListener("change", () => { options[each.name] = select.value; });
      label.append(each.label + " ", select);
      return label;
    }));
  }

  function fill(news) {
    const body = at("panel-body"), cameras = new Map();  // where 3-D graphs are seen from, by what they show
    body.querySelectorAll(".js-plotly-plot").forEach((graph) => {
      const scene = graph._fullLayout && graph._fullLayout.scene && graph._fullLayout.scene._scene;
      if (scene && scene.getCamera && graph.layout.uirevision) cameras.set(graph.layout.uirevision, scene.getCamera());
      Plotly.purge(graph);
    });
    body.replaceChildren();
    const say = (text) => { const line = document.createElement("p"); line.textContent = text; body.append(line); };
    if (news.message) say(news.message);
    if (news.table) { body.append(table(news.table)); markPicked(); }
    for (const figure of news.figures) {
      figure.words.forEach(say);
      if (!figure.height) continue;
      const graph = document.createElement("div"), meta = (figure.layout && figure.layout.meta) || {};
      graph.style.height = figure.height + "px";
      const box = document.createElement("div");
      if (meta.kind === "rnnvis") box.className = "rnnvis-map";
      box.append(graph);
      body.append(box);
      if (figure.layout.scene && cameras.has(figure.layout.uirevision)) figure.layout.scene.camera = cameras.get(figure.layout.uirevision);
      Plotly.newPlot(graph, figure.data, figure.layout, config).then(() => listen(graph, meta, figure.picks));
    }
    if (rnnvis) window.setTimeout(() => rnnvis.show(focus), 120);
  }

  /* The table of units: a click on a header sorts, a click on a row brings its unit forward in all views. */
  let sorted = { column: 0, down: false };
  function table(found) {
    const made = document.createElement("table"), head = made.createTHead().insertRow(), body = made.createTBody();
    const shown = (value) => (value === null ? "" : typeof value === "number" ? String(Number(value.toPrecision(4))) : value);
    const order = () => {
      const key = (row) => (row[sorted.column] === null ? -Infinity : Number.isNaN(Number(row[sorted.column])) ? row[sorted.column] : Number(row[sorted.column]));
      const rows = found.rows.slice().sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0));
      if (sorted.down) rows.reverse();
      body.replaceChildren(...rows.map((row) => {
        const line = document.createElement("tr");
        line.dataset.unit = row[0];
        line.append(...row.map((value) => {
          const cell = document.createElement("td");
          cell.textContent = shown(value);
          if (typeof value === "number") cell.className = "number";
          return cell;
        }));
        line.addEventListener("click", () => window.dash_clientside.set_props("units", { data: scope.toggled(picked, row[0]) }));
        return line;
      }));
      [...head.cells].forEach((cell, k) => cell.setAttribute("aria-sort", k !== sorted.column ? "none" : sorted.down ? "descending" : "ascending"));
      markPicked();
    };
    found.headers.forEach((header, k) => {
      const cell = document.createElement("th"), button = document.createElement("button");
      button.textContent = header;
      button.addEventListener("click", () => { sorted = { column: k, down: sorted.column === k && !sorted.down }; order(); });
      cell.append(button);
      head.append(cell);
    });
    order();
    return made;
  }

  let picked = [], ringed = [];
  function markPicked() {
    for (const line of at("panel-body").querySelectorAll("tr[data-unit]")) {
      line.classList.toggle("picked", picked.includes(line.dataset.unit));
      line.classList.toggle("ringed", ringed.includes(line.dataset.unit));
    }
  }

  /* Clicks pick units, epochs and words, as on the page; the map of RNNVis answers to the pointer. */
  function listen(graph, meta, picks) {
    const first = (event) => (event && event.points && event.points.length ? event.points[0] : {});
    graph.on("plotly_click", (event) => {
      if (meta.kind === "rnnvis") {
        const found = rnnvis.clickMap(event, focus, shown.run);
        if (found !== window.dash_clientside.no_update) { setFocus(found); return; }
      }
      const point = first(event), label = Array.isArray(point.customdata) ? point.customdata[0] : point.customdata;
      if (picks === "units" && label !== undefined && label !== null) {
        window.dash_clientside.set_props("units", { data: scope.toggled(picked, label) });
      } else if (picks === "epochs" && Number.isFinite(Number(point.x))) {
        window.dash_clientside.set_props("cursor", { data: Number(point.x) });
      }
    });
    if (meta.kind !== "rnnvis") return;
    graph.on("plotly_hover", (event) => rnnvis.hoverMap(event));
    graph.on("plotly_unhover", () => rnnvis.hoverMap(null));
  }

  function setFocus(found) { focus = found; window.dash_clientside.set_props("focus", { data: found }); }
  scope.focusOfTab = (found) => { focus = found; if (rnnvis) rnnvis.show(focus); };

  async function ask(state, view, dark) {
    const asked = new URLSearchParams({ run: view.run, layer: view.layer, panel, dark: dark ? "1" : "0", seen: mark });
    if (state.cursor !== null) asked.set("epoch", state.cursor);
    if (state.units.length) asked.set("units", state.units.join(","));
    for (const [name, value] of Object.entries(options)) asked.set("option." + name, value);
    if (focus) asked.set("focus", JSON.stringify(focus));
    shown = { run: view.run };
    const answer = await fetch("./panel?" + asked.toString());
    if (!answer.ok) return;
    const news = await answer.json();
    at("panels").hidden = news.panel === undefined;
    if (news.panel === undefined) return;
    tabs(news.panels, news.panel);
    controls(news.controls);
    at("panel-about").textContent = news.about;
    if (news.figures === undefined) return;
    mark = news.mark || "";
    if (news.picked) window.dash_clientside.set_props("focus-nodes", { data: news.picked.text ? news.picked : null });
    fill(news);
  }

  /* Called by tab.js once a second, after the upper part is up to date. */
  scope.panelsOfTab = async function (state, view, dark) {
    picked = (state.units || []).map(String);
    ringed = ((state.picked && state.picked.nodes) || []).map((node) => String(node[0]));
    markPicked();
    if (asking) return;
    asking = true;
    try { await ask(state, view, dark); } catch { /* the upper part says that there is no answer */ } finally { asking = false; }
  };
})();
