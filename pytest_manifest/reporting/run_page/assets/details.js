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

