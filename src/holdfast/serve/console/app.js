// The frame: coming in, the scope, which view is shown, and keys.

import { Api, ApiError } from "./api.js";
import { h, fill, words, oneLine, say } from "./dom.js";
import { dialog, toast } from "./parts.js";

const KEY = "holdfast-key";
const SCOPE = "holdfast-scope";
const VIEWS = {
  search: { name: "Search", key: "s", load: () => import("./views/search.js") },
  timeline: { name: "Timeline", key: "t", load: () => import("./views/timeline.js") },
  review: { name: "Review", key: "r", load: () => import("./views/review.js") },
  receipts: { name: "Receipts", key: "p", load: () => import("./views/receipts.js") },
  claims: { name: "Claims", key: "c", load: () => import("./views/claims.js") },
  status: { name: "Status", key: "i", load: () => import("./views/status.js") },
  memory: { load: () => import("./views/memory.js") },
};
const HELP = [
  ["Everywhere", [["/", "search"], ["g then s t r p c i", "go to a view"], ["j k", "next and previous"], ["Enter", "open"], ["b", "back"], ["o", "other scope"], ["d", "light or dark"], ["?", "this help"]]],
  ["Search", [["w", "why this score"]]],
  ["A memory", [["e", "correct"], ["r", "retract"], ["u", "restore"], ["z", "freeze or thaw"], ["f", "forget, with a dry run first"]]],
  ["Review", [["a", "approve"], ["x", "reject"], ["v", "revoke the source"]]],
];

const app = document.getElementById("app");
let api = null;
let shown = null;
let turn = 0;
let going = false;

const stored = (name) => sessionStorage.getItem(name);
const scopeOf = () => JSON.parse(stored(SCOPE) ?? "{}");

function start() {
  const key = stored(KEY);
  const scope = scopeOf();
  if (key === null || !scope.user) return door();
  api = new Api(key, scope);
  frame();
  return show();
}

// --- coming in ---

function door(problem = "") {
  shown?.leave?.();
  shown = null;
  turn++;
  api = null;
  listen();
  document.title = "Holdfast";
  const scope = scopeOf();
  const key = h("input", { class: "input", type: "password", name: "key", id: "key", autocomplete: "off", placeholder: "hf_…" });
  const user = h("input", { class: "input", name: "user", id: "user", autocomplete: "off", value: scope.user ?? "", required: true });
  const tenant = h("input", { class: "input", name: "tenant", id: "tenant", autocomplete: "off", value: scope.tenant ?? "default" });
  const told = h("p", { class: "notice bad", role: "alert", hidden: !problem }, problem);
  const enter = h("button", { class: "button main", type: "submit" }, "Enter");
  fill(
    app,
    h(
      "main",
      { id: "main", class: "door", tabindex: -1 },
      h(
        "form",
        {
          submit: async (event) => {
            event.preventDefault();
            enter.disabled = true;
            const made = new Api(key.value.trim(), { tenant: tenant.value.trim() || "default", user: user.value.trim() });
            try {
              await made.status();
              sessionStorage.setItem(KEY, made.key);
              sessionStorage.setItem(SCOPE, JSON.stringify(made.scope));
              start();
            } catch (error) {
              told.hidden = false;
              told.textContent = error.status === 401 ? "That key opens nothing here." : words(error.message);
              enter.disabled = false;
              key.focus();
            }
          },
        },
        h("div", { class: "brand" }, h("img", { src: "icon.svg", alt: "" }), "Holdfast"),
        h("label", { for: "key" }, h("span", {}, "Key"), key),
        h("label", { for: "user" }, h("span", {}, "User"), user),
        h("label", { for: "tenant" }, h("span", {}, "Tenant"), tenant),
        told,
        enter,
        h("p", { class: "small soft" }, "The key stays in this tab and is gone when it closes. Make one with: ", h("span", { class: "mono" }, "holdfast access key")),
      ),
    ),
  );
  key.focus();
}

async function otherScope() {
  const now = scopeOf();
  const fields = ["tenant", "user", "agent", "session"].map((name) => [name, h("input", { class: "input", name, autocomplete: "off", value: now[name] ?? "", autofocus: name === "user" })]);
  const answer = await dialog("Whose memory", (close) =>
    h(
      "form",
      { method: "dialog", submit: (event) => (event.preventDefault(), close(Object.fromEntries(fields.map(([name, field]) => [name, field.value.trim()]).filter(([, value]) => value)))) },
      h("h1", {}, "Whose memory"),
      fields.map(([name, field]) => h("label", {}, h("span", {}, { agent: "Agent (all, where empty)", session: "Session (all, where empty)" }[name] ?? name[0].toUpperCase() + name.slice(1)), field)),
      h("div", { class: "row" }, h("button", { type: "button", class: "button danger", click: () => close("out") }, "Sign out"), h("span", { class: "grow" }), h("button", { type: "button", class: "button", click: () => close() }, "Cancel"), h("button", { type: "submit", class: "button main" }, "Use")),
    ),
  );
  if (answer === "out") {
    sessionStorage.removeItem(KEY);
    return door();
  }
  if (!answer?.user) return undefined;
  try {
    await new Api(api.key, answer).status();
  } catch (error) {
    return toast(words(error.message));
  }
  sessionStorage.setItem(SCOPE, JSON.stringify(answer));
  return start();
}

// --- the frame ---

function frame() {
  const scope = scopeOf();
  const place = [scope.user, scope.agent, scope.session].filter(Boolean).map((part) => oneLine(part, 40)).join(" / ");
  fill(
    app,
    h(
      "div",
      { class: "frame" },
      h(
        "header",
        { class: "side" },
        h("a", { class: "brand", href: "#/search" }, h("img", { src: "icon.svg", alt: "" }), "Holdfast"),
        h("nav", { class: "nav", "aria-label": "Views" }, Object.entries(VIEWS).filter(([, one]) => one.name).map(([id, one]) => h("a", { href: `#/${id}`, "data-view": id, "aria-keyshortcuts": `g ${one.key}` }, one.name, h("span", { class: "badge", "data-badge": id })))),
        h("div", { class: "foot" }, h("button", { type: "button", class: "scope", click: otherScope, "aria-label": `Scope: tenant ${scope.tenant}, ${place}. Change` }, h("small", { class: "faint" }, oneLine(scope.tenant ?? "", 30)), h("b", {}, place)), h("div", { class: "row" }, h("button", { type: "button", class: "button plain", click: theme, "aria-label": "Light or dark", title: "Light or dark (d)" }, h("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" }, h("circle", { cx: 8, cy: 8, r: 6, fill: "none", stroke: "currentColor", "stroke-width": 1.4 }), h("path", { d: "M8 2a6 6 0 0 1 0 12z", fill: "currentColor" }))), h("button", { type: "button", class: "button plain", click: help, "aria-label": "Keys", title: "Keys (?)" }, "?"))),
      ),
      h("main", { id: "main", tabindex: -1 }),
      h("div", { id: "notice", role: "alert", hidden: true }),
    ),
  );
  listen();
}

// --- what goes on ---

const ears = new Set();
let deaf = null;
let last = null;
let silence = null;

/** One stream for all views of this tab, and none while nobody looks at it. */
function listen() {
  deaf?.();
  deaf = null;
  last = null;
  clearTimeout(silence);
  silence = null;
  if (document.hidden || !api) return;
  deaf = api.watch({
    status: (status) => {
      clearTimeout(silence);
      silence = null;
      last = status;
      badge(status.quarantined ?? 0);
      if (notice("") && !shown) show(); // what could not be shown while the server was away
      for (const ear of [...ears]) ear.status(status);
    },
    lost: (error) => {
      if (error?.status === 401) return withdrawn();
      if (error) notice(words(error.message));
      // A server that only begins anew is there before anybody wonders.
      else silence ??= setTimeout(() => notice("The server does not answer. Trying again…"), 1500);
      for (const ear of [...ears]) ear.lost?.(error);
      return undefined;
    },
  });
}

/** `ear.status`: told what goes on, now and whenever it changes; `ear.lost`: that nobody says so any more. Until the returned function is called. */
function live(ear) {
  ears.add(ear);
  if (last) ear.status(last);
  return () => ears.delete(ear);
}

/** Say something above all views, or nothing; whether anything was said before. */
function notice(text) {
  const place = document.getElementById("notice");
  const before = place ? !place.hidden : false;
  if (place) {
    place.hidden = !text;
    place.textContent = text;
  }
  return before;
}

document.addEventListener("visibilitychange", listen);

function withdrawn() {
  sessionStorage.removeItem(KEY);
  document.querySelector("dialog[open]")?.close();
  door("This key was withdrawn or has expired.");
}

function badge(n) {
  const place = app.querySelector('[data-badge="review"]');
  if (place) place.textContent = n ? String(n) : "";
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  const next = now === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("holdfast-theme", next);
  } catch {
    // It holds for this page then.
  }
  say(`${next} colours`);
}

function help() {
  return dialog("Keys", (close) => h("div", { class: "in" }, h("h1", {}, "Keys"), HELP.map(([where, keys]) => h("section", { class: "stack" }, h("h3", {}, where), h("dl", { class: "keys" }, keys.map(([key, what]) => [h("dt", {}, key.split(" ").map((one) => (one === "then" ? h("span", { class: "small faint" }, "then") : h("kbd", {}, one)))), h("dd", {}, what)])))), h("div", { class: "row" }, h("button", { type: "button", class: "button", autofocus: true, click: () => close() }, "Close"))));
}

// --- which view ---

const link = (view, params) => {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value)).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
};

const ctx = {
  get api() {
    return api;
  },
  badge,
  live,
  link,
  go: (view, params) => {
    const there = link(view, params);
    if (location.hash === there) return show();
    location.hash = there;
    return undefined;
  },
  reload: () => show(),
  /** Keep what a view shows in its address, without another entry in the history. */
  remember: (view, params) => history.replaceState(null, "", link(view, params)),
  /** The first and the last moment of this scope's memory, for sliders. */
  range: async () => {
    const { first, last } = await api.range();
    const end = Math.max(Date.now(), last ? Date.parse(last) : 0);
    return [first ? Date.parse(first) - 60000 : end - 86400000, end];
  },
};

async function loaded(id) {
  try {
    return await VIEWS[id].load();
  } catch {
    throw new ApiError(0, "The server does not answer; is it still running?");
  }
}

async function show() {
  if (!api) return;
  const mine = ++turn;
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const id = Object.hasOwn(VIEWS, path) ? path : "search";
  shown?.leave?.();
  shown = null;
  delete app.dataset.ready;
  const old = document.getElementById("main");
  if (!old) return;
  const root = h("div", {});
  for (const one of app.querySelectorAll("[data-view]")) {
    if (one.dataset.view === id) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  try {
    const view = await loaded(id);
    if (mine !== turn) return;
    document.title = `${view.title} · Holdfast`;
    fill(old, root);
    const made = await view.render(root, new URLSearchParams(query), ctx);
    if (mine !== turn) return made?.leave?.();
    shown = made;
    if (!root.contains(document.activeElement)) old.focus({ preventScroll: true });
    window.scrollTo(0, 0);
    app.dataset.ready = id;
    performance.mark(`holdfast-${id}`);
    for (const other of Object.values(VIEWS)) other.load().catch(() => {}); // they are there then, should the server go away
  } catch (error) {
    if (mine !== turn) return;
    if (error.status === 401) return withdrawn();
    fill(old, h("div", { class: "page" }, h("div", { class: "notice bad", role: "alert" }, words(error.message))));
    if (error.status === undefined) throw error;
  }
}

window.addEventListener("hashchange", show);

document.addEventListener("click", (event) => {
  if (event.target instanceof Element && event.target.closest("[data-skip]")) {
    event.preventDefault();
    document.getElementById("main")?.focus();
  }
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || !api || document.querySelector("dialog[open]")) return;
  const typing = event.target instanceof Element && event.target.closest("input:not([type=range]), textarea, select");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (going) {
    going = false;
    const to = Object.entries(VIEWS).find(([, one]) => one.key === event.key);
    if (to) {
      event.preventDefault();
      ctx.go(to[0], {});
      return;
    }
  }
  const common = {
    "/": () => {
      const field = document.getElementById("query");
      if (field) (field.focus(), field.select());
      else ctx.go("search", {});
    },
    "?": help,
    g: () => (going = true),
    b: () => history.back(),
    o: otherScope,
    d: theme,
  };
  // Enter on a link or a button is its own.
  if (event.key === "Enter" && event.target instanceof Element && event.target.closest("a, button, summary")) return;
  const run = shown?.keys?.[event.key] ?? (Object.hasOwn(common, event.key) ? common[event.key] : undefined);
  if (!run) return;
  event.preventDefault();
  run();
});

start();
