// The live page: one absolute snapshot a second, shown in place, so that focus and selection stay.

let ORIGIN = 0;
let NOW = null; // the snapshot that is shown
let newest = null;
let due = false;
let lostAt = null;
let theme = 'auto';
const AGAIN = 2000;
const OUTCOMES = ['passed', 'failed', 'error', 'skipped', 'pending'];

const hour = (moment) => new Date(moment).toISOString().slice(11, 16);
const offset = (moment) => (Date.parse(moment) - ORIGIN) / 1000;
const sum = (some) => some.reduce((all, [, count]) => all + count, 0);

function ago(moment) {
  if (!moment) return 'never';
  const since = (Date.parse(NOW.at) - Date.parse(moment)) / 1000;
  return since < 2 ? 'now' : `${seconds(Math.round(since))} ago`;
}

/** Write a text where it is another one: what is selected, or has the focus, is left alone. */
function put(node, text) {
  const wanted = text === null || text === undefined ? '' : String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function style(node, name) {
  if (node.className !== name) node.className = name;
}

/** Have a node's children be those of these items, each made once by its key and then updated. */
function keyed(parent, items, keyOf, make, update) {
  const known = parent.kept || (parent.kept = new Map());
  const wanted = new Set(items.map(keyOf));
  for (const [key, node] of known) {
    if (wanted.has(key)) continue;
    node.remove();
    known.delete(key);
  }
  let before = null;
  for (const item of items) {
    const key = keyOf(item);
    if (!known.has(key)) known.set(key, make(item));
    const node = known.get(key);
    if ((before ? before.nextSibling : parent.firstChild) !== node) parent.insertBefore(node, before ? before.nextSibling : parent.firstChild);
    update(node, item);
    before = node;
  }
}

/** A table in place; columns are [title, text of an item, is it a number, what a click does]. */
function table(holder, caption, columns, items, keyOf, classOf) {
  if (!holder.body) {
    const head = el('tr', {}, columns.map(([title, , figure]) => el('th', { scope: 'col', class: figure ? 'num' : null }, title)));
    holder.body = el('tbody', {});
    holder.append(el('table', {}, el('caption', { class: 'unseen' }, caption), el('thead', {}, head), holder.body));
  }
  const make = (item) => {
    const row = el('tr', {}, columns.map(([, , figure, act]) => el('td', { class: figure ? 'num' : null },
      act ? el('button', { type: 'button', class: 'row-button mono', onclick: () => act(row.item) }) : [])));
    return row;
  };
  keyed(holder.body, items, keyOf, make, (row, item) => {
    row.item = item;
    style(row, classOf ? classOf(item) : '');
    columns.forEach(([, text, , act], nth) => {
      const cell = row.children[nth];
      const found = text(item);
      if (found instanceof Node) { if (!cell.firstChild || cell.firstChild.textContent !== found.textContent) cell.replaceChildren(found); } else put(act ? cell.firstChild : cell, found);
    });
  });
}

function section(name, items) {
  hide(byId(name), !items.length);
  return byId(name).querySelector('.scroll');
}

// The snapshot

function draw() {
  due = false;
  const s = JSON.parse(newest);
  if (s.problem) {
    put(byId('verdict'), s.problem);
    return;
  }
  NOW = s;
  ORIGIN = Date.parse(s.began);
  const counts = Object.entries(s.counts).sort(([one], [other]) => OUTCOMES.indexOf(s.outcomes[one]) - OUTCOMES.indexOf(s.outcomes[other]));
  const bad = counts.filter(([kind]) => ['failed', 'error'].includes(s.outcomes[kind]));
  document.title = `${s.total ? Math.floor((100 * s.done) / s.total) : 0} % · ${number(sum(bad) - s.accepted)} failed`;
  put(byId('title'), s.manifest.split('/').at(-1));
  put(byId('subtitle'), `${s.run} · began ${clock(0)} UTC`);
  state(s);
  headline(s, counts);
  know(s);
  rates(s);
  causeList(s);
  figures(s);
  filters(s, counts);
  followList();
  put(byId('foot'), `What was known at ${new Date(s.at).toISOString().slice(11, 19)} UTC. Times are UTC.`);
  document.body.dataset.drawn = String(Number(document.body.dataset.drawn || 0) + 1);
  if (s.is_over) over();
}

const GOES_ON = ['running', 'paused', 'draining'];

function state(s) {
  const said = { running: `running ${seconds(Math.round(s.elapsed))}`, left: 'pytest is gone' };
  put(byId('state'), said[s.state] || s.state);
  style(byId('state'), `chip-state ${s.state}`);
  const wanted = s.control && GOES_ON.includes(s.state) ? [s.state === 'running' ? 'pause' : 'resume', 'set', 'stop'] : [];
  keyed(byId('buttons'), wanted, (name) => name, (name) => el('button', { type: 'button', 'data-action': name, onclick: () => ask(name) }, ACTIONS[name].button), () => {});
}

function headline(s, counts) {
  const { at, earliest, latest, before } = s.eta || {};
  const about = !s.eta ? [] : [hour(earliest) === hour(latest) ? null : `${hour(earliest)} to ${hour(latest)}`, before && hour(before) !== hour(at) ? `was ${hour(before)}` : null].filter(Boolean);
  const eta = s.eta ? ` · ends about ${hour(at)}${about.length ? ` (${about.join('; ')})` : ''}` : '';
  put(byId('verdict'), s.verdict || `${number(s.done)} of ${number(s.total)} done${s.accepted ? `, ${number(s.accepted)} accepted failures` : ''}${eta}`);
  const way = [['running', s.running], ['waiting', s.waiting], ['not sent', s.unsent]];
  const share = OUTCOMES.map((one) => [one, sum(counts.filter(([kind]) => s.outcomes[kind] === one))]).concat(way.slice(0, 2), [['unsent', s.unsent]]);
  keyed(byId('share'), share.filter(([, count]) => count), ([name]) => name, ([name]) => el('span', { class: name }), (node, [, count]) => {
    if (node.style.flexGrow !== String(count)) node.style.flexGrow = count;
  });
  keyed(byId('counts'), [...counts, ...way].filter(([, count]) => count), ([name]) => name, ([name]) => el('li', {},
    el('button', { type: 'button', class: 'plain', title: 'Show these entries', onclick: () => filterBy({ state: name }) }, s.outcomes[name] ? badge(s.outcomes[name], name) : name, ' ', el('b', {}))),
  (node, [, count]) => put(node.querySelector('b'), number(count)));
  const { total, budget, foreseen } = s.cost;
  put(byId('cost'), total === null ? '' : `cost ${significant(total)}${budget === null ? '' : ` of ${significant(budget)}`}${foreseen === null ? '' : `, ${significant(foreseen)} foreseen`}`);
}

function know(s) {
  hide(byId('know'), !s.notices.length);
  keyed(byId('know'), s.notices, (one, nth) => `${one.code}${one.text.replace(/\d+/g, '')}`, () => el('li', {}, el('b', {}), el('span', { class: 'muted' })), (node, one) => {
    put(node.firstChild, one.text);
    put(node.lastChild, [one.evidence, one.remedy].filter(Boolean).join(' · '));
  });
}

function causeList(s) {
  hide(byId('causes'), !s.causes.length);
  const make = (cause) => el('li', {},
    el('div', { class: 'cause-head' }, badge(s.outcomes[cause.kind] || 'failed', cause.kind), el('b', {}), el('span', { class: 'new', hidden: true }, 'new since the last run'), el('span', { class: 'rise' }), el('span', { class: 'count' })),
    el('p', { class: 'wrapped' }),
    el('div', { class: 'cause-foot' }, el('span', {}, 'such as ', el('button', { type: 'button', class: 'row-button mono', onclick: () => openEntry(cause.example) }, cause.example)), el('span', {},
      el('button', { type: 'button', class: 'text-button', onclick: () => filterBy({ cause: String(cause.number), title: cause.title }) }, 'show all'),
      s.control ? el('button', { type: 'button', class: 'text-button', 'data-action': 'requeue', onclick: () => ask('requeue', { cause: String(cause.number), title: cause.title }) }, 'send again…') : null)));
  keyed(byId('cause-list'), s.causes, (cause) => cause.number, make, (node, cause) => {
    const [head, said] = node.children;
    const title = firstLine(cause.title, 160);
    put(head.children[1], words(title) === words(cause.kind) ? '' : title);
    hide(head.children[2], !cause.is_new);
    put(head.children[3], cause.last_minute ? `+${number(cause.last_minute)} in the last minute` : '');
    put(head.children[4], many(cause.count, 'entry', 'entries'));
    put(said, cause.message === cause.title ? '' : cause.message);
  });
}

function figures(s) {
  table(section('workers', s.workers), 'Workers', [
    ['worker', (one) => one.name, false, (one) => filterBy({ worker: one.name })], ['now', (one) => one.has.join(', ') || '–'], ['done', (one) => number(one.done), true],
    ['rate', (one) => rate(one.rate || null), true], ['heard', (one) => (one.is_gone ? `silent, ${ago(one.heard)}` : ago(one.heard)), true],
  ], s.workers, (one) => one.name, (one) => (one.is_gone ? (one.has.length ? 'alarm' : 'gone') : ''));
  table(section('longest', s.longest), 'Running longest', [
    ['entry', (one) => one.id, false, (one) => openEntry(one.id)], ['for', (one) => seconds(one.seconds), true], ['p95', (one) => seconds(one.p95), true], ['on', (one) => one.worker || ''],
  ], s.longest, (one) => one.id, (one) => (one.p95 !== null && one.seconds > 3 * one.p95 ? 'alarm' : ''));
  const count = (value) => (value === null ? '' : number(value));
  table(section('tasks', s.tasks), 'Tasks', [
    ['task', (one) => one.task, false, (one) => filterBy({ task: one.task })], ['passed', (one) => number(one.passed), true], ['failed', (one) => number(one.failed), true],
    ['p50', (one) => seconds(one.p50), true], ['p95', (one) => seconds(one.p95), true], ['running', (one) => count(one.running), true], ['waiting', (one) => count(one.waiting), true],
  ], s.tasks, (one) => one.task, null);
  const held = s.throttling.map((one) => ({ at: one.began, by: 'back-pressure', action: one.why, reason: `${one.key ? `${one.key}: ` : ''}${one.detail}`, data: one.ended ? `until ${clock(offset(one.ended))}` : 'still' }));
  const said = (data) => (typeof data === 'string' ? data : Object.entries(data).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', '));
  const acted = [...s.actions.filter((one) => one.changed || one.waits), ...held];
  table(section('actions', acted), 'What was changed', [
    ['when', (one) => clock(offset(one.at))], ['by', (one) => one.by], ['what', (one) => `${one.action} ${said(one.data)}${one.waits ? ', not carried out yet' : ''}`], ['why', (one) => one.reason],
  ], acted, (one) => `${one.at} ${one.action}`, null);
}

// The rate

let drawn = null;
let drawnWidth = 0;
let wide = 1; // seconds of a bar
const BAR = 9;

function rates(s) {
  const { began, done, failed, flags } = s.series;
  hide(byId('rates'), !done.length);
  if (!done.length) return;
  const width = byId('rate').clientWidth;
  const joined = Math.ceil((done.length * BAR) / Math.max(width, BAR)); // so many buckets to a bar
  wide = s.series.width * joined;
  const each = (counts) => Array.from({ length: Math.ceil(counts.length / joined) }, (_, nth) => counts.slice(nth * joined, (nth + 1) * joined).reduce((all, count) => all + count, 0) / wide);
  const bars = each(done);
  const data = [bars.map((_, nth) => offset(began) + (nth + 0.5) * wide), bars, each(failed)];
  if (!drawn || drawnWidth !== width) plotRates(width, data);
  else drawn.setData(data);
  const note = s.rate === null ? '' : `${rate(s.rate)} now${s.median_rate ? `, ${rate(s.median_rate)} in the median` : ''}`;
  put(byId('rate-note'), note);
  byId('rate').setAttribute('aria-label', `Entries that were judged, in stretches of ${seconds(wide)}; ${note}`);
  keyed(byId('flags'), flags, (flag) => `${flag.at}${flag.text}`, (flag) => el('li', {}, `▼ ${clock(offset(flag.at))} ${flag.text}`), () => {});
}

function plotRates(width, data) {
  if (drawn) drawn.destroy();
  drawnWidth = width;
  const axis = { stroke: colour('muted'), font: '12px system-ui, sans-serif', grid: { stroke: colour('grid'), width: 1 }, ticks: { show: false } };
  const bars = uPlot.paths.bars({ size: [0.92, 60] });
  const kind = (name) => ({ fill: colour(name), stroke: colour(name), width: 0, paths: bars, points: { show: false } });
  drawn = new uPlot({
    width: Math.max(180, width), height: 170, legend: { show: false }, cursor: { show: false }, padding: [14, 8, 0, 0],
    scales: { x: { time: false, range: (_, low, high) => [low - wide / 2, high + wide / 2] }, y: { range: (_, low, high) => [0, Math.max(high, 0.01) * 1.08] } },
    axes: [
      { ...axis, size: 30, space: 70, values: (_, some, __, ___, step) => some.map((one) => clock(one).slice(-8, step < 60 ? undefined : -3)) },
      { ...axis, size: 68, values: (_, some) => some.map((one) => (one ? rate(one, some.at(-1)) : '0')) },
    ],
    series: [{}, kind('passed'), kind('failed')], hooks: { draw: [flagLines] },
  }, data, byId('rate'));
  drawn.root.setAttribute('aria-hidden', 'true');
}

function flagLines(u) {
  u.ctx.save();
  u.ctx.strokeStyle = u.ctx.fillStyle = colour('error');
  u.ctx.setLineDash([4, 3]);
  for (const flag of NOW.series.flags) {
    const left = u.valToPos(offset(flag.at), 'x', true);
    if (left < u.bbox.left || left > u.bbox.left + u.bbox.width) continue;
    u.ctx.beginPath();
    u.ctx.moveTo(left, u.bbox.top);
    u.ctx.lineTo(left, u.bbox.top + u.bbox.height);
    u.ctx.stroke();
    u.ctx.beginPath();
    u.ctx.moveTo(left - 6, u.bbox.top - 10);
    u.ctx.lineTo(left + 6, u.bbox.top - 10);
    u.ctx.lineTo(left, u.bbox.top);
    u.ctx.fill();
  }
  u.ctx.restore();
}

// The list of entries

const filter = { state: 'bad', task: '', worker: '', cause: '', title: '', text: '' };
let rows = [];
let asked = 0;
let listed = { key: '', when: 0 };

function filterBy(change) {
  Object.assign(filter, { state: '', task: '', worker: '', cause: '', title: '', text: '' }, change);
  byId('search').value = filter.text;
  filters(NOW);
  list();
  byId('entries').scrollIntoView();
}

function filters(s, counts = Object.entries(s.counts)) {
  const states = [['', 'every state'], ['bad', 'did not pass'], ...[...counts.map(([name]) => name), 'running', 'waiting', 'not sent'].map((name) => [name, words(name)])];
  options(byId('by-state'), states, filter.state);
  options(byId('by-task'), [['', 'every task'], ...s.tasks.map((one) => [one.task, one.task])], filter.task);
  options(byId('by-worker'), [['', 'every worker'], ...s.workers.map((one) => [one.name, one.name])], filter.worker);
  hide(byId('by-cause'), !filter.cause);
  put(byId('by-cause'), filter.cause ? `cause: ${filter.title}  ✕` : '');
}

function options(select, wanted, value) {
  const some = wanted.some(([one]) => one === value) ? wanted : [...wanted, [value, words(value)]];
  keyed(select, some, ([one]) => one, ([one]) => el('option', { value: one }), (node, [, text]) => put(node, text));
  if (select.value !== value) select.value = value;
}

/** Ask for the entries that pass the filter; ``more``: the next ones, below those that are there. */
async function list(more) {
  asked += 1;
  const mine = asked;
  const wanted = new URLSearchParams({ state: filter.state, task: filter.task, worker: filter.worker, cause: filter.cause, text: filter.text, after: more ? String(rows.length) : '0' });
  try {
    const answer = await fetch(`entries?${wanted}`);
    if (!answer.ok) return;
    const found = await answer.json();
    if (mine !== asked || found.problem) return;
    rows = more ? [...rows, ...found.rows] : [...found.rows, ...rows.slice(found.rows.length, found.rows.length === 200 ? rows.length : 0)];
    listed = { key: NOW.heard, when: Date.now() };
    put(byId('found'), many(found.total, 'entry', 'entries'));
    hide(byId('more'), rows.length >= found.total);
    table(byId('list'), 'Entries', [
      ['entry', (one) => one.id, false, (one) => openEntry(one.id)], ['state', (one) => (one.outcome ? badge(one.outcome, one.state) : one.state)],
      ['task', (one) => one.task], ['worker', (one) => one.worker || ''], ['why', (one) => one.why || ''],
    ], rows, (one) => one.id, null);
  } catch { /* the stream says that the server is lost */ }
}

/** Ask again when there is news, not oftener than every five seconds, where only the first are shown. */
function followList() {
  if (document.hidden || NOW.heard === listed.key || Date.now() - listed.when < 5000 || rows.length > 200) return;
  listed.when = Date.now();
  list();
}

// An entry

let opened = null;
let cameFrom = null;

async function openEntry(id) {
  if (opened === null) cameFrom = document.activeElement;
  opened = id;
  let found = {};
  let problem = null;
  try {
    const answer = await fetch(`entry?${new URLSearchParams({ id })}`);
    found = await answer.json();
    problem = found.problem || null;
  } catch (error) {
    problem = `The server did not answer (${error}).`;
  }
  if (opened !== id) return;
  const outcome = found.outcome || 'pending';
  const steer = NOW.control && !NOW.is_over
    ? el('p', { class: 'panel-line' }, el('button', { type: 'button', onclick: () => ask('cancel', { entry: id }) }, 'Cancel…'), el('button', { type: 'button', onclick: () => ask('requeue', { entry: id }) }, 'Send again…')) : null;
  const left = found.left_out || {};
  byId('details').replaceChildren(...[
    el('div', { class: 'panel-bar' }, el('span', { class: 'muted' }, found.position || ''), el('button', { type: 'button', class: 'quiet', 'aria-label': 'Read it again', onclick: () => openEntry(id) }, '↻'), el('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: closeEntry }, '✕')),
    el('div', {}, el('h2', { id: 'details-title', class: 'mono' }, id),
      el('p', { class: 'panel-line' }, badge(outcome, found.state || 'pending'), el('span', { class: 'mono' }, found.task || '')),
      problem ? el('p', { class: 'notice' }, problem) : null,
      found.sentence ? el('p', { class: `sentence ${outcome}` }, found.sentence) : null, steer),
    mismatches(found), errorPart(found, left), block('Log', found.log, left.log, found.dropped ? `${many(found.dropped, 'earlier line')} not kept` : null),
    attempts(found), sideBySide(found, left), block('Arguments', found.args, left.args), block('Keyword arguments', found.kwargs, left.kwargs),
    found.expected && found.actual ? null : block('Result', found.result, left.result), block('Evidence', found.evidence, left.evidence), block('Meta', found.meta, left.meta), receiptFacts(found),
  ].filter(Boolean));
  hide(byId('details'), false);
  byId('details').scrollTop = 0;
  byId('details').focus({ preventScroll: true });
  cover();
}

function closeEntry() {
  opened = null;
  hide(byId('details'), true);
  cover();
  if (cameFrom && cameFrom.isConnected) cameFrom.focus({ preventScroll: true });
}

const NARROW = matchMedia('(max-width: 640px)');

function cover() {
  const covers = opened !== null && NARROW.matches;
  for (const one of document.querySelectorAll('.skip, .top, main, footer')) one.inert = covers;
  byId('details').setAttribute('aria-modal', String(covers));
  document.body.classList.toggle('open', opened !== null);
}

// Steering: the same commands as in a terminal

const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const ACTIONS = {
  pause: { button: 'Pause sending', about: 'Nothing new is sent; what is in flight goes on. The deadline goes on, too.' },
  resume: { button: 'Resume sending', about: 'Sending goes on with the limits that were set last.' },
  set: { button: 'Limits…', does: 'Set them', about: 'Only what you fill in is changed.' },
  stop: { button: 'Stop…', about: 'What Ctrl-C does: nothing more is sent, and the run ends.' },
  cancel: { button: 'Cancel', about: 'What waits is taken back and ran nowhere; what runs goes on, and is judged by what its worker reports.' },
  requeue: { button: 'Send again', about: 'Entries that are not idempotent are sent again only if you say so below.' },
};

/** Ask before an action: what it does, its fields, why; and the command that it stands for. */
function ask(action, about = {}) {
  const dialog = byId('dialog');
  const fields = fieldsOf(action, about);
  const reason = el('input', { type: 'text', name: 'reason', autocomplete: 'off' });
  const command = el('code', {});
  const answer = el('p', { role: 'status', class: 'wrapped' });
  const show = () => put(command, commandOf(action, about, fields, reason.value));
  const does = el('button', { type: 'button', class: 'doing', onclick: () => send(action, dataOf(action, about, fields), reason.value, does, answer) }, ACTIONS[action].does || ACTIONS[action].button.replace('…', ''));
  dialog.replaceChildren(el('h2', { id: 'dialog-title' }, ACTIONS[action].button.replace('…', ''), about.entry || about.title ? `: ${about.entry || about.title}` : ''), el('p', {}, ACTIONS[action].about),
    ...fields.map(({ label, node }) => el('label', { class: node.type === 'checkbox' || node.type === 'radio' ? 'tick' : null }, ...(node.type === 'text' ? [label, node] : [node, label]))),
    el('label', {}, 'Why (kept in the run’s record)', reason), command, answer,
    el('div', { class: 'ends' }, el('button', { type: 'button', onclick: () => dialog.close() }, 'Close'), does));
  dialog.oninput = show;
  show();
  dialog.showModal();
}

function fieldsOf(action, about) {
  const text = (name, label, holder) => ({ name, label, node: el('input', { type: 'text', name, autocomplete: 'off', placeholder: holder }) });
  if (action === 'set') {
    const names = [...new Set(['window', 'rate', 'queue-depth', 'max-failed', 'deadline', ...Object.keys(NOW.limits)])].filter((name) => !['canary', 'kills'].includes(name));
    return names.map((name) => text(name, name, name in NOW.limits ? `now ${NOW.limits[name]}` : { window: 'entries in flight at most', rate: 'like 200/s', deadline: 'like 6h, or +2h' }[name] || 'not limited'));
  }
  if (action === 'stop') {
    return [['', 'as the run was told'], ['take-back', 'take back what waits'], ['leave', 'leave it to the workers']]
      .map(([name, label], nth) => ({ name, label, node: el('input', { type: 'radio', name: 'waits', value: name, checked: nth === 0 }) }));
  }
  const tick = { requeue: ['unsafe', 'also what may then run twice (it is not idempotent)'], cancel: ['running', 'also end it where it runs: it may be half done then'] }[action];
  return tick ? [{ name: tick[0], label: tick[1], node: el('input', { type: 'checkbox', name: tick[0] }) }] : [];
}

const given = (fields) => fields.filter(({ node }) => (node.type === 'text' ? node.value.trim() : node.checked)).map(({ name, node }) => [name, node.type === 'text' ? node.value.trim() : true]);

function dataOf(action, about, fields) {
  const some = given(fields);
  if (action === 'set') return { limits: Object.fromEntries(some) };
  if (action === 'stop') return some.length && some[0][0] ? { how: some[0][0] } : {};
  const data = about.entry ? { entries: [about.entry] } : about.cause ? { cause: about.cause } : {};
  return { ...data, ...Object.fromEntries(some) };
}

function commandOf(action, about, fields, reason) {
  const some = given(fields);
  const words = ['manifest ctl', NOW.run, action];
  if (action === 'set') words.push(...some.map(([name, value]) => quoted(`${name}=${value}`)));
  else if (action === 'stop' && some.length && some[0][0]) words.push(`--${some[0][0]}`);
  if (about.entry) words.push(quoted(about.entry));
  if (about.cause) words.push(`--cause ${quoted(about.cause)}`);
  if (['cancel', 'requeue'].includes(action)) words.push(...some.map(([name]) => `--${name}`));
  if (reason.trim()) words.push(`--reason ${quoted(reason.trim())}`);
  return words.join(' ');
}

async function send(action, data, reason, button, answer) {
  button.disabled = true;
  put(answer, 'Asked; the run answers within a second while pytest is there…');
  try {
    const found = await fetch('ctl', { method: 'POST', headers: { 'Content-Type': 'application/json', 'X-Manifest': 'ctl' }, body: JSON.stringify({ action, data, reason }) });
    put(answer, (await found.json()).text);
  } catch (error) {
    put(answer, `The server did not answer (${error}).`);
  }
  button.disabled = false;
}

// The end, the stream, colours and keys

let ending = false;

/** The page becomes the run page, but not under somebody who reads an entry, writes, or has selected something. */
function over() {
  if (ending) return;
  ending = true;
  const notice = byId('notice');
  notice.replaceChildren(el('p', {}, 'The run is over.'), el('button', { type: 'button', id: 'to-run-page', onclick: () => location.reload() }, 'Show the run page'));
  hide(notice, false);
  const wait = () => {
    if (opened !== null || byId('dialog').open || String(getSelection())) setTimeout(wait, AGAIN);
    else location.reload();
  };
  setTimeout(wait, AGAIN);
}

function lost() {
  if (ending || lostAt !== null) return;
  lostAt = new Date().toISOString().slice(11, 19);
  byId('notice').replaceChildren(el('p', {}, `The server does not answer since ${lostAt} UTC: what you see is of then. It is asked again every two seconds; after a restart, open the address that it prints.`));
  hide(byId('notice'), false);
  style(byId('state'), 'chip-state lost');
  put(byId('state'), 'not connected');
}

function listen() {
  const source = new EventSource('events');
  source.onmessage = (event) => {
    newest = event.data;
    if (lostAt !== null) {
      lostAt = null;
      hide(byId('notice'), true);
    }
    if (due) return; // only the newest is shown
    due = true;
    setTimeout(draw);
  };
  source.onerror = () => {
    lost();
    source.close();
    setTimeout(listen, AGAIN);
  };
}

function setTheme(name) {
  theme = name;
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  put(byId('theme'), { auto: '◐', light: '☀', dark: '☾' }[name]);
  byId('theme').setAttribute('aria-label', `Colours: ${name === 'auto' ? 'automatic' : name}`);
  redraw();
}

function redraw() {
  if (drawn) plotRates(byId('rate').clientWidth, drawn.data);
}

byId('theme').onclick = () => setTheme({ auto: 'light', light: 'dark', dark: 'auto' }[theme]);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
NARROW.addEventListener('change', cover);
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && opened !== null && !byId('dialog').open) closeEntry();
});
for (const name of ['state', 'task', 'worker']) byId(`by-${name}`).onchange = (event) => { filter[name] = event.target.value; list(); };
byId('by-cause').onclick = () => { filter.cause = filter.title = ''; filters(NOW); list(); };
byId('search').oninput = later(() => { filter.text = byId('search').value; list(); }, 200);
byId('more').onclick = () => list(true);
listen();
