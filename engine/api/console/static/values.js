// Shows a result: a table where it is one, else a tree.

import { Exact } from "./api.js";
import { chart } from "./chart.js";
import { h, fill } from "./dom.js";

const ROWS = 200;
const isPlain = (value) => value === null || typeof value !== "object" || value instanceof Exact;
const isTable = (value) => Array.isArray(value) && value.length > 0 && value.every((row) => !isPlain(row) && !Array.isArray(row) && Object.values(row).every(isPlain));
const shown = (value) => (typeof value === "string" ? value : value instanceof Exact ? value.text : JSON.stringify(value));

export function value(found) {
  if (typeof found === "string") return h("pre", { tabindex: 0 }, found);
  if (isPlain(found)) return h("pre", {}, shown(found));
  if (isTable(found)) return table(found);
  const inner = Array.isArray(found) ? [] : Object.entries(found).filter(([, one]) => isTable(one));
  return h("div", {}, inner.map(([name, rows]) => [h("h3", {}, name), table(rows)]), h("ul", { class: "tree" }, node(null, found, true)));
}

function node(name, found, open) {
  const label = name === null ? null : [h("span", { class: "name" }, name), ": "];
  if (isPlain(found)) return h("li", {}, label, typeof found === "string" ? JSON.stringify(found) : shown(found));
  const entries = Object.entries(found);
  const about = Array.isArray(found) ? `${entries.length} values` : `${entries.length} fields`;
  const list = h("ul");
  const details = h("details", { open: open && entries.length <= 50 }, h("summary", {}, label, about), list);
  let at = 0;
  const more = () => {
    const part = entries.slice(at, at + ROWS).map(([key, one]) => node(key, one, false));
    at += ROWS;
    list.append(...part);
    if (at < entries.length) {
      const button = h("button", { type: "button", onclick: () => { button.remove(); more(); } }, `${entries.length - at} more`);
      list.append(button);
    }
  };
  if (details.open) more();
  else details.addEventListener("toggle", more, { once: true });
  return h("li", {}, details);
}

export function table(rows) {
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  let order = rows, by = null, up = true, most = ROWS;
  const body = h("tbody");
  const more = h("p", { class: "hint" });
  const heads = names.map((name) => h("th", { scope: "col", class: rows.some((row) => typeof row[name] === "number") ? "number" : null }, h("button", { type: "button", onclick: () => sort(name) }, name || "(no name)")));
  const draw = () => {
    fill(body, order.slice(0, most).map((row) => h("tr", {}, names.map((name) => h("td", { class: typeof row[name] === "number" ? "number" : null }, name in row ? shown(row[name]) : "")))));
    fill(more, order.length > most ? [`${most} of ${order.length} rows. `, h("button", { type: "button", onclick: () => { most += 1000; draw(); } }, "Show more")] : `${order.length} ${order.length === 1 ? "row" : "rows"}`);
  };
  const sort = (name) => {
    up = by === name ? !up : true;
    by = name;
    order = [...rows].sort((one, other) => compare(one[name], other[name]) * (up ? 1 : -1));
    names.forEach((each, at) => (each === by ? heads[at].setAttribute("aria-sort", up ? "ascending" : "descending") : heads[at].removeAttribute("aria-sort")));
    draw();
  };
  draw();
  const csv = h("button", { type: "button", onclick: () => save("table.csv", toCsv(names, rows), "text/csv") }, "Save as CSV");
  return h("div", {}, h("div", { class: "wide tall", tabindex: 0, role: "region", "aria-label": "Table" }, h("table", { class: "rows" }, h("thead", {}, h("tr", {}, heads)), body)), h("div", { class: "row" }, csv, more), drawn(names, rows));
}

const CHARTED = 400, BARS = 30;
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

// A chart of a table's numbers, along one of its columns.
function drawn(names, rows) {
  const numbers = names.filter((name) => rows.some((row) => isNumber(row[name])) && rows.every((row) => row[name] === null || row[name] === undefined || isNumber(row[name])));
  if (!numbers.length || rows.length < 2) return null;
  const texts = names.filter((name) => !numbers.includes(name) && new Set(rows.map((row) => row[name])).size === rows.length);
  const along = h("select", { onchange: () => draw() }, h("option", { value: "" }, "the row's number"), names.map((name) => h("option", { value: name, selected: name === (texts[0] ?? (numbers.length > 1 ? numbers[0] : null)) }, name)));
  const shown_ = h("select", { onchange: () => draw() }, numbers.length > 1 ? h("option", { value: "" }, "all numbers") : null, numbers.map((name) => h("option", { value: name }, name)));
  const kind = h("select", { onchange: () => draw() }, ["bars", "lines"].map((one) => h("option", { selected: one === (rows.length <= BARS && (texts.length || numbers.length === 1) ? "bars" : "lines") }, one)));
  const place = h("div");
  const draw = () => {
    const part = rows.slice(0, CHARTED);
    const chosen = (shown_.value ? [shown_.value] : numbers.filter((name) => name !== along.value)).slice(0, 3);
    const labels = part.map((row, at) => (along.value ? (row[along.value] === null || row[along.value] === undefined ? "" : shown(row[along.value])) : String(at + 1)));
    fill(place, chart({ title: chosen.join(", "), labels: labels.map((one) => (one.length > 11 ? `${one.slice(0, 10)}…` : one)), names: labels, lines: kind.value === "lines", grouped: true,
      series: (chosen.length ? chosen : [numbers[0]]).map((name) => ({ name, values: part.map((row) => row[name] ?? null) })) }),
    rows.length > CHARTED ? h("p", { class: "hint" }, `The first ${CHARTED} rows.`) : null);
  };
  const details = h("details", { class: "more", ontoggle: () => { if (details.open) draw(); } }, h("summary", {}, "As a chart"), h("div", { class: "row" }, h("label", {}, "Show", shown_), h("label", {}, "along", along), h("label", {}, "as", kind)), place);
  return details;
}

function compare(one, other) {
  const [a, b] = [one, other].map((each) => (each instanceof Exact ? Number(each.text) : each));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a ?? "").localeCompare(String(b ?? ""));
}

// A cell that begins like a formula gets a quote before it: spreadsheets would run it (CWE-1236).
function toCsv(names, rows) {
  const cell = (each) => {
    const text = each === null || each === undefined ? "" : shown(each);
    const safe = typeof each === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\r\n");
}

export { toCsv };

export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// The lines of a traceback that name the script that was sent.
export function ownLines(text) {
  return [...text.matchAll(/^\s*File "script\.py", line (\d+)/gm)].map((found) => Number(found[1]));
}

// A traceback with the lines that are the script's own marked.
export function traceback(text) {
  const lines = text.trimEnd().split("\n");
  const isFile = (line) => /^\s*File "/.test(line);
  const isOwn = (line) => /^\s*File "(?!\/(?!scripts\/)|<frozen)[^"]*"/.test(line) || /^\s*File "[^"]*\/inputs\/[^"]*"/.test(line);
  let own = false;
  const node = h("pre", { class: "traceback", tabindex: 0 });
  for (const line of lines) {
    own = isFile(line) ? isOwn(line) : own && /^ {4}/.test(line);
    node.append(h(own ? "mark" : "span", { class: "line" }, line || " "));
  }
  return node;
}
