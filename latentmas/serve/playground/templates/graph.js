// The drawing and the list of turns. Steps may last a millisecond, so each one is shown for a
// moment; where many wait, the moments are shorter.
const still = matchMedia("(prefers-reduced-motion: reduce)");
const graph = { steps: [], turns: [], round: 0, waiting: [], timer: 0 };
const partsOf = (name) =>
  [...document.querySelectorAll("svg [data-part]")].filter((g) => g.dataset.part === name);
const nextRound = new Set(team.edges.filter((e) => e.nextRound).map((e) => `edge ${e.id}`));

function light(names, style, on) {
  for (const part of names.flatMap(partsOf)) part.classList.toggle(style, on);
}

function resetGraph(steps) {
  clearTimeout(graph.timer);
  Object.assign(graph, { steps, round: 0, waiting: [], timer: 0, turns: [] });
  for (const part of document.querySelectorAll("svg [data-part]")) {
    part.classList.remove("now", "sent");
  }
  const rounds = new Map();
  steps.forEach((step, index) => {
    if (step.op !== "rollout" && step.op !== "decode") return;
    const turn = make("span", { className: "turn waiting", textContent: step.agent });
    graph.turns[index] = turn;
    if (!rounds.has(step.round)) rounds.set(step.round, make("li", {}, `Round ${step.round}`));
    rounds.get(step.round).append(turn);
  });
  byId("turns").replaceChildren(...rounds.values());
}

function showStep(message) {
  graph.waiting.push(message);
  if (!graph.timer) nextStep();
}

function nextStep() {
  graph.timer = 0;
  const message = graph.waiting.shift();
  if (!message) return;
  const pause = still.matches ? 0 : Math.max(10, 110 - 8 * graph.waiting.length);
  graph.timer = setTimeout(nextStep, message.state === "begin" ? pause : 0);
  (message.state === "begin" ? begin : end)(message, graph.steps[message.index]);
}

function begin({ index }, step) {
  if (step.round > graph.round) {
    graph.round = step.round;
    for (const part of document.querySelectorAll("svg [data-part].sent")) {
      part.classList.toggle("sent", nextRound.has(part.dataset.part));
    }
  }
  const turn = graph.turns[index];
  if (!turn) return;
  light([`agent ${step.agent}`], "now", true);
  bringIntoView(partsOf(`agent ${step.agent}`)[0]);
  turn.className = "turn now";
  turn.textContent = `${step.agent}: running`;
  const what = step.op === "decode" ? "is writing" : "is thinking";
  byId("now").textContent = `Round ${step.round}: ${step.agent} ${what}`;
}

// Where the drawing is wider than its frame, as on a phone, the frame follows the agent that runs.
function bringIntoView(part) {
  const frame = document.querySelector(".graph .scroll");
  if (!part || frame.scrollWidth <= frame.clientWidth) return;
  const [inner, outer] = [part.getBoundingClientRect(), frame.getBoundingClientRect()];
  if (inner.left >= outer.left && inner.right <= outer.right) return;
  frame.scrollLeft += inner.left + inner.width / 2 - outer.left - outer.width / 2;
}

function end({ index, seconds }, step) {
  light(step.parts.filter((name) => name.startsWith("edge ")), "sent", true);
  const turn = graph.turns[index];
  if (!turn) return;
  light([`agent ${step.agent}`], "now", false);
  turn.className = "turn done";
  turn.textContent = `${step.agent}: ${duration(seconds)}`;
}

// After the last step has been shown.
function endGraph(text) {
  if (graph.waiting.length) {
    setTimeout(() => endGraph(text), 50);
    return;
  }
  light(graph.steps.map((step) => `agent ${step.agent}`), "now", false);
  for (const turn of graph.turns) {
    if (turn && turn.className === "turn now") turn.className = "turn waiting";
  }
  byId("now").textContent = text;
}
