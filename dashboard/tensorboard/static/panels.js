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
    const body = at("panel-body");
    body.querySelectorAll(".js-plotly-plot").forEach((graph) => Plotly.purge(graph));
    body.replaceChildren();
    const say = (text) => { const line = document.createElement("p"); line.textContent = text; body.append(line); };
    if (news.message) say(news.message);
    for (const figure of news.figures) {
      figure.words.forEach(say);
      if (!figure.height) continue;
      const graph = document.createElement("div");
      graph.style.height = figure.height + "px";
      body.append(graph);
      Plotly.newPlot(graph, figure.data, figure.layout, config);
    }
  }

  async function ask(state, view, dark) {
    const asked = new URLSearchParams({ run: view.run, layer: view.layer, panel, dark: dark ? "1" : "0", seen: mark });
    if (state.cursor !== null) asked.set("epoch", state.cursor);
    if (state.units.length) asked.set("units", state.units.join(","));
    for (const [name, value] of Object.entries(options)) asked.set("option." + name, value);
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
    fill(news);
  }

  /* Called by tab.js once a second, after the upper part is up to date. */
  scope.panelsOfTab = async function (state, view, dark) {
    if (asking) return;
    asking = true;
    try { await ask(state, view, dark); } catch { /* the upper part says that there is no answer */ } finally { asking = false; }
  };
})();
