// Timeline: everything that was known at one moment and true at another, newest first, as a list of any length.

import { h, fill, words, oneLine, day, count, number, say } from "../dom.js";
import { asOf, ofKind, shown, empty } from "../parts.js";

const ROW = 40;
const PAGE = 120;
const BLOCK = 10;

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
  let held = null; // how many there were when this list was begun
  let now = null;
  const range = await ctx.range();
  const canvas = h("div", { class: "canvas", role: "list", "aria-label": "Memories, newest first" });
  const view = h("div", { class: "viewport", tabindex: 0, role: "region", "aria-label": "Timeline" }, canvas);
  const told = h("p", { class: "num", "data-told": true });
  const news = h("button", { type: "button", class: "button", "data-news": true, hidden: true, click: () => restart() });
  const kinds = ofKind(kind, (name) => ((kind = name), restart()));
  fill(
    root,
    h(
      "div",
      { class: "page wide" },
      h("div", { class: "head" }, h("h1", {}, "Timeline"), h("div", { class: "row" }, news, told)),
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

  // Blocks of rows lie over the list where it is seen, and those that are left behind are used again. Between two blocks a scroll
  // changes nothing in the page, and the page holds as many rows as are seen, however many there are.
  const blocks = new Map();
  let drawn = false;
  const draw = () => {
    drawn = false;
    const first = Math.max(0, Math.floor(view.scrollTop / ROW / BLOCK) - 2);
    const last = Math.min(Math.ceil(total / BLOCK), Math.ceil((view.scrollTop + view.clientHeight) / ROW / BLOCK) + 2);
    const free = [];
    for (const [index, block] of blocks) {
      if (index < first || index >= last) {
        blocks.delete(index);
        free.push(block);
      }
    }
    for (let index = first; index < last; index++) {
      if (!blocks.has(index)) {
        const block = free.pop() ?? canvas.appendChild(h("div", { class: "block" }, Array.from({ length: BLOCK }, blank)));
        block.style.top = `${index * BLOCK * ROW}px`;
        blocks.set(index, block);
        put(block, index);
      } else if (blocks.get(index).pending) {
        put(blocks.get(index), index);
      }
    }
    for (const block of free) block.remove();
    if (last * BLOCK > rows.length) fetchOn();
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
    return h("a", { class: "line", role: "listitem" }, h("span", { class: "when" }), h("span", { class: "what" }), h("span", { class: "text" }), h("span", { class: "from" }));
  }

  const lineOf = (index) => blocks.get(Math.floor(index / BLOCK))?.children[index % BLOCK];

  function put(block, place) {
    block.pending = rows.length < Math.min(total, (place + 1) * BLOCK);
    Array.from(block.children).forEach((line, n) => write(line, place * BLOCK + n));
  }

  function write(line, index) {
    const cube = rows[index];
    const [when, what, text, from] = line.children;
    line.hidden = index >= total;
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
    when.textContent = day(cube.recorded_at);
    what.textContent = oneLine(cube.form === "text" ? cube.kind : `${cube.kind}, ${cube.form}`, 16);
    text.textContent = cube.text ? oneLine(cube.text, 200) : shown(cube);
    from.textContent = oneLine(cube.origin.author ?? cube.origin.reference ?? cube.origin.channel, 22);
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
      held ??= kind || truth || known ? now : total;
      if (next === null) total = rows.length;
      canvas.style.height = `${total * ROW}px`;
      fill(told, count(total, "memory", "memories"), known && ` known on ${day(known)}`, truth && `, true on ${day(truth)}`);
      if (!total) fill(canvas, known || truth ? empty("Nothing was known then", "Move the slider to a later time.") : empty(kind ? `Nothing of this kind: ${kind}` : "Nothing is held here yet", "What is added shows up here."));
      plan();
    } catch (error) {
      if (turn === round) fill(told, h("span", { class: "bad" }, words(error.message)));
    } finally {
      if (turn === round) loading = false;
    }
  }

  async function restart() {
    ctx.remember("timeline", { known, true: truth, kind });
    held = null;
    news.hidden = true;
    round++;
    loading = false;
    rows = [];
    next = null;
    total = 0;
    selected = -1;
    blocks.clear();
    fill(canvas);
    view.scrollTop = 0;
    await fetchOn();
    say(told.textContent);
  }

  const move = (by) => {
    if (!rows.length) return;
    lineOf(selected)?.classList.remove("sel");
    selected = Math.max(0, Math.min(rows.length - 1, selected + by));
    const top = selected * ROW;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + ROW > view.scrollTop + view.clientHeight) view.scrollTop = top + ROW - view.clientHeight;
    draw();
    const line = lineOf(selected);
    line?.classList.add("sel");
    line?.focus({ preventScroll: true });
  };
  await restart();
  const stop = ctx.live({
    status: ({ memories }) => {
      now = memories;
      news.hidden = known !== null || held === null || now <= held;
      news.textContent = kind || truth ? "Show what came since" : `Show ${number(now - held)} new`;
    },
  });
  return {
    keys: { j: () => move(1), k: () => move(-1), Enter: () => lineOf(selected)?.click() },
    leave: () => {
      stop();
      window.removeEventListener("resize", plan);
    },
  };
}
