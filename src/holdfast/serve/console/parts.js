// What several views share: the as-of control, what is known of a memory, dialogs, and words that pass.

import { h, words, oneLine, day, moment, count, number, say } from "./dom.js";

/** A slider over recorded time. `changed(iso or null)`: null is now. `range`: the first and last moment, in milliseconds. */
export function asOf({ label, range, at, changed, off = "now", id }) {
  const [first, last] = range;
  const steps = 1000;
  const output = h("output", { for: id });
  const slider = h("input", { type: "range", id, min: 0, max: steps, step: 1, "aria-label": label, value: steps });
  const box = h("div", { class: "asof now" }, h("label", { for: id }, label), slider, output);
  const time = (n) => new Date(first + ((last - first) * n) / steps).toISOString();
  const paint = () => {
    const n = Number(slider.value);
    const now = n >= steps;
    box.classList.toggle("now", now);
    output.textContent = now ? off : `${time(n).slice(0, 16).replace("T", " ")}`;
    slider.setAttribute("aria-valuetext", now ? off : moment(time(n)));
    slider.style.setProperty("--at", `${(100 * n) / steps}%`);
  };
  let waiting;
  slider.addEventListener("input", () => {
    paint();
    clearTimeout(waiting);
    waiting = setTimeout(() => changed(Number(slider.value) >= steps ? null : time(Number(slider.value))), 120);
  });
  // One arrow is a thousandth; with Page keys a tenth comes by itself, and Home and End are the ends.
  if (at) slider.value = String(Math.max(0, Math.min(steps - 1, Math.round(((Date.parse(at) - first) / Math.max(1, last - first)) * steps))));
  paint();
  box.clear = () => {
    slider.value = String(steps);
    paint();
  };
  return box;
}

/** Who says so, when, from where, and how far that is trusted. */
export function meta(cube, { link = null } = {}) {
  const origin = cube.origin;
  const when = cube.valid_from ?? cube.recorded_at;
  return h(
    "div",
    { class: "meta" },
    cube.kind !== "message" && h("span", { class: "tag" }, cube.kind),
    cube.form !== "text" && h("span", { class: "tag accent" }, cube.form),
    !["generated", "activated"].includes(cube.status) && h("span", { class: cube.status === "quarantined" ? "tag warn" : "tag" }, cube.status),
    when && h("time", { datetime: when, title: `recorded ${moment(cube.recorded_at)}` }, day(when)),
    h("span", {}, origin.author ? `${words(origin.author)} (${origin.channel})` : origin.channel),
    origin.reference && h("span", { title: words(origin.reference) }, oneLine(origin.reference, 60)),
    h("span", {}, `trust ${origin.trust.toFixed(2)}`),
    origin.taint.length > 0 && h("span", { class: "warn", title: origin.taint.map(words).join("\n") }, "from outside"),
    link,
  );
}

export function shown(cube) {
  return cube.text ? words(cube.text) : `(${cube.form}, ${number(cube.data?.bytes ?? 0)} bytes)`;
}

/** A dialog that answers once. `build(close)` makes what is in it. */
export function dialog(label, build) {
  return new Promise((done) => {
    const before = document.activeElement;
    const box = h("dialog", { "aria-label": label });
    let answer;
    const close = (value) => {
      answer = value;
      box.close();
    };
    box.append(build(close));
    box.addEventListener("close", () => {
      box.remove();
      before?.focus?.();
      done(answer);
    });
    box.addEventListener("click", (event) => event.target === box && close());
    document.body.append(box);
    box.showModal();
    box.querySelector("[autofocus]")?.focus();
    box.scrollTop = 0; // what has the focus may lie at its end
  });
}

/** Ask for a reason; undefined where nobody confirms. `about`: what is said before. */
export function confirm({ title, about = [], action = "Confirm", danger = false, field = null, reason = true }) {
  return dialog(title, (close) => {
    const why = h("input", { class: "input", name: "reason", autocomplete: "off", placeholder: "kept in the journal", autofocus: !field });
    const form = h(
      "form",
      {
        method: "dialog",
        submit: (event) => {
          event.preventDefault();
          close({ reason: why.value.trim(), value: field?.value });
        },
      },
      h("h1", {}, title),
      about,
      field && h("label", {}, h("span", {}, "New words"), field),
      reason && h("label", {}, h("span", {}, "Reason"), why),
      h(
        "div",
        { class: "row" },
        h("button", { type: "button", class: "button", click: () => close() }, "Cancel"),
        h("button", { type: "submit", class: danger ? "button main danger" : "button main", autofocus: !field && !reason }, action),
      ),
    );
    return form;
  });
}

/** Do something; where it fails, say why. */
export async function attempt(what) {
  try {
    await what();
  } catch (error) {
    toast(words(error.message));
  }
}

export function toast(text, undo = null) {
  const box = h("div", { class: "toast" }, h("span", { class: "grow" }, text));
  if (undo) box.append(h("button", { type: "button", click: () => (box.remove(), attempt(undo)) }, "Undo"));
  document.getElementById("toasts").append(box);
  say(text);
  setTimeout(() => box.remove(), undo ? 9000 : 5000);
}

/** One of some names, or all of them. `changed`: told the name, "" for all. */
export function choice(label, names, chosen, all, changed) {
  const box = h("select", { "aria-label": label, change: () => changed(box.value) }, ["", ...names].map((name) => h("option", { value: name, selected: name === chosen }, name || all)));
  return box;
}

export function ofKind(chosen, changed) {
  return choice("Kind", ["message", "fact", "event", "preference", "instruction", "profile", "summary", "experience", "skill", "document"], chosen, "every kind", changed);
}

/** Keys that go through what can be opened in a list; Enter then opens it by itself. */
export function steps(root, selector) {
  const move = (by) => {
    const all = [...root.querySelectorAll(selector)];
    const here = all.indexOf(document.activeElement);
    const next = all[Math.max(0, Math.min(all.length - 1, here + by))];
    next?.focus({ preventScroll: true });
    next?.scrollIntoView({ block: "nearest" });
  };
  return { j: () => move(1), k: () => move(-1) };
}

/** Names with what is known of them; what is not known is left out. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function empty(title, text, ...more) {
  return h("div", { class: "empty" }, h("b", {}, title), text, more);
}

/** Let a person keep something as a file. */
export function download(what, name) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(what, null, 2)], { type: "application/json" }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** A forget's receipt, right after it. */
export function receipt(one) {
  const forms = (one.forms ?? []).filter((step) => step.things?.length || step.error);
  return h(
    "div",
    { class: "stack", "data-receipt": one.seq },
    h("p", {}, `${count(one.erased.length, "memory", "memories")}${one.derived.length ? `, of which ${number(one.derived.length)} derived` : ""}, at event ${number(one.seq)}`),
    one.verified === true && h("p", { class: "good" }, "Searched for in every table and file: nothing of it was found again."),
    one.verified === false && h("p", { class: "bad" }, words(one.problem ?? "not verified")),
    one.reason && h("p", { class: "soft" }, words(one.reason)),
    h("ul", { class: "mono faint" }, one.erased.slice(0, 8).map((id) => h("li", {}, id)), one.erased.length > 8 && h("li", {}, `and ${number(one.erased.length - 8)} more`)),
    forms.map((step) => h("p", { class: step.error ? "small bad" : "small soft" }, `${words(step.holder)}: ${step.error ? words(step.error) : count(step.things.length, "thing")}`)),
    (one.notes ?? []).map((note) => h("p", { class: "small warn" }, words(note))),
  );
}
