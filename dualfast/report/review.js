// The review of labels that look wrong: decisions by key, saved as the table that `dualfast apply-labels` takes.
(function () {
  const STEP = 48;
  const review = document.getElementById("review");
  const classes = JSON.parse(review.dataset.classes);
  const cards = [...review.querySelectorAll("figure")];
  const [pair, other, done, save, more] = ["pair", "other", "done", "save", "more"].map((id) => document.getElementById(id));
  const kept = `dualfast review ${location.pathname} ${cards.map((card) => card.dataset.id).join(" ")}`;
  const words = { n: "label is right", x: "left out" };
  // A class as text: characters that turn the direction of writing would make it look like another.
  const named = (label) => classes[label].replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (turn) => `\\u${turn.charCodeAt(0).toString(16).padStart(4, "0")}`);
  let shown = STEP;
  let chosen = cards[0];

  const pairOf = (card) => `${card.dataset.label} ${card.dataset.likely}`;
  const inPair = () => cards.filter((card) => !pair.value || pairOf(card) === pair.value);
  const visible = () => cards.filter((card) => !card.hidden);

  // A decision is n, x, or the number of a class.
  function decide(card, decision) {
    if (decision === card.dataset.label) decision = "n";
    if (decision === "") delete card.dataset.decision;
    else card.dataset.decision = decision;
    card.querySelector(".verdict").textContent = decision === "" ? "" : words[decision] || `is ${named(decision)}`;
    done.textContent = `${cards.filter((each) => "decision" in each.dataset).length} of ${cards.length} decided`;
  }

  function remember() {
    const decisions = cards.map((card) => card.dataset.decision || "");
    try { localStorage.setItem(kept, JSON.stringify(decisions)); } catch { /* a browser that keeps nothing */ }
  }

  function recall() {
    try { return JSON.parse(localStorage.getItem(kept)) || []; } catch { return []; }
  }

  function show() {
    const matching = inPair();
    const front = new Set(matching.slice(0, shown));
    for (const card of cards) card.hidden = !front.has(card);
    more.hidden = matching.length <= shown;
  }

  function choose(card) {
    chosen.classList.remove("chosen");
    chosen = card;
    chosen.classList.add("chosen");
  }

  function move(by) {
    const list = visible();
    const to = list[Math.min(Math.max(list.indexOf(chosen) + by, 0), list.length - 1)];
    choose(to);
    to.focus({ preventScroll: true });
    to.scrollIntoView({ block: "nearest" });
  }

  function press(key) {
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    const decisions = { y: chosen.dataset.likely, n: "n", x: "x", u: "" };
    if (key in moves) move(moves[key]);
    else if (key in decisions) settle(decisions[key]);
    else return false;
    return true;
  }

  function settle(decision) {
    decide(chosen, decision);
    remember();
    if (decision !== "") move(1);
  }

  function columns() {
    const list = visible();
    const below = list.findIndex((card) => card.offsetTop > list[0].offsetTop);
    return below < 0 ? list.length : below;
  }

  function cell(text) {
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function table() {
    const rows = [["id", "label", "likely", "class", "likely_class", "decision"]];
    for (const { dataset } of cards) {
      if (!("decision" in dataset)) continue;
      const { id, label, likely, decision } = dataset;
      const said = decision === "n" ? "" : decision === "x" ? "exclude" : classes[decision];
      rows.push([id, label, likely, classes[label], classes[likely], said]);
    }
    return rows.map((row) => row.map(cell).join(",") + "\n").join("");
  }

  review.addEventListener("keydown", (event) => {
    if (!event.target.closest("figure, button[data-key]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (press(event.key)) event.preventDefault();
  });
  review.addEventListener("focusin", (event) => {
    const card = event.target.closest("figure");
    if (card) choose(card);
  });
  for (const button of review.querySelectorAll("button[data-key]")) {
    button.addEventListener("click", () => press(button.dataset.key));
  }
  other.addEventListener("change", () => {
    if (other.value !== "") settle(other.value);
    other.value = "";
  });
  pair.addEventListener("change", () => { shown = STEP; show(); choose(visible()[0]); });
  more.addEventListener("click", () => { shown += STEP; show(); });
  save.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    link.download = "decisions.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  const counts = new Map();
  for (const card of cards) counts.set(pairOf(card), (counts.get(pairOf(card)) || 0) + 1);
  for (const [key, count] of [...counts].sort((a, b) => b[1] - a[1])) {
    const [label, likely] = key.split(" ");
    pair.add(new Option(`labelled ${named(label)}, looks like ${named(likely)} (${count})`, key));
  }
  classes.forEach((_, number) => other.add(new Option(named(number), number)));
  recall().forEach((decision, at) => { if (cards[at]) decide(cards[at], decision); });
  decide(chosen, chosen.dataset.decision || "");
  for (const part of review.querySelectorAll(".tools, p")) part.hidden = false;
  show();
  choose(chosen);
})();
