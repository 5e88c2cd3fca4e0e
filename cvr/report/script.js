'use strict';
(() => {
  const tip = document.getElementById('tip');
  const SVG = 'http://www.w3.org/2000/svg';

  function draw(cursor, points, straight, height) {
    cursor.replaceChildren();
    for (const p of points) {
      if (p[1] === null) continue;
      const circle = document.createElementNS(SVG, 'circle');
      circle.setAttribute('cx', p[0]);
      circle.setAttribute('cy', p[1]);
      circle.setAttribute('r', 5);
      cursor.append(circle);
    }
    if (straight && points.length) {
      const line = document.createElementNS(SVG, 'path');
      line.setAttribute('d', `M${points[0][0]} 8V${height - 38}`);
      cursor.prepend(line);
    }
  }

  function show(points, x, y) {
    tip.replaceChildren();
    for (const p of points) {
      if (p.length > 3) {
        const tile = document.createElement('i');
        tile.className = `tile h${p[3]}`;
        tile.style.setProperty('--x', p[4]);
        tile.style.setProperty('--y', p[5]);
        tip.append(tile);
      }
      const line = document.createElement('div');
      line.textContent = p[2];
      tip.append(line);
    }
    tip.hidden = !points.length;
    const box = tip.getBoundingClientRect();
    const left = x + 14 + box.width > innerWidth ? x - 14 - box.width : x + 14;
    const top = y + 14 + box.height > innerHeight ? y - 14 - box.height : y + 14;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.max(4, top)}px`;
  }

  function chart(svg) {
    const all = JSON.parse(svg.dataset.points);
    const flat = all.length === 1 && svg.closest('.map, .wide, .large');
    const plane = svg.closest('.map, .wide, .large') !== null;
    const cursor = svg.querySelector('.cursor');
    const size = svg.viewBox.baseVal;
    // The order of the arrow keys: from left to right.
    const stops = plane
      ? all.flat().map((p, i) => [p, i]).sort((a, b) =>
          svg.closest('.map') ? a[0][0] - b[0][0] : a[1] - b[1])
          .map(([p]) => [p])
      : columns(all);
    let at = -1;

    function columns(series) {
      const longest = series.reduce((a, b) => (b.length > a.length ? b : a));
      return longest.map((p) => nearestInX(p[0]));
    }

    function nearestInX(x) {
      return all.filter((s) => s.length).map((s) => s.reduce(
        (a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
    }

    function nearest(x, y) {
      let best = null, least = 24 * 24;
      for (const p of all.flat()) {
        const d = (p[0] - x) ** 2 + (p[1] - y) ** 2;
        if (d < least) { best = p; least = d; }
      }
      return best ? [best] : [];
    }

    function mark(points, x, y) {
      draw(cursor, points, !plane, size.height);
      show(points, x, y);
    }

    function clear() {
      cursor.replaceChildren();
      tip.hidden = true;
    }

    function inside(event) {
      const box = svg.getBoundingClientRect();
      const scale = size.width / box.width;
      return [(event.clientX - box.left) * scale,
              (event.clientY - box.top) * scale];
    }

    svg.addEventListener('pointermove', (event) => {
      const [x, y] = inside(event);
      const points = plane ? nearest(x, y) : nearestInX(x);
      mark(points, event.clientX, event.clientY);
    });
    svg.addEventListener('pointerleave', clear);
    svg.addEventListener('blur', () => { at = -1; clear(); });
    svg.addEventListener('keydown', (event) => {
      const steps = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1,
                     PageDown: 20, PageUp: -20};
      if (event.key === 'Escape') return clear();
      if (event.key === 'Home') at = 0;
      else if (event.key === 'End') at = stops.length - 1;
      else if (event.key in steps) at += steps[event.key];
      else return;
      event.preventDefault();
      at = Math.min(Math.max(at, 0), stops.length - 1);
      const points = stops[at], box = svg.getBoundingClientRect();
      const scale = box.width / size.width;
      mark(points, box.left + points[0][0] * scale,
           box.top + (points[0][1] ?? 0) * scale);
    });
  }

  function pick(id, label) {
    const group = document.getElementById(id);
    group.classList.toggle('picked', label !== '');
    for (const m of group.querySelectorAll('.m'))
      m.classList.toggle('on', m.classList.contains(`c${label}`));
  }

  for (const svg of document.querySelectorAll('svg[data-points]')) chart(svg);
  for (const button of document.querySelectorAll('button[data-map]'))
    button.addEventListener('click', () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      for (const other of document.querySelectorAll(
        `button[data-map=${button.dataset.map}]`))
        other.setAttribute('aria-pressed', on && other === button);
      pick(button.dataset.map, on ? button.dataset.class : '');
    });
  for (const select of document.querySelectorAll('select[data-map]'))
    select.addEventListener('change',
      () => pick(select.dataset.map, select.value));
})();
