// The upper part of the page: what came of the run, why, and what to do about it.

function overview() {
  const { run, figures } = DATA;
  const plan = [run.workflow, run.mode].filter(Boolean).join(' › ') || run.manifest;
  byId('title').textContent = plan;
  const began = `${day(run.created)}, ${run.created.slice(11, 19)} UTC`;
  byId('subtitle').replaceChildren(...[plan === run.manifest ? null : run.manifest, el('span', { class: 'mono' }, run.id), began]
    .filter(Boolean).flatMap((item, at) => (at ? [el('span', { class: 'dot', 'aria-hidden': 'true' }, ' · '), item] : [item])));
  const passed = figures.outcomes.passed || 0;
  const all = passed === COUNT && COUNT > 0;
  byId('verdict').replaceChildren(
    el('span', { class: `mark ${all ? 'passed' : worst(figures.outcomes)}`, 'aria-hidden': 'true' }, all ? SIGNS.passed : SIGNS[worst(figures.outcomes)]),
    el('strong', {}, all ? `All ${number(COUNT)}` : number(passed)),
    all ? ' passed' : ` of ${number(COUNT)} passed`);
  for (const outcome of OUTCOMES) {
    const count = figures.outcomes[outcome] || 0;
    if (!count) continue;
    const slice = el('span', { class: outcome });
    slice.style.flexGrow = count;
    byId('share').append(slice);
  }
  byId('verdicts').replaceChildren(...verdictCounts().map(([kind, outcome, count]) => el('li', {},
    el('button', { type: 'button', class: 'plain', onclick: () => filterKind(kind) }, badge(outcome, kind), ' ', el('b', {}, number(count))))));
  facts(run, figures);
  const advice = [...figures.advice.map((text) => text.charAt(0).toUpperCase() + text.slice(1)), ...run.remarks];
  if (run.status !== 'finished') advice.unshift(`This run is ${words(run.status)}: the page shows what was known of it when it was written.`);
  byId('advice').replaceChildren(...advice.map((sentence) => el('p', { class: 'advice' }, sentence)));
  byId('foot').textContent = `Run ${run.id} of ${run.manifest}, written by pytest-celery-manifest. Times are UTC.`;
}

const worst = (outcomes) => ['failed', 'error', 'pending', 'skipped'].find((outcome) => outcomes[outcome]) || 'pending';

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
  const spread = (found) => [seconds(found.p50), `95 % under ${seconds(found.p95)}`];
  const again = [
    ['Sent again', figures.attempts, 'by the harness'],
    ['Redelivered', figures.redeliveries, 'by the broker'],
    ['Retries', figures.retries, 'by the tasks themselves'],
  ].filter(([, count]) => count).map(([name, count, by]) => [name, number(count), by]);
  const list = [
    figures.duration === null ? null : ['Duration', seconds(figures.duration), figures.parts > 1 ? `${figures.parts} parts, ${seconds(figures.pauses)} between` : 'sending to last end'],
    figures.throughput === null ? null : ['Throughput', `${significant(figures.throughput)} / s`, 'jobs that ended'],
    figures.wait ? ['Median wait', ...spread(figures.wait)] : null,
    figures.runtime ? ['Median run', ...spread(figures.runtime)] : null,
    figures.workers.length ? ['Workers', number(figures.workers.length), `${run.stack} stack`] : null,
    ...again,
    figures.cost === null ? null : ['Cost', significant(figures.cost), 'as the receipts tell']];
  byId('facts').hidden = !list.some(Boolean);
  byId('facts').replaceChildren(...list.filter(Boolean).map(([name, value, note]) =>
    el('div', {}, el('dt', {}, name), el('dd', {}, value), el('dd', { class: 'note' }, note))));
}

function causes() {
  const found = DATA.figures.causes;
  if (!found.length) return;
  const items = found.map((cause) => el('li', {},
    el('div', { class: 'cause-head' }, badge(cause.outcome, cause.kind), words(cause.title) === words(cause.kind) ? null : el('b', {}, cause.title),
      el('span', { class: 'count' }, many(cause.count, 'entry', 'entries'))),
    cause.message && cause.message !== cause.title ? el('p', { class: 'wrapped' }, cause.message) : null,
    el('p', { class: 'examples muted' }, cause.count > cause.examples.length ? 'like ' : '',
      cause.examples.flatMap((id, at) => (at ? [', ', entryLink(id)] : [entryLink(id)])))));
  const shown = 5;
  const rest = items.slice(shown);
  const body = show('causes');
  body.append(el('ol', { class: 'causes' }, items.slice(0, shown)));
  if (rest.length) body.append(el('details', {}, el('summary', {}, many(rest.length + DATA.figures.more_causes, 'further cause')), el('ol', { class: 'causes' }, rest)));
}

function tasks() {
  const found = DATA.figures.tasks;
  if (!found.length) return;
  const of = (spread, name) => (spread ? seconds(spread[name]) : '');
  const body = show('tasks');
  body.append(plainTable('Tasks', [
    ['Task', (row) => el('span', { class: 'mono' }, row.task)],
    ['Entries', (row) => number(row.count), true],
    ['Passed', (row) => number(row.passed), true],
    ['Failed', (row) => zero(row.failed, 'failed'), true],
    ['Errors', (row) => zero(row.errors, 'error'), true],
    ['Wait p50', (row) => of(row.wait, 'p50'), true],
    ['p95', (row) => of(row.wait, 'p95'), true],
    ['max', (row) => of(row.wait, 'max'), true],
    ['Run p50', (row) => of(row.runtime, 'p50'), true],
    ['p95', (row) => of(row.runtime, 'p95'), true],
    ['max', (row) => of(row.runtime, 'max'), true],
    ['Per second', (row) => (row.throughput === null ? '' : significant(row.throughput)), true],
  ], found));
  const slowest = DATA.figures.slowest.filter((id) => rowOf.has(id));
  if (!slowest.length) return;
  body.append(el('p', { class: 'slowest' }, el('b', {}, 'Slowest'), ' ', slowest.flatMap((id, at) =>
    [at ? ', ' : '', entryLink(id), ' ', el('span', { class: 'muted' }, seconds(ROWS.runtime ? ROWS.runtime[rowOf.get(id)] : null))])));
}

const zero = (count, outcome) => (count ? el('b', { class: `text ${outcome}` }, number(count)) : el('span', { class: 'muted' }, '0'));

function workers() {
  const found = DATA.figures.workers;
  if (!found.length) return;
  const most = Math.max(...found.map((row) => row.share), 0.0001);
  const table = plainTable('Workers', [
    ['Worker', (row) => el('span', { class: 'mono' }, row.place)],
    ['Host', (row) => row.host || ''],
    ['Jobs', (row) => number(row.jobs), true],
    ['Busy', (row) => seconds(row.busy), true],
    ['Share of the work', (row) => {
      const bar = el('span', { class: 'meter' }, el('span', {}));
      bar.firstChild.style.width = `${(100 * row.share) / most}%`;
      return el('span', { class: 'metered' }, bar, ` ${number(Math.round(row.share * 1000) / 10)} %`);
    }],
  ], found);
  show('workers').append(found.length > 24 ? el('details', {}, el('summary', {}, many(found.length, 'worker process', 'worker processes')), table) : table);
}

function comparison() {
  const found = DATA.comparison;
  if (!found) return;
  const body = show('comparison');
  const entry = (change) => el('li', {}, entryLink(change.id), ' ',
    el('span', { class: 'muted' }, [change.before ? `${words(change.before)} → ` : 'new: ', words(change.after || 'gone')].join('')),
    change.sentence && change.after !== 'passed' ? el('span', {}, ` ${change.sentence}`) : null);
  const times = (change) => el('li', {}, el('span', { class: 'mono' }, change.task), ` ${seconds(change.before)} → ${seconds(change.after)} `,
    el('b', {}, `×${significant(change.ratio)}`), el('span', { class: 'muted' }, ` median of ${many(change.samples[1], 'run')}`));
  const link = (id) => el('li', {}, entryLink(typeof id === 'string' ? id : id.id));
  const lists = [
    ['Newly failing', found.newly_failing, entry, true], ['Fixed', found.fixed, entry, true],
    ['Still failing', found.still_failing, entry], ['Slower', counted(found.slower), times, true],
    ['Faster', counted(found.faster), times], ['Other results', found.changed_results, link],
    ['Added', found.added, link], ['Removed', found.removed, link],
  ].filter(([, list]) => list.count);
  const difference = found.passed[1] - found.passed[0];
  body.append(el('p', {}, 'Held against run ', el('span', { class: 'mono' }, found.before), `: ${number(found.passed[0])} of ${number(found.entries[0])} passed then, ${number(found.passed[1])} of ${number(found.entries[1])} now`,
    difference ? ` (${difference > 0 ? '+' : ''}${number(difference)})` : '',
    found.cost[0] !== null && found.cost[1] !== null ? `; cost ${significant(found.cost[0])} then, ${significant(found.cost[1])} now.` : '.'));
  body.append(lists.length ? el('div', { class: 'changes' }, lists.map(([title, list, item, open]) => el('details', { open: open && list.count <= 20 },
    el('summary', {}, title, ' ', el('b', {}, number(list.count))),
    el('ul', {}, list.items.map(item)),
    list.count > list.items.length ? el('p', { class: 'muted' }, `and ${number(list.count - list.items.length)} more`) : null))) : el('p', { class: 'muted' }, 'Nothing has changed.'));
}

const counted = (items) => ({ count: items.length, items });

