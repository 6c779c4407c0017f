// The list of tasks.

import { ask, query } from "./api.js";
import { copyable, fault, fill, h, state, time, took } from "./dom.js";

const TYPES = ["custom_script", "data_processing", "ml_inference", "web_scraping", "document_processing", "image_processing"];
const STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const REASONS = ["ok", "error", "nonzero_exit", "no_result", "invalid_result", "wall_limit", "cpu_limit", "memory_limit", "output_limit", "workspace_limit", "process_limit", "signaled", "cancelled", "worker_lost"];
const EVERY_MS = 3000;

export async function tasksView(main, given, leaving) {
  const wanted = Object.fromEntries(["task_id", "status", "task_type", "exit_reason", "label"].map((name) => [name, given.get(name) ?? ""]));
  const choice = (name, label, values) => h("label", {}, label, h("select", { name, onchange: go }, h("option", { value: "" }, "all"), values.map((one) => h("option", { value: one, selected: one === wanted[name] }, one))));
  const text = (name, label, hint) => h("label", {}, label, h("input", { name, value: wanted[name], placeholder: hint, autocomplete: "off", spellcheck: "false", onchange: go }));
  const form = h("form", { class: "row filters", role: "search", "aria-label": "Filter the tasks", onsubmit: (event) => { event.preventDefault(); go(); } },
    text("task_id", "Id begins with", "6b690294"), choice("status", "Status", STATUSES), choice("task_type", "Task type", TYPES), choice("exit_reason", "Ended by", REASONS), text("label", "Label", "name:value"),
    h("button", {}, "Filter"), Object.values(wanted).some(Boolean) ? h("a", { class: "button", href: "#/tasks" }, "Show all") : null);
  function go() {
    const values = Object.fromEntries(new FormData(form));
    values.task_id = values.task_id.trim().toLowerCase();
    location.hash = `#/tasks${query(values)}`;
  }
  const place = h("div", {}, h("p", { class: "quiet" }, "Loading …"));
  const more = h("div", { class: "row" });
  fill(main, h("h1", {}, "Tasks"), form, place, more);
  let older = [], cursor = null, shown = "";
  const look = async (after) => {
    const answer = await ask("GET", `/tasks${query({ ...wanted, limit: 50, cursor: after })}`);
    if (after) older = older.concat(answer.tasks);
    if (after || !older.length) cursor = answer.next_cursor;
    return answer.tasks;
  };
  let first = [];
  const draw = () => {
    const known = new Set(first.map((one) => one.task_id));
    const all = first.concat(older.filter((one) => !known.has(one.task_id)));
    const now = JSON.stringify(all) + cursor;
    if (now === shown && all.every((one) => one.finished_at)) return;
    if (place.contains(document.activeElement) && now === shown) return;
    shown = now;
    const focused = document.activeElement?.closest?.("#main a")?.getAttribute("href");
    fill(place, all.length ? list(all) : empty(Object.values(wanted).some(Boolean)));
    if (focused) [...place.querySelectorAll("a")].find((one) => one.getAttribute("href") === focused)?.focus();
    fill(more, cursor ? h("button", { type: "button", onclick: async () => { try { await look(cursor); draw(); } catch (error) { fill(more, fault(error)); } } }, "Show older ones") : null);
  };
  const refresh = async () => {
    if (leaving.aborted) return;
    try {
      if (!document.hidden) { first = await look(null); if (!leaving.aborted) draw(); }
    } catch (error) {
      if (!leaving.aborted) { shown = ""; fill(place, fault(error)); }
      if (error.status >= 400 && error.status < 500 && error.status !== 429) return;
    }
    const next = setTimeout(refresh, EVERY_MS);
    leaving.addEventListener("abort", () => clearTimeout(next), { once: true });
  };
  await refresh();
}

function empty(filtered) {
  return h("div", { class: "empty" }, filtered
    ? [h("p", {}, "No task is like that."), h("p", {}, h("a", { href: "#/tasks" }, "Show all tasks"))]
    : [h("p", {}, "There are no tasks yet."), h("p", {}, h("a", { href: "#/playground" }, "Run one in the playground"), ", or by ", h("code", {}, "POST /execute"), ".")]);
}

function list(tasks) {
  const heads = ["Task", "Task type", "Status", "Ended by", "Accepted", "Took", "Labels"];
  const cell = (name, ...children) => h("td", { "data-name": name }, children);
  return h("div", { class: "wide" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, heads.map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, tasks.map((task) => h("tr", {},
    cell("Task", h("a", { class: "mono", href: `#/tasks/${encodeURIComponent(task.task_id)}`, title: task.task_id }, task.task_id.slice(0, 8)), copyButton(task.task_id)),
    cell("Task type", task.task_type), cell("Status", state(task.status)), task.exit_reason && task.exit_reason !== "ok" ? cell("Ended by", task.exit_reason) : h("td"),
    cell("Accepted", time(task.created_at)), took(task) ? cell("Took", took(task)) : h("td"),
    Object.keys(task.labels).length ? cell("Labels", Object.entries(task.labels).map(([name, text]) => `${name}=${text}`).join(", ")) : h("td"),
  )))));
}

const copyButton = (id) => copyable(id, "").lastChild;
