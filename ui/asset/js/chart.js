// Draws the charts. The table behind each one is its data; without script the
// shape that the server drew and the table remain.
import uPlot from "uplot";
import { chosenZone, write } from "./time.js";

/** @type {Map<string, uPlot>} */
const plots = new Map();
const sync = uPlot.sync("time");

/**
 * @param {number} v
 * @param {string} format
 */
export function axisValue(v, format) {
  if (v === 0) return "0";
  if (format === "seconds") return v < 1e-3 ? `${+(v * 1e6).toPrecision(3)} µs` : v < 1 ? `${+(v * 1e3).toPrecision(3)} ms` : `${+v.toPrecision(3)} s`;
  const units = ["", "k", "M", "G", "T"];
  let i = 0;
  while (Math.abs(v) >= 1000 && i < units.length - 1) {
    v /= 1000;
    i++;
  }
  return `${+v.toPrecision(3)}${i > 0 ? " " : ""}${units[i]}${format === "bytes" ? (i > 0 ? "B" : " B") : ""}`;
}

/**
 * @param {ParentNode} table
 * @returns {{times: number[], names: string[], classes: string[], values: (number | null)[][]}}
 */
export function readTable(table) {
  const heads = [...table.querySelectorAll("thead th[data-series]")];
  const names = heads.map((h) => h.textContent ?? "");
  const classes = heads.map((h) => /** @type {HTMLElement} */ (h).dataset.series ?? "s1");
  /** @type {number[]} */
  const times = [];
  /** @type {(number | null)[][]} */
  const values = names.map(() => []);
  for (const row of table.querySelectorAll("tbody tr")) {
    times.push(Number(/** @type {HTMLElement} */ (row).dataset.at));
    row.querySelectorAll("td").forEach((cell, i) => values[i]?.push(cell.textContent === "" ? null : Number(cell.textContent)));
  }
  return { times, names, classes, values };
}

/** @param {string} name */
const token = (name) => {
  // Computed custom properties keep light-dark(); a probe resolves it.
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
};
/**
 * What happened meanwhile, as dashed lines with their names where there is room.
 * @param {uPlot} u
 * @param {{at: number, label: string}[]} marks
 * @param {string} color
 */
function drawMarks(u, marks, color) {
  const { ctx } = u;
  const { left, top, width, height } = u.bbox;
  const scale = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = color;
  ctx.fillStyle = color;
  ctx.lineWidth = scale;
  ctx.font = `${11 * scale}px ${getComputedStyle(document.body).fontFamily}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  let free = left; // where the next name may begin
  for (const m of marks) {
    const x = Math.round(u.valToPos(m.at, "x", true));
    if (x < left || x > left + width) continue;
    ctx.setLineDash([3 * scale, 3 * scale]);
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + height);
    ctx.stroke();
    const wide = ctx.measureText(m.label).width;
    const right = x + 4 * scale;
    const begin = right + wide <= left + width ? right : x - 4 * scale - wide;
    if (begin >= free) {
      ctx.fillText(m.label, begin, top + 9 * scale);
      free = begin + wide + 8 * scale;
    }
  }
  ctx.restore();
}

/** @param {ParentNode} figure */
export function readMarks(figure) {
  return [...figure.querySelectorAll(".marks [data-at]")].map((li) => {
    const { at, label } = /** @type {HTMLElement} */ (li).dataset;
    return { at: Number(at), label: label ?? "" };
  });
}

/** @type {Record<string, string>} */
const colors = { s1: "--s1", s2: "--s2", s3: "--s3", s4: "--s4", sbad: "--stop-fg" };
/** @type {Record<string, number[]>} */
const dashes = { s2: [5, 4], s4: [2, 3] };

/** @param {ParentNode} root */
export function enhanceCharts(root) {
  for (const [id, plot] of plots) {
    if (!plot.root.isConnected) {
      plot.destroy();
      plots.delete(id);
    }
  }
  for (const el of root.querySelectorAll("figure[data-chart]")) {
    const figure = /** @type {HTMLElement} */ (el);
    const place = /** @type {HTMLElement | null} */ (figure.querySelector(".plot"));
    const table = figure.querySelector("table");
    if (!place || !table) continue;
    const { times, names, classes, values } = readTable(table);
    const data = /** @type {uPlot.AlignedData} */ ([times, ...values]);
    const old = plots.get(place.id);
    if (old) {
      old.setData(data);
      continue;
    }
    const format = figure.dataset.chart ?? "number";
    const fill = "fill" in figure.dataset;
    const bars = "bars" in figure.dataset;
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    tip.setAttribute("aria-hidden", "true");
    const axis = { stroke: token("--ink-3"), grid: { stroke: token("--grid"), width: 1 }, ticks: { show: false }, font: `11px ${getComputedStyle(document.body).fontFamily}` };
    const plot = new uPlot(
      {
        width: place.clientWidth,
        height: place.clientHeight,
        padding: [8, 12, 0, 0],
        legend: { show: false },
        tzDate: (ts) => (chosenZone ? uPlot.tzDate(new Date(ts * 1000), chosenZone) : new Date(ts * 1000)),
        cursor: { y: false, points: { size: 6 }, sync: { key: sync.key }, drag: { x: false, y: false } },
        scales: { y: { range: (_u, _min, max) => [0, max > 0 ? max * (readMarks(figure).length > 0 ? 1.25 : 1.1) : 1] } },
        axes: [
          { ...axis, grid: { show: false }, space: 70, values: "{HH}:{mm}", size: 24, incrs: [60, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400] },
          { ...axis, size: 48, space: 34, values: (_u, splits) => splits.map((v) => axisValue(v, format)) },
        ],
        series: [
          {},
          ...names.map((label, i) => {
            const stroke = token(colors[classes[i]] ?? "--s1");
            return {
              label,
              stroke,
              width: bars ? 0 : 1.6,
              dash: dashes[classes[i]],
              spanGaps: false,
              fill: bars ? stroke : fill && i === 0 ? stroke.replace("rgb(", "rgba(").replace(")", ", 0.12)") : undefined,
              paths: bars ? uPlot.paths.bars?.({ size: [0.7, 24], align: 1 }) : undefined,
              points: { show: false },
            };
          }),
        ],
        hooks: {
          draw: [(u) => drawMarks(u, readMarks(figure), token("--ink-3"))],
          setCursor: [
            (u) => {
              const at = u.cursor.idx;
              if (at == null || u.cursor.left == null || u.cursor.left < 0) {
                tip.hidden = true;
                return;
              }
              const t = new Date(u.data[0][at] * 1000);
              const lines = names.map((n, i) => `${n} ${u.data[i + 1][at] == null ? "no data" : axisValue(/** @type {number} */ (u.data[i + 1][at]), format)}`);
              tip.textContent = `${write(t, "second", t)}  ${lines.join(" · ")}`;
              tip.hidden = false;
              const left = u.cursor.left + 60;
              tip.style.left = `${Math.min(left, place.clientWidth - tip.offsetWidth - 4)}px`;
              tip.style.top = "2px";
            },
          ],
        },
      },
      data,
      place,
    );
    place.querySelector("svg.still")?.setAttribute("hidden", "");
    place.append(tip);
    sync.sub(plot);
    plots.set(place.id, plot);
    new ResizeObserver(() => {
      if (place.clientWidth > 0) plot.setSize({ width: place.clientWidth, height: place.clientHeight });
    }).observe(place);
  }
}
