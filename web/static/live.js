// Keeps a page up to date. The stream only says what changed; a section that shows such things is fetched again
// and put in place without losing focus, scroll position, open details or a selection.
(() => {
  "use strict";
  const sections = [...document.querySelectorAll("[data-live]")];
  const lamp = document.getElementById("live");
  const pause = document.getElementById("pause");
  const log = document.getElementById("log");
  if (!lamp) return;
  const run = document.body.dataset.run;
  // The answer to a form: it is the page of another address, where it can be looked at again.
  if (document.body.dataset.at) history.replaceState(null, "", document.body.dataset.at);
  const GAP = 700; // milliseconds between two fetches of one section, however much happens
  let source = null, paused = false, seen = null, slow = null;

  const say = (state, words) => { lamp.dataset.state = state; lamp.lastElementChild.textContent = words; };
  const address = (section) => { const url = new URL(location.href); url.hash = ""; url.searchParams.set("part", section.dataset.part); return url; };

  async function load(section) {
    if (section.busy) { section.again = true; return; }
    section.busy = true;
    try {
      const answer = await fetch(address(section), { credentials: "same-origin" });
      if (answer.status === 401) { location.reload(); return; }
      if (answer.ok) offer(section, await answer.text());
    } catch { /* the stream says that we are cut off */ }
    setTimeout(() => { section.busy = false; if (section.again) { section.again = false; load(section); } }, GAP);
  }

  // A list whose reader has scrolled, points at it or selects in it does not move: a pill says how much is new.
  function offer(section, html) {
    if (!("list" in section.dataset)) { if (!isHeld(section)) swap(section, html); return; }
    const fresh = freshIn(section, html);
    const top = section.getBoundingClientRect().top > 0 || scrollY < 60;
    if (fresh === 0 || (top && !isHeld(section) && !section.matches(":hover"))) { if (!isHeld(section)) swap(section, html); pill(section, 0); return; }
    pill(section, fresh, html);
  }
  function freshIn(section, html) {
    const known = new Set([...section.querySelectorAll("[data-id]")].map((row) => row.dataset.id));
    const page = new DOMParser().parseFromString(html, "text/html");
    return [...page.querySelectorAll("[data-id]")].filter((row) => !known.has(row.dataset.id)).length;
  }
  function pill(section, count, html) {
    section.pill?.remove();
    section.pill = null;
    if (!count) return;
    const button = document.createElement("button");
    button.type = "button"; button.className = "pill"; button.textContent = `${count}${count >= 50 ? "+" : ""} new`;
    button.addEventListener("click", () => { swap(section, html); pill(section, 0); scrollTo({ top: 0 }); });
    section.before(button);
    section.pill = button;
  }
  const isHeld = (section) => { const chosen = getSelection(); return chosen && !chosen.isCollapsed && section.contains(chosen.anchorNode); };

  function swap(section, html) {
    if (section.last === html) return;
    const known = section.last === undefined ? null : new Set([...section.querySelectorAll("[data-id]")].map((row) => row.dataset.id));
    const focused = section.contains(document.activeElement) ? pathTo(section, document.activeElement) : null;
    const open = new Map([...section.querySelectorAll("details[id]")].map((item) => [item.id, item.open]));
    const scrolled = [...section.querySelectorAll(".graph-scroll")].map((item) => [item.scrollLeft, item.scrollTop]);
    section.innerHTML = html;
    section.last = html;
    for (const [id, was] of open) { const item = document.getElementById(id); if (item) item.open = was; }
    section.querySelectorAll(".graph-scroll").forEach((item, i) => { if (scrolled[i]) [item.scrollLeft, item.scrollTop] = scrolled[i]; });
    if (focused) find(section, focused)?.focus({ preventScroll: true });
    if (known) for (const row of section.querySelectorAll("[data-id]")) row.classList.toggle("new", !known.has(row.dataset.id));
    document.dispatchEvent(new CustomEvent("pgsig:swapped", { detail: section }));
  }
  const pathTo = (section, element) => element.getAttribute("href") ? { href: element.getAttribute("href"), tag: element.tagName } : { index: [...section.querySelectorAll("a,button,input,summary,[tabindex]")].indexOf(element) };
  const find = (section, path) => path.href ? [...section.querySelectorAll(path.tag)].find((item) => item.getAttribute("href") === path.href) : section.querySelectorAll("a,button,input,summary,[tabindex]")[path.index];

  function pulse(keys) {
    const nodes = document.querySelectorAll(".graph [data-key]");
    for (const node of nodes) {
      if (!keys.some((key) => fits(node.dataset.key, key))) continue;
      node.classList.remove("pulse"); void node.getBoundingClientRect(); node.classList.add("pulse");
      setTimeout(() => node.classList.remove("pulse"), 1200);
    }
  }
  function fits(pattern, key) {
    const wanted = pattern.split("."), found = key.split(".");
    if (wanted.at(-1) === "**") { wanted.pop(); found.length = Math.min(found.length, wanted.length); }
    return wanted.length === found.length && wanted.every((part, i) => part === "*" || part === found[i]);
  }

  async function grow(last) {
    if (!log || log.busy || last <= Number(log.dataset.last)) return;
    log.busy = true;
    const url = new URL(location.pathname, location.origin);
    url.search = `part=log&after=${log.dataset.last}`;
    try {
      const answer = await fetch(url, { credentials: "same-origin" });
      const piece = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-last]");
      if (answer.ok && piece) {
        log.append(document.adoptNode(piece));
        log.dataset.last = piece.dataset.last;
        document.getElementById("log-empty")?.remove();
        if (document.getElementById("follow")?.checked) log.scrollTop = log.scrollHeight;
      }
    } catch { /* the next change tries again */ }
    log.busy = false;
    if (Number(log.dataset.last) < last && !paused) setTimeout(() => grow(last), GAP);
  }

  function changed(news) {
    for (const section of sections) {
      const topics = section.dataset.live.split(" ");
      if (!seen || topics.some((topic) => news[topic] !== seen[topic]) || (news.keys.length && topics.includes("signals"))) load(section);
    }
    if (seen && news.keys.length) pulse(news.keys);
    if (run) grow(news.log);
    seen = news;
  }

  function connect() {
    if (source || paused || document.hidden) return;
    source = new EventSource(run ? `/live?run=${run}` : "/live");
    // Live is said with the first change, which says how things are: what is committed before that cannot be told from what was there.
    source.addEventListener("change", (event) => { changed(JSON.parse(event.data)); say("on", "live"); clearInterval(slow); slow = null; });
    source.addEventListener("error", () => {
      say("lost", "reconnecting");
      // No place for a stream, or none for now: look every few seconds instead, and try again.
      if (source?.readyState === EventSource.CLOSED) { source = null; setTimeout(connect, 5000); }
      slow ??= setInterval(() => { if (!paused && !document.hidden) sections.forEach(load); }, 5000);
    });
  }
  function disconnect() { source?.close(); source = null; clearInterval(slow); slow = null; seen = null; }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Hold updates";
    if (paused) { disconnect(); say("paused", "paused"); } else connect();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) { disconnect(); } else connect(); });
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  for (const section of sections) if (section.dataset.every) setInterval(() => { if (!paused && !document.hidden) load(section); }, Number(section.dataset.every) * 1000);
  connect();
})();
