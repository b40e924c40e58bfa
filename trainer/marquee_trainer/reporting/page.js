"use strict";
// Tooltips of bars and points, shown next to the pointer or after a tap.
const tip = document.body.appendChild(document.createElement("div"));
tip.id = "tip";
document.addEventListener("pointerover", (event) => {
  const text = event.target.closest("[data-tip]")?.dataset.tip;
  tip.classList.toggle("shown", Boolean(text));
  if (!text) return;
  tip.textContent = text;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 12, innerWidth - box.width - 4);
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${Math.max(4, event.clientY - box.height - 10)}px`;
});
// A title element would open a second tooltip; screen readers get the name from aria-label.
for (const svg of document.querySelectorAll("svg")) {
  const title = svg.querySelector("title");
  const description = svg.querySelector("desc");
  svg.setAttribute("aria-label", `${title.textContent}. ${description.textContent}`);
  svg.removeAttribute("aria-labelledby");
  title.remove();
}
// Hovering over a legend entry highlights its curve.
for (const entry of document.querySelectorAll(".legend [data-series]")) {
  const figure = entry.closest("figure");
  const curve = figure.querySelector(`svg [data-series="${entry.dataset.series}"]`);
  if (!curve) continue;
  entry.tabIndex = 0;
  const show = (chosen) => {
    figure.classList.toggle("dimmed", chosen);
    curve.classList.toggle("chosen", chosen);
  };
  for (const name of ["pointerenter", "focus"]) entry.addEventListener(name, () => show(true));
  for (const name of ["pointerleave", "blur"]) entry.addEventListener(name, () => show(false));
}
// Clicking a heading sorts the table.
for (const table of document.querySelectorAll(".sortable table")) {
  table.querySelectorAll("th").forEach((heading, column) => {
    if (!heading.textContent) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].textContent.trim();
      const number = (text) => parseFloat(text.replaceAll(",", "").replace("−", "-"));
      const compare = (a, b) => number(a) - number(b) || a.localeCompare(b);
      const rows = [...table.tBodies[0].rows].sort((one, two) => {
        const [a, b] = [value(one), value(two)];
        if (!a || !b) return Number(!a) - Number(!b);
        const order = isNaN(number(a)) || isNaN(number(b)) ? a.localeCompare(b) : compare(a, b);
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
