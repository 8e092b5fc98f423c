// Charts that stay: each is embedded once as a Vega view; from then on only its rows, titles and parameters change.

const LAYOUT = { renderer: "canvas", logLevel: 1, actions: { export: true, source: false, compiled: false, editor: false } }; // the editor is a site
const MARGIN = "300px"; // charts this far out of sight are drawn already

// Text and axes take the colour of the page, light or dark.
const themed = (ink) => ({
  axis: { labelColor: ink, titleColor: ink },
  legend: { labelColor: ink, titleColor: ink },
  title: { color: ink },
  text: { color: ink },
});

const filled = (template, { signals, datasets }) => ({
  ...template,
  datasets,
  params: [...template.params, ...Object.entries(signals).map(([name, value]) => ({ name, value }))],
});

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

class Panel {
  constructor(root) {
    this.element = root.appendChild(document.createElement("div"));
    this.seen = false;
  }

  // Draws what is wanted: in the view there is, or in a new one where the template, the ink or the page's theme is another.
  async draw(template, chart, ink) {
    if (!this.view || this.chart.template !== chart.template || this.ink !== ink) {
      this.element.style.minHeight = `${this.element.clientHeight}px`; // the page must not jump while the panel is empty
      this.end();
      const options = { ...LAYOUT, config: themed(ink), downloadFileName: chart.name };
      const { view, finalize } = await vegaEmbed(this.element, filled(template, chart), options);
      Object.assign(this, { view, finalize, ink, chart });
      this.element.drawn = chart; // for tests
      this.element.style.minHeight = "";
      return;
    }
    for (const [name, value] of Object.entries(chart.signals)) this.view.signal(name, value);
    for (const [name, rows] of Object.entries(chart.datasets)) {
      if (!same(rows, this.chart.datasets[name])) this.view.data(name, structuredClone(rows));
    }
    this.chart = chart;
    await this.run();
    this.element.drawn = chart;
  }

  // The width is set anew each time, so that Vega fits the plot beside its words.
  async run() {
    await this.view?.width(this.view.container().clientWidth).resize().runAsync();
  }

  end() {
    this.finalize?.();
    this.view = this.finalize = undefined;
  }
}

function render({ model, el }) {
  const root = el.appendChild(document.createElement("div"));
  const panels = [];
  let busy = false;
  let stale = false;

  async function drawAll() {
    const charts = model.get("charts");
    const templates = model.get("templates");
    const ink = getComputedStyle(root).color;
    root.className = `of-charts ${model.get("view")}`;
    while (panels.length > charts.length) {
      const panel = panels.pop();
      sight.unobserve(panel.element);
      panel.end();
      panel.element.remove();
    }
    while (panels.length < charts.length) {
      panels.push(new Panel(root));
      sight.observe(panels.at(-1).element);
    }
    for (const [number, panel] of panels.entries()) {
      const chart = charts[number];
      if (!panel.seen || (panel.view && same(panel.chart, chart) && panel.ink === ink)) continue;
      await panel.draw(templates[chart.template], chart, ink).catch((problem) => {
        panel.end();
        panel.element.textContent = problem.message;
      });
    }
  }

  async function draw() {
    stale = true;
    if (busy) return;
    busy = true;
    while (stale) { // what came meanwhile is drawn once, as it was last
      stale = false;
      await null; // until all that comes with one message has arrived
      await drawAll();
    }
    busy = false;
  }

  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const panel = panels.find((one) => one.element === target);
      if (panel) panel.seen = isIntersecting && target.clientWidth > 0;
    }
    draw();
  }, { rootMargin: MARGIN });
  const room = new ResizeObserver(() => panels.forEach((panel) => panel.run()));
  const theme = new MutationObserver(draw);
  const scheme = matchMedia("(prefers-color-scheme: dark)");

  for (const element of [document.documentElement, document.body]) theme.observe(element, { attributes: true });
  room.observe(root);
  scheme.addEventListener("change", draw);
  model.on("change:charts", draw);
  draw();
  return () => {
    model.off("change:charts", draw);
    scheme.removeEventListener("change", draw);
    for (const observer of [sight, room, theme]) observer.disconnect();
    panels.forEach((panel) => panel.end());
  };
}

export default { render };
