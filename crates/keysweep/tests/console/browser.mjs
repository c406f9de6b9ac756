// A visit to the console in a real browser. Called by browser.rs with one JSON argument; exits with a code other than 0 and
// prints the reason if a check fails.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.KEYSWEEP_NODE_MODULES, "x.js"));
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const { browser: executablePath, base, password, server, nowhere, history, long, longName, longHost, site, instances, screenshots } = JSON.parse(process.argv[2]);
const THEMES = {
  light: { colorScheme: "light", viewport: { width: 1440, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1024, height: 760 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 800 } },
};

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const complaints = [];

async function open(theme = THEMES.light, options = {}) {
  const context = await browser.newContext({ ...theme, ...options, baseURL: base });
  const page = await context.newPage();
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI }) => console.error(`CSP: ${violatedDirective} ${blockedURI}`));
  });
  // A busy machine makes a scan back off, and a page wait.
  page.setDefaultTimeout(60000);
  page.on("console", (message) => {
    // A refusal or failure that the test asks for is one of the browser's own lines.
    const isRefusal = message.text().startsWith("Failed to load resource") && /40[349]|422|401|ERR_FAILED/.test(message.text());
    if (["error", "warning"].includes(message.type()) && !isRefusal) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => {
    if (!request.url().startsWith(base)) complaints.push(`a request to ${request.url()}`);
  });
  return page;
}

async function signIn(page, name, start = "/console") {
  await page.goto(start);
  await page.getByLabel("User").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".menu summary").waitFor();
}

/** Checks that nothing on a page is wider than its window or its panel. */
async function assertFits(page, name) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${name}: ${overflow} pixels wider than the window`);
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll(".panel")]
      .filter((panel) => {
        const inner = panel.getBoundingClientRect().right - parseFloat(getComputedStyle(panel).paddingRight) + 1;
        const tables = [...panel.querySelectorAll("table")].filter((table) => !table.closest(".scroll"));
        return panel.scrollWidth > panel.clientWidth || tables.some((table) => table.getBoundingClientRect().right > inner);
      })
      .map((panel) => panel.id || panel.className),
  );
  assert.deepEqual(wide, [], `${name}: these panels are narrower than their content`);
  const { header, rows } = await page.evaluate(() => {
    const header = document.querySelector("header.top");
    const tops = header ? [...header.children].map((part) => Math.round(part.getBoundingClientRect().top / 20)) : [0];
    return { header: header?.offsetHeight ?? 0, rows: Math.max(...tops) - Math.min(...tops) };
  });
  assert.ok(header < 70 && rows <= 1, `${name}: the header is one row, not ${header} pixels high`);
}

/** Checks that a page has no serious accessibility fault and fits its window, in every theme. Takes screenshots if asked to. */
async function inspect(page, name) {
  for (const [theme, { colorScheme, viewport }] of Object.entries(THEMES)) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize(viewport);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run());
    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    const faults = serious.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html}\n${failureSummary}`).join("\n")}`);
    assert.deepEqual(faults, [], `${name}, ${theme}`);
    await assertFits(page, `${name}, ${theme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize(THEMES.light.viewport);
  if (name !== "scanning") await photograph(page, name);
}

/** Checks that a page fits its window at every width, with the longest names and addresses. */
async function inspectWidths(page, name) {
  for (const [theme, { viewport }] of Object.entries(THEMES)) {
    await page.setViewportSize(viewport);
    // Charts follow the window in the next frames.
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));
    await assertFits(page, `${name}, ${theme}`);
  }
  await page.setViewportSize(THEMES.light.viewport);
}

/** Takes screenshots of a page in every theme, if asked to. */
async function photograph(page, name) {
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

/** Checks the charts of an instance: drawn, operated with the keyboard, at every width, and as a table. */
async function inspectCharts(page) {
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

/** Checks the list of many instances in every state, and the pages of the one with the longest name and host. */
async function inspectFleet(page) {
  const rows = page.locator("#list tbody tr");
  await page.getByText(`1–${instances} of ${instances}`).waitFor();
  await inspect(page, "instances");
  await page.setViewportSize(THEMES.phone.viewport);
  assert.ok(!(await page.locator("#list thead").isVisible()), "the list is cards on a phone");
  await page.setViewportSize(THEMES.light.viewport);
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
  await page.evaluate(() => (window.untouched = true));
  const count = await page.locator("#activity tbody tr").count();
  const scanned = await page.evaluate(async (path) => {
    const body = new URLSearchParams({ form_token: document.querySelector("[name=form_token]").value });
    return (await fetch(`${path}/scan`, { method: "POST", body })).status;
  }, instance);
  assert.equal(scanned, 200);
  await refresh();
  await page.getByRole("progressbar", { name: "Progress of the scan of cache" }).waitFor();
  assert.equal(await page.locator("#activity tbody tr").count(), count + 1);
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
