// The runs of the newest question: "before" as the team is, "after" with changes, and "twin".
let shown = { question: "", runs: {} };
let running = null;

async function runOne(kind, request, signal) {
  const card = openCard(kind);
  byId("status").textContent = `Asking: ${TITLES[kind].toLowerCase()}`;
  let text = "";
  for await (const message of ask(request, signal)) {
    if (message.type === "begin") {
      resetGraph(message.steps);
      card.note.textContent = "running";
    } else if (message.type === "step") {
      showStep(message);
    } else if (message.type === "text") {
      text += message.text;
      card.answer.textContent = text;
    } else if (message.type === "note") {
      card.note.textContent = message.text;
    } else if (message.type === "end") {
      closeCard(card, message);
      byId("spoken").textContent = `${TITLES[kind]} answered: ${message.text || "nothing"}`;
      return message;
    } else if (message.type === "error") {
      throw new Error(message.message);
    }
  }
  throw new Error("The server closed the connection before the answer was complete.");
}

// Which runs to make: those of the same question that are there already need no repetition.
function planned(request) {
  const { changes: asked, other, ...plain } = request;
  plain.changes = [];
  const question = JSON.stringify(plain);
  const again = !asked.length || question !== shown.question;
  if (again) {
    shown = { question, runs: {} };
    byId("cards").replaceChildren();
  }
  const list = [];
  if (!shown.runs.before) list.push(["before", plain]);
  if (asked.length) list.push(["after", request]);
  if (byId("twin").checked && !shown.runs.twin) list.push(["twin", { ...plain, twin: true }]);
  return list;
}

async function askAll() {
  running = new AbortController();
  const { signal } = running;
  setBusy(true);
  showProblem("");
  try {
    for (const [kind, request] of planned(readForm())) {
      delete shown.runs[kind];
      showRuns();
      shown.runs[kind] = await runOne(kind, request, signal);
      showRuns();
    }
    endGraph("The run is complete.");
    byId("status").textContent = "All answers are there.";
  } catch (error) {
    const stopped = error.name === "AbortError";
    endGraph(stopped ? "Stopped." : "The run failed.");
    byId("status").textContent = stopped ? "Stopped." : "";
    if (!stopped) showProblem(error.message);
    for (const card of document.querySelectorAll(".card.running")) {
      card.classList.remove("running");
      card.querySelector(".note").textContent = stopped ? "stopped" : "failed";
    }
  }
  running = null;
  setBusy(false);
}

// All that compares the runs that are complete.
function showRuns() {
  byId("verdict").textContent = compare(shown.runs);
  showNumbers(shown.runs);
  showLatents(shown.runs);
}

function setBusy(busy) {
  byId("go").disabled = busy;
  byId("stop").disabled = !busy;
  byId("cards").ariaBusy = busy;
}

const stop = () => running?.abort();

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running) askAll();
});
byId("stop").addEventListener("click", () => {
  stop();
  byId("go").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && event.ctrlKey) byId("ask").requestSubmit();
});
addEventListener("pagehide", stop);
