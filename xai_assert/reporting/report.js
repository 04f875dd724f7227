"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const { cells, ids, marks, captions, controls, order, red } = data;
  const table = $("table"), body = table.tBodies[0], filter = $("filter"), dialog = $("detail");
  const rows = [...body.rows], row = new Map(rows.map((r) => [+r.dataset.position, r]));
  const byId = new Map(cells.map((cell) => [cell.id, cell]));
  const texts = new Map(rows.map((r) => [r, r.textContent.toLowerCase()]));

  // Text from the run goes into text nodes and attributes only, never into markup.
  const SVG = "http://www.w3.org/2000/svg";
  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {}))
      if (typeof value === "function") node.addEventListener(name, value);
      else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
    return node;
  }
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const badge = (verdict) => {
    const slug = verdict.replaceAll(" ", "-");
    return h("span", { class: "badge v-" + slug }, s("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, s("use", { href: "#shape-" + slug })), verdict);
  };
  const none = (value) => value === null || value === undefined;
  const signed = (value) => none(value) ? "" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
  const figures = (value) => none(value) ? "" : (+value).toPrecision(4).replace("-", "−");
  const short = (value) => String(+(+value).toPrecision(3)).replace("-", "−");
  const title = (metric) => ["af", "fe", "asr"].includes(metric) ? metric.toUpperCase() : metric.replaceAll("_", " ");
  const number = (score) => (score.higher_is_better === undefined || inOne(score)) ? signed : figures;
  const inOne = (score) => (score.values || [score.value]).every((value) => Math.abs(value) <= 1);

  // --- filter and sort -------------------------------------------------------------------------------------------
  let sorted = { key: "verdict", up: true };
  const facets = ["verdict", "model", "method", "perturbation"];

  function apply() {
    const words = filter.elements.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const [position, tr] of row) {
      const fits = facets.every((name) => !filter.elements[name].value || cells[position][name] === filter.elements[name].value)
        && words.every((word) => texts.get(tr).includes(word));
      tr.hidden = !fits;
      count += fits;
    }
    $("shown").textContent = count === cells.length ? `${count} cells` : `${count} of ${cells.length} cells`;
    $("none").hidden = count > 0;
  }

  function sortKey(cell, key) {
    if (key === "verdict") return order.indexOf(cell.verdict) < 0 ? order.length : order.indexOf(cell.verdict);
    if (key === "interval") return cell.interval ? cell.interval[0] : null;
    if (key === "marks") return [...cell.others, ...cell.marks].join("; ") || cell.error || null;
    return cell[key] === "" ? null : cell[key];
  }

  const collator = new Intl.Collator("en", { numeric: true });
  function sort(key, up) {
    sorted = { key, up };
    const keyed = cells.map((cell) => [sortKey(cell, key), cell.position]);
    keyed.sort(([a, i], [b, j]) => {
      if (none(a) || none(b)) return none(a) - none(b) || i - j; // what has no value stays last, up or down
      const found = typeof a === "number" ? a - b : collator.compare(a, b);
      return (up ? found : -found) || i - j;
    });
    body.append(...keyed.map(([, position]) => row.get(position)));
    for (const th of table.tHead.rows[0].cells)
      if (th.dataset.key === key) th.setAttribute("aria-sort", up ? "ascending" : "descending");
      else th.removeAttribute("aria-sort");
  }

  for (const th of table.tHead.rows[0].cells) {
    th.replaceChildren(h("button", { type: "button", click: () => sort(th.dataset.key, sorted.key === th.dataset.key ? !sorted.up : true) }, th.textContent));
  }
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  filter.addEventListener("reset", () => setTimeout(apply));
  $("again").addEventListener("click", () => { filter.reset(); filter.elements.text.focus(); });
  body.addEventListener("click", (event) => {
    const tr = event.target.closest("tr");
    if (!tr || event.target.closest("a") || String(getSelection())) return;
    location.hash = tr.id;
  });

  // --- chart -----------------------------------------------------------------------------------------------------
  function extent(series, bounds, score) {
    const all = series.flatMap((one) => [...one.score.values, ...(one.score.interval95 || [])]).concat(bounds.map((b) => b.value));
    if (series.every((one) => inOne(one.score)) && all.every((value) => Math.abs(value) <= 1)) {
      return Math.min(...all) < 0 || score.metric === "af" ? [-1, 1] : [0, 1];
    }
    const low = Math.min(...all), high = Math.max(...all), pad = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - pad, high + pad];
  }

  function chart(metric, series, bounds, width) {
    const narrow = width < 560, left = narrow ? 4 : 128, right = width - 14, lane = narrow ? 66 : 52, top = bounds.length ? 26 : 8;
    const bottom = top + series.length * lane;
    const [low, high] = extent(series, bounds, { metric });
    const x = (value) => left + 8 + (value - low) / (high - low) * (right - left - 8);
    const step = (high - low) / 4, ticks = [0, 1, 2, 3, 4].map((k) => low + k * step);
    const svg = s("svg", { class: "chart", viewBox: `0 0 ${width} ${bottom + 24}`, role: "img" },
      s("title", {}, `${metric} of every image; the bar is the 95% interval of the mean. ` + series.map((one) =>
        `${one.name}: ${signed(one.score.value)}` + (one.score.interval95 ? ` [${one.score.interval95.map(signed).join(", ")}]` : "")).join("; ")));
    for (const tick of ticks) svg.append(
      s("line", { class: Math.abs(tick) < 1e-9 ? "zero" : "grid", x1: x(tick), x2: x(tick), y1: top, y2: bottom }),
      s("text", { class: "faint", x: x(tick), y: bottom + 16, "text-anchor": tick === ticks[4] ? "end" : tick === ticks[0] && narrow ? "start" : "middle" }, short(tick)));
    series.forEach((one, index) => {
      const y = top + index * lane + lane / 2 + (narrow ? 8 : 0), lanes = new Map();
      const group = s("g", index ? { class: "control" } : {});
      group.append(narrow
        ? s("text", { x: left, y: y - lane / 2 + 12 }, one.name, ` ${signed(one.score.value)}`)
        : s("text", { x: 0, y: y + 4 }, one.name));
      one.score.values.forEach((value, k) => {
        const bin = Math.round(x(value) / 5), level = lanes.get(bin) || 0;
        lanes.set(bin, level + 1);
        const offset = (level % 2 ? 1 : -1) * Math.ceil(level / 2) * 4.5;
        group.append(s("circle", { class: "dot", cx: x(value), cy: y + Math.max(-17, Math.min(17, offset)), r: 3.2 },
          s("title", {}, `${idsOf(one.score)[k]}: ${signed(value)}`)));
      });
      if (one.score.interval95) group.append(
        s("line", { class: "interval", x1: x(one.score.interval95[0]), x2: x(one.score.interval95[1]), y1: y, y2: y }),
        ...one.score.interval95.map((end) => s("line", { class: "interval", x1: x(end), x2: x(end), y1: y - 5, y2: y + 5 })));
      group.append(s("circle", { class: "mean", cx: x(one.score.value), cy: y, r: 5 }));
      svg.append(group);
    });
    for (const bound of bounds) {
      const at = x(bound.value), end = at > width - 90;
      svg.append(s("line", { class: "bound", x1: at, x2: at, y1: top - 8, y2: bottom }),
        s("text", { class: "limit", x: at, y: top - 12, "text-anchor": end ? "end" : at < 60 ? "start" : "middle" }, bound.label));
    }
    return svg;
  }

  function boundsOf(cell, metric) {
    return cell.gates.filter((gate) => gate.metric === metric).flatMap((gate) =>
      [...String(gate.bound || "").matchAll(/\b(min|max)\w*=(-?[\d.]+(?:e[-+]?\d+)?)/g)].map(([, side, value]) => ({ label: `${side} ${value}`, value: +value })));
  }
  const idsOf = (score) => none(score.ids) ? score.values.map((_, k) => k) : ids[score.ids];
  const plain = (method) => method.split("(")[0];
  function seriesOf(cell, metric) {
    const beside = cells.filter((other) => other !== cell && other.model === cell.model && other.perturbation === cell.perturbation
      && other.seed === cell.seed && controls.includes(plain(other.method)) && other.scores[metric]);
    return [cell, ...beside].map((one) => ({ name: one.method || metric, score: one.scores[metric] }));
  }

  // --- the details of a cell -------------------------------------------------------------------------------------
  const section = (heading, ...content) => content.flat().length ? [h("h3", {}, heading), ...content] : [];
  const region = (label, content) => h("div", { class: "scroll values", role: "region", "aria-label": label, tabindex: "0" }, content);

  function scoreTable(cell) {
    const line = ([metric, score]) => h("tr", {},
      h("th", { scope: "row" }, title(metric)),
      h("td", { class: "number" }, number(score)(score.value), score.unit ? " " + score.unit : ""),
      h("td", { class: "number" }, score.interval95 ? score.interval95.map(number(score)).join(" … ") : "–"),
      h("td", { class: "number" }, none(score.n) ? "" : String(score.n)),
      h("td", { class: "remark" }, score.higher_is_better === false ? "lower is better" : "higher is better"));
    const errors = (score) => ["relevant_error", "irrelevant_error"].filter((name) => score[name]).map((name) => h("tr", {},
      h("th", { scope: "row" }, name === "relevant_error" ? "rel" : "irr"),
      h("td", { class: "number" }, figures(score[name].reduce((a, b) => a + b, 0) / score[name].length), " ", score.unit_of_error || ""),
      h("td", { class: "number" }, "–"), h("td", { class: "number" }, String(score[name].length)),
      h("td", { class: "remark" }, `mean error against the ${String(score.reference || "prediction").replaceAll("_", " ")}, ${name === "relevant_error" ? "R" : "I"} perturbed`)));
    const asr = (score) => none(score.asr) || cell.scores.asr ? [] : [h("tr", {}, h("th", { scope: "row" }, "ASR"),
      h("td", { class: "number" }, score.asr.toFixed(2)), h("td", { class: "number" }, "–"), h("td", { class: "number" }, String(score.n)), h("td", { class: "remark" }, "share of images with rel > irr"))];
    const lines = Object.entries(cell.scores).flatMap((entry) => [line(entry), ...errors(entry[1]), ...asr(entry[1])]);
    if (!lines.length) return [];
    const heads = ["Score", "Value", "95% interval", "Images", ""].map((head, k) => h("th", { scope: "col", class: k && k < 4 ? "number" : null }, head));
    return [h("div", { class: "scroll", role: "region", "aria-label": "Scores", tabindex: "0" },
      h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, lines)))];
  }

  function sliceTable(cell) {
    const lines = Object.entries(cell.slices.metrics).flatMap(([metric, parts]) => parts.map((part) => h("tr", {},
      h("th", { scope: "row" }, title(metric)), h("td", {}, part.name), h("td", { class: "number" }, figures(part.value)),
      h("td", { class: "number" }, part.interval ? part.interval.map(figures).join(" … ") : "–"),
      h("td", { class: "number" }, String(part.count)), h("td", { class: "number" }, none(part.p) ? "–" : part.p.toPrecision(2)))));
    if (!lines.length) return [];
    const heads = ["Score", cell.slices.column, "Mean", "95% interval", "Images", "p of the bound"].map((head, k) => h("th", { scope: "col", class: k > 1 ? "number" : null }, head));
    return [h("div", { class: "scroll", role: "region", "aria-label": "Slices", tabindex: "0" },
      h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, lines)))];
  }

  function charts(cell, width) {
    return Object.entries(cell.scores).filter(([, score]) => score.values && score.values.length > 1 && !score.values.every((v) => v === 0 || v === 1))
      .flatMap(([metric]) => [h("p", { class: "lead" }, title(metric), " of every image; the bar is the 95% interval",
        boundsOf(cell, metric).length ? ", the dashed line the gate’s bound" : ""), chart(metric, seriesOf(cell, metric), boundsOf(cell, metric), width)]);
  }

  function imageTable(cell) {
    const [metric, score] = Object.entries(cell.scores).find(([name, one]) => name === "af" || one.values) || [];
    if (!score || !score.values || !score.values.length) return [];
    const columns = ["values", "relevant_error", "irrelevant_error"].filter((name) => score[name]);
    const ranked = score.values.map((value, k) => k).sort((a, b) => (score.higher_is_better === false ? -1 : 1) * (score.values[a] - score.values[b]));
    const titles = { values: title(metric), relevant_error: "rel", irrelevant_error: "irr" };
    const folded = h("details", {}, h("summary", {}, "Values of every image, the worst first"));
    folded.addEventListener("toggle", () => {
      if (folded.childElementCount > 1) return;
      folded.append(region("Values of every image", h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Image"), columns.map((name) => h("th", { scope: "col", class: "number" }, titles[name])))),
        h("tbody", {}, ranked.map((k) => h("tr", {}, h("td", {}, String(idsOf(score)[k])),
          columns.map((name) => h("td", { class: "number" }, name === "values" ? number(score)(score[name][k]) : figures(score[name][k])))))))));
    });
    return [folded];
  }

  function tiles(cell, picture) {
    const heading = [picture.role && picture.role[0].toUpperCase() + picture.role.slice(1) + ": ", "image ", String(picture.image_id), none(picture.value) ? "" : `, AF ${signed(picture.value)}`];
    if (picture.missing) return [h("p", {}, h("strong", {}, heading), h("br"), `The picture ${picture.file} cannot be shown: ${picture.missing}.`)];
    const source = $("picture-" + picture.number).textContent;
    return [h("p", { class: "lead" }, h("strong", {}, heading)), h("div", { class: "tiles" }, [...Array(picture.tiles).keys()].map((k) => {
      const caption = picture.tiles > 1 ? captions[k] || "" : "";
      const img = h("img", { src: source, alt: `${caption || "picture"}, image ${picture.image_id}` });
      img.style.aspectRatio = picture.ratio;
      img.style.objectPosition = picture.tiles > 1 ? `${100 * k / (picture.tiles - 1)}% 0` : "0 0";
      return h("figure", {}, img, h("figcaption", {}, caption === "R and I"
        ? [h("span", { class: "swatch s-R" }), "R, most relevant", h("span", { class: "swatch s-I" }), "I, least"] : caption));
    }))];
  }

  function regression(rows) {
    return rows.map((row) => h("div", { class: "gate" }, h("p", {}, badge(row.red ? "fail" : "pass")), h("div", {},
      h("p", {}, h("strong", {}, row.outcome), " ", row.text), h("p", { class: "quiet" }, `margin ${row.margin}, confidence ${row.confidence}`))));
  }

  let open = null;
  const visible = () => [...body.rows].filter((r) => !r.hidden).map((r) => cells[+r.dataset.position]);
  function neighbour(step) {
    const list = visible(), at = list.indexOf(open);
    return list[at + step];
  }
  function go(step) {
    const next = neighbour(step);
    if (next) history.replaceState(null, "", "#" + next.id), show(next);
  }

  function show(cell) {
    open = cell;
    const gates = cell.gates.map((gate) => h("div", { class: "gate" }, h("p", {}, badge(gate.outcome || "report")), h("div", {},
      h("p", {}, h("strong", {}, title(gate.metric)), " ", h("code", {}, gate.bound || "")),
      gate.because && h("p", {}, gate.because), gate.beats && h("p", {}, "against " + gate.beats), gate.reason && h("p", { class: "quiet" }, gate.reason), gate.until && h("p", { class: "quiet" }, `waived until ${gate.until}`))));
    const said = cell.marks.map((mark) => {
      const key = Object.keys(marks).find((name) => mark.startsWith(name));
      return h("p", {}, h("strong", {}, mark), key ? ". " + marks[key] : "");
    });
    const facts = { data: cell.data, seed: cell.seed, ...cell.about };
    const plot = h("div", {});
    dialog.replaceChildren(
      h("div", { class: "bar" }, badge(cell.verdict),
        h("button", { type: "button", id: "previous", disabled: !neighbour(-1), click: () => go(-1) }, "Previous"),
        h("button", { type: "button", id: "next", disabled: !neighbour(1), click: () => go(1) }, "Next"),
        h("button", { type: "button", id: "close", click: () => dialog.close() }, "Close")),
      h("div", { class: "body" },
        h("h2", { id: "detail-title", tabindex: "-1" }, cell.method || cell.nodeid || "assertion", h("span", {}, cell.model ? ` on ${cell.model}` : "", cell.perturbation ? `, ${cell.perturbation}` : "")),
        section("Error", cell.error ? [h("pre", {}, cell.error)] : []),
        section("Gates", cell.gates.length ? gates : cell.error ? [] : [h("p", { class: "quiet" }, "No gate asks for anything here.")]),
        section("Marks", said),
        section("Against the baseline", regression(cell.regression)),
        section("Scores", scoreTable(cell)), section("Slices, worst first", sliceTable(cell)), plot, imageTable(cell),
        section("Images", cell.pictures.flatMap((picture) => tiles(cell, picture))),
        section("Run it again", [cell.nodeid ? h("p", {}, h("code", {}, `pytest "${cell.nodeid}"`), " with the options of this run") : "",
          h("dl", { class: "facts" }, Object.entries(facts).filter(([, value]) => !none(value)).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, String(value)))))].filter(Boolean))));
    if (!dialog.open) dialog.showModal();
    document.documentElement.classList.add("open");
    dialog.scrollTop = 0;
    $("detail-title").focus({ preventScroll: true });
    plot.append(...charts(cell, plot.clientWidth));
    dialog.plot = plot;
  }

  let width = innerWidth;
  addEventListener("resize", () => {
    if (open && innerWidth !== width) dialog.plot.replaceChildren(...charts(open, dialog.plot.clientWidth));
    width = innerWidth;
  });
  dialog.addEventListener("close", () => {
    const link = open && $(open.id).querySelector("a");
    open = null;
    document.documentElement.classList.remove("open");
    if (location.hash) history.replaceState(null, "", location.pathname + location.search);
    if (link) link.focus();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  function follow() {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch { /* as it stands */ }
    const cell = byId.get(name);
    if (cell) show(cell);
    else if (dialog.open) dialog.close();
  }
  addEventListener("hashchange", follow);
  document.documentElement.classList.add("script");
  filter.hidden = false;
  apply();
  follow();
})();
