"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const rows = [...document.querySelectorAll("details.row")];
  const text = rows.map((row) => `${row.id} ${row.textContent}`.toLowerCase());
  const fields = ["find", "runtime", "mode", "verdict"].map($).filter(Boolean);
  const value = (id) => ($(id) ? $(id).value : "");

  function apply() {
    const word = value("find").trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, n) => {
      const fits = (!word || text[n].includes(word))
        && ["runtime", "mode", "verdict"].every((name) => !value(name) || row.dataset[name] === value(name));
      row.hidden = !fits;
      shown += fits;
    });
    for (const section of document.querySelectorAll("section.primitive, section.runtime")) {
      section.hidden = !section.querySelector("details.row:not([hidden])");
    }
    $("shown").textContent = `${shown} of ${rows.length} rows`;
    $("nothing").hidden = shown > 0;
  }

  function clear() {
    for (const field of fields) field.value = "";
    apply();
  }

  function follow() {
    const target = location.hash && $(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.closest("[hidden]")) clear();
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
    const focus = target.tagName === "DETAILS" ? target.querySelector("summary") : null;
    if (focus) focus.focus({ preventScroll: true });
  }

  function say(words) {
    $("said").textContent = "";
    setTimeout(() => { $("said").textContent = words; }, 20);
  }

  function commandOf(button) {
    const beside = button.closest(".command");
    const anchor = beside || $(decodeURIComponent(button.parentElement.querySelector("a").hash.slice(1)));
    return anchor.querySelector(".command code") || anchor.querySelector("code");
  }

  async function copy(button) {
    const words = commandOf(button).textContent;
    try {
      await navigator.clipboard.writeText(words);
      button.textContent = "Copied";
    } catch {
      commandOf(button).closest("details")?.setAttribute("open", "");
      getSelection().selectAllChildren(commandOf(button));
      button.textContent = "Selected";
    }
    say(`${button.textContent}: ${words}`);
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  for (const field of fields) field.addEventListener("input", apply);
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", clear);
  addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copy(button);
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) follow();
  });
  addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
    if (event.key === "/" && !typing) {
      event.preventDefault();
      $("find").focus();
    } else if (event.key === "Escape" && (typing || value("find"))) {
      clear();
      event.target.blur();
    }
  });
  for (const row of rows) {
    row.addEventListener("toggle", () => {
      const byHand = document.activeElement === row.querySelector("summary");
      if (row.open && byHand) history.replaceState(null, "", `#${encodeURIComponent(row.id)}`);
    });
  }
  addEventListener("beforeprint", () => { for (const row of rows) row.open = !row.hidden; });
  addEventListener("load", () => setTimeout(follow)); // after the browser went to the fragment, which takes the focus
})();
