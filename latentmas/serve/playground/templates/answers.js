const TITLES = { before: "The team", after: "The team, with the changes", twin: "The text twin" };
const COLUMNS = { before: "team", after: "changed", twin: "text twin" };
const COSTS = {
  prompt_tokens: "prompt positions",
  latent_steps: "latent steps",
  new_tokens: "written tokens",
  tool_calls: "tool calls",
};
const ENDS = {
  stop: "ended by itself",
  length: "cut at the token limit",
  tool_limit: "ended at the limit of tool calls",
};

function openCard(kind) {
  const answer = make("pre", { className: "answer" });
  const note = make("p", { className: "mute note", textContent: "waiting for the engine" });
  const card = make("article", { className: "card running" });
  card.id = `card-${kind}`;
  card.append(make("h3", { textContent: TITLES[kind] }), answer, note);
  byId(card.id)?.remove();
  const order = Object.keys(TITLES);
  const later = order.slice(order.indexOf(kind) + 1).map((each) => byId(`card-${each}`));
  byId("cards").insertBefore(card, later.find(Boolean) ?? null);
  return { card, answer, note };
}

function closeCard({ card, answer, note }, result) {
  card.classList.remove("running");
  answer.textContent = result.text;
  const ended = ENDS[result.finish] ?? result.finish;
  note.textContent = `${plural(result.costs.new_tokens, "token")} written, ${duration(result.seconds)}; ${ended}`;
  if (!result.text) note.textContent += "; the answer is empty";
  if (!result.texts.length) return;
  const said = result.texts.map((each) =>
    make("li", {}, make("b", { textContent: `Round ${each.round}, ${each.agent}: ` }), each.text),
  );
  const list = make("ol", { className: "said" }, ...said);
  card.append(make("details", {}, make("summary", { textContent: "What agents said" }), list));
}

// The words of a text between the beginning and the end that it shares with another.
function markChanged(element, text, other) {
  const words = text.split(/(\s+)/);
  const others = other.split(/(\s+)/);
  const shorter = Math.min(words.length, others.length);
  let start = 0;
  while (start < shorter && words[start] === others[start]) start += 1;
  let end = 0;
  while (end < shorter - start && words.at(-1 - end) === others.at(-1 - end)) end += 1;
  const last = words.length - end;
  const changed = make("mark", { textContent: words.slice(start, last).join("") });
  element.replaceChildren(words.slice(0, start).join(""));
  if (changed.textContent) element.append(changed);
  element.append(words.slice(last).join(""));
}

function compare(runs) {
  const { before, after } = runs;
  if (!after) return "The most likely token is always taken, so answers differ only by what you change.";
  if (before.text === after.text) return "With the changes, the answer is the same.";
  markChanged(byId("card-after").querySelector(".answer"), after.text, before.text);
  return "With the changes, the answer differs; the words that differ are underlined.";
}

function showNumbers(runs) {
  const kinds = Object.keys(TITLES).filter((kind) => runs[kind]);
  byId("numbers").hidden = !kinds.length;
  const head = kinds.map((kind) =>
    make("th", { scope: "col", className: "n", textContent: COLUMNS[kind] }),
  );
  const row = (name, values) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: name }),
      ...values.map((value) => make("td", { className: "n", textContent: value })),
    );
  const rows = Object.entries(COSTS)
    .map(([key, name]) => [name, kinds.map((kind) => runs[kind].costs[key])])
    .filter(([, values]) => values.some(Boolean))
    .map(([name, values]) => row(name, values.map((value) => value.toLocaleString("en"))));
  rows.push(row("seconds", kinds.map((kind) => runs[kind].seconds.toPrecision(3))));
  const table = make(
    "table",
    {},
    make("caption", { textContent: "Costs of all agents" }),
    make("thead", {}, make("tr", {}, make("td"), ...head)),
    make("tbody", {}, ...rows),
  );
  byId("numbers").replaceChildren(scrolling("Costs", table));
}

function scrolling(name, child) {
  const box = make("div", { className: "scroll", tabIndex: 0, role: "region" }, child);
  box.ariaLabel = name;
  return box;
}
