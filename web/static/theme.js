// Before the first paint: the theme that was chosen here. Without a choice the system's applies.
(() => {
  const chosen = (() => { try { return localStorage.getItem("pgsig-theme"); } catch { return null; } })();
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
