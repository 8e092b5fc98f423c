// Charts that stay: each is embedded once as a Vega view; from then on only its rows, titles and parameters change.

const LAYOUT = { renderer: "canvas", logLevel: 1, actions: { export: true, source: false, compiled: false, editor: false } }; // the editor is a site
const REST_MS = 200; // after the last step charts out of sight follow

// Grey words are legible on the page, light or dark, which no one grey is.
const GREY = '"#808080"'; // of `charts.theme`
const legible = (text, ink) => JSON.parse(text.replaceAll(GREY, isLight(ink) ? '"#a4a8a6"' : '"#666666"'));

const lightness = {};
const isLight = (colour) => lightness[colour] ??= (() => {
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data[1] > 128;
})();

// Text and axes take the colour of the page, light or dark.
const themed = (ink, isNarrow) => ({
  axis: { labelColor: ink, titleColor: ink, ...(isNarrow && { labelFontSize: 11, labelLimit: 130 }) },
  legend: { labelColor: ink, titleColor: ink, ...(isNarrow && NARROW_LEGEND) },
  title: { color: ink },
  text: { color: ink },
});

const MARGIN_PX = 10; // of a chart, both sides
const EDGES_PX = 8; // left of the axis, and right of words
const LEAST_PX = 170; // of a plot, or of each panel beside others, where the chart says nothing else: with less room it scrolls
const MENU_PX = 38; // beside it
const NARROW_LEGEND = { labelFontSize: 11, layout: { bottom: { direction: "vertical", anchor: "start", bounds: "full" } } };
const NARROW_PX = 400; // a page's room, of all columns, in which charts are drawn for a phone, with the menu over the title's corner
const LEAST_NARROW_PX = 90;
const FONTS = { title_lines: "bold 15px system-ui, sans-serif", subtitle_lines: "12px system-ui, sans-serif" };
const pen = document.createElement("canvas").getContext("2d");

// Lines as wide as there is room; a number keeps its "%".
function wrapped(lines, font, width) {
  pen.font = font;
  return lines.flatMap((text) => text.replaceAll(" %", "\u00a0%").split(" ").reduce((done, word) => {
    const longer = `${done.at(-1) ?? ""} ${word}`.trim();
    return done.length && pen.measureText(longer).width <= width ? [...done.slice(0, -1), longer] : [...done, word];
  }, []));
}

// A chart's signals where it has so much room: a finding is wrapped anew, lines below it stay lines.
function fitted({ signals }, room, isNarrow) {
  const width = room - MARGIN_PX - (isNarrow ? MENU_PX : 0);
  const titles = { title_lines: [signals.title_lines.join(" ")], subtitle_lines: signals.subtitle_lines };
  return { ...signals, narrow: isNarrow, ...Object.fromEntries(Object.entries(titles).map(([name, lines]) => [name, wrapped(lines, FONTS[name], width)])) };
}

// Legends stand below in a narrow room.
const below = (spec) => JSON.parse(JSON.stringify(spec), (key, value) => key === "legend" && value ? { columns: 2, ...value, orient: "bottom" } : value);

const filled = (template, chart, room, isNarrow) => ({
  ...(isNarrow ? below(template) : template),
  datasets: chart.datasets,
  params: [...template.params, ...Object.entries(fitted(chart, room, isNarrow)).map(([name, value]) => ({ name, value }))],
});

// On a phone panels beside each other become charts below each other, the first with the title; all are texts.
function unfolded(text) {
  const chart = JSON.parse(text);
  const panels = Math.round(chart.signals.panels ?? 1);
  return panels < 2 ? [text] : Array.from({ length: panels }, (_, panel) => {
    const datasets = Object.fromEntries(Object.entries(chart.datasets).map(([name, rows]) => [name, rows
      .filter((row) => Math.floor(row.start ?? row.end) === panel)
      .map((row) => ({ ...row, ...("start" in row && { start: row.start - panel }), ...("end" in row && { end: row.end - panel }) }))]));
    const kinds = chart.signals.kinds?.filter((kind) => datasets.bars.some((bar) => bar.kind === kind));
    const titles = panel ? { title_lines: [""], subtitle_lines: [] } : {};
    const signals = { ...chart.signals, ...titles, ...(kinds && { kinds }), panels: 1 };
    return JSON.stringify({ ...chart, ...(panel && { finding: chart.signals.title_lines }), name: `${chart.name}_${panel + 1}`, datasets, signals });
  });
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

// An image as shown, with words below: SVG as text.
function withWords(svg, words, ink) {
  const [width, height] = /width="([\d.]+)" height="([\d.]+)"/.exec(svg).slice(1).map(Number);
  const lines = words && wrapped([words], "11px sans-serif", width - MARGIN_PX);
  const texts = [...lines].map((line, row) => `<text x="5" y="${height + 14 * row + 9}">${escaped(line)}</text>`).join("");
  const size = `width="${width}" height="${height + 14 * lines.length + 4}"`;
  const ground = isLight(ink) ? "#181c1a" : "white";
  const look = `font-family="sans-serif" font-size="11" fill="${ink}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}><rect ${size} fill="${ground}"/>${svg}<g ${look}>${texts}</g></svg>`;
}

async function drawnAtTwice(svg) {
  const image = Object.assign(new Image(), { src: URL.createObjectURL(new Blob([svg], { type: "image/svg+xml" })) });
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * image.width, height: 2 * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => { canvas.toBlob(done); });
}

class Panel {
  constructor(root, below) {
    this.element = root.appendChild(document.createElement("div"));
    this.isSeen = false;
    this.element.addEventListener("click", (event) => {
      const link = event.target.closest?.(".vega-actions a[download]");
      if (!link) return;
      event.preventDefault();
      this.save(link.download, this.chart.below ?? below());
    }, true);
  }

  // Saves the chart under a name whose ending says as what, with the finding over its first panel.
  async save(name, below) {
    const { finding } = this.chart;
    if (finding) await this.view.signal("title_lines", wrapped([finding.join(" ")], FONTS.title_lines, this.room - MARGIN_PX)).runAsync();
    const svg = withWords(await this.view.toSVG(), below, this.ink);
    const image = name.endsWith(".svg") ? new Blob([svg], { type: "image/svg+xml" }) : await drawnAtTwice(svg);
    this.run();
    Object.assign(document.createElement("a"), { href: URL.createObjectURL(image), download: name }).click();
  }

  // Draws the chart that a text describes: in the view there is, or in a new one where template, ink, theme or kind of room is another.
  async draw(templates, text, ink, isNarrow) {
    const chart = legible(text, ink);
    if (!this.view || this.chart.template !== chart.template || this.ink !== ink || this.isNarrow !== isNarrow) {
      this.element.style.minHeight = `${this.element.clientHeight}px`; // the page must not jump while the panel is empty
      this.end();
      this.room = undefined;
      const options = { ...LAYOUT, config: themed(ink, isNarrow), downloadFileName: chart.name };
      const room = this.element.clientWidth - (isNarrow ? 0 : MENU_PX);
      const { view, finalize } = await vegaEmbed(this.element, filled(legible(templates[chart.template], ink), chart, room, isNarrow), options);
      Object.assign(this, { view, finalize, ink, chart, text, isNarrow });
      this.element.drawn = chart; // for tests
      this.element.querySelector("summary").ariaLabel = "save the chart";
      await this.run();
      this.element.style.minHeight = "";
      return;
    }
    for (const [name, rows] of Object.entries(chart.datasets)) {
      if (!same(rows, this.chart.datasets[name])) this.view.data(name, rows);
    }
    Object.assign(this, { chart, text });
    await this.run();
    this.element.drawn = chart;
  }

  // Whether it shows a text's chart as its room wants it.
  shows(text, ink, isNarrow) {
    return this.view && this.text === text && this.ink === ink && this.isNarrow === isNarrow;
  }

  // Only what differs is set: an equal list, or a width, would have every mark computed again.
  async run() {
    const room = this.view?.container().clientWidth; // beside the menu
    if (!room) return;
    for (const [name, value] of Object.entries(fitted(this.chart, room, this.isNarrow))) {
      if (!same(value, this.view.signal(name))) this.view.signal(name, value);
    }
    const { least_px, panels, title_lines } = this.chart.signals;
    this.view.description((this.chart.finding ?? title_lines).join(" "));
    const least = this.isNarrow ? LEAST_NARROW_PX : least_px ?? LEAST_PX * Math.max(1, Math.round(panels ?? 1));
    if (room !== this.room) {
      this.room = room;
      this.resize(room, 5);
    }
    for (let pass = 0; pass < 6; pass += 1) {
      await this.view.resize().runAsync(); // fits the plot beside its words
      const over = Math.ceil(EDGES_PX + this.view.origin()[0] + this.view.scenegraph().root.bounds.x2 - this.width); // words beside the plot move with it
      const lacking = Math.ceil(least - this.view.width());
      if (over <= 0 && lacking <= 0) return;
      const isWider = lacking > 0 || over > this.view.width() - least || (pass && !this.isNarrow);
      this.resize(this.width + (isWider ? Math.max(over, lacking) : 0), this.right + (isWider ? 0 : over));
    }
  }

  resize(width, right) {
    Object.assign(this, { width, right });
    this.view.padding({ top: 5, bottom: 5, left: 5, right }).width(width);
  }

  end() {
    this.finalize?.();
    this.view = this.finalize = undefined;
  }
}

function render({ model, el }) {
  const room = el.appendChild(document.createElement("div"));
  const root = room.appendChild(document.createElement("div"));
  room.className = "of-room";
  const panels = [];
  let busy = false;
  let stale = false;
  let rest;

  const isPhone = () => room.clientWidth < NARROW_PX;

  function arrange(charts, view) {
    root.className = `of-charts ${view}`;
    while (panels.length > charts.length) {
      const panel = panels.pop();
      sight.unobserve(panel.element);
      panel.end();
      panel.element.remove();
    }
    while (panels.length < charts.length) {
      panels.push(new Panel(root, () => model.get("below") ?? ""));
      sight.observe(panels.at(-1).element);
    }
  }

  async function drawAll(everything) {
    const isNarrow = isPhone();
    const charts = isNarrow ? model.get("charts").flatMap(unfolded) : model.get("charts");
    const templates = model.get("templates"); // texts of JSON, too
    const ink = getComputedStyle(root).color;
    arrange(charts, model.get("view"));
    for (const [number, panel] of panels.entries()) {
      const isWanted = panel.element.clientWidth && (panel.isSeen || (everything && !stale));
      if (!isWanted || panel.shows(charts[number], ink, isNarrow)) continue;
      await panel.draw(templates, charts[number], ink, isNarrow).catch((problem) => {
        panel.end();
        panel.element.textContent = problem.message;
      });
    }
  }

  async function draw(everything = false) {
    clearTimeout(rest);
    stale = true;
    if (busy) return;
    busy = true;
    while (stale) { // what came meanwhile is drawn once, as it was last
      stale = false;
      await null; // until all that comes with one message has arrived
      await drawAll(everything);
    }
    busy = false;
    if (!model.get("is_drawn") && (everything || panels.every((one) => one.view))) {
      model.set("is_drawn", true);
      model.save_changes();
    }
    if (!everything) rest = setTimeout(draw, REST_MS, true);
  }

  const redraw = () => draw();
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const panel = panels.find((one) => one.element === target);
      if (panel) panel.isSeen = isIntersecting;
    }
    draw();
  });
  const width = new ResizeObserver(() => {
    if (panels.some((panel) => panel.view && panel.isNarrow !== isPhone())) draw();
    else panels.forEach((panel) => panel.view?.container().clientWidth !== panel.room && panel.run());
  });
  const theme = new MutationObserver(redraw);
  const scheme = matchMedia("(prefers-color-scheme: dark)");

  for (const element of [document.documentElement, document.body]) theme.observe(element, { attributes: true });
  width.observe(root);
  scheme.addEventListener("change", redraw);
  model.on("change:charts", redraw);
  draw();
  return () => {
    clearTimeout(rest);
    model.off("change:charts", redraw);
    scheme.removeEventListener("change", redraw);
    for (const observer of [sight, width, theme]) observer.disconnect();
    panels.forEach((panel) => panel.end());
    room.remove();
  };
}

export default { render };
