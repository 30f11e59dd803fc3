// The reports of comparisons: a list, and one of them opened in a frame that can reach nothing.
import { $, element, read } from "./common.js";

export function startCompare() {
  function line({ families, steps }) {
    if (!families.length) return steps ? "no family has finished yet" : "without figures";
    return families.slice(0, 5).map(({ name, frechet, nfe }) => `${name} ${typeof frechet === "number" ? frechet.toPrecision(3) : "–"}${nfe ? ` with ${nfe} calls` : ""}`).join(" · ");
  }

  function open(report, button) {
    const url = `/report/${report.name.split("/").map(encodeURIComponent).join("/")}`;
    for (const other of $("reports").querySelectorAll("button")) other.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    $("opened").hidden = false;
    $("opened-name").textContent = report.name;
    $("opened-link").href = url;
    $("frame").src = url;
  }

  async function list() {
    $("compare-error").textContent = "";
    try {
      const reports = await read("/api/reports");
      $("reports").replaceChildren(...reports.map((report) => {
        const [item, button] = [element("li"), element("button")];
        button.type = "button";
        const when = new Date(report.changed * 1000).toLocaleString();
        button.append(element("span", report.name, "name"), element("span", [report.data, report.steps ? `${report.steps} steps` : "", when].filter(Boolean).join(", "), "best"),
          element("span", line(report), "best"));
        button.addEventListener("click", () => open(report, button));
        item.append(button);
        return item;
      }));
      if (!reports.length) $("reports").append(element("li", "There is no report here yet: genmatch compare makes one, and --runs names the folder.", "hint"));
    } catch (error) {
      $("compare-error").textContent = error.message;
    }
  }

  $("reload").addEventListener("click", list);
  return { shown: list };
}
