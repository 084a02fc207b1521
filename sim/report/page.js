"use strict";
(() => {
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const buttons = [...document.querySelectorAll(".legend button")];
  const hidden = new Set();

  // Colours live in the style sheet alone: a figure names a custom property, and its value depends on the colour scheme.
  function paint(value, style) {
    if (typeof value === "string") return value.startsWith("--") ? style.getPropertyValue(value).trim() : value;
    if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map((item) => paint(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, paint(item, style)]));
  }

  function draw() {
    const style = getComputedStyle(root);
    const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
    return Promise.all(Object.entries(figures).map(([name, figure]) => {
      const { data, layout } = paint(figure, style);
      for (const trace of data) trace.visible = !hidden.has(trace.meta);
      return Plotly.react(`fig-${name}`, data, layout, config);
    }));
  }

  function show() {
    for (const button of buttons) button.setAttribute("aria-pressed", String(!hidden.has(Number(button.dataset.run))));
    return draw();
  }

  for (const button of buttons) {
    const run = Number(button.dataset.run);
    button.addEventListener("click", () => {
      if (!hidden.delete(run)) hidden.add(run);
      show();
    });
    button.addEventListener("dblclick", () => {
      const others = buttons.map((other) => Number(other.dataset.run)).filter((other) => other !== run);
      const alone = others.every((other) => hidden.has(other));
      hidden.clear();
      if (!alone) for (const other of others) hidden.add(other);
      show();
    });
  }

  function sortBy(table, column, heading) {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const value = (row) => (row.cells[column].dataset.value === undefined ? NaN : Number(row.cells[column].dataset.value));
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return ascending ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    table.querySelectorAll("th[aria-sort]").forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => sortBy(table, column, heading));
    });
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw().then(() => { root.dataset.drawn = "true"; });
})();
