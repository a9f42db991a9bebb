// The parts of an opened entry, by its details.

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

