// Draws the charts of the page, keeps inputs of the same name alike, and opens what is folded before printing.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const inherited = { labelColor: "currentColor", titleColor: "currentColor" }; // the page's, light or dark
  const isFolded = matchMedia("(max-width: 600px)").matches;
  const options = {
    config: { axis: inherited, legend: { ...inherited, ...(isFolded && { layout: { bottom: { direction: "vertical", anchor: "start" } } }) }, title: { color: "currentColor" }, text: { color: "currentColor" } },
    renderer: "svg",
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
    tooltip: { theme: "custom" },
    logLevel: 1, // errors only
  };
  const drawn = [];

  const inputs = (spec) => (spec.params ?? []).filter((one) => one.bind).map((one) => one.name);

  // On a phone legends stand below, titles have short lines, words are brief, of panels with inputs one is shown, and the stylesheet makes a
  // card of every row of a table.
  const lines = (texts, letters) => texts.flatMap((text) => text.match(new RegExp(`.{1,${letters}}(\\s|$)`, "g")) ?? []);
  const forPhone = {
    legend: (value) => value && { columns: 2, ...value, orient: "bottom" },
    text: (value) => Array.isArray(value) ? lines([value.join(" ")], 34) : value,
    subtitle: (value) => Array.isArray(value) ? lines(value, 50) : value,
  };
  const onePanel = {
    domain: (value) => value[1]?.expr === "panels" ? [{ expr: "panel" }, { expr: "panel + 0.98" }] : value,
    mark: (value) => ({ ...value, clip: true }),
  };
  const fitted = (spec) => {
    if (!isFolded) return spec;
    const names = spec.params.some((one) => one.bind?.input) ? spec.datasets.panels.map((one) => one.text) : [];
    const changes = { ...forPhone, ...(names.length && onePanel) };
    const found = JSON.parse(JSON.stringify(spec), (key, value) => changes[key]?.(value) ?? value);
    const bind = { input: "select", options: [...names.keys()], labels: names, name: "figure" };
    found.params = [
      ...found.params.map((one) => one.name === "narrow" ? { ...one, value: true } : one),
      ...(names.length ? [{ name: "panel", value: 0, bind }] : []),
    ];
    return found;
  };
  for (const table of isFolded ? document.querySelectorAll(".scroll table") : []) {
    const heads = [...table.querySelectorAll("thead th")].map((one) => one.textContent);
    for (const row of table.tBodies[0].rows) [...row.cells].forEach((cell, number) => { cell.dataset.head = heads[number]; });
  }

  const follow = ({ view, names }) => {
    for (const name of names) {
      view.addSignalListener(name, (_, value) => {
        for (const other of drawn) {
          if (other.view !== view && other.names.includes(name) && other.view.signal(name) !== value) {
            other.view.signal(name, value).runAsync();
          }
        }
      });
    }
  };

  for (const [id, spec] of Object.entries(specs)) {
    const place = document.getElementById(id);
    if (!place) continue;
    vegaEmbed(place, fitted(spec), { ...options, downloadFileName: id })
      .then(({ view }) => {
        const one = { view, names: inputs(spec) };
        drawn.push(one);
        follow(one);
        place.classList.add("drawn");
      })
      .catch((problem) => {
        place.textContent = `This chart could not be drawn: ${problem.message}`;
        console.error(problem);
      });
  }

  const folded = () => document.querySelectorAll(".folded");
  addEventListener("beforeprint", () => folded().forEach((one) => { one.dataset.was = one.open; one.open = true; }));
  addEventListener("afterprint", () => folded().forEach((one) => { one.open = one.dataset.was === "true"; }));
})();
