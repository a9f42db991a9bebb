// Histograms and throughput, drawn by uPlot in the colours of the page.

const plots = [];
const FONT = '12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';
const PAPER = 690;
const PAPER_THIRD = 206;
/** Times of fewer jobs need no picture. */
const FEW = 3;
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
    const width = printing ? paperWidth(id) : Math.max(180, holder.clientWidth);
    const { data, ...rest } = options(width, made);
    made.drawn = new uPlot({ width, height: typeof height === 'function' ? height() : height, legend: { show: false }, ...rest }, data, holder);
    made.drawn.root.setAttribute('aria-hidden', 'true');
    if (range) made.drawn.setScale('x', { min: range[0], max: range[1] });
  };
  made.draw();
  plots.push(made);
  return made;
}

/** The room that a plot has on paper: the timeline's beside its lanes, a row of its own, or a third of one. */
function paperWidth(id) {
  if (id === 'gantt') return PAPER - byId('lanes').offsetWidth;
  return id.startsWith('overtime') ? PAPER : PAPER_THIRD;
}

function redraw() {
  if (gantt) fitLabels();
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

/** An axis that counts jobs: no halves of them. */
const countAxis = () => axis({
  size: 44, incrs: [0, 1, 2, 3, 4, 5, 6].flatMap((power) => NICE.map((nice) => nice * 10 ** power)),
  values: (_, counts) => counts.map(number),
});

const describe = (id, text) => {
  byId(id).setAttribute('role', 'img');
  byId(id).setAttribute('aria-label', text);
};

/** Edges of a histogram's bars on which times of very different length have room. */
const LADDERS = [
  ladder([1, 1.5, 2, 3, 5, 7], [10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 420, 600, 900, 1200, 1800, 2700, 3600, 5400, 7200, 10800, 18000, 28800, 43200, 86400, 172800, 259200, 604800]),
  ladder(NICE, [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 18000, 36000, 86400, 259200, 604800]),
  ladder([1], [10, 60, 600, 3600, 36000, 86400, 864000]),
];
const LOGARITHMIC = 20;
const MOST_BARS = 24;

function ladder(steps, long) {
  return [-6, -5, -4, -3, -2, -1, 0].flatMap((power) => steps.map((step) => Number(`${step}e${power}`))).concat(long);
}

/** How many bars tell how so many values are spread, by Rice's rule. */
const barsFor = (count) => Math.max(3, Math.min(MOST_BARS, Math.round(2 * Math.cbrt(count))));

/** Edges of bars: equal steps, or those of a ladder where the values differ by orders of magnitude. */
function edgesFor(values) {
  const { high } = bounds(values);
  const low = bounds(values.filter((value) => value > 0)).low;
  const wanted = barsFor(values.length);
  if (high > 0 && high / low > LOGARITHMIC) return steepEdges(low, high, wanted, values.some((value) => value < low));
  return evenEdges(bounds(values).low, high, wanted);
}

function steepEdges(low, high, wanted, zeros) {
  const within = (steps) => {
    const first = steps.findLastIndex((step) => step <= low);
    const last = steps.findIndex((step) => step > high);
    return steps.slice(Math.max(0, first), last < 0 ? steps.length : last + 1);
  };
  const edges = LADDERS.map(within).find((some) => some.length - 1 <= Math.min(MOST_BARS, wanted * 1.8)) || within(LADDERS.at(-1));
  if (edges.at(-1) <= high) edges.push(high * 1.01);
  return zeros || edges[0] > low ? [0, ...edges] : edges;
}

/** Values that hardly differ are one bar among some that are empty. */
function evenEdges(low, high, wanted) {
  const step = STEPS_OF_TIME.find((some) => some >= Math.max((high - low) / wanted, high / 100)) || (high - low) / wanted;
  let from = Math.floor(low / step + 1e-9);
  let to = Math.floor(high / step + 1e-9) + 1;
  for (let lower = true; to - from < 5; lower = !lower) {
    if (lower && from > 0) from -= 1;
    else to += 1;
  }
  return Array.from({ length: to - from + 1 }, (_, at) => Number(((from + at) * step).toPrecision(9)));
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

const hideFigure = (id) => { byId(id).closest('figure').hidden = true; };

/** Bars, of which those that did not pass are hatched from the ground. */
const bars = (size) => {
  const paths = uPlot.paths.bars(size);
  return [
    { fill: colour('accent-soft'), stroke: colour('accent'), width: 1, paths, points: { show: false } },
    { fill: () => hatch(colour('failed'), colour('failed-soft')), stroke: colour('failed'), width: 1, paths, points: { show: false } },
  ];
};

const shown = (counts) => counts.map((count) => count || null);
const still = { x: false, y: false, drag: { x: false, y: false }, points: { show: false } };
const room = (counts) => [0, 1.08 * bounds(counts).high];
const failing = (outcome) => outcome === 1 || outcome === 2;

function histogram(id, spread) {
  const rows = (ROWS[id] || []).flatMap((value, row) => (value === null ? [] : [row]));
  if (rows.length < FEW || !spread) return hideFigure(id);
  const timeOf = (row) => Math.max(0, ROWS[id][row]);
  const edges = edgesFor(rows.map(timeOf));
  const counts = new Array(edges.length - 1).fill(0);
  const bad = new Array(edges.length - 1).fill(0);
  for (const row of rows) {
    const bin = binOf(edges, timeOf(row));
    counts[bin] += 1;
    if (failing(ROWS.outcome[row])) bad[bin] += 1;
  }
  const told = `median ${seconds(spread.p50)}, p95 ${seconds(spread.p95)}, max ${seconds(spread.max)}`;
  byId(`${id}-note`).textContent = told;
  describe(id, `Histogram of ${many(rows.length, 'entry', 'entries')} in ${many(counts.length, 'bar')}: ${told}`);
  const places = counts.map((_, bin) => bin + 0.5);
  return plot(id, 190, (width) => ({
    data: [places, shown(counts), shown(bad)],
    padding: [8, 24, 0, 0],
    scales: { x: { time: false, range: [0, counts.length] }, y: { range: () => room(counts) } },
    axes: [
      axis({ grid: { show: false }, splits: () => edges.map((_, edge) => edge), values: () => edgeLabels(edges, width - 68), size: 26 }),
      countAxis(),
    ],
    cursor: still,
    series: [{}, ...bars({ size: [0.94, Infinity] })],
    hooks: { setCursor: [(u) => {
      const bin = u.cursor.left < 0 ? -1 : Math.floor(u.posToVal(u.cursor.left, 'x'));
      tipAt(u, bin in counts ? [`${brief(edges[bin])} to ${brief(edges[bin + 1])}`, `${many(counts[bin], 'entry', 'entries')}${notPassed(bad[bin])}`] : null);
    }] },
  }));
}

const notPassed = (count) => (count ? `, ${number(count)} did not pass` : '');

/** Labels of as many edges as there is room for, at equal distances. */
function edgeLabels(edges, width) {
  const texts = edges.map(brief);
  const apart = width / (edges.length - 1);
  const every = Math.ceil((Math.max(...texts.map(textWidth)) + 14) / apart);
  return texts.map((text, at) => (at % every ? '' : text));
}

/** How many jobs ended in each stretch of time; the stretches of a run's parts begin with them. */
function throughput() {
  const ended = BARS.end.flatMap((end, bar) => (end === null ? [] : [bar]));
  if (ended.length < FEW) return hideFigure('rate');
  const step = stretch(ended.length);
  const stretches = parts().flatMap(([begin, end]) =>
    Array.from({ length: Math.max(1, Math.ceil((end - begin) / step - 1e-9)) }, (_, at) => begin + at * step));
  const all = new Array(stretches.length).fill(0);
  const bad = new Array(stretches.length).fill(0);
  for (const bar of ended) {
    const at = lastBefore(stretches, BARS.end[bar], (begin) => begin);
    all[Math.max(0, at)] += 1;
    if (failing(BARS.outcome[bar])) bad[Math.max(0, at)] += 1;
  }
  const told = [DATA.figures.throughput === null ? null : rate(DATA.figures.throughput), `a bar is ${brief(step)}`].filter(Boolean).join(', ');
  byId('rate-note').textContent = told;
  describe('rate', `Jobs that ended over time: ${told}`);
  const places = stretches.map((begin) => drawn(begin) + step / 2);
  return plot('rate', 190, () => ({
    data: [places, shown(all), shown(bad)],
    padding: [8, 24, 0, 0],
    scales: { x: { time: false, range: [drawn(EXTENT.low), places.at(-1) + step / 2] }, y: { range: () => room(all) } },
    axes: [axis({ grid: { show: false }, size: 26, space: 70, ...timeAxis() }), countAxis()],
    cursor: still,
    series: [{}, ...bars({ size: [1, Infinity], gap: 1 })],
    hooks: { drawClear: [drawPauses], setCursor: [(u) => {
      const place = u.cursor.left < 0 ? -Infinity : u.posToVal(u.cursor.left, 'x');
      const at = lastBefore(places, place + step / 2, (middle) => middle);
      const inside = at >= 0 && place < places[at] + step / 2;
      tipAt(u, inside ? [`${clock(stretches[at], step < 1 ? 3 : 0)} UTC, ${brief(step)}`, `${many(all[at], 'job')} ended${notPassed(bad[at])}`] : pauseAt(place));
    }] },
  }));
}

/** So long that the bars are few where the jobs are few, and none reaches over a pause. */
function stretch(count) {
  const active = parts().reduce((sum, [begin, end]) => sum + end - begin, 0);
  if (PAUSES.length) return STEPS_OF_TIME.findLast((step) => step <= Math.min(DRAWN_PAUSE * 0.8, active / 12)) || active / 100;
  const wanted = Math.max(4, Math.min(60, Math.round(1.5 * Math.sqrt(count))));
  return STEPS_OF_TIME.find((step) => step >= active / wanted) || active / wanted;
}

/** The place of the last of ascending values that is not beyond ``value``; -1 where all are. */
function lastBefore(items, value, of) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(items[middle]) <= value) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

const patterns = new Map();

/** A small tile as a pattern, made once for each pair of colours; no ``ground``: seen through. */
function pattern(stroke, ground, size, paint) {
  const key = `${stroke} ${ground} ${size} ${devicePixelRatio}`;
  if (!patterns.has(key)) {
    const wide = Math.round(size * devicePixelRatio);
    const tile = el('canvas', { width: wide, height: wide });
    const context = tile.getContext('2d');
    if (ground) {
      context.fillStyle = ground;
      context.fillRect(0, 0, wide, wide);
    }
    context.strokeStyle = context.fillStyle = stroke;
    paint(context, wide);
    patterns.set(key, context.createPattern(tile, 'repeat'));
  }
  return patterns.get(key);
}

/** Diagonal lines: what went wrong is seen without its colour. */
const hatch = (stroke, ground) => pattern(stroke, ground, 6, (context, size) => {
  context.lineWidth = Math.max(1.5, 1.6 * devicePixelRatio);
  context.beginPath();
  for (const offset of [-size, 0, size]) {
    context.moveTo(offset, size);
    context.lineTo(offset + size, 0);
  }
  context.stroke();
});

/** A few dots: nothing was there. */
const dots = (stroke) => pattern(stroke, null, 7, (context, size) => {
  context.globalAlpha = 0.55;
  context.beginPath();
  context.arc(size / 2, size / 2, 0.8 * devicePixelRatio, 0, 7);
  context.fill();
});

/** The words beside the pointer; null takes them away. */
function tipAt(u, lines) {
  const box = u.over.getBoundingClientRect();
  showTip(lines, box.left + u.cursor.left, box.top + u.cursor.top);
}

/** Words beside a point of the window. */
function showTip(lines, x, y) {
  const tip = byId('tip');
  tip.hidden = !lines;
  if (!lines) return;
  tip.replaceChildren(...lines.map((line, at) => (line instanceof Node ? line : el('div', { class: at ? 'muted' : null }, line))));
  const left = Math.min(x + 14, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = y + 16;
  const top = below + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : below;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function times() {
  byId('times').hidden = false; // what is hidden has no width to draw within
  throughput();
  histogram('wait', DATA.figures.wait);
  histogram('runtime', DATA.figures.runtime);
  byId('times').hidden = !document.querySelector('#times figure:not([hidden])');
  byId('times-legend').hidden = !DATA.figures.outcomes.failed && !DATA.figures.outcomes.error;
}

/** Levels and counts that jobs told of, one below the other on the run's clock. */
function overTime() {
  const found = DATA.over_time.filter((series) => series.at.length);
  if (!found.length || !BARS.start.length) return;
  const body = show('overtime');
  found.forEach((series, at) => {
    const id = `overtime-${at}`;
    const counts = series.kind === 'count';
    const told = counts ? `${number(series.values.reduce((sum, value) => sum + value, 0))} in all` : `${number(bounds(series.values).low)} to ${number(bounds(series.values).high)}`;
    body.append(el('figure', {}, el('figcaption', {}, el('b', {}, series.name), ' ', el('span', { class: 'muted' }, `${told}, ${counts ? 'a bar' : 'a step'} is ${brief(series.step)}`)), el('div', { class: 'plot', id })));
    describe(id, `${series.name} over time: ${told}`);
    overTimePlot(id, series, counts);
  });
}

function overTimePlot(id, series, counts) {
  const places = series.at.map((begin) => drawn(begin) + series.step / 2);
  const [bar] = bars({ size: [1, Infinity], gap: 1 });
  const line = { stroke: colour('accent'), width: 1.5, paths: uPlot.paths.stepped({ align: 1 }), points: { show: places.length < FEW } };
  plot(id, 120, () => ({
    data: [places, counts ? shown(series.values) : series.values],
    padding: [8, 24, 0, 0],
    scales: {
      x: { time: false, range: [Math.min(drawn(EXTENT.low), places[0] - series.step / 2), Math.max(drawn(EXTENT.high), places.at(-1) + series.step / 2)] },
      y: { range: () => room([0, ...series.values]) },
    },
    axes: [axis({ grid: { show: false }, size: 26, space: 70, ...timeAxis() }), countAxis()],
    cursor: still,
    series: [{}, counts ? bar : line],
    hooks: { drawClear: [drawPauses], setCursor: [(u) => {
      const place = u.cursor.left < 0 ? -Infinity : u.posToVal(u.cursor.left, 'x');
      const at = lastBefore(places, place + series.step / 2, (middle) => middle);
      tipAt(u, at >= 0 && place > -Infinity ? [`${clock(series.at[at], series.step < 1 ? 3 : 0)} UTC, ${brief(series.step)}`, `${series.name}: ${number(series.values[at])}`] : null);
    }] },
  }));
}
