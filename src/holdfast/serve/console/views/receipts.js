// Receipts and audit: what was forgotten, and every change in the order in which it was written.

import { h, fill, words, oneLine, moment, number, count } from "../dom.js";
import { choice, attempt, download, steps, toast, empty } from "../parts.js";

export const title = "Receipts";

export async function render(root, params, ctx) {
  const list = h("tbody");
  const more = h("button", { type: "button", class: "button", click: () => attempt(load) }, "Older");
  const told = h("div");
  const only = params.get("action") ?? "";
  let before = null;
  const filter = choice("Action", ["add", "update", "delete", "undo", "purge", "feedback", "reward"], only, "every action", (action) => ctx.go("receipts", { action }));
  const chain = h("button", { type: "button", class: "button", click: verify }, "Check the chain");
  const checked = h("span", { class: "small", role: "status" });
  const kept = h("div", { class: "receipts" });
  const earlier = h("button", { type: "button", class: "button", hidden: true, click: () => attempt(receipts) }, "Earlier receipts");
  let first = null;
  fill(
    root,
    h(
      "div",
      { class: "page wide stack loose" },
      h("h1", {}, "Receipts and audit"),
      h("section", { class: "stack", "aria-label": "Receipts" }, h("h2", {}, "What was forgotten"), kept, h("div", { class: "row" }, earlier)),
      h("section", { "aria-label": "Audit" }, h("div", { class: "head tight" }, h("h2", {}, "The journal"), h("div", { class: "row wrap" }, checked, chain, filter)), h("div", { class: "scroll" }, h("table", { class: "audit" }, h("thead", {}, h("tr", {}, h("th", { class: "n" }, "Event"), h("th", {}, "When (UTC)"), h("th", {}, "Action"), h("th", {}, "Who"), h("th", {}, "Memory"), h("th", {}, "Reason"))), list)), told, h("div", { class: "row foot-row" }, more)),
    ),
  );

  async function verify() {
    chain.disabled = true;
    checked.className = "small soft";
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

  const who = (actor) => oneLine((actor || "").replace(/(\/-)+$/, ""), 40);

  async function receipts() {
    const page = await ctx.api.receipts({ before: first, limit: 10 });
    first = page.next;
    earlier.hidden = first === null;
    kept.append(...page.receipts.map(receipt));
    if (!kept.hasChildNodes()) fill(kept, h("p", { class: "soft" }, "Nothing was forgotten here. What is forgotten leaves a receipt: when, by whom and why, and never a word of it."));
  }

  /** A receipt as the journal keeps it; opened, all its ids, and a look for what may be left of them. */
  function receipt(one) {
    const body = h("div", { class: "body stack" });
    const box = h(
      "details",
      { class: "claim receipt", "data-receipt": one.seq, toggle: () => box.open && !body.hasChildNodes() && open() },
      h("summary", {}, h("time", { class: "small soft", datetime: one.at }, moment(one.at).replace(" UTC", "")), h("span", {}, `${count(one.count, "memory", "memories")}${one.followed ? `, ${number(one.followed)} derived` : ""}`, one.reason && h("span", { class: "soft" }, ` · ${oneLine(one.reason, 160)}`)), h("span", { class: "small soft who" }, who(one.by)), h("span", { class: "small faint num n" }, `event ${number(one.seq)}`)),
      body,
    );
    const open = () =>
      attempt(async () => {
        fill(body, h("p", { class: "small soft" }, "Looking for what may be left…"));
        try {
          const whole = await ctx.api.receipt(one.seq);
          fill(body, inside(whole));
        } catch (error) {
          fill(body, h("p", { class: "bad" }, words(error.message)), h("button", { type: "button", class: "button", click: open }, "Try again"));
        }
      });
    const inside = (whole) => {
      const derived = new Set(whole.derived);
      return [
        h("p", { class: whole.left.length ? "bad" : "good", role: "status" }, whole.left.length ? "Not everything is as it should be:" : `Looked at ${moment(whole.checked_at)}: nothing of it is left, and its events are as they were written.`),
        whole.left.map((line) => h("p", { class: "small bad" }, words(line))),
        h("ul", { class: "mono faint ids" }, whole.erased.slice(0, 200).map((id) => h("li", {}, id, derived.has(id) && h("span", { class: "tag" }, "derived"))), whole.erased.length > 200 && h("li", {}, `and ${number(whole.erased.length - 200)} more; they are in the file`)),
        h("div", { class: "row" }, h("button", { type: "button", class: "button", click: open }, "Look again"), h("button", { type: "button", class: "button plain", click: () => download(whole, `receipt-${whole.seq}.json`) }, "Save JSON")),
      ];
    };
    return box;
  }

  async function load() {
    more.disabled = true;
    try {
      // Who may see little of a long journal gets short pages, and goes on.
      const page = await ctx.api.audit({ before, action: only || null, limit: 100 });
      before = page.next;
      more.hidden = before === null;
      list.append(...page.events.map(row));
    } finally {
      more.disabled = false;
    }
    if (!list.hasChildNodes()) fill(told, before === null ? empty("No events", only ? `Nothing of this kind has happened here: ${only}.` : "Nothing has happened here yet.") : h("p", { class: "soft" }, "Nothing that you may see among the newest; look at older ones."));
    else fill(told);
  }

  const row = (event) =>
    h(
      "tr",
      { "data-seq": event.seq },
      h("td", { class: "n small" }, number(event.seq)),
      h("td", {}, h("time", { datetime: event.at, class: "small soft" }, moment(event.at).replace(" UTC", ""))),
      h("td", {}, h("span", { class: event.action === "purge" ? "tag bad" : "tag" }, event.action)),
      h("td", { class: "small soft" }, who(event.actor)),
      h("td", { class: "mono" }, event.action === "purge" ? h("span", { class: "faint" }, event.id.slice(-8)) : h("a", { href: ctx.link("memory", { id: event.id }), title: event.id }, event.id.slice(-8)), h("span", { class: "faint" }, ` v${event.version}`)),
      h("td", { class: "small soft" }, oneLine(event.reason || "", 120)),
    );

  await Promise.all([load(), receipts()]);
  return { keys: steps(root, "summary, tbody a") };
}
