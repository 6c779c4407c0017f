// What a run may do, in words; how policies differ; who may use one, and what it denied.

import { ask, query } from "./api.js";
import { copyable, digest, facts, fault, fill, h, listing, loading, locked, prose, section, time } from "./dom.js";
import { taskLink } from "./tasks.js";

const LOCKS = {
  "signed off": ["ok", "This is the file that was signed off."], changed: ["failed", "It was changed since it was signed off. Look at what changed, then sign it off: python -m engine policies lock."],
  "not signed off": ["waiting", "It is not in policies.lock. Sign it off: python -m engine policies lock."], "no lock": ["waiting", "The folder of policies has no policies.lock, so nothing says what was signed off."],
};
const DIRECTIONS = { looser: "grants more", tighter: "grants less", changed: "neither" };

export async function policiesView(main, name, given, who, leaving) {
  fill(main, h("h1", {}, "Policies"), loading());
  if (!who.scopes.includes("audit")) return fill(main, h("h1", {}, "Policies"), locked(who, "audit", "it reads no policies"));
  const all = (await ask("GET", "/policies")).policies;
  if (leaving.aborted) return;
  if (name === null) {
    return fill(main, h("h1", {}, "Policies"), h("p", {}, "A task runs under one policy: what the run may do, and its limits. A request names another one of its task type by ", h("code", {}, "policy"), "."),
      listing([["Policy", (one) => h("a", { href: `#/policies/${encodeURIComponent(one.name)}` }, one.name)], ["Task type", (one) => one.task_type], ["What it grants", (one) => one.description],
        ["Network", (one) => (one.policy.network.allow.length ? one.policy.network.allow.join(", ") : "none")], ["Limits", (one) => `${one.effective_limits.wall_s} s, ${one.effective_limits.memory_mib} MiB`], ["Lock", (one) => lock(one)]], all, "Policies"));
  }
  const found = all.find((one) => one.name === name);
  if (!found) return fill(main, h("h1", {}, "Policies"), h("div", { class: "fault" }, "There is no policy of this name here."), h("p", {}, h("a", { href: "#/policies" }, "All policies")));
  const other = all.find((one) => one.name === given.get("with"));
  const choose = h("select", { onchange: () => { location.hash = `#/policies/${encodeURIComponent(name)}${query({ with: choose.value })}`; } }, h("option", { value: "" }, "none"), all.filter((one) => one !== found).map((one) => h("option", { selected: one === other }, one.name)));
  const use = h("div", {}, loading()), changes = h("div"), before = h("div");
  fill(main, h("p", { class: "crumb" }, h("a", { href: "#/policies" }, "← All policies")), h("h1", {}, found.name), h("p", {}, found.description),
    facts([["Task type", found.task_type], ["Signed off", [lock(found), " ", LOCKS[found.lock]?.[1] ?? ""]], ["File", digest(found.digest)], ["Libraries", digest(found.libraries_digest)]]),
    section("Compared with another", h("label", {}, "Policy", choose), changes), h("div", { class: "columns even" }, h("div", {}, grants(found)), use));
  const since = given.get("since") ?? (found.lock === "changed" ? found.locked_digest : null);
  if (since) main.querySelector("dl").after(section(since === found.locked_digest ? "Since it was signed off" : "Since an older file", h("p", { class: "hint" }, "The file was then ", digest(since), "."), before));
  await Promise.all([
    since ? ask("GET", `/policies/${encodeURIComponent(name)}/diff${query({ since })}`).then((answer) => fill(before, difference({ name: "then" }, { name: "now" }, answer.changes))).catch((error) => fill(before, fault(error))) : null,
    ask("GET", `/policies/${encodeURIComponent(name)}/use`).then((answer) => fill(use, keys(answer, who), denials(answer))).catch((error) => fill(use, fault(error))),
    other ? ask("GET", `/policies/${encodeURIComponent(name)}/diff${query({ to: other.name })}`).then((answer) => fill(changes, difference(found, other, answer.changes))).catch((error) => fill(changes, fault(error))) : fill(changes, h("p", { class: "hint" }, "Choose one to see what it grants more, and what less.")),
  ]);
}

const lock = (one) => h("span", { class: `state ${LOCKS[one.lock]?.[0] ?? ""}` }, one.lock);

// The page that `policies show` prints, as lists: parts are divided by empty lines, and a row is a word and what it means.
function grants(found) {
  const parts = found.text.split("\n\n").map((part) => part.split("\n"));
  const last = parts.at(-1).join(" ").trim();
  return [
    section("In general", rows(parts[1].filter((line) => !/^ {2}digest /.test(line)))),
    parts.slice(2, -1).map(([title, ...lines]) => {
      const [name, more] = split(title);
      const long = lines.length > 24;
      const body = rows(lines);
      return section(name, more ? h("p", { class: "hint" }, prose(more)) : null, long ? h("details", {}, h("summary", {}, "Show all of it"), body) : body);
    }),
    section("Else", h("p", {}, prose(last))), h("details", { class: "panel" }, h("summary", {}, "The page as python -m engine policies show prints it"), h("pre", { tabindex: 0, class: "wide-text" }, found.text)),
  ];
}

function split(title) {
  const cut = title.search(/[,:]/);
  const name = cut < 0 ? title : title.slice(0, cut);
  return [name.charAt(0) + name.slice(1).toLowerCase(), cut < 0 ? null : title.slice(cut + 1).trim()];
}

function rows(lines) {
  const found = [];
  for (const line of lines) {
    const row = /^ {2}(\S(?:\S| (?! ))*) {2,}(\S.*)$/.exec(line);
    if (row) found.push([row[1], row[2].replace(/ {2,}/g, " ")]);
    else if (/^ {2}\S/.test(line)) found.push([line.trim(), ""]);
    else if (found.length && / if the request's text names one$/.test(line)) found.at(-1)[1] += `; ${line.trim()}`;
    else if (found.length) found.at(-1)[1] += `${found.at(-1)[1] ? " " : ""}${line.trim().replace(/ {2,}/g, ": ")}`;
    else found.push([line.trim(), ""]);
  }
  return h("dl", { class: "facts" }, found.map(([name, text]) => [h("dt", {}, name), h("dd", {}, prose(text))]));
}

function difference(one, other, changes) {
  if (!changes.length) return h("p", {}, "They grant the same.");
  const count = (direction) => changes.filter((each) => each.direction === direction).length;
  return [h("p", {}, h("strong", {}, other.name), ` against ${one.name}: ${count("looser")} looser, ${count("tighter")} tighter, ${count("changed")} of no weight.`),
    listing([["", (each) => h("span", { class: `state ${each.direction}`, title: DIRECTIONS[each.direction] }, each.direction)], ["Key", (each) => h("code", {}, each.key)], [one.name, (each) => each.old || "–"], [other.name, (each) => each.new || "–"]], changes, "Differences")];
}

function keys(answer, who) {
  if (answer.keys === null) return section("Who may use it", h("p", {}, "Anyone: this service has no keys."));
  const whose = who.scopes.includes("admin") ? "of all tenants" : `of your tenant, ${who.tenant}`;
  return section("Who may use it", h("p", { class: "hint" }, `Keys ${whose}.`), answer.keys.length
    ? listing([["Key", (one) => copyable(one.key_id, one.key_id, `#/audit?key_id=${encodeURIComponent(one.key_id)}`)], ["Tenant", (one) => one.tenant], ["By", (one) => (one.names_it ? "naming it" : "any policy")], ["Holds", (one) => (one.expires_at ? time(one.expires_at) : "until it is revoked")]], answer.keys, "Keys")
    : h("p", {}, "No key may submit tasks under it."));
}

function denials(answer) {
  return section("What it denied lately", answer.has_all_tenants ? null : h("p", { class: "hint" }, "Of the first 1,000 tenants by name; there are more."), answer.denials.length
    ? listing([["Task", (one) => taskLink(one.task_id)], ["When", (one) => time(one.denied_at)], ["Tenant", (one) => one.tenant], ["What", (one) => one.denied.words.map((each) => h("div", {}, each))]], answer.denials, "Denials")
    : h("p", { class: "quiet" }, "Nothing, as far as its tasks are still kept."));
}
