// Data sets: upload with progress, list, delete.
import { attempt, call, element, empty, say, table, when } from "./parts.js";

export function startDatasets() {
  const form = document.getElementById("upload");
  form.elements.file.addEventListener("change", () => suggest(form));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(form.querySelector("button"), () => upload(form));
  });
  return { show: refresh };
}

function suggest(form) {
  const [file] = form.elements.file.files;
  if (file && !form.elements.name.value) {
    const name = file.name.replace(/\.zip$/i, "").replace(/[^A-Za-z0-9_.-]/g, "-").replace(/^[-_.]+/, "");
    form.elements.name.value = name.slice(0, 64);
  }
}

async function upload(form) {
  const bar = form.querySelector("progress");
  bar.hidden = false;
  try {
    const row = await send(new FormData(form), (share) => { bar.value = share; });
    say(`${row.name}: ${row.images} images, ${row.annotations} boxes`);
    form.reset();
  } finally {
    bar.hidden = true;
    bar.value = 0;
  }
  await refresh();
}

// fetch does not tell how far an upload has come.
function send(body, progress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "v1/datasets");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => progress(event.loaded / (event.total || 1)));
    request.addEventListener("load", () => {
      if (request.status === 201) resolve(request.response);
      else reject(new Error(request.response?.error ?? `the server answers ${request.status}`));
    });
    request.addEventListener("error", () => reject(new Error("the server does not answer, or the archive is too large")));
    request.send(body);
  });
}

async function refresh() {
  const list = document.getElementById("dataset-list");
  try {
    const rows = await call("v1/datasets");
    list.replaceChildren(rows.length ? shown(rows) : empty("There is no data set yet: upload one."));
  } catch (error) {
    list.replaceChildren(element("p", { className: "error" }, error.message));
  }
  list.removeAttribute("aria-busy");
}

function shown(rows) {
  return table(["Name", "#Images", "#Boxes", "Categories", "Came", ""], rows.map((row) => [
    row.name,
    String(row.images),
    String(row.annotations),
    row.categories.slice(0, 5).join(", ") + (row.categories.length > 5 ? ` and ${row.categories.length - 5} more` : ""),
    when(row.imported),
    remover(row.name),
  ]));
}

function remover(name) {
  const button = element("button", { type: "button", className: "danger", "aria-label": `Delete ${name}` }, "Delete");
  button.addEventListener("click", () => {
    if (!confirm(`Delete the data set ${name} and its images?`)) return;
    attempt(button, async () => {
      await call(`v1/datasets/${encodeURIComponent(name)}`, { method: "DELETE" });
      say(`${name} is deleted`);
      await refresh();
    });
  });
  return button;
}
