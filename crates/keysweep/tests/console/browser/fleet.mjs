// The list of many instances, and the pages of the one with the longest name and host.
import assert from "node:assert/strict";

import { inspect, inspectCards, inspectWidths } from "./checks.mjs";
import { prepared } from "./window.mjs";

const { instances, long, longHost, longName } = prepared;

/** Checks the list of many instances in every state, and the pages of the one with the longest name and host. */
export async function inspectFleet(page) {
  const rows = page.locator("#list tbody tr");
  await page.getByText(`1–${instances} of ${instances}`).waitFor();
  await inspect(page, "instances");
  await inspectCards(page, "#list", { most: 50, height: 220, mean: 140 });
  const bars = await page.locator("#list svg.share").evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().width));
  assert.ok(bars.length > 20 && bars.every((width) => width > 40), `a bar for each share: ${bars}`);
  const bytes = (text) => Number(/[\d.]+/.exec(text)) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].indexOf(/[KMGT]?i?B/.exec(text)[0]);
  const sizes = (await page.locator("#list [data-label=Reclaimable]").allInnerTexts()).filter((text) => text !== "–").map((text) => bytes(text.replaceAll(",", "")));
  assert.deepEqual(sizes, [...sizes].sort((one, other) => other - one), "what a scan gains most comes first");
  for (const words of ["authentication failed", "TLS error", "permission denied", "scan failed", "failed: denied", "waits for its maintenance window"]) {
    await page.locator("#list").getByText(words).first().waitFor();
  }
  await page.getByRole("link", { name: "Failed (2)" }).click();
  assert.equal(await rows.count(), 2);
  await page.getByRole("link", { name: "Stale share" }).click();
  assert.match(page.url(), /state=failed&sort=share/);

  // A selection outlives a refresh, and an action returns to the same part of the list.
  await page.getByRole("link", { name: "Paused (2)" }).click();
  const [all, resume] = [page.getByLabel("Select all"), page.getByRole("button", { name: "Resume selected" })];
  assert.ok(await resume.isDisabled(), "nothing is selected");
  await rows.first().getByRole("checkbox").check();
  await page.getByText("(1 selected)").waitFor();
  assert.ok(await all.evaluate((box) => box.indeterminate));
  await page.evaluate(() => {
    const refreshed = new Promise((done) => document.addEventListener("refreshed", done, { once: true }));
    document.dispatchEvent(new Event("visibilitychange"));
    return refreshed;
  });
  assert.equal(await page.locator("#list input:checked").count(), 1);
  await all.check();
  await page.getByText("(2 selected)").waitFor();
  await resume.click();
  await page.getByText("The instances accept scans again.").waitFor();
  await page.getByText("No instance is paused").waitFor();
  await page.getByRole("link", { name: /^All/ }).click();
  for (const box of [0, 1]) await rows.nth(box).getByRole("checkbox").check();
  await page.getByRole("button", { name: "Schedule selected" }).click();
  await page.getByRole("heading", { name: "Schedule 2 instances" }).waitFor();
  await inspect(page, "schedule");
  await page.getByRole("link", { name: "Cancel" }).click();
  await page.getByLabel("Search by name or address").fill(longHost);
  await page.keyboard.press("Enter");
  await page.getByText("1–1 of 1").waitFor();
  await inspectWidths(page, "the list with a long host");
  await page.getByRole("link", { name: longName }).click();
  await page.getByText("Check that the server is running").waitFor();
  await inspectWidths(page, "an instance with a long host");
  await page.goto(`${long}/edit`);
  await inspectWidths(page, "the form with a long host");
  await page.goto(long);
  await page.locator("#history tbody a").first().click();
  await inspectWidths(page, "a task with a long name");
}
