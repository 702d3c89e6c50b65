// The console's page. It uses the plain DOM without a build step. All text is in text nodes, so that no payload can become markup.

import { address, decoded, dueText, memberTexts, pretty } from "./text.js";

const main = document.getElementById("main");
const STATES = ["active", "waiting", "delayed", "suspended", "completed"];
const REFRESH_MS = 2000;
const HISTORY_MS = 20000;
const RETRY_MS = 5000;
const PAGE = 50;
const MAX_ROWS = 1000; // the limit of a page of the API

// Elements

function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

function svg(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = new Intl.NumberFormat("en");
const count = (n) => number.format(n);

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

function ago(iso) {
  if (!iso) return "–";
  const seconds = (Date.now() - new Date(iso)) / 1000;
  const about = duration(Math.round(Math.abs(seconds))).replace(".0", "").split(" ").slice(0, 2).join(" ");
  const text = Math.abs(seconds) < 3 ? "just now" : seconds < 0 ? `in ${about}` : `${about} ago`;
  return h("time", { datetime: iso, title: new Date(iso).toLocaleString() }, text);
}

function due(iso) {
  const time = ago(iso);
  time.dataset.due = "";
  time.textContent = dueText(time.textContent);
  return time;
}

const timeText = (time) => ("due" in time.dataset ? due : ago)(time.dateTime).textContent;

const label = (name, value, props = {}) => h("td", { "data-label": name, ...props }, value);
const amount = (name, n, kind = "") =>
  label(name, h("span", { class: n ? kind : "zero" }, count(n)), { class: "num" });
const badge = (state) => h("span", { class: `state ${state}` }, state);

// Unchanged rows keep their elements, so that focus, selection and open details survive a refresh.
function patch(parent, items, keyOf, build) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const key = String(keyOf(item));
    const signature = JSON.stringify(item);
    const known = old.get(key);
    if (known && known.signature === signature) {
      for (const time of known.querySelectorAll("time")) time.textContent = timeText(time);
      return known;
    }
    const fresh = build(item);
    fresh.dataset.key = key;
    fresh.signature = signature;
    return fresh;
  });
  if (wanted.length !== parent.children.length || wanted.some((child, i) => parent.children[i] !== child)) {
    parent.replaceChildren(...wanted);
  }
}

// A focused element that is replaced keeps the focus: links by their address, buttons by `data-focus`.
function keepingFocus(change) {
  const focused = document.activeElement;
  const name = ["data-focus", "href"].find((each) => focused?.hasAttribute(each));
  const value = name && focused.getAttribute(name);
  change();
  if (name && !focused.isConnected) focusOn(name, value);
}

function focusOn(name, value) {
  [...main.querySelectorAll(`[${name}]`)].find((each) => each.getAttribute(name) === value)?.focus();
}

// The API

class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.error || `the console answered ${status}`);
    this.status = status;
  }
}

const token = {
  get: () => sessionStorage.getItem("token"),
  set: (value) => (value ? sessionStorage.setItem("token", value) : sessionStorage.removeItem("token")),
};

async function call(path, { method = "GET", body, signal, asText = false } = {}) {
  const headers = { Authorization: `Bearer ${token.get() ?? ""}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {
    method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store",
  });
  const text = await answer.text();
  const content = parsed(text);
  if (!answer.ok) throw new Problem(answer.status, content);
  return asText ? { ...content, texts: memberTexts(text) } : content;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

const at = (queue, rest = "") => `api/queues/${encodeURIComponent(queue)}${rest}`;
const atJob = (id) => `api/jobs/${encodeURIComponent(id)}`;
const toQueue = (queue, state = "") => `#/queues/${encodeURIComponent(queue)}${state ? `/${state}` : ""}`;
const toJob = (id) => `#/jobs/${encodeURIComponent(id)}`;

function toast(text) {
  const line = h("p", {}, text);
  document.getElementById("toasts").append(line);
  setTimeout(() => line.remove(), 6000);
}

function confirmed(title, text, yes) {
  const dialog = document.getElementById("confirm");
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

// A button that calls the server, shows the result, and refreshes the view.
function action(text, act, { kind = "", ask, ...props } = {}) {
  const button = h("button", { type: "button", class: kind, ...props }, text);
  let busy = false;
  button.addEventListener("click", async () => {
    if (ask && !(await confirmed(...ask))) return;
    button.setAttribute("aria-disabled", "true"); // `disabled` would lose the focus
    if (busy) return;
    busy = true;
    try {
      toast(await act());
    } catch (problem) {
      if (problem.status === 401) return signIn();
      toast(problem.message);
    }
    busy = false;
    button.removeAttribute("aria-disabled");
    await view?.refresh();
  });
  return button;
}

function pauseButton(queue) {
  const name = queue.name;
  if (queue.paused) {
    return action("Resume", async () => {
      await call(at(name, "/resume"), { method: "POST" });
      return `${name} goes on`;
    }, { "aria-label": `Resume ${name}`, "data-focus": `pause ${name}` });
  }
  return action("Pause", async () => {
    await call(at(name, "/pause"), { method: "POST", body: { note: `in the console, ${new Date().toISOString()}` } });
    return `${name} is paused; running jobs go on`;
  }, { "aria-label": `Pause ${name}`, "data-focus": `pause ${name}` });
}

const jobs = (n) => `${count(n)} job${n === 1 ? "" : "s"}`;

async function replay(queue, which) {
  const done = await call(at(queue, "/dead/replay"), { method: "POST", body: which });
  const left = done.unknown.length + done.live.length + done.bare.length;
  return `${jobs(done.replayed)} sent again${left ? `; ${count(left)} could not be` : ""}`;
}

async function discard(queue, which) {
  const done = await call(at(queue, "/dead/discard"), { method: "POST", body: which });
  return `${count(done.discarded)} dead letter${done.discarded === 1 ? "" : "s"} discarded`;
}

const askDiscard = (what) =>
  ["Discard dead letters?", `${what} will be removed and can't be sent again.`, "Discard"];

// History: a bar per minute, with failures on top of completions

function spark(history, wide = false) {
  const bad = history.retried.map((n, i) => n + history.dead[i]);
  const total = history.completed.map((n, i) => n + bad[i]);
  const top = Math.max(1, ...total);
  const done = history.completed.reduce((a, b) => a + b, 0);
  const failed = bad.reduce((a, b) => a + b, 0);
  const text = `Last ${history.minutes} minutes: ${jobs(done)} completed, ${count(failed)} failed attempts`;
  const height = 40;
  const bars = total.flatMap((n, i) => {
    if (!n) return [];
    const whole = Math.max(1.5, (n / top) * (height - 1));
    const part = bad[i] ? Math.max(1.5, (bad[i] / n) * whole) : 0;
    return [
      svg("rect", { class: "ok", x: i * 4, y: height - 1 - whole, width: 3, height: Math.max(0, whole - part) }),
      svg("rect", { class: "bad", x: i * 4, y: height - 1 - part, width: 3, height: part }),
    ];
  });
  const base = svg("rect", { class: "base", x: 0, y: height - 1, width: total.length * 4, height: 1 });
  const picture = svg("svg", {
    class: wide ? "spark wide" : "spark", role: "img", "aria-label": text, preserveAspectRatio: "none",
    viewBox: `0 0 ${total.length * 4} ${height}`,
  }, svg("title", {}, document.createTextNode(text)), base, ...bars);
  return wide
    ? h("figure", { class: "card pad" }, picture,
        h("figcaption", { class: "legend" }, h("span", {}, h("i"), `completed ${count(done)}`),
          h("span", {}, h("i", { class: "bad" }), `failed attempts ${count(failed)}`),
          h("span", {}, `a bar a minute, ${history.minutes} minutes; highest ${count(Math.max(...total))}`)))
    : picture;
}

// Views: { title, build() once, load() -> data, show(data) on every refresh }

const headings = (...names) =>
  h("thead", {}, h("tr", {}, names.map(([name, kind]) => h("th", { scope: "col", class: kind }, name))));

function table(caption, names) {
  const body = h("tbody");
  const note = h("p", { class: "note" }, "Loading…");
  const whole = h("table", { class: "stack", hidden: true }, h("caption", { class: "hidden" }, caption),
    headings(...names), body);
  const show = (items, keyOf, build, empty) => {
    whole.hidden = items.length === 0;
    note.hidden = items.length > 0;
    note.textContent = empty;
    patch(body, items, keyOf, build);
  };
  // The request failed. Earlier data stays; without it, the note shows the text.
  const fail = (text) => {
    if (whole.hidden) note.textContent = text;
  };
  return { element: h("div", { class: "card" }, whole, note), show, fail };
}

function queuesView() {
  const rows = table("Queues", [
    ["Queue"], ["Waiting", "num"], ["Active", "num"], ["Delayed", "num"], ["Completed", "num"], ["Dead", "num"],
    ["Busy slots", "num"], ["Oldest waits", "num"], ["Last hour"], [h("span", { class: "hidden" }, "Actions")],
  ]);
  const histories = new Map();
  let read = 0;
  const readHistories = async (queues, signal) => {
    if (Date.now() - read < HISTORY_MS) return;
    read = Date.now();
    const readable = queues.filter((queue) => !queue.problem).slice(0, 100);
    const found = await Promise.all(readable.map((queue) => call(at(queue.name, "/history"), { signal })));
    found.forEach((history, i) => histories.set(readable[i].name, history));
  };
  const unread = (queue) => h("tr", {},
    h("th", { scope: "row", class: "wrap" }, queue.name),
    h("td", { class: "dead wrap full", colspan: 9 }, `It can't be read: ${queue.problem}`));
  const row = ({ queue, history }) => queue.problem ? unread(queue) : h("tr", {},
    h("th", { scope: "row", class: "wrap" }, h("a", { href: toQueue(queue.name) }, queue.name),
      queue.paused && [" ", badge("paused")]),
    amount("Waiting", queue.waiting, "waiting"), amount("Active", queue.active, "active"),
    amount("Delayed", queue.delayed, "delayed"), amount("Completed", queue.completed),
    label("Dead", queue.dead
      ? h("a", { class: "dead", href: toQueue(queue.name, "dead"), "aria-label": `${queue.dead} dead letters` },
          count(queue.dead))
      : h("span", { class: "zero" }, "0"), { class: "num" }),
    label("Busy slots", queue.workers.length ? `${queue.busy} of ${queue.slots}` : "no workers", { class: "num dim" }),
    label("Oldest waits", duration(queue.oldestWaitingSeconds), { class: "num dim" }),
    label("Last hour", history ? spark(history) : "", { class: "full" }),
    h("td", { class: "full" }, h("div", { class: "actions right" }, pauseButton(queue))));
  return {
    title: "Queues",
    build: () => [h("div", { class: "head" }, h("h1", {}, "Queues")), rows.element],
    load: async (signal) => {
      const { queues } = await call("api/queues", { signal });
      await readHistories(queues, signal);
      return queues.map((queue) => ({ queue: round(queue), history: histories.get(queue.name) }));
    },
    show: (queues) => rows.show(queues, ({ queue }) => queue.name, row,
      "No queue yet. Send a job: agentqueue submit QUEUE JOB '{…}'"),
    fail: rows.fail,
  };
}

// Values that change with every refresh would rebuild the row. Tenths of a second are not useful here.
function round(queue) {
  return {
    ...queue, nextDueSeconds: null,
    oldestWaitingSeconds: queue.oldestWaitingSeconds === null ? null : Math.ceil(queue.oldestWaitingSeconds),
    workers: queue.workers.map((worker) => ({ ...worker, seenSecondsAgo: null })),
  };
}

function tiles(queue) {
  const tile = (name, value, note) => h("div", {}, h("dt", {}, name), h("dd", {}, value, note && h("small", {}, ` ${note}`)));
  const levels = Object.entries(queue.byPriority).filter(([, n]) => n).map(([level, n]) => `${count(n)} ${level}`);
  return [
    tile("Waiting", count(queue.waiting), levels.join(", ")), tile("Active", count(queue.active)),
    tile("Delayed", count(queue.delayed)), ...(queue.suspended ? [tile("Suspended", count(queue.suspended))] : []),
    tile("Completed", count(queue.completed), `${queue.completedPerMinute}/min`),
    tile("Dead", count(queue.dead)),
    tile("Workers", count(queue.workers.length), `${queue.busy} of ${queue.slots} slots busy`),
    tile("Oldest waits", duration(queue.oldestWaitingSeconds)),
  ];
}

function queueHead(name) {
  const state = h("span");
  const buttons = h("div", { class: "actions" });
  const numbers = h("dl", { class: "tiles" });
  const chart = h("div");
  let shown = "";
  return {
    elements: (tab) => [
      h("p", { class: "crumbs" }, h("a", { href: "#/" }, "Queues"), " / ", name),
      h("div", { class: "head" }, h("h1", {}, name), state, buttons), numbers, chart,
      h("nav", { class: "tabs", "aria-label": "Jobs by state" },
        [["", "live"], ...STATES.map((each) => [each, each]), ["dead", "dead letters"]].map(([key, text]) =>
          h("a", { href: toQueue(name, key), "aria-current": key === tab ? "page" : null }, text))),
    ],
    show: (queue, history) => {
      numbers.replaceChildren(...tiles(queue));
      if (history) chart.replaceChildren(spark(history, true));
      const now = `${queue.paused} ${queue.pausedNote}`;
      if (now === shown) return;
      shown = now;
      state.replaceChildren(...(queue.paused ? [badge("paused"), ` ${queue.pausedNote ?? ""}`] : []));
      buttons.replaceChildren(pauseButton(queue));
    },
  };
}

function timed(name) {
  let read = 0;
  let known = null;
  return async (signal) => {
    if (Date.now() - read >= HISTORY_MS) {
      known = await call(at(name, "/history"), { signal });
      read = Date.now();
    }
    return known;
  };
}

function queueView(name, state) {
  const head = queueHead(name);
  const history = timed(name);
  const rows = table(`Jobs of ${name}`, [
    ["Job"], ["Name"], ["State"], ["Priority"], ["Attempts", "num"], ["When"], ["Progress or error"],
  ]);
  const more = h("div", { class: "more", hidden: true }, h("button", { type: "button" }, "Show more"));
  let limit = PAGE; // each refresh requests all shown rows again
  const path = () => at(name, `/jobs?state=${encodeURIComponent(state)}&limit=${limit}`);
  const row = (job) => h("tr", {},
    h("th", { scope: "row", class: "mono wrap" }, h("a", { href: toJob(job.id) }, job.id)),
    label("Name", job.name || "–", { class: "wrap" }), label("State", badge(job.state)),
    label("Priority", job.priority), label("Attempts", String(job.attempts), { class: "num" }),
    label("When", job.dueAt ? due(job.dueAt) : ago(job.finishedAt ?? job.startedAt ?? job.enqueuedAt)),
    label("Progress or error", job.error ?? (job.waitsFor && `waits for ${job.waitsFor}`) ?? (job.progress ? `${job.progress.percent} % ${job.progress.message ?? ""}` : ""),
      { class: "wrap full" }));
  more.firstChild.addEventListener("click", () => {
    limit = Math.min(limit + PAGE, MAX_ROWS);
    view?.refresh();
  });
  rows.element.append(more);
  return {
    title: name,
    build: () => [...head.elements(state), rows.element],
    load: async (signal) => Promise.all([call(at(name), { signal }), history(signal), call(path(), { signal })]),
    show: ([queue, past, page]) => {
      head.show(queue, past);
      rows.show(page.jobs, (job) => job.id, row, state ? `No ${state} jobs.` : "Nothing waits, runs or is due.");
      more.hidden = page.cursor === null;
      if (limit < MAX_ROWS) return;
      more.replaceChildren(`${count(MAX_ROWS)} are shown; the command line lists more: agentqueue jobs ${name} --cursor ${page.cursor}`);
    },
    fail: rows.fail,
  };
}

function deadView(name) {
  const head = queueHead(name);
  const history = timed(name);
  const all = h("div", { class: "actions right pad" },
    action("Replay all", () => replay(name, { all: true }), {
      kind: "main", ask: ["Send all again?", `All dead letters of ${name} go back to the queue's end.`, "Replay all"],
    }),
    action("Discard all", () => discard(name, { all: true }), { kind: "danger", ask: askDiscard(`All dead letters of ${name}`) }));
  const rows = table(`Dead letters of ${name} by kind`, [
    ["Last error", "grow"], ["Count", "num"], ["Reason"], ["Job"], ["Newest"], [h("span", { class: "hidden" }, "Actions")],
  ]);
  const row = (group) => h("tr", {},
    h("th", { scope: "row", class: "wrap" }, h("a", { href: toJob(group.newest.id) }, group.newest.error)),
    amount("Count", group.count, "dead"), label("Reason", group.newest.reason), label("Job", group.newest.name || "–"),
    label("Newest", ago(group.newest.diedAt)),
    h("td", { class: "full" }, h("div", { class: "actions right" },
      action("Replay", () => replay(name, { like: group.fingerprint }), {
        "aria-label": `Replay the ${jobs(group.count)} like ${group.newest.error}`, "data-focus": `replay ${group.fingerprint}`,
      }),
      action("Discard", () => discard(name, { like: group.fingerprint }), {
        kind: "danger", ask: askDiscard(`All ${count(group.count)} of this kind`), "data-focus": `discard ${group.fingerprint}`,
        "aria-label": `Discard the ${jobs(group.count)} like ${group.newest.error}`,
      }))));
  return {
    title: `${name}: dead letters`,
    build: () => [...head.elements("dead"), rows.element, all],
    load: async (signal) =>
      Promise.all([call(at(name), { signal }), history(signal), call(at(name, "/dead/groups"), { signal })]),
    show: ([queue, past, { groups }]) => {
      head.show(queue, past);
      all.hidden = groups.length === 0;
      rows.show(groups, (group) => group.fingerprint, row, "No dead letters. All is well.");
    },
    fail: rows.fail,
  };
}

function facts(job) {
  const fact = (name, value) => [h("dt", {}, name), h("dd", {}, value)];
  const took = job.startedAt && job.finishedAt ? (new Date(job.finishedAt) - new Date(job.startedAt)) / 1000 : null;
  return h("dl", { class: "facts" },
    fact("Queue", h("a", { href: toQueue(job.queue, job.state === "dead" ? "dead" : "") }, job.queue)),
    fact("Job", job.name || "–"), fact("Priority", job.priority),
    fact("Attempts", `${job.attempts} (started ${job.deliveries} time${job.deliveries === 1 ? "" : "s"})`),
    fact("Enqueued", ago(job.enqueuedAt)), job.dueAt && fact("Due", due(job.dueAt)), job.waitsFor && fact("Waits for", job.waitsFor), fact("Started", ago(job.startedAt)),
    fact("Finished", job.finishedAt ? [ago(job.finishedAt), took === null ? "" : `, took ${duration(took)}`] : "–"),
    fact("Worker", job.worker ?? "–"),
    job.steps?.length && fact("Steps", h("ol", {}, job.steps.map((step) => h("li", {}, `${step.name}: ${step.outcome}, ${duration(step.ms / 1000)}${step.error ? `, ${step.error}` : ""}`)))),
    job.progress && fact("Progress", [
      h("progress", { max: 100, value: job.progress.percent, "aria-label": "Progress" }),
      ` ${job.progress.percent} % ${job.progress.message ?? ""}`]));
}

function jobActions(job) {
  if (job.state === "dead") {
    return [
      action("Replay", () => replay(job.queue, { ids: [job.id] }), { kind: "main" }),
      action("Discard", () => discard(job.queue, { ids: [job.id] }), { kind: "danger", ask: askDiscard("This dead letter") }),
    ];
  }
  if (["completed", "cancelled"].includes(job.state)) return [];
  return [action("Cancel", async () => {
    const done = await call(atJob(job.id), { method: "DELETE" });
    return done.cancellation === "requested" ? "its worker will cancel it within a second" : "cancelled";
  }, { kind: "danger", ask: ["Cancel this job?", `${job.name} ${job.id} will not run to its end.`, "Cancel the job"] })];
}

function attempt(error) {
  const title = error.attempt ? `Attempt ${error.attempt}` : "A worker died";
  const line = h("span", {}, h("strong", {}, title), " ", ago(error.at), h("br"), `${error.type}: ${error.message}`);
  return error.traceback
    ? h("details", {}, h("summary", {}, line), h("pre", {}, error.traceback))
    : h("details", { open: true }, h("summary", {}, line));
}

function jobView(id) {
  const body = h("div", {}, h("p", { class: "note" }, "Loading…"));
  const build = (job) => h("div", {},
    h("div", { class: "head" }, h("h1", { class: "mono" }, job.id), badge(job.state), h("div", { class: "actions" }, jobActions(job))),
    job.error && h("div", { class: "alert" }, job.error),
    h("div", { class: "card pad" }, facts(job)),
    h("h2", {}, "Payload"), h("div", { class: "card" }, h("pre", { tabindex: 0, "aria-label": "Payload" }, pretty(job.texts.data))),
    job.state === "completed" && [h("h2", {}, "Result"),
      h("div", { class: "card" }, h("pre", { tabindex: 0, "aria-label": "Result" }, pretty(job.texts.result)))],
    job.errors.length > 0 && [h("h2", {}, "Attempts that failed"), h("div", { class: "card" }, job.errors.map(attempt))]);
  return {
    title: id,
    build: () => [h("p", { class: "crumbs" }, h("a", { href: "#/" }, "Queues"), " / job"), body],
    load: (signal) => call(atJob(id), { signal, asText: true }),
    show: (job) => patch(body, [job], () => id, build),
    fail: (text) => {
      if (body.firstChild.className === "note") body.firstChild.textContent = text;
    },
  };
}

// Signing in

function signIn(wrong = false) {
  leave();
  const input = h("input", { id: "token", type: "password", required: true, autocomplete: "current-password" });
  const form = h("form", {}, h("h1", {}, "AgentQueue console"),
    h("label", { for: "token" }, "Token"), input,
    h("p", { class: "dim" }, "The token in AGENTQUEUE_CONSOLE_TOKEN, or the one that the console printed at its start."),
    wrong && h("p", { class: "alert", role: "alert" }, "This is not the token."),
    h("button", { class: "main" }, "Sign in"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    route();
  });
  main.replaceChildren(h("div", { class: "card pad login" }, form));
  document.getElementById("sign-out").hidden = true;
  input.focus();
}

// Refresh

let view = null;

function leave() {
  view?.stop();
  view = null;
}

function enter(made) {
  leave();
  const stop = new AbortController();
  const trouble = h("div", { class: "alert", role: "alert", hidden: true });
  let timer = 0;
  let busy = false;
  const look = async () => {
    if (busy || stop.signal.aborted) return;
    clearTimeout(timer);
    busy = true;
    let next = REFRESH_MS;
    try {
      const data = await made.load(stop.signal);
      if (stop.signal.aborted) return;
      keepingFocus(() => made.show(data));
      trouble.hidden = true;
      tellHealth(true);
    } catch (problem) {
      if (stop.signal.aborted) return;
      if (problem.status === 401) return signIn(Boolean(token.get()));
      trouble.textContent = problem instanceof Problem ? problem.message : "The console does not respond. Trying again.";
      trouble.hidden = false;
      made.fail?.(problem.status === 404 ? "There is nothing to show." : "Nothing could be read.");
      tellHealth(problem.status === 404);
      next = RETRY_MS;
    } finally {
      busy = false;
    }
    timer = setTimeout(look, document.hidden ? next * 10 : next);
  };
  view = { refresh: look, stop: () => { stop.abort(); clearTimeout(timer); } };
  document.title = `${made.title} – AgentQueue`;
  document.getElementById("sign-out").hidden = false;
  main.replaceChildren(trouble, ...made.build());
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  look();
}

function tellHealth(good) {
  const health = document.getElementById("health");
  const text = good ? "live" : "not connected";
  health.classList.toggle("bad", !good);
  if (health.textContent !== text) health.textContent = text;
}

function route() {
  const given = location.hash.match(/^#token=(.+)$/);
  if (given) {
    token.set(decoded(given[1]));
    history.replaceState(null, "", "#/"); // removes the token from the address bar and the history
  }
  if (!token.get()) return signIn();
  const parts = address(location.hash);
  if (parts === null) return enter(noPage());
  const [place, name, state] = parts;
  if (place === "jobs" && name) return enter(jobView(name));
  if (place === "queues" && name) return enter(state === "dead" ? deadView(name) : queueView(name, state ?? ""));
  return enter(place && place !== "queues" ? noPage() : queuesView());
}

function noPage() {
  return {
    title: "No such page",
    build: () => [h("h1", {}, "No such page"), h("p", {}, "The console has no page at this address. ",
      h("a", { href: "#/" }, "To the queues"))],
    load: async () => null,
    show: () => {},
  };
}

document.getElementById("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = document.getElementById("find-id").value.trim();
  if (id) location.hash = toJob(id);
});
document.getElementById("sign-out").addEventListener("click", () => {
  token.set(null);
  signIn();
});
document.addEventListener("visibilitychange", () => document.hidden || view?.refresh());
window.addEventListener("hashchange", () => location.hash === "#main" || route());
route();
