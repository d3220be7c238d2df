// What all parts of the page use: elements, calls to the server, numbers as text.

// An element with properties and children; texts are never read as HTML.
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

// What the server answers; an error with its one line where it refuses.
export async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("the server does not answer; is it running?");
  }
  if (!answer.ok) throw new Error(await reason(answer));
  if (answer.status === 204 || answer.status === 202 && options.method === "DELETE") return null;
  return answer.json();
}

async function reason(answer) {
  const text = await answer.text();
  try {
    return JSON.parse(text).error;
  } catch {
    return `the server answers ${answer.status}`;
  }
}

export function say(line, failed = false) {
  const notice = document.getElementById("notice");
  notice.textContent = line;
  notice.className = failed ? "error" : "";
}

// Does something of a button or form once at a time, and says what went wrong.
export async function attempt(button, work) {
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  } finally {
    button.disabled = false;
  }
}

export function table(heads, rows) {
  const numeric = (head) => (head.startsWith("#") ? "number" : "");
  return element("div", { className: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, heads.map((head) =>
      element("th", { scope: "col", className: numeric(head) }, head.replace(/^#/, ""))))),
    element("tbody", {}, rows.map((cells) => {
      const row = element("tr", {}, cells.map((cell, index) =>
        element("td", { className: numeric(heads[index]) }, cell)));
      return row;
    }))));
}

export function facts(pairs) {
  return element("dl", { className: "facts" }, Object.entries(pairs)
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
}

export function badge(state) {
  return element("span", { className: `badge ${state}` }, state);
}

export function empty(line) {
  return element("p", { className: "empty" }, line);
}

export function figure(value) {
  if (typeof value !== "number") return value ?? "–";
  return Number.isInteger(value) ? String(value) : Number(value.toPrecision(4)).toString();
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return null;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function when(text) {
  return text ? new Date(text).toLocaleString() : null;
}
