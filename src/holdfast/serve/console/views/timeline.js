// Timeline: everything that was known at one moment and true at another, newest first, as a list of any length.

import { h, fill, words, oneLine, day, count, say } from "../dom.js";
import { asOf, shown, empty } from "../parts.js";

const ROW = 40;
const PAGE = 200;
const SPARE = 12;

export const title = "Timeline";

export async function render(root, params, ctx) {
  let known = params.get("known");
  let truth = params.get("true");
  let kind = params.get("kind") ?? "";
  let rows = [];
  let total = 0;
  let next = null;
  let loading = false;
  let round = 0;
  let selected = -1;
  const range = await ctx.range();
  const canvas = h("div", { class: "canvas", role: "list", "aria-label": "Memories, newest first" });
  const view = h("div", { class: "viewport", tabindex: 0, role: "region", "aria-label": "Timeline" }, canvas);
  const told = h("p", { class: "num", "data-told": true });
  const kinds = h("select", { "aria-label": "Kind", change: () => ((kind = kinds.value), restart()) }, ["", "message", "fact", "event", "preference", "instruction", "profile", "summary", "experience", "document"].map((name) => h("option", { value: name, selected: name === kind }, name || "every kind")));
  fill(
    root,
    h(
      "div",
      { class: "page wide" },
      h("div", { class: "head" }, h("h1", {}, "Timeline"), told),
      h(
        "div",
        { class: "controls" },
        asOf({ id: "known", label: "Known on", range, at: known, changed: (iso) => ((known = iso), restart()) }),
        asOf({ id: "truth", label: "True on", range, at: truth, off: "then", changed: (iso) => ((truth = iso), restart()) }),
        kinds,
      ),
      view,
    ),
  );

  // A fixed pool of rows is moved over the list: the page holds as many as are seen, however many there are.
  const pool = new Map();
  const spare = [];
  let drawn = false;
  const draw = () => {
    drawn = false;
    const first = Math.max(0, Math.floor(view.scrollTop / ROW) - SPARE);
    const last = Math.min(total, Math.ceil((view.scrollTop + view.clientHeight) / ROW) + SPARE);
    for (const [index, line] of pool) {
      if (index < first || index >= last || (line.pending && rows[index])) {
        pool.delete(index);
        spare.push(line);
      }
    }
    for (let index = first; index < last; index++) {
      if (!pool.has(index)) {
        const line = spare.pop() ?? blank();
        put(line, index);
        pool.set(index, line);
        if (!line.isConnected) canvas.append(line);
      }
    }
    while (spare.length) spare.pop().remove();
    if (last > rows.length) fetchOn();
  };
  const plan = () => {
    if (!drawn) {
      drawn = true;
      requestAnimationFrame(draw);
    }
  };
  view.addEventListener("scroll", plan, { passive: true });
  window.addEventListener("resize", plan);

  function blank() {
    const line = h("a", { class: "line", role: "listitem" }, h("span", { class: "when" }), h("span", { class: "what" }), h("span", { class: "text" }), h("span", { class: "from" }));
    [line.when, line.what, line.text_, line.from] = line.children;
    return line;
  }

  function put(line, index) {
    const cube = rows[index];
    line.pending = !cube;
    line.style.transform = `translateY(${index * ROW}px)`;
    line.className = cube ? (cube.valid_to ? "line ended" : "line") : "line waiting";
    line.classList.toggle("sel", index === selected);
    line.setAttribute("aria-posinset", index + 1);
    line.setAttribute("aria-setsize", total);
    if (!cube) {
      for (const part of line.children) part.textContent = "";
      line.removeAttribute("href");
      return;
    }
    line.href = ctx.link("memory", { id: cube.id });
    line.when.textContent = day(cube.recorded_at);
    line.what.textContent = cube.form === "text" ? cube.kind : `${cube.kind}, ${cube.form}`;
    line.text_.textContent = cube.text ? oneLine(cube.text, 240) : shown(cube);
    line.from.textContent = words(cube.origin.author ?? cube.origin.reference ?? cube.origin.channel);
  }

  async function fetchOn() {
    if (loading || (rows.length && next === null)) return;
    loading = true;
    const turn = round;
    try {
      const page = await ctx.api.page({ known, truth, kinds: kind ? [kind] : [], limit: PAGE, cursor: next });
      if (turn !== round) return;
      rows.push(...page.memories);
      next = page.next;
      total = Math.max(page.total ?? 0, rows.length);
      if (next === null) total = rows.length;
      canvas.style.height = `${total * ROW}px`;
      fill(told, count(total, "memory", "memories"), known && ` known on ${day(known)}`, truth && `, true on ${day(truth)}`);
      if (!total) fill(canvas, empty("Nothing was known then", "Move the slider to a later time."));
      plan();
    } catch (error) {
      if (turn === round) fill(told, h("span", { class: "bad" }, words(error.message)));
      return;
    } finally {
      if (turn === round) loading = false;
    }
  }

  async function restart() {
    ctx.remember("timeline", { known, true: truth, kind });
    round++;
    loading = false;
    rows = [];
    next = null;
    total = 0;
    selected = -1;
    pool.clear();
    spare.length = 0;
    fill(canvas);
    view.scrollTop = 0;
    await fetchOn();
    say(told.textContent);
  }

  const move = (by) => {
    if (!rows.length) return;
    pool.get(selected)?.classList.remove("sel");
    selected = Math.max(0, Math.min(rows.length - 1, selected + by));
    const top = selected * ROW;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW - view.clientHeight;
    draw();
    const line = pool.get(selected);
    line?.classList.add("sel");
    line?.focus({ preventScroll: true });
  };
  await restart();
  return {
    keys: { j: () => move(1), k: () => move(-1), Enter: () => pool.get(selected)?.click() },
    leave: () => window.removeEventListener("resize", plan),
  };
}
