// Small charts of our own, as SVG.

import { fill, h, svg } from "./dom.js";

const HEIGHT = 170, LEFT = 46, BOTTOM = 22, TOP = 10, RIGHT = 8, LABEL_PX = 66;
const KINDS = ["one", "two", "three"];

// A round number that is no less than the value.
function roof(value) {
  if (!(value > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((one) => one * step).find((one) => one >= value * 0.999);
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return String(+value.toPrecision(3));
}

// Draws a chart, again whenever its place gets another width.
// series: [{name, values (null for none), kind}], as lines, or bars on each other or (grouped) beside each other; labels: one of each place along the axis.
export function chart({ title, labels, series, lines = false, grouped = false, shown = short, names = labels }) {
  const place = h("div", { class: "chart" });
  const draw = () => fill(place, picture(Math.max(260, Math.min(place.clientWidth || 600, 1200))));
  const picture = (width) => {
    const sums = labels.map((_, at) => series.reduce((sum, one) => sum + Math.max(0, one.values[at] ?? 0), 0));
    const all = series.flatMap((one) => one.values).filter((one) => one !== null);
    const high = roof(Math.max(...(lines || grouped ? all : sums), 0)), low = Math.min(0, ...all) < 0 ? -roof(-Math.min(...all)) : 0;
    const x = (at) => LEFT + ((at + 0.5) / labels.length) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
    const step = (width - LEFT - RIGHT) / labels.length;
    const every = Math.ceil((LABEL_PX / step));
    const grid = [low, low + (high - low) / 2, high].map((value) => [svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value), class: "grid" }), svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, shown(value))]);
    const under = labels.map((label, at) => (at % every === Math.floor(every / 2) % every && x(at) + LABEL_PX / 2 <= width ? svg("text", { x: x(at), y: HEIGHT - 5, "text-anchor": "middle" }, label) : null));
    const told = (at) => svg("title", {}, `${names[at]}: ${series.map((one) => `${one.name} ${one.values[at] === null ? "none" : shown(one.values[at])}`).join(", ")}`);
    const marks = [];
    if (lines) {
      series.forEach((one, number) => {
        let path = "", drawn = false;
        one.values.forEach((value, at) => { if (value === null) { drawn = false; return; } path += `${drawn ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`; drawn = true; });
        marks.push(svg("path", { d: path, class: `line-${one.kind ?? KINDS[number]}` }));
        if (labels.length <= 200) one.values.forEach((value, at) => { if (value !== null) marks.push(svg("circle", { cx: x(at), cy: y(value), r: 2.5, class: `fill-${one.kind ?? KINDS[number]}` })); });
      });
    } else {
      labels.forEach((_, at) => {
        let base = 0;
        series.forEach((one, number) => {
          const value = one.values[at];
          if (!value) return;
          const [top, foot] = value > 0 ? [y(base + value), y(base)] : [y(0), y(value)];
          if (value > 0 && !grouped) base += value;
          const wide = (step * 0.84) / (grouped ? series.length : 1);
          marks.push(svg("rect", { x: x(at) - step * 0.42 + (grouped ? number * wide : 0), y: top, width: Math.max(1, wide), height: Math.max(0.5, foot - top), class: `fill-${one.kind ?? KINDS[number]}` }));
        });
      });
    }
    const touch = labels.map((_, at) => svg("rect", { x: x(at) - step / 2, y: TOP, width: step, height: HEIGHT - TOP - BOTTOM, class: "touch" }, told(at)));
    return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": `${title}: ${series.map((one) => `${one.name}, highest ${shown(Math.max(...one.values.map((value) => value ?? 0)))}`).join("; ")}` }, grid, under, marks, touch);
  };
  draw();
  let width = 0;
  new ResizeObserver(() => { if (place.clientWidth !== width) { width = place.clientWidth; requestAnimationFrame(draw); } }).observe(place);
  const legend = series.length > 1 || series[0].kind ? h("ul", { class: "legend" }, series.map((one, number) => h("li", {}, h("span", { class: `dot dot-${one.kind ?? KINDS[number]}`, "aria-hidden": "true" }), one.name))) : null;
  return h("figure", { class: "panel" }, h("figcaption", {}, h("strong", {}, title)), place, legend);
}
