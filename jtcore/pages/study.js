"use strict";
// One pair of videos after the other; answers stay in this browser until they are saved as a file.

const study = JSON.parse(document.querySelector("#study").textContent);
const trials = [...document.querySelectorAll(".trial")];
const questions = study.questions;
const key = `jt-study-${study.id}`;
const find = (name) => document.querySelector(`#${name}`);
let state = read() ?? { rater: "", started: null, at: 0, answers: {} };
let since = performance.now();

watch([...document.querySelectorAll(".row")]);

function read() {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null; // a browser may keep nothing for files: then answers last as long as the page
  }
}

function keep() {
  try {
    localStorage.setItem(key, JSON.stringify(state));
  } catch {}
}

function show() {
  const begun = state.started !== null;
  const done = begun && state.at >= trials.length;
  find("intro").hidden = begun;
  find("course").hidden = !begun;
  find("steps").hidden = !begun;
  find("references").hidden = !begun || done;
  find("end").hidden = !done;
  trials.forEach((trial, index) => (trial.hidden = !begun || index !== state.at));
  find("progress").value = Math.min(state.at, trials.length);
  find("place").textContent = done
    ? `all ${trials.length} pairs`
    : `pair ${state.at + 1} of ${trials.length}`;
  find("back").disabled = state.at === 0;
  find("next").hidden = done;
  if (begun && !done) mark();
  since = performance.now();
}

function mark() {
  const given = answers();
  const current = questions.findIndex((question) => !given[question]);
  [...trials[state.at].querySelectorAll(".question")].forEach((block, index) => {
    block.classList.toggle("current", index === current);
    for (const button of block.querySelectorAll("button")) {
      const chosen = given[questions[index]]?.choice === button.value;
      button.setAttribute("aria-pressed", String(chosen));
    }
  });
  find("next").disabled = current >= 0;
}

function answers() {
  return (state.answers[study.trials[state.at]] ??= {});
}

function choose(question, choice) {
  const seconds = Math.round(performance.now() - since) / 1000;
  answers()[question] = { choice, seconds };
  keep();
  mark();
}

function move(step) {
  state.at = Math.max(0, Math.min(trials.length, state.at + step));
  keep();
  show();
  scrollTo(0, 0);
}

function save() {
  const given = study.trials.flatMap((trial) =>
    questions
      .filter((question) => state.answers[trial]?.[question])
      .map((question) => ({ trial, question, ...state.answers[trial][question] })),
  );
  const file = { version: 1, study: study.id, rater: state.rater, started: state.started };
  const text = JSON.stringify({ ...file, saved: new Date().toISOString(), answers: given }, null, 2);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text + "\n"], { type: "application/json" }));
  link.download = `answers-${study.id}-${state.rater.replace(/[^\p{L}\p{N}]+/gu, "_")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

find("intro").addEventListener("submit", (event) => {
  event.preventDefault();
  const random = crypto.getRandomValues(new Uint32Array(1))[0].toString(36);
  state.rater = find("rater").value.trim() || `rater-${random}`;
  state.started = new Date().toISOString();
  keep();
  show();
});
trials.forEach((trial) =>
  trial.querySelectorAll(".question").forEach((block, index) =>
    block.querySelectorAll("button").forEach((button) =>
      button.addEventListener("click", () => choose(questions[index], button.value)),
    ),
  ),
);
find("next").addEventListener("click", () => move(1));
find("back").addEventListener("click", () => move(-1));
document.querySelectorAll(".save").forEach((button) => button.addEventListener("click", save));
find("forget").addEventListener("click", () => {
  if (!confirm("Forget all answers in this browser?")) return;
  state = { rater: "", started: null, at: 0, answers: {} };
  keep();
  show();
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input");
  if (typing || state.started === null || event.ctrlKey || event.metaKey || event.altKey) return;
  const choice = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "equal" }[event.key];
  if (event.key === "Backspace") move(-1);
  else if (state.at >= trials.length) return;
  else if (choice && (choice !== "equal" || study.ties)) answer(choice);
  else if (event.key === "Enter" && !event.target.matches("button")) next();
  else return;
  event.preventDefault();
});

function answer(choice) {
  const open = questions.find((question) => !answers()[question]);
  if (open) choose(open, choice);
}

function next() {
  if (!find("next").disabled) move(1);
}

show();
