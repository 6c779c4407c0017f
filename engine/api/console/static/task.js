// One task: live while it runs, whole when it has ended.

import { artifactPath, ask, isPicture, parse, picture } from "./api.js";
import { append, block, bytes, copyable, digest, facts, fault, fill, h, listing, loading, prose, say, seconds, section, state, time, took } from "./dom.js";
import { coloured } from "./editor.js";
import { save, traceback, value } from "./values.js";

const REASONS = {
  ok: "It ended with a result.", error: "The script or handler raised an exception.", nonzero_exit: "The process left with another exit code and no result.",
  no_result: "The process left without a result. A script assigns `result`, or has `main(args)` return it.", invalid_result: "The result is no valid JSON, is nested too deep, or is too large.",
  wall_limit: "It ran longer than its wall time. A higher `timeout_s`, up to the policy's limit, gives it more.", cpu_limit: "It used more processor time than its policy allows.",
  memory_limit: "It needed more memory than it may have.", output_limit: "It printed more than it may. Write large output to artifacts/.", workspace_limit: "Its workspace was full.",
  process_limit: "It could start no further thread or process.", signaled: "A signal ended it, for example after a crash in native code.", cancelled: "Somebody cancelled it.",
  worker_lost: "Our fault: its worker died, and no attempt is left. Submit it again.",
};
const PROFILES = { full: "The run had namespaces of its own: it saw no other process, no network device and no file of the host, beside the layers below.", unprivileged: "The host gives no namespaces, so the run saw the host's paths; the layers below held it." };
const LAYERS = {
  namespaces: "a world of its own: user, files, processes, network", landlock: "which files it may open, held by the kernel", seccomp: "which system calls it may make, held by the kernel",
  rlimits: "how much processor time, memory, threads and files it may take", cgroup: "the memory and processes of the whole run, counted by the kernel", "no_new_privs": "no program can give it more rights",
};
const ENDS = { finished: "finished", worker_lost: "its worker was lost", sandbox_failed: "our own failure", released: "given back: its worker stopped" };
const FINAL = ["succeeded", "failed", "cancelled"];
const LOG_MOST = 1 << 20, LINES_MOST = 20_000;

export async function taskView(main, id, leaving, who) {
  fill(main, h("h1", {}, "Task"), loading());
  const place = h("div"), further = h("div"), older = h("div");
  try {
    const task = await ask("GET", `/task/${encodeURIComponent(id)}`);
    if (leaving.aborted) return;
    fill(main, h("p", { class: "crumb" }, h("a", { href: "#/tasks" }, "← All tasks")), h("h1", {}, "Task ", copyable(task.task_id)), again(task, who), older, place);
    const look = (final = task) => record(further, final, leaving);
    live(place, task, leaving, { who, ended: look, below: further });
    if (!FINAL.includes(task.status)) await look();
    if (task.policy_digest && who.scopes.includes("audit")) await changed(older, task, leaving);
  } catch (error) {
    const gone = error.status === 404 ? h("div", { class: "fault", role: "alert" }, h("strong", {}, "There is no such task"), h("p", {}, "There is no task with this id, it belongs to another tenant, or its time is over and it was deleted.")) : null;
    fill(main, h("h1", {}, "Task"), gone ?? fault(error), h("p", {}, h("a", { href: "#/tasks" }, "All tasks")));
  }
}

// Whether its policy has been changed since it ran.
async function changed(place, task, leaving) {
  const now = await ask("GET", `/policies/${encodeURIComponent(task.policy)}`).catch(() => null);
  if (now && now.digest !== task.policy_digest && !leaving.aborted) fill(place, h("p", { class: "panel" }, "Its policy has been changed since it ran. ", h("a", { href: `#/policies/${encodeURIComponent(task.policy)}?since=${encodeURIComponent(task.policy_digest)}` }, "See what was changed"), "."));
}

// The same once more: at once, or changed.
function again(task, who) {
  if (!who.scopes.includes("submit")) return null;
  const told = h("div");
  const id = encodeURIComponent(task.task_id);
  const run = h("button", { type: "button", onclick: async () => {
    run.disabled = true;
    try {
      const body = await (await fetch(`/task/${id}/request`, { credentials: "same-origin", redirect: "error" })).text();  // as bytes: no number is read here
      const made = await ask("POST", "/execute", { body, headers: { "content-type": "application/json" } });
      location.hash = `#/tasks/${made.task_id}`;
    } catch (error) { fill(told, fault(error)); run.disabled = false; }
  } }, "Run it again");
  return h("div", {}, h("div", { class: "row" }, run, h("a", { class: "button", href: `#/playground?again=${id}` }, "Change it, then run")), told);
}

// Shows a task in a place, and follows it to its end.
export function live(place, task, leaving, { who = { scopes: [] }, ended: whenEnded = () => {}, narrow = false, below = null } = {}) {
  const top = h("div"), bar = h("div"), rest = h("div"), side = h("div"), between = h("div");
  const out = h("pre", { role: "log", "aria-label": "Output", tabindex: 0, class: "log" });
  const tools = h("div", { class: "row tools" });
  const logs = section("Output", out, tools);
  fill(place, top, bar, narrow ? [rest, between, logs, side] : h("div", { class: "columns" }, h("div", {}, rest, between, logs, below), side));
  let printed = 0, count = 0, line = null, kind = null;
  // Each line is an element of its own, which has a number; beyond LINES_MOST it is text.
  const print = (text, stream = "stdout") => {
    printed += text.length;
    if (printed > LOG_MOST) return;
    const low = out.scrollHeight - out.scrollTop - out.clientHeight < 40;
    const parts = text.split("\n");
    if (count + parts.length > LINES_MOST) append(out, [text]);
    else parts.forEach((part, at) => {
      if (at) line = null;
      if (!part && at === parts.length - 1) return;
      if (!line || kind !== stream) { line = h("span", { class: stream === "stderr" ? "log-line stderr" : "log-line" }); out.append(line); count += 1; kind = stream; }
      append(line, [part]);
    });
    if (low) out.scrollTop = out.scrollHeight;
  };
  const wipe = () => { fill(out); [printed, count, line] = [0, 0, null]; };
  const end = (final) => {
    fill(bar);
    head(top, final, who);
    wipe();
    print(final.logs?.stdout ?? "");
    print(final.logs?.stderr ?? "", "stderr");
    if (final.logs?.truncated) append(out, ["\n… cut: it printed more than it may"]);
    const said = (final.logs?.stdout ?? "") + (final.logs?.stderr ?? "");
    if (!said) fill(out, h("span", { class: "quiet" }, "It printed nothing."));
    else fill(tools, h("button", { type: "button", onclick: () => save(`${final.task_id}.log`, said, "text/plain") }, "Save the output"), final.logs?.stderr ? h("span", { class: "hint" }, h("span", { class: "stderr" }, "This colour"), " is stderr, which stands last once the task has ended.") : null);
    fill(rest, outcome(final));
    fill(side, aside(final, who));
    say(`The task has ended: ${final.status}`);
    if (final.isolation) denied(between, final, leaving);
    whenEnded(final);
  };
  if (FINAL.includes(task.status)) return end(task);
  head(top, task, who);
  fill(out, h("span", { class: "quiet" }, "What it prints appears here."));
  fill(side, section("This task", about(task)));
  let begun = false;
  const clock = setInterval(() => { const tick = top.querySelector(".clock"); if (tick) fill(tick, took(task)); }, 1000);
  const stop = () => clearInterval(clock);
  leaving.addEventListener("abort", stop);
  const source = new EventSource(`/task/${encodeURIComponent(task.task_id)}/events`);
  leaving.addEventListener("abort", () => source.close());
  source.addEventListener("status", (event) => { task = { ...task, ...parse(event.data) }; if (task.status === "running") task.started_at ??= new Date().toISOString(); head(top, task, who); fill(side, section("This task", about(task))); });
  source.addEventListener("log", (event) => { const said = parse(event.data); if (!begun) { wipe(); begun = true; } print(said.text, said.stream); });
  source.addEventListener("progress", (event) => {
    const said = parse(event.data);
    const part = said.fraction === null || said.fraction === undefined ? null : Math.min(1, Math.max(0, Number(said.fraction) || 0));
    fill(bar, h("div", { class: "progress" }, h("progress", { max: 1, value: part, "aria-label": "Progress" }), h("span", {}, part === null ? "" : `${Math.round(part * 100)} % `, said.message ?? "")));
  });
  source.addEventListener("gap", (event) => append(out, [h("em", {}, `\n… ${parse(event.data).missing} events are missing here; the whole output comes at the end\n`)]));
  source.addEventListener("result", (event) => { source.close(); stop(); end(parse(event.data)); });
  source.addEventListener("error", async () => {
    if (source.readyState !== EventSource.CLOSED || leaving.aborted) return;  // else it comes again by itself
    stop();
    try { const now = await ask("GET", `/task/${encodeURIComponent(task.task_id)}`); if (FINAL.includes(now.status)) end(now); else fill(bar, h("p", { class: "hint" }, "Live events are not to be had now. Reload to see how it stands.")); } catch (error) { fill(bar, fault(error)); }
  });
}

// The message of an end. A limit's is our own text, whose names stand in code marks; others may be a script's.
function ours(ended) {
  return ended.exit_reason?.endsWith("_limit") ? prose(ended.message) : ended.message;
}

function head(top, task, who) {
  const isFinal = FINAL.includes(task.status);
  const cancel = h("button", { type: "button", onclick: async () => {
    cancel.disabled = true;
    try { await ask("DELETE", `/task/${encodeURIComponent(task.task_id)}`); } catch (error) { top.append(fault(error)); cancel.disabled = false; }
  } }, "Cancel it");
  const words = { queued: task.queue_position ? `It waits: place ${task.queue_position} in the queue${task.estimated_wait_s === null || task.estimated_wait_s === undefined ? "" : `, about ${seconds(task.estimated_wait_s)}`}.` : "It waits for a worker.", running: "It runs." };
  fill(top, h("div", { class: `banner is-${task.status}` }, h("div", {}, h("div", { class: "big" }, state(task.status), task.exit_reason && task.exit_reason !== "ok" && task.exit_reason !== task.status ? h("code", {}, task.exit_reason) : null, h("span", { class: "quiet clock" }, took(task))),
    h("p", {}, isFinal ? prose(REASONS[task.exit_reason] ?? "") : words[task.status]), task.message && isFinal && task.exit_reason !== "ok" && !task.error ? h("p", {}, ours(task)) : null),
  isFinal || !who.scopes.includes("cancel") ? null : cancel));
}

function about(task) {
  const labels = Object.entries(task.labels ?? {});
  return facts([
    ["Task type", task.task_type], ["Policy", h("a", { href: `#/policies/${encodeURIComponent(task.policy)}` }, task.policy)], ["Priority", task.priority], ["Attempts", task.attempts || null],
    ["Accepted", time(task.created_at)], ["Started", time(task.started_at)], ["Ended", time(task.finished_at)], ["Waited", task.usage?.queue_s ? seconds(task.usage.queue_s) : null], ["Took", FINAL.includes(task.status) ? took(task) : null],
    ["Script", task.script ? [h("code", {}, task.script.name), " ", digest(task.script.sha256)] : null],
    ["Labels", labels.length ? labels.map(([name, text]) => h("a", { class: "chip", href: `#/tasks?label=${encodeURIComponent(`${name}:${text}`)}` }, `${name}=${text}`)) : null],
  ]);
}

function outcome(task) {
  const shown = task.error ? section("Error", h("p", { class: "error" }, h("strong", {}, task.error.type ?? ""), " ", task.error.message ?? ""), task.error.code ? facts([["Code", h("code", {}, task.error.code)]]) : null,
    task.error.traceback ? [traceback(task.error.traceback), h("p", { class: "hint" }, "Marked lines are the script's own.")] : null) : null;
  const result = task.status === "succeeded" ? section("Result", task.result === null ? h("p", { class: "quiet" }, prose("`null`. A script assigns `result`, or has `main(args)` return it.")) : value(task.result)) : null;
  return [shown, pictures(task), result];
}

function aside(task) {
  return [section("This task", about(task)), usage(task), isolation(task), files(task), callback(task),
    h("details", { class: "panel" }, h("summary", {}, "The whole answer as JSON"), block(JSON.stringify(task, null, 2)))];
}

// Pictures of the task, each as an object of this page: the service sends bytes to save, never a document.
function pictures(task) {
  const found = (task.artifacts ?? []).filter((one) => isPicture(one.name) && one.size_bytes < 16 << 20);
  if (!found.length) return null;
  return section(found.length === 1 ? "Picture" : "Pictures", found.map((one) => {
    const frame = h("div", { class: "frame" }, loading());
    picture(task.task_id, one.name).then((url) => {
      const image = h("img", { src: url, alt: `Artifact ${one.name}` });
      image.addEventListener("error", () => fill(frame, h("p", { class: "hint" }, "This is no picture that a browser can show.")));
      fill(frame, image);
    }).catch((error) => fill(frame, h("p", { class: "hint" }, error.status === 410 ? "It has been deleted." : "The picture could not be fetched.")));
    return h("figure", {}, frame, h("figcaption", {}, h("code", {}, one.name), ` ${bytes(one.size_bytes)} `, link(task, one)));
  }));
}

const link = (task, one) => h("a", { href: artifactPath(task.task_id, one.name), download: one.name.split("/").pop() }, "Save");

function files(task) {
  if (!task.artifacts?.length && !task.artifacts_refused?.length) return null;
  const refused = (task.artifacts_refused ?? []).map((one) => h("li", {}, h("code", {}, one.name), ` ${one.reason ?? ""}`));
  return section("Artifacts", h("ul", { class: "plain" }, task.artifacts.map((one) => h("li", {}, h("code", {}, one.name), ` ${bytes(one.size_bytes)} `, link(task, one)))),
    refused.length ? [h("h3", {}, "Not kept"), h("ul", {}, refused)] : null);
}

function usage(task) {
  const used = task.usage, limits = task.limits;
  if (!used || !limits) return null;
  const rows = [
    ["Wall time", used.wall_s, limits.wall_s, seconds], ["Processor time", used.cpu_s, limits.cpu_s, seconds], ["Memory", used.memory_peak_mib, limits.memory_mib, (mib) => `${+Number(mib).toFixed(1)} MiB`],
    ["Output", used.output_kib, limits.output_kib, (kib) => `${+Number(kib).toFixed(1)} KiB`], ["Workspace", used.workspace_mib, limits.workspace_mib, (mib) => `${+Number(mib).toFixed(2)} MiB`], ["Files", used.workspace_files, limits.workspace_files, String],
  ].filter(([, now, most]) => now !== null && now !== undefined && most);
  const network = (used.egress ?? []).map((one) => h("li", {}, h("code", {}, `${one.host}:${one.port}`), ` ${one.decision}, ${one.connections} connections, ${bytes(one.bytes_in)} in, ${bytes(one.bytes_out)} out`));
  return section("Used, of what it may", h("div", { class: "bars" }, rows.map(([name, now, most, shown]) => [h("span", {}, name), h("progress", { max: most, value: Math.min(now, most), "aria-label": name, class: now >= most * 0.9 ? "full" : null }), h("span", { class: "quiet" }, `${shown(now)} of ${shown(most)}`)])),
    network.length ? [h("h3", {}, "Network"), h("ul", {}, network)] : null);
}

function isolation(task) {
  if (!task.isolation) return null;
  const layers = Object.entries(task.isolation.layers ?? {}).map(([name, how]) => [h("dt", {}, name), h("dd", {}, LAYERS[name] ?? "", h("span", { class: "quiet" }, ` (${how})`))]);
  const denied = (task.violations ?? []).map((one) => h("li", {}, h("code", {}, one.syscall), ` ${one.count === 1 ? "once" : `${one.count} times`}`));
  return section("Isolation", h("p", {}, h("strong", {}, task.isolation.profile), ". ", PROFILES[task.isolation.profile] ?? ""), h("dl", { class: "facts" }, layers),
    denied.length ? [h("h3", {}, "System calls that were denied"), h("ul", { class: "plain" }, denied)] : h("p", { class: "hint" }, "It tried nothing that its policy denies."),
    facts([["Policy file", digest(task.policy_digest)], ["Libraries", digest(task.libraries_digest)]]));
}

function callback(task) {
  if (!task.callback) return null;
  const said = task.callback, place = h("div");
  const words = { waiting: "It is sent when the task ends.", due: "The service sends it, and tries again when that fails.", delivered: "It was taken.", dead: "The service has given up. Mend the receiver, then send it again." };
  const again_ = h("button", { type: "button", onclick: async () => {
    try { await ask("POST", `/task/${encodeURIComponent(task.task_id)}/callback`); fill(place, h("p", { role: "status" }, "The service sends it again now.")); } catch (error) { fill(place, fault(error)); }
  } }, "Send it again");
  return section("Callback", h("p", {}, state(said.state), " ", words[said.state]), facts([["URL", h("code", {}, said.url)], ["Attempts", said.attempts], ["Last answer", said.last_status], ["Last error", said.last_error], ["Next", time(said.due_at)]]), said.state === "waiting" ? null : again_, place);
}

// Who submitted it, and each attempt.
async function record(place, task, leaving) {
  const id = task.task_id;
  let found;
  try { found = await ask("GET", `/task/${encodeURIComponent(id)}/attempts`); } catch (error) { fill(place, fault(error)); return; }
  if (leaving.aborted) return;
  const who = found.submitted;
  const attempts = found.attempts;
  const columns = [
    ["Attempt", (one) => one.attempt], ["Started", (one) => time(one.started_at)], ["Ended", (one) => time(one.ended_at)], ["How", (one) => [one.exit_reason ?? ENDS[one.ended] ?? one.ended, one.message ? h("span", { class: "quiet" }, " ", ours(one)) : null]],
    ["Worker", (one) => copyable(one.worker_id, one.worker_id.slice(0, 8))], ["Policy file", (one) => digest(one.policy_digest)],
  ];
  const request = h("div"), shown = h("details", { class: "more", ontoggle: async () => { if (shown.open && !request.firstChild) { fill(request, loading()); fill(request, await submitted(id)); } } }, h("summary", {}, "What was submitted"), request);
  fill(place, section("What happened", timeline(task, attempts, who)), section(attempts.length > 1 ? `${attempts.length} attempts` : "Attempts", attempts.length ? listing(columns, attempts, "Attempts") : h("p", { class: "quiet" }, "None has ended yet.")),
    section("Who submitted it", facts([
      ["Key", who.key_id ? copyable(who.key_id, who.key_id, `#/tasks?key_id=${encodeURIComponent(who.key_id)}`) : "none: the service has no keys"], ["Request", who.request_id ? copyable(who.request_id) : null], ["From", who.client_address],
      ["Script", [who.script_name ? [h("code", {}, who.script_name), " "] : null, who.source_sha256 ? copyable(who.source_sha256, `${who.source_sha256.slice(0, 12)}…`, `#/tasks?source_sha256=${who.source_sha256}`) : who.script_name ? null : "none"]],
      ["Parameters", digest(who.parameters_sha256)], ["Uploaded files", who.file_ids.length ? who.file_ids.join(", ") : null],
    ]), shown));
}

// What its policy denied, in words, with the key of the policy that denies it.
async function denied(place, task, leaving) {
  if (!task.violations?.length && !(task.usage?.egress ?? []).some((one) => one.decision !== "allowed")) return;
  let found;
  try { found = await ask("GET", `/task/${encodeURIComponent(task.task_id)}/attempts`); } catch (error) { fill(place, fault(error)); return; }
  const words = found.attempts.filter((one) => one.denied).map((one) => [found.attempts.length > 1 ? h("h3", {}, `In attempt ${one.attempt}`) : null, h("ul", {}, one.denied.words.map((each) => h("li", {}, each)))]);
  if (words.length && !leaving.aborted) fill(place, h("section", { class: "panel is-denied" }, h("h2", {}, "What its policy denied"), words));
}

// What happened to it, in order.
function timeline(task, attempts, who) {
  const entry = (at, kind, ...said) => h("li", { class: kind }, time(at), " ", said);
  const found = [entry(task.created_at, "", "accepted", who.key_id ? ` from the key ${who.key_id}` : "")];
  for (const one of attempts) {
    found.push(entry(one.started_at, "", `attempt ${one.attempt} began on worker ${one.worker_id.slice(0, 8)}`));
    found.push(entry(one.ended_at, one.exit_reason === "ok" ? "good" : "bad", `attempt ${one.attempt} ended: `, h("strong", {}, one.exit_reason ?? ENDS[one.ended] ?? one.ended), one.denied ? ", after it was denied something" : ""));
  }
  if (task.status === "running" && task.started_at) found.push(entry(task.started_at, "", `attempt ${task.attempts} began; it runs`));
  if (task.finished_at && !attempts.some((one) => one.ended === "finished")) found.push(entry(task.finished_at, "bad", `ended: ${task.exit_reason}`));
  const said = task.callback;
  if (said?.ended_at) found.push(entry(said.ended_at, said.state === "delivered" ? "good" : "bad", said.state === "delivered" ? "the callback was taken" : "the callback was given up", said.last_status ? `, answered with ${said.last_status}` : ""));
  else if (said?.state === "due") found.push(entry(said.due_at, "", "the callback is sent then, or later"));
  return h("ol", { class: "timeline" }, found);
}

async function submitted(id) {
  try {
    const found = await ask("GET", `/task/${encodeURIComponent(id)}/request`);
    const { script, ...others } = found.parameters ?? {};
    const source = found.task_type === "custom_script" && typeof script === "string" && script.includes("\n") ? script : null;
    return [source ? h("pre", { tabindex: 0, class: "source" }, coloured(source, "python")) : null, block(JSON.stringify(source ? { ...found, parameters: { script: "as above", ...others } } : found, null, 2))];
  } catch (error) { return fault(error); }
}
