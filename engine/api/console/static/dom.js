// Builds the page. Whatever comes from a task becomes text: there is no way here from a string to HTML.

export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

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

export function copyable(text, shown = text) {
  const button = h("button", { type: "button", class: "copy", "aria-label": `Copy ${text}`, title: `Copy ${text}` }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      // a page without HTTPS may not: select it instead, so that the keyboard can
      getSelection().selectAllChildren(code);
      button.textContent = "press Ctrl+C";
    }
    say(button.textContent);
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  const code = h("code", { title: text }, shown);
  return h("span", {}, code, button);
}

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
  if (value < 60) return `${value.toFixed(2)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

export function took(task) {
  if (!task.started_at) return "";
  return seconds(((task.finished_at ? new Date(task.finished_at) : new Date()) - new Date(task.started_at)) / 1000);
}

export function bytes(count) {
  if (count < 1024) return `${count} bytes`;
  return count < 1 << 20 ? `${(count / 1024).toFixed(1)} KiB` : `${(count / (1 << 20)).toFixed(1)} MiB`;
}

export function state(word) {
  return h("span", { class: `state ${/^[a-z]+$/.test(word) ? word : ""}` }, word);
}

export function facts(pairs) {
  const found = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, found.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

export function fault(error) {
  const list = error.errors?.length ? h("ul", {}, error.errors.map((one) => h("li", {}, h("code", {}, one.path), " ", one.message))) : null;
  return h("div", { class: "fault", role: "alert" }, h("strong", {}, error.title ?? "That did not work"), list ?? h("p", {}, error.message));
}
