// Who ran what, under which grant, and what was denied; and the lines of the audit log.

import { ask, query } from "./api.js";
import { block, copyable, digest, fault, fill, h, listing, loading, locked, state, time } from "./dom.js";
import { REASONS, STATUSES, TIME, TYPES, filters, taskLink } from "./tasks.js";
import { save, toCsv } from "./values.js";

const NAMES = ["tenant", "key_id", "policy", "source_sha256", "status", "task_type", "exit_reason", "denied", "label", "created_after", "created_before"];
const PAGE = 100, EXPORTED_MOST = 10_000;
const EVENTS = ["attempt ended", "attempt failed", "request refused", "requests refused", "keys changed", "key made", "key revoked", "API started", "worker started", "stored bytes deleted"];

export async function auditView(main, name, given, leaving, who) {
  const top = [h("h1", {}, "Audit"), h("nav", { class: "tabs", "aria-label": "Parts of the audit" }, [["", "Who ran what"], ["log", "Audit log"]].map(([part, title]) => h("a", { href: `#/audit${part ? `/${part}` : ""}`, "aria-current": (name ?? "") === part ? "page" : null }, title)))];
  fill(main, top, loading());
  if (!who.scopes.includes("audit")) return fill(main, top, locked(who, "audit", "it does not read the record"));
  await (name === "log" ? logView : trailView)(main, top, given, leaving, who);
}

async function trailView(main, top, given, leaving, who) {
  const wanted = Object.fromEntries(NAMES.map((each) => [each, given.get(each) ?? ""]));
  const form = filters("audit", given, [...(who.scopes.includes("admin") ? [["tenant", "Tenant", "all"]] : []), ["key_id", "Key", "id of a key"], ["source_sha256", "Script's hash", "its beginning, 8 or more"], ["policy", "Policy", "custom_script"], ["denied", "Denied", [["true", "something"]]], ["status", "Status", STATUSES], ["exit_reason", "Ended by", REASONS], ["task_type", "Task type", TYPES], ["label", "Label", "name:value"], ["created_after", "From", TIME], ["created_before", "Until", TIME]]);
  const place = h("div", {}, loading()), more = h("div", { class: "row" }), told = h("span", { class: "hint", role: "status" });
  const next = (cursor, limit = PAGE) => ask("GET", `/audit${query({ ...wanted, limit, cursor })}`);
  const all = async (write) => {
    let found = [], cursor = null;
    try {
      do {
        const page = await next(cursor, 500);
        found = found.concat(page.tasks);
        cursor = page.next_cursor;
        fill(told, `${found.length} so far …`);
      } while (cursor && found.length < EXPORTED_MOST && !leaving.aborted);
      write(found);
      fill(told, cursor ? `The newest ${found.length} were saved; narrow the time for the others.` : `${found.length} saved.`);
    } catch (error) { fill(told, error.message); }
  };
  const csv = h("button", { type: "button", onclick: () => all((found) => save("audit.csv", toCsv(COLUMNS.map(([column]) => column), found.map((one) => Object.fromEntries(COLUMNS.map(([column, cell]) => [column, cell(one)])))), "text/csv")) }, "Export as CSV");
  const json = h("button", { type: "button", onclick: () => all((found) => save("audit.jsonl", found.map((one) => JSON.stringify(one)).join("\n"), "application/x-ndjson")) }, "Export as JSON lines");
  const scope = who.scopes.includes("admin") ? "of all tenants" : `of your tenant, ${who.tenant}`;
  const narrow = h("details", { class: "more only-narrow", open: true }, h("summary", {}, "Filters"), form);
  if (matchMedia("(max-width: 700px)").matches) narrow.open = [...given.keys()].length > 0;
  fill(main, top, h("p", {}, `Each task ${scope} that the service still keeps: who submitted it, under which grant it ran, and what it was denied.`), narrow, h("div", { class: "row" }, csv, json, told), place, more);
  let shown = [];
  const look = async (cursor) => {
    const answer = await next(cursor);
    if (leaving.aborted) return;
    shown = shown.concat(answer.tasks);
    if (!answer.has_all_tenants) fill(told, "Of the first 1,000 tenants by name; name another one as Tenant.");
    fill(place, shown.length ? list(shown, who) : h("div", { class: "empty" }, h("p", {}, answer.next_cursor ? "None among the newest tasks is like that." : "No task is like that."), h("p", {}, h("a", { href: "#/audit" }, "Show all"))));
    fill(more, answer.next_cursor ? h("button", { type: "button", onclick: async (event) => { event.target.disabled = true; try { await look(answer.next_cursor); } catch (error) { fill(more, fault(error)); } } }, shown.length ? "Show older ones" : "Look further back") : null);
  };
  try { await look(null); } catch (error) { if (!leaving.aborted) fill(place, fault(error)); }
}

const COLUMNS = [
  ["accepted", (one) => one.task.created_at], ["finished", (one) => one.task.finished_at], ["task_id", (one) => one.task.task_id], ["tenant", (one) => one.tenant], ["key_id", (one) => one.key_id], ["request_id", (one) => one.request_id], ["client", (one) => one.client_address],
  ["task_type", (one) => one.task.task_type], ["script_name", (one) => one.script_name], ["source_sha256", (one) => one.source_sha256], ["parameters_sha256", (one) => one.parameters_sha256], ["policy", (one) => one.task.policy], ["policy_digest", (one) => one.policy_digest],
  ["status", (one) => one.task.status], ["exit_reason", (one) => one.task.exit_reason], ["attempts", (one) => one.task.attempts], ["denied", (one) => one.denied?.words.join("; ") ?? ""],
];

function list(found, who) {
  const admin = who.scopes.includes("admin");
  return listing([
    ["When", (one) => time(one.task.created_at)], ["Task", (one) => taskLink(one.task.task_id)],
    ["Who", (one) => [one.key_id ? copyable(one.key_id, one.key_id, `#/audit?key_id=${encodeURIComponent(one.key_id)}`) : "no key", h("div", { class: "quiet" }, [admin ? one.tenant : null, one.client_address].filter(Boolean).join(", "))]],
    ["What", (one) => [one.task.task_type, h("div", { class: "quiet" }, one.script_name ? `${one.script_name} ` : null, one.source_sha256 ? copyable(one.source_sha256, `${one.source_sha256.slice(0, 12)}…`, `#/audit?source_sha256=${one.source_sha256}`) : null)]],
    ["Under", (one) => [h("a", { href: `#/policies/${encodeURIComponent(one.task.policy)}` }, one.task.policy), h("div", { class: "quiet" }, digest(one.policy_digest))]],
    ["Ended", (one) => [state(one.task.status), one.task.exit_reason && one.task.exit_reason !== "ok" && one.task.exit_reason !== one.task.status ? h("span", { class: "quiet" }, ` ${one.task.exit_reason}`) : null]],
    ["Denied", (one) => (one.denied ? one.denied.words.map((each) => h("div", { class: "denied" }, each)) : h("span", { class: "quiet" }, "nothing"))],
  ], found, "Who ran what");
}

async function logView(main, top, given, leaving, who) {
  const wanted = { event: given.get("event") ?? "", text: given.get("text") ?? "" };
  const form = filters("audit/log", given, [["event", "Event", EVENTS], ["text", "Holds the text", "id of a key, task or request"]]);
  const place = h("div", {}, loading()), more = h("div", { class: "row" });
  const scope = who.scopes.includes("admin") ? "" : ` Only lines that name your tenant, ${who.tenant}, are shown.`;
  fill(main, top, h("p", {}, `Refusals, attempts, and keys and policies that changed, the last line first.${scope} `, h("code", {}, "python -m engine audit verify"), " holds the log against its hash chain."), form, place, more);
  let shown = [];
  const look = async (cursor) => {
    const answer = await ask("GET", `/audit/log${query({ ...wanted, cursor })}`);
    if (leaving.aborted) return;
    if (!answer.is_kept) return fill(place, h("div", { class: "empty" }, h("p", {}, "This API writes no audit log of its own to a file."), h("p", {}, "Its lines are among the log lines. ", h("code", {}, "AUDIT_LOG"), " names a file for them.")));
    shown = shown.concat(answer.lines);
    fill(place, shown.length ? h("div", { class: "panel" }, shown.map(line)) : h("div", { class: "empty" }, answer.next_cursor ? "No line is like that in the newest part of the log." : "No line is like that."));
    fill(more, answer.next_cursor ? h("button", { type: "button", onclick: async () => { try { await look(answer.next_cursor); } catch (error) { fill(more, fault(error)); } } }, shown.length ? "Show older ones" : "Look further back") : null,
      shown.length ? h("button", { type: "button", onclick: () => save("audit-log.jsonl", shown.map((one) => JSON.stringify(one)).join("\n"), "application/x-ndjson") }, "Export these as JSON lines") : null);
  };
  try { await look(null); } catch (error) { if (!leaving.aborted) fill(place, fault(error)); }
}

function line(one) {
  const words = { "request refused": () => `${one.status} for ${one.method} ${one.call ?? "an unknown path"}`, "attempt ended": () => `${one.task_type} under ${one.policy}: ${one.exit_reason}`, "attempt failed": () => `${one.task_type} under ${one.policy}: our own failure at ${one.failed_at}`, "requests refused": () => `${one.count} more in a minute`, "keys changed": () => [["made", one.made], ["revoked", one.revoked], ["changed", one.changed]].filter(([, ids]) => ids?.length).map(([what, ids]) => `${what} ${ids.join(", ")}`).join("; ") };
  const about = words[one.event]?.() ?? "";
  return h("details", { class: "line-of-log" }, h("summary", {}, time(one.timestamp.replace("+00:00", "Z")), " ", h("strong", {}, one.event), " ", about, h("span", { class: "quiet" }, [one.tenant, one.key_id ? `key ${one.key_id}` : null, one.client].filter(Boolean).map((each) => ` · ${each}`).join(""))),
    one.task_id ? h("p", {}, "Task ", taskLink(one.task_id)) : null, block(JSON.stringify(one, null, 2)));
}
