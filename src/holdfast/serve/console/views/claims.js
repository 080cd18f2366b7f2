// Claims: what each mechanism promises, what its run showed, and the plot.

import { h, fill, words, fixed, number } from "../dom.js";
import { empty, steps } from "../parts.js";

export const title = "Claims";
const SHOW = { holds: "good", partly: "warn", fails: "bad", "not run": "faint" };
const SAY = { holds: "holds", partly: "in part", fails: "fails", "not run": "not run" };

export async function render(root, params, ctx) {
  const claims = await ctx.api.claims();
  const tally = Object.fromEntries(Object.keys(SHOW).map((name) => [name, claims.filter((one) => one.verdict === name).length]));
  const urls = [];
  const rows = claims.map((one) => {
    const body = h("div", { class: "body stack" });
    const row = h(
      "details",
      { class: "claim", "data-number": one.number, toggle: () => row.open && !body.hasChildNodes() && open(one, body) },
      h("summary", {}, h("span", { class: "faint num" }, one.number), h("span", {}, words(one.title ?? one.name)), h("span", { class: `small ${SHOW[one.verdict] ?? ""}` }, SAY[one.verdict] ?? one.verdict), h("span", { class: "n num small soft", title: "the worst check's margin" }, one.margin === null || one.margin === undefined ? "" : `${one.margin < 0 ? "−" : "+"}${fixed(Math.abs(one.margin), 3)}`)),
      body,
    );
    return row;
  });
  fill(root, h("div", { class: "page wide" }, h("div", { class: "head" }, h("h1", {}, "Claims"), h("p", { class: "tally small" }, Object.entries(tally).map(([name, n]) => h("span", { class: SHOW[name] }, h("b", {}, number(n)), ` ${SAY[name]}`)))), claims.length ? rows : empty("No claims", "This server has no evidence to show.")));

  async function open(one, body) {
    fill(body, one.statement && h("p", {}, words(one.statement)));
    if (one.verdict === "not run") return body.append(h("p", { class: "soft" }, one.file ? `Run it: holdfast claims run ${one.number}` : "The mechanism is not there yet."));
    try {
      const report = await ctx.api.claim(one.number);
      body.append(
        h("p", { class: "small soft num" }, `${report.scale}, ${report.seeds?.length === 1 ? "one seed" : `${report.seeds?.length ?? 0} seeds`}, ${report.date}`),
        h(
          "div",
          { class: "scroll" },
          h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "Check"), h("th", { class: "n" }, "Value"), h("th", { class: "n" }, "Required"), h("th", {}, ""))), h("tbody", {}, (report.checks ?? []).map((check) => h("tr", {}, h("td", {}, words(check.name), check.note && h("div", { class: "small soft" }, words(check.note))), h("td", { class: "n" }, fixed(check.value, 3)), h("td", { class: "n" }, `${check.at_least === false ? "≤" : "≥"} ${fixed(check.required, 3)}`), h("td", { class: check.holds ? "good small" : "bad small" }, check.holds ? "holds" : "fails"))))),
        ),
      );
      const plot = await ctx.api.plot(one.number);
      if (plot) {
        const url = URL.createObjectURL(plot);
        urls.push(url);
        body.append(h("img", { src: url, alt: `Plot of claim ${one.number}, ${words(one.name)}: every arm that was run`, loading: "lazy" }));
      }
    } catch (error) {
      body.append(h("p", { class: "bad" }, words(error.message)));
    }
    return undefined;
  }
  return { keys: steps(root, "summary"), leave: () => urls.forEach((url) => URL.revokeObjectURL(url)) };
}
