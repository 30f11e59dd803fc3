// Text: tokens as they are unmasked, words that may be locked, masked and rewritten, and the path once more.
import { $, Errors, Replay, element, events, fill, number, post, read, stopJob } from "./common.js";

const EMPTY = "\u00b7";

export function startText() {
  const form = $("text-form");
  const errors = new Errors(form, $("text-error"), { keep: null });
  let models = [];
  let frames = []; // for each step, the tokens that are new: [position, token, text, confidence]
  let tokens = []; // as shown: {token, text, confidence, step}
  let marks = new Map(); // position -> "lock" or "mask"
  let total = 1;
  let known = new Set(); // positions that were given
  let colour = "step";
  let running = null;
  let open = null; // the span of the word whose menu is open: [from, to)
  const replay = new Replay($("path"), $("play"), at);

  function at(step) {
    tokens = [];
    for (let i = 0; i <= step && i < frames.length; i += 1) take(frames[i], i);
    draw(step);
  }

  function take(frame, step) {
    for (const [place, token, text, confidence] of frame) tokens[place] = { token, text, confidence, step };
  }

  function ramp(share) {
    const style = getComputedStyle(document.documentElement);
    const stops = [0, 1, 2].map((i) => style.getPropertyValue(`--ramp-${i}`).trim().split(" ").map(Number));
    const [low, high, part] = share < 0.5 ? [stops[0], stops[1], share * 2] : [stops[1], stops[2], share * 2 - 1];
    return `rgb(${low.map((value, i) => Math.round(value + (high[i] - value) * part)).join(" ")})`;
  }

  function words() {
    const spans = [];
    let from = null;
    tokens.forEach(({ text }, place) => {
      const gap = text !== null && /^[\s\u23ce]+$/.test(text);
      const fresh = gap || (text !== null && /^\s/.test(text));
      if (from !== null && fresh) { spans.push([from, place]); from = null; }
      if (gap) spans.push([place, place + 1]);
      else if (from === null) from = place;
    });
    if (from !== null) spans.push([from, tokens.length]);
    return spans;
  }

  function letter(place, step) {
    const { token, text, confidence, step: born } = tokens[place];
    const made = element("span", text === null ? EMPTY : text, "tok");
    made.dataset.place = String(place);
    if (token === null) { made.classList.add("empty"); return made; }
    if (text === "\u23ce") { made.textContent = "\u23ce\n"; made.classList.add("brk"); }
    const given = born === 0 || known.has(place);
    if (given) made.classList.add("known");
    else made.style.color = ramp(colour === "step" ? born / total : confidence ?? 0);
    if (born === step && born > 0) made.classList.add("new");
    made.title = given ? `position ${place}, given` : `position ${place}, step ${born}` + (confidence === null ? "" : `, probability ${confidence}`);
    return made;
  }

  function draw(step) {
    const held = document.activeElement?.dataset?.from;
    $("words").replaceChildren(...words().map(([from, to]) => {
      const word = element("span", "", "word");
      const mark = marks.get(from);
      if (mark) word.classList.add(mark);
      word.dataset.from = String(from);
      word.dataset.to = String(to);
      word.tabIndex = 0;
      word.setAttribute("role", "button");
      for (let place = from; place < to; place += 1) word.append(letter(place, step));
      word.setAttribute("aria-label", `${word.textContent.trim() || "space"}${mark ? `, ${mark}ed` : ""}`);
      return word;
    }));
    if (held !== undefined) $("words").querySelector(`[data-from="${held}"]`)?.focus();
    $("path-step").textContent = `step ${step} of ${total}`;
    $("refill").disabled = running !== null || ![...marks.values()].includes("mask");
  }

  function keep(masked) {
    const kept = {};
    tokens.forEach(({ token }, place) => {
      const mark = marks.get(place);
      if (token !== null && (mark === "lock" || (masked && mark !== "mask"))) kept[place] = token;
    });
    return kept;
  }

  async function draw_text(masked) {
    errors.clear();
    close();
    replay.halt();
    if ($("reseed").checked) $("seed").value = String(Math.floor(Math.random() * 1e6));
    const body = {
      checkpoint: $("checkpoint").value, solver: $("solver").value || null, steps: number($("steps")), temperature: number($("temperature")),
      seed: number($("seed")), length: masked ? tokens.length : number($("length")), keep: keep(masked),
      prompt: masked ? "" : $("prompt").value.replaceAll("\n", "\u23ce"), at: masked || !$("at").value.trim() ? [] : [$("at").value],
    };
    const stopping = new AbortController();
    running = { stopping, job: null };
    busy(true);
    let first = true;
    document.querySelector(".stage").scrollIntoView({ block: "nearest" });
    const began = performance.now();
    try {
      for await (const event of events("/api/text", body, stopping.signal)) {
        if (event.event === "start") running.job = event.job;
        else if (event.event === "text") [total, known] = [event.steps, new Set(event.known)];
        else if (event.event === "step") {
          if (first) {
            frames = []; tokens = []; first = false;
            if (masked) marks = new Map([...marks].filter(([, mark]) => mark === "lock"));
          }
          frames[event.step] ??= [];
          frames[event.step].push(...event.tokens);
          replay.extend(event.step, false);
          $("path").value = String(event.step);
          take(event.tokens, event.step);
          draw(event.step);
          $("text-status").textContent = `step ${event.step} of ${total}`;
        } else if (event.event === "end") $("text-status").textContent = `${tokens.length} tokens in ${((performance.now() - began) / 1000).toFixed(1)} s`;
        else if (event.event === "stopped") $("text-status").textContent = event.why;
        else if (event.event === "error") throw new Error(event.message);
      }
    } catch (error) {
      if (error.name !== "AbortError") errors.show(error);
    } finally {
      running = null;
      busy(false);
      if (tokens.length) draw(Number($("path").value));
    }
  }

  function busy(now) {
    $("generate").disabled = now;
    $("stop").disabled = !now;
    if (now) $("refill").disabled = true;
  }

  async function stop() {
    if (!running) return;
    const { job, stopping } = running;
    if (job) await stopJob(job);
    else stopping.abort();
    setTimeout(() => stopping.abort(), 1000);
  }

  function close() {
    $("menu").hidden = true;
    open = null;
  }

  function openMenu(word) {
    if (running) return;
    open = [Number(word.dataset.from), Number(word.dataset.to)];
    $("rewrite-error").textContent = "";
    $("rewrite").value = tokens.slice(...open).map(({ text }) => text ?? "").join("").trim();
    const box = word.getBoundingClientRect();
    const menu = $("menu");
    menu.hidden = false;
    menu.style.left = `${Math.max(8, Math.min(box.left, document.documentElement.clientWidth - menu.offsetWidth - 8)) + scrollX}px`;
    menu.style.top = `${box.bottom + 6 + scrollY}px`;
    $("menu").querySelector("button").focus();
  }

  function mark(kind) {
    for (let place = open[0]; place < open[1]; place += 1) {
      if (kind === "free") marks.delete(place);
      else marks.set(place, kind);
    }
    const from = open[0];
    close();
    draw(Number($("path").value));
    $("words").querySelector(`[data-from="${from}"]`)?.focus();
  }

  async function rewrite(event) {
    event.preventDefault();
    const [from, to] = open;
    try {
      const lead = /^\s/.test(tokens[from].text ?? "") ? " " : "";
      const made = (await post("/api/tokens", { checkpoint: $("checkpoint").value, text: lead + $("rewrite").value }))
        .map(([token, text]) => ({ token, text, confidence: null, step: 0 }));
      const shifted = new Map();
      const length = tokens.length;
      for (const [place, kind] of marks) if (place < from) shifted.set(place, kind); else if (place >= to) shifted.set(place + made.length - (to - from), kind);
      made.forEach((_, i) => shifted.set(from + i, "lock"));
      tokens.splice(from, to - from, ...made);
      while (tokens.length < length) { shifted.set(tokens.length, "mask"); tokens.push({ token: null, text: null, confidence: null, step: 0 }); }
      tokens.length = length;
      marks = new Map([...shifted].filter(([place]) => place < length));
      frames = [tokens.map(({ token, text, confidence }, place) => [place, token, text, confidence])];
      $("path").value = "0";
      replay.extend(0, false);
      close();
      draw(0);
    } catch (error) {
      $("rewrite-error").textContent = error.message;
    }
  }

  function model() {
    const found = models.find(({ name }) => name === $("checkpoint").value);
    if (!found) return;
    fill($("solver"), found.solvers.map((name, i) => [name, i ? name : `${name} (recommended)`]));
    $("length").max = String(found.length);
    $("steps").max = String(found.steps);
    $("length").value = String(Math.min(found.length, Math.round(2.5 * found.window)));
    $("checkpoint").title = found.about;
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); if (!$("generate").disabled) draw_text(false); });
  form.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") { if ($("menu").hidden) stop(); else close(); } });
  document.addEventListener("pointerdown", (event) => { if (!$("menu").contains(event.target)) close(); });
  $("stop").addEventListener("click", stop);
  $("refill").addEventListener("click", () => draw_text(true));
  $("checkpoint").addEventListener("change", model);
  $("words").addEventListener("click", (event) => { const word = event.target.closest(".word"); if (word) openMenu(word); });
  $("words").addEventListener("keydown", (event) => {
    const word = event.target.closest(".word");
    if (!word) return;
    const way = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
    if (way) word[way]?.focus();
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); openMenu(word); }
  });
  for (const button of $("menu").querySelectorAll("[data-do]")) button.addEventListener("click", () => mark(button.dataset.do));
  $("rewrite-form").addEventListener("submit", rewrite);
  for (const [id, kind, low, high] of [["by-step", "step", "first", "last"], ["by-confidence", "confidence", "unsure", "sure"]]) {
    $(id).addEventListener("click", () => {
      colour = kind;
      for (const other of ["by-step", "by-confidence"]) $(other).setAttribute("aria-pressed", String(other === id));
      $("scale-low").textContent = low;
      $("scale-high").textContent = high;
      if (tokens.length) draw(Number($("path").value));
    });
  }

  const loading = read("/api/checkpoints").then((found) => {
    models = found;
    fill($("checkpoint"), models.map(({ name }) => [name]));
    model();
    $("generate").disabled = false;
  }).catch((error) => errors.show(error));
  return { shown: () => loading };
}
