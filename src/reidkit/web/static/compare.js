// The query and a hit side by side, with one zoom for both.
"use strict";
{
  const dialog = document.getElementById("compare");
  const zoom = document.getElementById("zoom");
  const views = [...dialog.querySelectorAll(".view")];
  const [left, right] = [document.getElementById("left"), document.getElementById("right")];

  const offer = () => { for (const one of document.querySelectorAll("[data-compare]")) one.hidden = false; };
  offer();
  document.addEventListener("htmx:afterSwap", offer);

  document.addEventListener("click", event => {
    const pressed = event.target.closest("[data-compare]");
    if (!pressed) return;
    const gallery = document.getElementById("results").dataset.gallery;
    const query = document.querySelector("[data-query]");
    left.src = query ? part(query) : "";
    left.alt = query ? query.alt : "the query's picture is not on this page any more";
    document.getElementById("left-words").textContent = left.alt;
    right.src = `/v1/galleries/${gallery}/items/${pressed.dataset.compare}/picture`;
    right.alt = pressed.dataset.words;
    document.getElementById("right-words").textContent = right.alt;
    zoom.value = "1";
    enlarge();
    dialog.showModal();
  });

  // What of a chosen picture is searched for.
  function part(query) {
    const [x, y, right, bottom] = (query.dataset.box || "").split(" ").map(Number);
    if (!bottom) return query.dataset.query;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [right - x, bottom - y];
    canvas.getContext("2d").drawImage(query, x, y, right - x, bottom - y, 0, 0, right - x, bottom - y);
    return canvas.toDataURL();
  }

  function enlarge() {
    for (const image of [left, right]) image.style.width = image.style.height = `${100 * zoom.value}%`;
  }
  zoom.addEventListener("input", enlarge);

  // Scrolled together, so that the same places are seen.
  for (const view of views) view.addEventListener("scroll", () => {
    for (const other of views) if (other !== view) {
      other.scrollLeft = view.scrollLeft;
      other.scrollTop = view.scrollTop;
    }
  });
}
