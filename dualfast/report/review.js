// The review of labels that look wrong: decisions by key, saved as the table that `dualfast apply-labels` takes.
(function () {
  const STEP = 48;
  const review = document.getElementById("review");
  const classes = JSON.parse(review.dataset.classes);
  const cards = [...review.querySelectorAll("figure")];
  const [pair, other, done, save, more] = ["pair", "other", "done", "save", "more"].map((id) => document.getElementById(id));
  const kept = `dualfast review ${location.pathname} ${cards.map((card) => card.dataset.id).join(" ")}`;
  const words = { n: "label is right", x: "left out" };
  let shown = STEP;

  const pairOf = (card) => `${card.dataset.label} ${card.dataset.likely}`;
  const inPair = () => cards.filter((card) => !pair.value || pairOf(card) === pair.value);
  const visible = () => cards.filter((card) => !card.hidden);

  // A decision is n, x, or the number of a class.
  function decide(card, decision) {
    if (decision === card.dataset.label) decision = "n";
    if (decision === "") delete card.dataset.decision;
    else card.dataset.decision = decision;
    card.querySelector(".verdict").textContent = decision === "" ? "" : words[decision] || `is ${classes[decision]}`;
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

  function move(from, by) {
    const list = visible();
    const to = list[Math.min(Math.max(list.indexOf(from) + by, 0), list.length - 1)];
    to.focus();
    to.scrollIntoView({ block: "nearest" });
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
    const card = event.target.closest("figure");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    const decisions = { y: card.dataset.likely, n: "n", x: "x", u: "" };
    if (event.key in moves) move(card, moves[event.key]);
    else if (event.key in decisions) {
      decide(card, decisions[event.key]);
      remember();
      if (event.key !== "u") move(card, 1);
    } else return;
    event.preventDefault();
  });

  let last = cards[0];
  review.addEventListener("focusin", (event) => { last = event.target.closest("figure") || last; });
  other.addEventListener("change", () => {
    if (other.value === "") return;
    decide(last, other.value);
    remember();
    other.value = "";
    move(last, 1);
  });
  pair.addEventListener("change", () => { shown = STEP; show(); });
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
    pair.add(new Option(`labelled ${classes[label]}, looks like ${classes[likely]} (${count})`, key));
  }
  classes.forEach((name, number) => other.add(new Option(name, number)));
  recall().forEach((decision, at) => { if (cards[at]) decide(cards[at], decision); });
  decide(last, last.dataset.decision || "");
  for (const part of review.querySelectorAll(".tools, p")) part.hidden = false;
  show();
})();
