// Choosing pictures to search with: dropped, pasted, taken; and cut out, by pointer or by keyboard.
"use strict";
{
  const form = document.getElementById("search");
  const input = document.getElementById("pictures");
  const list = document.getElementById("chosen");
  const drop = document.getElementById("drop");
  const most = Number(input.dataset.most);
  let chosen = [];  // {file, url, box}, box in pixels of the picture, or null for all of it

  const STEP = 0.02;
  const LEAST = 4;  // pixels

  function add(files) {
    const images = [...files].filter(file => file.type.startsWith("image/"));
    if (images.length < files.length) say("Only pictures can be searched with; the other files were left out.");
    if (chosen.length + images.length > most) say(`A query has ${most} pictures at most; the others were left out.`);
    for (const file of images.slice(0, most - chosen.length)) chosen.push({file, url: URL.createObjectURL(file), box: null});
    show();
  }

  function show() {
    const files = new DataTransfer();
    for (const one of chosen) files.items.add(one.file);
    input.files = files.files;
    list.replaceChildren(...chosen.map(card));
    tellBoxes();
  }

  function tellBoxes() {
    form.elements.boxes.value = chosen.some(one => one.box) ? JSON.stringify(chosen.map(one => one.box)) : "";
  }

  function card(one, number) {
    const item = document.createElement("li");
    const cut = document.createElement("div");
    cut.className = "cut";
    const image = document.createElement("img");
    image.src = one.url;
    image.alt = `picture ${number + 1} of the query: ${one.file.name}`;
    image.dataset.query = one.url;
    image.draggable = false;
    cut.append(image);
    const words = document.createElement("p");
    words.className = "words";
    words.setAttribute("role", "status");
    const buttons = document.createElement("p");
    buttons.className = "acts";
    const crop = button("Crop", `Crop picture ${number + 1}`);
    const away = button("Remove", `Remove picture ${number + 1}`);
    crop.setAttribute("aria-pressed", String(Boolean(one.box)));
    away.addEventListener("click", () => {
      URL.revokeObjectURL(one.url);
      chosen = chosen.filter(other => other !== one);
      show();
      document.querySelector("label[for=pictures]").scrollIntoView({block: "nearest"});
      input.focus();
    });
    buttons.append(crop, away);
    item.append(cut, words, buttons);
    cropping(one, {cut, image, words, crop});
    return item;
  }

  function button(text, label) {
    const made = document.createElement("button");
    made.type = "button";
    made.className = "plain";
    made.textContent = text;
    made.setAttribute("aria-label", label);
    return made;
  }

  function cropping(one, {cut, image, words, crop}) {
    const box = document.createElement("div");
    box.className = "box";
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-roledescription", "crop");
    box.setAttribute("aria-label", "Part of the picture: arrow keys move it, Shift and arrow keys change its size, Escape takes the whole picture");

    const size = () => [image.naturalWidth, image.naturalHeight];
    const scale = () => image.naturalWidth / image.clientWidth;

    function place() {
      tellBoxes();
      image.dataset.box = one.box ? one.box.join(" ") : "";
      crop.setAttribute("aria-pressed", String(Boolean(one.box)));
      crop.textContent = one.box ? "Whole picture" : "Crop";
      cut.classList.toggle("cutting", Boolean(one.box));
      if (!one.box) {
        box.remove();
        words.textContent = "";
        return;
      }
      const [left, top, right, bottom] = one.box;
      const [width, height] = size();
      box.style.left = `${100 * left / width}%`;
      box.style.top = `${100 * top / height}%`;
      box.style.width = `${100 * (right - left) / width}%`;
      box.style.height = `${100 * (bottom - top) / height}%`;
      if (!box.isConnected) cut.append(box);
      words.textContent = `${right - left} × ${bottom - top} pixels from ${left}, ${top}`;
    }

    function set(left, top, right, bottom) {
      const [width, height] = size();
      const within = (value, limit) => Math.round(Math.min(Math.max(value, 0), limit));
      [left, right] = [Math.min(left, right), Math.max(left, right)];
      [top, bottom] = [Math.min(top, bottom), Math.max(top, bottom)];
      left = within(left, width - LEAST);
      top = within(top, height - LEAST);
      one.box = [left, top, Math.max(within(right, width), left + LEAST), Math.max(within(bottom, height), top + LEAST)];
      place();
    }

    function move(across, down) {
      const [left, top, right, bottom] = one.box;
      const [width, height] = size();
      across = Math.min(Math.max(across, -left), width - right);
      down = Math.min(Math.max(down, -top), height - bottom);
      set(left + across, top + down, right + across, bottom + down);
    }

    function start() {
      const [width, height] = size();
      set(width * 0.2, height * 0.1, width * 0.8, height * 0.9);
    }

    crop.addEventListener("click", () => {
      if (one.box) { one.box = null; place(); } else { start(); box.focus(); }
    });

    box.addEventListener("keydown", event => {
      const across = {ArrowLeft: -1, ArrowRight: 1}[event.key] || 0;
      const down = {ArrowUp: -1, ArrowDown: 1}[event.key] || 0;
      if (event.key === "Escape") { one.box = null; place(); crop.focus(); }
      else if (!across && !down) return;
      else {
        const [width, height] = size();
        const [x, y] = [across * Math.max(1, width * STEP), down * Math.max(1, height * STEP)];
        const [left, top, right, bottom] = one.box;
        if (event.shiftKey) set(left, top, Math.max(left + LEAST, right + x), Math.max(top + LEAST, bottom + y));
        else move(x, y);
      }
      event.preventDefault();
    });

    // On the picture a new part is drawn; on the part it is moved, and at its corner its size is changed.
    cut.addEventListener("pointerdown", event => {
      if (!one.box || event.button) return;
      event.preventDefault();
      const frame = image.getBoundingClientRect();
      const at = pointer => [(pointer.clientX - frame.left) * scale(), (pointer.clientY - frame.top) * scale()];
      const first = at(event);
      const [left, top, right, bottom] = one.box;
      const corner = event.target === box && Math.hypot(right - first[0], bottom - first[1]) < 22 * scale();
      const moving = event.target === box && !corner;
      box.focus();
      cut.setPointerCapture(event.pointerId);
      const onMove = pointer => {
        const now = at(pointer);
        if (moving) { one.box = [left, top, right, bottom]; move(now[0] - first[0], now[1] - first[1]); }
        else if (corner) set(left, top, now[0], now[1]);
        else set(first[0], first[1], now[0], now[1]);
      };
      const onEnd = () => {
        cut.removeEventListener("pointermove", onMove);
        cut.removeEventListener("pointerup", onEnd);
        cut.removeEventListener("pointercancel", onEnd);
      };
      cut.addEventListener("pointermove", onMove);
      cut.addEventListener("pointerup", onEnd);
      cut.addEventListener("pointercancel", onEnd);
    });

    image.addEventListener("load", () => { if (one.box) place(); });
    image.addEventListener("error", () => { words.textContent = "this picture cannot be shown here, and may not be one"; });
  }

  input.addEventListener("change", () => {
    const files = [...input.files];
    add(files);
  });
  const take = document.getElementById("take");
  take.addEventListener("change", () => {
    add([...take.files]);
    take.value = "";
  });
  for (const kind of ["dragenter", "dragover"]) drop.addEventListener(kind, event => {
    event.preventDefault();
    drop.classList.add("over");
  });
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", event => {
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", event => {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    add(files);
  });
}
