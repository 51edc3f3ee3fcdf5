// A run's page: its learning curves, the KL of its latent dimensions and the table of all numbers. After site.js.
"use strict";

function drawRun(data) {
  const panels = data.history.map(([title]) => element("div", { role: "img", "aria-label": `${title} by epoch` }));
  // All panels first: each is drawn as wide as it will stay.
  $("learning")?.replaceChildren(...panels.map((panel, i) => element("figure", {}, element("figcaption", {}, data.history[i][0]), panel)));
  data.history.forEach(([, y], i) => {
    const line = { x: data.epoch, y, mode: y.length === 1 ? "markers" : "lines", line: { color: colour("c0") } };
    plot(panels[i], [line], { xaxis: axis("epoch"), yaxis: axis("") });
  });
  if (!data.kl_per_dim.length) return;
  const bars = {
    type: "bar", name: "this run", x: data.rank, y: data.kl_per_dim, text: data.dimension.map((i) => `dimension ${i}`),
    textposition: "none", marker: { color: colour("c0") },
  };
  const closed = data.closed_form.map(({ kind, kl }) => {
    const { name, dash } = CLOSED_FORMS[kind];
    return { name, x: data.rank, y: kl, mode: "lines", line: { dash, color: colour("c1") } };
  });
  plot($("kl-per-dim"), [bars, ...closed], {
    xaxis: axis("latent dimension by rank"), yaxis: axis("KL (nats per image)"),
    showlegend: closed.length > 0, legend: { orientation: "h", y: 1, yanchor: "bottom" },
  });
}

/** The table of all numbers. COLUMNS has the meaning of each, the same for all runs (columns.js). */
function fillNumbers(numbers) {
  const rows = Object.entries(COLUMNS).filter(([name]) => name in numbers).map(([name, meaning]) => element("tr", {},
    element("th", { scope: "row" }, name), element("td", { class: "number" }, number(numbers[name])), element("td", {}, meaning)));
  $("numbers").tBodies[0].replaceChildren(...rows);
  sortable($("numbers"));
}

const data = JSON.parse($("run-data").textContent);
drawRun(data);
onThemeChange(() => drawRun(data));
if ($("numbers")) fillNumbers(data.numbers);
