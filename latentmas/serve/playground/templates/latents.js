// Nearest tokens of one agent's states or one edge's messages, as it is and with the changes.
const named = (reading) => (reading.message ? "Messages " : "States of ") + reading.label;

function showLatents(runs) {
  const readings = runs.before?.latents ?? [];
  byId("latents").hidden = !readings.length;
  const select = byId("which");
  const chosen = select.value;
  const names = [...new Set(readings.map(named))];
  select.replaceChildren(...names.map((name) => make("option", { textContent: name })));
  select.value = names.includes(chosen) ? chosen : names[0];
  select.onchange = () => showReadings(runs);
  showReadings(runs);
}

function showReadings(runs) {
  const name = byId("which").value;
  const tables = [];
  const first = new Map();
  for (const kind of ["before", "after"]) {
    if (!runs[kind]) continue;
    const rows = [];
    for (const reading of runs[kind].latents.filter((each) => named(each) === name)) {
      reading.nearest.forEach((near, step) => {
        const place = `${reading.round}/${step}`;
        if (kind === "before") first.set(place, near[0][0]);
        rows.push(latentRow(reading.round, step + 1, near, kind === "after" && first.get(place) !== near[0][0]));
      });
    }
    tables.push(latentTable(`${name}: ${TITLES[kind].toLowerCase()}`, rows));
  }
  byId("readings").replaceChildren(...tables);
}

function latentRow(round, step, near, differs) {
  const cells = near.map(([token, value]) =>
    make(
      "td",
      {},
      make("span", { className: "token", textContent: token.replaceAll("\n", "↵") }),
      make("i", { textContent: value.toFixed(2) }),
    ),
  );
  const sign = make("td", {});
  if (differs) {
    sign.append("≠", make("span", { className: "hidden", textContent: "differs from before" }));
  }
  const place = make("th", { scope: "row", className: "n", textContent: step });
  return make("tr", {}, make("td", { className: "n", textContent: round }), place, sign, ...cells);
}

function latentTable(title, rows) {
  const head = ["round", "step", "", "nearest"].map((text) =>
    make(text ? "th" : "td", text ? { scope: "col", textContent: text } : {}),
  );
  head[3].colSpan = 5;
  const table = make(
    "table",
    { className: "near" },
    make("caption", { textContent: title }),
    make("thead", {}, make("tr", {}, ...head)),
    make("tbody", {}, ...rows),
  );
  return scrolling(title, table);
}
