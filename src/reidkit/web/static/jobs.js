// Progress of jobs, which the service tells as it changes.
"use strict";
{
  const MOST = 3; // streams; a browser has six connections for all that a page asks for
  const PAUSE = 2000; // milliseconds, before a stream that was refused is asked for again
  let streams = [];

  function follow() {
    streams.forEach(stream => stream.close());
    // The newest job comes first, and the oldest is done first.
    streams = [...document.querySelectorAll("[data-events]")].slice(-MOST).map(place => {
      const stream = new EventSource(place.dataset.events);
      for (const state of ["waiting", "running"]) stream.addEventListener(state, event => show(place, JSON.parse(event.data)));
      for (const state of ["done", "failed", "cancelled"]) stream.addEventListener(state, lookAgain);
      stream.addEventListener("error", () => {
        if (stream.readyState === EventSource.CLOSED) setTimeout(lookAgain, PAUSE);
      });
      return stream;
    });
  }

  function show(place, job) {
    const state = place.querySelector(".state");
    state.textContent = job.state;
    state.className = `state ${job.state}`;
    if (job.total <= 1) return;
    const bar = place.querySelector("progress");
    bar.max = job.total;
    bar.value = job.done;
    place.querySelector("[data-done]").textContent = `${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")}`;
  }

  function lookAgain() {
    streams.forEach(stream => stream.close());
    htmx.ajax("GET", location.pathname, {target: "#jobs", select: "#jobs", swap: "outerHTML"});
  }

  document.addEventListener("htmx:afterSettle", follow);
  follow();
}
