"use strict";
const rows = watch([...document.querySelectorAll(".row")]);

// one for all
const all = document.querySelector("#all");
all?.addEventListener("click", () => {
  const wanted = all.dataset.plays !== "yes";
  all.dataset.plays = wanted ? "yes" : "no";
  all.textContent = wanted ? "Pause all" : "Play all";
  rows.forEach((row) => row.want(wanted));
});
document.querySelector("#speed")?.addEventListener("change", (event) => {
  Together.speed = Number(event.target.value);
  document.querySelectorAll("video").forEach((video) => (video.playbackRate = Together.speed));
});
document.querySelector("#find")?.addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const prompt of document.querySelectorAll(".prompt")) {
    const text = prompt.querySelector("h3").textContent.toLowerCase();
    prompt.hidden = !words.every((word) => text.includes(word));
  }
});
