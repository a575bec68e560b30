const changes = [...document.querySelectorAll(".change")];
const valueOf = (id) => (byId(id) ? Number(byId(id).value) : null);

function texts(selector) {
  const fields = [...document.querySelectorAll(selector)];
  return Object.fromEntries(fields.map((field) => [field.dataset.name, field.value]));
}

// What is sent. Values as declared are left out, since agents may declare numbers of their own.
function readForm() {
  const rounds = valueOf("rounds");
  const latent = valueOf("latent");
  const request = { inputs: texts(".input"), changes: [], rounds };
  if (latent !== null && latentMoved) request.latent_steps = latent;
  if (byId("tokens").value) request.max_new_tokens = valueOf("tokens");
  for (const change of changes) {
    const how = change.querySelector(".how").value;
    if (!how) continue;
    const round = change.querySelector(".when").value;
    const words = change.querySelector(".words input").value;
    request.changes.push({
      edge: change.dataset.edge,
      how,
      round: round ? Number(round) : null,
      words: how === "words" ? words : "",
    });
  }
  if (request.changes.some((change) => change.how === "question")) {
    request.other = texts("#other textarea");
  }
  return request;
}

let latentMoved = false;

function showSizes() {
  const rounds = valueOf("rounds");
  const declared = rounds === team.rounds ? ", as declared" : "";
  byId("rounds-value").textContent = plural(rounds, "round") + declared;
  if (byId("latent")) {
    const own = team.latentSteps;
    const range = own.length > 1 ? `${own[0]} to ${own.at(-1)} steps` : plural(own[0], "step");
    byId("latent-value").textContent = latentMoved
      ? `${plural(valueOf("latent"), "step")} of every agent`
      : `${range}, as declared`;
  }
  for (const select of document.querySelectorAll(".when")) {
    const chosen = select.value;
    const options = [make("option", { value: "", textContent: "every round" })];
    for (let round = 1; round <= rounds; round += 1) {
      options.push(make("option", { value: round, textContent: `round ${round}` }));
    }
    select.replaceChildren(...options);
    select.value = Number(chosen) <= rounds ? chosen : "";
  }
}

function showChanges() {
  let count = 0;
  for (const change of changes) {
    const how = change.querySelector(".how").value;
    change.classList.toggle("active", how !== "");
    change.querySelector(".words").hidden = how !== "words";
    count += how !== "";
  }
  const asked = changes.some((change) => change.querySelector(".how").value === "question");
  if (!byId("changes")) return;
  byId("other").hidden = !asked;
  const summary = byId("changes").querySelector("summary");
  summary.textContent = count ? `Change messages: ${count} changed` : "Change messages";
}

byId("rounds").addEventListener("input", showSizes);
byId("latent")?.addEventListener("input", () => {
  latentMoved = true;
  showSizes();
});
for (const change of changes) change.addEventListener("change", showChanges);
showSizes();
showChanges();
