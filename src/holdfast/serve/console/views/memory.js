// One memory: its words and how they changed, where it is from, what was made of it, and what can be done with it.

import { h, fill, words, oneLine, fixed, moment, number, count } from "../dom.js";
import { attempt, confirm, dialog, download, facts, meta, receipt, shown, toast, empty } from "../parts.js";
import { graph } from "../graph.js";

export const title = "Memory";

export async function render(root, params, ctx) {
  const id = params.get("id");
  const [cube, changes, lineage] = await Promise.all([ctx.api.get(id), ctx.api.history(id), ctx.api.lineage(id)]);
  const held = cube.status === "quarantined";
  const frozen = cube.status === "frozen";
  const live = ["generated", "activated", "frozen"].includes(cube.status);
  const again = (text, undo) => {
    toast(text, undo);
    ctx.reload();
  };
  const undoOf = (seq) => (seq ? async () => (await ctx.api.undo(seq), again("Taken back")) : null);
  const act = {
    e: !frozen && live && ["Correct", correct],
    r: live && ["Retract", retract],
    u: !live && !held && ["Restore", () => simple("restore", "Back in recall")],
    z: live && (frozen ? ["Thaw", () => simple("thaw", "It may be changed again")] : ["Freeze", () => simple("freeze", "Nothing may change it now")]),
    a: held && ["Approve", () => simple("approve", "Let into recall")],
    x: held && ["Reject", () => simple("reject", "Archived")],
    f: ["Forget…", forget],
  };
  const buttons = Object.entries(act)
    .filter(([, one]) => one)
    .map(([key, [name, run]]) => h("button", { type: "button", class: key === "f" ? "button danger" : "button", "data-act": name.toLowerCase(), "aria-keyshortcuts": key, click: () => attempt(run) }, name, h("kbd", { "aria-hidden": "true" }, key)));

  async function simple(what, said) {
    await ctx.api.act(what, id, {});
    again(said);
  }

  async function correct() {
    const field = h("textarea", { class: "input", rows: 5, "aria-label": "New words" });
    field.value = cube.text;
    const answer = await confirm({ title: "Correct this memory", about: h("p", { class: "soft" }, "The words of before stay in its history; what was derived from them is up for review."), action: "Correct", field });
    if (!answer || !answer.value.trim() || answer.value === cube.text) return;
    await ctx.api.act("correct", id, { text: answer.value, reason: answer.reason });
    again("Corrected");
  }

  async function retract() {
    const answer = await confirm({ title: "Retract this memory?", about: h("p", { class: "soft" }, "It leaves recall with what was drawn from it alone, and stays in history."), action: "Retract" });
    if (!answer) return;
    await ctx.api.act("retract", id, { reason: answer.reason });
    again("Out of recall", undoOf((await ctx.api.history(id)).at(-1)?.event.seq));
  }

  async function forget() {
    const plan = await ctx.api.forget({ ids: [id], dry_run: true });
    const answer = await confirm({
      title: "Forget for good?",
      about: [
        h("p", {}, `${count(plan.erased.length, "memory", "memories")} would be erased${plan.derived.length ? `, ${number(plan.derived.length)} of them because they were derived from this one` : ""}. Nothing brings them back.`),
        plan.preview?.length ? h("ul", { class: "list" }, plan.preview.slice(0, 12).map((line) => h("li", {}, oneLine(line.replace(/^(\S+) [0-9a-f-]{36}: /, "$1: "), 200)))) : null,
      ],
      action: "Erase",
      danger: true,
    });
    if (!answer) return;
    const done = await ctx.api.forget({ ids: [id], reason: answer.reason });
    await dialog("Receipt", (close) => h("div", { class: "in" }, h("h1", {}, "Forgotten"), receipt(done), h("div", { class: "row" }, h("button", { type: "button", class: "button", click: () => download(done, `receipt-${done.seq}.json`) }, "Save JSON"), h("button", { type: "button", class: "button main", autofocus: true, click: () => close() }, "Done"))));
    ctx.go("receipts", {});
  }

  const versions = changes.filter((change) => change.memory).reverse();
  const origin = cube.origin;
  const source = origin.reference ?? null;
  const known = [
    ["Id", h("span", { class: "mono" }, cube.id)],
    ["Version", number(cube.version)],
    ["Recorded", moment(cube.recorded_at)],
    ["True from", moment(cube.valid_from) || "always"],
    ["True until", moment(cube.valid_to) || "no end is known"],
    ["Speaker", words(origin.author ?? "")],
    ["Channel", origin.channel],
    ["Source", source && words(source)],
    ["Trust", fixed(origin.trust)],
    ["Outside", origin.taint.map(words).join(", ")],
    ["Scope", cube.scope.split("/").filter((part) => part !== "-").map((part) => words(decodeURIComponent(part))).join(" / ")],
    ["Expires", moment(cube.policy.expires_at)],
    ["Used", cube.use.visits ? `${count(cube.use.visits, "time")}, utility ${fixed(cube.use.utility)}` : ""],
    ...Object.entries(cube.data).slice(0, 12).map(([name, value]) => [words(name), oneLine(typeof value === "string" ? value : JSON.stringify(value), 160)]),
  ];
  const up = lineage.derived_from;
  const down = lineage.derived;
  fill(
    root,
    h(
      "div",
      { class: "page wide" },
      h("div", { class: "head" }, h("h1", { class: "unseen" }, "Memory"), h("div", { class: "actions", role: "toolbar", "aria-label": "What can be done with it" }, buttons)),
      h(
        "div",
        { class: "memory" },
        h(
          "div",
          { class: "stack loose grow" },
          h("section", { class: "stack", "aria-label": "Words" }, h("p", { class: "words", "data-words": true }, shown(cube)), meta(cube)),
          (up.length > 0 || down.length > 0) && h("section", { class: "stack" }, h("h2", {}, "Lineage"), graph(cube, up, down, (other) => ctx.link("memory", { id: other }))),
          h(
            "section",
            {},
            h("h2", {}, "Versions"),
            h(
              "ol",
              {},
              versions.map(({ event, memory }, place) => {
                const same = event.action === "feedback"; // it says how the version served, and makes none
                const older = same ? null : versions.slice(place + 1).find((one) => one.memory.version < memory.version)?.memory;
                return h(
                  "li",
                  { class: "version" },
                  h("div", { class: "row spread small" }, h("span", { class: "soft num" }, `${number(memory.version)} · ${event.action} · ${moment(event.at)}`), h("span", { class: "faint num" }, `event ${number(event.seq)}`)),
                  event.reason && h("p", { class: "small soft" }, words(event.reason)),
                  same ? null : older ? change(older, memory) : h("div", { class: "diff" }, oneLine(memory.text || shown(memory), 600)),
                );
              }),
            ),
            versions.length === 0 && empty("No versions", "Nothing is left of it but its events."),
          ),
        ),
        h("aside", {}, facts(known)),
      ),
    ),
  );
  return { keys: Object.fromEntries(Object.entries(act).filter(([, one]) => one).map(([key, [, run]]) => [key, () => attempt(run)])) };
}

/** What changed between two versions: words, and else what is known of them. */
function change(before, after) {
  const moved = [];
  for (const name of ["status", "valid_from", "valid_to", "kind"]) {
    if (before[name] !== after[name]) moved.push(`${name.replace("_", " ")}: ${before[name] ?? "none"} → ${after[name] ?? "none"}`);
  }
  return [
    before.text !== after.text && h("div", { class: "diff" }, diff(words(before.text), words(after.text)).map(([kind, text]) => (kind === "=" ? text : h(kind === "+" ? "ins" : "del", {}, text)))),
    moved.length > 0 && h("p", { class: "small soft" }, moved.join(" · ")),
  ];
}

/** Words that stayed, went and came, by the longest common sequence; of long texts only their ends are compared. */
export function diff(before, after) {
  const [a, b] = [before, after].map((text) => text.match(/[\p{L}\p{N}_]+|\s+|[^\p{L}\p{N}_\s]/gu) ?? []);
  let head = 0;
  while (head < a.length && head < b.length && a[head] === b[head]) head++;
  let tail = 0;
  while (tail < a.length - head && tail < b.length - head && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail++;
  const [x, y] = [a.slice(head, a.length - tail), b.slice(head, b.length - tail)];
  const found = [["=", a.slice(0, head).join("")]];
  if (x.length * y.length > 250000) {
    found.push(["-", x.join("")], ["+", y.join("")]);
  } else {
    const best = Array.from({ length: x.length + 1 }, () => new Uint16Array(y.length + 1));
    for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--) best[i][j] = x[i] === y[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
    let [i, j] = [0, 0];
    while (i < x.length || j < y.length) {
      if (i < x.length && j < y.length && x[i] === y[j]) (found.push(["=", x[i++]]), j++);
      else if (i < x.length && (j === y.length || best[i + 1][j] >= best[i][j + 1])) found.push(["-", x[i++]]);
      else found.push(["+", y[j++]]);
    }
  }
  found.push(["=", a.slice(a.length - tail).join("")]);
  return joined(found);
}

/** Whole phrases instead of words: changes between which nothing but space and points stayed are one. */
function joined(parts) {
  const told = [];
  let [gone, come, between] = ["", "", ""];
  const flush = () => {
    if (gone) told.push(["-", gone]);
    if (come) told.push(["+", come]);
    if (between) told.push(["=", between]);
    [gone, come, between] = ["", "", ""];
  };
  for (const [kind, text] of parts) {
    if (!text) continue;
    if (kind === "=") {
      if (/[\p{L}\p{N}]/u.test(text)) {
        flush();
        told.push(["=", text]);
      } else if (gone || come) between += text;
      else told.push(["=", text]);
      continue;
    }
    [gone, come, between] = [gone + between, come + between, ""];
    if (kind === "-") gone += text;
    else come += text;
  }
  flush();
  return told;
}
