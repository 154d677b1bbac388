// What all pages share: pictures that are gone, errors of requests, work that takes a while.
"use strict";

// Errors of loading do not bubble, and may have happened before this ran.
const isGone = image => { image.classList.add("gone"); };
document.addEventListener("error", event => { if (event.target instanceof HTMLImageElement) isGone(event.target); }, true);
for (const image of document.images) if (image.complete && image.currentSrc && !image.naturalWidth) isGone(image);

const messages = document.getElementById("messages");

function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  messages.replaceChildren(line);
}

document.addEventListener("htmx:beforeRequest", () => messages.replaceChildren());
document.addEventListener("htmx:sendError", () => say("The service does not answer. Check the connection, and try again."));
// What is refused before it reaches the pages comes as JSON.
document.addEventListener("htmx:responseError", event => {
  const answer = event.detail.xhr;
  if (!(answer.getResponseHeader("Content-Type") || "").includes("json")) return;
  try {
    const told = JSON.parse(answer.responseText);
    say(`${told.title}: ${told.detail}. To do: ${told.to_do}.`);
  } catch { say(`The service answers with an error, ${answer.status}. Try again.`); }
});
document.addEventListener("htmx:afterSwap", event => {
  if (messages.childElementCount) messages.scrollIntoView({block: "nearest"});
  else document.getElementById(event.detail.target.id)?.querySelector("h2[tabindex]")?.focus();
});

// States of jobs are told when they change, not each second.
let before = new Map();
const states = () => new Map([...document.querySelectorAll("[data-job]")].map(job => [job.dataset.job, job.dataset.said]));
before = states();
document.addEventListener("htmx:afterSettle", () => {
  const now = states();
  for (const [job, said] of now) if (before.has(job) && before.get(job) !== said) tell(said);
  before = now;
});

function tell(text) {
  let place = document.getElementById("told");
  if (!place) {
    place = document.createElement("p");
    place.id = "told";
    place.className = "unseen";
    place.setAttribute("role", "status");
    document.body.append(place);
  }
  place.textContent = text;
}

// Forms that are sent without htmx say that they are at work.
for (const form of document.querySelectorAll("form[data-slow]")) {
  const busy = document.createElement("span");
  busy.className = "busy";
  busy.setAttribute("role", "status");
  form.append(busy);
  form.addEventListener("submit", () => {
    const text = document.createElement("span");
    text.textContent = "working…";
    busy.replaceChildren(text);
    busy.classList.add("now");
  });
}
