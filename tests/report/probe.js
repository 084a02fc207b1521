"use strict";
// Runs inside the report before anything else: notes what goes wrong, and answers the questions of test_browser.py.
window.problems = [];
window.addEventListener("error", (event) => problems.push(`error: ${event.message}`));
window.addEventListener("unhandledrejection", (event) => problems.push(`rejection: ${event.reason}`));
for (const level of ["error", "warn"]) {
  const report = console[level].bind(console);
  console[level] = (...words) => { problems.push(`${level}: ${words.join(" ")}`); report(...words); };
}

function drawn(figure) {
  const marks = [...figure.querySelectorAll(".scatterlayer .trace path, .barlayer .point path")];
  return marks.filter((mark) => mark.getBoundingClientRect().width > 0).length;
}

function order(table) {
  return [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
}

function values(table, column) {
  return [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value ?? null);
}

function sorts(table) {
  const headings = [...table.querySelectorAll("th[aria-sort]")];
  return headings.map((heading, column) => {
    const clicks = [1, 2].map(() => {
      heading.querySelector("button").click();
      return { state: heading.getAttribute("aria-sort"), values: values(table, column), order: order(table) };
    });
    const marked = headings.filter((other) => other.getAttribute("aria-sort") !== "none").length;
    return { title: heading.textContent, clicks, marked };
  });
}

const pause = () => new Promise((resolve) => setTimeout(resolve, 100));

async function examine() {
  while (document.documentElement.dataset.drawn !== "true") await pause();
  const figures = [...document.querySelectorAll("figure > div")];
  const count = () => Object.fromEntries(figures.map((figure) => [figure.id, drawn(figure)]));
  const all = count();
  const button = document.querySelectorAll(".legend button")[1];
  button.click();
  await pause();
  const without = count();
  const pressed = button.getAttribute("aria-pressed");
  button.click();
  await pause();
  const back = count();
  const phase = document.querySelector("#fig-phases .legendtoggle");
  for (const kind of ["mousedown", "mouseup"]) phase.dispatchEvent(new MouseEvent(kind, { bubbles: true }));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  return {
    all, without, back, pressed,
    phases: drawn(document.getElementById("fig-phases")),
    tables: [...document.querySelectorAll("table.sortable")].map(sorts),
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
    overflow: document.documentElement.scrollWidth - window.innerWidth,
    problems,
  };
}
