// Draws the charts of the page, keeps inputs of the same name alike, and opens what is folded before printing.
(() => {
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const inherited = { labelColor: "currentColor", titleColor: "currentColor" }; // the page's, light or dark
  const options = {
    config: { axis: inherited, legend: inherited, title: { color: "currentColor" }, text: { color: "currentColor" }, font: "system-ui, sans-serif" },
    renderer: "svg",
    actions: { export: { svg: true, png: true }, source: false, compiled: false, editor: false },
    tooltip: { theme: "custom" },
    logLevel: 1, // errors only
  };
  const drawn = [];

  const inputs = (spec) => (spec.params ?? []).filter((one) => one.bind).map((one) => one.name);

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
    vegaEmbed(place, spec, { ...options, downloadFileName: id })
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
