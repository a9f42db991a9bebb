// Time as the plots have it: the run's pauses are drawn narrow, so that its parts can be seen.

const NICE = [1, 2, 5];

/** Steps of time that read well: of a minute and of an hour no tenths, but quarters. */
const STEPS_OF_TIME = [-5, -4, -3, -2, -1, 0].flatMap((power) => NICE.map((nice) => Number(`${nice}e${power}`)))
  .concat([10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800]);

/** First beginning and last end of all that ran, in seconds since the origin. */
const EXTENT = extent();

/** Times in which nothing ran, as [begin, end], and how long each is drawn, in seconds of what is drawn. */
const PAUSES = BARS.pauses;
const DRAWN_PAUSE = drawnPause();

function extent() {
  const starts = bounds(BARS.start);
  const ends = bounds(BARS.end);
  const [first, last] = BARS.reach || [Infinity, -Infinity]; // of bars that come later
  const low = Math.min(starts.low, ends.low, first);
  return { low, high: Math.max(starts.high, ends.high, last, low + 0.01) };
}

function drawnPause() {
  const paused = PAUSES.reduce((sum, [begin, end]) => sum + end - begin, 0);
  const active = EXTENT.high - EXTENT.low - paused;
  return Math.max(active, 0.01) * Math.min(0.1, 0.3 / (PAUSES.length || 1));
}

/** A moment on the axis of the plots, on which every pause is as long as the others. */
function drawn(moment) {
  let saved = 0;
  for (const [begin, end] of PAUSES) {
    if (moment <= begin) break;
    const within = Math.min(moment, end) - begin;
    saved += within - (DRAWN_PAUSE * within) / (end - begin);
  }
  return moment - saved;
}

/** The moment that stands at a place of that axis. */
function momentAt(place) {
  let saved = 0;
  for (const [begin, end] of PAUSES) {
    const within = place + saved - begin;
    if (within <= 0) break;
    if (within < DRAWN_PAUSE) return begin + (within * (end - begin)) / DRAWN_PAUSE;
    saved += end - begin - DRAWN_PAUSE;
  }
  return place + saved;
}

/** The run's parts between its pauses, as [begin, end] in seconds since the origin. */
function parts() {
  const edges = [EXTENT.low, ...PAUSES.flat(), EXTENT.high];
  return edges.flatMap((edge, at) => (at % 2 ? [] : [[edge, edges[at + 1]]]));
}

/** Moments of an axis, counted from the beginning of their part of the run, and the pauses. */
function timeAxis() {
  let labels = new Map();
  return {
    incrs: STEPS_OF_TIME,
    splits: (u, _axis, min, max, step) => {
      labels = new Map();
      const apart = (56 * (max - min)) / (u.bbox.width / devicePixelRatio || 1);
      parts().forEach(([begin, end], part) => {
        if (part) {
          const [from, to] = PAUSES[part - 1];
          const place = (drawn(from) + drawn(to)) / 2;
          const wide = (DRAWN_PAUSE * u.bbox.width) / devicePixelRatio / (max - min);
          const text = `${brief(to - from)} pause`;
          if (wide > textWidth(text) + 44) labels.set(place, text);
        }
        const first = Math.max(0, Math.ceil((momentAt(min) - begin) / step - 1e-9));
        for (let count = first; begin + count * step <= end + 1e-9; count += 1) {
          const place = drawn(begin + count * step);
          if (place > max) break;
          if (count && drawn(end) - place < apart / 2 && part < PAUSES.length) break;
          labels.set(place, count ? `+${brief(Number((count * step).toPrecision(6)))}` : startLabel(begin));
        }
      });
      return [...labels.keys()].sort((one, other) => one - other).filter((place) => place >= min && place <= max);
    },
    values: (_, places) => places.map((place) => labels.get(place)),
  };
}

/** A run in one part counts from its start; where there are pauses, each part says when it began. */
const startLabel = (begin) => (PAUSES.length ? clock(begin) : '0 s');

/** Where the run paused: a band of dots, however long it was. */
function drawPauses(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.fillStyle = dots(colour('muted'));
  for (const [begin, end] of PAUSES) {
    const left = Math.max(bbox.left, u.valToPos(drawn(begin), 'x', true));
    const right = Math.min(bbox.left + bbox.width, u.valToPos(drawn(end), 'x', true));
    if (right > left) ctx.fillRect(left, bbox.top, right - left, bbox.height);
  }
  ctx.restore();
}

/** What is said of the pause at a place of the axis; null where there is none. */
function pauseAt(place) {
  const moment = momentAt(place);
  const pause = PAUSES.find(([begin, end]) => moment > begin && moment < end);
  return pause ? [`Nothing is known to have run for ${seconds(pause[1] - pause[0])}`, `${clock(pause[0])} to ${clock(pause[1])} UTC`] : null;
}

