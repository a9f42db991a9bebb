// One entry, opened: unpacked from its block when it is asked for.

const unpacked = new Map();
let opened = -1;
let cameFrom = null;

/** The details of an entry: its block is kept, as the next one asked for is mostly beside it. */
async function detailsOf(row) {
  const number = Math.floor(row / DATA.details.size);
  if (!unpacked.has(number)) {
    if (unpacked.size > 8) unpacked.clear();
    unpacked.set(number, unpack(byId(`details-${number}`).textContent));
  }
  return (await unpacked.get(number))[row % DATA.details.size];
}

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return JSON.parse(await new Response(stream).text());
}

/** Open an entry; ``wanted``: the task id of a descendant of it that is to be seen. */
async function openEntry(row, wanted) {
  if (opened < 0) cameFrom = document.activeElement;
  opened = row;
  let found = {};
  let problem = null;
  try {
    found = { ...await detailsOf(row), trees: await treesOf(row) };
  } catch (error) {
    problem = `This browser cannot unpack the details (${error}); a newer one can.`;
  }
  if (opened !== row) return;
  const panel = byId('details');
  panel.replaceChildren(...panelOf(row, found, problem));
  panel.hidden = false;
  panel.scrollTop = 0;
  panel.focus({ preventScroll: true });
  document.body.classList.add('open');
  coverAll();
  writeAddress();
  markRow(row);
  if (wanted) revealTask(wanted);
}

function closeEntry() {
  if (opened < 0) return;
  const row = opened;
  opened = -1;
  byId('details').hidden = true;
  document.body.classList.remove('open');
  coverAll();
  writeAddress();
  if (cameFrom && cameFrom.isConnected && cameFrom !== document.body) cameFrom.focus({ preventScroll: true });
  else focusTable();
  markRow(row);
}

/** On a narrow screen an entry covers all else, which can then not be reached. */
function coverAll() {
  const covers = opened >= 0 && NARROW_SCREEN.matches;
  for (const part of document.querySelectorAll('.skip, .top, main, footer')) part.inert = covers;
  byId('details').setAttribute('aria-modal', String(covers));
}

const NARROW_SCREEN = matchMedia('(max-width: 640px)');
NARROW_SCREEN.addEventListener('change', coverAll);

function panelOf(row, found, problem) {
  const id = ROWS.id[row];
  const outcome = OUTCOMES[ROWS.outcome[row]];
  const position = positionOf(row);
  const bar = el('div', { class: 'panel-bar' },
    el('button', { type: 'button', class: 'quiet', 'aria-label': 'Previous entry', disabled: position.before === null, onclick: () => openEntry(position.before) }, '↑'),
    el('button', { type: 'button', class: 'quiet', 'aria-label': 'Next entry', disabled: position.after === null, onclick: () => openEntry(position.after) }, '↓'),
    el('span', { class: 'muted' }, position.text),
    el('a', { class: 'quiet link', href: entryHash(id) }, 'Link'),
    el('button', { type: 'button', class: 'quiet', 'aria-label': 'Close', onclick: closeEntry }, '✕'));
  const head = el('div', {},
    el('h2', { id: 'details-title', class: 'mono' }, id),
    el('p', { class: 'panel-line' }, badge(outcome, NAMES.kinds[ROWS.kind[row]]), el('span', { class: 'mono' }, NAMES.tasks[ROWS.task[row]])),
    ROWS.tags[row] < 0 ? null : el('p', { class: 'tags' }, NAMES.tags[ROWS.tags[row]].split('\n').map((tag) => el('span', {}, tag))),
    el('p', { class: 'muted notes' }, whereAndHowLong(row).map((text) => el('span', {}, text))),
    problem ? el('p', { class: 'notice' }, problem) : null,
    found.sentence ? el('p', { class: `sentence ${outcome}` }, found.sentence) : null,
    again(id), logLink(row));
  const left = found.left_out || {};
  return [bar, head, ...[
    mismatches(found),
    errorPart(found, left),
    block('Log', found.log, left.log, found.dropped ? `${many(found.dropped, 'earlier line')} not kept` : null),
    attempts(found),
    ...trees(found),
    sideBySide(found, left),
    block('Arguments', found.args, left.args),
    block('Keyword arguments', found.kwargs, left.kwargs),
    found.expected && found.actual ? null : block('Result', found.result, left.result),
    block('Evidence', found.evidence, left.evidence),
    block('Meta', found.meta, left.meta),
    receiptFacts(found),
  ].filter(Boolean)];
}

/** Where and when it ran, and how long; from the table, which knows the last attempt. */
function whereAndHowLong(row) {
  const [sent, wait, run, cost] = ['sent', 'wait', 'runtime', 'cost'].map((name) => (ROWS[name] ? ROWS[name][row] : null));
  return [
    ROWS.place[row] < 0 ? null : NAMES.places[ROWS.place[row]],
    sent === null ? 'not sent' : `sent ${clock(sent)} UTC`,
    wait === null ? null : `waited ${seconds(wait)}`,
    run === null ? null : `ran ${seconds(run)}`,
    ROWS.tries[row] > 1 ? `${number(ROWS.tries[row])} attempts` : null,
    cost === null ? null : `cost ${significant(cost)}`,
  ].filter(Boolean);
}

function part(title, ...children) {
  return el('section', {}, el('h3', {}, title), ...children);
}

/** A text as it is, with a note on what was left out of the page. */
function block(title, text, leftOut, note) {
  if (text === undefined || text === null) return null;
  return part(title, note ? el('p', { class: 'muted' }, note) : null, pre(title, text), cutNote(leftOut));
}

function pre(title, text, lines) {
  return el('pre', { class: lines || null, tabindex: '0', role: 'group', 'aria-label': title }, text);
}

function cutNote(leftOut) {
  return leftOut ? el('p', { class: 'muted' }, `Shortened: ${many(leftOut, 'more character')}. The whole is in the run's receipts.`) : null;
}

function mismatches(found) {
  if (!found.mismatches) return null;
  const rows = found.mismatches.map(([path, expected, actual]) => el('tr', {},
    el('th', { scope: 'row', class: 'mono' }, path),
    el('td', { class: 'mono expected', 'data-title': 'expected' }, expected),
    el('td', { class: 'mono actual', 'data-title': 'actual' }, actual)));
  const head = el('tr', {}, ['Where', 'Expected', 'Actual'].map((title) => el('th', { scope: 'col' }, title)));
  const more = found.more_mismatches ? el('p', { class: 'muted' }, `and ${many(found.more_mismatches, 'more')}`) : null;
  return part('Differences', el('table', { class: 'differences' }, el('thead', {}, head), el('tbody', {}, rows)), more);
}

function sideBySide(found, left) {
  if (!found.expected || !found.actual) return block('Expected', found.expected, left.expected);
  const column = (title, text, leftOut) => el('div', {}, el('h4', {}, title), pre(title, text), cutNote(leftOut));
  return part('Expected and actual', el('div', { class: 'sides' },
    column('Expected', found.expected, left.expected), column('Actual', found.actual, left.actual)));
}

function errorPart(found, left) {
  const error = found.error;
  if (!error) return null;
  return part('Error',
    el('p', {}, el('b', { class: 'mono' }, error.type), error.place ? el('span', { class: 'muted' }, ` at ${error.place}`) : null),
    error.message ? el('p', { class: 'mono wrapped' }, error.message) : null,
    cutNote(left.error),
    error.traceback ? pre('Traceback', error.traceback, 'lines') : null,
    cutNote(left.traceback));
}

function attempts(found) {
  if (!found.attempts || !found.attempts.length) return null;
  return part(found.attempts.length === 1 ? 'Steps' : 'Attempts', ...found.attempts.map((attempt) => oneAttempt(attempt, found.attempts.length > 1)));
}

function oneAttempt(attempt, numbered) {
  const steps = [['sent', attempt.sent], ['received', attempt.received], ['started', attempt.started], ['finished', attempt.finished]]
    .filter(([, moment]) => moment !== undefined);
  let before = null;
  const line = steps.map(([name, moment]) => {
    const pause = before === null ? clock(moment, 3) : `+${seconds(Math.max(0, moment - before))}`;
    before = moment;
    return el('li', { title: `${clock(moment, 3)} UTC` }, el('span', { class: 'muted' }, name), el('b', {}, pause));
  });
  const notes = [
    attempt.place, attempt.host, attempt.reason,
    attempt.retries ? `${many(attempt.retries, 'retry', 'retries')} by the task` : null,
    attempt.executions ? `ran ${attempt.executions} times` : null,
    attempt.redelivered ? 'delivered again' : null,
    attempt.cost === undefined ? null : `cost ${significant(attempt.cost)}`,
    attempt.task_id,
  ].filter(Boolean);
  return el('div', { class: 'attempt' },
    numbered ? el('p', { class: 'panel-line' }, el('b', {}, `Attempt ${attempt.number}`), badge(attempt.outcome, attempt.kind)) : null,
    el('ol', { class: 'steps' }, line),
    numbered && attempt.sentence ? el('p', {}, attempt.sentence) : null,
    el('p', { class: 'muted notes' }, notes.map((note) => el('span', {}, note))));
}

function receiptFacts(found) {
  if (!found.facts) return null;
  const pairs = found.facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value)));
  return part('Entry and receipt', el('dl', { class: 'pairs' }, pairs));
}

