"use strict";
// Videos of one row, which play, stop and are scrubbed together. A row holds its videos only while
// it is near the screen: a browser has only so many players.

const NEAR = "400px";
const DRIFT = 0.06; // seconds that one may be ahead of another
const STILL = matchMedia("(prefers-reduced-motion: reduce)").matches;

function blobOf(uri) {
  const comma = uri.indexOf(",");
  const bytes = Uint8Array.from(atob(uri.slice(comma + 1)), (c) => c.charCodeAt(0));
  return new Blob([bytes], { type: uri.slice(5, comma).split(";")[0] });
}

class Together {
  constructor(row) {
    this.row = row;
    this.videos = [...row.querySelectorAll("video")];
    this.button = row.querySelector(".controls button");
    this.slider = row.querySelector(".controls input");
    this.output = row.querySelector(".controls output");
    this.wanted = !STILL; // whether it plays when it is seen
    this.seen = false;
    this.turn = 0; // counts commands, so that one that waits knows that it is late
    if (!this.videos.length) return;
    this.measure();
    for (const video of this.videos) video.addEventListener("error", () => this.lose(video));
    this.button.addEventListener("click", () => this.want(!this.wanted));
    this.slider.addEventListener("input", () => this.scrub(Number(this.slider.value)));
    this.show(0);
  }

  measure() {
    this.longest = this.videos.reduce((a, b) => (length(b) > length(a) ? b : a));
    this.slider.max = this.longest.dataset.frames - 1;
  }

  // what a browser cannot play keeps its picture, and the others go on without it
  lose(video) {
    if (!video.getAttribute("src")) return;
    const told = document.createElement("p");
    told.className = "note";
    told.textContent = "This browser cannot play this video.";
    video.after(told);
    this.videos = this.videos.filter((other) => other !== video);
    if (this.videos.length) this.measure();
    else this.row.querySelector(".controls").hidden = true;
    this.turn++;
    if (this.videos.length && this.wanted) this.play();
  }

  see(seen) {
    if (!this.videos.length || seen === this.seen) return;
    this.seen = seen;
    if (seen) {
      this.videos.forEach(load);
      this.wanted ? this.play() : this.scrub(Number(this.slider.value));
    } else {
      this.pause();
      this.videos.forEach(unload);
    }
  }

  want(wanted) {
    this.wanted = wanted;
    if (!this.seen) return;
    wanted ? this.play() : this.pause();
  }

  async play() {
    const turn = ++this.turn;
    this.told(true);
    this.start(); // first: some browsers load nothing before
    await Promise.all(this.videos.map(ready));
    if (turn !== this.turn) return;
    const time = this.longest.ended ? 0 : this.longest.currentTime;
    this.videos.forEach((video) => (video.currentTime = Math.min(time, video.duration)));
    await Promise.all(this.videos.map(ready));
    if (turn !== this.turn) return;
    this.start();
    this.tick(turn);
  }

  start() {
    for (const video of this.videos) {
      video.playbackRate = Together.speed;
      video.play().catch(() => {}); // a pause may come first
    }
  }

  tick(turn) {
    if (turn !== this.turn) return;
    const time = this.longest.currentTime;
    if (this.longest.ended) {
      this.videos.forEach((video) => (video.currentTime = 0));
      this.start();
    } else if (!this.longest.seeking) {
      for (const video of this.videos) {
        const goal = Math.min(time, video.duration);
        if (!video.seeking && Math.abs(video.currentTime - goal) > DRIFT) video.currentTime = goal;
      }
    }
    this.show(Math.floor(time * this.longest.dataset.fps));
    requestAnimationFrame(() => this.tick(turn));
  }

  pause() {
    this.turn++;
    this.told(false);
    this.videos.forEach((video) => video.pause());
  }

  scrub(frame) {
    this.wanted = false;
    this.pause();
    this.show(frame);
    const time = (frame + 0.5) / this.longest.dataset.fps;
    for (const video of this.videos) {
      ready(video).then(() => (video.currentTime = Math.min(time, lastTime(video))));
    }
  }

  show(frame) {
    const shown = Math.max(0, Math.min(frame, Number(this.slider.max)));
    this.slider.value = shown;
    this.output.textContent = `frame ${shown + 1}/${Number(this.slider.max) + 1}`;
  }

  told(playing) {
    this.button.textContent = playing ? "Pause" : "Play";
  }
}
Together.speed = 1;

function length(video) {
  return video.dataset.frames / video.dataset.fps;
}

function lastTime(video) {
  return (video.dataset.frames - 0.5) / video.dataset.fps;
}

function load(video) {
  if (video.getAttribute("src")) return;
  const uri = video.dataset.src; // the video itself, or where its file lies
  video.src = uri.startsWith("data:") ? URL.createObjectURL(blobOf(uri)) : uri;
}

function unload(video) {
  const url = video.src;
  video.removeAttribute("src");
  video.load();
  setTimeout(() => URL.revokeObjectURL(url), 1000); // a request under way may still want it
}

function ready(video) {
  if (video.error || (video.readyState >= 2 && !video.seeking)) return Promise.resolve();
  return new Promise((resolve) => {
    for (const event of ["loadeddata", "seeked", "error", "emptied"]) {
      video.addEventListener(event, resolve, { once: true });
    }
  });
}

function watch(rows) {
  const known = new Map(rows.map((row) => [row, new Together(row)]));
  const observer = new IntersectionObserver(
    (entries) => entries.forEach((e) => known.get(e.target).see(e.isIntersecting)),
    { rootMargin: NEAR },
  );
  rows.forEach((row) => observer.observe(row));
  return [...known.values()];
}
