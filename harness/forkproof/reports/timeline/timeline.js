"use strict";
(() => {
  const box = document.getElementById("plot"), svg = box.querySelector("svg"), tip = document.getElementById("tip");
  const all = Number(svg.dataset.seconds), bins = Number(svg.dataset.bins), left = Number(svg.dataset.left);
  const flag = Number(svg.dataset.flag), flags = Number(svg.dataset.flags), top = Number(svg.dataset.top);
  const height = Number(svg.dataset.height), axis = svg.querySelector(".axis"), letter = Number(svg.dataset.letter);
  const timed = [...svg.querySelectorAll("[data-t]")].map((element) => ({
    element, t: Number(element.dataset.t), e: element.dataset.e === undefined ? null : Number(element.dataset.e),
    y: element.dataset.y || 0, kind: element.tagName }));
  const turns = [...svg.querySelectorAll("[data-turns]")].map((element) => ({
    element, base: element.dataset.y,
    bins: element.dataset.turns.split(" ").filter(Boolean).map((pair) => pair.split(":").map(Number)) }));
  let from = 0, until = all, width = 0, waiting = false;

  function x(t) { return left + (t - from) / (until - from) * (width - 2 * left); }

  function draw() {
    waiting = false;
    width = Math.max(280, box.clientWidth);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const taken = {}, rows = Array.from({ length: flags }, () => []);
    for (const { element, t, e, y, kind } of timed) {
      const hidden = t > until || (e === null ? t : e) < from;
      element.style.display = hidden ? "none" : "";
      if (hidden) continue;
      if (kind === "rect") {
        const begin = Math.max(x(t), 0), end = Math.min(x(e), width);
        element.setAttribute("x", begin.toFixed(2));
        element.setAttribute("width", Math.max(end - begin, 2).toFixed(2));
      } else if (kind === "text") {
        const long = letter * element.textContent.length, line = element.getAttribute("y");
        const begin = Math.max(left, Math.min(x(t) + 3, width - left - long));
        if (begin < (taken[line] || 0)) { element.style.display = "none"; continue; }
        taken[line] = begin + long;
        element.setAttribute("x", begin.toFixed(2));
      }
      else element.setAttribute("transform", `translate(${x(t).toFixed(2)} ${y})`);
      if (kind === "a") {  // they stand in the order of their times
        const [row, aside] = free(x(t), rows);
        rows[row].push(x(t) + aside);
        element.querySelector("g.flag").setAttribute("transform", `translate(${aside} ${top + flag * (row + .5)})`);
      }
    }
    const one = all / bins, wide = (width - 2 * left) * one / (until - from);
    for (const row of turns) {
      let path = "";
      for (const [number, high] of row.bins) {
        const begin = x(number * one);
        if (begin + wide < 0 || begin > width) continue;
        path += `M${begin.toFixed(1)} ${row.base}v-${high}h${wide.toFixed(1)}v${high}z`;
      }
      row.element.setAttribute("d", path);
    }
    const steps = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 60, 300, 3600];
    const step = steps.find((size) => (until - from) / size <= width / 80) || 3600;
    axis.replaceChildren();
    for (let number = Math.ceil(from / step); number * step <= until; number++) {
      const at = x(number * step).toFixed(2), line = make("path"), text = make("text");
      text.textContent = `${Number((number * step).toFixed(3))} s`;
      const long = letter * text.textContent.length;
      line.setAttribute("class", "grid");
      line.setAttribute("d", `M${at} 14V${height}`);
      text.setAttribute("x", Number(at) + 2 + long < width ? Number(at) + 2 : Number(at) - 2 - long);
      text.setAttribute("y", 11);
      axis.append(line, text);
    }
    document.getElementById("range").textContent = `${from.toFixed(3)} s to ${until.toFixed(3)} s`;
  }

  function free(at, rows) {  // the row of a number, and how far beside its line it stands where all are taken there
    for (let step = 0; step < 2 * width / flag; step++) {
      const aside = Math.ceil(step / 2) * flag * (step % 2 ? 1 : -1), there = at + aside;
      if (aside && (there < left + flag / 2 || there > width - left - flag / 2)) continue;
      const row = rows.findIndex((taken) => taken.every((other) => Math.abs(there - other) >= flag));
      if (row >= 0) return [row, aside];
    }
    return [0, 0];
  }
  function make(name) { return document.createElementNS("http://www.w3.org/2000/svg", name); }
  function later() { if (!waiting) { waiting = true; requestAnimationFrame(draw); } }

  function show(begin, end) {
    const size = Math.min(all, Math.max(all / 5000, end - begin));
    from = Math.min(Math.max(0, begin), all - size);
    until = from + size;
    later();
  }
  function zoom(factor, at = (from + until) / 2) { show(at - (at - from) * factor, at + (until - at) * factor); }
  function pan(part) { show(from + part * (until - from), until + part * (until - from)); }
  function time(event) {
    const place = box.getBoundingClientRect();
    return from + (event.clientX - place.left - left) / (place.width - 2 * left) * (until - from);
  }

  const acts = { "+": () => zoom(.6), "=": () => zoom(.6), "-": () => zoom(1 / .6), "0": () => show(0, all),
    ArrowLeft: () => pan(-.2), ArrowRight: () => pan(.2), Home: () => show(0, until - from),
    End: () => show(all - (until - from), all) };
  box.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.metaKey || event.altKey ? null : acts[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  for (const button of document.querySelectorAll("button[data-key]")) {
    button.addEventListener("click", () => acts[button.dataset.key]());
  }
  box.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    zoom(Math.exp((event.deltaY || event.deltaX) / 400), time(event));
  }, { passive: false });

  const held = new Map();
  let touched = null;  // where a finger came down, until it moves
  box.addEventListener("pointerdown", (event) => {
    held.set(event.pointerId, event.clientX);
    touched = event.pointerType === "touch" && held.size === 1 ? [event.clientX, event.clientY] : null;
    if (event.pointerType === "touch") tip.hidden = true;
  });
  box.addEventListener("pointerup", (event) => {
    if (touched && far(event) < 10) say(near(event.clientX, event.clientY), event.clientX, event.clientY);
    touched = null;
  });
  function far(event) { return Math.hypot(event.clientX - touched[0], event.clientY - touched[1]); }
  function near(x, y) {  // what a finger means, that is broader than a mark
    for (const radius of [0, 5, 10, 15]) {
      for (let turn = 0; turn < 8; turn++) {
        const there = [x + radius * Math.cos(turn * Math.PI / 4), y + radius * Math.sin(turn * Math.PI / 4)];
        const hit = document.elementFromPoint(...there);
        if (hit && box.contains(hit) && hit.closest("[data-tip]") && !hit.matches(".fault, .window")) return hit;
      }
    }
    return document.elementFromPoint(x, y);
  }
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
    box.addEventListener(name, (event) => { held.delete(event.pointerId); });
  }
  box.addEventListener("pointermove", (event) => {
    if (held.has(event.pointerId) && (event.buttons || event.pointerType === "touch")) {
      const before = held.get(event.pointerId), others = [...held].filter(([id]) => id !== event.pointerId);
      if (others.length === 1) {  // two fingers: what was between them stays between them
        const other = others[0][1], was = Math.abs(before - other), is = Math.abs(event.clientX - other);
        if (was > 10 && is > 10) zoom(was / is, time(event));
      } else if (!others.length) pan((before - event.clientX) / box.clientWidth);
      held.set(event.pointerId, event.clientX);
    }
    if (event.pointerType !== "touch") say(event.target, event.clientX, event.clientY);
  });
  box.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") tip.hidden = true; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
  box.addEventListener("focusin", (event) => {
    if (event.target === box) return;  // as by a tap, which has told of a mark already
    const place = event.target.getBoundingClientRect();
    say(event.target, Math.max(place.left, 0) + 8, Math.max(place.top, 0) + 20);
  });
  box.addEventListener("focusout", () => { tip.hidden = true; });

  function say(target, clientX, clientY) {
    const told = target && target.closest ? target.closest("[data-tip]") : null;
    tip.hidden = !told;
    if (!told) return;
    tip.textContent = told.dataset.tip;
    tip.style.left = `${Math.min(clientX + 12, Math.max(8, window.innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(clientY + 14, Math.max(8, window.innerHeight - tip.offsetHeight - 8))}px`;
  }

  for (const link of document.querySelectorAll("[data-show]")) {
    link.addEventListener("click", () => {
      const at = Number(link.dataset.show);
      show(at - all / 40, at + all / 40);
      draw();
      box.focus({ preventScroll: true });
      const ring = svg.querySelector(`[data-line="${link.closest("article").id.slice(7)}"] circle`);
      (ring || box).scrollIntoView({ block: ring ? "center" : "nearest" });
    });
  }
  new ResizeObserver(later).observe(box);
  draw();
  document.documentElement.dataset.drawn = "true";
})();
