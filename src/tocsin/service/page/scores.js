// Scores of new data: a table drawn with threshold and alarms, or images with their heat maps.
import { chart } from "./charts.js";
import { attempt, badge, call, element, empty, facts, figure, say, table } from "./parts.js";

let models = [];

export function startScores() {
  const form = document.getElementById("score");
  form.elements.model.addEventListener("change", () => describe(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(form.querySelector("button"), () => score(form));
  });
  return { show: () => fill(form) };
}

async function fill(form) {
  try {
    models = (await call("v1/models")).filter((model) => model.kind !== "detection");
  } catch (error) {
    say(error.message, true);
    return;
  }
  const select = form.elements.model, before = select.value;
  select.replaceChildren(...(models.length
    ? models.map((model) => element("option", { value: model.name }, model.name))
    : [element("option", { value: "" }, "none is trained yet")]));
  if (models.some((model) => model.name === before)) select.value = before;
  form.querySelector("button").disabled = !models.length;
  describe(form);
}

function current(form) {
  return models.find((model) => model.name === form.elements.model.value);
}

function describe(form) {
  const model = current(form), place = document.getElementById("model-facts");
  const input = form.elements.files;
  place.replaceChildren();
  if (!model) {
    place.append("Train one with train.py; finished runs below the models folder appear here.");
    return;
  }
  const series = model.kind === "series";
  input.accept = series ? ".csv,text/csv" : "image/*,.tif,.tiff";
  if (input.multiple === series) input.value = ""; // files of the other kind
  input.multiple = !series;
  document.getElementById("score-files").textContent = series ? "Table (CSV)" : "Images";
  place.append(facts({
    "Method": model.model,
    "Trained on": model.data,
    "Channels": model.channels ? `${model.channels.length}: ${model.channels.slice(0, 6).join(", ")}` : null,
    "Window": model.window,
    "Image": model.height ? `${model.width} x ${model.height}` : null,
    "Threshold": model.threshold?.method ? `${model.threshold.method}, ${figure(model.threshold.value)}` : null,
  }));
}

async function score(form) {
  const model = current(form), files = [...form.elements.files.files];
  const path = `v1/models/${encodeURIComponent(model.name)}/score`;
  const place = document.getElementById("scored");
  place.setAttribute("aria-busy", "true");
  try {
    if (model.kind === "series") {
      const headers = { "Content-Type": "text/csv" };
      const answer = await call(path, { method: "POST", headers, body: files[0] });
      place.replaceChildren(...ofSeries(files[0].name, answer));
    } else {
      const body = new FormData();
      for (const file of files) body.append("images", file, file.name);
      const heat = model.kind === "image" ? "?heatmap=true" : "";
      place.replaceChildren(...ofImages(files, await call(path + heat, { method: "POST", body })));
    }
    say("");
    place.focus();
  } finally {
    place.removeAttribute("aria-busy");
  }
}

// --- series -------------------------------------------------------------------------------------------------

function ofSeries(name, answer) {
  const alarms = stretches(answer.verdicts);
  const points = answer.scores.map((value, index) => [index, value]);
  const told = alarms.length ? `${alarms.length} alarm${alarms.length > 1 ? "s" : ""}` : "no alarm";
  const label = `Scores of ${answer.scores.length} rows of ${name}: ${told}, threshold ${figure(answer.threshold)}`;
  const moment = (row) => (answer.timestamps ? answer.timestamps[row].replace(/\.0+$/, "") : String(row));
  const peak = ([from, to]) => Math.max(...answer.scores.slice(from, to + 1).filter(Number.isFinite));
  return [
    element("div", { className: "head" }, element("h3", {}, name), badge(alarms.length ? "anomaly" : "normal")),
    element("p", {}, `${told} in ${answer.scores.length} rows; an alarm is where the score is above `
      + `${figure(answer.threshold)}.`),
    element("figure", {}, chart([{ name: "score", points }],
      { label, threshold: answer.threshold, alarms, across: "row" })),
    alarms.length
      ? table(["From", "To", "#Rows", "#Highest score"], alarms.slice(0, 200).map(([from, to]) =>
        [moment(from), moment(to), String(to - from + 1), figure(peak([from, to]))]))
      : empty("Nothing in it is unusual to this model."),
    download(name, answer),
  ];
}

// First and last row of each run of alarms.
function stretches(verdicts) {
  const found = [];
  verdicts.forEach((alarm, row) => {
    if (!alarm) return;
    if (found.length && found.at(-1)[1] === row - 1) found.at(-1)[1] = row;
    else found.push([row, row]);
  });
  return found;
}

function download(name, answer) {
  const stamps = answer.timestamps;
  const lines = answer.scores.map((value, row) =>
    `${stamps ? `${stamps[row]},` : ""}${value ?? ""},${Number(answer.verdicts[row])}`);
  const text = `${stamps ? "timestamp," : ""}score,is_anomaly\n${lines.join("\n")}\n`;
  const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const file = `${name.replace(/\.csv$/i, "")}_scores.csv`;
  return element("p", {}, element("a", { className: "button quiet", href, download: file }, "Download as CSV"));
}

// --- images -------------------------------------------------------------------------------------------------

function ofImages(files, answer) {
  const shown = files.map((file, index) => {
    const heat = answer.heatmaps?.[index];
    const source = heat ? `data:image/png;base64,${heat}` : URL.createObjectURL(file);
    return element("figure", {},
      element("img", { src: source, alt: heat ? `Heat map over ${file.name}` : file.name }),
      element("figcaption", {}, `${file.name}: ${told(answer, index)} `, verdict(answer, index)));
  });
  return [
    element("h3", {}, files.length === 1 ? files[0].name : `${files.length} images`),
    Number.isFinite(answer.threshold) ? element("p", {}, `An alarm is a score of ${figure(answer.threshold)} or more.`) : "",
    element("div", { className: "pictures" }, shown),
  ];
}

function told(answer, index) {
  const score = answer.scores ? `score ${figure(answer.scores[index])}` : "";
  return answer.classes ? `${answer.classes[index]}, ${figure(answer.probabilities[index])}` : score;
}

function verdict(answer, index) {
  if (answer.unsure?.[index]) return badge("unsure");
  return answer.verdicts ? badge(answer.verdicts[index] ? "anomaly" : "normal") : "";
}
