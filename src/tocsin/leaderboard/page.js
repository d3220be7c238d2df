"use strict";
// Sorting by the head of a column and one filter for all tables; everything else works without this file.
(() => {
  const keyOf = (body, column) => {
    const cell = body.rows[0].cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };
  const compare = (a, b) => {
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  const sort = (table, head) => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const entries = [...table.querySelectorAll("tbody.entry")].map((body) => [keyOf(body, head.cellIndex), body]);
    entries.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // what is unknown stands last either way
      return up ? compare(a, b) : compare(b, a);
    });
    table.append(...entries.map(([, body]) => body));
  };
  for (const head of document.querySelectorAll("th.sortable")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head.closest("table"), head));
  }

  const box = document.querySelector(".find");
  const [input, count] = [box.querySelector("input"), box.querySelector("output")];
  const entries = [...document.querySelectorAll("tbody.entry")];
  const texts = entries.map((body) => body.dataset.text.toLowerCase());
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    entries.forEach((body, place) => {
      body.hidden = !words.every((word) => texts[place].includes(word));
      shown += !body.hidden;
    });
    count.textContent = words.length ? `${shown} of ${entries.length} lines` : "";
  };
  input.addEventListener("input", filter);
  box.hidden = false;
})();
