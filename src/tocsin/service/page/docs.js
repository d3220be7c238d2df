// The OpenAPI description as a page: every address with what it takes and what it answers.
import { call, element, say, table } from "./parts.js";

const place = document.getElementById("operations");

function resolved(schema, description) {
  if (!schema?.$ref) return schema ?? {};
  return schema.$ref.split("/").slice(1).reduce((part, key) => part[key], description);
}

function typed(schema, description) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  const options = schema.anyOf ?? schema.oneOf;
  if (options) return options.map((option) => typed(option, description)).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  const bounds = ["minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "maxLength"]
    .filter((name) => schema[name] !== undefined).map((name) => `${name} ${schema[name]}`).join(", ");
  const kind = schema.type === "array" ? `list of ${typed(schema.items ?? {}, description)}` : schema.type ?? "any";
  return bounds ? `${kind} (${bounds})` : kind;
}

function fields(schema, description) {
  const whole = resolved(schema, description);
  const rows = Object.entries(whole.properties ?? {}).map(([name, field]) => [
    element("code", {}, name), typed(field, description),
    (whole.required ?? []).includes(name) ? "needed" : field.default === undefined ? "" : JSON.stringify(field.default),
    field.description ?? "",
  ]);
  return rows.length ? table(["Field", "Type", "Default", ""], rows) : null;
}

function bodies(operation, description) {
  return Object.entries(operation.requestBody?.content ?? {}).map(([kind, { schema }]) =>
    element("div", {}, element("p", { className: "hint" }, "Body: ", element("code", {}, kind)), fields(schema, description)));
}

function shown(path, method, operation, description) {
  const parameters = (operation.parameters ?? []).map((parameter) => [
    element("code", {}, parameter.name), parameter.in, typed(parameter.schema ?? {}, description),
    parameter.description ?? "",
  ]);
  const answers = Object.entries(operation.responses).filter(([status]) => status < 400).map(([status, answer]) =>
    `${status}: ${Object.keys(answer.content ?? {}).join(", ") || answer.description}`);
  return element("article", { className: "card operation" },
    element("h3", {}, element("span", { className: "method" }, method.toUpperCase()), element("code", {}, path)),
    element("p", {}, operation.description ?? operation.summary ?? ""),
    parameters.length ? table(["Parameter", "In", "Type", ""], parameters) : null,
    bodies(operation, description),
    element("p", { className: "hint" }, `Answers ${answers.join("; ")}`));
}

try {
  const description = await call("openapi.json");
  place.replaceChildren(...Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => shown(path, method, operation, description))));
} catch (error) {
  say(error.message, true);
}
place.removeAttribute("aria-busy");
