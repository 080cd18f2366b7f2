// Elements, and words for numbers and times. Every text becomes a text node: nothing here, and nothing that uses it, parses HTML.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = new Set(["svg", "path", "line", "circle", "rect", "g", "text", "title", "polyline"]);

/** An element. Attributes that are functions listen; `class`, `data-*`, `aria-*` and the rest are set as they are. */
export function h(tag, attributes = {}, ...children) {
  const svg = SHAPES.has(tag) && tag !== "title";
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "value" && "value" in made) made.value = value;
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  add(made, children);
  return made;
}

export function add(parent, children) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return parent;
}

export function fill(parent, ...children) {
  parent.replaceChildren();
  return add(parent, children);
}

// Letters that turn the direction of writing or are not seen: a memory must not look like something that it is not.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]|[\u{e0000}-\u{e007f}]/gu;

/** A memory's words, with what nobody sees made visible. */
export function words(text) {
  return String(text ?? "").replace(/\r\n?/g, "\n").replace(UNSEEN, "\ufffd");
}

export function oneLine(text, most = 400) {
  const flat = words(text).replace(/\s+/g, " ").trim();
  return flat.length > most ? `${flat.slice(0, most - 1)}…` : flat;
}

const numbers = new Intl.NumberFormat("en-GB");
export const count = (n, one, many = `${one}s`) => `${numbers.format(n)} ${n === 1 ? one : many}`;
export const number = (n) => numbers.format(n);
export const fixed = (n, digits = 2) => (Number.isFinite(n) ? n.toFixed(digits) : "");

/** 2026-01-31, of the UTC day. */
export const day = (iso) => (iso ? iso.slice(0, 10) : "");
/** 2026-01-31 12:00:05 UTC. */
export const moment = (iso) => (iso ? `${new Date(iso).toISOString().slice(0, 19).replace("T", " ")} UTC` : "");

/** Told to a screen reader. */
export function say(text) {
  const place = document.getElementById("said");
  place.textContent = "";
  setTimeout(() => (place.textContent = text), 30);
}
