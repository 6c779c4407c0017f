// A form made from a JSON Schema, with the examples that stand in it.

import { bytes, fill, h, pretty, prose } from "./dom.js";

const FILE_MOST = 20 << 20;
const SHORT = 300;

export function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

export function readJson(text, what) {
  if (!text.trim()) return undefined;
  try { JSON.parse(text); } catch (error) { throw Object.assign(new Error(`${what}: ${error.message}. A text stands in double quotes.`), { title: "That is no JSON" }); }
  return exact(text);
}

// Numbers that JavaScript would round stay as they were written.
function exact(text) {
  return JSON.rawJSON ? JSON.parse(text, (_, value, context) => (typeof value === "number" && String(value) !== context.source ? JSON.rawJSON(context.source) : value)) : JSON.parse(text);
}

// A form for an object's schema. `given` resolves `$ref`; `read` is the object, `write` shows another one.
export function schemaForm(schema, given, value) {
  const tag = schema.discriminator?.propertyName;
  return tag ? unionForm(schema, tag, given, value) : objectForm(schema, given, value);
}

function unionForm(schema, tag, given, value) {
  const kinds = schema.discriminator.mapping;
  let inner;
  const place = h("div");
  const about = h("p", { class: "hint" });
  const choose = h("select", { onchange: () => show(null) }, Object.keys(kinds).map((one) => h("option", {}, one)));
  const show = (now) => {
    const kind = given(kinds[choose.value]);
    fill(about, prose(kind.description ?? ""));
    inner = objectForm(kind, given, now ?? kind.examples?.[0] ?? {}, tag);
    fill(place, inner.node);
  };
  const write = (now) => { if (now && now[tag] in kinds) choose.value = now[tag]; show(now); };
  write(value);
  return { node: h("div", {}, h("label", {}, tag, choose), about, place), read: async () => ({ [tag]: choose.value, ...(await inner.read()) }), write };
}

function objectForm(schema, given, value, without = null) {
  const needed = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).filter(([name]) => name !== without).map(([name, one]) => [name, field(name, resolve(one, given), needed.has(name))]);
  const first = fields.filter(([name]) => needed.has(name)), others = fields.filter(([name]) => !needed.has(name));
  const more = others.length ? h("details", { class: "more" }, h("summary", {}, `${others.length} further ${others.length === 1 ? "field" : "fields"}, none of them needed`), others.map(([, one]) => one.node)) : null;
  const write = (now) => {
    for (const [name, one] of fields) one.write(now?.[name]);
    if (more && others.some(([name]) => now && name in now)) more.open = true;
  };
  write(value);
  const read = async () => {
    const found = {};
    for (const [name, one] of fields) { const now = await one.read(); if (now !== undefined) found[name] = now; }
    return found;
  };
  return { node: h("div", { class: "form" }, first.map(([, one]) => one.node), first.length ? more : others.map(([, one]) => one.node)), read, write };
}

function resolve(schema, given) {
  const { $ref, ...own } = schema;
  const found = $ref ? { ...given($ref), ...own } : own;
  if (!found.anyOf) return found;
  const options = found.anyOf.filter((one) => one.type !== "null");
  if (options.length === 1) { const { anyOf, ...rest } = found; return { ...resolve(options[0], given), ...rest }; }
  const files = options.some((one) => one.$ref?.endsWith("/InputFile"));
  return { ...found, either: options.some((one) => one.type === "string"), files };
}

function field(name, schema, needed) {
  const example = schema.examples?.[0];
  const about = [schema.description, schema.default !== undefined && schema.default !== null && JSON.stringify(schema.default).length < 60 && !(typeof schema.default === "object" && !Object.keys(schema.default).length) ? `Unless given: ${typeof schema.default === "string" ? schema.default : JSON.stringify(schema.default)}.` : null].filter(Boolean).join(" ");
  const { control, read, write, after } = input(name, schema, needed, example);
  const described = about ? { "aria-describedby": `about-${name}` } : {};
  for (const [key, text] of Object.entries(described)) control.setAttribute(key, text);
  control.setAttribute("name", name);
  const short = about.length > 160 ? h("details", { class: "hint", id: `about-${name}` }, h("summary", {}, `${about.slice(0, about.slice(0, 140).lastIndexOf(" "))} …`.replaceAll("`", "")), prose(about)) : about ? h("p", { class: "hint", id: `about-${name}` }, prose(about)) : null;
  return { node: h("div", { class: "field" }, h("label", {}, h("span", {}, name, needed ? null : h("span", { class: "quiet" }, " (optional)")), control), after ?? null, short), read, write };
}

function input(name, schema, needed, example) {
  const kinds = schema.enum ?? (schema.const !== undefined ? [schema.const] : null);
  const hint = example === undefined ? null : typeof example === "string" ? example : JSON.stringify(example);
  if (kinds) {
    const control = h("select", {}, needed ? null : h("option", { value: "" }, "as by default"), kinds.map((one) => h("option", {}, one)));
    return { control, read: async () => control.value || undefined, write: (now) => { control.value = now ?? (needed ? kinds[0] : ""); } };
  }
  if (schema.type === "boolean") {
    const control = h("select", {}, h("option", { value: "" }, "as by default"), h("option", { value: "true" }, "yes"), h("option", { value: "false" }, "no"));
    return { control, read: async () => (control.value ? control.value === "true" : undefined), write: (now) => { control.value = now === undefined ? "" : String(now); } };
  }
  if (schema.type === "integer" || schema.type === "number") {
    const control = h("input", { type: "number", step: schema.type === "integer" ? 1 : "any", min: schema.minimum, max: schema.maximum, required: needed, placeholder: hint });
    return { control, read: async () => (control.value === "" ? undefined : Number(control.value)), write: (now) => { control.value = now ?? ""; } };
  }
  if (schema.type === "string" && (schema.maxLength ?? Infinity) <= 2048) {
    const control = h("input", { required: needed, placeholder: hint, autocomplete: "off", spellcheck: "false" });
    return { control, read: async () => control.value || undefined, write: (now) => { control.value = now ?? ""; } };
  }
  return written(name, schema, needed, hint);
}

// A text, a value written as JSON, or a file.
function written(name, schema, needed, hint) {
  const isText = schema.type === "string";
  const mayBeText = isText || schema.either;
  const control = h("textarea", { rows: 4, spellcheck: "false", required: needed, placeholder: hint });
  let file = null;
  const chosen = h("span", { class: "quiet" });
  const forget = h("button", { type: "button", hidden: true, onclick: () => take(null) }, "Take the text instead");
  const take = (one) => {
    file = one;
    control.disabled = Boolean(one);
    forget.hidden = !one;
    fill(chosen, one ? [h("code", {}, one.name), ` ${bytes(one.size)}`] : "");
  };
  const pick = h("input", { type: "file", "aria-label": `A file for ${name}`, onchange: () => { const [one] = pick.files; pick.value = ""; if (one) one.size > FILE_MOST ? fill(chosen, `${one.name} is larger than ${bytes(FILE_MOST)}: upload it with POST /files.`) : take(one); } });
  const zone = h("div", { class: "drop", ondragover: (event) => { event.preventDefault(); zone.classList.add("over"); }, ondragleave: () => zone.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); zone.classList.remove("over"); const [one] = event.dataTransfer.files; if (one) take(one); } }, h("label", {}, "or a file: choose it, or drop it here", pick), " ", chosen, " ", forget);
  const read = async () => {
    if (file) return { base64: await base64(file) };
    const text = control.value;
    if (isText) return text || undefined;
    if (!text.trim()) return undefined;
    if (mayBeText && !/^\s*[[{]/.test(text)) return text;
    return readJson(text, name);
  };
  const write = (now) => {
    take(null);
    control.value = now === undefined || now === null ? "" : mayBeText && typeof now === "string" ? now : pretty(now);
    control.rows = Math.min(12, Math.max(3, control.value.split("\n").length));
    if (isText && control.value.length < SHORT) control.rows = 3;
  };
  return { control, read, write, after: schema.files ? zone : mayBeText ? null : h("p", { class: "hint" }, "As JSON.") };
}
