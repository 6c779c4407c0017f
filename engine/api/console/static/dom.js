// Builds the page. Whatever comes from a task becomes text: there is no way here from a string to HTML.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

export function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(visible(String(child))));
  }
}

export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

// Characters that turn the direction of a line or are not seen are shown as their code, so that no text looks like another.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;
export function visible(text) {
  return text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function say(text) {
  document.getElementById("said").textContent = text;
}

export async function copy(text, where) {
  try {
    await navigator.clipboard.writeText(text);
    say("copied");
    return true;
  } catch {
    if (where) getSelection().selectAllChildren(where);  // a page without HTTPS may not: select it, so that the keyboard can
    say("selected: press Ctrl+C");
    return false;
  }
}

const icon = () => svg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, svg("rect", { x: 1.5, y: 4.5, width: 8, height: 10, rx: 1.5 }), svg("path", { d: "M6 4.5v-2a1 1 0 0 1 1-1h6a1 1 0 0 1 1 1v8a1 1 0 0 1-1 1h-3" }));

// A text, or a link, and a button that copies the whole of it.
export function copyable(text, shown = text, href = null) {
  const code = href ? h("a", { class: "mono", href, title: text }, shown) : h("code", { title: text }, shown);
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy ${text}`, title: `Copy ${text}` }, icon());
  button.addEventListener("click", async () => {
    fill(button, (await copy(text, code)) ? "copied" : "Ctrl+C");
    setTimeout(() => fill(button, icon()), 1500);
  });
  return h("span", { class: "copyable" }, code, button);
}

// A block of text with a button that copies it.
export function block(text) {
  const pre = h("pre", { tabindex: 0 }, text);
  const button = h("button", { type: "button", class: "corner" }, "Copy");
  button.addEventListener("click", async () => {
    fill(button, (await copy(text, pre)) ? "Copied" : "Press Ctrl+C");
    setTimeout(() => fill(button, "Copy"), 1500);
  });
  return h("div", { class: "block" }, pre, button);
}

// A sentence of our own in which `code` stands between backticks.
export const prose = (text) => text.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

// JSON for people: what fits a line stands on one.
export function pretty(value, indent = "") {
  const flat = JSON.stringify(value);
  if (flat === undefined || flat.length + indent.length <= 76 || value === null || typeof value !== "object") return flat;
  const inner = `${indent}  `;
  if (Array.isArray(value)) return `[\n${value.map((one) => inner + pretty(one, inner)).join(",\n")}\n${indent}]`;
  if (value.toJSON || JSON.isRawJSON?.(value)) return flat;
  return `{\n${Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${pretty(one, inner)}`).join(",\n")}\n${indent}}`;
}

export const digest = (text) => (text ? copyable(text, `${text.slice(0, text.startsWith("sha256:") ? 19 : 12)}…`) : null);

export function time(text) {
  if (!text) return "";
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const shown = today ? at.toLocaleTimeString() : at.toLocaleString();
  return h("time", { datetime: text, title: `${text} (UTC)` }, shown);
}

export function seconds(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const pair = (big, small, one, other) => `${big} ${one}${small ? ` ${small} ${other}` : ""}`;
  if (value < 3600) return pair(Math.floor(value / 60), Math.floor(value % 60), "min", "s");
  return pair(Math.floor(value / 3600), Math.floor((value % 3600) / 60), "h", "min");
}

export function took(task) {
  if (!task.started_at) return "";
  return seconds(Math.max(0, ((task.finished_at ? new Date(task.finished_at) : new Date()) - new Date(task.started_at)) / 1000));
}

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  if (count < 1 << 20) return `${(count / 1024).toFixed(1)} KiB`;
  return count < 1 << 30 ? `${(count / (1 << 20)).toFixed(1)} MiB` : `${(count / (1 << 30)).toFixed(1)} GiB`;
}

export function state(word) {
  return h("span", { class: `state ${/^[a-z]+$/.test(word) ? word : ""}` }, word);
}

export function facts(pairs) {
  const found = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return found.length ? h("dl", { class: "facts" }, found.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])) : null;
}

export function fault(error) {
  const list = error.errors?.length ? h("ul", {}, error.errors.map((one) => h("li", {}, h("code", {}, one.path), " ", prose(one.message)))) : null;
  return h("div", { class: "fault", role: "alert" }, h("strong", {}, error.title ?? "That did not work"), list ?? h("p", {}, prose(error.message ?? "")));
}

// A view that the key does not open: what is missing, and what to do.
export function locked(who, scope, what) {
  return h("div", { class: "fault" }, h("strong", {}, `This needs the scope ${scope}`), h("p", {}, `The key ${who.key_id} does not have it, so ${what}. Sign in with another key, or ask the operator for one.`));
}

export const loading = () => h("div", { class: "skeleton", role: "status", "aria-label": "Loading" }, h("span"), h("span"), h("span"));

export const section = (title, ...children) => h("section", { class: "panel" }, h("h2", {}, title), children);

// A table that becomes a list of cards where there is no room; a column is [head, cells of a row → content, class].
export function listing(columns, rows, label) {
  return h("div", { class: "wide", tabindex: 0, role: "region", "aria-label": label }, h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, columns.map(([head, , kind]) => h("th", { scope: "col", class: kind ?? null }, head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, columns.map(([head, cell, kind]) => {
      const content = cell(row);
      const none = content === null || content === undefined || content === "" || (Array.isArray(content) && !content.length);
      return none ? h("td") : h("td", { "data-name": head, class: kind ?? null }, h("span", {}, content));
    }))))));
}

// Calls a function now and every so often, until the view is left; not while nobody sees the page.
export async function every(ms, leaving, look) {
  const again = async () => {
    if (leaving.aborted) return;
    const goes_on = document.hidden ? true : await look();
    if (goes_on === false || leaving.aborted) return;
    const next = setTimeout(again, ms);
    leaving.addEventListener("abort", () => clearTimeout(next), { once: true });
  };
  await again();
}
