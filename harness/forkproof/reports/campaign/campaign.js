"use strict";
(() => {
  const button = document.getElementById("broken-only"), told = document.getElementById("rows");
  if (button === null) return;
  const groups = [...document.querySelectorAll(".heat tbody")];
  function show() {
    const only = button.getAttribute("aria-pressed") === "true";
    let shown = 0, all = 0;
    for (const group of groups) {
      const rows = [...group.querySelectorAll("tr[data-broken]")];
      for (const row of rows) row.hidden = only && row.dataset.broken === "0";
      const here = rows.filter((row) => !row.hidden).length;
      group.hidden = here === 0;
      shown += here;
      all += rows.length;
    }
    told.textContent = `${shown} of ${all} values shown`;
  }
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") === "true" ? "false" : "true");
    show();
  });
  show();
})();
