// Line charts as SVG: series over a common axis, a threshold, and shaded stretches.

const WIDTH = 720, HEIGHT = 280, LEFT = 56, RIGHT = 12, TOP = 26, BOTTOM = 40;
const SPACE = "http://www.w3.org/2000/svg";
const MOST = 700; // points drawn of a line; of more, least and greatest of each stretch are kept

function svg(tag, attributes = {}, text = null) {
  const made = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

// A chart of lines [{name, points: [[x, y], ...]}], with options label, threshold, alarms [[from, to], ...].
export function chart(lines, { label, threshold = null, alarms = [], across = "" }) {
  const drawn = lines.map((line) => ({ name: line.name, points: thinned(line.points) }));
  const points = drawn.flatMap((line) => line.points);
  const root = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label });
  root.append(svg("title", {}, label));
  if (!points.length) {
    root.append(svg("text", { x: WIDTH / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing to draw yet"));
    return root;
  }
  const [low, high] = range([...points.map(([, y]) => y), ...(threshold === null ? [] : [threshold])]);
  const [first, last] = [Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x))];
  const toX = (x) => LEFT + ((x - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const toY = (y) => HEIGHT - BOTTOM - ((y - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  for (const [from, to] of alarms) {
    const x = toX(from), width = Math.max(1.5, toX(to) - x);
    root.append(svg("rect", { class: "alarm", x, width, y: TOP, height: HEIGHT - TOP - BOTTOM }));
  }
  for (const value of ticks(low, high)) {
    root.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: toY(value), y2: toY(value) }));
    root.append(svg("text", { x: LEFT - 6, y: toY(value) + 4, "text-anchor": "end" }, short(value)));
  }
  for (const value of ticks(first, last).filter(Number.isInteger)) {
    root.append(svg("text", { x: toX(value), y: HEIGHT - 22, "text-anchor": "middle" }, short(value)));
  }
  root.append(svg("text", { x: WIDTH - RIGHT, y: HEIGHT - 5, "text-anchor": "end" }, across));
  drawn.forEach((line, index) => {
    const path = line.points.map(([x, y], at) => `${at ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("");
    root.append(svg("path", { class: `line c${index % 5}`, d: path }));
    if (line.points.length === 1) {
      const [[x, y]] = line.points;
      root.append(svg("circle", { class: `t${index % 5}`, cx: toX(x), cy: toY(y), r: 3 }));
    }
  });
  legend(root, drawn.map((line) => line.name), threshold);
  if (threshold !== null) {
    root.append(svg("line", { class: "threshold", x1: LEFT, x2: WIDTH - RIGHT, y1: toY(threshold), y2: toY(threshold) }));
  }
  return root;
}

function legend(root, names, threshold) {
  let x = LEFT;
  const entries = names.map((name, index) => [name, index % 5]);
  if (threshold !== null) entries.push([`threshold ${short(threshold)}`, 9]);
  for (const [name, color] of entries) {
    root.append(svg("rect", { class: `t${color}`, x, y: 7, width: 10, height: 10, rx: 2 }));
    root.append(svg("text", { x: x + 15, y: 16 }, name));
    x += 32 + name.length * 6.6;
  }
}

function range(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) { low = Math.min(low, value); high = Math.max(high, value); }
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - room, high + room];
}

function ticks(low, high, about = 5) {
  const raw = (high - low || 1) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) {
    found.push(Number(value.toPrecision(12)));
  }
  return found;
}

function short(value) {
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
    ? value.toExponential(1) : String(Number(value.toPrecision(4)));
}

// No peak is lost: of each stretch its least and its greatest point stay, in their order.
function thinned(points) {
  const known = points.filter(([, y]) => Number.isFinite(y));
  if (known.length <= MOST) return known;
  const size = Math.ceil((known.length * 2) / MOST), kept = [];
  for (let start = 0; start < known.length; start += size) {
    let least = start, most = start;
    for (let at = start; at < Math.min(start + size, known.length); at++) {
      if (known[at][1] < known[least][1]) least = at;
      if (known[at][1] > known[most][1]) most = at;
    }
    for (const at of new Set([Math.min(least, most), Math.max(least, most)])) kept.push(known[at]);
  }
  return kept;
}
