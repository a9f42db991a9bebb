// Histograms and throughput, drawn by uPlot in the colours of the page.

const plots = [];
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const NICE = [1, 2, 5];
const PAPER = 690;
const PAPER_THIRD = 206;
let printing = false;

const ruler = document.createElement('canvas').getContext('2d');

function textWidth(text) {
  ruler.font = FONT;
  return ruler.measureText(text).width;
}

/** Draw now, and again when the colours or the widths have changed. */
function plot(id, height, options) {
  const holder = byId(id);
  const made = { holder, drawn: null };
  made.draw = () => {
    const range = made.drawn && made.zoomed ? [made.drawn.scales.x.min, made.drawn.scales.x.max] : null;
    if (made.drawn) made.drawn.destroy();
    const width = printing ? (id === 'gantt' ? PAPER : PAPER_THIRD) : Math.max(240, holder.clientWidth);
    const { data, ...rest } = options(width, made);
    made.drawn = new uPlot({ width, height: typeof height === 'function' ? height() : height, legend: { show: false }, ...rest }, data, holder);
    made.drawn.root.setAttribute('aria-hidden', 'true');
    if (range) made.drawn.setScale('x', { min: range[0], max: range[1] });
  };
  made.draw();
  plots.push(made);
  return made;
}

function redraw() {
  for (const made of plots) made.draw();
}

let knownWidth = 0;
new ResizeObserver(later(() => {
  const width = document.documentElement.clientWidth;
  if (knownWidth && width !== knownWidth) redraw();
  knownWidth = width;
}, 120)).observe(document.documentElement);

function axis(more) {
  return {
    stroke: colour('muted'), font: FONT, gap: 4,
    grid: { stroke: colour('grid'), width: 1 },
    ticks: { show: false },
    ...more,
  };
}

/** Steps of time that read well: of a minute and of an hour no tenths, but quarters. */
const STEPS_OF_TIME = [-5, -4, -3, -2, -1, 0].flatMap((power) => NICE.map((nice) => Number(`${nice}e${power}`)))
  .concat([10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]);

/** Moments of an axis, counted from the run's first beginning. */
const since = (low) => ({
  incrs: STEPS_OF_TIME,
  splits: (_, _axis, min, max, step) => {
    const found = [];
    for (let count = Math.ceil((min - low) / step - 1e-9); low + count * step <= max; count += 1) found.push(low + count * step);
    return found;
  },
  values: (_, moments) => moments.map((moment) => `+${seconds(Math.round((moment - low) * 1e6) / 1e6)}`),
});

const describe = (id, text) => {
  byId(id).setAttribute('role', 'img');
  byId(id).setAttribute('aria-label', text);
};

/** Edges that read well: 1, 2, 5 times powers of ten over wide ranges, else equal steps. */
function edgesFor(values) {
  let low = Infinity;
  let high = 0;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  low = Math.max(low, 0.0001);
  if (high / low < 8) {
    const step = niceStep((high - low || high || 1) / 10);
    const edges = [];
    for (let edge = Math.floor(low / step) * step; edge <= high + step; edge += step) edges.push(edge);
    return edges;
  }
  const edges = [0];
  for (let power = Math.floor(Math.log10(low)); ; power += 1) {
    for (const nice of NICE) {
      const edge = nice * 10 ** power;
      if (edge * 2.5 < low) continue;
      edges.push(edge);
      if (edge > high) return edges;
    }
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return ([1, 2, 5, 10].find((nice) => nice * power >= rough) || 10) * power;
}

function binOf(edges, value) {
  let low = 0;
  let high = edges.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (edges[middle] <= value) low = middle;
    else high = middle;
  }
  return low;
}

function histogram(id, spread) {
  const values = (ROWS[id] || []).filter((value) => value !== null).map((value) => Math.max(0, value));
  if (!values.length || !spread) {
    byId(id).closest('figure').hidden = true;
    return;
  }
  const edges = edgesFor(values);
  const counts = new Array(edges.length - 1).fill(0);
  for (const value of values) counts[binOf(edges, value)] += 1;
  const words = `median ${seconds(spread.p50)}, p95 ${seconds(spread.p95)}, max ${seconds(spread.max)}`;
  byId(`${id}-note`).textContent = words;
  describe(id, `Histogram of ${many(values.length, 'entry', 'entries')}: ${words}`);
  const places = counts.map((_, bin) => bin + 0.5);
  plot(id, 190, (width) => ({
    data: [places, counts.map((count) => count || null)],
    padding: [8, 24, 0, 0],
    scales: { x: { time: false, range: [0, counts.length] }, y: { range: () => [0, 1.08 * Math.max(...counts)] } },
    axes: [
      axis({ grid: { show: false }, splits: () => edges.map((_, edge) => edge), values: (_, all) => thinned(all, edges, width), size: 26 }),
      axis({ size: 44, values: (_, all) => all.map((value) => (Number.isInteger(value) ? number(value) : '')) }),
    ],
    cursor: { x: false, y: false, drag: { x: false, y: false }, points: { show: false } },
    series: [{}, { fill: colour('accent-soft'), stroke: colour('accent'), width: 1, paths: uPlot.paths.bars({ size: [0.92, 90] }), points: { show: false } }],
    hooks: { setCursor: [(u) => {
      const bin = u.cursor.left < 0 ? -1 : Math.floor(u.posToVal(u.cursor.left, 'x'));
      tipAt(u, bin in counts ? [`${seconds(edges[bin])} to ${seconds(edges[bin + 1])}`, many(counts[bin], 'entry', 'entries')] : null);
    }] },
  }));
}

/** Labels of as many edges as there is room for. */
function thinned(all, edges, width) {
  const every = Math.ceil((all.length * 58) / Math.max(58, width - 60));
  return all.map((edge, at) => (at % every === 0 ? seconds(edges[edge]) : ''));
}

function throughput() {
  const ends = [];
  BARS.end.forEach((end, bar) => {
    if (end !== null) ends.push([end, BARS.outcome[bar]]);
  });
  if (ends.length < 2) {
    byId('rate').closest('figure').hidden = true;
    return;
  }
  const { low, high } = extent();
  const step = STEPS_OF_TIME.find((some) => some >= (high - low) / 50) || niceStep((high - low) / 50);
  const bins = Math.max(2, Math.ceil((high - low) / step - 1e-9));
  const places = Array.from({ length: bins }, (_, bin) => low + (bin + 0.5) * step);
  const all = new Array(bins).fill(0);
  const bad = new Array(bins).fill(0);
  for (const [end, outcome] of ends) {
    const bin = Math.min(bins - 1, Math.max(0, Math.floor((end - low) / step)));
    all[bin] += 1 / step;
    if (outcome === 1 || outcome === 2) bad[bin] += 1 / step;
  }
  const rate = DATA.figures.throughput;
  const note = rate === null ? '' : `${significant(rate)} jobs per second`;
  const some = bad.some(Boolean);
  byId('rate-note').textContent = some ? `${note}; hatched: not passed` : note;
  describe('rate', `Jobs that ended per second over time: ${note}`);
  const bars = uPlot.paths.bars({ size: [1, 90], gap: 1 });
  plot('rate', 190, () => ({
    data: [places, all.map((value) => value || null), bad.map((value) => value || null)],
    padding: [8, 24, 0, 0],
    scales: { x: { time: false, range: [low, low + bins * step] }, y: { range: () => [0, 1.08 * Math.max(...all)] } },
    axes: [
      axis({ grid: { show: false }, size: 26, space: 70, ...since(low) }),
      axis({ size: 44, values: (_, values) => values.map(significant) }),
    ],
    cursor: { x: false, y: false, drag: { x: false, y: false }, points: { show: false } },
    series: [{},
      { fill: colour('accent-soft'), stroke: colour('accent'), width: 1, paths: bars, points: { show: false } },
      { fill: () => hatch(colour('failed')), stroke: colour('failed'), width: 1, paths: bars, points: { show: false } }],
    hooks: { setCursor: [(u) => {
      const bin = u.cursor.left < 0 ? -1 : Math.floor((u.posToVal(u.cursor.left, 'x') - low) / step);
      tipAt(u, bin in all ? [`${clock(places[bin] - step / 2)} UTC, ${seconds(step)}`, `${many(Math.round(all[bin] * step), 'job')} ended, ${number(Math.round(bad[bin] * step))} did not pass`] : null);
    }] },
  }));
}

/** First beginning and last end of all that ran, in seconds since the origin. */
function extent() {
  let low = Infinity;
  let high = -Infinity;
  for (const list of [BARS.start, BARS.end]) {
    for (const value of list) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return { low, high: Math.max(high, low + 0.01) };
}

const hatches = new Map();

/** Diagonal lines: what went wrong is seen without its colour. */
function hatch(stroke) {
  if (!hatches.has(stroke)) {
    const size = Math.round(6 * devicePixelRatio);
    const tile = el('canvas', { width: size, height: size });
    const context = tile.getContext('2d');
    context.strokeStyle = stroke;
    context.lineWidth = Math.max(1.5, 1.6 * devicePixelRatio);
    context.beginPath();
    for (const offset of [-size, 0, size]) {
      context.moveTo(offset, size);
      context.lineTo(offset + size, 0);
    }
    context.stroke();
    hatches.set(stroke, context.createPattern(tile, 'repeat'));
  }
  return hatches.get(stroke);
}

/** The words beside the pointer; null takes them away. */
function tipAt(u, lines) {
  const tip = byId('tip');
  tip.hidden = !lines;
  if (!lines) return;
  tip.replaceChildren(...lines.map((line, at) => (line instanceof Node ? line : el('div', { class: at ? 'muted' : null }, line))));
  const box = u.over.getBoundingClientRect();
  const left = Math.min(box.left + u.cursor.left + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = box.top + u.cursor.top + 16;
  const top = below + tip.offsetHeight > innerHeight ? box.top + u.cursor.top - tip.offsetHeight - 10 : below;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

