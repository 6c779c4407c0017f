// The list of tasks.

import { ask, query } from "./api.js";
import { copyable, every, fault, fill, h, listing, loading, state, time, took } from "./dom.js";

export const TYPES = ["custom_script", "data_processing", "ml_inference", "web_scraping", "document_processing", "image_processing"];
export const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
export const REASONS = ["ok", "error", "nonzero_exit", "no_result", "invalid_result", "wall_limit", "cpu_limit", "memory_limit", "output_limit", "workspace_limit", "process_limit", "signaled", "cancelled", "worker_lost"];
const NAMES = ["task_id", "status", "task_type", "exit_reason", "label", "key_id", "source_sha256"];
const EVERY_MS = 3000;

export const TIME = "time";
// A time of the address, which is in UTC, as the browser's field shows it.
const local = (text) => { const at = new Date(text ?? NaN); return Number.isNaN(at.getTime()) ? "" : new Date(at - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16); };

// A form of filters, which writes them into the address.
export function filters(view, given, parts) {
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter", onsubmit: (event) => { event.preventDefault(); go(); } },
    parts.map(([name, label, hint]) => h("label", {}, label, Array.isArray(hint)
      ? h("select", { name, onchange: () => go() }, h("option", { value: "" }, "all"), hint.map((one) => (Array.isArray(one) ? one : [one, one])).map(([value, shown]) => h("option", { value, selected: value === given.get(name) }, shown)))
      : hint === TIME ? h("input", { name, type: "datetime-local", value: local(given.get(name)), onchange: () => go() })
        : h("input", { name, value: given.get(name) ?? "", placeholder: hint, autocomplete: "off", spellcheck: "false", onchange: () => go() }))),
    h("div", { class: "row" }, h("button", {}, "Filter"), [...given.keys()].length ? h("a", { class: "button", href: `#/${view}` }, "Show all") : null));
  const go = () => {
    const values = Object.fromEntries([...new FormData(form)].map(([name, text]) => [name, text.trim()]));
    if (values.task_id) values.task_id = values.task_id.toLowerCase();
    for (const [name, , hint] of parts) if (hint === TIME && values[name]) values[name] = new Date(values[name]).toISOString();
    if (values.label) values.label = values.label.replace("=", ":");
    const address = `#/${view}${query(values)}`;
    if (location.hash !== address) location.hash = address;
  };
  return form;
}

export async function tasksView(main, given, leaving) {
  const wanted = Object.fromEntries(NAMES.map((name) => [name, given.get(name) ?? ""]));
  const form = filters("tasks", given, [["task_id", "Id begins with", "6b690294"], ["status", "Status", STATUSES], ["task_type", "Task type", TYPES], ["exit_reason", "Ended by", REASONS], ["label", "Label", "name:value"], ["key_id", "Key", "id of a key"], ["source_sha256", "Script's hash", "its beginning, 8 or more"]]);
  const filtered = Object.values(wanted).some(Boolean);
  const place = h("div", {}, loading()), more = h("div", { class: "row" });
  const details = h("details", { class: "more only-narrow", open: filtered }, h("summary", {}, "Filters"), form);
  fill(main, h("div", { class: "title" }, h("h1", {}, "Tasks"), h("a", { class: "button main", href: "#/playground" }, "New task")), details, place, more);
  if (!matchMedia("(max-width: 700px)").matches) details.open = true;
  let older = [], cursor = null, shown = "", first = [];
  const look = async (after) => {
    const answer = await ask("GET", `/tasks${query({ ...wanted, limit: 50, cursor: after })}`);
    if (after) older = older.concat(answer.tasks);
    if (after || !older.length) cursor = answer.next_cursor;
    return answer.tasks;
  };
  const draw = () => {
    const known = new Set(first.map((one) => one.task_id));
    const all = first.concat(older.filter((one) => !known.has(one.task_id)));
    const now = JSON.stringify(all) + cursor;
    if (now === shown && (all.every((one) => one.finished_at) || place.contains(document.activeElement))) return;
    shown = now;
    const focused = document.activeElement?.closest?.("#main a")?.getAttribute("href");
    fill(place, all.length ? list(all) : empty(filtered));
    if (focused) [...place.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
    fill(more, cursor ? h("button", { type: "button", onclick: async () => { try { await look(cursor); draw(); } catch (error) { fill(more, fault(error)); } } }, all.length ? "Show older ones" : "Look further back") : null);
  };
  await every(EVERY_MS, leaving, async () => {
    try {
      first = await look(null);
      if (!leaving.aborted) draw();
    } catch (error) {
      if (!leaving.aborted) { shown = ""; fill(place, fault(error)); }
      if (error.status >= 400 && error.status < 500 && error.status !== 429) return false;
    }
    return true;
  });
}

function empty(filtered) {
  return h("div", { class: "empty" }, filtered
    ? [h("p", {}, "No task is like that."), h("p", {}, h("a", { href: "#/tasks" }, "Show all tasks"))]
    : [h("p", {}, "There are no tasks yet."), h("p", {}, h("a", { href: "#/playground" }, "Run one in the playground"), ", or by ", h("code", {}, "POST /execute"), ".")]);
}

export const taskLink = (id) => copyable(id, id.slice(0, 8), `#/tasks/${encodeURIComponent(id)}`);
export const labelled = (labels) => Object.entries(labels).map(([name, text]) => h("a", { class: "chip", href: `#/tasks?label=${encodeURIComponent(`${name}:${text}`)}` }, `${name}=${text}`));

function list(tasks) {
  return listing([
    ["Task", (task) => taskLink(task.task_id)], ["Status", (task) => [state(task.status), task.exit_reason && task.exit_reason !== "ok" && task.exit_reason !== task.status ? [" ", h("span", { class: "quiet" }, task.exit_reason)] : null]],
    ["Task type", (task) => [task.task_type, task.policy === task.task_type ? null : h("span", { class: "quiet" }, ` under ${task.policy}`)]],
    ["Accepted", (task) => time(task.created_at)], ["Took", took], ["Labels", (task) => labelled(task.labels)],
  ], tasks, "Tasks");
}
