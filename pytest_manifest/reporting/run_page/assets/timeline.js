// Who ran what when: a lane for each worker process, a bar for each attempt.

const WIDE = 22;
const NARROW = 7;
const SUBLANES = 16;
const TALLEST = 480;
const STUB = 6;

let lanes = null;
let hovered = -1;
let gantt = null;

/** Bars by lane: where a process runs several jobs at once (threads), it has several lanes. */
function makeLanes() {
  const order = NAMES.places.map((_, place) => place)
    .sort((one, other) => NAMES.places[one].localeCompare(NAMES.places[other], 'en', { numeric: true }));
  const byPlace = NAMES.places.map(() => []);
  BARS.place.forEach((place, bar) => byPlace[place].push(bar));
  const made = [];
  for (const [band, place] of order.entries()) {
    const bars = byPlace[place].sort((one, other) => BARS.start[one] - BARS.start[other]);
    const mine = [];
    for (const bar of bars) {
      let lane = mine.find((some) => some.end <= BARS.start[bar] + 0.0002);
      if (!lane && mine.length < SUBLANES) mine.push(lane = { place, band, first: !mine.length, bars: [], longest: 0, end: 0 });
      if (!lane) lane = mine.reduce((one, other) => (other.end < one.end ? other : one));
      lane.bars.push(bar);
      lane.end = Math.max(lane.end, endOf(bar));
      lane.longest = Math.max(lane.longest, endOf(bar) - BARS.start[bar]);
    }
    made.push(...mine);
  }
  return made;
}

/** An attempt of which no end is known is shown as a stub. */
const endOf = (bar) => BARS.end[bar] ?? BARS.start[bar];

const laneHeight = () => Math.max(NARROW, Math.min(WIDE, Math.floor(1400 / lanes.length)));

function timeline() {
  if (!BARS.row.length) return;
  byId('timeline').hidden = false;
  lanes = makeLanes();
  const { low, high } = extent();
  const margin = (high - low) * 0.01;
  const whole = { min: low - margin, max: high + margin };
  const height = () => lanes.length * laneHeight() + 40;
  describe('gantt', `Timeline of ${many(BARS.row.length, 'attempt')} by ${many(NAMES.places.length, 'worker process', 'worker processes')}; the table below has the same entries`);
  byId('timeline-legend').replaceChildren(...usedOutcomes().map((outcome) =>
    el('li', {}, el('span', { class: `swatch ${outcome}`, 'aria-hidden': 'true' }), outcome)));
  gantt = plot('gantt', height, (width, made) => ({
    data: [[whole.min, whole.max], [0, 0]],
    padding: [4, 12, 0, 0],
    scales: {
      x: { time: false, min: whole.min, max: whole.max },
      y: { range: () => [0, lanes.length], dir: -1 },
    },
    axes: [
      axis({ side: lanes.length * laneHeight() > TALLEST ? 0 : 2, size: 28, space: 90, ...since(low) }),
      axis({ grid: { show: false }, size: labelSize(width), splits: () => lanes.map((_, lane) => lane + 0.5), values: () => labels(width), filter: (_, splits) => splits }),
    ],
    cursor: { y: false, drag: { x: true, y: false, dist: 5 }, points: { show: false } },
    series: [{}, { show: true, paths: () => null, points: { show: false } }],
    hooks: {
      drawClear: [drawLanes],
      draw: [drawBars],
      setCursor: [hover],
      setScale: [(u, key) => {
        if (key !== 'x') return;
        made.zoomed = u.scales.x.min > whole.min + 1e-6 || u.scales.x.max < whole.max - 1e-6;
        byId('zoom-out').hidden = !made.zoomed;
      }],
      ready: [(u) => {
        u.over.addEventListener('click', () => {
          if (hovered >= 0) openEntry(BARS.row[hovered]);
        });
      }],
    },
  }));
  byId('zoom-out').onclick = () => gantt.drawn.setScale('x', { min: whole.min, max: whole.max });
}

const usedOutcomes = () => OUTCOMES.filter((_, outcome) => BARS.outcome.includes(outcome));

function labelSize(width) {
  const longest = Math.max(...(width < 560 ? SHORT_PLACES : NAMES.places).map(textWidth));
  return Math.ceil(Math.min(width < 560 ? 100 : 260, longest + 16));
}

/** The lanes' names; on a narrow page the worker's process alone says it. */
function labels(width) {
  const room = labelSize(width) - 12;
  const every = Math.ceil(14 / laneHeight());
  return lanes.map((lane, at) => {
    if (!lane.first || at % every) return '';
    const name = (width < 560 ? SHORT_PLACES : NAMES.places)[lane.place];
    return fitted(name, room);
  });
}

/** The end of a name, which tells processes apart, as far as there is room. */
function fitted(name, room) {
  if (textWidth(name) <= room) return name;
  let from = 1;
  while (from < name.length - 1 && textWidth(`…${name.slice(from)}`) > room) from += 1;
  return `…${name.slice(from)}`;
}

function drawLanes(u) {
  const { ctx } = u;
  ctx.save();
  ctx.fillStyle = colour('stripe');
  lanes.forEach(({ band }, lane) => {
    if (band % 2) return;
    const top = u.valToPos(lane, 'y', true);
    ctx.fillRect(u.bbox.left, top, u.bbox.width, u.valToPos(lane + 1, 'y', true) - top);
  });
  ctx.restore();
}

/** Passed bars are slim and plain; others fill their lane and are hatched or outlined. */
function drawBars(u) {
  const { ctx } = u;
  const { min, max } = u.scales.x;
  const fills = OUTCOMES.map((outcome) => colour(outcome));
  const softs = OUTCOMES.map((outcome) => colour(`${outcome}-soft`));
  const surface = colour('surface');
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  ctx.clip();
  for (const passes of [[0], [3, 4], [1, 2]]) {
    lanes.forEach((lane, at) => {
      const top = u.valToPos(at, 'y', true);
      const tall = u.valToPos(at + 1, 'y', true) - top;
      for (const bar of lane.bars) {
        if (BARS.start[bar] > max) break;
        const outcome = BARS.outcome[bar];
        if (!passes.includes(outcome) || endOf(bar) < min) continue;
        const left = u.valToPos(BARS.start[bar], 'x', true);
        const stub = BARS.end[bar] === null;
        const right = stub ? left + STUB * ratio : u.valToPos(BARS.end[bar], 'x', true);
        const wide = Math.max(ratio, right - left - (right - left > 4 * ratio ? 0.75 * ratio : 0));
        drawBar(ctx, { left, top, wide, tall, outcome, stub, ratio, fill: fills[outcome], soft: softs[outcome], surface });
        if (bar === hovered) outline(ctx, left, top, wide, tall, ratio);
      }
    });
  }
  ctx.restore();
}

function drawBar(ctx, { left, top, wide, tall, outcome, stub, ratio, fill, soft, surface }) {
  const inset = outcome === 0 ? tall * 0.22 : tall * 0.08;
  const y = top + inset;
  const height = tall - 2 * inset;
  if (outcome === 0 && !stub) {
    ctx.fillStyle = fill;
    ctx.fillRect(left, y, wide, height);
    return;
  }
  ctx.fillStyle = outcome === 1 ? fill : soft;
  ctx.fillRect(left, y, wide, height);
  if (outcome === 2) {
    ctx.fillStyle = hatch(fill);
    ctx.fillRect(left, y, wide, height);
  }
  ctx.strokeStyle = fill;
  ctx.lineWidth = ratio;
  ctx.strokeRect(left + ratio / 2, y + ratio / 2, Math.max(0, wide - ratio), Math.max(0, height - ratio));
  if (outcome === 1 && wide > 12 * ratio && height > 10 * ratio) {
    ctx.fillStyle = surface;
    ctx.font = `${Math.round(10 * ratio)}px system-ui, sans-serif`;
    ctx.textAlign = 'center';
    ctx.textBaseline = 'middle';
    ctx.fillText('✕', left + Math.min(wide / 2, 10 * ratio), y + height / 2);
  }
}

function outline(ctx, left, top, wide, tall, ratio) {
  ctx.strokeStyle = colour('text');
  ctx.lineWidth = 1.5 * ratio;
  ctx.strokeRect(left, top + ratio, wide, tall - 2 * ratio);
}

/** The bar under the pointer, or close to it. */
function barAt(u) {
  const { left, top } = u.cursor;
  if (left === undefined || left < 0 || top < 0) return -1;
  const lane = lanes[Math.floor(u.posToVal(top, 'y'))];
  if (!lane) return -1;
  const moment = u.posToVal(left, 'x');
  const near = Math.abs(u.posToVal(left + 3, 'x') - moment);
  let best = -1;
  let distance = near;
  for (let at = lastBefore(lane.bars, moment + near); at >= 0; at -= 1) {
    const bar = lane.bars[at];
    if (BARS.start[bar] < moment - near - lane.longest) break;
    const end = BARS.end[bar] ?? BARS.start[bar] + 2 * near;
    const away = Math.max(0, BARS.start[bar] - moment, moment - end);
    if (away < distance || (away === distance && best < 0)) [best, distance] = [bar, away];
    if (away === 0) break;
  }
  return best;
}

function lastBefore(bars, moment) {
  let low = 0;
  let high = bars.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (BARS.start[bars[middle]] <= moment) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function hover(u) {
  const bar = barAt(u);
  u.over.style.cursor = bar < 0 ? 'crosshair' : 'pointer';
  if (bar !== hovered) {
    hovered = bar;
    u.redraw(false, false);
  }
  if (bar < 0) return tipAt(u, null);
  const row = BARS.row[bar];
  const outcome = OUTCOMES[BARS.outcome[bar]];
  const tries = ROWS.tries[row] > 1 ? `, attempt ${BARS.number[bar]} of ${ROWS.tries[row]}` : '';
  const known = BARS.number[bar] === ROWS.tries[row] && ROWS.runtime ? ROWS.runtime[row] : null;
  const ran = BARS.end[bar] === null ? 'its end is not known' : `ran ${seconds(known ?? BARS.end[bar] - BARS.start[bar])}`;
  return tipAt(u, [
    el('div', { class: 'mono strong' }, ROWS.id[row]),
    el('div', {}, badge(outcome), ' ', el('span', { class: 'muted' }, `${NAMES.tasks[ROWS.task[row]]}${tries}`)),
    `${clock(BARS.start[bar], 3)} UTC, ${ran}`,
  ]);
}

