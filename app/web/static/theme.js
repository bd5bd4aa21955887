// Loaded before anything is drawn, so that a page never flashes in the other colours.
try {
  const chosen = localStorage.getItem("reprise-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that keeps nothing goes by the system.
}
