// Refreshes the parts of a page that are marked data-live by requesting the page again, selects rows of the list, and tests a
// connection without losing the password that was typed. The server renders everything; without this script a user reloads the page.
"use strict";

(() => {
  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    // A reload must not show the notice of the last action again.
    address.searchParams.delete("done");
    history.replaceState(null, "", address);
  }

  // Shows that a slow action is running: a test waits for the server.
  addEventListener("submit", ({ submitter }) => submitter?.setAttribute("aria-busy", "true"));
  addEventListener("pageshow", () => document.querySelector("[aria-busy]")?.removeAttribute("aria-busy"));

  // A field with an error takes the focus, also where the address has a fragment.
  document.querySelector("[aria-invalid='true'], .fault[tabindex]")?.focus();

  const picks = () => [...document.querySelectorAll("#list input[name='instance']")];
  const all = document.getElementById("all");

  /** Shows how many rows are selected, and whether all of them are. */
  function showPicked() {
    if (!all) return;
    const boxes = picks();
    const count = boxes.filter((box) => box.checked).length;
    document.getElementById("pick-all").hidden = boxes.length === 0;
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
    document.getElementById("picked").textContent = count ? `(${count} selected)` : "";
    for (const button of document.querySelectorAll(".bulk button")) button.disabled = count === 0;
  }

  all?.addEventListener("change", () => {
    for (const box of picks()) box.checked = all.checked;
    showPicked();
  });
  document.getElementById("list")?.addEventListener("change", showPicked);
  addEventListener("pageshow", showPicked);
  showPicked();

  /** Changes the list without moving a selection, or the focus, to another instance in the same row. */
  function keepPicked(change) {
    const picked = new Set(picks().filter((box) => box.checked).map((box) => box.value));
    const active = document.activeElement;
    const focused = active?.name === "instance" ? active.value : null;
    change();
    for (const box of picks()) box.checked = picked.has(box.value);
    if (focused !== null) picks().find((box) => box.value === focused)?.focus();
    showPicked();
  }

  /** Tests the connection of a form and shows the form that the server answers with, with the secrets that were typed. */
  async function testConnection(form, button) {
    const body = new URLSearchParams(new FormData(form, button));
    const answer = await fetch(form.action, { method: "POST", body, redirect: "manual", signal: AbortSignal.timeout(30000) });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(form.id);
    if (!fresh) throw new Error(String(answer.status));
    for (const name of ["password", "sentinel_password", "key"]) fresh.elements[name].value = form.elements[name].value;
    form.replaceWith(fresh);
    (fresh.querySelector("[aria-invalid='true'], .fault[tabindex]") ?? fresh.querySelector("[name='test']")).focus();
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "edit" || event.submitter?.name !== "test") return;
    event.preventDefault();
    // The whole page says what is wrong if the answer is no form, as after the end of a session.
    testConnection(event.target, event.submitter).catch(() => location.reload());
  });

  const page = document.body.dataset.page;
  if (!page) return;
  const stale = document.getElementById("stale");
  let every = Number(document.body.dataset.refresh);

  const isActive = (root) => root.querySelector("[data-live][data-active]") !== null;

  // Updates in place, so that elements keep the focus and do not move under the pointer.
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
      // The session has ended, or the object was removed: loading the page shows which.
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
      // A scan that has just finished is in the history now.
      if (fresh && wasActive && !isActive(fresh)) fresh = await ask("");
      if (!fresh) return;
      keepPicked(() => {
        for (const part of fresh.querySelectorAll("[data-live]")) {
          const old = document.getElementById(part.id);
          if (old) morph(old, part);
        }
      });
      document.dispatchEvent(new Event("refreshed"));
      every = Number(fresh.body.dataset.refresh);
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  }

  // One refresh at a time: a tab that becomes visible during a refresh would start a second one.
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
