// Lists of one person or one camera only, and a few at a time; where no script may run all are shown.
(() => {
  const atOnce = 6;
  const form = document.getElementById("choose");
  if (!form) return;
  const groups = [...document.querySelectorAll("#lists .group")].map(element => {
    const more = document.createElement("button");
    more.className = "more";
    more.type = "button";
    element.append(more);
    const group = { element, more, shown: atOnce, lists: [...element.querySelectorAll("article")] };
    more.addEventListener("click", () => { group.shown += atOnce; show(); });
    return group;
  });
  const value = name => form.elements[name] ? form.elements[name].value.trim() : "";
  const fits = list =>
    (!value("identity") || list.dataset.identity === value("identity")) &&
    (!value("camera") || list.dataset.camera === value("camera"));
  function show() {
    let found = 0;
    for (const group of groups) {
      const fitting = group.lists.filter(fits);
      found += fitting.length;
      for (const list of group.lists) list.hidden = !fitting.slice(0, group.shown).includes(list);
      const left = fitting.length - group.shown;
      group.more.hidden = left <= 0;
      group.more.textContent = `show ${Math.min(left, atOnce)} more of ${left}`;
      group.element.hidden = !fitting.length;
    }
    form.querySelector("[role=status]").textContent = `${found} of these lists`;
  }
  form.addEventListener("input", () => { for (const group of groups) group.shown = atOnce; show(); });
  form.addEventListener("submit", event => event.preventDefault());
  form.hidden = false;
  show();
})();
