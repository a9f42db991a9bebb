const DATA = JSON.parse(document.getElementById('data').textContent);
const ORIGIN = 0; // elements.js has clocks that count from one
const SHOWN = 50;
const KINDS = [
  ['broken', 'Broken', 'Red in every run since one.'],
  ['flaky', 'Flaky', 'Red and green by turns: three changes or more.'],
  ['one bad run', 'One bad run', 'Red once, green since: an incident of that run.'],
  ['mended', 'Mended', 'Red in several runs, green since.'],
];
const PARTIAL = {
  selection: 'entries of the manifest were left out', shard: 'one of several shards',
  stopped: 'it was ended before its end', unsent: 'more than a tenth was held back',
};
const WORDS = {
  code: 'code of', python: 'Python of the workers', stack: 'stack',
  manifest: 'manifest', version: 'pytest-celery-manifest',
};

function svg(name, attributes, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const moment = (run) => `${dayMonth(new Date(run.at))}, ${run.at.slice(11, 16)}`;
const times = (ratio) => `${significant(ratio)} times`;
const percent = (ratio) => `${ratio < 1 ? '−' : '+'}${Math.abs(Math.round((ratio - 1) * 100))} %`;

/** Runs of equal values as [value, from, length]. */
function stretches(values) {
  const found = [];
  for (const [at, value] of values.entries()) {
    const last = found.at(-1);
    if (last && last[0] === value) last[2] += 1;
    else found.push([value, at, 1]);
  }
  return found;
}

/** The sentence on top, and further ones that are as sure. */
function overview(found) {
  const last = found.runs.at(-1);
  const good = last.bad === 0;
  const mark = el('span', { class: `mark ${good ? 'passed' : 'failed'}`, 'aria-hidden': 'true' }, good ? '✓' : '✕');
  const part = last.partial ? `, a part: ${PARTIAL[last.partial]}` : '';
  const verdict = el('p', { class: 'verdict' }, mark,
    el('span', {}, el('b', {}, number(last.passed)), ` of ${number(last.entries)} passed in the last run${part}`));
  const notes = (found.breaks || []).slice(1).map((one) => one.sentence);
  if (found.slower) notes.push(`All tasks take ${times(found.slower.ratio)} as long since run ${found.slower.since}.`);
  for (const task of found.tasks.filter((one) => one.slower)) {
    notes.push(`${task.task} takes ${times(task.slower.ratio)} as long since run ${task.slower.since}: ${seconds(task.slower.after)} after ${seconds(task.slower.before)}.`);
  }
  for (const one of found.growing || []) {
    notes.push(`${one.worker} grows by ${significant(one.per_job / 1e6)} MB a job since run ${one.since}, in ${many(one.runs.length, 'run')}.`);
  }
  for (const run of found.runs.filter((one) => one.incident)) {
    notes.push(`Run ${run.n} (${moment(run)}) was an incident: ${number(run.bad)} of ${number(run.entries)} were red. It says nothing about single entries.`);
  }
  const [first, ...rest] = found.sentence.split(/(?<=;) /);
  return [verdict, el('p', { class: 'said' }, el('b', {}, first), rest.length ? ` ${rest.join(' ')}` : ''),
    notes.length ? el('ul', { class: 'advice', 'aria-label': 'Also' }, notes.map((note) => el('li', {}, note))) : null];
}

function cell(run, bad, count) {
  if (count === null || count === undefined) return el('td', { class: 'cell absent', title: `run ${run.n}: not in it` }, el('span', {}, '·'));
  const share = bad / Math.max(count, 1);
  const level = !bad ? '' : share < 0.1 ? ' red1' : share < 0.5 ? ' red2' : ' red3';
  const title = `run ${run.n}, ${moment(run)}: ${bad} of ${count} red${run.partial ? `; a part: ${PARTIAL[run.partial]}` : ''}`;
  return el('td', { class: `cell${level}${run.partial ? ' part' : ''}`, title }, el('span', {}, bad ? String(bad) : ''));
}

/** The medians as a line, with gaps where there is none. */
function spark(values) {
  const { low, high } = bounds(values);
  const made = svg('svg', { class: 'spark', viewBox: '0 0 120 24', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const x = (at) => 2 + (116 * at) / Math.max(values.length - 1, 1);
  const y = (value) => 21 - (18 * (value - low)) / (high - low || 1);
  let path = '';
  let pen = 'M';
  for (const [at, value] of values.entries()) {
    if (value === null) continue;
    path += `${pen}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = 'L';
  }
  if (path) made.append(svg('path', { d: path }));
  return made;
}

function taskRow(found, task) {
  const trend = task.p50.map((value, at) => (found.runs[at].partial ? null : value));
  const last = trend.filter((value) => value !== null).at(-1);
  const slower = task.slower ? `slower since run ${task.slower.since}` : null;
  return el('tr', {}, el('th', { scope: 'row', class: 'mono', title: task.task }, task.task),
    found.runs.map((run, at) => cell(run, task.bad[at], task.count[at])),
    el('td', {}, spark(trend)), el('td', { class: 'num' }, last === undefined ? '' : seconds(last)),
    el('td', { class: `num ${slower ? 'slow' : 'muted'}`, title: slower }, task.change ? percent(task.change) : ''));
}

function tasks(found) {
  const since = new Set((found.breaks || []).map((one) => one.since));
  const head = el('tr', {}, el('th', { scope: 'col' }, ''), found.runs.map((run) =>
    el('th', { scope: 'col', class: `cell${run.partial ? ' part' : ''}${since.has(run.n) ? ' first-bad' : ''}`, title: `run ${run.n}: ${run.run}, ${moment(run)}` }, String(run.n))),
  ['median run', 'last', 'against first 5'].map((title, at) => el('th', { scope: 'col', class: at ? 'num' : null }, title)));
  const loud = (task) => task.slower || task.bad.some((bad) => bad);
  const first = found.tasks.filter(loud);
  const quiet = found.tasks.filter((task) => !loud(task));
  const [now, then] = first.length + quiet.length > SHOWN ? [first, quiet] : [found.tasks, []];
  const body = el('tbody', {}, now.map((task) => taskRow(found, task)));
  const table = el('table', {}, el('caption', { class: 'unseen' }, 'Tasks over runs: how many entries were red'), el('thead', {}, head), body);
  const holder = el('div', { class: 'heat', tabindex: '0', role: 'group', 'aria-label': 'Tasks over runs' }, table);
  const swatches = [['good', 'all passed'], ['failed', 'red, how many'], ['part', 'a part of the manifest, in no trend']].map(([name, text]) =>
    el('li', {}, el('span', { class: `swatch ${name}`, 'aria-hidden': 'true' }), text));
  const made = section('Tasks over runs', holder, then.length ? more(`Show ${many(then.length, 'task')} in which nothing was red`, () => body.append(...then.map((task) => taskRow(found, task)))) : null,
    el('ul', { class: 'legend small' }, swatches));
  requestAnimationFrame(() => {
    // The newest runs are those that count.
    const cells = head.querySelectorAll('.cell');
    if (holder.scrollWidth > holder.clientWidth && cells.length) holder.scrollLeft = Math.max(0, cells[cells.length - 1].offsetLeft + 30 - holder.clientWidth);
  });
  return made;
}

function section(title, ...body) {
  return el('section', { 'aria-label': title }, el('h3', {}, title), ...body);
}

function more(text, act) {
  const button = el('button', { type: 'button', class: 'more' }, text);
  button.onclick = () => {
    act();
    button.remove();
  };
  return button;
}

function bars(found, title, value, say, kind) {
  const values = found.runs.map(value);
  if (values.every((one) => one === null || one === undefined)) return null;
  const high = Math.max(...values.map((one) => one ?? 0)) || 1;
  const wide = 300 / values.length;
  const made = svg('svg', { class: 'bars', viewBox: '0 0 300 90', preserveAspectRatio: 'none', role: 'img', 'aria-label': title });
  for (const [at, one] of values.entries()) {
    if (!one) continue;
    const tall = Math.max(1.5, (86 * one) / high);
    const run = found.runs[at];
    const rect = svg('rect', { x: (at * wide + wide * 0.08).toFixed(2), y: (90 - tall).toFixed(2), width: (wide * 0.84).toFixed(2), height: tall.toFixed(2), class: `${kind}${run.partial ? ' partial' : ''}` });
    const text = svg('title', {});
    text.textContent = `run ${run.n}, ${moment(run)}: ${say(one)}`;
    rect.append(text);
    made.append(rect);
  }
  const last = values.findLast((one, at) => one !== null && one !== undefined && !found.runs[at].partial);
  return el('figure', {}, el('figcaption', {}, el('b', {}, title), ' ',
    el('span', { class: 'muted' }, last === undefined ? '' : `last ${say(last)}`)), made);
}

function trends(found) {
  const figures = [
    bars(found, 'Duration', (run) => run.duration, seconds, 'of-time'),
    bars(found, 'Jobs ended', (run) => run.rate, (value) => rate(value), 'of-rate'),
    bars(found, 'Cost', (run) => run.cost, significant, 'of-cost'),
    bars(found, 'Did not pass', (run) => run.bad || 0, number, 'of-bad'),
  ];
  return section('Trends', el('div', { class: 'trends' }, figures));
}

const STATES = { '.': 'passed', F: 'failed', '?': 'unknown', '-': 'absent' };

function strip(states) {
  const each = Math.max(3, Math.min(12, Math.floor(420 / states.length)));
  const made = svg('svg', { class: 'strip', width: states.length * each, height: 14, viewBox: `0 0 ${states.length * each} 14`, role: 'img', 'aria-label': states });
  for (const [state, from, length] of stretches([...states])) {
    for (let at = from; at < from + length; at += 1) {
      made.append(svg('rect', { x: at * each, y: 0, width: each - 1, height: 14, rx: 2, class: STATES[state] }));
    }
  }
  return made;
}

function entryRow(found, [id, task, kind, states, since, bad, runs, formerly]) {
  const said = {
    broken: `red since run ${since}`, flaky: `${bad} of ${runs} runs`,
    'one bad run': `only in run ${since}`, mended: `${many(bad, 'run')}, last in run ${since}`,
  }[kind];
  const name = task < 0 ? '' : found.tasks[task].task;
  return el('tr', {}, el('td', { class: 'mono', title: id }, id), el('td', {}, strip(states)),
    el('td', {}, said + (formerly.length ? `; formerly ${formerly.join(', ')}` : '')), el('td', { class: 'muted mono' }, name));
}

function entries(found) {
  const groups = KINDS.map(([kind, title, about]) => {
    const some = found.entries.filter((one) => one[2] === kind);
    if (!some.length) return null;
    const body = el('tbody', {}, some.slice(0, SHOWN).map((one) => entryRow(found, one)));
    const rest = some.slice(SHOWN);
    return el('div', { class: 'kind' }, el('h4', {}, `${title} `, el('span', { class: 'muted' }, number(some.length))),
      el('p', { class: 'muted' }, about),
      el('div', { class: 'heat' }, el('table', {}, el('caption', { class: 'unseen' }, title), body)),
      rest.length ? more(`Show ${number(rest.length)} more`, () => body.append(...rest.map((one) => entryRow(found, one)))) : null);
  });
  return groups.some(Boolean) ? section('Entries worth a look', groups) : null;
}

function changed({ changes }) {
  return (changes || []).map((one) => `${WORDS[one.what]}${one.task ? ` ${one.task}` : ''}: ${one.before} → ${one.after}`).join('; ');
}

function runs(found) {
  const columns = [
    ['run', (run) => String(run.n), true], ['began', (run) => moment(run)], ['id', (run) => el('span', { class: 'mono' }, run.run)],
    ['entries', (run) => number(run.entries), true], ['passed', (run) => number(run.passed), true], ['red', (run) => number(run.bad), true],
    ['took', (run) => seconds(run.duration), true], ['', (run) => (run.partial ? `a part: ${PARTIAL[run.partial]}` : '')],
    ['what changed', (run) => changed(run)],
  ];
  return el('section', {}, el('details', { class: 'runs-list' }, el('summary', {}, many(found.runs.length, 'run')),
    plainTable('Runs', columns, [...found.runs].reverse())));
}

function manifest(found) {
  const several = DATA.manifests.length > 1;
  const span = found.runs.length === 1 ? '1 run' : `${found.runs.length} runs, ${found.runs[0].at.slice(0, 10)} to ${found.runs.at(-1).at.slice(0, 10)}`;
  if (!several) byId('subtitle').textContent = span;
  return el('section', { class: 'manifest' },
    several ? el('div', { class: 'heading' }, el('h2', { title: found.manifest }, found.name), el('span', { class: 'muted' }, span)) : null,
    overview(found), tasks(found), trends(found), entries(found), runs(found));
}

let theme = 'auto';
byId('theme').onclick = () => {
  theme = { auto: 'light', light: 'dark', dark: 'auto' }[theme];
  if (theme === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId('theme').textContent = { auto: '◐', light: '☀', dark: '☾' }[theme];
  byId('theme').setAttribute('aria-label', `Colours: ${theme === 'auto' ? 'automatic' : theme}`);
};
const title = DATA.manifests.length === 1 ? DATA.manifests[0].name : many(DATA.manifests.length, 'manifest');
byId('title').textContent = title;
document.title = `${title} - runs over time`;
byId('history').append(...DATA.manifests.map(manifest));
byId('foot').textContent = `Written ${DATA.written.slice(0, 16).replace('T', ' ')} UTC by manifest history. Runs are numbered in this history; a task is slower by the rank test over runs, see the documentation.`;
