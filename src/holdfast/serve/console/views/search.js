// Search: the words, what was found, and why.

import { h, fill, words, fixed, count, moment, say } from "../dom.js";
import { asOf, meta, ofKind, shown, empty } from "../parts.js";

export const title = "Search";

export async function render(root, params, ctx) {
  let query = params.get("q") ?? "";
  let kind = params.get("kind") ?? "";
  let at = params.get("at");
  let selected = -1;
  let asked = 0;
  const field = h("input", { class: "input", id: "query", type: "search", autocomplete: "off", spellcheck: "false", placeholder: "What is remembered about…", "aria-label": "Search memories", value: query });
  const kinds = ofKind(kind, (name) => ((kind = name), run()));
  const slider = asOf({ id: "asof", label: "As known on", range: await ctx.range(), at, changed: (iso) => ((at = iso), run()) });
  const list = h("ol", { class: "hits", "aria-label": "Results" });
  const told = h("div", { class: "small soft", "data-told": true });
  fill(
    root,
    h(
      "div",
      { class: "page" },
      h("h1", { class: "unseen" }, "Search"),
      h(
        "form",
        { role: "search", submit: (event) => (event.preventDefault(), (query = field.value), run()) },
        h("div", { class: "ask" }, h("svg", { viewBox: "0 0 18 18", "aria-hidden": "true" }, h("circle", { cx: 8, cy: 8, r: 5.5, fill: "none", stroke: "currentColor", "stroke-width": 1.6 }), h("line", { x1: 12.2, y1: 12.2, x2: 16, y2: 16, stroke: "currentColor", "stroke-width": 1.6, "stroke-linecap": "round" })), field, h("kbd", { "aria-hidden": "true" }, "/")),
      ),
      h("div", { class: "controls" }, slider, kinds),
      told,
      list,
    ),
  );

  async function run() {
    query = field.value.trim();
    ctx.remember("search", { q: query, kind, at });
    selected = -1;
    if (!query) {
      fill(told);
      fill(list, h("li", {}, empty("Ask in your own words", "Each answer says what each channel gave to its score, who said it, and how far that is trusted.")));
      return;
    }
    const turn = ++asked;
    let found;
    try {
      found = await ctx.api.search({ query, k: 20, kinds: kind ? [kind] : [], at });
    } catch (error) {
      if (turn === asked) fill(told, h("div", { class: "notice bad" }, words(error.message)));
      return;
    }
    if (turn !== asked) return; // a later question was asked meanwhile
    const doubt = found.abstain && found.hits.length ? "Nothing here is likely to answer; the closest:" : found.reason;
    fill(told, doubt ? words(doubt) : count(found.hits.length, "memory", "memories"), at && ` as known on ${at.slice(0, 16).replace("T", " ")}`);
    say(told.textContent);
    fill(list, found.hits.map(row));
    if (!found.hits.length) list.append(h("li", {}, empty("Nothing was found", found.reason ? words(found.reason) : "Try other words, or another time.")));
  }

  function row(hit, place) {
    const id = `why-${place}`;
    const why = h("div", { class: "why", id, hidden: true });
    const toggle = h("button", { type: "button", class: "button plain", "aria-expanded": "false", "aria-controls": id, click: () => open() }, "Why");
    const open = () => {
      const now = why.hidden;
      why.hidden = !now;
      toggle.setAttribute("aria-expanded", String(now));
      if (now && !why.hasChildNodes()) fill(why, explain(hit));
    };
    const item = h(
      "li",
      { "data-id": hit.id },
      h("div", { class: "hit" }, h("span", { class: "rank", title: "the chance that it answers" }, fixed(hit.relevance)), h("div", { class: "grow" }, h("a", { class: "said", href: ctx.link("memory", { id: hit.id }) }, shown(hit.cube)), meta(hit.cube)), toggle, why),
    );
    item.open = open;
    return item;
  }

  const items = () => [...list.querySelectorAll("li[data-id]")];
  const move = (by) => {
    const all = items();
    if (!all.length) return;
    all[selected]?.classList.remove("sel");
    selected = Math.max(0, Math.min(all.length - 1, selected + by));
    all[selected].classList.add("sel");
    all[selected].querySelector("a").focus({ preventScroll: true });
    all[selected].scrollIntoView({ block: "nearest" });
  };
  await run();
  if (!query) field.focus();
  return {
    keys: {
      j: () => move(1),
      k: () => move(-1),
      w: () => items()[Math.max(0, selected)]?.open(),
      Enter: () => items()[selected]?.querySelector("a").click(),
    },
  };
}

/** The parts of a score, largest first, as bars; then what else is known. */
function explain(hit) {
  const parts = Object.entries(hit.channels).filter(([, value]) => Math.abs(value) >= 0.0005).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.max(...parts.map(([, value]) => Math.abs(value)), 0.001);
  return [
    h(
      "div",
      { class: "bars", role: "list", "aria-label": "Share of each channel in the score" },
      parts.map(([name, value]) => {
        const bar = h("i", { class: value < 0 ? "less" : "" });
        bar.style.width = `${(100 * Math.abs(value)) / most}%`;
        return [h("span", { role: "listitem" }, words(name).replaceAll("_", " ")), bar, h("span", {}, `${value < 0 ? "−" : "+"}${fixed(Math.abs(value), 3)}`)];
      }),
    ),
    h("div", { class: "small soft sum num" }, `score ${fixed(hit.score, 3)} · chance to answer ${fixed(hit.relevance)} · trust ${fixed(hit.cube.origin.trust)} · recorded ${moment(hit.cube.recorded_at)}${hit.cube.use.visits ? ` · used ${count(hit.cube.use.visits, "time")}, utility ${fixed(hit.cube.use.utility)}` : ""}`),
  ];
}
