// What a run may do, in words, and how two policies differ.

import { ask, query } from "./api.js";
import { copyable, facts, fill, h } from "./dom.js";

export async function policiesView(main, name, given, who) {
  fill(main, h("h1", {}, "Policies"), h("p", { class: "quiet" }, "Loading …"));
  if (!who.scopes.includes("audit")) return fill(main, h("h1", {}, "Policies"), h("div", { class: "fault" }, `The key ${who.key_id} lacks the scope audit, which reads policies. Sign in with another key.`));
  const all = (await ask("GET", "/policies")).policies;
  if (name === null) {
    return fill(main, h("h1", {}, "Policies"), h("p", {}, "A task runs under one policy: what the run may do, and its limits. A request names another one of its task type by ", h("code", {}, "policy"), "."),
      h("div", { class: "wide" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Policy", "Task type", "What it grants"].map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, all.map((one) => h("tr", {},
        h("td", { "data-name": "Policy" }, h("a", { href: `#/policies/${encodeURIComponent(one.name)}` }, one.name)), h("td", { "data-name": "Task type" }, one.task_type), h("td", { "data-name": "Grants" }, one.description)))))));
  }
  const found = all.find((one) => one.name === name);
  if (!found) return fill(main, h("h1", {}, "Policies"), h("div", { class: "fault" }, "There is no policy of this name here."), h("p", {}, h("a", { href: "#/policies" }, "All policies")));
  const other = all.find((one) => one.name === given.get("with"));
  const choose = h("select", { onchange: () => { location.hash = `#/policies/${encodeURIComponent(name)}${query({ with: choose.value })}`; } }, h("option", { value: "" }, "none"), all.filter((one) => one !== found).map((one) => h("option", { selected: one === other }, one.name)));
  fill(main, h("p", {}, h("a", { href: "#/policies" }, "← All policies")), h("h1", {}, found.name), h("p", {}, found.description),
    facts([["Task type", found.task_type], ["File", copyable(found.digest, `${found.digest.slice(0, 19)}…`)], ["Libraries", found.libraries_digest ? copyable(found.libraries_digest, `${found.libraries_digest.slice(0, 19)}…`) : null]]),
    h("h2", {}, "The grant in words"), h("pre", { tabindex: 0 }, found.text),
    h("h2", {}, "Compared with another"), h("div", { class: "row" }, h("label", {}, "Policy", choose)), other ? difference(found, other) : null);
}

function flat(value, path = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[path, JSON.stringify(value)]];
  return Object.entries(value).flatMap(([name, inner]) => flat(inner, path ? `${path}.${name}` : name));
}

function difference(one, other) {
  const [left, right] = [one, other].map((each) => new Map(flat(each.policy)));
  const names = [...new Set([...left.keys(), ...right.keys()])].filter((name) => left.get(name) !== right.get(name) && !["name", "digest", "description"].includes(name));
  if (!names.length) return h("p", {}, "They grant the same.");
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Difference" }, h("table", {}, h("thead", {}, h("tr", {}, ["", one.name, other.name].map((each) => h("th", { scope: "col" }, each || "Key")))),
    h("tbody", {}, names.map((name) => h("tr", {}, h("td", {}, h("code", {}, name)), h("td", {}, left.get(name) ?? "not there"), h("td", {}, right.get(name) ?? "not there"))))));
}
