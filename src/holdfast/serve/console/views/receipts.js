// Receipts and audit: what was forgotten, and every change in the order in which it was written.

import { h, fill, words, oneLine, moment, number, count } from "../dom.js";
import { choice, receipt, toast, empty } from "../parts.js";

export const title = "Receipts";

export async function render(root, params, ctx) {
  const list = h("tbody");
  const more = h("button", { type: "button", class: "button", click: () => load() }, "Older");
  const told = h("p", { class: "small soft" });
  const only = params.get("action") ?? "";
  let before = null;
  const filter = choice("Action", ["add", "update", "delete", "undo", "purge", "feedback"], only, "every action", (action) => ctx.go("receipts", { action }));
  const chain = h("button", { type: "button", class: "button", click: verify }, "Check the chain");
  const checked = h("span", { class: "small", role: "status" });
  fill(
    root,
    h(
      "div",
      { class: "page wide stack loose" },
      h("div", { class: "head" }, h("h1", {}, "Receipts and audit"), h("div", { class: "row wrap" }, chain, filter, checked)),
      ctx.receipts.length > 0 && h("section", { class: "stack", "aria-label": "Receipts" }, h("h2", {}, "Receipts of this session"), ctx.receipts.map(receipt)),
      h("section", {}, h("h2", { class: "unseen" }, "Audit"), h("div", { class: "scroll" }, h("table", { class: "audit" }, h("thead", {}, h("tr", {}, h("th", { class: "n" }, "Event"), h("th", {}, "When (UTC)"), h("th", {}, "Action"), h("th", {}, "Who"), h("th", {}, "Memory"), h("th", {}, "Reason"))), list)), told, h("div", { class: "row" }, more)),
    ),
  );

  async function verify() {
    chain.disabled = true;
    checked.textContent = "checking…";
    try {
      const problems = await ctx.api.verify();
      checked.className = problems.length ? "small bad" : "small good";
      checked.textContent = problems.length ? count(problems.length, "problem") : "every event and memory checks";
      problems.slice(0, 3).forEach((one) => toast(oneLine(typeof one === "string" ? one : JSON.stringify(one), 200)));
    } catch (error) {
      checked.className = "small bad";
      checked.textContent = words(error.message);
    } finally {
      chain.disabled = false;
    }
  }

  async function load() {
    const page = await ctx.api.audit({ before, action: only || null, limit: 100 });
    before = page.next;
    more.hidden = before === null;
    list.append(
      ...page.events.map((event) =>
        h(
          "tr",
          { "data-seq": event.seq },
          h("td", { class: "n small" }, number(event.seq)),
          h("td", {}, h("time", { datetime: event.at, class: "small soft" }, moment(event.at).replace(" UTC", ""))),
          h("td", {}, h("span", { class: event.action === "purge" ? "tag bad" : "tag" }, event.action)),
          h("td", { class: "small soft" }, oneLine((event.actor || "").replace(/(\/-)+$/, ""), 40)),
          h("td", { class: "mono" }, event.action === "purge" ? h("span", { class: "faint" }, event.id.slice(-8)) : h("a", { href: ctx.link("memory", { id: event.id }) }, event.id.slice(-8)), h("span", { class: "faint" }, ` v${event.version}`)),
          h("td", { class: "small soft" }, oneLine(event.reason || "", 120)),
        ),
      ),
    );
    if (!list.hasChildNodes()) fill(told, empty("No events", "Nothing has happened here yet."));
  }
  await load();
  return { keys: {} };
}
