// How the service is: what hinders it, its workers, and the tasks of the last hour.

import { ask, query } from "./api.js";
import { fault, fill, h, facts, seconds, state } from "./dom.js";

const EVERY_MS = 5000;
const HOUR_MS = 3_600_000, PARTS = 12, MOST_PAGES = 4;

export async function operationsView(main, leaving, who) {
  fill(main, h("h1", {}, "Operations"), h("p", { class: "quiet" }, "Loading …"));
  if (!who.scopes.includes("audit")) return fill(main, h("h1", {}, "Operations"), h("div", { class: "fault" }, `The key ${who.key_id} lacks the scope audit, which reads the health in detail. Sign in with another key.`));
  const now = h("div"), hour = h("div");
  fill(main, h("h1", {}, "Operations"), now, hour);
  const look = async () => {
    if (leaving.aborted) return;
    try { if (!document.hidden) fill(now, health(await ask("GET", "/health", { accepts: [503] }))); } catch (error) { fill(now, fault(error)); if (error.status === 401) return; }
    const next = setTimeout(look, EVERY_MS);
    leaving.addEventListener("abort", () => clearTimeout(next), { once: true });
  };
  await look();
  if (who.scopes.includes("read")) try { fill(hour, await lastHour()); } catch (error) { fill(hour, fault(error)); }
}

function health(found) {
  const rows = found.workers.map((one) => h("tr", {}, [["Worker", `${one.host} ${one.pid}`], ["State", state(one.state)], ["Running", `${one.running} of ${one.slots}`], ["Ready", Object.entries(one.ready).map(([name, count]) => `${name} ${count}`).join(", ")], ["Isolation", one.isolation.profile], ["Late", `${one.lag_ms} ms`], ["Failing", one.failing.join(", ")]].map(([name, value]) => h("td", { "data-name": name }, value))));
  return [
    h("p", {}, state(found.status), found.status === "ok" ? " Tasks are accepted and run." : ""), found.reasons.length ? h("ul", { class: "fault" }, found.reasons.map((one) => h("li", {}, one))) : null,
    facts([["Waiting", found.queue.queued], ["Running", found.queue.running], ["Longest wait", found.queue.oldest_wait_s ? seconds(found.queue.oldest_wait_s) : "none waits"], ["Free slots", found.queue.free_slots],
      ["PostgreSQL", [state(found.database.status), ` ${found.database.latency_ms} ms`]], ["Redis", [state(found.redis.status), ` ${found.redis.latency_ms} ms`]]]),
    h("h2", {}, "Workers"), rows.length ? h("div", { class: "wide" }, h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Worker", "State", "Running", "Ready sandboxes", "Isolation", "Late", "Failing policies"].map((one) => h("th", { scope: "col" }, one)))), h("tbody", {}, rows))) : h("div", { class: "empty" }, "No worker is up: tasks wait. Start one with python -m engine worker."),
  ];
}

async function lastHour() {
  const since = new Date(Date.now() - HOUR_MS);
  let cursor = null, tasks = [], pages = 0;
  do {
    const page = await ask("GET", `/tasks${query({ created_after: since.toISOString(), limit: 500, cursor })}`);
    tasks = tasks.concat(page.tasks);
    cursor = page.next_cursor;
    pages += 1;
  } while (cursor && pages < MOST_PAGES);
  const counts = Array.from({ length: PARTS }, () => ({ good: 0, bad: 0 }));
  for (const one of tasks) {
    const at = Math.min(PARTS - 1, Math.max(0, Math.floor(((new Date(one.created_at) - since) / HOUR_MS) * PARTS)));
    counts[at][one.status === "failed" ? "bad" : "good"] += 1;
  }
  const times = tasks.filter((one) => one.finished_at).map((one) => (new Date(one.finished_at) - new Date(one.created_at)) / 1000).sort((one, other) => one - other);
  const part = (share) => seconds(times[Math.min(times.length - 1, Math.floor(times.length * share))]);
  const failed = tasks.filter((one) => one.status === "failed").length;
  return [h("h2", {}, "Your tenant's tasks of the last hour"),
    cursor ? h("p", { class: "hint" }, `Only the newest ${tasks.length} are counted here; /metrics has all.`) : null,
    facts([["Accepted", tasks.length], ["Failed", failed], ["Half were done in", times.length ? part(0.5) : null], ["95 of 100 in", times.length ? part(0.95) : null]]), tasks.length ? chart(counts) : null];
}

function chart(counts) {
  const NS = "http://www.w3.org/2000/svg", most = Math.max(1, ...counts.map((one) => one.good + one.bad));
  const svg = document.createElementNS(NS, "svg");
  const put = (name, attributes, text) => { const node = document.createElementNS(NS, name); for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value); if (text) node.textContent = text; svg.append(node); };
  svg.setAttribute("viewBox", "0 0 600 130"); svg.setAttribute("class", "chart"); svg.setAttribute("role", "img"); svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-label", `Tasks accepted in each five minutes, the oldest first: ${counts.map((one) => one.good + one.bad).join(", ")}`);
  put("rect", { x: 0, y: 110, width: 600, height: 1, class: "base" });
  counts.forEach((one, at) => {
    const high = (one.good / most) * 100, low = (one.bad / most) * 100;
    put("rect", { x: at * 50 + 4, y: 110 - high - low, width: 42, height: high });
    put("rect", { x: at * 50 + 4, y: 110 - low, width: 42, height: low, class: "failed" });
  });
  return h("figure", {}, svg, h("figcaption", {}, `Tasks accepted, each bar five minutes, now at the right; the highest bar is ${most}. Failed ones are red.`));
}
