// Brings the parts of a page that are marked data-live up to date, by asking for the page again. Everything is made on the
// server; without this script the same pages are reloaded by hand.
"use strict";

(() => {
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    // So that reloading does not tell once more what was done.
    address.searchParams.delete("done");
    history.replaceState(null, "", address);
  }

  // What takes a while (a test waits for the server) is seen to be under way.
  addEventListener("submit", ({ submitter }) => submitter?.setAttribute("aria-busy", "true"));
  addEventListener("pageshow", () => document.querySelector("[aria-busy]")?.removeAttribute("aria-busy"));

  const page = document.body.dataset.page;
  if (!page) return;
  const stale = document.getElementById("stale");
  let every = Number(document.body.dataset.refresh);

  const isActive = (root) => root.querySelector("[data-live][data-active]") !== null;

  // In place, so that what has the focus keeps it and what is being pressed stays where it is.
  function morph(old, fresh) {
    if (old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh);
      return;
    }
    if (!(old instanceof Element)) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    const isKept = (name) => name === "open" && old.nodeName === "DETAILS";
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !isKept(name)) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value && !isKept(name)) old.setAttribute(name, value);
    }
    const [olds, freshs] = [[...old.childNodes], [...fresh.childNodes]];
    freshs.forEach((child, index) => (index < olds.length ? morph(olds[index], child) : old.append(child)));
    olds.slice(freshs.length).forEach((child) => child.remove());
  }

  async function ask(part) {
    const url = new URL(page, location.href);
    if (part) url.searchParams.set("part", part);
    const answer = await fetch(url, { redirect: "manual", cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (answer.type === "opaqueredirect" || answer.status === 404) {
      // The session has ended, or what the page shows is gone: the page itself says so.
      location.assign(page);
      return null;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  async function refresh() {
    if (document.hidden) return;
    try {
      const wasActive = isActive(document);
      let fresh = await ask(wasActive ? "live" : "");
      // What has just ended is in the history now.
      if (fresh && wasActive && !isActive(fresh)) fresh = await ask("");
      if (!fresh) return;
      for (const part of fresh.querySelectorAll("[data-live]")) {
        const old = document.getElementById(part.id);
        if (old) morph(old, part);
      }
      every = Number(fresh.body.dataset.refresh);
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }

  // One at a time: whoever comes back to the page while it is brought up to date would start a second round.
  let isBusy = false;
  async function follow() {
    if (isBusy) return;
    isBusy = true;
    clearTimeout(timer);
    await refresh();
    isBusy = false;
    if (every) timer = setTimeout(follow, every);
  }

  let timer = setTimeout(follow, every);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && every) follow();
  });
})();
