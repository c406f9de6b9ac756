// The charts of an instance.
import assert from "node:assert/strict";

import { THEMES } from "./window.mjs";

/** Checks the charts of an instance: drawn, operated with the keyboard, at every width, and as a table. */
export async function inspectCharts(page) {
  const slider = page.getByRole("slider", { name: "Time in the charts" });
  const tip = page.locator("#plots .tip");
  const rows = page.locator("#trend-data tbody tr");
  await slider.waitFor();
  assert.equal(await page.locator("#plots canvas").count(), 3, "stale share, used memory, reclaimed keys");
  assert.equal(await page.locator("#trend-data details").getAttribute("open"), null, "the table is folded beside the charts");
  const last = (await rows.count()) - 1;
  assert.ok(last > 190, `${last} rows`);
  const blank = await page.evaluate(() =>
    [...document.querySelectorAll("#plots canvas")].filter((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return !data.some((byte, index) => index % 4 === 3 && byte > 0);
    }).length,
  );
  assert.equal(blank, 0, "every chart is drawn");
  const cell = (row, index) => rows.nth(row).locator("th, td").nth(index).textContent();
  const says = async (row) => {
    const text = await slider.getAttribute("aria-valuetext");
    assert.ok(text.startsWith(await cell(row, 0)), `${text} is row ${row}`);
    assert.ok(await tip.isVisible());
    assert.equal(await tip.locator("strong").textContent(), await cell(row, 0));
    const { left, right } = await tip.evaluate((element) => element.getBoundingClientRect());
    assert.ok(left >= 0 && right <= page.viewportSize().width, `the tooltip leaves the window: ${left} to ${right}`);
    return text;
  };
  for (const { viewport } of Object.values(THEMES)) {
    await page.setViewportSize(viewport);
    await page.waitForFunction(() => {
      const [track, plot] = [".track", ".uplot"].map((name) => document.querySelector(name).getBoundingClientRect().width);
      return Math.abs(track - plot) <= 1;
    });
    await slider.focus();
    await page.keyboard.press("Home");
    assert.match(await says(last), /Stale share: [\d.]+\s±/);
    await page.keyboard.press("ArrowRight");
    await says(last - 1);
    await page.keyboard.press("End");
    await page.keyboard.press("PageUp");
    assert.notEqual(await slider.getAttribute("aria-valuenow"), String(last));
    await page.keyboard.press("End");
    await says(0);
    await page.keyboard.press("ArrowLeft");
    await says(1);
    // A window of another size moves the tooltip along.
    const { width, height } = viewport;
    await page.setViewportSize({ width: width - 60, height });
    await page.waitForFunction(() => {
      const [tip, plot] = [".tip", ".u-over"].map((name) => document.querySelector(name).getBoundingClientRect());
      return plot.right <= innerWidth && tip.right <= plot.right;
    });
    await page.setViewportSize(viewport);
    await page.keyboard.press("Escape");
    assert.ok(!(await tip.isVisible()));
  }
  await page.setViewportSize(THEMES.light.viewport);
  // Every event can be reached, and says what happened.
  const events = await rows.evaluateAll((rows) => rows.filter((row) => row.dataset.event).map((row) => row.cells[4].textContent));
  assert.ok(events.some((text) => /keys reclaimed/.test(text)) && events.some((text) => /effort 1 → 4: 900 keys/.test(text)), events.join("\n"));
  // The pointer shows the same tooltip.
  const box = await page.locator("#plots .u-over").first().boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await tip.waitFor();
  await page.mouse.move(2, 2);
  await tip.waitFor({ state: "hidden" });
  // The table is the source: what a refresh changes there is drawn.
  await rows.first().evaluate((row) => row.remove());
  await page.evaluate(() => document.dispatchEvent(new Event("refreshed")));
  assert.equal(await slider.getAttribute("aria-valuemax"), String(last - 1));
  await page.reload();
  await slider.waitFor();
}
