// Review: what waits in quarantine, why it waits, and a decision by one key.

import { h, fill, words, oneLine, moment, count, number, say } from "../dom.js";
import { attempt, confirm, facts, meta, shown, toast, empty } from "../parts.js";

export const title = "Review";

export async function render(root, params, ctx) {
  let waiting = await ctx.api.quarantined();
  let place = Math.max(0, waiting.findIndex((one) => one.memory.id === params.get("id")));
  const list = h("ol", { class: "queue", "aria-label": "What waits" });
  const desk = h("aside", { "aria-live": "off" });
  const told = h("p", { class: "num" });
  fill(root, h("div", { class: "page wide" }, h("div", { class: "head" }, h("h1", {}, "Review"), told), h("div", { class: "desk" }, list, desk)));

  const current = () => waiting[place];

  function draw(focus = false) {
    place = Math.max(0, Math.min(place, waiting.length - 1));
    ctx.badge(waiting.length);
    fill(told, waiting.length ? `${count(waiting.length, "memory waits", "memories wait")}` : "");
    if (!waiting.length) {
      fill(list);
      fill(desk);
      fill(root.querySelector(".desk"), empty("Nothing waits", "What comes from outside and would lay something down, or looks like an attack, waits here for you."));
      return;
    }
    fill(
      list,
      waiting.map((one, index) =>
        h("li", {}, h("button", { type: "button", "aria-current": String(index === place), "data-id": one.memory.id, click: () => ((place = index), draw(true)) }, h("span", { class: "text" }, oneLine(one.memory.text, 200)), h("span", { class: "meta" }, h("span", { class: "tag" }, one.memory.kind), h("span", {}, words(one.memory.origin.taint[0] ?? one.memory.origin.reference ?? one.memory.origin.channel))))),
      ),
    );
    const chosen = list.children[place].firstChild;
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
  }

  const decide = (what, said) =>
    attempt(async () => {
      const one = current();
      if (!one) return;
      await ctx.api.act(what, one.memory.id, {});
      waiting = waiting.filter((other) => other !== one);
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
    waiting = await ctx.api.quarantined();
    draw(true);
  }

  const move = (by) => {
    place = Math.max(0, Math.min(waiting.length - 1, place + by));
    draw(true);
    if (current()) say(oneLine(current().memory.text, 200));
  };
  draw();
  return { keys: { j: () => move(1), k: () => move(-1), a: approve, x: reject, v: revoke, Enter: () => current() && ctx.go("memory", { id: current().memory.id }) } };
}
