// A lineage as a drawing: what a memory was made of on the left, what was made of it on the right, by form.

import { h, oneLine, count } from "./dom.js";

const [WIDE, HIGH, ACROSS, DOWN] = [176, 44, 52, 14];
const MOST = 8;

/** `up`, `down`: memories with their distance. `link`: where a node leads. */
export function graph(cube, up, down, link) {
  const columns = new Map([[0, [{ cube, here: true }]]]);
  for (const [list, sign] of [[up, -1], [down, 1]]) {
    for (const node of list) {
      const place = sign * Math.max(1, Math.min(4, node.distance ?? 1));
      if (!columns.has(place)) columns.set(place, []);
      columns.get(place).push(node);
    }
  }
  const order = [...columns.keys()].sort((a, b) => a - b);
  const tallest = Math.max(...order.map((place) => Math.min(columns.get(place).length, MOST + 1)));
  const height = tallest * (HIGH + DOWN) - DOWN + 4;
  const width = order.length * (WIDE + ACROSS) - ACROSS + 4;
  const spots = new Map();
  const nodes = [];
  order.forEach((place, column) => {
    const all = columns.get(place);
    const some = all.length > MOST + 1 ? all.slice(0, MOST) : all;
    const rows = some.length + (some.length < all.length ? 1 : 0);
    const top = (height - (rows * (HIGH + DOWN) - DOWN)) / 2;
    some.forEach((node, row) => {
      const spot = { x: 2 + column * (WIDE + ACROSS), y: top + row * (HIGH + DOWN), node, place };
      spots.set(node.cube.id, spot);
      nodes.push(spot);
    });
    if (some.length < all.length) {
      nodes.push({ x: 2 + column * (WIDE + ACROSS), y: top + some.length * (HIGH + DOWN), more: all.length - some.length, place });
    }
  });
  const edges = [];
  for (const child of spots.values()) {
    for (const [parent] of child.node.cube.origin.derived_from) {
      const from = spots.get(parent);
      if (!from) continue;
      const [x1, y1, x2, y2] = [from.x + WIDE, from.y + HIGH / 2, child.x, child.y + HIGH / 2];
      edges.push(h("path", { class: "edge", d: `M${x1} ${y1}C${x1 + ACROSS / 2} ${y1} ${x2 - ACROSS / 2} ${y2} ${x2} ${y2}` }));
    }
  }
  const drawn = nodes.map((spot) => {
    if (spot.more) return h("text", { class: "sub", x: spot.x + 10, y: spot.y + HIGH / 2 + 4, fill: "currentColor", "font-size": 12 }, `and ${count(spot.more, "more", "more")}`);
    const { cube: one, here } = spot.node;
    const gone = !["generated", "activated", "frozen"].includes(one.status);
    const box = h(
      "g",
      { class: `node ${one.form}${here ? " here" : ""}${gone ? " gone" : ""}`, transform: `translate(${spot.x} ${spot.y})` },
      h("title", {}, oneLine(one.text || one.form, 300)),
      h("rect", { width: WIDE, height: HIGH, rx: 6 }),
      h("text", { x: 10, y: 18 }, oneLine(one.text || `kept as ${one.form}`, 24)),
      h("text", { class: "sub", x: 10, y: 34 }, `${one.form} · ${one.kind}${gone ? ` · ${one.status}` : ""}`),
    );
    if (here) return box;
    const anchor = document.createElementNS("http://www.w3.org/2000/svg", "a"); // one in HTML is another element
    anchor.setAttribute("href", link(one.id));
    anchor.append(box);
    return anchor;
  });
  const told = `Lineage: made of ${count(up.length, "memory", "memories")}, ${count(down.length, "memory", "memories")} made of it`;
  const svg = h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": told }, edges, drawn);
  return h("div", { class: "graph", tabindex: 0, role: "group", "aria-label": "Lineage" }, svg);
}
