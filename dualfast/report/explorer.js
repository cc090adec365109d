// The data map: points, what is kept at the slider's prune ratio, the histogram of a score and the keep rate by class.
(async function () {
  const BINS = 50;
  const MARGIN = { left: 48, right: 12, top: 10, bottom: 40 };
  const REACH = 14; // px from the pointer within which a point is picked
  const root = document.getElementById("explorer");
  const part = (name) => root.querySelector(`[data-part="${name}"]`);
  const about = JSON.parse(document.getElementById("explorer-header").textContent);
  const n = about.points;
  const count = new Intl.NumberFormat("en").format;
  const share = (some, all) => (all ? `${((100 * some) / all).toFixed(1)}%` : "–");

  // ---- the packed columns -------------------------------------------------------------------------------------------

  let buffer;
  try {
    buffer = await unpack("explorer-data");
  } catch {
    part("message").textContent = "This browser cannot unpack the map; a newer one can.";
    return;
  }
  const parts = {};
  let offset = 0;
  for (const [name, size, length] of about.parts) {
    parts[name] = new { 1: Uint8Array, 4: Uint32Array }[size](buffer, offset, length);
    offset += size * length;
  }
  const ids = parts.gaps; // becomes a running sum
  for (let i = 1; i < n; i++) ids[i] += ids[i - 1];
  const labels = parts.labels;
  const scores = new Map(about.columns.map((column) => [column.name, { ...column, level: levels(parts[column.name]) }]));
  const names = parts.names ? new TextDecoder().decode(parts.names).split("\0") : [];
  const tileOf = new Map([...parts.tiled].map((point, tile) => [point, tile]));
  const suspect = new Map([...(parts.suspects || [])].map((point, at) => [point, parts.likely ? parts.likely[at] : -1]));
  const x = scores.get("mean");
  const y = scores.get("dyn_unc") || scores.get("dual");

  function levels(planes) {
    return planes.length === n ? planes : Uint16Array.from({ length: n }, (_, i) => planes[i] | (planes[n + i] << 8));
  }

  const value = (score, i) => score.low + ((score.level[i] - 1) / (score.steps || 1)) * (score.high - score.low);
  const short = (number) => (number !== 0 && Math.abs(number) < 1e-3 ? number.toExponential(1) : String(+number.toPrecision(3)));
  const className = (label) => about.classes[label] ?? String(label);

  // ---- what is shown ------------------------------------------------------------------------------------------------

  const [slider, classes, wrong, column] = ["ratio", "class", "wrong", "column"].map(part);
  const kept = new Uint8Array(n).fill(1);
  const shown = new Uint8Array(n);
  const draw = () => about.ratios[slider.value];

  function readKept() {
    if (!about.ratios.length) return;
    const bits = parts.kept.subarray(slider.value * Math.ceil(n / 8));
    for (let i = 0; i < n; i++) kept[i] = (bits[i >> 3] >> (i & 7)) & 1;
  }

  function readShown() {
    const label = classes.value === "" ? -1 : Number(classes.value);
    for (let i = 0; i < n; i++) shown[i] = (label < 0 || labels[i] === label) && (!wrong.checked || suspect.has(i)) ? 1 : 0;
  }

  // ---- the map ------------------------------------------------------------------------------------------------------

  const canvas = part("canvas");
  const pen = canvas.getContext("2d");
  const at = new Int32Array(n); // the pixel of each point
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  let [width, height, scale] = [0, 0, 1];

  const start = Math.floor(10 * Math.min(x.low, 0.9)) / 10; // of the horizontal axis
  const toX = (mean) => MARGIN.left + ((mean - start) / (1 - start)) * (width - MARGIN.left - MARGIN.right);
  const toY = (spread) => height - MARGIN.bottom - (spread / top()) * (height - MARGIN.top - MARGIN.bottom);
  const top = () => Math.max(1.04 * y.high, 1e-9);

  function place() {
    width = canvas.clientWidth;
    height = canvas.clientHeight;
    scale = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    for (let i = 0; i < n; i++) {
      at[i] = Math.round(scale * toY(value(y, i))) * canvas.width + Math.round(scale * toX(value(x, i)));
    }
  }

  // How many points cover each pixel says how opaque it is, and which part of them is kept its colour.
  function paint() {
    if (!canvas.width) return; // the page is not laid out
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const radius = scale * (n <= 500 ? 4 : n <= 5000 ? 2.5 : 1.5);
    const stamp = [];
    const reach = Math.floor(radius);
    for (let dy = -reach; dy <= reach; dy++) {
      for (let dx = -reach; dx <= reach; dx++) if (dx * dx + dy * dy <= radius * radius) stamp.push(dy * canvas.width + dx);
    }
    const counts = new Uint32Array(canvas.width * canvas.height); // all in the upper half, kept ones in the lower
    for (let i = 0; i < n; i++) {
      if (!shown[i]) continue;
      const one = 0x10000 + kept[i];
      for (let s = 0; s < stamp.length; s++) counts[at[i] + stamp[s]] += one;
    }
    const image = pen.createImageData(canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    const mixed = mixes(rgb("--removed"), rgb("--kept"));
    const alpha = n <= 500 ? 0.85 : n <= 5000 ? 0.6 : 0.4;
    const opaque = Uint8Array.from({ length: 64 }, (_, times) => 255 * (1 - (1 - alpha) ** times));
    for (let p = 0; p < counts.length; p++) {
      if (!counts[p]) continue;
      const all = counts[p] >>> 16;
      pixels[p] = (opaque[all < 63 ? all : 63] << 24) | mixed[Math.round((64 * (counts[p] & 0xffff)) / all)];
    }
    pen.putImageData(image, 0, 0);
    drawAxes();
  }

  function mixes(from, to) {
    return Uint32Array.from({ length: 65 }, (_, i) => {
      const [r, g, b] = from.map((start, c) => Math.round(start + (i / 64) * (to[c] - start)));
      return (b << 16) | (g << 8) | r;
    });
  }

  function rgb(name) {
    const hex = Number.parseInt(colour(name).slice(1), 16);
    return [hex >> 16, (hex >> 8) & 255, hex & 255];
  }

  function drawAxes() {
    pen.save();
    pen.scale(scale, scale);
    pen.font = `12px ${getComputedStyle(root).fontFamily}`;
    pen.fillStyle = colour("--soft");
    pen.strokeStyle = colour("--line");
    const [bottom, left] = [height - MARGIN.bottom, MARGIN.left];
    pen.beginPath();
    pen.moveTo(left, MARGIN.top);
    pen.lineTo(left, bottom);
    pen.lineTo(width - MARGIN.right, bottom);
    pen.stroke();
    pen.textAlign = "center";
    for (const tick of ticks(start, 1)) pen.fillText(short(tick), toX(tick), bottom + 16);
    pen.fillText("mean true-class probability", (left + width - MARGIN.right) / 2, height - 6);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const tick of ticks(0, top())) pen.fillText(short(tick), left - 6, toY(tick));
    pen.textAlign = "left";
    pen.textBaseline = "top";
    pen.fillText(y.name === "dual" ? "DUAL" : "standard deviation, mean over windows (dyn_unc)", left + 8, 4);
    pen.restore();
  }

  function ticks(from, to) {
    const power = 10 ** Math.floor(Math.log10((to - from) / 4));
    const step = [1, 2, 2.5, 5, 10].map((by) => by * power).find((by) => (to - from) / by <= 5.01);
    const first = Math.ceil(from / step - 1e-6);
    return Array.from({ length: Math.floor(to / step + 1e-6) - first + 1 }, (_, i) => (first + i) * step);
  }

  // ---- the histogram ------------------------------------------------------------------------------------------------

  function histogram() {
    const score = scores.get(column.value);
    const isMean = score === x;
    const [low, high] = isMean ? [0, 1] : [score.low, score.high];
    const [all, some] = [new Uint32Array(BINS), new Uint32Array(BINS)];
    for (let i = 0; i < n; i++) {
      if (!shown[i] || !score.level[i]) continue;
      const bin = Math.max(0, Math.min(BINS - 1, Math.floor((BINS * (value(score, i) - low)) / (high - low || 1))));
      all[bin]++;
      some[bin] += kept[i];
    }
    const chart = part("histogram");
    const [wide, tall] = [chart.clientWidth, chart.clientHeight];
    const most = Math.max(1, ...all);
    const [left, right, above, below] = [MARGIN.left, 12, 14, 24];
    const px = (at) => left + at * (wide - left - right);
    const py = (share) => tall - below - share * (tall - above - below);
    const bars = (counts, from) => Array.from(counts, (c, bin) => {
      const [bottom, height] = [py(from ? from[bin] / most : 0), py(0) - py(c / most)];
      return height ? `M${px(bin / BINS).toFixed(1)} ${bottom.toFixed(1)}v${(-height).toFixed(1)}h${((px(1) - px(0)) / BINS - 0.5).toFixed(1)}v${height.toFixed(1)}z` : "";
    }).join("");
    chart.setAttribute("viewBox", `0 0 ${wide} ${tall}`);
    part("bars-kept").setAttribute("d", bars(some));
    part("bars-removed").setAttribute("d", bars(all.map((c, bin) => c - some[bin]), some));
    part("curve").setAttribute("d", isMean ? betaCurve(px, py) : "");
    label("low", short(low), left, tall - 6);
    label("high", short(high), wide - right, tall - 6);
    label("most", count(most), left - 6, py(1) + 4);
    label("none", "0", left - 6, py(0) + 4);
    const has = isMean && draw()?.a !== undefined;
    part("beta").textContent = has ? `Line: the Beta density by which weights are multiplied, Beta(${short(draw().a)}, ${short(draw().b)}), c_D ${short(draw().c_d)}.` : "";
  }

  function label(name, text, left, y) {
    const element = part(`label-${name}`);
    element.textContent = text;
    element.setAttribute("x", left);
    element.setAttribute("y", y);
  }

  // The density at its own scale: its peak is as high as the highest bar.
  function betaCurve(px, py) {
    const { a, b } = draw() || {};
    if (a === undefined) return "";
    const at = Array.from({ length: 200 }, (_, i) => (i + 0.5) / 200);
    const log = at.map((mean) => (a - 1) * Math.log(mean) + (b - 1) * Math.log1p(-mean));
    const peak = Math.max(...log);
    return "M" + at.map((mean, i) => `${px(mean).toFixed(1)} ${py(Math.exp(log[i] - peak)).toFixed(1)}`).join("L");
  }

  // ---- counts and keep rates ----------------------------------------------------------------------------------------

  const rows = new Map();

  function makeRows() {
    if (!labels) return;
    const body = part("rates");
    for (const label of [...new Set(labels)].sort((a, b) => a - b)) {
      const row = body.insertRow();
      row.insertCell().className = "left";
      row.cells[0].textContent = className(label);
      for (let i = 0; i < 3; i++) row.insertCell();
      row.cells[3].className = "bar";
      rows.set(label, row);
      classes.add(new Option(className(label), label));
    }
  }

  let rest = 0;

  function fillRows(all, some) {
    for (const [label, row] of rows) {
      row.hidden = !all[label];
      if (row.hidden) continue;
      const texts = [count(some[label]), count(all[label]), share(some[label], all[label])];
      texts.forEach((text, i) => { row.cells[i + 1].textContent = text; });
      row.cells[3].style.setProperty("--share", texts[2]);
    }
  }

  function tell() {
    const size = labels ? labels.reduce((most, label) => Math.max(most, label), 0) + 1 : 1;
    const [all, some] = [new Uint32Array(size), new Uint32Array(size)];
    for (let i = 0; i < n; i++) {
      if (!shown[i]) continue;
      const label = labels ? labels[i] : 0;
      all[label]++;
      some[label] += kept[i];
    }
    clearTimeout(rest);
    if (rows.size <= 100) fillRows(all, some);
    else rest = setTimeout(fillRows, 100, all, some); // when the slider rests
    const sum = (counts) => counts.reduce((a, b) => a + b, 0);
    const [nAll, nKept] = [sum(all), sum(some)];
    const of = n < about.samples ? `${count(nAll)} shown are` : count(nAll);
    const now = draw();
    part("count").textContent = now ? `${count(nKept)} of ${of} kept, ${share(nKept, nAll)}` : `${count(nAll)} shown`;
    if (!now) return;
    part("ratio-value").textContent = String(now.ratio);
    slider.setAttribute("aria-valuetext", now.ratio);
    const source = now.listed ? "the run's own list" : "drawn for this page, as the run would select";
    const whole = n < about.samples ? `${count(now.kept)} of all ${count(about.samples)} kept; ` : "";
    part("source").textContent = `At ${now.ratio}: ${whole}${source}.`;
  }

  // ---- one sample ---------------------------------------------------------------------------------------------------

  const [tip, mark] = ["tip", "mark"].map(part);
  let cursor = null; // where the keyboard is

  function nearest(left, top, reach) {
    let [best, found] = [reach * reach * scale * scale, -1];
    for (let i = 0; i < n; i++) {
      if (!shown[i]) continue;
      const [dx, dy] = [(at[i] % canvas.width) - left * scale, Math.floor(at[i] / canvas.width) - top * scale];
      const far = dx * dx + dy * dy;
      if (far < best) [best, found] = [far, i];
    }
    return found;
  }

  function imageOf(i) {
    const larger = document.querySelector(`img[data-image="${ids[i]}"]`);
    if (larger) {
      const copy = new Image();
      copy.src = larger.src;
      copy.className = larger.className;
      copy.alt = "";
      return copy;
    }
    if (!tileOf.has(i)) return null;
    const { size, across, source } = about.tiles;
    const tile = document.createElement("span");
    const [column, row] = [tileOf.get(i) % across, Math.floor(tileOf.get(i) / across)];
    Object.assign(tile.style, {
      width: `${size}px`,
      height: `${size}px`,
      backgroundImage: `url("${source}")`,
      backgroundPosition: `${-size * column}px ${-size * row}px`,
    });
    tile.className = "tile";
    return tile;
  }

  function describe(i) {
    const lines = [];
    if (labels) lines.push(className(labels[i]));
    if (suspect.has(i)) lines.push(`looks wrong${suspect.get(i) < 0 ? "" : `: like ${className(suspect.get(i))}`}`);
    if (about.ratios.length) lines.push(kept[i] ? "kept" : "removed");
    const values = [...scores.values()].filter((score) => score.level[i]).map((score) => `${score.name} ${short(value(score, i))}`);
    return { name: names[i] || `id ${ids[i]}`, id: names[i] ? `id ${ids[i]}` : "", lines, values };
  }

  function show(i) {
    tip.hidden = mark.hidden = i < 0;
    if (i < 0) return;
    const { name, id, lines, values } = describe(i);
    const text = document.createElement("div");
    for (const [line, tag] of [[name, "b"], [lines.join(" · "), "div"], [id, "div"], [values.join(", "), "div"]]) {
      if (!line) continue;
      const element = document.createElement(tag);
      element.textContent = line;
      text.append(element);
    }
    tip.replaceChildren(...[imageOf(i), text].filter(Boolean));
    const [left, top] = [(at[i] % canvas.width) / scale, Math.floor(at[i] / canvas.width) / scale];
    Object.assign(mark.style, { left: `${left}px`, top: `${top}px` });
    const room = width - tip.offsetWidth;
    const beside = left + 14 <= room ? left + 14 : left - 14 - tip.offsetWidth;
    const fits = beside >= 0;
    const below = top + 14 + tip.offsetHeight <= height ? top + 14 : Math.max(0, top - 14 - tip.offsetHeight);
    Object.assign(tip.style, { left: `${fits ? beside : Math.max(0, room / 2)}px`, top: `${below}px` });
  }

  function move(event) {
    const box = canvas.getBoundingClientRect();
    show(nearest(event.clientX - box.left, event.clientY - box.top, REACH));
  }

  function press(event) {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") show(-1);
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    cursor ??= [toX((start + 1) / 2), toY(top() / 2)];
    const step = event.shiftKey ? 60 : 12;
    cursor[0] = Math.min(Math.max(cursor[0] + step * by[0], toX(start)), toX(1));
    cursor[1] = Math.min(Math.max(cursor[1] + step * by[1], toY(top())), toY(0));
    const found = nearest(...cursor, Infinity);
    show(found);
    if (found < 0) return;
    const { name, lines, values } = describe(found);
    part("spoken").textContent = [name, ...lines, ...values].join(", ");
  }

  // ---- controls -----------------------------------------------------------------------------------------------------

  let due = false;

  function later() {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      readKept();
      readShown();
      paint();
      histogram();
      tell();
    });
  }

  makeRows();
  for (const score of scores.values()) column.add(new Option(score.name, score.name));
  slider.max = Math.max(0, about.ratios.length - 1);
  slider.value = about.start;
  part("wrong-count").textContent = count(suspect.size);
  part("wrong-label").hidden = !suspect.size;
  part("class-label").hidden = part("by-class").hidden = !labels;
  for (const element of root.querySelectorAll("[data-draws]")) element.hidden = !about.ratios.length;
  for (const control of [slider, classes, wrong, column]) {
    control.addEventListener("input", () => { show(-1); later(); });
  }
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
  canvas.addEventListener("pointerleave", () => show(-1));
  canvas.addEventListener("blur", () => show(-1));
  canvas.addEventListener("keydown", press);
  part("message").hidden = true;
  part("body").hidden = false;
  new ResizeObserver(() => { place(); show(-1); later(); }).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", later);
})();
