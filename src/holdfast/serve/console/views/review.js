// Review: what waits in quarantine, why it waits, and a decision by one key.

import { h, fill, words, oneLine, moment, count, number, say } from "../dom.js";
import { attempt, confirm, facts, meta, shown, toast, empty } from "../parts.js";

export const title = "Review";

const PAGE = 100;

export async function render(root, params, ctx) {
  let waiting = [];
  let total = 0;
  let next = null;
  let place = 0;
  let loading = null;
  const list = h("ol", { class: "queue", "aria-label": "What waits" });
  const desk = h("aside", { "aria-live": "off" });
  const told = h("p", { class: "num", "data-told": true });
  const news = h("button", { type: "button", class: "button", hidden: true, click: () => attempt(begin) });
  const both = h("div", { class: "desk" });
  fill(root, h("div", { class: "page wide" }, h("div", { class: "head" }, h("h1", {}, "Review"), h("div", { class: "row" }, news, told)), both));

  const current = () => waiting[place];

  async function begin() {
    waiting = [];
    next = null;
    place = 0;
    fill(list);
    await more();
    draw();
  }

  /** The next page; one at a time. */
  function more() {
    loading ??= (async () => {
      try {
        const page = await ctx.api.quarantined({ limit: PAGE, cursor: next });
        const known = new Set(waiting.map((one) => one.memory.id));
        const some = page.waiting.filter((one) => !known.has(one.memory.id));
        waiting.push(...some);
        next = page.next;
        total = page.total;
        list.append(...some.map(row));
      } finally {
        loading = null;
      }
    })();
    return loading;
  }

  function row(one) {
    return h("li", {}, h("button", { type: "button", "aria-current": "false", "data-id": one.memory.id, click: () => go(waiting.indexOf(one)) }, h("span", { class: "text" }, oneLine(one.memory.text, 200)), h("span", { class: "meta" }, h("span", { class: "tag" }, one.memory.kind), h("span", {}, words(one.memory.origin.taint[0] ?? one.memory.origin.reference ?? one.memory.origin.channel)))));
  }

  function go(to) {
    list.children[place]?.firstChild.setAttribute("aria-current", "false");
    place = to;
    draw(true);
  }

  function draw(focus = false) {
    place = Math.max(0, Math.min(place, waiting.length - 1));
    ctx.badge(total);
    fill(told, total ? `${number(place + 1)} of ${count(total, "that waits", "that wait")}` : "");
    if (!waiting.length) {
      fill(both, empty("Nothing waits", "What comes from outside and would lay something down, or looks like an attack, waits here for you."));
      return;
    }
    if (!both.contains(list)) fill(both, list, desk);
    const chosen = list.children[place].firstChild;
    chosen.setAttribute("aria-current", "true");
    chosen.scrollIntoView({ block: "nearest" });
    if (focus) chosen.focus({ preventScroll: true });
    const { memory, reason } = current();
    const source = memory.origin.reference;
    fill(
      desk,
      h(
        "div",
        { class: "card" },
        h(
          "div",
          { class: "in stack" },
          h("p", { class: "words", "data-words": true }, shown(memory)),
          meta(memory),
          h("p", { class: "notice warn" }, words(reason || "it waits for somebody to look at it").replace(/^quarantined: /, "")),
          facts([["Recorded", moment(memory.recorded_at)], ["Source", words(source ?? "")], ["Outside", memory.origin.taint.map(words).join(", ")]]),
          h(
            "div",
            { class: "actions" },
            h("button", { type: "button", class: "button main", "aria-keyshortcuts": "a", click: approve }, "Approve", h("kbd", { "aria-hidden": "true" }, "a")),
            h("button", { type: "button", class: "button", "aria-keyshortcuts": "x", click: reject }, "Reject", h("kbd", { "aria-hidden": "true" }, "x")),
            h("button", { type: "button", class: "button danger", "aria-keyshortcuts": "v", disabled: !source, click: revoke }, "Revoke source…", h("kbd", { "aria-hidden": "true" }, "v")),
            h("a", { class: "button plain", href: ctx.link("memory", { id: memory.id }) }, "Open"),
          ),
        ),
      ),
    );
    if (next !== null && place > waiting.length - 20) attempt(more);
  }

  let deciding = false;
  const decide = (what, said) =>
    attempt(async () => {
      const one = current();
      if (!one || deciding) return;
      deciding = true; // a key that is held down decides about one thing alone
      try {
        await ctx.api.act(what, one.memory.id, {});
      } finally {
        deciding = false;
      }
      const at = waiting.indexOf(one);
      waiting.splice(at, 1);
      list.children[at].remove();
      total--;
      if (!waiting.length && next !== null) await more();
      toast(said);
      draw(true);
    });
  const approve = () => decide("approve", "Approved: it may be recalled, and stays marked as from outside");
  const reject = () => decide("reject", "Rejected: archived, and kept in history");

  const revoke = () => attempt(revoked);

  async function revoked() {
    const source = current()?.memory.origin.reference;
    if (!source) return;
    const plan = await ctx.api.revoke({ source, dry_run: true });
    const answer = await confirm({
      title: `Revoke ${oneLine(source, 60)}?`,
      about: [
        h("p", {}, `${count(plan.said.length, "memory", "memories")} that it said and ${number(plan.derived.length)} made of them leave recall; ${number(plan.doubted.length)} that others had a part in wait here; ${number(plan.reopened.length)} that it had ended hold again. What of it waits here goes on waiting. Undo brings all back.`),
        plan.diff?.length ? h("ul", { class: "list" }, plan.diff.slice(0, 20).map((line) => h("li", {}, oneLine(line, 200)))) : null,
      ],
      action: "Revoke",
      danger: true,
    });
    if (!answer) return;
    await attempt(async () => {
      const done = await ctx.api.revoke({ source, reason: answer.reason });
      toast(`Revoked: ${count(done.said.length + done.derived.length, "memory", "memories")} out of recall`, done.seq ? async () => (await ctx.api.undo(done.seq), toast("Taken back"), ctx.reload()) : null);
    });
    await begin();
  }

  const move = (by) => {
    if (!waiting.length) return;
    go(Math.max(0, Math.min(waiting.length - 1, place + by)));
    say(oneLine(current().memory.text, 200));
  };
  list.addEventListener("scroll", () => next !== null && list.scrollTop + list.clientHeight > list.scrollHeight - 800 && attempt(more), { passive: true });
  await begin();
  const named = params.get("id");
  while (named && next !== null && !waiting.some((one) => one.memory.id === named)) await more();
  if (named) go(Math.max(0, waiting.findIndex((one) => one.memory.id === named)));
  const stop = ctx.live({
    status: ({ quarantined = 0 }) => {
      const more = quarantined - total;
      news.hidden = more <= 0 || deciding;
      news.textContent = `${count(more, "more waits", "more wait")}`;
      if (more > 0 && !waiting.length) attempt(begin);
    },
  });
  return { keys: { j: () => move(1), k: () => move(-1), a: approve, x: reject, v: revoke, Enter: () => current() && ctx.go("memory", { id: current().memory.id }) }, leave: stop };
}
