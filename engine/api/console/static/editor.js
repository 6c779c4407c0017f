// An editor for scripts: a plain text field, with colours below it. Keyboard, screen readers and undo are the browser's own.

import { h } from "./dom.js";

const COLOURED_MOST = 100_000;
const KEYWORDS = new Set("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return try while with yield case".split(" "));
const BUILTINS = new Set("abs all any args bool bytes dict dir divmod enumerate Exception filter float format frozenset getattr hasattr hash int isinstance iter len list map max min next object open ord pow print report_progress range repr result reversed round set setattr slice sorted str sum super tuple type zip ValueError TypeError KeyError RuntimeError".split(" "));
const PYTHON = /(#[^\n]*)|((?:[rbfu]|rb|br|fr|rf)?(?:"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)|"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?))|(@[\w.]+)|(\b(?:0[xob][\da-f_]+|\d[\d_]*(?:\.[\d_]*)?(?:e[+-]?\d+)?j?)\b)|([A-Za-z_]\w*)/gi;
const JSON_PARTS = /("(?:\\.|[^"\\\n])*"?)(\s*:)?|(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)|\b(true|false|null)\b/gi;

function* pythonParts(text) {
  let last = "";
  for (const found of text.matchAll(PYTHON)) {
    const [whole, comment, string, decorator, number] = found;
    let kind = comment ? "comment" : string ? "string" : decorator ? "decorator" : number ? "number" : null;
    if (!kind) kind = KEYWORDS.has(whole) ? "keyword" : last === "def" || last === "class" ? "defined" : BUILTINS.has(whole) && text[found.index - 1] !== "." ? "builtin" : null;
    if (!comment) last = whole;
    if (kind) yield [found.index, whole.length, kind];
  }
}

function* jsonParts(text) {
  for (const found of text.matchAll(JSON_PARTS)) yield [found.index, (found[1] ?? found[0]).length, found[1] ? (found[2] ? "defined" : "string") : found[3] ? "number" : "keyword"];
}

export function coloured(text, language) {
  const parts = [];
  let at = 0;
  if (text.length < COLOURED_MOST) {
    for (const [start, length, kind] of language === "json" ? jsonParts(text) : pythonParts(text)) {
      parts.push(text.slice(at, start), h("span", { class: `py-${kind}` }, text.slice(start, start + length)));
      at = start + length;
    }
  }
  parts.push(text.slice(at));
  return parts;
}

let made = 0;

export function editor(label, text, { language = "python", lines = 8, hint = null } = {}) {
  const id = `editor-${made += 1}`;
  const gutter = h("pre", { class: "gutter", "aria-hidden": "true" });
  const below = h("pre", { class: "colours", "aria-hidden": "true" });
  const area = h("textarea", { id, spellcheck: "false", autocomplete: "off", autocapitalize: "off", autocorrect: "off", wrap: "off", "aria-describedby": `${id}-hint` });
  const marked = new Set();
  let escaped = false;
  const draw = () => {
    below.replaceChildren(...coloured(area.value, language), "\n");
    const count = Math.max(lines, area.value.split("\n").length);
    gutter.replaceChildren(...Array.from({ length: count }, (_, at) => h("span", { class: marked.has(at + 1) ? "bad" : null }, String(at + 1))));
  };
  const put = (start, end, text_) => { area.setSelectionRange(start, end); if (!document.execCommand("insertText", false, text_)) { area.setRangeText(text_, start, end, "end"); draw(); } };
  area.addEventListener("input", () => { marked.clear(); draw(); });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); area.form?.requestSubmit(); return; }
    if (event.key === "Escape") { escaped = true; return; }
    const { selectionStart: start, selectionEnd: end, value } = area;
    const from = value.lastIndexOf("\n", start - 1) + 1;
    if (event.key === "Tab" && !escaped) {
      event.preventDefault();
      const step = language === "json" ? "  " : "    ";
      if (event.shiftKey) { const spaces = /^ {1,4}/.exec(value.slice(from)); if (spaces) put(from, from + spaces[0].length, ""); }
      else put(start, end, step);
    } else if (event.key === "Enter" && language === "python" && !event.isComposing) {
      const indent = /^ */.exec(value.slice(from, start))[0] + (/:\s*(#.*)?$/.test(value.slice(from, start)) ? "    " : "");
      if (indent) { event.preventDefault(); put(start, end, `\n${indent}`); }
    }
    escaped = false;
  });
  area.value = text;
  draw();
  return {
    area,
    get value() { return area.value; },
    set value(found) { area.value = found; marked.clear(); draw(); },
    mark(line) { marked.add(line); draw(); },
    node: h("div", { class: "field" }, h("label", { for: id }, label), h("div", { class: "editor" }, gutter, below, area),
      h("p", { class: "hint", id: `${id}-hint` }, hint ?? "Ctrl+Enter runs it. Tab indents; Esc, then Tab leaves the field.")),
  };
}
