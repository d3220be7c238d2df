// Patch jobs: ask for one, see which there are, and watch one.
import { watch } from "./job.js";
import { attempt, badge, call, element, empty, say, table, when } from "./parts.js";

const NUMBERS = ["iterations", "max_images", "learning_rate", "patch_size", "size", "seed"];
const EVERY_MS = 3000;
let datasets = [], chosen = null, stop = () => {}, timer = null;

export function startPatches() {
  const form = document.getElementById("ask");
  form.elements.dataset.addEventListener("change", () => fillClasses(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(form.querySelector(":scope > button"), () => ask(form));
  });
  return { show: () => { fillDatasets(form); refresh(); } };
}

async function fillDatasets(form) {
  try {
    datasets = await call("v1/datasets");
  } catch (error) {
    say(error.message, true);
    return;
  }
  const select = form.elements.dataset, before = select.value;
  select.replaceChildren(...(datasets.length ? datasets.map((row) => element("option", {}, row.name))
    : [element("option", { value: "" }, "upload a data set first")]));
  if (datasets.some((row) => row.name === before)) select.value = before;
  form.querySelector(":scope > button").disabled = !datasets.length;
  fillClasses(form);
}

function fillClasses(form) {
  const row = datasets.find(({ name }) => name === form.elements.dataset.value);
  const select = form.elements.target_class;
  select.replaceChildren(...(row?.categories ?? []).map((name) => element("option", {}, name)));
  if (row?.categories.includes("person")) select.value = "person";
}

async function ask(form) {
  const body = {};
  for (const [name, value] of new FormData(form)) {
    if (value !== "") body[name] = NUMBERS.includes(name) ? Number(value) : value;
  }
  const headers = { "Content-Type": "application/json" };
  const job = await call("v1/patches", { method: "POST", headers, body: JSON.stringify(body) });
  say(`Job ${job.id} waits for a device`);
  open(job.id);
  await refresh();
}

function open(id) {
  stop();
  chosen = id;
  stop = watch(id, document.getElementById("job"), refresh);
}

async function refresh() {
  clearTimeout(timer);
  const list = document.getElementById("job-list");
  try {
    const jobs = await call("v1/patches");
    const focused = document.activeElement?.dataset?.job;
    list.replaceChildren(jobs.length ? shown(jobs) : empty("No patch was asked for yet."));
    if (focused) list.querySelector(`[data-job="${focused}"]`)?.focus();
  } catch (error) {
    list.replaceChildren(element("p", { className: "error" }, error.message));
  }
  list.removeAttribute("aria-busy");
  if (!document.getElementById("patches").hidden) timer = setTimeout(refresh, EVERY_MS);
}

function shown(jobs) {
  const made = table(["Job", "State", "Data set", "Victim", "Progress", "Asked"], jobs.map((job) => [
    opener(job),
    badge(job.state),
    job.request.dataset,
    job.request.victim,
    element("progress", { max: job.iterations, value: job.iteration, "aria-label": `Progress of ${job.id}` }),
    when(job.created),
  ]));
  made.querySelectorAll("tbody tr").forEach((row, index) =>
    row.setAttribute("aria-selected", String(jobs[index].id === chosen)));
  return made;
}

function opener(job) {
  const button = element("button", { type: "button", className: "link" }, job.id.slice(0, 8));
  button.dataset.job = job.id;
  button.setAttribute("aria-label", `Open job ${job.id}`);
  button.addEventListener("click", () => {
    open(job.id);
    refresh();
    document.getElementById("job").focus();
  });
  return button;
}
