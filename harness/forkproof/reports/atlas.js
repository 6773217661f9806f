"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const names = Object.keys(data.scope);
const at = (id) => document.getElementById(id);
const shown = 200;
const fits = {
  "": () => true,
  arbiter_only: (row) => row.in.length === 1 && row.in[0].startsWith("arbiter"),
  once_per_service: (row) => row.in.length === 1,
  once_per_worker: (row) => row.in.length === row.set.workers && row.in.every((place) => place.startsWith("worker")),
};
const rows = data.rows.map((row) => ({
  id: row[0], set: Object.fromEntries(names.map((name, n) => [name, data.scope[name][row[1][n]]])),
  verdict: row[2], in: row[3], breaks: row[4], reason: row[5], known: row[6], replay: row[7],
}));
const text = (tag, words, kind) => {
  const made = document.createElement(tag);
  made.textContent = words;
  if (kind) made.className = kind;
  return made;
};
const words = (value) => (value === true ? "yes" : value === false ? "no" : String(value));
const far = (one, other) => names.filter((name) => one.set[name] !== other.set[name]);

function nearest(row) {
  const wanted = fits[at("policy").value];
  let best = names.length + 1;
  let found = [];
  for (const other of rows) {
    if (other.verdict !== "held" || !wanted(other)) continue;
    const apart = far(row, other).length;
    if (apart && apart < best) { best = apart; found = []; }
    if (apart === best) found.push(other);
  }
  return found.slice(0, 5);
}

function detail(row) {
  const box = text("div", "", "detail");
  for (const [claim, why] of Object.entries(row.breaks)) box.append(text("p", `${claim}: ${why}`));
  if (row.reason) box.append(text("p", row.reason));
  if (row.known.length) box.append(text("p", `known issues: ${row.known.join(", ")}`));
  const near = nearest(row);
  box.append(text("p", near.length ? "Nearest settings that hold:" : "No settings of this scope hold and are what you want."));
  const list = document.createElement("ul");
  for (const other of near) {
    const changes = far(row, other).map((name) => `${name}: ${words(row.set[name])} to ${words(other.set[name])}`);
    list.append(text("li", `${changes.join(", ")}; then it runs in ${other.in.join(", ") || "nothing"}`));
  }
  box.append(list);
  if (row.replay) box.append(text("pre", row.replay));
  return box;
}

function draw() {
  const query = at("query").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = fits[at("policy").value];
  const only = at("verdict").value;
  const found = rows.filter((row) =>
    names.every((name) => at(name).value === "" || words(row.set[name]) === at(name).value)
    && (only === "" || row.verdict === only)
    && (only !== "held" || wanted(row))
    && query.every((word) => `${row.id} ${row.in.join(" ")} ${Object.keys(row.breaks).join(" ")}`.includes(word)));
  at("count").textContent = `${found.length} of ${rows.length}${found.length > shown ? `, the first ${shown}` : ""}`;
  const body = at("rows");
  body.replaceChildren();
  for (const row of found.slice(0, shown)) {
    const line = document.createElement("tr");
    for (const name of names) line.append(text("td", words(row.set[name])));
    line.append(text("td", row.verdict, row.verdict.replace(" ", "-")));
    line.append(text("td", row.in.join(", ") || "-"));
    const last = document.createElement("td");
    const more = document.createElement("details");
    more.append(text("summary", Object.keys(row.breaks).join(", ") || row.reason.slice(0, 60) || "more"));
    more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) more.append(detail(row)); });
    last.append(more);
    line.append(last);
    body.append(line);
    if (found.length === 1) more.open = true;
  }
}

for (const name of [...names, "policy", "verdict", "query"]) at(name).addEventListener("input", draw);
draw();
