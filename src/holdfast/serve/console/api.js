// Everything that the console asks of the server, and nothing else knows a path. The key goes with each request as a header and is
// never part of an address.

export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Api {
  constructor(key, scope) {
    this.key = key;
    this.scope = scope;
  }

  async call(method, path, { query = {}, body = undefined, scoped = true, raw = false, signal = undefined } = {}) {
    const address = new URL(`v1/${path}`, document.baseURI);
    for (const [name, value] of Object.entries({ ...(scoped ? this.scope : {}), ...query })) {
      if (value === null || value === undefined || value === "") continue;
      for (const one of Array.isArray(value) ? value : [value]) address.searchParams.append(name, one);
    }
    const headers = { accept: raw ? "*/*" : "application/json" };
    if (this.key) headers.authorization = `Bearer ${this.key}`;
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await fetch(address, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "The server does not answer; is it still running?");
    }
    if (!answer.ok) throw new ApiError(answer.status, await told(answer));
    return raw ? answer : answer.status === 204 ? null : answer.json();
  }

  get(id) {
    return this.call("GET", `memories/${encodeURIComponent(id)}`);
  }
  async history(id) {
    return (await this.call("GET", `memories/${encodeURIComponent(id)}/history`)).changes;
  }
  lineage(id) {
    return this.call("GET", `memories/${encodeURIComponent(id)}/lineage`);
  }
  search({ query, k, kinds, at }) {
    return this.call("POST", "search", { body: { query, k, kinds, as_of: at } });
  }
  page({ known, truth, kinds, limit, cursor }) {
    return this.call("GET", "timeline", { query: { known, true_at: truth, kind: kinds, limit, cursor } });
  }
  range() {
    return this.call("GET", "timeline/range");
  }
  act(what, id, body) {
    return this.call("POST", `memories/${encodeURIComponent(id)}/${what}`, { body });
  }
  forget(body) {
    return this.call("POST", "forget", { body });
  }
  revoke(body) {
    return this.call("POST", "revoke", { body });
  }
  undo(seq) {
    return this.call("POST", "undo", { body: { seq } });
  }
  quarantined({ limit, cursor }) {
    return this.call("GET", "quarantine", { query: { limit, cursor } });
  }
  audit({ before, action, limit }) {
    return this.call("GET", "audit", { query: { before, action, limit } });
  }
  receipts({ before, limit }) {
    return this.call("GET", "receipts", { query: { before, limit } });
  }
  receipt(seq) {
    return this.call("GET", `receipts/${seq}`);
  }
  async verify() {
    return (await this.call("POST", "verify", { scoped: false })).problems;
  }
  status() {
    return this.call("GET", "status");
  }
  async claims() {
    return (await this.call("GET", "claims", { scoped: false })).claims;
  }
  claim(n) {
    return this.call("GET", `claims/${n}`, { scoped: false });
  }
  async plot(n) {
    try {
      return await (await this.call("GET", `claims/${n}/plot`, { scoped: false, raw: true })).blob();
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  }

  /**
   * Status as it changes, until the returned function is called. An event source cannot carry a header, so the stream is read here.
   * `lost`: told the error of a call that was refused, and null where nobody answers; it is tried again either way, but for a key that
   * opens nothing.
   */
  watch({ status, lost }) {
    const stop = new AbortController();
    const listen = async () => {
      let pause = 500;
      while (!stop.signal.aborted) {
        let refused = null;
        try {
          const answer = await this.call("GET", "events", { raw: true, signal: stop.signal });
          await events(answer.body, (name, data) => {
            pause = 500;
            if (name === "status") status(data);
          });
        } catch (error) {
          if (error.status >= 400 && error.status < 500) refused = error;
        }
        if (stop.signal.aborted) return;
        lost(refused);
        if (refused?.status === 401) return;
        if (refused) pause = 10000;
        await new Promise((done) => setTimeout(done, pause));
        pause = Math.min(pause * 2, 2000);
      }
    };
    listen();
    return () => stop.abort();
  }
}

async function told(answer) {
  try {
    const body = await answer.json();
    const said = body.detail ?? body.error?.message ?? body.error ?? body.message ?? body.title;
    return typeof said === "string" ? said : JSON.stringify(said);
  } catch {
    return `The server answered ${answer.status}`;
  }
}

/** Read server-sent events from a stream. */
export async function events(stream, heard) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value.replace(/\r\n?/g, "\n");
    for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
      const fields = { event: "message", data: [] };
      for (const line of rest.slice(0, end).split("\n")) {
        const [, name, text] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
        if (name === "data") fields.data.push(text);
        else if (name) fields[name] = text;
      }
      if (fields.data.length) heard(fields.event, JSON.parse(fields.data.join("\n")));
    }
  }
}
