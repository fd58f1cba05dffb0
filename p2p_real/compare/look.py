"""How the page looks and what its buttons do: style and script, both inside the page."""

from __future__ import annotations

STYLE = """
:root { --ink:#1d2430; --soft:#5c6675; --line:#dde1e7; --mark:#0b6e4f; --bad:#a3262a; }
* { box-sizing:border-box; }
body { margin:0; padding:0 24px 48px; color:var(--ink); background:#fff;
  font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; }
h1 { font-size:22px; margin:20px 0 2px; } h2 { font-size:18px; margin:36px 0 4px; }
h3, h4 { font-size:14px; margin:0; white-space:nowrap; overflow:hidden; text-overflow:ellipsis; }
h4 { font-weight:400; color:var(--soft); min-height:20px; }
p { margin:2px 0; } .soft { color:var(--soft); } .note { font-size:13px; color:var(--soft); }
.scroll { overflow:auto; max-height:70vh; border:1px solid var(--line); border-radius:6px;
  margin:14px 0 4px; }
table { border-collapse:collapse; font-size:13px; white-space:nowrap; width:100%; }
th { position:sticky; top:0; z-index:1; background:#f3f5f8; cursor:pointer; user-select:none;
  font-weight:600; }
th, td { padding:4px 9px; border-bottom:1px solid #eceff3; text-align:right;
  font-variant-numeric:tabular-nums; }
th.word, td.word { text-align:left; }
td.word { max-width:320px; overflow:hidden; text-overflow:ellipsis; }
th[aria-sort=ascending]::after { content:" \\25B2"; font-size:9px; }
th[aria-sort=descending]::after { content:" \\25BC"; font-size:9px; }
tbody tr:hover { background:#f7f9fc; } td.best { font-weight:700; color:var(--mark); }
tr.failed td { color:var(--bad); } td.why { white-space:normal; text-align:left; }
a { color:inherit; text-decoration-color:#b8c0cc; }
nav { position:sticky; top:0; z-index:2; background:#fffffff2; padding:9px 0; margin-top:12px;
  border-bottom:1px solid var(--line); display:flex; flex-wrap:wrap; gap:8px 14px;
  align-items:center; font-size:13px; }
.tabs { display:flex; flex-wrap:wrap; } .tabs button { flex:1 1 auto; }
button { font:inherit; font-size:12px; padding:3px 7px; border:1px solid #c9d0d9;
  background:#fff; color:var(--ink); cursor:pointer; margin-left:-1px; }
button:hover { background:#eef2f6; }
button[aria-pressed=true] { background:var(--ink); color:#fff; border-color:var(--ink); }
.cards { display:grid; gap:16px; margin-top:10px;
  grid-template-columns:repeat(auto-fill,minmax(228px,1fr)); }
.card, .given figure { border:1px solid var(--line); border-radius:6px; padding:9px; margin:0; }
.given { display:flex; flex-wrap:wrap; gap:16px; margin-top:8px; }
.given figure { width:228px; } figcaption { font-size:13px; }
.card.failed { background:#fbf4f4; } .card.failed p:not(.figs) { color:var(--bad); font-size:13px;
  overflow-wrap:anywhere; }
.stage { position:relative; margin:6px 0; background:#eee; overflow:hidden; }
figure img { display:block; width:100%; height:auto; }
.stage img { position:absolute; inset:0; width:100%; height:100%; }
.small img { image-rendering:pixelated; }
[hidden] { display:none !important; }
.wipe { width:100%; margin:5px 0 2px; } .figs { font-size:12.5px; color:var(--soft); margin:0; }
.figs span { white-space:nowrap; margin-right:9px; display:inline-block; }
.figs b { color:var(--ink); font-weight:600; }
.curves { display:flex; flex-wrap:wrap; gap:8px 28px; margin-top:14px; }
.curves figure { margin:0; width:460px; max-width:100%; }
svg { display:block; width:100%; height:auto; font-size:11px; }
.key { display:flex; flex-wrap:wrap; gap:1px 12px; font-size:12px; color:var(--soft); }
.key i { display:inline-block; width:18px; vertical-align:middle;
  margin-right:4px; }
@media print { nav, .tabs, .wipe { display:none; } .scroll { max-height:none; } }
"""

SCRIPT = """
"use strict";
const all = (what, where = document) => [...where.querySelectorAll(what)];
const cards = all(".card").filter(card => card.querySelector(".top"));
for (const card of cards) {
  const section = card.closest("section");
  const sources = new Map(all("[data-given]", section).map(i => [i.dataset.given, i.src]));
  const same = card.dataset.same && document.getElementById(card.dataset.same);
  if (same)
    sources.set("reconstruction", same.querySelector("[data-name=reconstruction]").src);
  for (const image of all("[data-name]", card)) sources.set(image.dataset.name, image.src);
  const top = card.querySelector(".top");
  card.querySelector(".under").src = sources.get("photo");
  card.show = name => {
    if (!sources.has(name)) return;
    top.src = sources.get(name);
    for (const button of all("button", card))
      button.setAttribute("aria-pressed", button.dataset.show === name);
  };
  card.wipe = share => {
    top.style.clipPath = `inset(0 0 0 ${share}%)`;
    card.querySelector(".wipe").value = share;
  };
  for (const button of all("button", card))
    button.addEventListener("click", () => card.show(button.dataset.show));
  card.querySelector(".wipe").addEventListener("input", e => card.wipe(e.target.value));
}
for (const button of all("nav button"))
  button.addEventListener("click", () => {
    for (const card of cards) card.show(button.dataset.show);
    for (const other of all("nav button")) other.setAttribute("aria-pressed", other === button);
  });
for (const range of all("nav input"))
  range.addEventListener("input", () => cards.forEach(card => card.wipe(range.value)));
document.addEventListener("keydown", event => {
  const button = all("nav button")[Number(event.key) - 1];
  if (button && event.target.tagName !== "INPUT") button.click();
});
for (const head of all("th")) {
  const sort = () => {
    const place = head.cellIndex, body = head.closest("table").tBodies[0];
    const down = head.getAttribute("aria-sort") === "ascending";
    const value = row => row.cells[place] ? row.cells[place].dataset.v : "";
    const rows = [...body.rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      const words = head.classList.contains("word");
      const order = words ? x.localeCompare(y) : Number(x) - Number(y);
      return down ? -order : order;
    });
    for (const other of all("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
}
"""
