// Runs before the first paint (a classic script, since modules wait), so that a dark page never flashes white.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("pagoda.theme");
  } catch {
    // Storage is blocked: the system's theme applies.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
