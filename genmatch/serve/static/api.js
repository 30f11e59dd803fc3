// The OpenAPI description as a page.
import { $, element, read } from "./common.js";

const { paths, components } = await read("/openapi.json");

function fields(operation) {
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const name = schema?.$ref?.split("/").at(-1);
  return Object.entries((name ? components.schemas[name] : schema)?.properties ?? {});
}

function limits(field) {
  const [kind] = field.anyOf ?? [field];
  const parts = [kind.type ?? "", "minimum" in kind ? `from ${kind.minimum}` : "", "exclusiveMinimum" in kind ? `above ${kind.exclusiveMinimum}` : "",
    "maximum" in kind ? `to ${kind.maximum}` : "", "default" in field ? `default ${JSON.stringify(field.default)}` : ""];
  return parts.filter(Boolean).join(", ");
}

// Words between backticks are code, as they are in the docstrings that the descriptions come from.
function prose(tag, text, className) {
  const made = element(tag, "", className);
  made.append(...text.split("`").map((part, i) => (i % 2 ? element("code", part) : part)));
  return made;
}

for (const [path, operations] of Object.entries(paths)) {
  for (const [method, operation] of Object.entries(operations)) {
    const card = element("section", "", "card");
    card.append(element("h2", `${method.toUpperCase()} ${path}`), prose("p", operation.description ?? operation.summary ?? ""));
    for (const [name, field] of fields(operation)) {
      card.append(prose("p", `\`${name}\` ${field.description ?? ""} (${limits(field)})`, "hint"));
    }
    $("routes").append(card);
  }
}
