"use strict";

const team = JSON.parse(document.getElementById("team").textContent);
const byId = (id) => document.getElementById(id);

// An element with properties and children. Text is always set as text, never as HTML.
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function duration(seconds) {
  if (seconds < 0.1) return `${(1000 * seconds).toPrecision(2)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

function showProblem(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}
