// The tabs. Each remembers itself in the address, so that a reload shows the same one.
import { startCompare } from "./compare.js";
import { startProcesses } from "./processes.js";
import { startText } from "./text.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const starts = { text: startText(), processes: startProcesses(), compare: startCompare() };

function show(name) {
  for (const tab of tabs) {
    const here = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(here));
    tab.tabIndex = here ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !here;
  }
  starts[name].shown();
}

function choose(tab) {
  const name = tab.id.slice(4);
  history.replaceState(null, "", `#${name}`);
  show(name);
}

for (const tab of tabs) {
  tab.addEventListener("click", () => choose(tab));
  tab.addEventListener("keydown", (event) => {
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!way) return;
    const next = tabs[(tabs.indexOf(tab) + way + tabs.length) % tabs.length];
    next.focus();
    choose(next);
  });
}
const named = location.hash.slice(1);
show(named in starts ? named : "text");
