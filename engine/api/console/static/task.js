// One task: live while it runs, whole when it has ended.

import { artifactPath, ask, isPicture, parse, picture } from "./api.js";
import { append, bytes, copyable, facts, fault, fill, h, say, seconds, state, time, took } from "./dom.js";
import { traceback, value } from "./values.js";

const REASONS = {
  ok: "It ended with a result.", error: "The script or handler raised an exception.", nonzero_exit: "The process left with another exit code and no result.",
  no_result: "The process left without a result. A script assigns `result`, or has `main(args)` return it.", invalid_result: "The result is no valid JSON, is nested too deep, or is too large.",
  wall_limit: "It ran longer than its wall time. A higher `timeout_s`, up to the policy's limit, gives it more.", cpu_limit: "It used more processor time than its policy allows.",
  memory_limit: "It needed more memory than it may have.", output_limit: "It printed more than it may. Write large output to artifacts/.", workspace_limit: "Its workspace was full.",
  process_limit: "It could start no further thread or process.", signaled: "A signal ended it, for example after a crash in native code.", cancelled: "Somebody cancelled it.",
  worker_lost: "Our fault: its worker died, and no attempt is left. Submit it again.",
};
const PROFILES = { full: "Seven layers of the kernel, with namespaces of its own.", unprivileged: "The layers that need no namespaces." };
const FINAL = ["succeeded", "failed", "cancelled"];
const LOG_MOST = 1 << 20;

export async function taskView(main, id, leaving) {
  fill(main, h("h1", {}, "Task"), h("p", { class: "quiet" }, "Loading …"));
  const place = h("div");
  try {
    const task = await ask("GET", `/task/${encodeURIComponent(id)}`);
    fill(main, h("p", {}, h("a", { href: "#/tasks" }, "← All tasks")), h("h1", {}, "Task ", copyable(task.task_id)), place);
    live(place, task, leaving);
  } catch (error) {
    const about = error.status === 404 ? "There is no task with this id, or it belongs to another tenant." : null;
    fill(main, h("h1", {}, "Task"), about ? h("div", { class: "fault", role: "alert" }, about) : fault(error), h("p", {}, h("a", { href: "#/tasks" }, "All tasks")));
  }
}

// Shows a task in a place, and follows it to its end.
export function live(place, task, leaving) {
  const top = h("div"), out = h("pre", { role: "log", "aria-label": "Output", tabindex: 0 }, ""), bar = h("div"), rest = h("div");
  const logs = h("section", {}, h("h2", {}, "Output"), out);
  fill(place, top, bar, rest, logs);
  let printed = 0;
  const print = (text, stream) => {
    printed += text.length;
    if (printed > LOG_MOST) return;
    const low = out.scrollHeight - out.scrollTop - out.clientHeight < 40;
    append(out, [stream === "stderr" ? h("span", { class: "failed" }, text) : text]);
    if (low) out.scrollTop = out.scrollHeight;
  };
  const end = (final) => {
    fill(bar);
    head(top, final);
    fill(out);
    printed = 0;
    print(final.logs?.stdout ?? "");
    print(final.logs?.stderr ?? "", "stderr");
    if (final.logs?.truncated) append(out, ["\n… cut: it printed more than it may"]);
    if (!out.textContent) fill(out, h("span", { class: "quiet" }, "It printed nothing."));
    fill(rest, ended(final));
    say(`The task has ended: ${final.status}`);
  };
  if (FINAL.includes(task.status)) return end(task);
  head(top, task);
  const source = new EventSource(`/task/${encodeURIComponent(task.task_id)}/events`);
  leaving.addEventListener("abort", () => source.close());
  source.addEventListener("status", (event) => head(top, { ...task, ...parse(event.data) }));
  source.addEventListener("log", (event) => { const said = parse(event.data); print(said.text, said.stream); });
  source.addEventListener("progress", (event) => {
    const said = parse(event.data);
    fill(bar, h("p", {}, h("progress", { max: 1, value: Math.min(1, Math.max(0, Number(said.fraction) || 0)), "aria-label": "Progress" }), " ", said.message ?? ""));
  });
  source.addEventListener("gap", (event) => append(out, [h("em", {}, `\n… ${parse(event.data).missing} events are missing here; the whole output comes at the end\n`)]));
  source.addEventListener("result", (event) => { source.close(); end(parse(event.data)); });
  source.addEventListener("error", async () => {
    if (source.readyState !== EventSource.CLOSED) return;  // it comes again by itself
    try { const now = await ask("GET", `/task/${encodeURIComponent(task.task_id)}`); if (FINAL.includes(now.status)) end(now); else fill(bar, h("p", { class: "hint" }, "Live events are not to be had now. Reload to see how it stands.")); } catch (error) { fill(bar, fault(error)); }
  });
}

function head(top, task) {
  const isFinal = FINAL.includes(task.status);
  const cancel = h("button", { type: "button", onclick: async () => {
    cancel.disabled = true;
    try { await ask("DELETE", `/task/${encodeURIComponent(task.task_id)}`); } catch (error) { top.append(fault(error)); cancel.disabled = false; }
  } }, "Cancel it");
  fill(top,
    h("div", { class: "row" }, state(task.status), isFinal ? h("span", {}, REASONS[task.exit_reason] ?? "") : cancel),
    task.message && task.exit_reason !== "ok" && !task.error ? h("div", { class: "fault" }, h("strong", {}, task.exit_reason), h("p", {}, task.message)) : null,
    facts([
      ["Task type", task.task_type], ["Policy", h("a", { href: `#/policies/${encodeURIComponent(task.policy)}` }, task.policy)], ["Priority", task.priority], ["Attempts", task.attempts],
      ["Place in the queue", task.status === "queued" ? task.queue_position : null], ["Accepted", time(task.created_at)], ["Started", time(task.started_at)],
      ["Ended", time(task.finished_at)], ["Took", isFinal ? took(task) : null], ["Script", task.script ? `${task.script.name} (${task.script.sha256.slice(0, 12)}…)` : null],
      ["Labels", Object.entries(task.labels ?? {}).map(([name, text]) => `${name}=${text}`).join(", ")],
    ]));
}

function ended(task) {
  return [
    task.error ? h("section", {}, h("h2", {}, "Error"), h("p", {}, h("strong", {}, task.error.type ?? ""), " ", task.error.message ?? ""), task.error.code ? facts([["Code", task.error.code]]) : null, task.error.traceback ? traceback(task.error.traceback) : null) : null,
    task.status === "succeeded" ? h("section", {}, h("h2", {}, "Result"), task.result === null ? h("p", { class: "quiet" }, "null: a script assigns `result`, or has `main(args)` return it.") : value(task.result)) : null,
    artifacts(task), usage(task), isolation(task), callback(task),
    h("details", {}, h("summary", {}, "The whole answer as JSON"), h("pre", { tabindex: 0 }, JSON.stringify(task, null, 2))),
  ];
}

function artifacts(task) {
  if (!task.artifacts?.length && !task.artifacts_refused?.length) return null;
  const list = h("div");
  for (const one of task.artifacts) {
    const link = h("a", { href: artifactPath(task.task_id, one.name), download: one.name.split("/").pop() }, "Save");
    const figure = h("figure", {}, h("figcaption", {}, h("code", {}, one.name), ` ${bytes(one.size_bytes)} `, link));
    if (isPicture(one.name) && one.size_bytes < 16 << 20) {
      picture(task.task_id, one.name).then((url) => {
        const image = h("img", { src: url, alt: `Artifact ${one.name}` });
        image.addEventListener("error", () => image.replaceWith(h("p", { class: "hint" }, "This is no picture that a browser can show.")));
        figure.prepend(image);
      }).catch(() => figure.append(h("p", { class: "hint" }, "The picture could not be fetched.")));
    }
    list.append(figure);
  }
  const refused = (task.artifacts_refused ?? []).map((one) => h("li", {}, h("code", {}, one.name), ` ${one.reason ?? ""}`));
  return h("section", {}, h("h2", {}, "Artifacts"), list, refused.length ? [h("h3", {}, "Not kept"), h("ul", {}, refused)] : null);
}

function usage(task) {
  const used = task.usage, limits = task.limits;
  if (!used || !limits) return null;
  const rows = [
    ["Wall time", used.wall_s, limits.wall_s, seconds], ["Processor time", used.cpu_s, limits.cpu_s, seconds], ["Memory", used.memory_peak_mib, limits.memory_mib, (mib) => `${mib} MiB`],
    ["Output", used.output_kib, limits.output_kib, (kib) => `${kib} KiB`], ["Workspace", used.workspace_mib, limits.workspace_mib, (mib) => `${mib} MiB`], ["Files", used.workspace_files, limits.workspace_files, String],
  ].filter(([, now, most]) => now !== null && now !== undefined && most);
  const network = (used.egress ?? []).map((one) => h("li", {}, `${one.host}:${one.port} ${one.decision}, ${one.connections} connections, ${bytes(one.bytes_in)} in, ${bytes(one.bytes_out)} out`));
  return h("section", {}, h("h2", {}, "Used, of what it may"),
    h("div", { class: "bars" }, rows.map(([name, now, most, shown]) => [h("span", {}, name), h("progress", { max: most, value: Math.min(now, most), "aria-label": name }), h("span", { class: "quiet" }, `${shown(now)} of ${shown(most)}`)])),
    network.length ? [h("h3", {}, "Network"), h("ul", {}, network)] : null, used.queue_s !== null && used.queue_s !== undefined ? h("p", { class: "hint" }, `It waited ${seconds(used.queue_s)} in the queue.`) : null);
}

function isolation(task) {
  if (!task.isolation) return null;
  const denied = (task.violations ?? []).map((one) => h("li", {}, h("code", {}, one.syscall ?? one.name ?? "?"), ` was denied ${one.count === 1 ? "once" : `${one.count ?? "some"} times`}`));
  return h("section", {}, h("h2", {}, "Isolation"),
    h("p", {}, h("strong", {}, task.isolation.profile), " ", PROFILES[task.isolation.profile] ?? ""), facts(Object.entries(task.isolation.layers ?? {})),
    denied.length ? [h("h3", {}, "Denied"), h("ul", {}, denied)] : h("p", { class: "hint" }, "It tried nothing that its policy denies."),
    facts([["Policy file", task.policy_digest ? copyable(task.policy_digest, `${task.policy_digest.slice(0, 19)}…`) : null], ["Libraries", task.libraries_digest ? copyable(task.libraries_digest, `${task.libraries_digest.slice(0, 19)}…`) : null]]));
}

function callback(task) {
  if (!task.callback) return null;
  const said = task.callback, place = h("div");
  const again = h("button", { type: "button", onclick: async () => {
    try { await ask("POST", `/task/${encodeURIComponent(task.task_id)}/callback`); fill(place, h("p", { role: "status" }, "The service sends it again now.")); } catch (error) { fill(place, fault(error)); }
  } }, "Send it again");
  return h("section", {}, h("h2", {}, "Callback"), h("p", {}, state(said.state)), facts([["URL", said.url], ["Attempts", said.attempts], ["Last answer", said.last_status], ["Last error", said.last_error], ["Next", time(said.due_at)]]), again, place);
}
