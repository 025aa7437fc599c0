// Small comforts that a page also works without: relative times that move on, the theme, copying, sending a form once, keys.
(() => {
  "use strict";
  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const words = (date) => {
    const gone = (Date.now() - date.getTime()) / 1000, size = Math.floor(Math.abs(gone));
    if (size < 1) return "now";
    const [unit, name] = UNITS.find(([seconds]) => size >= seconds);
    const text = `${Math.floor(size / unit)} ${name}`;
    return gone > 0 ? `${text} ago` : `in ${text}`;
  };
  const tick = () => document.querySelectorAll("time[datetime]").forEach((item) => { const text = words(new Date(item.dateTime)); if (item.textContent !== text) item.textContent = text; });
  setInterval(() => { if (!document.hidden) tick(); }, 1000);

  const theme = document.getElementById("theme");
  const root = document.documentElement;
  const order = { "": "dark", dark: "light", light: "" };
  const show = () => { const now = root.dataset.theme ?? ""; theme.textContent = { "": "◐", dark: "●", light: "○" }[now]; const name = `Colours: ${now || "as the system"}`; theme.title = name; theme.setAttribute("aria-label", name); };
  if (theme) {
    theme.hidden = false;
    show();
    theme.addEventListener("click", () => {
      const next = order[root.dataset.theme ?? ""];
      if (next) root.dataset.theme = next; else delete root.dataset.theme;
      try { if (next) localStorage.setItem("pgsig-theme", next); else localStorage.removeItem("pgsig-theme"); } catch { /* not kept, still applied */ }
      show();
    });
  }

  // Browsers offer navigator.clipboard only over https and on loopback; elsewhere a selection does.
  const copy = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* the other way */ }
    const area = document.createElement("textarea");
    area.value = text; document.body.append(area); area.select();
    try { return document.execCommand("copy"); } finally { area.remove(); }
  };
  root.dataset.script = "on";  // shows the buttons that need one, also in parts that are fetched later
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    button.textContent = await copy(button.dataset.copy) ? "Copied" : "Select it by hand";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });

  document.querySelectorAll("form[data-once]").forEach((form) => form.addEventListener("submit", (event) => {
    if (form.sent) { event.preventDefault(); return; }
    form.sent = true;
    setTimeout(() => form.querySelectorAll("button").forEach((button) => { button.disabled = true; }));
  }));
  addEventListener("pageshow", () => document.querySelectorAll("form[data-once]").forEach((form) => { form.sent = false; form.querySelectorAll("button").forEach((button) => { button.disabled = false; }); }));

  const log = document.getElementById("log");
  if (log) {
    log.scrollTop = log.scrollHeight;
    document.getElementById("wrap")?.addEventListener("change", (event) => log.classList.toggle("long", !event.target.checked));
    log.addEventListener("scroll", () => { const follow = document.getElementById("follow"); if (follow && log.scrollHeight - log.scrollTop - log.clientHeight > 40) follow.checked = false; });
  }
  const GO = { g: "/", o: "/operators", s: "/signals", r: "/runs", a: "/actions", w: "/processes" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    if (event.key === "/") { const search = document.getElementById("search"); if (search) { event.preventDefault(); search.focus(); } else location.assign("/signals"); }
    else if (GO[event.key]) location.assign(GO[event.key]);
  });
})();
