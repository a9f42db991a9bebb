// Who ran what when: a lane for each worker process, a bar for each attempt.

const WIDE = 22;
const NARROW = 7;
const SUBLANES = 16;
const TALLEST = 480;
const STUB = 8;
const SHORT_STUB = 3;
const LABEL_GAP = 22;

let lanes = [];
let bands = [];
let pointed = -1;
let gantt = null;
let zoomOut = () => {};
/** Bars that are descendants' come behind the others, with their tree and their place in it. */
const OWN_BARS = BARS.row.length;
const NODES = [];
const SHOWN_AT_ONCE = 5000;
let barsRead = null;
let shownBars = OWN_BARS;
const BAR_FROM = BARS.start.map(drawn);
const BAR_TO = BARS.end.map((end, bar) => (end === null ? BAR_FROM[bar] : drawn(end)));

/** Bars by lane: where a process runs several jobs at once (threads), it has several lanes. */
function makeLanes() {
  const byPlace = NAMES.places.map(() => []);
  BARS.place.forEach((place, bar) => { if (bar < shownBars) byPlace[place].push(bar); });
  const order = NAMES.places.map((_, place) => place).filter((place) => byPlace[place].length)
    .sort((one, other) => natural(sortKey(NAMES.places[one]), sortKey(NAMES.places[other])));
  const made = [];
  bands = order.map((place, band) => {
    const bars = byPlace[place].sort((one, other) => BAR_FROM[one] - BAR_FROM[other]);
    const mine = [];
    for (const bar of bars) {
      let lane = mine.find((some) => some.end <= BAR_FROM[bar] + 0.0002);
      if (!lane && mine.length < SUBLANES) mine.push(lane = { band, bars: [], longest: 0, end: -Infinity });
      if (!lane) lane = mine.reduce((one, other) => (other.end < one.end ? other : one));
      lane.bars.push(bar);
      lane.end = Math.max(lane.end, BAR_TO[bar]);
      lane.longest = Math.max(lane.longest, BAR_TO[bar] - BAR_FROM[bar]);
    }
    made.push(...mine);
    return { place, bars, first: made.length - mine.length, count: mine.length, at: -1 };
  });
  return made;
}

/** How long a bar is drawn whose end is not known; short where bars stand close together. */
const stubWidth = () => (Math.max(...lanes.map(({ bars }) => bars.length)) > 120 ? SHORT_STUB : STUB);

const laneHeight = () => Math.max(NARROW, Math.min(WIDE, Math.floor(1400 / lanes.length)));

function timeline() {
  if (!BARS.row.length) return;
  byId('timeline').hidden = false;
  lanes = makeLanes();
  const low = drawn(EXTENT.low);
  const high = drawn(EXTENT.high);
  const margin = (high - low) * 0.01;
  const whole = { min: low - margin, max: high + margin };
  const height = () => lanes.length * laneHeight() + 36;
  labelTimeline();
  gantt = plot('gantt', height, (_, made) => ({
    data: [[whole.min, whole.max], [0, 0]],
    padding: axisOnTop() ? [0, 26, 8, 26] : [8, 26, 0, 26],
    scales: {
      x: { time: false, min: whole.min, max: whole.max },
      y: { range: () => [0, lanes.length], dir: -1 },
    },
    axes: [axis({ side: axisOnTop() ? 0 : 2, size: 28, space: 90, ...timeAxis() }), { show: false }],
    cursor: { y: false, drag: { x: true, y: false, dist: 5 }, points: { show: false } },
    series: [{}, { show: true, paths: () => null, points: { show: false } }],
    hooks: {
      drawClear: [drawLanes, drawPauses],
      draw: [drawBars],
      setCursor: [hover],
      setScale: [(u, key) => {
        if (key !== 'x') return;
        made.zoomed = u.scales.x.min > whole.min + 1e-6 || u.scales.x.max < whole.max - 1e-6;
        byId('zoom-out').hidden = !made.zoomed;
        followZoom();
        point(u, -1);
      }],
      ready: [(u) => {
        u.over.append(made.mark = el('div', { class: 'bar-mark', hidden: true }));
        u.over.addEventListener('click', () => {
          if (pointed >= 0) openBar(pointed);
        });
      }],
    },
  }));
  zoomOut = () => gantt.drawn.setScale('x', whole);
  byId('zoom-out').onclick = () => {
    zoomOut();
    byId('lanes').querySelector('[tabindex="0"]').focus({ preventScroll: true });
  };
}

const axisOnTop = () => lanes.length * laneHeight() > TALLEST;

/** What stands around the bars: the workers, what the bars mean, how many there are. */
function labelTimeline() {
  const others = shownBars > OWN_BARS ? ` and ${many(shownBars - OWN_BARS, 'descendant')}` : '';
  describe('gantt', `Timeline of ${many(OWN_BARS, 'attempt')}${others} by ${many(bands.length, 'worker process', 'worker processes')}; the table below has the same entries`);
  byId('timeline-legend').replaceChildren(...legend());
  const button = byId('with-descendants');
  button.hidden = !TREES;
  button.textContent = TREES ? many(TREES.shown, 'descendant') : '';
  button.setAttribute('aria-pressed', String(shownBars > OWN_BARS));
  button.onclick = () => showDescendants(shownBars === OWN_BARS);
  laneLabels(axisOnTop());
}

/** Draw the descendants' bars too, which are unpacked for it, or take them away. */
async function showDescendants(on) {
  if (on) {
    barsRead ??= readDescendantBars();
    try {
      await barsRead;
    } catch { return; } // a browser that cannot unpack them
  }
  if (!gantt) return;
  shownBars = on ? BARS.row.length : OWN_BARS;
  point(gantt.drawn, -1);
  lanes = makeLanes();
  labelTimeline();
  gantt.draw();
}

async function readDescendantBars() {
  for (const [row, some] of await everyTree()) {
    for (const tree of some) {
      tree.start.forEach((start, at) => {
        if (start === null || tree.place[at] < 0) return;
        BARS.row.push(row);
        BARS.place.push(tree.place[at]);
        BARS.outcome.push(TREES.outcomes[tree.kind[at]]);
        BARS.number.push(tree.attempt);
        BARS.start.push(start);
        BARS.end.push(tree.stop[at]);
        BAR_FROM.push(drawn(start));
        BAR_TO.push(drawn(tree.stop[at] ?? start));
        NODES.push([tree, at]);
      });
    }
  }
}

/** A descendant's bar opens its entry, too, with that task in sight. */
function openBar(bar) {
  const node = bar < OWN_BARS ? null : NODES[bar - OWN_BARS];
  openEntry(BARS.row[bar], node ? node[0].id[node[1]] : null);
}

/** What kinds of bars there are; the sign of an unknown end and of a pause only where there is one. */
function legend() {
  const item = (name, text) => el('li', {}, el('span', { class: `swatch ${name}`, 'aria-hidden': 'true' }), text);
  return [
    ...OUTCOMES.filter((_, outcome) => BARS.outcome.slice(0, shownBars).includes(outcome)).map((outcome) => item(outcome, outcome)),
    shownBars > OWN_BARS ? item('descendant', 'descendant') : null,
    BARS.end.includes(null) ? item('stub', 'end not known') : null,
    PAUSES.length ? item('pause', 'nothing ran') : null,
  ].filter(Boolean);
}

/** The workers' names beside their lanes; arrows go through them, and through the jobs of one. */
function laneLabels(onTop) {
  const holder = byId('lanes');
  const tall = laneHeight();
  const busy = new Map(DATA.figures.workers.map((worker) => [processName(worker), worker]));
  holder.style.paddingTop = onTop ? '28px' : '8px';
  holder.replaceChildren(...bands.map(({ place, bars, count, first }, band) => {
    const name = NAMES.places[place];
    const worker = busy.get(name);
    const others = bars.reduce((sum, bar) => sum + Number(bar >= OWN_BARS), 0);
    const told = [
      worker || !others ? many(worker ? worker.jobs : 0, 'job') : null, worker ? `${seconds(worker.busy)} busy` : null,
      others ? many(others, 'descendant') : null,
    ].filter(Boolean).join(', ');
    const button = el('button', {
      type: 'button', class: band % 2 ? 'lane' : 'lane striped', tabindex: band ? '-1' : '0', 'aria-label': `${name}: ${told}`,
      onclick: () => searchFor(name), onkeydown: (event) => laneKey(event, band),
      onfocus: () => { if (button.matches(':focus-visible')) nameTip(button, name, told); },
      onblur: () => { point(gantt.drawn, -1); showTip(null); },
      onmouseenter: () => nameTip(button, name, told), onmouseleave: () => showTip(null),
    });
    button.style.height = `${tall * count}px`;
    button.style.lineHeight = `${Math.min(WIDE, tall * count)}px`;
    button.dataset.every = String(Math.ceil(14 / tall));
    button.dataset.first = String(first);
    return button;
  }));
  fitLabels();
}

function nameTip(button, name, told) {
  const box = button.getBoundingClientRect();
  showTip([el('div', { class: 'mono strong' }, name), told, 'Click: its entries. ← →: its jobs'], box.left + 40, box.top + Math.min(box.height, WIDE));
}

/** As much of the names as there is room for; where lanes are flat, not every one has its name. */
function fitLabels() {
  const names = bands.map(({ place }) => NAMES.places[place]);
  const wide = document.documentElement.clientWidth;
  const room = wide < 560 ? 76 : wide < 1000 ? 150 : 250;
  const texts = fitted(names, room, textWidth);
  const buttons = [...byId('lanes').children];
  let free = 0;
  buttons.forEach((button, band) => {
    const first = Number(button.dataset.first);
    const named = first >= free;
    if (named) free = first + Number(button.dataset.every);
    button.textContent = named ? texts[band] : '';
  });
  byId('lanes').style.width = `${Math.ceil(Math.max(...texts.map(textWidth))) + LABEL_GAP}px`;
}

/** Up and down from worker to worker, left and right from job to job, Enter opens it. */
function laneKey(event, band) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const buttons = byId('lanes').children;
  const { bars, at } = bands[band];
  const lane = { ArrowUp: band - 1, ArrowDown: band + 1 }[event.key];
  const bar = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(bars.length - 1, at + 1), Home: 0, End: bars.length - 1 }[event.key];
  if (lane !== undefined) {
    if (!buttons[lane]) return;
    buttons[band].tabIndex = -1;
    buttons[lane].tabIndex = 0;
    buttons[lane].focus();
  } else if (bar !== undefined) {
    bands[band].at = bar;
    pointByKey(bars[bar]);
  } else if (event.key === 'Enter' && pointed >= 0) openBar(pointed);
  else if (event.key === 'Escape' && pointed >= 0) { point(gantt.drawn, -1); showTip(null); }
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function pointByKey(bar) {
  const u = gantt.drawn;
  const { min, max } = u.scales.x;
  if (BAR_FROM[bar] < min || BAR_FROM[bar] > max) {
    const from = BAR_FROM[bar] - (max - min) / 10;
    u.batch(() => u.setScale('x', { min: from, max: from + max - min }));
  }
  point(u, bar);
  const box = u.over.getBoundingClientRect();
  const mark = gantt.mark.getBoundingClientRect();
  showTip(told(bar), Math.max(box.left, mark.left), mark.bottom - 8);
  byId('said').textContent = byId('tip').innerText;
}

function drawLanes(u) {
  const { ctx } = u;
  ctx.save();
  ctx.fillStyle = colour('stripe');
  lanes.forEach(({ band }, lane) => {
    if (band % 2) return;
    const top = u.valToPos(lane, 'y', true);
    ctx.fillRect(0, top, u.bbox.left + u.bbox.width, u.valToPos(lane + 1, 'y', true) - top);
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
  const stubbed = stubWidth() * ratio;
  ctx.save();
  ctx.beginPath();
  ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  ctx.clip();
  for (const passes of [[0], [3, 4], [1, 2]]) {
    lanes.forEach((lane, at) => {
      const top = u.valToPos(at, 'y', true);
      const tall = u.valToPos(at + 1, 'y', true) - top;
      for (const bar of lane.bars) {
        if (BAR_FROM[bar] > max) break;
        const outcome = BARS.outcome[bar];
        if (!passes.includes(outcome) || BAR_TO[bar] < min) continue;
        const stub = BARS.end[bar] === null;
        const left = u.valToPos(BAR_FROM[bar], 'x', true);
        const right = stub ? left + stubbed : u.valToPos(BAR_TO[bar], 'x', true);
        const wide = Math.max(ratio, right - left - (right - left > 4 * ratio ? 0.75 * ratio : 0));
        drawBar(ctx, { left, top, wide, tall, outcome, below: bar >= OWN_BARS, stub, ratio, fill: fills[outcome], soft: softs[outcome], surface });
      }
    });
  }
  ctx.restore();
}

function drawBar(ctx, { left, top, wide, tall, outcome, below, stub, ratio, fill, soft, surface }) {
  const inset = tall * ((outcome === 0 ? 0.22 : 0.08) + (below ? 0.14 : 0)); // a descendant's is slimmer
  const y = top + inset;
  const height = tall - 2 * inset;
  if (stub) {
    drawStub(ctx, left, y, wide, height, fill, ratio);
    return;
  }
  ctx.fillStyle = outcome < 2 && !(below && outcome === 0) ? fill : soft;
  ctx.fillRect(left, y, wide, height);
  if (outcome === 0 && !below) return;
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

/** A beginning without an end: a line, and what fades away behind it. */
function drawStub(ctx, left, top, wide, tall, fill, ratio) {
  ctx.fillStyle = fill;
  ctx.fillRect(left, top, 2 * ratio, tall);
  [0.5, 0.3, 0.15].forEach((alpha, at) => {
    ctx.globalAlpha = alpha;
    ctx.fillRect(left + 2 * ratio + (at * (wide - 2 * ratio)) / 3, top, (wide - 2 * ratio) / 3, tall);
  });
  ctx.globalAlpha = 1;
}

/** The bar under the pointer, or close to it. */
function barAt(u) {
  const { left, top } = u.cursor;
  if (left === undefined || left < 0 || top < 0) return -1;
  const lane = lanes[Math.floor(u.posToVal(top, 'y'))];
  if (!lane) return -1;
  const place = u.posToVal(left, 'x');
  const near = Math.abs(u.posToVal(left + 3, 'x') - place);
  let best = -1;
  let distance = near;
  for (let at = lastBefore(lane.bars, place + near, (bar) => BAR_FROM[bar]); at >= 0; at -= 1) {
    const bar = lane.bars[at];
    if (BAR_FROM[bar] < place - near - lane.longest) break;
    const end = BARS.end[bar] === null ? BAR_FROM[bar] + 2 * near : BAR_TO[bar];
    const away = Math.max(0, BAR_FROM[bar] - place, place - end);
    if (away < distance || (away === distance && best < 0)) [best, distance] = [bar, away];
    if (away === 0) break;
  }
  return best;
}

/** Draw a frame around a bar; -1 takes it away. */
function point(u, bar) {
  pointed = bar;
  if (!gantt || !gantt.mark) return; // not drawn yet
  gantt.mark.hidden = bar < 0;
  if (bar < 0) return;
  const lane = lanes.findIndex((some) => some.bars.includes(bar));
  const left = u.valToPos(BAR_FROM[bar], 'x');
  const right = BARS.end[bar] === null ? left + stubWidth() : u.valToPos(BAR_TO[bar], 'x');
  Object.assign(gantt.mark.style, {
    left: `${left - 2}px`, width: `${Math.max(5, right - left + 3)}px`,
    top: `${u.valToPos(lane, 'y')}px`, height: `${laneHeight()}px`,
  });
}

function hover(u) {
  if (u.cursor.left < 0 && byId('lanes').contains(document.activeElement)) return;
  const bar = barAt(u);
  u.over.style.cursor = bar < 0 ? 'crosshair' : 'pointer';
  if (bar !== pointed) point(u, bar);
  tipAt(u, bar >= 0 ? told(bar) : u.cursor.left < 0 ? null : pauseAt(u.posToVal(u.cursor.left, 'x')));
}

/** What a bar stands for. */
function told(bar) {
  if (bar >= OWN_BARS) return toldOfTask(...NODES[bar - OWN_BARS], BARS.row[bar]);
  const row = BARS.row[bar];
  const tries = ROWS.tries[row] > 1 ? `, attempt ${BARS.number[bar]} of ${ROWS.tries[row]}` : '';
  const last = BARS.number[bar] === ROWS.tries[row] && BARS.end[bar] !== null && ROWS.runtime;
  const ran = BARS.end[bar] === null ? 'its end is not known' : `ran ${seconds((last ? ROWS.runtime[row] : null) ?? BARS.end[bar] - BARS.start[bar])}`;
  return [
    el('div', { class: 'mono strong' }, ROWS.id[row]),
    el('div', {}, badge(OUTCOMES[BARS.outcome[bar]]), ' ', el('span', { class: 'muted' }, `${NAMES.tasks[ROWS.task[row]]}${tries}`)),
    `${clock(BARS.start[bar], 3)} UTC, ${ran}`,
  ];
}

