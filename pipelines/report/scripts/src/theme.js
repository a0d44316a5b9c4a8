import { byId, drawn } from "./elements.js";

// Light, dark, or as the system has it. A page inside a sandbox may keep nothing: then the choice lasts as long as it.
/** @typedef {keyof typeof THEME_ICONS} Theme */

const THEME_ICONS = {
  system: "M8 2a6 6 0 1 0 0 12 6 6 0 0 0 0-12Z",
  light:
    "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6ZM8 1v1.6M8 13.4V15M1 8h1.6M13.4 8H15M3 3l1.2 1.2M11.8 11.8 13 13M3 13l1.2-1.2M11.8 4.2 13 3",
  dark: "M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1Z",
};
const THEME_WORDS = { system: "as the system has them", light: "light", dark: "dark" };

/** @returns {Theme} */
function keptTheme() {
  try {
    const kept = localStorage.getItem("calm-bench-theme") ?? "";
    return kept in THEME_ICONS ? /** @type {Theme} */ (kept) : "system";
  } catch {
    return "system";
  }
}

export function startTheme() {
  const button = byId("theme");
  let theme = keptTheme();
  function apply() {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    const icon = drawn(
      "svg",
      { viewBox: "0 0 16 16", "aria-hidden": "true" },
      drawn("path", { d: THEME_ICONS[theme] }),
      ...(theme === "system" ? [drawn("path", { d: "M8 2a6 6 0 1 0 0 12Z", class: "half" })] : []),
    );
    button.replaceChildren(icon);
    button.setAttribute("aria-label", `Colours: ${THEME_WORDS[theme]}. Change`);
  }
  button.addEventListener("click", () => {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    // The first press always changes what is seen.
    /** @type {Theme[]} */
    const order = isDark ? ["system", "light", "dark"] : ["system", "dark", "light"];
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try {
      localStorage.setItem("calm-bench-theme", theme);
    } catch {
      // Nothing is kept.
    }
    apply();
  });
  apply();
}
