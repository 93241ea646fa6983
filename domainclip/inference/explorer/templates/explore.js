// Loads answers without leaving the page, and moves over the maps. Without it, links and forms work as they are.
"use strict";

let pending = null;

function announce(text) {
  document.getElementById("live").textContent = text;
}

async function go(address, push = true, focus = "") {
  if (pending) pending.abort();
  pending = new AbortController();
  const main = document.querySelector("main");
  main.setAttribute("aria-busy", "true");
  const focused = focus || (document.activeElement && document.activeElement.id);
  let response;
  try {
    response = await fetch(address, { signal: pending.signal });
  } catch (error) {
    if (error.name === "AbortError") return;
    main.removeAttribute("aria-busy");
    announce("domainclip explore has ended: start it again.");
    document.getElementById("status").textContent = "domainclip explore has ended: start it again.";
    return;
  }
  const next = new DOMParser().parseFromString(await response.text(), "text/html");
  document.getElementById("page").replaceWith(document.adoptNode(next.getElementById("page")));
  document.title = next.title;
  if (push) history.pushState(null, "", address);
  prepareMaps();
  const target = (focused && document.getElementById(focused)) || document.getElementById("results");
  target.focus({ preventScroll: target.id !== "results" });
  announce(document.getElementById("status").textContent);
}

function formAddress(form) {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value !== "") fields.append(name, value);
  return `?${fields}`;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="?"]');
  if (!link || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"), true, link.id || "results");
});
document.addEventListener("submit", (event) => {
  if (event.target.id !== "ask") return;
  event.preventDefault();
  go(formAddress(event.target));
});
document.addEventListener("change", (event) => {
  if (event.target.matches("#ask select")) go(formAddress(event.target.form));
});
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select");
  const words = document.getElementById("words");
  if (event.key === "/" && !typing && words) {
    event.preventDefault();
    words.focus();
  }
});
window.addEventListener("popstate", () => go(location.search || "?", false));

function prepareMaps() {
  for (const map of document.querySelectorAll("svg.map")) prepareMap(map);
}

function prepareMap(map) {
  const numbers = map.dataset.points.split(" ").map(Number);
  const points = [];
  for (let i = 0; i + 2 < numbers.length; i += 3) points.push({ row: numbers[i], x: numbers[i + 1], y: numbers[i + 2] });
  let current = null, start = null, moved = false;

  const nearest = (x, y, within = Infinity, only = () => true) => {
    let best = null, least = within;
    for (const point of points) {
      const distance = Math.hypot(point.x - x, point.y - y);
      if (distance < least && only(point)) [best, least] = [point, distance];
    }
    return best;
  };
  const place = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
  const select = (a, b) => {
    const edges = [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
    const box = [map.dataset.model, ...edges.map((edge) => (edge / 100).toFixed(4))].join(",");
    go(map.dataset.area.replace("BOX", encodeURIComponent(box)), true, "results");
  };
  const open = (point) => go(map.dataset.open.replace("ROW", point.row), true, "results");

  map.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return;
    start = place(event);
    moved = false;
    map.setPointerCapture(event.pointerId);
  });
  map.addEventListener("pointermove", (event) => {
    const here = place(event);
    if (start && Math.hypot(here.x - start.x, here.y - start.y) > 1.5) moved = true;
    if (start && moved) return draw(map, "area", start, here);
    const point = nearest(here.x, here.y, 3);
    if (point && point !== current) show(point);
  });
  map.addEventListener("pointerup", (event) => {
    const here = place(event), from = start;
    start = null;
    if (from && moved) return select(from, here);
    const point = nearest(here.x, here.y, 3);
    if (!point) return;
    if (event.pointerType === "touch" && point !== current) return show(point);
    open(point);
  });
  map.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && points.length) {
      event.preventDefault();
      const from = current || { x: 50, y: 50 };
      const ahead = (point) => {
        const [dx, dy] = [point.x - from.x, point.y - from.y];
        const along = dx * step[0] + dy * step[1];
        return point !== current && along > 0 && along >= Math.abs(dx * step[1] + dy * step[0]);
      };
      const next = current ? nearest(from.x, from.y, Infinity, ahead) : nearest(50, 50);
      if (next) show(next);
      if (start && next) draw(map, "area", start, next);
    } else if (event.key === "Enter" && current) {
      event.preventDefault();
      open(current);
    } else if (event.key === " " && current) {
      event.preventDefault();
      if (start) return select(start, current);
      start = current;
      announce("First corner set.");
    } else if (event.key === "Escape") {
      start = null;
      clear(map, "area");
    }
  });

  let request = 0;
  async function show(point) {
    current = point;
    for (const other of document.querySelectorAll("svg.map")) mark(other, point.row);
    const mine = ++request;
    await new Promise((resolve) => setTimeout(resolve, 60)); // a pointer that passes over asks for nothing
    if (mine !== request) return;
    const query = map.dataset.open.replace("ROW", point.row);
    const response = await fetch(`detail${query}`).catch(() => null);
    const detail = document.getElementById("detail");
    if (mine !== request || !response || !response.ok || !detail) return;
    detail.replaceChildren(...new DOMParser().parseFromString(await response.text(), "text/html").body.childNodes);
  }
}

function mark(map, row) {
  const numbers = map.dataset.points.split(" ");
  for (let i = 0; i + 2 < numbers.length; i += 3) {
    if (Number(numbers[i]) !== row) continue;
    const [x, y] = [Number(numbers[i + 1]), Number(numbers[i + 2])];
    return draw(map, "at", { x: x - 1.6, y: y - 1.6 }, { x: x + 1.6, y: y + 1.6 });
  }
}

function clear(map, kind) {
  for (const old of map.querySelectorAll(`.${kind}`)) old.remove();
}

function draw(map, kind, a, b) {
  clear(map, kind);
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  box.setAttribute("class", kind);
  box.setAttribute("x", Math.min(a.x, b.x));
  box.setAttribute("y", Math.min(a.y, b.y));
  box.setAttribute("width", Math.abs(a.x - b.x));
  box.setAttribute("height", Math.abs(a.y - b.y));
  if (kind === "at") box.setAttribute("rx", 1.6);
  map.append(box);
}

prepareMaps();
