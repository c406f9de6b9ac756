// A browser whose windows note every error, policy violation and request to another host.
import { createRequire } from "node:module";
import { join } from "node:path";

export const require = createRequire(join(process.env.KEYSWEEP_NODE_MODULES, "x.js"));
const { chromium } = require("playwright-core");

/** What browser.rs has prepared. */
export const prepared = JSON.parse(process.argv[2]);
const { browser: executablePath, base, password } = prepared;

/** A window of each width that the console is built for, and both color schemes. */
export const THEMES = {
  light: { colorScheme: "light", viewport: { width: 1440, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1024, height: 760 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 800 } },
};

export const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

/** What went wrong in any window. */
export const complaints = [];

/** Opens a window. */
export async function open(theme = THEMES.light, options = {}) {
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

/** Signs in on the first page of the console, or on the way to another one. */
export async function signIn(page, name, start = "/console") {
  await page.goto(start);
  await page.getByLabel("User").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator(".menu summary").waitFor();
}
