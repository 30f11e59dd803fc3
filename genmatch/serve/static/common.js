// What the tabs share: requests, streams of lines, errors beside their fields, and the clock of a replay.

export const $ = (id) => document.getElementById(id);

export function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function fill(select, names, chosen) {
  const before = chosen ?? select.value;
  select.replaceChildren(...names.map(([value, text]) => Object.assign(element("option", text ?? value), { value })));
  if (names.some(([value]) => value === before)) select.value = before;
}

export class Refused extends Error {
  constructor(details) {
    super(details.map((part) => part.msg).join(" "));
    this.details = details;
  }
}

async function refusal(answer) {
  try {
    const { detail } = await answer.json();
    return new Refused(typeof detail === "string" ? [{ loc: [], msg: detail }] : detail);
  } catch {
    return new Refused([{ loc: [], msg: `the server answered ${answer.status}.` }]);
  }
}

async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused([{ loc: [], msg: "the server does not answer; is genmatch serve still running?" }]);
  }
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

const posted = (body, signal) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

export const read = async (url) => (await ask(url)).json();
export const post = async (url, body) => (await ask(url, posted(body))).json();
export const stopJob = (job) => fetch(`/api/jobs/${encodeURIComponent(job)}`, { method: "DELETE" }).catch(() => {});

/** The events of a stream, one object a line. */
export async function* events(url, body, signal) {
  const reader = (await ask(url, posted(body, signal))).body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Errors stand beside the field that they are about, or in `general` where there is none. */
export class Errors {
  constructor(form, general, fields = {}) {
    this.form = form;
    this.general = general;
    this.fields = fields;
  }

  clear() {
    this.general.textContent = "";
    for (const note of this.form.querySelectorAll(".field > .error")) note.remove();
    for (const field of this.form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  }

  show(error) {
    const details = error.details ?? [{ loc: [], msg: error.message }];
    for (const { loc, msg } of details) {
      const name = loc.find((part) => typeof part === "string" && part !== "body");
      const field = this.fields[name] ?? this.form.elements.namedItem(name ?? "");
      const text = msg.charAt(0).toUpperCase() + msg.slice(1);
      if (!field) {
        this.general.textContent = `${this.general.textContent} ${text}`.trim();
        continue;
      }
      const note = element("p", text, "error");
      note.id = `${field.id}-error`;
      note.setAttribute("role", "alert");
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-errormessage", note.id);
      field.closest(".field").append(note);
    }
    this.form.querySelector("[aria-invalid]")?.focus();
  }
}

/** A number, or what was typed, which the server refuses with a reason. */
export const number = (input) => (input.value.trim() === "" ? null : Number.isFinite(Number(input.value)) ? Number(input.value) : input.value);

/** Plays a slider to its end; `show(index)` draws. */
export class Replay {
  constructor(slider, button, show, pause = 45) {
    Object.assign(this, { slider, button, show, pause, timer: null });
    slider.addEventListener("input", () => { this.halt(); show(Number(slider.value)); });
    button.addEventListener("click", () => (this.timer ? this.halt() : this.play()));
  }

  extend(last, follow) {
    this.slider.max = String(last);
    this.slider.disabled = this.button.disabled = last < 1;
    if (follow) { this.slider.value = String(last); this.show(last); }
  }

  play() {
    if (Number(this.slider.value) >= Number(this.slider.max)) this.slider.value = "0";
    this.button.textContent = "❚❚";
    this.timer = setInterval(() => {
      const next = Number(this.slider.value) + 1;
      if (next > Number(this.slider.max)) return this.halt();
      this.slider.value = String(next);
      this.show(next);
      return undefined;
    }, this.pause);
  }

  halt() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "▶";
  }
}
