// Status: what the store holds, what still waits, live, and what could not be used.

import { h, fill, words, number, moment } from "../dom.js";
import { facts } from "../parts.js";

export const title = "Status";

export async function render(root, params, ctx) {
  const numbers = h("dl", { class: "big" });
  const work = h("div", { class: "stack" });
  const wrong = h("div", { class: "stack" });
  const store = h("div");
  const live = h("span", { class: "small soft", role: "status" }, "connecting…");
  fill(root, h("div", { class: "page stack loose" }, h("div", { class: "head" }, h("h1", {}, "Status"), live), numbers, h("section", { class: "stack" }, h("h2", {}, "Indexing"), work), h("section", { class: "stack" }, h("h2", {}, "Degraded"), wrong), h("section", { class: "stack" }, h("h2", {}, "Store"), store)));
  const most = {};

  function draw(status) {
    const told = [["Memories", status.memories], ["Versions", status.versions], ["Events", status.head?.seq], ["In quarantine", status.quarantined], ["Users", status.partitions]];
    fill(numbers, told.filter(([, n]) => n !== undefined && n !== null).map(([name, n]) => h("div", {}, h("dt", {}, name), h("dd", { "data-count": name.toLowerCase() }, number(n)))));
    fill(
      work,
      Object.entries(status.backlog ?? {}).map(([task, { waiting, failed, error }]) => {
        most[task] = Math.max(most[task] ?? 0, waiting);
        return h("div", { class: "stack" }, h("div", { class: "row spread small" }, h("span", {}, { embed: "Vectors", enrich: "Names, dates and facts" }[task] ?? words(task)), h("span", { class: "soft num", "data-waiting": task }, waiting ? `${number(waiting)} wait` : "up to date")), waiting > 0 && h("progress", { max: most[task], value: most[task] - waiting, "aria-label": `${task}: ${waiting} wait` }), failed > 0 && h("p", { class: "small bad" }, `${number(failed)} failed: ${words(error ?? "")}`));
      }),
    );
    if (!status.backlog) fill(work, h("p", { class: "soft" }, "The queue is the whole store's, and only its owner sees it."));
    else if (!work.hasChildNodes()) fill(work, h("p", { class: "soft" }, "Nothing waits."));
    fill(wrong, (status.degraded ?? []).map((why) => h("p", { class: "notice warn" }, words(why))));
    if (!wrong.hasChildNodes()) fill(wrong, h("p", { class: "soft" }, "Nothing: everything that can be used is."));
    fill(store, facts([["Embedder", status.embedder === null ? "none: by words only" : status.embedder], ["Durability", status.durability], ["Journal’s head", status.head && h("span", { class: "mono" }, `${status.head.seq}:${status.head.hash}`)], ["Oldest", moment(status.first)], ["Newest", moment(status.last)], ["Place", status.path && words(status.path)], ["Version", status.version], ["Seen", moment(new Date().toISOString())]]));
  }

  const stop = ctx.api.watch({
    status: (status) => {
      live.textContent = "live";
      live.className = "small good";
      draw(status);
    },
    lost: (error) => {
      live.textContent = error ? words(error.message) : "the connection was lost; trying again";
      live.className = "small warn";
    },
  });
  draw(await ctx.api.status());
  return { keys: {}, leave: stop };
}
