// Runs a task: a script with its arguments and files, or any task type by its parameters.

import { ask } from "./api.js";
import { bytes, copyable, fault, fill, h } from "./dom.js";
import { live } from "./task.js";

const SCRIPT = 'print("adding", len(args), "numbers")\nresult = {"sum": sum(args)}\n';
const FILE_MOST = 20 << 20;

export async function playgroundView(main, given, leaving, who) {
  fill(main, h("h1", {}, "Playground"), h("p", { class: "quiet" }, "Loading …"));
  if (!who.scopes.includes("submit")) return fill(main, h("h1", {}, "Playground"), h("div", { class: "fault" }, `The key ${who.key_id} lacks the scope submit, so it runs nothing. Sign in with another key.`));
  const [documented, scripts, policies] = await Promise.all([ask("GET", "/openapi.json"), ask("GET", "/scripts"), who.scopes.includes("audit") ? ask("GET", "/policies") : { policies: [] }]);
  const examples = Object.values(documented.paths["/execute"].post.requestBody.content["application/json"].examples ?? {}).map((one) => one.value);
  const types = Object.keys(documented.components.schemas.ExecuteRequest.discriminator.mapping);
  const type = types.includes(given.get("type")) ? given.get("type") : "custom_script";
  const choose = h("select", { onchange: () => { location.hash = `#/playground?type=${choose.value}`; } }, types.map((one) => h("option", { selected: one === type }, one)));
  const policy = policies.policies.length
    ? h("select", {}, h("option", { value: "" }, "the task type's own"), policies.policies.filter((one) => one.task_type === type && (who.policies === null || who.policies.includes(one.name))).map((one) => h("option", {}, one.name)))
    : h("input", { placeholder: "the task type's own" });
  const timeout = h("input", { type: "number", min: "0.1", step: "any", placeholder: "the policy's" });
  const inner = type === "custom_script" ? scriptForm(scripts.scripts) : otherForm(type, documented, examples);
  const told = h("div"), place = h("div"), code = h("div");
  const request = async () => {
    const body = { task_type: type, parameters: await inner.parameters() };
    if (policy.value) body.policy = policy.value;
    if (timeout.value) body.timeout_s = Number(timeout.value);
    return body;
  };
  let running = null;
  const run = h("button", { class: "main" }, "Run");
  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    run.disabled = true;
    fill(told);
    try {
      const body = await request();
      const task = await ask("POST", "/execute", { json: body, headers: { "idempotency-key": crypto.randomUUID?.() ?? String(Math.random()) } });
      running?.abort();
      running = new AbortController();
      const here = running;
      leaving.addEventListener("abort", () => here.abort());
      const stage = h("div");
      fill(place, h("h2", {}, "Task ", copyable(task.task_id)), h("p", {}, h("a", { href: `#/tasks/${encodeURIComponent(task.task_id)}` }, "An address to share")), stage);
      live(stage, task, running.signal);
      place.scrollIntoView({ block: "nearest" });
    } catch (error) { fill(told, fault(error)); }
    run.disabled = false;
  } }, inner.node, h("div", { class: "row" }, h("label", {}, "Policy", policy), h("label", {}, "Longest time, seconds", timeout), run), told);
  const shown = h("details", { ontoggle: async () => { if (shown.open) { try { fill(code, asCode(await request())); } catch (error) { fill(code, fault(error)); } } } }, h("summary", {}, "As curl, Python and JavaScript"), code);
  fill(main, h("h1", {}, "Playground"), h("div", { class: "row" }, h("label", {}, "Task type", choose)), form, shown, place);
}

function readJson(text, what) {
  if (!text.trim()) return undefined;
  try { JSON.parse(text); } catch (error) { throw Object.assign(new Error(`${what}: ${error.message}. A text stands in double quotes.`), { title: "That is no JSON" }); }
  return JSON.rawJSON && /^[^{["]*$/.test(text.trim()) ? JSON.rawJSON(text.trim()) : JSON.parse(text);
}

export function editor(label, text, lines) {
  const numbers = h("pre", { class: "numbers", "aria-hidden": "true" });
  const area = h("textarea", { rows: lines, spellcheck: "false", autocomplete: "off", autocapitalize: "off", wrap: "off", id: `editor-${label.replace(/\W/g, "")}` });
  area.value = text;
  const count = () => { numbers.textContent = Array.from({ length: Math.max(area.value.split("\n").length, 1) }, (_, at) => at + 1).join("\n"); area.rows = Math.min(30, Math.max(lines, area.value.split("\n").length + 1)); };
  area.addEventListener("input", count);
  area.addEventListener("scroll", () => { numbers.scrollTop = area.scrollTop; });
  let escaped = false;
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); area.form.requestSubmit(); }
    if (event.key === "Escape") { escaped = true; return; }
    if (event.key === "Tab" && !event.shiftKey && !escaped) { event.preventDefault(); area.setRangeText("    ", area.selectionStart, area.selectionEnd, "end"); count(); }
    escaped = false;
  });
  count();
  return { area, node: h("div", {}, h("label", { for: area.id }, label), h("div", { class: "editor" }, numbers, area), h("p", { class: "hint" }, "Ctrl+Enter runs it. Esc, then Tab leaves the field.")), count };
}

function scriptForm(scripts) {
  const source = editor("Script", SCRIPT, 10);
  const args = h("textarea", { rows: 3, spellcheck: "false" });
  args.value = "[1, 2, 3]";
  const about = h("p", { class: "hint" });
  const named = h("select", { onchange: () => {
    const found = scripts.find((one) => one.name === named.value);
    source.node.hidden = Boolean(found);
    fill(about, found?.description ?? "");
  } }, h("option", { value: "" }, "source below"), scripts.map((one) => h("option", {}, one.name)));
  const files = new Map(), list = h("ul"), told = h("p", { class: "hint" });
  const draw = () => fill(list, [...files].map(([name, file]) => h("li", {}, h("code", {}, `inputs/${name}`), ` ${bytes(file.size)} `, h("button", { type: "button", "aria-label": `Remove ${name}`, onclick: () => { files.delete(name); draw(); } }, "Remove"))));
  const add = (found) => { for (const file of found) { if (file.size > FILE_MOST) told.textContent = `${file.name} is larger than ${bytes(FILE_MOST)}: upload it with POST /files.`; else files.set(file.name, file); } draw(); };
  const pick = h("input", { type: "file", multiple: true, onchange: () => { add(pick.files); pick.value = ""; } });
  const drop = h("div", { class: "drop",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); }, ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); add(event.dataTransfer.files); } },
    h("label", {}, "Files for the script: choose them, or drop them here", pick), list, told);
  const parameters = async () => {
    const found = { script: named.value || source.area.value };
    const value = readJson(args.value, "args");
    if (value !== undefined) found.args = value;
    if (files.size) {
      found.inputs = {};
      for (const [name, file] of files) found.inputs[name] = { base64: await base64(file) };
    }
    return found;
  };
  return { parameters, node: h("div", {}, h("div", { class: "row" }, h("label", {}, "Named script", named)), about, source.node, h("label", {}, "args, as JSON", args), drop) };
}

function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

function otherForm(type, documented, examples) {
  const name = type.replace(/(^|_)(.)/g, (_, __, letter) => letter.toUpperCase());
  const schema = documented.components.schemas[name] ?? {};
  const own = examples.filter((one) => one.task_type === type).map((one) => one.parameters);
  const more = (schema.oneOf ?? []).flatMap((one) => documented.components.schemas[one.$ref.split("/").pop()]?.examples ?? []);
  const all = [...own, ...more];
  const text = editor("Parameters, as JSON", JSON.stringify(all[0] ?? {}, null, 2), 10);
  const choose = h("select", { onchange: () => { text.area.value = JSON.stringify(all[Number(choose.value)], null, 2); text.count(); } },
    all.map((one, at) => h("option", { value: at }, `${one.operation ?? one.model_type ?? one.url ?? `example ${at + 1}`}`)));
  return { parameters: async () => readJson(text.area.value, "parameters") ?? {}, node: h("div", {}, h("p", {}, schema.description ?? ""), h("div", { class: "row" }, all.length > 1 ? h("label", {}, "Example", choose) : null), text.node) };
}

function asCode(body) {
  const here = location.origin, json = JSON.stringify(body, null, 2), flat = JSON.stringify(body);
  const shell = `'${flat.replaceAll("'", "'\\''")}'`;
  const parts = {
    curl: `curl -s '${here}/execute?wait=30' -H "authorization: Bearer $KEY" \\\n  -H 'content-type: application/json' -d ${shell}`,
    Python: `import json\nimport os\n\nfrom engine.client import Client, TaskRequest\n\nbody = json.loads(${pythonText(flat)})\nwith Client(${pythonText(here)}, key=os.environ.get("KEY")) as client:\n    print(client.run(TaskRequest(**body)))`,
    JavaScript: `const answer = await fetch("${here}/execute?wait=30", {\n  method: "POST",\n  headers: { authorization: \`Bearer \${process.env.KEY}\`, "content-type": "application/json" },\n  body: JSON.stringify(${json}),\n});\nconsole.log(await answer.json());`,
  };
  return Object.entries(parts).map(([name, text]) => [h("h3", {}, name), h("pre", { tabindex: 0 }, text)]);
}

const pythonText = (text) => JSON.stringify(text);
