// The index (table, plot, comparison), sortable tables, and what run.js needs. A classic script, because modules do not
// load from disk. What the index shows is in the address after #, so that every view has a link: facets such as
// experiment=xvar&x_var.value=0.1, q=words, sort=-test_sse, colour=seed, plot=mnist, compare=RUN&compare=RUN.
"use strict";

const $ = (id) => document.getElementById(id);
const MARKERS = ["circle", "triangle-up", "square", "diamond", "triangle-down", "cross", "x", "star"];
const PAGE = 100; // rows drawn at once
const ASSETS = document.currentScript.dataset.assets;

/** An element; its children are text or elements, never read as HTML. A function among the attributes listens. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A number with four significant digits, without an exponent where that is readable. */
function number(value) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value) || Math.abs(value) < 1e-12) return String(Math.round(value) || 0); // never -0
  const exponent = Math.floor(Math.log10(Math.abs(value)));
  return exponent < -5 || exponent > 6 ? value.toPrecision(4) : value.toFixed(Math.max(0, 3 - exponent));
}

const CLOSED_FORMS = {
  within: { name: "closed form, within class", dash: "dash" },
  all: { name: "closed form, unconditional", dash: "dot" },
};
const order = new Intl.Collator("en", { numeric: true }).compare;
const words = (value) => (value === null || value === undefined ? "–" : String(value));

/** Text for plotly, which reads some tags in its labels. */
const literal = (text) => words(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

// ------------------------------------------------------------------------------------------------ plots

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axis(title) {
  return { title: { text: literal(title) }, gridcolor: colour("line"), linecolor: colour("quiet"), zeroline: false };
}

/** Plotly is large: it is loaded when something is to be drawn, after the page is shown. */
let loading = null;
function plotly() {
  loading ??= new Promise((loaded, failed) => {
    const script = element("script", { src: `${ASSETS}/plotly.min.js`, load: loaded, error: failed });
    setTimeout(() => document.head.append(script));
  });
  return loading;
}

async function plot(target, traces, layout, displayModeBar = false) {
  await plotly();
  const base = {
    paper_bgcolor: colour("ground"),
    plot_bgcolor: colour("ground"),
    font: { color: colour("text"), family: "system-ui, sans-serif", size: 13 },
    margin: { l: 60, r: 15, t: 15, b: 50 },
    hoverlabel: { bgcolor: colour("ground"), font: { color: colour("text") } },
  };
  return Plotly.react(target, traces, { ...base, ...layout }, { responsive: true, displaylogo: false, displayModeBar });
}

function onThemeChange(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

// ------------------------------------------------------------------------------------------------ the index

function browse(data) {
  const { settings, numbers } = data; // columns: key, heading, title; of numbers also whether it is a main one
  const lead = [
    { key: "run", heading: "run", title: "ten hex digits that identify the run (a hash of its settings and data)" },
    { key: "outcome", heading: "outcome", title: "how the run ended; point at it to see why" },
    { key: "experiment", heading: "experiment", title: "the experiments that contain the run" },
  ];
  const runs = data.runs.map((run, index) => {
    const values = { run: run.run, outcome: run.outcome, experiment: run.reports.join(", ") || "none" };
    settings.forEach(({ key }, i) => { values[key] = run.settings[i]; });
    numbers.forEach(({ key }, i) => { values[key] = run.numbers[i]; });
    const named = settings.map(({ key, heading }) => `${heading}=${words(values[key])}`.toLowerCase());
    const text = [run.run, run.outcome, run.reason, values.experiment, ...named].join(" ").toLowerCase();
    const fingerprint = run.run.match(/-([0-9a-f]{10})$/)?.[1] ?? run.run;
    return { ...run, index, values, fingerprint, named: new Set(named), text };
  });
  const byName = new Map(runs.map((run) => [run.run, run]));
  const folder = (run) => `runs/${encodeURIComponent(run.run)}`;
  const page = (run) => `pages/${encodeURIComponent(run.run)}.html`;
  const varying = (among) => {
    const known = among.filter((run) => run.settings.length);
    return settings.filter(({ key }) => known.some((run) => run.values[key] !== known[0].values[key]));
  };
  const facetValues = (run, key) => (key === "experiment" && run.reports.length ? run.reports : [words(run.values[key])]);

  const colours = ["experiment", "outcome", ...varying(runs).map(({ key }) => key)];
  const facets = colours.map((key) => ({ key, values: [...new Set(runs.flatMap((run) => facetValues(run, key)))] }))
    .filter(({ values }) => values.length > 1 && values.length <= 40);
  const byKey = new Map([...lead, ...settings, ...numbers].map((column) => [column.key, column]));
  const heading = (key) => byKey.get(key).heading;
  const [mainNumbers, moreNumbers] = [true, false].map((first) => numbers.filter(({ main }) => main === first));
  const shownNumbers = new Set();
  const chosen = new Set(); // names of the runs to compare
  let state = new URLSearchParams();
  let limit = PAGE;

  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : order(words(a), words(b)));
  const matches = (run) =>
    facets.every(({ key }) => !state.has(key) || facetValues(run, key).includes(state.get(key))) &&
    (state.get("q") ?? "").toLowerCase().split(/\s+/)
      .every((term) => (term.includes("=") ? run.named.has(term) : run.text.includes(term)));

  function set(key, value) {
    if (value) state.set(key, value);
    else state.delete(key);
    history.replaceState(null, "", `#${state}`);
    limit = PAGE;
    draw();
  }

  /** The column to sort by and the direction, 1 or -1. */
  function sorting() {
    const sort = state.get("sort") ?? "run";
    return sort.startsWith("-") ? [sort.slice(1), -1] : [sort, 1];
  }

  function sorted(found) {
    const [key, sign] = sorting();
    return found.sort((a, b) => {
      const [x, y] = [a.values[key] ?? null, b.values[key] ?? null];
      if (x === null || y === null) return (x === null) - (y === null); // what has no value comes last
      return sign * compare(x, y) || order(a.run, b.run);
    });
  }

  const badge = (run) => element("span", { class: `outcome ${run.outcome}`, title: run.reason }, run.outcome);

  function headCell({ key, heading, title, main }) {
    const [by, sign] = sorting();
    const button = element("button", { type: "button", title: title ?? key, "data-sort": key, click: () => {
      set("sort", by === key && sign > 0 ? `-${key}` : key);
      document.querySelector(`[data-sort="${CSS.escape(key)}"]`).focus();
    } }, heading);
    const direction = by !== key ? "none" : sign > 0 ? "ascending" : "descending";
    return element("th", { scope: "col", class: main === undefined ? null : "number", "aria-sort": direction }, button);
  }

  function cell(run, { key, main }) {
    const value = run.values[key];
    const text = main === undefined ? words(value) : number(value);
    return element("td", { class: main !== undefined || typeof value === "number" ? "number" : null, title: text }, text);
  }

  function bodyRow(run, columns) {
    const box = element("input", {
      type: "checkbox", "aria-label": `Compare ${run.run}`, change: (event) => choose(run, event.target.checked),
    });
    box.checked = chosen.has(run.run);
    const show = (event) => showCard(run, event.target.getBoundingClientRect());
    const link = element("a", { href: page(run), title: run.run, mouseenter: show, focus: show, mouseleave: hideCard, blur: hideCard }, run.fingerprint);
    return element("tr", {},
      element("td", {}, box), element("td", {}, link), element("td", {}, badge(run)),
      ...columns.map((column) => cell(run, column)));
  }

  function drawTable(found) {
    const columns = [
      ...mainNumbers, ...varying(found), byKey.get("experiment"), ...moreNumbers.filter(({ key }) => shownNumbers.has(key)),
    ];
    const boxes = element("th", { scope: "col" }, element("span", {}, "compare"));
    $("table").tHead.replaceChildren(element("tr", {}, boxes, ...[...lead.slice(0, 2), ...columns].map(headCell)));
    $("table").tBodies[0].replaceChildren(...found.slice(0, limit).map((run) => bodyRow(run, columns)));
    $("more").hidden = found.length <= limit;
    $("more").textContent = `Show ${Math.min(PAGE, found.length - limit)} more of ${found.length}`;
    $("count").textContent = found.length === runs.length ? `${runs.length} runs` : `${found.length} of ${runs.length} runs`;
    const known = found.find((run) => run.settings.length);
    const same = settings.filter((column) => known && !columns.includes(column) && known.values[column.key] !== null)
      .map(({ key, heading }) => `${heading} ${words(known.values[key])}`);
    $("fixed").textContent = same.length ? `These settings are the same in all runs shown: ${same.join(", ")}.` : "";
  }

  function choose(run, on) {
    chosen[on ? "add" : "delete"](run.run);
    $("compare").disabled = chosen.size < 2 || chosen.size > 6;
    $("compare").textContent = chosen.size === 0 ? "Compare" : `Compare ${chosen.size} run${chosen.size === 1 ? "" : "s"} (2 to 6)`;
  }

  function showCard(run, at) {
    const samples = run.pictures.includes("samples.png")
      ? element("img", { src: `${folder(run)}/samples.png`, alt: "Samples" }) : "no samples";
    const differing = varying(runs).map(({ key, heading }) => `${heading} ${words(run.values[key])}`).join(", ");
    const figures = `KL ${number(run.values.test_kl)}, SSE ${number(run.values.test_sse)}`;
    $("card").replaceChildren(element("b", {}, `${run.outcome}: `), `${figures}; ${differing}`, samples);
    $("card").hidden = false;
    const { width } = $("card").getBoundingClientRect();
    const left = at.right + 12 + width < innerWidth ? at.right + 12 : Math.max(8, at.left - 12 - width);
    $("card").style.left = `${left}px`;
    $("card").style.top = `${Math.max(8, Math.min(at.top, innerHeight - 400))}px`;
  }

  const hideCard = () => $("card").toggleAttribute("hidden", true);

  const shownBoth = (run) => [run.values.test_kl, run.values.test_sse].every((value) => typeof value === "number");
  const grouped = (own, key) => Object.entries(Object.groupBy(own, (run) => words(run.values[key])))
    .sort(([a], [b]) => order(a, b));

  function runTraces(drawn) {
    const by = $("colour").value;
    const points = (own, marker, more) => ({
      x: own.map((run) => run.values.test_kl), y: own.map((run) => run.values.test_sse),
      customdata: own.map((run) => run.index), mode: "markers", hoverinfo: "none", ...more,
      marker: { size: 9, opacity: 0.85, ...marker },
    });
    const values = new Set(drawn.map((run) => run.values[by]));
    if (values.size > MARKERS.length * 2 && [...values].every((v) => typeof v === "number")) {
      const colorbar = { title: { text: literal(heading(by)) } };
      const marker = { color: drawn.map((run) => run.values[by]), colorscale: "Viridis", showscale: true, colorbar };
      return [points(drawn, marker, { showlegend: false })];
    }
    return grouped(drawn, by).map(([name, own], i) => {
      const symbol = MARKERS[i % 8] + (Math.floor(i / 8) % 2 ? "-open" : "");
      const title = by === "outcome" || (by === "experiment" && name !== "none") ? name : `${heading(by)} ${name}`;
      return points(own, { symbol, color: colour(`c${i % 8}`) }, { name: literal(title) });
    });
  }

  /** The closed forms of these runs, as far as the runs reach; the first of each k has it at its end. */
  function curveTraces(drawn) {
    const [kls, sses] = ["test_kl", "test_sse"].map((key) => drawn.map((run) => run.values[key]));
    const top = 1.45 * Math.max(...sses) - 0.45 * Math.min(...sses) + 1; // more would press the runs together
    const own = [...new Set(drawn.flatMap((run) => run.curves))].map((i) => data.curves[i]);
    return own.map(({ kind, title, k, kl, sse }, i) => {
      const isFirst = (of) => own.findIndex(of) === i;
      const { name, dash } = CLOSED_FORMS[kind];
      const near = kl.map((_, j) => j).filter((j) => kl[j] >= Math.min(...kls) && kl[j] <= Math.max(...kls) && sse[j] <= top);
      return {
        x: near.map((j) => kl[j]), y: near.map((j) => sse[j]), name, legendgroup: name, showlegend: isFirst((c) => c.kind === kind),
        mode: "lines+text", text: isFirst((c) => c.k === k) ? [`k = ${k}`] : [], textposition: "bottom left", textfont: { color: colour("quiet") },
        line: { dash, color: colour("quiet"), width: 1.6 }, hovertemplate: `${name}<br>${literal(title)}<extra></extra>`,
      };
    });
  }

  /** Fills the selector of the dataset; returns the runs of the one to draw: that of the address, or that with most. */
  function ofOneDataset(scored) {
    const sets = grouped(scored, "dataset").sort(([, own], [, others]) => others.length - own.length);
    $("dataset").replaceChildren(...sets.map(([name]) => element("option", { value: name }, name)));
    $("one-dataset").hidden = sets.length < 2;
    const [name, own] = sets.find(([name]) => name === state.get("plot")) ?? sets[0] ?? ["", []];
    $("dataset").value = name;
    return own;
  }

  async function drawPlot(found) {
    const scored = found.filter(shownBoth);
    const own = ofOneDataset(scored);
    const drawn = own.filter((run) => !$("log-kl").checked || run.values.test_kl > 0);
    const notes = [`${drawn.length} of ${found.length} runs are drawn.`];
    if (own.length < scored.length) notes.push("The runs on other datasets are not drawn.");
    if (drawn.length < own.length) notes.push("Runs with KL 0 are not drawn, because the axis is logarithmic.");
    $("plot-note").textContent = notes.join(" ");
    const scaled = (title, id) => ({ ...axis(title), type: $(id).checked ? "log" : "linear" });
    const first = $("plot").on === undefined; // plotly gives an element its events when it first draws there
    await plot($("plot"), [...curveTraces(drawn), ...runTraces(drawn)], {
      xaxis: scaled("KL (nats per image)", "log-kl"), yaxis: scaled("SSE (squared error per image)", "log-sse"),
      showlegend: true, legend: { orientation: "h", y: -0.25 }, hovermode: "closest",
    }, "hover");
    if (first) listen();
  }

  function listen() {
    const pointed = ({ points }) => runs[points[0].customdata]; // undefined on a curve
    $("plot").on("plotly_hover", (event) => {
      const { clientX, clientY } = event.event;
      if (pointed(event)) showCard(pointed(event), { left: clientX, right: clientX, top: clientY });
    });
    $("plot").on("plotly_unhover", hideCard);
    $("plot").on("plotly_click", (event) => {
      if (pointed(event)) location.href = page(pointed(event));
    });
  }

  function drawComparison(names) {
    const own = names.map((name) => byName.get(name)).filter((run) => run !== undefined);
    const [table] = $("comparison").getElementsByTagName("table");
    const difference = own.length === 2; // then a last column, which numbers alone fill
    const row = (title, cells, tip = null) => element("tr", {}, element("th", { scope: "row", title: tip }, title),
      ...cells, ...(difference && cells.length < 3 ? [element("td")] : []));
    const head = own.map((run) => element("th", { scope: "col" }, element("a", { href: page(run) }, run.run)));
    if (difference) head.push(element("th", { scope: "col" }, "second − first"));
    const rows = [row("outcome", own.map((run) => element("td", {}, badge(run))))];
    for (const { key, heading } of varying(own)) {
      rows.push(row(heading, own.map((run) => element("td", {}, words(run.values[key])))));
    }
    const numberRow = ({ key, heading, title }) => {
      const values = own.map((run) => run.values[key]);
      if (difference) values.push(values.includes(null) ? null : Number((values[1] - values[0]).toPrecision(4)));
      const sign = (i) => (i === own.length && values[i] > 0 ? "+" : "");
      return row(heading, values.map((value, i) => element("td", { class: "number" }, sign(i) + number(value))), title);
    };
    const known = ({ key }) => own.some((run) => run.values[key] !== null);
    rows.push(...mainNumbers.filter(known).map(numberRow));
    for (const file of new Set(own.flatMap((run) => run.pictures))) {
      const cells = own.map((run) => element("td", {}, run.pictures.includes(file)
        ? element("img", { class: "sheet", src: `${folder(run)}/${encodeURIComponent(file)}`, alt: `${file} of ${run.run}`, loading: "lazy" })
        : "–"));
      rows.push(row(file.replace(/\.png$/, ""), cells));
    }
    rows.push(...moreNumbers.filter(known).map(numberRow));
    table.tHead.replaceChildren(element("tr", {}, element("td", {}), ...head));
    table.tBodies[0].replaceChildren(...rows);
    scrollTo(0, 0);
    $("comparison").querySelector("h1").focus({ preventScroll: true });
  }

  function draw() {
    const names = state.getAll("compare");
    $("overview").hidden = names.length > 0;
    $("comparison").hidden = names.length === 0;
    hideCard();
    if (names.length) return drawComparison(names);
    $("colour").value = state.get("colour") ?? facets[0]?.key ?? "outcome";
    for (const { key } of facets) $(`facet-${key}`).value = state.get(key) ?? "";
    if (facets.some(({ key }) => state.has(key))) $("filters").open = true;
    $("search").value = state.get("q") ?? "";
    const found = sorted(runs.filter(matches));
    drawTable(found);
    drawPlot(found);
  }

  function follow() {
    state = new URLSearchParams(location.hash.slice(1));
    // An anchor, or a link from before a setting or a run was removed.
    if (!byKey.has(sorting()[0])) state.delete("sort");
    if (!colours.includes(state.get("colour"))) state.delete("colour");
    if (!state.getAll("compare").some((name) => byName.has(name))) state.delete("compare");
    for (const [key, value] of [...state]) if (value === "") state.delete(key);
    limit = PAGE;
    draw();
    if (state.size && !state.has("compare")) $("runs").scrollIntoView();
  }

  for (const { key, values } of facets) {
    const options = values.sort(order).map((value) => element("option", { value }, value));
    const select = element("select", { id: `facet-${key}`, change: (event) => set(key, event.target.value) },
      element("option", { value: "" }, "any"), ...options);
    $("facets").append(element("label", {}, heading(key), select));
  }
  for (const { key, heading, title } of moreNumbers) {
    const box = element("input", { type: "checkbox", change: (event) => {
      shownNumbers[event.target.checked ? "add" : "delete"](key);
      draw();
    } });
    $("columns").lastElementChild.append(element("label", { title }, box, heading));
  }
  $("colour").append(...colours.map((key) => element("option", { value: key }, heading(key))));
  $("colour").addEventListener("change", (event) => set("colour", event.target.value));
  $("dataset").addEventListener("change", (event) => set("plot", event.target.value));
  const [kl, sse] = ["test_kl", "test_sse"].map((key) => runs.filter(shownBoth).map((run) => run.values[key]));
  $("log-kl").checked = Math.min(...kl) > 0.01 && Math.max(...kl) > 10 * Math.min(...kl);
  $("log-sse").checked = Math.min(...sse) > 0 && Math.max(...sse) > 10 * Math.min(...sse);
  for (const id of ["log-kl", "log-sse"]) $(id).addEventListener("change", draw);
  let typing;
  $("search").addEventListener("input", (event) => {
    clearTimeout(typing);
    typing = setTimeout(() => set("q", event.target.value), 150);
  });
  $("reset").addEventListener("click", () => {
    state = new URLSearchParams();
    chosen.clear();
    choose({ run: "" }, false);
    set("q", "");
  });
  $("more").addEventListener("click", () => {
    limit += PAGE;
    drawTable(sorted(runs.filter(matches)));
  });
  $("compare").addEventListener("click", () => {
    location.hash = new URLSearchParams([...chosen].map((name) => ["compare", name]));
  });
  onThemeChange(draw);
  addEventListener("hashchange", follow);
  follow();
}

// ------------------------------------------------------------------------------------------------ tables of reports

/** Makes a table sortable by the buttons in its head. A number counts as far as it can be read: 26.2 of "26.2 ± 0.3". */
function sortable(table) {
  const text = (row, i) => row.cells[i]?.textContent.trim() ?? "";
  [...table.tHead.rows[0].cells].forEach((th, i) => {
    const button = element("button", { type: "button", click: () => {
      const sign = th.ariaSort === "ascending" ? -1 : 1;
      for (const other of table.tHead.rows[0].cells) other.ariaSort = other === th ? (sign > 0 ? "ascending" : "descending") : "none";
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [text(a, i), text(b, i)];
        if ([x, y].some((v) => v === "–" || v === "")) return (x === "–" || x === "") - (y === "–" || y === "");
        const [p, q] = [x, y].map((v) => parseFloat(v.replaceAll(",", "")));
        return sign * (p - q || order(x, y));
      });
      table.tBodies[0].append(...rows);
    } });
    button.append(...th.childNodes);
    th.append(button);
    th.ariaSort = "none";
    th.scope = "col";
  });
}

document.querySelectorAll(".report table").forEach((table, i) => {
  const box = element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table ${i + 1}` });
  table.replaceWith(box);
  box.append(table);
});
for (const table of document.querySelectorAll(".report table")) if (table.tBodies.length) sortable(table);
if ($("runs")) browse(JSON.parse($("site-data").textContent));
