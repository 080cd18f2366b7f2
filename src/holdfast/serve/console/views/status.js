// Status: what is held, what arrives and what still waits, live, and what could not be used.

import { h, fill, words, number, moment, day, oneLine, count, fixed } from "../dom.js";
import { facts } from "../parts.js";

export const title = "Status";

const SECONDS = 60;
const TASKS = { embed: "Vectors", enrich: "Names, dates and facts" };

export async function render(root, params, ctx) {
  const numbers = h("dl", { class: "big" });
  const pace = h("p", { class: "soft num", "data-pace": true });
  const drawing = h("svg", { class: "pace", viewBox: `0 0 ${SECONDS * 10} 64`, preserveAspectRatio: "none", "aria-hidden": "true", hidden: true });
  const newest = h("ol", { class: "hits newest", "aria-label": "The newest memories" });
  const work = h("div", { class: "stack" });
  const wrong = h("div", { class: "stack" });
  const store = h("div");
  const live = h("span", { class: "small soft", role: "status" }, "connecting…");
  const part = (name, ...inside) => h("section", { class: "stack" }, h("h2", {}, name), inside);
  fill(root, h("div", { class: "page stack loose" }, h("div", { class: "head" }, h("h1", {}, "Status"), live), numbers, part("Arriving", pace, drawing, newest), part("Indexing", work), part("Degraded", wrong), part("Store", store)));
  const most = {};
  const speeds = {};
  let came = []; // when how many memories were held, one a second at most
  let status = null;

  function draw() {
    const waits = Object.entries(status.owed ?? {}).filter(([task]) => task !== "embed" || status.embedder !== null).map(([, n]) => n);
    const told = [["Memories", status.memories], ["In quarantine", status.quarantined], ["Not yet indexed", status.owed && Math.max(0, ...waits)]];
    fill(numbers, told.filter(([, n]) => n !== undefined && n !== null).map(([name, n]) => h("div", {}, h("dt", {}, name), h("dd", { "data-count": name.toLowerCase() }, number(n)))));
    const rows = status.newest ?? [];
    fill(newest, rows.map((one) => h("li", { "data-id": one.id }, h("a", { class: "line", href: ctx.link("memory", { id: one.id }) }, h("span", { class: "when" }, since(one.recorded_at)), h("span", { class: "what" }, one.kind), h("span", { class: "text" }, one.text ? oneLine(one.text, 200) : `kept as ${one.form}`)))));
    if (!rows.length) fill(newest, h("li", { class: "soft" }, "Nothing is held here yet. What a program adds shows up as it comes."));
    fill(work, owed().map(([task, { waiting, failed = 0, error }]) => queue(task, waiting, failed, error)));
    if (!status.backlog && !status.owed) fill(work, h("p", { class: "soft" }, "What waits is told to whoever may read all of this user's memories."));
    else if (!work.hasChildNodes()) fill(work, h("p", { class: "soft" }, "Nothing waits."));
    fill(wrong, (status.degraded ?? []).map((why) => h("p", { class: "notice warn" }, words(why))));
    if (!wrong.hasChildNodes()) fill(wrong, h("p", { class: "soft" }, "Nothing: everything that can be used is."));
    fill(store, facts([["Events in the journal", status.events && number(status.events)], ["Versions, of all users", status.versions && number(status.versions)], ["Users", status.partitions && number(status.partitions)], ["Forgotten for good", status.purged && number(status.purged)], ["Embedder", status.embedder === null ? "none: by words only" : status.embedder], ["Durability", status.durability], ["Journal’s head", status.head && h("span", { class: "mono" }, `${status.head.seq}:${status.head.hash}`)], ["Oldest", moment(status.first)], ["Newest", moment(status.last)], ["Place", status.path && words(status.path)]]));
  }

  /** The owner's queue is the whole store's, with what went wrong; anybody else's that of this user. */
  const owed = () => Object.entries(status.backlog ?? Object.fromEntries(Object.entries(status.owed ?? {}).map(([task, waiting]) => [task, { waiting }])));

  function queue(task, waiting, failed, error) {
    const name = TASKS[task] ?? words(task);
    most[task] = Math.max(most[task] ?? 0, waiting);
    const speed = speeds[task];
    const left = speed > 0 && waiting > 0 ? ` · ${fixed(speed, speed < 10 ? 1 : 0)} a second, ${lasting(waiting / speed)} left` : "";
    return h(
      "div",
      { class: "stack" },
      h("div", { class: "row spread small" }, h("span", {}, name), h("span", { class: "soft num" }, h("span", { "data-waiting": task }, waiting ? `${number(waiting)} wait` : "up to date"), task === "embed" && waiting > 0 && status.embedder === null && " for an embedder", left)),
      waiting > 0 && h("progress", { max: most[task], value: most[task] - waiting, "aria-label": `${name}: ${number(waiting)} wait` }),
      failed > 0 && h("p", { class: "small bad" }, `${number(failed)} failed: ${words(error ?? "")}`),
    );
  }

  /** Once a second: how many came in each of the last sixty. */
  function tick() {
    if (!status) return;
    const now = performance.now();
    const waiting = Object.fromEntries(owed().map(([task, one]) => [task, one.waiting]));
    came.push({ now, held: status.memories, waiting });
    came = came.filter((one) => one.now > now - (SECONDS + 1) * 1000);
    const steps = came.slice(1).map((one, n) => Math.max(0, one.held - came[n].held));
    const all = steps.reduce((sum, n) => sum + n, 0);
    const peak = Math.max(...steps, 1);
    const lately = came.filter((one) => one.now > now - 6000);
    const [from, to] = [lately[0], lately.at(-1)];
    const over = (to.now - from.now) / 1000;
    const speed = over > 0 ? Math.max(0, to.held - from.held) / over : 0;
    for (const task of Object.keys(TASKS)) speeds[task] = over > 0 ? Math.max(0, ((from.waiting[task] ?? 0) - (to.waiting[task] ?? 0)) / over) : 0;
    pace.textContent = speed > 0 ? `${number(Math.max(1, Math.round(speed)))} a second; ${count(all, "memory", "memories")} in the last minute` : all ? `quiet now; ${count(all, "memory", "memories")} in the last minute` : "quiet: what is added shows up here as it comes";
    drawing.toggleAttribute("hidden", !all);
    fill(drawing, steps.map((n, place) => {
      const high = n ? Math.max(3, (60 * n) / peak) : 1;
      return h("rect", { class: n ? "came" : "", x: (SECONDS - steps.length + place) * 10 + 1, y: 64 - high, width: 8, height: high });
    }));
    draw();
  }

  const stop = ctx.live({
    status: (told) => {
      const first = status === null;
      status = told;
      live.textContent = "live";
      live.className = "small good";
      if (first) tick();
      else draw();
    },
    lost: () => {
      live.textContent = "not live: the connection was lost";
      live.className = "small warn";
    },
  });
  if (!status) {
    status = await ctx.api.status();
    tick();
  }
  const clock = setInterval(tick, 1000);
  return {
    keys: {},
    leave: () => {
      clearInterval(clock);
      stop();
    },
  };
}

/** The time of day of what came today, and the day of all else. */
const since = (iso) => (day(iso) === day(new Date().toISOString()) ? moment(iso).slice(11, 19) : day(iso));

/** So many seconds, in the largest unit that fits. */
function lasting(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}
