// A visit to the console in a real browser. Called by browser.rs with one JSON argument; exits with a code other than 0 and
// prints the reason if a check fails.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { inspectCharts } from "./browser/charts.mjs";
import { inspect, inspectCards, photograph } from "./browser/checks.mjs";
import { inspectFleet } from "./browser/fleet.mjs";
import { THEMES, browser, complaints, open, prepared, signIn } from "./browser/window.mjs";

const { history, nowhere, server, site } = prepared;

const number = async (locator) => Number((await locator.innerText()).replaceAll(",", ""));

async function everything() {
  // Signing in: a wrong password first.
  const page = await open();
  await page.goto("/console");
  await inspect(page, "sign-in");
  await page.getByLabel("User").fill("admin");
  await page.getByLabel("Password").fill("wrong horse battery");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").getByText("wrong").waitFor();
  await signIn(page, "admin");
  await page.getByRole("heading", { name: "Instances" }).waitFor();

  // Adding an instance: a wrong address first, then with the keyboard alone.
  await page.getByRole("link", { name: "Add an instance" }).click();
  await page.getByLabel("Name", { exact: true }).fill("cache");
  await page.getByLabel("Address", { exact: true }).fill("http://127.0.0.1");
  await page.getByLabel("Maintenance window", { exact: true }).fill("nightly");
  await page.getByRole("button", { name: "Add the instance" }).click();
  await page.locator("#url-fault").getByText("scheme").waitFor();
  await page.locator("#window-fault").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "url", "the first field with an error has the focus");
  await inspect(page, "add");
  await page.getByLabel("Maintenance window", { exact: true }).fill("");
  await page.getByLabel("Labels").fill(site);
  const address = page.getByLabel("Address", { exact: true });
  assert.equal(await address.getAttribute("aria-invalid"), "true");
  await address.focus();
  await page.keyboard.press("ControlOrMeta+a");
  await page.keyboard.type(server.url);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.type(`${server.password}!`);
  await page.getByLabel("Pace of manual scans").selectOption("gentle");
  // The connection is tested before it is saved, and what was typed stays.
  const test = page.getByRole("button", { name: "Test connection" });
  await test.click();
  await page.locator("#tested").getByText("Authentication failed").waitFor();
  assert.equal(await page.getByLabel("Password", { exact: true }).inputValue(), `${server.password}!`);
  await page.getByLabel("Password", { exact: true }).fill(server.password);
  await test.click();
  await page.locator("#tested").getByText("The server answers: valkey").waitFor();
  await page.getByLabel("Name", { exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByText("The instance is added, and its server answers.").waitFor();
  const instance = page.url().split("?")[0];

  // A scan: started, cancelled while it runs.
  await page.getByRole("button", { name: "Scan now" }).click();
  await page.getByText("The scan is created.").waitFor();
  const whole = page.getByRole("progressbar", { name: "Progress of the scan" });
  await whole.waitFor();
  const cancel = page.getByRole("button", { name: "Cancel scan" });
  await cancel.focus();
  // It moves, without the page being loaded again, and without taking the focus away.
  await page.evaluate(() => (window.untouched = true));
  const early = await number(page.locator("#reclaimed"));
  await page.waitForFunction((early) => Number(document.getElementById("reclaimed").innerText.replaceAll(",", "")) > early, early);
  assert.equal(await page.evaluate(() => window.untouched && document.activeElement.id), "cancel");
  // This scan reclaims from its first keys on; the next one has to pass those that it left.
  await photograph(page, "scanning");
  await cancel.click();
  await page.getByText("The scan is being cancelled.").waitFor();
  await page.locator("#live .badge").getByText("cancelled").waitFor();

  // And one that is watched to its end, on its own page.
  await page.getByRole("button", { name: "Scan now" }).click();
  await whole.waitFor();
  await inspect(page, "scanning");
  await page.getByRole("link", { name: "View task" }).click();
  const bar = page.getByRole("progressbar", { name: "Progress of the scan" });
  await bar.waitFor();
  await page.evaluate(() => (window.untouched = true));
  const seen = new Set();
  while ((await bar.count()) > 0) {
    const value = await bar.getAttribute("value", { timeout: 500 }).catch(() => null);
    if (value) seen.add(value);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  assert.ok(seen.size >= 2, `the bar did not move: ${[...seen]}`);
  await page.locator("#status").getByText("success").waitFor();
  await page.getByRole("heading", { name: "Impact on the server" }).waitFor();
  assert.equal(await page.evaluate(() => window.untouched), true, "the page brought itself up to date");
  await inspect(page, "task");
  await page.goto(instance);
  const rows = page.locator("#history tbody tr");
  await rows.first().waitFor();
  const reclaimed = await rows.locator("[data-label=Reclaimed]").allInnerTexts();
  const sum = reclaimed.reduce((sum, text) => sum + Number(text.replaceAll(",", "")), 0);
  assert.equal(sum, server.stale, "all scans together reclaimed the stale keys");

  // An auto-scan: a wrong value, then a right one.
  await page.getByLabel("Enable automatic scans").check();
  await page.getByLabel("First scan (UTC)").fill("2100-01-01T02:00:00");
  await page.getByLabel("Timeout").fill("1h");
  await page.getByRole("button", { name: "Save auto-scan" }).click();
  await page.locator("#timeout-fault").getByText("twice the interval").waitFor();
  assert.equal(await page.getByLabel("Timeout").getAttribute("aria-invalid"), "true");
  assert.equal(await page.evaluate(() => document.activeElement.id), "timeout", "the field with the error has the focus");
  await inspect(page, "auto-scan-fault");
  await page.getByLabel("Timeout").fill("48h");
  await page.getByRole("button", { name: "Save auto-scan" }).click();
  await page.getByText("The auto-scan is saved.").waitFor();
  await page.getByText("Next scheduled scan").waitFor();

  // The other pages.
  await page.getByRole("link", { name: "Edit" }).click();
  await inspect(page, "edit");
  await page.goto(history);
  assert.ok((await page.locator("#history tbody tr").count()) >= 5);
  await inspectCharts(page);
  await page.getByLabel("Level").selectOption("hold");
  await page.getByLabel("Stale share below, percent").fill("8");
  await page.getByRole("button", { name: "Save target" }).click();
  await page.getByText("The target is saved.").waitFor();
  const target = await page.locator("#trend-data").evaluate(({ dataset }) => [dataset.target, dataset.floor]);
  assert.deepEqual(target, ["0.08", "0.04"]);
  await page.getByText("Between 4.0 % and the target").waitFor();
  await page.getByRole("button", { name: "Test" }).click();
  await page.getByText("The server answers and can be scanned.").waitFor();
  await page.goto(history);
  await page.getByRole("slider").focus();
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowLeft");
  await inspect(page, "instance");
  // While the service does not answer the page says so, and it recovers alone.
  const refresh = () => page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.route("**/instances/**", (route) => route.abort());
  await refresh();
  await page.getByText("The service does not respond.").waitFor();
  await page.unroute("**/instances/**");
  await refresh();
  await page.getByText("The service does not respond.").waitFor({ state: "hidden" });
  // The tasks of all instances; a new one appears, moves and ends without the page being loaded again.
  await page.getByRole("link", { name: "Activity" }).click();
  await page.locator("#activity tbody tr").first().waitFor();
  await inspect(page, "activity");
  await inspectCards(page, "#activity", { most: 25, height: 170, mean: 125 });
  await page.evaluate(() => (window.untouched = true));
  const scanned = await page.evaluate(async (path) => {
    const body = new URLSearchParams({ form_token: document.querySelector("[name=form_token]").value });
    return (await fetch(`${path}/scan`, { method: "POST", body })).status;
  }, instance);
  assert.equal(scanned, 200);
  await refresh();
  await page.locator("#activity tbody tr").first().getByRole("progressbar", { name: "Progress of the scan of cache" }).waitFor();
  assert.equal(await page.locator("#activity tbody tr").count(), 25, "a page is bounded");
  await page.getByRole("progressbar", { name: "Progress of the scan of cache" }).waitFor({ state: "hidden" });
  assert.equal(await page.evaluate(() => window.untouched), true, "the page brought itself up to date");
  await page.getByRole("link", { name: "failed", exact: true }).click();
  await page.locator("#activity tbody tr").first().getByText("cancelled").first().waitFor();
  assert.equal(await page.locator("#activity").getByText("success").count(), 0);
  await page.getByRole("link", { name: "Audit trail" }).click();
  await page.getByText("auto_scan.set").first().waitFor();
  await inspect(page, "audit");
  const heights = await page.locator(".trail tbody tr").evaluateAll((rows) => rows.map((row) => row.offsetHeight));
  assert.ok(heights.every((height) => height < 50), `one line an entry: ${heights}`);
  await inspectCards(page, ".trail", { most: 50, height: 130, mean: 100 });
  const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("link", { name: "JSON" }).click()]);
  const entries = JSON.parse(readFileSync(await file.path(), "utf8"));
  assert.ok(entries.length >= heights.length && entries.some(({ action }) => action === "instance.add"));
  await page.getByRole("link", { name: "Instances", exact: true }).click();
  await page.locator("#list tbody tr").first().waitFor();
  await inspectFleet(page);

  // A survey, whose rows appear without the page being loaded again.
  await page.getByRole("link", { name: "Survey" }).click();
  await page.getByLabel("Instances with these labels").fill(site);
  await page.getByRole("button", { name: "Survey" }).click();
  await page.getByText("3 of 3 instances").waitFor();
  const advice = page.locator("#survey").getByText("Attach a replica, or allow samples of the primary.");
  await advice.first().waitFor();
  assert.equal(await advice.locator("code").count(), 0, "what is no command does not look like one");
  await inspect(page, "survey");

  // An empty project, and a server that does not exist.
  await page.locator(".menu summary").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("link", { name: "warehouse" }).click();
  await page.getByRole("heading", { name: "No instance yet" }).waitFor();
  await inspect(page, "empty");
  await page.getByRole("link", { name: "Add the first instance" }).click();
  await page.getByLabel("Name", { exact: true }).fill("gone");
  await page.getByLabel("Address", { exact: true }).fill(nowhere);
  await page.getByRole("button", { name: "Add the instance" }).click();
  await page.getByRole("alert").getByText("could not be polled").waitFor();
  await page.getByText("Unreachable: cannot connect").waitFor();
  await page.getByText("A scan fails until a poll succeeds.").waitFor();
  assert.equal(await page.locator("#scan.primary").count(), 0, "a scan that would fail is not offered first");
  await inspect(page, "unreachable");

  await page.locator(".menu summary").click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.goto(history);
  await page.getByRole("heading", { name: "Sign in" }).waitFor();

  // A reader sees no buttons, and the server refuses the requests that the page does not offer.
  const reader = await open(THEMES.phone);
  await signIn(reader, "reader", history);
  await reader.getByRole("heading", { name: "sessions" }).waitFor();
  assert.equal(await reader.getByRole("button", { name: "Scan now" }).count(), 0);
  assert.equal(await reader.getByRole("link", { name: "Audit trail" }).count(), 0);
  const refused = await reader.evaluate(async (path) => {
    const token = document.querySelector("[name=form_token]").value;
    const body = new URLSearchParams({ form_token: token });
    return (await fetch(`${path}/scan`, { method: "POST", body })).status;
  }, history);
  assert.equal(refused, 403);
  await reader.goto(`${history}/edit`);
  await reader.getByRole("heading", { name: "Permission denied" }).waitFor();
  await inspect(reader, "refused");

  // Everything works without scripts, and tables stand where charts would.
  const plain = await open(THEMES.light, { javaScriptEnabled: false });
  await signIn(plain, "operator", history);
  assert.ok(await plain.locator("#trend-data tbody tr").first().isVisible());
  assert.ok((await plain.locator("#trend-data tbody tr").count()) > 190);
  assert.ok(!(await plain.locator("#plots").isVisible()) && !(await plain.getByText("Arrow keys").isVisible()));
  await plain.getByRole("button", { name: "Scan now" }).click();
  await plain.getByText("The scan is created.").waitFor();
  for (let tries = 0; !(await plain.getByText("The last scan finished").count()); tries++) {
    assert.ok(tries < 100, "the scan ends");
    await new Promise((resolve) => setTimeout(resolve, 100));
    await plain.goto(history);
  }
}

try {
  await everything();
  assert.deepEqual(complaints, []);
} finally {
  await browser.close();
}
