// How the service is: what hinders it and the fix, the last hour, workers and their pools, tenants, dead callbacks.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { bytes, copyable, every, facts, fault, fill, h, listing, loading, locked, prose, seconds, section, state, time } from "./dom.js";
import { taskLink } from "./tasks.js";

const EVERY_MS = 5000, SLOWLY_MS = 30_000;
const FIXES = [
  [/no worker takes tasks/, "Start one: python -m engine worker, or look why the workers stopped."], [/no working worker can run/, "Its policies fail, or it cannot reach Redis: see the workers below, and their log."],
  [/PostgreSQL is read-only/, "Point DATABASE_URL at the primary."], [/PostgreSQL is unreachable/, "Look whether it is up, and whether DATABASE_URL is right: python -m engine doctor."], [/almost full|DATABASE_(MAX|FREE)_MIB/, "Make room: a shorter RESULT_TTL, smaller STORED_MIB, or a larger disk."],
  [/Redis is unreachable/, "Look whether it is up, and whether REDIS_URL is right: python -m engine doctor."], [/has been silent/, "It was killed, or its machine is too busy. Its tasks run again elsewhere; start it anew."], [/cannot reach Redis, which/, "Look at the network between that worker and Redis."],
  [/fails by its own fault/, "Its log names the step that fails; python -m engine check says what its host lacks."], [/is slow/, "Its machine has too little processor time: fewer MAX_CONCURRENT_TASKS, or more cores."], [/does not have the policies/, "Deploy the same policy files to API and workers, and restart those that are behind."],
];

export async function operationsView(main, leaving, who) {
  fill(main, h("h1", {}, "Operations"), loading());
  if (!who.scopes.includes("audit")) return fill(main, h("h1", {}, "Operations"), locked(who, "audit", "it does not read how the service is"));
  const now = h("div", {}, loading()), hour = h("div", {}, loading()), workers = h("div"), tenants = h("div"), dead = h("div");
  fill(main, h("h1", {}, "Operations"), now, hour, workers, tenants, dead);
  const look = async (place, question) => {
    try { const found = await question(); if (!leaving.aborted && !place.contains(document.activeElement)) fill(place, found); return true; } catch (error) { if (!leaving.aborted) fill(place, fault(error)); return error.status !== 401; }
  };
  await Promise.all([
    every(EVERY_MS, leaving, () => look(now, async () => { const found = await ask("GET", "/health", { accepts: [503] }); if (!workers.contains(document.activeElement) && !leaving.aborted) fill(workers, workersOf(found)); return health(found); })),
    every(EVERY_MS * 2, leaving, () => look(tenants, async () => tenantsOf(await ask("GET", "/tenants"), who))),
    every(SLOWLY_MS, leaving, () => look(hour, async () => lastHour(await ask("GET", "/history"), who))),
    who.scopes.includes("read") ? every(SLOWLY_MS, leaving, () => look(dead, async () => callbacks((await ask("GET", "/callbacks?state=dead")).callbacks, who))) : null,
  ]);
}

function tile(name, value, note, kind) {
  return h("div", { class: `tile ${kind ?? ""}` }, h("span", { class: "quiet" }, name), h("strong", {}, value), note ? h("span", { class: "quiet" }, note) : null);
}

function health(found) {
  const words = { ok: "Tasks are accepted and run.", degraded: "Tasks are accepted; something hinders them.", down: "No tasks are accepted." };
  const dependency = (name, one) => tile(name, one.status === "ok" ? "ok" : "away", one.detail ?? `answers in ${one.latency_ms} ms`, one.status === "ok" ? "" : "bad");
  const queue = found.queue, unknown = (value) => (value === null ? "?" : String(value));
  return [
    h("div", { class: `banner is-${found.status}` }, h("div", {}, h("div", { class: "big" }, state(found.status)), h("p", {}, words[found.status]))),
    found.reasons.length ? h("ul", { class: "reasons" }, found.reasons.map((one) => h("li", {}, h("p", {}, prose(one)), h("p", { class: "hint" }, h("strong", {}, "What to do: "), FIXES.find(([sign]) => sign.test(one))?.[1] ?? "python -m engine doctor says more.")))) : null,
    h("div", { class: "tiles" }, tile("Waiting", unknown(queue.queued), queue.queued === null ? "unknown without PostgreSQL" : queue.oldest_wait_s ? `the longest for ${seconds(queue.oldest_wait_s)}` : "nothing waits"), tile("Running", unknown(queue.running), `${queue.free_slots} slots are free`), dependency("PostgreSQL", found.database), dependency("Redis", found.redis)),
  ];
}

function lastHour(found, who) {
  const minutes = found.minutes;
  const labels = minutes.map((one) => new Date(one.minute).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  const sum = (name) => minutes.reduce((total, one) => total + one[name], 0);
  const ended = sum("ended"), failed = sum("failed");
  const of = (name) => minutes.map((one) => one[name]);
  return h("section", {}, h("h2", {}, "The last hour"), h("p", {}, ended ? `${ended} tasks ended, ${failed} of them failed (${((failed / ended) * 100).toFixed(failed ? 1 : 0)} %), ${who.scopes.includes("admin") ? "of all tenants" : "of your tenant"}.` : "No task ended."),
    found.is_whole ? null : h("p", { class: "hint" }, "Some minutes are still being worked out."),
    ended ? h("div", { class: "charts" },
      chart({ title: "Tasks that ended, in each minute", labels, series: [{ name: "succeeded", values: minutes.map((one) => one.ended - one.failed - one.cancelled), kind: "good" }, { name: "failed", values: of("failed"), kind: "bad" }, { name: "cancelled", values: of("cancelled"), kind: "quiet" }] }),
      chart({ title: "From acceptance to the end", labels, lines: true, shown: (value) => seconds(value) || "0", series: [{ name: "median", values: of("took_p50_s") }, { name: "95th percentile", values: of("took_p95_s") }] }),
      chart({ title: "From acceptance to the start", labels, lines: true, shown: (value) => seconds(value) || "0", series: [{ name: "median", values: of("waited_p50_s") }, { name: "95th percentile", values: of("waited_p95_s") }] })) : null);
}

function workersOf(found) {
  if (!found.workers.length) return section("Workers", h("div", { class: "empty" }, "No worker is up: tasks wait. Start one with ", h("code", {}, "python -m engine worker"), "."));
  const bar = (now, most, text) => [h("progress", { max: most || 1, value: Math.min(now, most || 1), "aria-label": text }), h("span", { class: "quiet" }, ` ${text}`)];
  const columns = [
    ["Worker", (one) => [copyable(one.worker_id, one.worker_id.slice(0, 8)), h("div", { class: "quiet" }, `${one.host}, pid ${one.pid}`)]], ["State", (one) => [state(one.state), one.heartbeat_age_s > 5 ? h("span", { class: "quiet" }, ` heard ${seconds(one.heartbeat_age_s)} ago`) : null]],
    ["Running", (one) => bar(one.running, one.slots, `${one.running} of ${one.slots}`)], ["Memory", (one) => (one.memory_mib ? [bar(one.memory_taken_mib, one.memory_mib, `${one.memory_taken_mib} of ${one.memory_mib} MiB`), one.waits_for_memory ? h("div", {}, "tasks wait for memory") : null] : null)],
    ["Isolation", (one) => h("span", { title: Object.entries(one.isolation.layers).map(([name, how]) => `${name}: ${how}`).join("\n") }, one.isolation.profile)], ["Late", (one) => `${one.lag_ms} ms`], ["Version", (one) => one.versions.engine ?? ""],
  ];
  const names = [...new Set(found.workers.flatMap((one) => [...Object.keys(one.ready), ...one.failing, ...one.policies_differ, ...Object.keys(one.policies ?? {})]))].sort();
  const stand = (one, name) => (one.failing.includes(name) ? h("span", { class: "state failed" }, "fails") : one.policies_differ.includes(name) ? h("span", { class: "state degraded" }, "another version") : name in one.ready ? `${one.ready[name]} ready` : "not there");
  return [section("Workers", listing(columns, found.workers, "Workers")),
    section("Pools: sandboxes that stand ready", listing([["Policy", (name) => h("a", { href: `#/policies/${encodeURIComponent(name)}` }, name)], ...found.workers.map((one) => [one.worker_id.slice(0, 8), (name) => stand(one, name)])], names, "Pools"))];
}

function tenantsOf({ tenants: found, has_all_tenants: hasAll }, who) {
  const all = who.scopes.includes("admin");
  return section(all ? "Tenants" : "Your tenant", all ? null : h("p", { class: "hint" }, "A key with the scope admin shows all of them."), hasAll ? null : h("p", { class: "hint" }, `The first ${found.length} by name; there are more.`), found.length ? listing([
    ["Tenant", (one) => h("a", { href: `#/audit?tenant=${encodeURIComponent(one.tenant)}` }, one.tenant)], ["Waiting", (one) => [one.queued, one.held ? h("span", { class: "quiet" }, ` (${one.held} held: it has as many running as it may)`) : null], "number"], ["Running", (one) => String(one.running), "number"],
    ["Longest wait", (one) => (one.oldest_wait_s ? seconds(one.oldest_wait_s) : "–"), "number"], ["Stored", (one) => [bytes(one.stored_bytes), one.stored_mib ? h("span", { class: "quiet" }, ` of ${bytes(one.stored_mib * 1048576)}`) : null], "number"], ["Dead callbacks", (one) => String(one.dead_callbacks), "number"],
  ], found, "Tenants") : h("p", { class: "quiet" }, "None has stored anything yet."));
}

function callbacks(found, who) {
  const again = (one) => {
    const place = h("span");
    fill(place, h("button", { type: "button", onclick: async () => { try { await ask("POST", `/task/${encodeURIComponent(one.task_id)}/callback`); fill(place, "sent again"); } catch (error) { fill(place, fault(error)); } } }, "Send it again"));
    return place;
  };
  return section("Dead callbacks of your tenant", found.length ? listing([["Task", (one) => taskLink(one.task_id)], ["URL", (one) => h("code", {}, one.callback.url)], ["Attempts", (one) => one.callback.attempts, "number"], ["Last answer", (one) => one.callback.last_status ?? one.callback.last_error], ["Given up", (one) => time(one.callback.ended_at)],
    ["", (one) => (who.scopes.includes("submit") ? again(one) : null)]], found, "Dead callbacks") : h("p", { class: "quiet" }, "None: every callback was taken, or is still tried."));
}
