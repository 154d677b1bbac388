// The review by keyboard alone: single keys press what they are written on.
"use strict";
{
  const on = document.getElementById("keys-on");
  document.querySelector(".keys").hidden = false;
  on.checked = localStorage.getItem("keys") !== "off";
  on.addEventListener("change", () => localStorage.setItem("keys", on.checked ? "on" : "off"));

  const ticks = () => [...document.querySelectorAll("#proposed input[type=checkbox]")];
  const isTyping = place => place.matches("input:not([type=checkbox]):not([type=radio]), select, textarea");

  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const place = event.target;
    if (isTyping(place)) {
      if (event.key === "Escape") document.getElementById("who")?.focus();
      return;
    }
    const all = ticks();
    const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (step && all.includes(place)) {
      all[(all.indexOf(place) + step + all.length) % all.length].focus();
      event.preventDefault();
      return;
    }
    if (!on.checked || event.repeat) return;
    if (event.key === "x") all[0]?.focus();
    else if (event.key === "w") document.querySelector("select[name=with]")?.focus();
    else press(event.key);
    if (["x", "w", "n"].includes(event.key)) event.preventDefault();
  });

  function press(key) {
    const found = [...document.querySelectorAll("[data-key]")].find(one => one.dataset.key === key && !one.disabled);
    if (!found) return;
    if (found instanceof HTMLInputElement) found.focus();
    else found.click();
  }

  // After a decision the keyboard stays on the proposal.
  const stay = () => document.getElementById("who")?.focus();
  document.addEventListener("htmx:afterSwap", stay);
  // A key that is pressed before htmx knows the new form sends it as any form is sent, and a whole page comes.
  if (on.checked && document.activeElement === document.body) stay();
}
