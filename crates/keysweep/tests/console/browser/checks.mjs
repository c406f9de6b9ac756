// Checks of one page: accessibility, and that everything fits its window. Pictures of it.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { THEMES, prepared, require } from "./window.mjs";

const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const { longHost, screenshots } = prepared;

/** What axe checks in each theme: the colors of a scheme once, and everything else in both layouts. */
const RULES = {
  light: {},
  dark: { runOnly: ["color-contrast"] },
  phone: { rules: { "color-contrast": { enabled: false } } },
};

/** Checks that nothing on a page is wider than its window, its panel or its table, with a long address in every row. */
async function assertFits(page, name) {
  const { overflow, wide, height, rows } = await page.evaluate((host) => {
    const codes = [...document.querySelectorAll(".cards th[scope=row] code, .head code")];
    const texts = codes.map((code) => code.textContent);
    codes.forEach((code) => (code.textContent = `rediss://${host}:6379`));
    const isWide = (part) => {
      const inner = part.getBoundingClientRect().right - parseFloat(getComputedStyle(part).paddingRight) + 1;
      const tables = [...part.querySelectorAll("table")];
      return part.scrollWidth > part.clientWidth || tables.some((table) => table.getBoundingClientRect().right > inner);
    };
    const wide = [...document.querySelectorAll(".panel, .scroll")].filter(isWide);
    const header = document.querySelector("header.top");
    const tops = header ? [...header.children].map((part) => Math.round(part.getBoundingClientRect().top / 20)) : [0];
    const found = {
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      wide: wide.map((part) => part.id || part.ariaLabel || part.className),
      height: header?.offsetHeight ?? 0,
      rows: Math.max(...tops) - Math.min(...tops),
    };
    codes.forEach((code, index) => (code.textContent = texts[index]));
    return found;
  }, longHost);
  assert.ok(overflow <= 0, `${name}: ${overflow} pixels wider than the window`);
  assert.deepEqual(wide, [], `${name}: these parts are narrower than their content`);
  assert.ok(height < 70 && rows <= 1, `${name}: the header is one row, not ${height} pixels high`);
}

/** Checks that a page has no serious accessibility fault and fits its window, in every theme. Takes screenshots if asked to. */
export async function inspect(page, name) {
  await page.evaluate(axe);
  for (const [theme, { colorScheme, viewport }] of Object.entries(THEMES)) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    const { violations } = await page.evaluate((rules) => window.axe.run({ ...rules, resultTypes: ["violations"] }), RULES[theme]);
    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    const faults = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
    assert.deepEqual(faults, [], `${name}, ${theme}`);
    await assertFits(page, `${name}, ${theme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(THEMES.light.viewport);
  if (name !== "scanning") await photograph(page, name);
}

/** Checks that a list is short cards on a phone: at most `most` of them, none higher than `height` pixels, and no more than `mean` on average. */
export async function inspectCards(page, list, { most, height, mean }) {
  await page.setViewportSize(THEMES.phone.viewport);
  assert.ok(!(await page.locator(`${list} thead`).isVisible()), "the list is cards on a phone");
  const heights = await page.locator(`${list} tbody tr`).evaluateAll((rows) => rows.map((row) => row.offsetHeight));
  const sum = heights.reduce((sum, height) => sum + height, 0);
  assert.ok(heights.length > 10 && heights.length <= most, `${list}: ${heights.length} cards`);
  assert.ok(Math.max(...heights) <= height && sum <= mean * heights.length, `${list}: ${sum} pixels: ${heights}`);
  await page.setViewportSize(THEMES.light.viewport);
}

/** Checks that a page fits its window at every width. */
export async function inspectWidths(page, name) {
  for (const [theme, { viewport }] of Object.entries(THEMES)) {
    await page.setViewportSize(viewport);
    // Charts follow the window in the next frames.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));
    await assertFits(page, `${name}, ${theme}`);
  }
  await page.setViewportSize(THEMES.light.viewport);
}

/** Takes screenshots of a page in every theme, if asked to. */
export async function photograph(page, name) {
  if (!screenshots) return;
  mkdirSync(screenshots, { recursive: true });
  for (const [theme, { colorScheme, viewport }] of Object.entries(THEMES)) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    await page.screenshot({ path: join(screenshots, `${name}-${theme}.png`), fullPage: theme === "phone" });
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(THEMES.light.viewport);
}
