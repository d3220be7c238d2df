// One patch job: its losses and its patch while it runs, what the patch does when it is done.
import { chart } from "./charts.js";
import { attempt, badge, call, duration, element, empty, facts, figure, say, table, when } from "./parts.js";

const PICTURE_MS = 1000; // between two looks at the patch
const OPEN = ["queued", "running"];

// Show a job in a place until the function that is returned is called; `changed` when its state did.
export function watch(id, place, changed) {
  const state = { id, place, losses: new Map(), ended: false, stopped: false, drawing: false, pictured: 0 };
  build(state);
  const events = new EventSource(`v1/patches/${id}/events`);
  events.addEventListener("message", (event) => progress(state, JSON.parse(event.data)));
  events.addEventListener("state", () => {
    events.close();
    update(state).then(changed);
  });
  update(state);
  const timer = setInterval(() => state.ended || update(state), 2000);
  return () => {
    state.stopped = true;
    events.close();
    clearInterval(timer);
  };
}

function build(state) {
  const { place, id } = state;
  state.badge = element("span");
  state.cancel = element("button", { type: "button", className: "danger" }, "Cancel");
  state.cancel.addEventListener("click", () => attempt(state.cancel, async () => {
    await call(`v1/patches/${id}`, { method: "DELETE" });
    say(`Job ${id} is cancelled`);
    await update(state);
  }));
  state.bar = element("progress", { max: 1, value: 0, "aria-label": "Progress" });
  state.facts = element("div");
  state.chart = element("figure", {}, chart([], { label: "Losses" }));
  state.picture = element("img", { alt: "The patch as it is now", hidden: true });
  state.none = empty("The patch appears with its first iterations.");
  state.report = element("div");
  place.replaceChildren(
    element("div", { className: "head" },
      element("h3", { id: "job-title" }, "Job ", element("code", {}, id), " ", state.badge), state.cancel),
    state.bar, state.facts,
    element("div", { className: "growth" }, state.chart,
      element("figure", {}, state.picture, state.none, element("figcaption", {}, "Patch"))),
    state.report);
  place.hidden = false;
}

async function update(state) {
  let job;
  try {
    job = await call(`v1/patches/${state.id}`);
  } catch (error) {
    if (!state.stopped) say(error.message, true);
    return;
  }
  if (state.stopped) return;
  state.badge.replaceChildren(badge(job.state));
  state.cancel.hidden = !OPEN.includes(job.state);
  state.job = job;
  tell(state);
  if (!OPEN.includes(job.state) && !state.ended) {
    state.ended = true;
    say(`Job ${job.id}: ${job.state}`, job.state === "failed");
    picture(state, true);
    if (job.state === "finished") await report(state);
  }
}

// How far it is: as the server said, or the latest event, which may be newer.
function tell(state) {
  const { job, last } = state;
  if (!job) return;
  const now = last && last.iteration > job.iteration && OPEN.includes(job.state) ? { ...job, ...last } : job;
  state.bar.max = job.iterations;
  state.bar.value = now.iteration;
  state.facts.replaceChildren(facts({
    "Iteration": `${now.iteration} of ${job.iterations}`,
    "Images per second": now.images_per_s === null ? null : figure(now.images_per_s),
    "Time left": duration(now.seconds_left),
    "Device": job.device,
    "Data set": `${job.request.dataset}, ${job.request.target_class}`,
    "Ended": when(job.finished),
  }), job.error ? element("p", { className: "error" }, job.error) : "");
}

function progress(state, line) {
  state.last = line;
  for (const [name, value] of Object.entries(line.losses)) {
    if (!state.losses.has(name)) state.losses.set(name, []);
    state.losses.get(name).push([line.iteration, value]);
  }
  if (!state.drawing) {
    state.drawing = true;
    requestAnimationFrame(() => draw(state));
  }
  picture(state);
}

function draw(state) {
  state.drawing = false;
  tell(state);
  const lines = [...state.losses].slice(0, 5).map(([name, points]) => ({ name, points }));
  const last = lines.map(({ name, points }) => `${name} ${figure(points.at(-1)[1])}`).join(", ");
  const label = `Losses over ${lines[0]?.points.length ?? 0} iterations; now ${last}`;
  state.chart.replaceChildren(chart(lines, { label, across: "iteration" }));
}

// The patch of a moment; none is fetched while one is on its way.
function picture(state, last = false) {
  const now = performance.now();
  if (!last && now - state.pictured < PICTURE_MS) return;
  state.pictured = now;
  const next = new Image();
  next.addEventListener("load", () => {
    state.picture.src = next.src;
    state.picture.hidden = false;
    state.none.hidden = true;
  });
  next.src = `v1/patches/${state.id}/patch.png?at=${Math.round(now)}`;
}

// --- report -------------------------------------------------------------------------------------------------

async function report(state) {
  let found;
  try {
    found = await call(`v1/patches/${state.id}/report`);
  } catch (error) {
    state.report.replaceChildren(element("p", { className: "error" }, error.message));
    return;
  }
  const first = (name) => Number(name.startsWith("detections")); // what the victim sees, without patch and with it
  const names = [...found.pictures].sort((one, other) => first(other) - first(one));
  const pictures = names.map((name) => pictured(state.id, name));
  const test = found.metrics.test ?? {};
  state.report.replaceChildren(
    element("h3", {}, "What it does, on images it was not made with"), headline(test),
    element("h3", {}, "Before and after"),
    pictures.length ? element("div", { className: "pictures" }, pictures) : empty("There are no pictures."),
    element("details", {}, element("summary", {}, "All measures"), measures(test)));
}

function headline(test) {
  const known = { "AP50 without patch": "ap50_clean", "AP50 with a control": "ap50_control",
    "AP50 with the patch": "ap50_patch", "Vanished, confidence 0.25": "vanish_25",
    "Vanished, confidence 0.5": "vanish_50" };
  return facts(Object.fromEntries(Object.entries(known)
    .filter(([, name]) => name in test).map(([title, name]) => [title, figure(test[name])])));
}

function measures(test) {
  const rows = Object.entries(test).filter(([, value]) => typeof value === "number");
  return table(["Measure", "#On test images"], rows.map(([name, value]) => [name, figure(value)]));
}

function pictured(id, name) {
  const path = `v1/patches/${id}/pictures/${encodeURIComponent(name)}`;
  const title = name.replace(/\.png$/, "").replaceAll("_", " ");
  return element("figure", {},
    element("a", { href: path, target: "_blank", rel: "noopener" },
      element("img", { src: path, alt: `Picture of the report: ${title}`, loading: "lazy" })),
    element("figcaption", {}, title));
}
