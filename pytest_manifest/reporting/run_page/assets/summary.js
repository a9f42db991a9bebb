// The upper part of the page: what came of the run, why, and what to do about it.

function overview() {
  const { run, figures } = DATA;
  const plan = [run.workflow, run.mode].filter(Boolean).join(' › ') || run.manifest;
  byId('title').textContent = plan;
  const began = `${day(run.created)}, ${run.created.slice(11, 19)} UTC`;
  byId('subtitle').replaceChildren(...[plan === run.manifest ? null : run.manifest, el('span', { class: 'mono' }, run.id), began]
    .filter(Boolean).flatMap((item, at) => (at ? [el('span', { class: 'dot', 'aria-hidden': 'true' }, ' · '), item] : [item])));
  headline(figures.outcomes);
  for (const outcome of OUTCOMES) {
    const count = figures.outcomes[outcome] || 0;
    if (!count) continue;
    const slice = el('span', { class: outcome });
    slice.style.flexGrow = count;
    byId('share').append(slice);
  }
  byId('share').hidden = !COUNT;
  const counts = verdictCounts();
  byId('verdicts').hidden = counts.length < 2 && counts.every(([, outcome]) => outcome === 'passed');
  byId('verdicts').replaceChildren(...counts.map(([kind, outcome, count]) => el('li', {},
    el('button', { type: 'button', class: 'plain', title: 'Show these entries', onclick: () => filterKind(kind) }, badge(outcome, kind), ' ', el('b', {}, number(count))))));
  const state = stateOf(run, figures.outcomes.pending || 0);
  byId('state').hidden = !state;
  byId('state').textContent = state;
  facts(run, figures);
  const advice = [...run.remarks, ...figures.advice].map((text) => text.charAt(0).toUpperCase() + text.slice(1));
  byId('advice').replaceChildren(...advice.map((sentence) => el('li', {}, sentence)));
  byId('advice').hidden = !advice.length;
  byId('foot').textContent = `Run ${run.id} of ${run.manifest}, page written ${moment(run.written)} by pytest-celery-manifest. Times are UTC.`;
}

const moment = (text) => `${day(text)}, ${text.slice(11, 19)} UTC`;

function headline(outcomes) {
  const passed = outcomes.passed || 0;
  const all = passed === COUNT && COUNT > 0;
  const sign = all ? 'passed' : worst(outcomes);
  const words = COUNT === 0 ? ['No entry', ' in this run'] : COUNT === 1 && all ? ['1 entry', ' passed']
    : all ? [`All ${number(COUNT)}`, ' passed'] : [number(passed), ` of ${number(COUNT)} passed`];
  byId('verdict').replaceChildren(el('span', { class: `mark ${sign}`, 'aria-hidden': 'true' }, SIGNS[sign]), el('strong', {}, words[0]), words[1]);
}

/** What is to be known of a run that is not over, or has not judged all. */
function stateOf({ status, written }, pending) {
  const known = `This page shows what was known on ${moment(written)}.`;
  const open = pending ? `${many(pending, 'entry has', 'entries have')} no verdict yet.` : '';
  if (status === 'running') return `The run was still going on, or ended without saying so. ${open} ${known}`;
  if (status === 'detached') return `The jobs were sent and left to the workers. ${open} ${known} An audit judges what has arrived since (--manifest-audit).`;
  if (status === 'stopped') return `The run was stopped before its end. ${open} To go on with it: --manifest-resume.`;
  return pending ? `${open} ${known}` : '';
}

const worst = (outcomes) => ['failed', 'error', 'skipped', 'pending'].find((outcome) => outcomes[outcome]) || 'pending';

/** Verdicts with their numbers, as the table counts them: also those that nobody has judged. */
function verdictCounts() {
  const counts = new Map();
  ROWS.kind.forEach((kind, row) => {
    const key = NAMES.kinds[kind];
    const known = counts.get(key) || [key, OUTCOMES[ROWS.outcome[row]], 0];
    known[2] += 1;
    counts.set(key, known);
  });
  return [...counts.values()].sort((one, other) => OUTCOMES.indexOf(one[1]) - OUTCOMES.indexOf(other[1]) || other[2] - one[2]);
}

function facts(run, figures) {
  const spread = (found) => [seconds(found.p50), COUNT > 1 ? `95 % under ${seconds(found.p95)}` : 'of the one entry'];
  const name = COUNT > 1 ? ['Median wait', 'Median run'] : ['Wait', 'Run'];
  const again = [
    ['Reused', Object.values(figures.reused).reduce((sum, count) => sum + count, 0), 'from earlier runs'],
    ['Sent again', figures.further_sendings, 'by the harness'],
    ['Redelivered', figures.redeliveries, 'by the broker'],
    ['Retries', figures.retries, 'by the tasks themselves'],
  ].filter(([, count]) => count).map(([title, count, by]) => [title, number(count), by]);
  const list = [
    figures.duration === null ? null : ['Duration', seconds(figures.duration), figures.parts > 1 ? `${figures.parts} parts, ${seconds(figures.pauses)} between` : 'sending to last end'],
    figures.throughput === null ? null : ['Throughput', rate(figures.throughput), 'jobs that ended'],
    figures.wait ? [name[0], ...spread(figures.wait)] : null,
    figures.runtime ? [name[1], ...spread(figures.runtime)] : null,
    figures.workers.length ? workerFacts(run, figures.workers) : null,
    ...again,
    TREES ? ['Descendants', number(TREES.total), treeCounts(TREES.counts)] : null,
    figures.cost === null ? null : ['Cost', significant(figures.cost), 'as the receipts tell']].filter(Boolean);
  byId('facts').hidden = !list.length;
  byId('facts').replaceChildren(...list.map(([title, value, note]) =>
    el('div', {}, el('dt', {}, title), el('dd', {}, value), el('dd', { class: 'note' }, note))));
}

/** How many workers there were, and their processes: each that has died left its place to another. */
function workerFacts(run, processes) {
  const names = new Set(processes.map((row) => row.worker)).size;
  const more = processes.length > names ? `${many(processes.length, 'process', 'processes')}, ` : '';
  return [names === 1 ? 'Worker' : 'Workers', number(names), `${more}${run.stack} stack`];
}

/** Which entries, why, where and how long: what went wrong, the most frequent first. */
function causes() {
  const found = CAUSES;
  if (!found.length) return;
  const facts = causeFacts();
  const items = found.map((cause, at) => el('li', {},
    el('div', { class: 'cause-head' }, badge(DATA.statuses[cause.kind], cause.kind), words(cause.title) === words(cause.kind) ? null : el('b', {}, cause.title),
      el('span', { class: 'count' }, many(cause.count, 'entry', 'entries'))),
    cause.message && ![cause.title, cause.kind].includes(cause.message) ? el('p', { class: 'wrapped' }, cause.message) : null,
    cause.step ? el('p', { class: 'step' }, el('b', {}, 'Next'), ` ${cause.step}`) : null,
    again(cause.examples[0]),
    el('div', { class: 'cause-foot' }, examples(cause, at), el('span', { class: 'muted' }, whereAndWhen(facts.get(at)), ' ', logLink(rowOf.get(cause.examples[0]))))));
  const shown = found.length <= SHOWN_CAUSES + 1 ? found.length : SHOWN_CAUSES;
  const body = show('causes');
  body.append(el('ol', { class: 'causes' }, items.slice(0, shown)));
  const more = DATA.figures.more_causes;
  if (items.length === shown && !more) return;
  body.append(el('details', {}, el('summary', {}, many(items.length - shown + more, 'further cause')), el('ol', { class: 'causes' }, items.slice(shown)),
    more ? el('p', { class: 'muted' }, `${many(more, 'cause is', 'causes are')} not listed; the table below has their entries.`) : null));
}

const SHOWN_CAUSES = 4;
/** Causes with the first line of their titles, without the verdict before it. */
const CAUSES = DATA.figures.causes.map((cause) => ({ ...cause, title: firstLine(cause.title.startsWith(`${cause.kind}: `) ? cause.title.slice(cause.kind.length + 2) : cause.title, 160) }));

function examples(cause, at) {
  const links = cause.examples.flatMap((id, nth) => (nth ? [', ', entryLink(id)] : [entryLink(id)]));
  const rest = cause.count - cause.examples.length;
  if (!rest) return el('span', {}, links);
  return el('span', {}, links, ' ', el('button', { type: 'button', class: 'text-button', onclick: () => filterCause({ at, ...cause }) }, `and ${number(rest)} more`));
}

/** Of each cause the workers that ran its entries, how long they ran, and when the first ended. */
function causeFacts() {
  const facts = new Map();
  ROWS.cause.forEach((cause, row) => {
    if (cause < 0) return;
    if (!facts.has(cause)) facts.set(cause, { places: new Set(), runs: [], first: Infinity });
    const fact = facts.get(cause);
    const [sent, wait, run] = ['sent', 'wait', 'runtime'].map((name) => (ROWS[name] ? ROWS[name][row] : null));
    if (ROWS.place[row] >= 0 && wait !== null) fact.places.add(ROWS.place[row]); // a job that never began ran nowhere
    if (run !== null) fact.runs.push(run);
    if (sent !== null && wait !== null) fact.first = Math.min(fact.first, sent + wait + (run || 0));
  });
  return facts;
}

function whereAndWhen({ places, runs, first }) {
  const { low, high } = bounds(runs);
  const workers = DATA.figures.workers.length;
  return [
    places.size === 1 ? `on ${NAMES.places[[...places][0]]}` : places.size ? `on ${number(places.size)} of ${many(workers, 'worker process', 'worker processes')}` : null,
    !runs.length ? null : seconds(low) === seconds(high) ? `ran ${seconds(low)}` : `ran ${seconds(low)} to ${seconds(high)}`,
    first === Infinity ? null : `first at ${clock(first)}`,
  ].filter(Boolean).join(' · ');
}

function tasks() {
  const found = DATA.figures.tasks;
  if (!found.length) return;
  const of = (spread, name) => (spread ? seconds(spread[name]) : '');
  const body = show('tasks');
  const most = Math.max(...found.map((row) => row.throughput || 0));
  const any = (name) => found.some((row) => row[name]);
  const times = (title, name) => (any(name) ? ['p50', 'p95', 'max'].map((point, at) =>
    [at ? point : `${title} p50`, (row) => of(row[name], point), true]) : []);
  body.append(plainTable('Tasks', [
    ['Task', (row) => el('span', { class: 'mono' }, row.task)],
    ['Entries', (row) => number(row.count), true],
    ['Passed', (row) => number(row.passed), true],
    ...['failed', 'errors', 'skipped', 'pending'].filter((name) => name === 'failed' || any(name)).map((name) =>
      [name.charAt(0).toUpperCase() + name.slice(1), (row) => zero(row[name], name), true]),
    ...times('Wait', 'wait'), ...times('Run', 'runtime'),
    ...(any('throughput') ? [['Throughput', (row) => rate(row.throughput, most), true]] : []),
  ], found));
  const slowest = DATA.figures.slowest.map((entry) => entry.id).filter((id) => rowOf.has(id));
  if (slowest.length < 2) return;
  body.append(el('p', { class: 'slowest' }, el('b', {}, 'Slowest'), ...slowest.map((id) =>
    el('span', {}, entryLink(id), ' ', el('span', { class: 'muted' }, seconds(ROWS.runtime ? ROWS.runtime[rowOf.get(id)] : null))))));
}

const zero = (count, name) => (count ? el('b', { class: `text ${name}` }, number(count)) : el('span', { class: 'muted' }, '0'));

function workers() {
  const found = DATA.figures.workers;
  if (!found.length) return;
  const most = Math.max(...found.map((row) => row.share), 0.0001);
  const hosts = new Set(found.map((row) => row.host));
  const known = hosts.size === 1 && found.every((row) => !row.host || row.worker.includes(row.host));
  const table = plainTable('Workers', [
    ['Worker', (row) => el('span', { class: 'mono' }, processName(row))],
    ...(known ? [] : [['Host', (row) => row.host || '']]),
    ['Jobs', (row) => number(row.jobs), true],
    ['Busy', (row) => seconds(row.busy), true],
    ['Share of the work', (row) => {
      const bar = el('span', { class: 'meter' }, el('span', {}));
      bar.firstChild.style.width = `${(100 * row.share) / most}%`;
      return el('span', { class: 'metered' }, bar, el('span', { class: 'percent' }, `${(row.share * 100).toFixed(1)} %`));
    }],
  ], found);
  show('workers').append(found.length > 24 ? el('details', {}, el('summary', {}, many(found.length, 'worker process', 'worker processes')), table) : table);
}

/** The lists of the comparison: title, what is in it, its rows as cells, whether it is open. */
function changeLists(found) {
  const verdict = (change) => [entryLink(change.id), `${change.before ? words(change.before) : 'not there'} → ${change.after ? words(change.after) : 'pending'}`,
    change.after === 'passed' ? '' : firstLine(change.sentence, 240)];
  const times = (change) => [el('span', { class: 'mono' }, change.task), `${seconds(change.before)} → ${seconds(change.after)}`,
    [el('b', {}, `×${three(change.ratio)}`), el('span', { class: 'muted' }, ` median of ${change.same ? '' : `${number(change.samples_before)} and `}${many(change.samples_after, 'entry', 'entries')}`)]];
  const link = (id) => [entryLink(typeof id === 'string' ? id : id.id)];
  return [
    ['Newly failing', found.newly_failing, verdict, 'failed'], ['Fixed', found.fixed, verdict, 'passed'],
    ['Still failing', found.still_failing, verdict], ['Slower', found.slower, times, 'error'],
    ['Faster', found.faster, times], ['Other results', found.changed_results, link],
    ['Added', found.added, link], ['Removed', found.removed, link],
  ].filter(([, list]) => list.count);
}

function comparison() {
  const found = DATA.comparison;
  if (!found) return;
  const body = show('comparison');
  const lists = changeLists(found);
  const { before, after } = found;
  const difference = after.passed - before.passed;
  const cost = before.cost !== after.cost ? `; cost ${[before.cost, after.cost].map((value) => (value === null ? 'not told' : significant(value))).join(' → ')}` : '';
  byId('comparison').querySelector('h2').replaceChildren('Since run ', el('span', { class: 'mono' }, before.run));
  body.append(el('p', {}, `${number(before.passed)} of ${number(before.entries)} passed then, ${number(after.passed)} of ${number(after.entries)} now`,
    difference ? ` (${difference > 0 ? '+' : '−'}${number(Math.abs(difference))})` : '', cost, '.'));
  if (!lists.length) {
    body.append(el('p', { class: 'muted' }, 'Nothing has changed that counts.'));
    return;
  }
  body.append(el('div', { class: 'changes' }, lists.map(([title, list, cells, open]) => el('details', { open: Boolean(open) && list.count <= 20 },
    el('summary', {}, title, ' ', el('b', { class: open ? `text ${open}` : null }, number(list.count))),
    cells(list.items[0]).length === 1
      ? el('p', { class: 'some' }, list.items.map((item) => el('span', {}, cells(item))))
      : el('table', { class: 'plain-table' }, el('tbody', {}, list.items.map((item) => el('tr', {}, cells(item).map((cell) => el('td', {}, cell)))))),
    list.count > list.items.length ? el('p', { class: 'muted' }, `and ${number(list.count - list.items.length)} more`) : null))));
  headlineChanges(found);
}

/** The changes in a few words, below the verdicts. */
function headlineChanges(found) {
  const told = [[found.newly_failing.count, 'newly failing'], [found.still_failing.count, 'still failing'], [found.fixed.count, 'fixed'], [found.slower.count, found.slower.count === 1 ? 'task slower' : 'tasks slower']]
    .filter(([count]) => count).map(([count, what]) => `${number(count)} ${what}`).join(', ');
  byId('since').hidden = false;
  byId('since').append(el('a', { href: '#comparison' }, told || 'no entry changed its verdict'), ` since run ${found.before.run}`);
}


/** The sections that projects add: titles, texts and tables, and nothing that is markup. */
function added() {
  byId('added').hidden = !DATA.sections.length;
  byId('added').append(...DATA.sections.map((section, at) => el('section', { id: `added-${at + 1}` },
    el('h2', {}, section.title),
    section.text ? el('p', { class: 'wrapped' }, section.text) : null,
    section.rows.length ? addedTable(section) : null,
    section.more ? el('p', { class: 'muted' }, `and ${many(section.more, 'more row', 'more rows')}`) : null)));
}

function addedTable(section) {
  const figures = section.columns.map((_, at) => section.rows.every((row) => row[at] === null || typeof row[at] === 'number'));
  const cell = (value, at) => {
    if (value === null) return '';
    if (at === section.entries) return entryLink(String(value));
    return typeof value === 'number' ? number(value) : el('span', { class: 'wrapped' }, value);
  };
  return plainTable(section.title, section.columns.map((title, at) => [title, (row) => cell(row[at], at), figures[at]]), section.rows);
}
