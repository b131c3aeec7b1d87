/* The tab: asks for what is new once a second, and lets scope.js, which the dashboard uses too, do the rest. */
(function () {
  "use strict";

  const scope = window.dash_clientside.hiddenscope;
  const at = (id) => document.getElementById(id);
  const state = { cursor: null, units: [], epochs: [], picked: null, picture: null, curves: null, curves_mark: "", picture_mark: "" };
  const config = { displaylogo: false, responsive: true };
  let dark = false;

  /* As dark as the TensorBoard around this page; as the system, when there is none around it. */
  function followTheme() {
    let around = null;
    try { around = window.top === window ? null : window.top.document.body; } catch { /* framed by a stranger */ }
    dark = around ? around.classList.contains("dark-mode") : window.matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.classList.toggle("dark", dark);
  }

  /* scope.js moves the page through set_props, as it does in Dash. */
  window.dash_clientside.set_props = function (id, props) {
    if (id === "cursor") { state.cursor = props.data; draw(["picture", "transport"]); }
    else if (id === "units") { state.units = props.data; scope.chosen(state.units); draw(["picture", "curves"]); }
    else if (id === "focus") {
      if (!props.data) { state.picked = null; draw(["picture", "curves"]); tell(); }
      if (scope.focusOfTab) scope.focusOfTab(props.data);
    } else if (id === "focus-nodes") { state.picked = props.data; draw(["picture", "curves"]); tell(); }
    else if (id === "play") at("play").textContent = props.children;
  };

  function plot(id, figure) {
    const graph = at(id).firstElementChild;
    const fresh = !graph.classList.contains("js-plotly-plot");
    Plotly.react(graph, figure.data, figure.layout, config);
    if (!fresh) return;
    graph.on("plotly_click", (event) => {
      if (id === "picture") { keep({ units: scope.clickPicture(event, state.units) }); return; }
      const [cursor, units] = scope.clickCurves(event, state.units);
      keep({ cursor, units });
    });
  }

  function keep(news) {
    for (const [name, value] of Object.entries(news)) {
      if (value !== window.dash_clientside.no_update && value !== undefined) window.dash_clientside.set_props(name, { data: value });
    }
  }

  function draw(parts) {
    if (parts.includes("transport")) {
      const [max, value, label] = scope.transport(state.cursor, state.epochs);
      at("scrub").max = max;
      at("scrub").value = value;
      at("epoch-label").textContent = label;
    }
    if (parts.includes("picture") && state.picture) plot("picture", scope.picture(state.picture, state.cursor, state.units, null, state.picked));
    if (parts.includes("curves") && state.curves) plot("curves", scope.curves(state.curves, state.units, state.picked));
  }

  function tell() {
    at("focus-label").hidden = !state.picked;
    at("focus-label").textContent = state.picked ? "picked: " + state.picked.text + " \u00d7" : "";
  }

  function fill(select, options, value) {
    const wanted = JSON.stringify(options);
    if (select.dataset.options !== wanted) {
      select.replaceChildren(...options.map((option) => new Option(option.label || option, option.value || option)));
      select.dataset.options = wanted;
    }
    if (value !== undefined) select.value = value;
  }

  function query() {
    const asked = new URLSearchParams({ dark: dark ? "1" : "0", log: at("log").checked ? "1" : "0" });
    for (const id of ["run", "layer", "method", "color", "dimensions"]) if (at(id).value) asked.set(id, at(id).value);
    asked.set("curves_seen", state.curves_mark);
    asked.set("picture_seen", state.picture_mark);
    return asked.toString();
  }

  async function look() {
    try {
      const answer = await fetch("./view?" + query());
      if (!answer.ok) throw new Error("TensorBoard answers " + answer.status);
      show(await answer.json());
    } catch (error) {
      at("problem").hidden = false;
      at("problem").textContent = "No answer from TensorBoard (" + error.message + "); it is asked again.";
    }
  }

  /* How far to trust the picture: a bar for each measure, with a mark at what chance would give. */
  function showTrust(found, said) {
    const made = (tag, text, style) => Object.assign(document.createElement(tag), { textContent: text || "", style: style || "" });
    const part = (one) => {
      const place = made("span"), bar = made("span"), number = made("span");
      place.className = "trust-part";
      bar.className = "gauge";
      number.className = "trust-number";
      number.append(made("b", one.number), " " + one.unit);
      bar.append(made("i", "", "width:" + 100 * one.value + "%"));
      if (one.chance !== null) bar.append(made("u", "", "left:" + 98 * one.chance + "%"));
      place.append(one.name, bar, number);
      return place;
    };
    const parts = [];
    found.forEach((one, k) => {
      if (!k || found[k - 1].group !== one.group) parts.push(Object.assign(made("span", one.group), { className: "trust-name" }));
      parts.push(part(one));
    });
    at("trust").hidden = !found.length;
    at("trust").replaceChildren(...parts);
    at("trust").title = said;
    at("trust").setAttribute("aria-label", said);
  }

  function show(news) {
    const nothing = news.message !== undefined;
    at("message").hidden = !nothing;
    at("views").hidden = at("transport").hidden = nothing;
    if (nothing) at("panels").hidden = true;
    if (nothing) at("message").textContent = news.message;
    at("problem").hidden = !news.problem;
    at("problem").textContent = news.problem || "";
    fill(at("color"), news.colors, at("color").value || "epoch");
    fill(at("method"), news.methods, at("method").value || "mmphate");
    fill(at("run"), news.runs, news.run);
    if (nothing) return;
    fill(at("layer"), news.layers, news.layer);
    at("status").textContent = news.status;
    state.epochs = news.epochs;
    showTrust(news.trust, news.trust_said);
    const parts = ["transport"];
    for (const name of ["picture", "curves"]) {
      if (!news[name]) continue;
      state[name] = news[name];
      state[name + "_mark"] = news[name + "_mark"];
      parts.push(name);
    }
    const shown = state.picture && state.picture.layout && state.picture.layout.meta;
    at("note").textContent = [news.note, shown && shown.note].filter(Boolean).join(" \u00b7 ");
    draw(parts);
    if (scope.panelsOfTab) scope.panelsOfTab(state, news, dark);
  }

  let looking = false;
  async function turn() {
    if (looking) return;
    looking = true;
    followTheme();
    try { await look(); } finally { looking = false; }
  }
  setInterval(turn, 1000);
  for (const id of ["run", "layer", "method", "color", "dimensions", "log"]) at(id).addEventListener("change", turn);
  at("scrub").addEventListener("input", () => keep({ cursor: scope.scrubbed(Number(at("scrub").value)) }));
  at("play").addEventListener("click", () => scope.play(1));
  at("focus-label").addEventListener("click", () => window.dash_clientside.set_props("focus", { data: null }));
  at("all-epochs").addEventListener("click", () => keep({ cursor: scope.all(1) }));
  turn();
})();
