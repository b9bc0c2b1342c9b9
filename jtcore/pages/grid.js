"use strict";

// which level the others are compared to
for (const block of document.querySelectorAll(".compared")) {
  block.querySelector(".reference").addEventListener("change", (event) => {
    for (const against of block.querySelectorAll(".against")) {
      against.hidden = against.dataset.level !== event.target.value;
    }
  });
}

const told = document.querySelector("#grid");
if (told) showMatrix(JSON.parse(told.textContent));

// videos: across, the levels of one factor; below each other, prompts; the rest is chosen
function showMatrix(grid) {
  const place = document.querySelector("#matrix");
  const find = document.querySelector("#find");
  const all = document.querySelector("#all");
  const seeds = [...new Set(grid.runs.flatMap((run) => run.adapted.map(([, seed]) => seed)))];
  const choices = document.querySelector("#choices");
  const across = choose("Across", grid.factors.map((factor) => factor.name), grid.compared);
  const fixed = grid.factors.map((factor) => choose(factor.name, factor.levels, 0));
  const sampled = choose("Seed of samples", [...seeds, "all"], 0);
  let rows = [];

  function choose(name, options, chosen) {
    const label = document.createElement("label");
    const select = document.createElement("select");
    options.forEach((option, index) => select.add(new Option(option, index)));
    select.value = chosen;
    label.append(`${name} `, select);
    label.hidden = options.length < 2;
    select.addEventListener("change", show);
    choices.append(label);
    return select;
  }

  function show() {
    const way = Number(across.value);
    fixed.forEach((select, index) => {
      select.parentElement.hidden = index === way || select.options.length < 2;
    });
    const wanted = fixed.map((select, index) => (index === way ? null : Number(select.value)));
    const runs = grid.factors[way].levels.map((_, level) =>
      grid.runs.find((run) => run.at.every((at, i) => at === (i === way ? level : wanted[i]))),
    );
    const asked = sampled.value < seeds.length ? [seeds[sampled.value]] : seeds;
    for (const row of rows) row.see(false);
    place.replaceChildren(...asked.flatMap((seed) => matrixRows(runs, seed, asked.length > 1, way)));
    rows = watch([...place.querySelectorAll(".row")]);
    if (all.dataset.plays === "no") rows.forEach((row) => row.want(false));
    filter();
  }

  function matrixRows(runs, seed, several, way) {
    const shown = [];
    grid.prompts.forEach((prompt, number) => {
      const own = runs.map((run) => fileOf(run, "adapted", number, seed));
      if (!own.some(Boolean)) return;
      const base = runs.find((run) => fileOf(run, "base", number, seed));
      const cells = base ? [cell("base model", fileOf(base, "base", number, seed), base)] : [];
      const levels = grid.factors[way].levels;
      own.forEach((file, level) => cells.push(cell(levels[level], file, runs[level])));
      shown.push(rowOf(several ? `${prompt} (seed ${seed})` : prompt, cells));
    });
    return shown;
  }

  function fileOf(run, model, prompt, seed) {
    return run?.[model].find((video) => video[0] === prompt && video[1] === seed)?.[2];
  }

  function filter() {
    const words = find.value.toLowerCase().split(/\s+/);
    for (const row of place.querySelectorAll(".row")) {
      const text = row.querySelector("h3").textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  }

  find.addEventListener("input", filter);
  all.addEventListener("click", () => {
    const plays = all.dataset.plays !== "yes";
    all.dataset.plays = plays ? "yes" : "no";
    all.textContent = plays ? "Pause all" : "Play all";
    rows.forEach((row) => row.want(plays));
  });
  document.querySelector("#speed").addEventListener("change", (event) => {
    Together.speed = Number(event.target.value);
    place.querySelectorAll("video").forEach((video) => (video.playbackRate = Together.speed));
  });
  show();
}

function rowOf(title, cells) {
  const row = element("div", "row");
  const above = element("div", "told");
  const controls = element("div", "controls");
  controls.innerHTML =
    "<button type='button'>Play</button>" +
    "<input type='range' min='0' value='0' step='1' aria-label='Frame'><output></output>";
  above.append(element("h3", "", title), controls);
  const videos = element("div", "videos");
  videos.style.setProperty("--columns", cells.length);
  videos.append(...cells);
  row.append(above, videos);
  return row;
}

function cell(name, file, run) {
  const figure = element("figure");
  const caption = element("figcaption");
  if (file) {
    const video = element("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "none" });
    [video.dataset.frames, video.dataset.fps] = run.clip;
    video.dataset.src = file;
    video.setAttribute("aria-label", name);
    const link = element("a", "", name);
    link.href = file;
    caption.append(link);
    figure.append(video, caption);
  } else {
    caption.textContent = name;
    figure.append(element("div", "absent", run ? run.why || "no video" : "no such run"), caption);
  }
  return figure;
}

function element(kind, className = "", text = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}
