// Runs a task: a script with its arguments and files, a named script, or any task type by a form made from its schema.

import { ask, query } from "./api.js";
import { block, bytes, copyable, fault, fill, h, loading, locked, pretty, prose } from "./dom.js";
import { editor } from "./editor.js";
import { base64, readJson, schemaForm } from "./form.js";
import { live } from "./task.js";
import { ownLines } from "./values.js";

const SCRIPT = 'import matplotlib.pyplot as plt\n\nprint("squaring", len(args), "numbers")\nplt.plot(args, [x * x for x in args], marker="o")\nplt.savefig("artifacts/squares.png")\n\nresult = [{"x": x, "square": x * x} for x in args]\n';
const ARGS = "[1, 2, 3, 4, 5]";
const FILE_MOST = 20 << 20;
const OWN = "custom_script";

export async function playgroundView(main, given, leaving, who) {
  fill(main, h("h1", {}, "Playground"), loading());
  if (!who.scopes.includes("submit")) return fill(main, h("h1", {}, "Playground"), locked(who, "submit", "it runs nothing"));
  const again = given.get("again");
  const [documented, scripts, policies, before] = await Promise.all([ask("GET", "/openapi.json"), ask("GET", "/scripts"), who.scopes.includes("audit") ? ask("GET", "/policies") : { policies: [] }, again ? ask("GET", `/task/${encodeURIComponent(again)}/request`) : null]);
  if (leaving.aborted) return;
  const schemas = documented.components.schemas;
  const resolve = (ref) => schemas[ref.split("/").pop()] ?? {};
  const types = Object.keys(schemas.ExecuteRequest.discriminator.mapping);
  const named = scripts.scripts;
  const sent = before?.parameters?.script;
  const type = before?.task_type ?? (types.includes(given.get("type")) ? given.get("type") : OWN);
  const wantedScript = before ? named.find((one) => one.name === sent)?.name : named.find((one) => one.name === given.get("script"))?.name;
  const script = type === OWN ? wantedScript ?? null : null;
  const choose = h("select", { onchange: () => { const [kind, name] = choose.value.split("/"); location.hash = `#/playground${query({ type: kind, script: name })}`; } },
    types.includes(OWN) ? h("optgroup", { label: "Scripts" }, h("option", { value: OWN, selected: type === OWN && !script }, "your own script"), named.map((one) => h("option", { value: `${OWN}/${one.name}`, selected: one.name === script }, one.name))) : null,
    h("optgroup", { label: "Task types" }, types.filter((one) => one !== OWN).map((one) => h("option", { value: one, selected: one === type }, one))));
  const usable = policies.policies.filter((one) => one.task_type === type && (who.policies === null || who.policies.includes(one.name)));
  const policy = policies.policies.length
    ? h("select", {}, h("option", { value: "" }, `${type}, its own`), usable.filter((one) => one.name !== type).map((one) => h("option", { value: one.name, selected: one.name === before?.policy || one.name === given.get("policy") }, one.name)))
    : h("input", { placeholder: type, value: before?.policy ?? "", autocomplete: "off" });
  const timeout = h("input", { type: "number", min: "0.1", step: "any", placeholder: "the policy's", value: before?.timeout_s ?? null });
  const inner = type !== OWN ? typeForm(type, documented, resolve, before) : script ? namedForm(named.find((one) => one.name === script), before) : scriptForm(before);
  const told = h("div"), code = h("div"), place = h("div", { class: "stage" });
  idle(place);
  const request = async () => {
    const body = { task_type: type, parameters: await inner.parameters() };
    if (policy.value) body.policy = policy.value;
    if (timeout.value) body.timeout_s = Number(timeout.value);
    if (before && Object.keys(before.labels).length) body.labels = before.labels;
    return body;
  };
  let running = null;
  const run = h("button", { class: "main" }, "Run");
  const start = async () => {
    run.disabled = true;
    fill(told);
    try {
      const task = await ask("POST", "/execute", { json: await request(), headers: { "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) } });
      running?.abort();
      running = new AbortController();
      const here = running;
      leaving.addEventListener("abort", () => here.abort());
      const stage = h("div");
      fill(place, h("div", { class: "title" }, h("h2", {}, "Task ", copyable(task.task_id, task.task_id.slice(0, 8), `#/tasks/${encodeURIComponent(task.task_id)}`)), h("a", { href: `#/tasks/${encodeURIComponent(task.task_id)}` }, "Its own page, to share")), stage);
      live(stage, task, running.signal, { who, narrow: true, ended: (final) => { run.disabled = false; if (final.error?.traceback) inner.mark?.(ownLines(final.error.traceback)); } });
      if (matchMedia("(max-width: 1000px)").matches) place.scrollIntoView({ block: "start" });
    } catch (error) { fill(told, fault(error)); told.scrollIntoView({ block: "nearest" }); }
    run.disabled = false;
  };
  const form = h("form", { onsubmit: (event) => { event.preventDefault(); start(); } }, inner.node,
    h("details", { class: "more", open: Boolean(before?.timeout_s || (before && before.policy !== type)) || given.has("policy") }, h("summary", {}, "Policy and time"), h("div", { class: "row" }, h("label", {}, "Policy", policy), h("label", {}, "Longest time, seconds", timeout))),
    h("div", { class: "row" }, run), told);
  const shown = h("details", { class: "more", ontoggle: async () => { if (shown.open) { try { fill(code, asCode(await request())); } catch (error) { fill(code, fault(error)); } } } }, h("summary", {}, "As curl, Python and JavaScript"), code);
  fill(main, h("h1", {}, "Playground"), again ? h("p", { class: "hint" }, "Filled with what was submitted as ", h("a", { href: `#/tasks/${encodeURIComponent(again)}` }, again.slice(0, 8)), ".") : null,
    h("div", { class: "columns even" }, h("div", {}, h("label", { class: "field" }, "Run", choose), form, shown), place));
}

function idle(place) {
  fill(place, h("div", { class: "empty" }, h("p", {}, "The answer appears here: output as it is printed, pictures, tables, and what the run used."), h("p", {}, h("kbd", {}, "Ctrl"), " + ", h("kbd", {}, "Enter"), " in the editor runs it.")));
}

// ---- forms

function scriptForm(before) {
  const inputs = before?.parameters?.inputs ?? {};
  const source = editor("Script", before?.parameters?.script ?? SCRIPT, { lines: 14 });
  const args = editor("args, as JSON", before ? ("args" in (before.parameters ?? {}) ? pretty(before.parameters.args) : "") : ARGS, { language: "json", lines: 2, hint: "The script finds it as args." });
  const files = fileDrop(inputs);
  const parameters = async () => {
    const value = readJson(args.value, "args"), kept = await files.read();
    return { script: source.value, ...(value === undefined ? {} : { args: value }), ...(Object.keys(kept).length ? { inputs: kept } : {}) };
  };
  return { parameters, mark: (lines) => lines.forEach((line) => source.mark(line)), node: h("div", {}, source.node, args.node, files.node) };
}

function namedForm(script, before) {
  const example = /Example args: ``(.+?)``/s.exec(script.text)?.[1].replace(/\s*\n\s*/g, " ");
  let value = before?.parameters?.args;
  if (value === undefined && example) try { value = JSON.parse(example); } catch { value = undefined; }
  const parts = both(script.args, () => ({}), value, "args");
  const files = fileDrop(before?.parameters?.inputs ?? {});
  const parameters = async () => { const args = await parts.read(), kept = await files.read(); return { script: script.name, ...(args === undefined ? {} : { args }), ...(Object.keys(kept).length ? { inputs: kept } : {}) }; };
  return { parameters, node: h("div", {}, h("p", {}, prose(script.description)), h("p", { class: "hint" }, "Version ", copyable(script.sha256, `${script.sha256.slice(0, 12)}…`)), parts.node, h("details", { class: "more" }, h("summary", {}, "Files"), files.node)) };
}

function typeForm(type, documented, resolve, before) {
  const name = type.replace(/(^|_)(.)/g, (_, __, letter) => letter.toUpperCase());
  const schema = documented.components.schemas[name] ?? {};
  const own = Object.values(documented.paths["/execute"].post.requestBody.content["application/json"].examples ?? {}).map((one) => one.value).filter((one) => one.task_type === type).map((one) => one.parameters);
  const parts = both(schema, resolve, before?.parameters ?? own[0] ?? {}, "parameters");
  return { parameters: async () => (await parts.read()) ?? {}, node: h("div", {}, h("p", {}, prose(schema.description ?? "")), parts.node) };
}

// A form, or the same as JSON, whichever one likes.
function both(schema, resolve, value, what) {
  const form = schema && (schema.properties || schema.discriminator) ? schemaForm(schema, resolve, value) : null;
  const text = editor(what, value === undefined ? "" : pretty(value), { language: "json", lines: 6, hint: "As JSON. Ctrl+Enter runs it." });
  const place = h("div", {}, form ? form.node : text.node);
  let isForm = Boolean(form);
  const read = async () => (isForm ? form.read() : readJson(text.value, what));
  const told = h("div");
  const swap = h("button", { type: "button", class: "link", onclick: async () => {
    fill(told);
    try {
      const now = await read();
      if (isForm) text.value = pretty(now); else form.write(now ?? {});
      isForm = !isForm;
      fill(place, isForm ? form.node : text.node);
      fill(swap, isForm ? "Write it as JSON" : "Back to the form");
    } catch (error) { fill(told, fault(error)); }
  } }, "Write it as JSON");
  return { read, node: h("div", {}, form ? h("div", { class: "right" }, swap) : null, place, told) };
}

// Files for a script: new ones, and those that an earlier request had.
function fileDrop(given) {
  const files = new Map(Object.entries(given)), list = h("ul", { class: "plain" }), told = h("p", { class: "hint" });
  const draw = () => fill(list, [...files].map(([name, file]) => h("li", {}, h("code", {}, `inputs/${name}`), file instanceof File ? ` ${bytes(file.size)} ` : " as before ", h("button", { type: "button", "aria-label": `Remove ${name}`, onclick: () => { files.delete(name); draw(); } }, "Remove"))));
  const add = (found) => { fill(told); for (const file of found) { if (file.size > FILE_MOST) fill(told, `${file.name} is larger than ${bytes(FILE_MOST)}: upload it with POST /files.`); else files.set(file.name, file); } draw(); };
  const pick = h("input", { type: "file", multiple: true, onchange: () => { add(pick.files); pick.value = ""; } });
  const drop = h("div", { class: "drop",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); }, ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); } },
    h("label", {}, "Files for the script: choose them, or drop them here", pick), list, told);
  draw();
  return { node: drop, read: async () => {
    const found = {};
    for (const [name, file] of files) found[name] = file instanceof File ? { base64: await base64(file) } : file;
    return found;
  } };
}

// ---- the same from elsewhere

function asCode(body) {
  const here = location.origin, json = JSON.stringify(body, null, 2), flat = JSON.stringify(body);
  const shell = `'${flat.replaceAll("'", "'\\''")}'`;
  const parts = {
    curl: `curl -s '${here}/execute?wait=30' -H "authorization: Bearer $KEY" \\\n  -H 'content-type: application/json' -d ${shell}`,
    Python: `import json\nimport os\n\nfrom engine.client import Client, TaskRequest\n\nbody = json.loads(${JSON.stringify(flat)})\nwith Client(${JSON.stringify(here)}, key=os.environ.get("KEY")) as client:\n    print(client.run(TaskRequest(**body)))`,
    JavaScript: `const answer = await fetch("${here}/execute?wait=30", {\n  method: "POST",\n  headers: { authorization: \`Bearer \${process.env.KEY}\`, "content-type": "application/json" },\n  body: JSON.stringify(${json}),\n});\nconsole.log(await answer.json());`,
  };
  return Object.entries(parts).map(([name, text]) => [h("h3", {}, name), block(text)]);
}
