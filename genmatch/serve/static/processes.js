// Two processes under one clock: particles from noise to data, the path to one data point, and the generators of both.
import { $, Errors, Replay, element, events, fill, number, read, stopJob } from "./common.js";

export function startProcesses() {
  const form = $("process-form");
  const errors = new Errors(form, $("process-error"));
  let choices = {};
  let panes = [];
  let running = null;
  let towards = 0;
  let loaded = null;
  const replay = new Replay($("clock"), $("process-play"), at, 70);

  function pane(family) {
    const card = element("div", "", "card pane");
    const [what, big, small] = [element("p", " ", "what"), element("canvas"), element("canvas")];
    const views = element("div", "", "views");
    for (const [canvas, caption] of [[big, "all data"], [small, "one data point"]]) {
      const figure = element("figure");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `${family}, ${caption}`);
      figure.append(canvas, element("figcaption", caption));
      views.append(figure);
    }
    card.append(element("h2", family), what, views);
    $("pair").append(card);
    const made = { family, what, big, small, scene: null, frames: [] };
    big.addEventListener("click", (event) => pick(made, event));
    return made;
  }

  function pick({ scene, big }, event) {
    if (!scene || scene.shape.length !== 1 || scene.shape[0] > 3 || running) return;
    const box = big.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const place = placing(scene, 1);
    const distances = scene.data.map((point) => { const [a, b] = place(point); return (a - x) ** 2 + (b - y) ** 2; });
    towards = distances.indexOf(Math.min(...distances));
    run();
  }

  /** Where a point stands on a canvas of a size; of a sphere one sees the front. */
  function placing(scene, size) {
    const reach = scene.shape[0] === 3 ? 1.5 : 2.4;
    return (point) => [(point[0] / reach + 1) * size / 2, (1 - point[point.length === 3 ? 2 : 1] / reach) * size / 2];
  }

  function canvas(target) {
    const size = Math.max(1, Math.round(target.clientWidth * devicePixelRatio));
    if (target.width !== size) target.width = target.height = size;
    const pen = target.getContext("2d");
    pen.clearRect(0, 0, size, size);
    return [pen, size];
  }

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function dots(pen, points, place, radius, style, alpha) {
    pen.fillStyle = style;
    pen.globalAlpha = alpha;
    for (const point of points) {
      pen.beginPath();
      pen.arc(...place(point), radius, 0, 2 * Math.PI);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  function arrows(pen, points, generator, place, size) {
    const far = size * 0.13;
    const taken = new Set(); // discs of particles in one place would hide it
    generator.forEach((row, i) => {
      const [x, y] = place(points[i]);
      const here = `${Math.round(x)} ${Math.round(y)}`;
      if (taken.has(here)) return;
      taken.add(here);
      const scatter = row.at(-1);
      const moved = place(points[i].map((value, k) => value + 0.3 * row[k]));
      let [dx, dy] = [moved[0] - x, moved[1] - y];
      const length = Math.hypot(dx, dy);
      if (length > far) [dx, dy] = [dx * far / length, dy * far / length];
      const radius = Math.min(far, Math.sqrt(Math.max(0, scatter) * 0.02) * size / 5.4);
      pen.strokeStyle = pen.fillStyle = `rgb(${token("--ramp-2")})`;
      if (radius > 1) { pen.globalAlpha = 0.12; pen.beginPath(); pen.arc(x, y, radius, 0, 2 * Math.PI); pen.fill(); }
      pen.globalAlpha = 0.9;
      if (length < 2) return;
      pen.lineWidth = size / 420;
      const [ex, ey, angle, head] = [x + dx, y + dy, Math.atan2(dy, dx), Math.min(size / 60, Math.hypot(dx, dy) / 2)];
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(ex, ey);
      for (const turn of [2.6, -2.6]) { pen.moveTo(ex, ey); pen.lineTo(ex + head * Math.cos(angle + turn), ey + head * Math.sin(angle + turn)); }
      pen.stroke();
    });
    pen.globalAlpha = 1;
  }

  function plane(target, scene, points, generator, cross, small) {
    const [pen, size] = canvas(target);
    const place = placing(scene, size);
    dots(pen, scene.data, place, size / (small ? 110 : 260), token("--soft"), 0.28);
    dots(pen, points, place, size / (small ? 70 : 150), `rgb(${token("--ramp-0")})`, 0.85);
    if (generator && $("show-generator").checked) arrows(pen, points, generator, place, size);
    if (!cross) return;
    const [x, y] = place(scene.towards);
    pen.strokeStyle = token("--warm");
    pen.lineWidth = size / 110;
    pen.beginPath();
    for (const [dx, dy] of [[1, 0], [0, 1]]) { pen.moveTo(x - dx * size / 35, y - dy * size / 35); pen.lineTo(x + dx * size / 35, y + dy * size / 35); }
    pen.stroke();
  }

  /** Images as tiles, rows of tokens as stripes. */
  function tiles(target, scene, points) {
    const [pen, size] = canvas(target);
    const image = scene.shape.length > 1;
    const [rows, columns] = image ? scene.shape.slice(-2) : [1, scene.shape[0]];
    const across = image ? Math.ceil(Math.sqrt(points.length)) : 1;
    const down = Math.ceil(points.length / across);
    const [width, height] = [size / across, size / (image ? across : down)];
    const [low, high] = image ? [-1, 1] : [0, 1];
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    points.forEach((point, i) => {
      const flat = point.flat(Infinity);
      const pad = image ? width * 0.05 : 0;
      for (let k = 0; k < rows * columns; k += 1) {
        const grey = Math.max(0, Math.min(1, (flat[k] - low) / (high - low)));
        const shade = Math.round(255 * (dark ? grey : 1 - grey));
        pen.fillStyle = `rgb(${shade} ${shade} ${shade})`;
        const [w, h] = [(width - 2 * pad) / columns, (height - 2 * pad) / rows];
        pen.fillRect((i % across) * width + pad + (k % columns) * w, Math.floor(i / across) * height + pad + Math.floor(k / columns) * h, w + 0.6, h + 0.6);
      }
    });
  }

  function at(index) {
    let time = null;
    for (const { scene, frames, big, small } of panes) {
      const frame = frames[Math.min(index, frames.length - 1)];
      if (!frame) continue;
      time = frame.t;
      if (scene.shape.length === 1 && scene.shape[0] <= 3) {
        plane(big, scene, frame.points, frame.generator, false, false);
        plane(small, scene, frame.cloud, frame.cloud_generator, true, true);
      } else {
        tiles(big, scene, frame.points);
        tiles(small, scene, frame.cloud.slice(0, 9));
      }
    }
    if (time !== null) $("time").textContent = `t = ${time.toFixed(2)}`;
  }

  async function one(made, body, signal, jobs) {
    for await (const event of events("/api/process", body, signal)) {
      if (event.event === "start") jobs.push(event.job);
      else if (event.event === "scene") { made.scene = event; made.what.textContent = event.process; }
      else if (event.event === "frame") {
        made.frames.push(event);
        // One clock: nobody is shown ahead of the other.
        const last = Math.min(...panes.map(({ frames }) => frames.length)) - 1;
        if (last >= 0) replay.extend(last, true);
      } else if (event.event === "stopped") $("process-error").textContent = event.why;
      else if (event.event === "error") throw new Error(event.message);
    }
  }

  async function run() {
    errors.clear();
    replay.halt();
    $("pair").replaceChildren();
    $("clock").value = "0";
    panes = [pane($("left").value), pane($("right").value)];
    const stopping = new AbortController();
    const jobs = [];
    running = { stopping, jobs };
    $("flow").disabled = true;
    $("process-stop").disabled = false;
    const body = { data: $("data").value, n: number($("n")), steps: number($("process-steps")), seed: number($("process-seed")), towards };
    const done = await Promise.allSettled(panes.map((made) => one(made, { ...body, process: made.family }, stopping.signal, jobs)));
    running = null;
    $("flow").disabled = false;
    $("process-stop").disabled = true;
    const failed = done.findIndex(({ status, reason }) => status === "rejected" && reason.name !== "AbortError");
    if (failed < 0) return;
    errors.fields.process = $(failed ? "right" : "left");
    errors.show(done[failed].reason);
  }

  function data() {
    const found = choices[$("data").value];
    if (!found) return;
    const names = found.processes.map((name) => [name]);
    const second = names.find(([name]) => name === "mask") ?? names[1] ?? names[0];
    const fits = (id) => names.some(([name]) => name === $(id).value);
    const [left, right] = [fits("left") ? $("left").value : names[0][0], fits("right") ? $("right").value : second[0]];
    fill($("left"), names, left);
    fill($("right"), names, right);
    towards = 0;
    $("n").value = found.shape.length > 1 ? "16" : found.shape[0] > 3 ? "32" : "200";
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); if (!running) run(); });
  $("data").addEventListener("change", data);
  $("process-stop").addEventListener("click", async () => {
    if (!running) return;
    const { stopping, jobs } = running;
    await Promise.all(jobs.map(stopJob));
    setTimeout(() => stopping.abort(), 1000);
  });
  $("show-generator").addEventListener("change", () => at(Number($("clock").value)));
  addEventListener("resize", () => at(Number($("clock").value)));

  function load() {
    loaded ??= read("/api/processes").then((found) => {
      choices = found;
      const names = Object.keys(found);
      fill($("data"), names.map((name) => [name]), names.includes("gaussians") ? "gaussians" : names[0]);
      data();
      $("flow").disabled = false;
    }).catch((error) => { loaded = null; errors.show(error); });
    return loaded;
  }
  return { shown: load };
}
