// The table of all entries: virtual, by Tabulator; what it filters and sorts are numbers of rows.

let table = null;
const SHORT_PLACES = fitted(NAMES.places, 12, (name) => name.length);
let current = -1;
let order = null;
const filter = { text: '', words: [], task: -1, kinds: new Set(), cause: null, zoom: null, rows: null };
const TALL = 620;

/** What went wrong first, and within that as the manifest has them. */
const DEFAULT_ORDER = ROWS.id.map((_, row) => row).sort((one, other) => RANK[ROWS.outcome[one]] - RANK[ROWS.outcome[other]] || one - other);

function haystack(row) {
  const parts = [ROWS.id[row], NAMES.tasks[ROWS.task[row]], words(NAMES.kinds[ROWS.kind[row]])];
  for (const [name, column] of [['places', 'place'], ['reasons', 'reason'], ['tags', 'tags']]) {
    if (ROWS[column][row] >= 0) parts.push(NAMES[name][ROWS[column][row]]);
  }
  return parts.join('\n').toLowerCase();
}

function entries() {
  const hay = [];
  const data = DEFAULT_ORDER.map((row) => ({
    row,
    line: ROWS.line[row],
    id: row,
    task: NAMES.tasks[ROWS.task[row]],
    outcome: RANK[ROWS.outcome[row]],
    kind: NAMES.kinds[ROWS.kind[row]],
    place: ROWS.place[row] < 0 ? '' : NAMES.places[ROWS.place[row]],
    reason: ROWS.reason[row] < 0 ? '' : NAMES.reasons[ROWS.reason[row]],
    tries: ROWS.tries[row],
    sent: ROWS.sent ? ROWS.sent[row] : null,
    wait: ROWS.wait ? ROWS.wait[row] : null,
    runtime: ROWS.runtime ? ROWS.runtime[row] : null,
    cost: ROWS.cost ? ROWS.cost[row] : null,
  }));
  table = new Tabulator('#table', {
    data, index: 'row', columns: columns(), height: Math.min(TALL, 46 + Math.max(2, COUNT) * 34),
    layout: 'fitColumns', responsiveLayout: 'hide', keybindings: false, columnHeaderSortMulti: false,
    headerSortElement: sortSign, rowFormatter: mark, placeholder: COUNT ? 'No entry is like that.' : 'There are no entries.',
    columnDefaults: { headerHozAlign: 'left', resizable: false, headerSortTristate: true },
  });
  table.on('rowClick', (_, row) => openEntry(row.getData().row));
  table.on('dataFiltered', (_, rows) => {
    order = null;
    byId('shown').textContent = rows.length === COUNT ? many(COUNT, 'entry', 'entries') : `${number(rows.length)} of ${many(COUNT, 'entry', 'entries')}`;
  });
  table.on('dataSorted', () => { order = null; });
  table.on('tableBuilt', () => {
    const holder = document.querySelector('#table .tabulator-tableholder');
    // What can be focused within a grid must be a part of it; its rows are then the holder's.
    holder.setAttribute('role', 'rowgroup');
    holder.querySelector('.tabulator-table').setAttribute('role', 'presentation');
    byId('table').removeAttribute('aria-owns');
    byId('table').setAttribute('aria-label', 'Entries');
    holder.addEventListener('keydown', tableKey);
    byId('table').dataset.ready = 'yes';
    arrive();
  });
  table.filterRow = ({ row, kind }) => {
    if (filter.kinds.size && !filter.kinds.has(kind)) return false;
    if (filter.cause && ROWS.cause[row] !== filter.cause.at) return false;
    if (filter.task >= 0 && ROWS.task[row] !== filter.task) return false;
    if (filter.rows && !filter.rows.has(row)) return false;
    if (!filter.text) return true;
    hay[row] ??= haystack(row);
    return filter.words.every((word) => hay[row].includes(word) || treeTexts?.get(row)?.includes(word));
  };
  filters();
}

function columns() {
  const text = (value) => el('span', { class: 'mono', title: value }, value);
  const reason = (cell) => el('span', { title: cell.getValue() || null }, cell.getValue());
  const place = (cell) => {
    const at = ROWS.place[cell.getData().row];
    return el('span', { class: 'mono', title: cell.getValue() || null }, at < 0 ? '' : SHORT_PLACES[at]);
  };
  const time = (cell) => seconds(cell.getValue());
  const phone = NARROW_SCREEN.matches; // which has room for the reason, and for little else
  const verdict = 62 + Math.ceil(1.1 * Math.max(...NAMES.kinds.map((kind) => textWidth(words(kind))), 30));
  const list = [
    { title: 'Verdict', field: 'outcome', width: verdict, responsive: 0, formatter: (cell) => badge(OUTCOMES[RANK.indexOf(cell.getValue())], cell.getData().kind) },
    { title: 'Entry', field: 'id', minWidth: phone ? 92 : 130, widthGrow: 2.4, responsive: 0, formatter: (cell) => text(ROWS.id[cell.getValue()]), sorter: (one, other) => placeOf(one) - placeOf(other) },
    { title: 'Why', field: 'reason', minWidth: phone ? 120 : 240, widthGrow: 5, responsive: phone ? 0 : 2, formatter: reason },
    { title: 'Task', field: 'task', minWidth: 110, widthGrow: 1.6, responsive: 4, formatter: (cell) => text(cell.getValue()) },
    { title: 'Worker', field: 'place', width: 112, responsive: 5, formatter: place },
    { title: 'Sent', field: 'sent', width: 88, responsive: 6, hozAlign: 'right', formatter: (cell) => clock(cell.getValue()).split(', ').at(-1) },
    { title: 'Wait', field: 'wait', width: 78, responsive: 3, hozAlign: 'right', formatter: time },
    { title: 'Run', field: 'runtime', width: 78, responsive: 1, hozAlign: 'right', formatter: time },
    { title: 'Tries', field: 'tries', width: 60, responsive: 8, hozAlign: 'right' },
    { title: 'Cost', field: 'cost', width: 66, responsive: 7, hozAlign: 'right', formatter: (cell) => (cell.getValue() === null ? '' : significant(cell.getValue())) },
    { title: 'Line', field: 'line', width: 60, responsive: 9, hozAlign: 'right', formatter: (cell) => el('span', { class: 'muted' }, number(cell.getValue())) },
  ];
  const empty = new Set(['sent', 'wait', 'runtime', 'cost'].filter((name) => !ROWS[name]));
  if (!ROWS.tries.some((tries) => tries > 1)) empty.add('tries');
  if (!NAMES.reasons.length) empty.add('reason');
  if (NAMES.places.length < 2) empty.add('place'); // the header names it
  return list.filter(({ field }) => !empty.has(field))
    .map((column) => ({ sorter: column.hozAlign ? missingLast : undefined, titleFormatter: heading, headerHozAlign: column.hozAlign, ...column, variableHeight: false }));
}

/** A text by which others are sorted as people do: item-9 before item-10. */
const sortKey = (text) => text.toLowerCase().replace(/\d+/g, (digits) => digits.padStart(16, '0'));

const natural = (one, other) => (one < other ? -1 : Number(one > other));

let places = null;

/** Where a row's id stands among all ids, worked out when it is first asked for. */
function placeOf(row) {
  if (!places) {
    const keys = ROWS.id.map(sortKey);
    const sorted = ROWS.id.map((_, at) => at).sort((one, other) => natural(keys[one], keys[other]));
    places = new Int32Array(COUNT);
    sorted.forEach((at, place) => { places[at] = place; });
  }
  return places[row];
}

/** What is not known stands last, whichever way is sorted. */
function missingLast(one, other, _a, _b, _column, direction) {
  const end = direction === 'asc' ? 1 : -1;
  if (one === null || other === null) return one === other ? 0 : one === null ? end : -end;
  return one - other;
}

/** A heading is a button, for those who come by keyboard. */
const heading = (cell) => el('button', { type: 'button', class: 'sorter' }, cell.getValue());

const sortSign = (_, direction) => ({ asc: '▲', desc: '▼' })[direction] || '';

function mark(row) {
  const element = row.getElement();
  const on = row.getData().row === current;
  element.classList.toggle('current', on);
  element.setAttribute('aria-selected', String(on));
}

function filters() {
  const select = byId('task');
  select.append(el('option', { value: '-1' }, 'All tasks'), ...NAMES.tasks.map((task, at) => el('option', { value: String(at) }, task)));
  select.hidden = NAMES.tasks.length < 2;
  select.onchange = () => { filter.task = Number(select.value); applyFilter(); };
  byId('search').addEventListener('input', later(() => {
    filter.text = byId('search').value.trim().toLowerCase();
    applyFilter();
  }, 90));
  byId('clear').onclick = clearFilter;
  byId('cause').onclick = () => { filter.cause = null; applyFilter(); byId('search').focus(); };
  byId('zoomed').onclick = () => { zoomOut(); filter.zoom = null; applyFilter(); byId('search').focus(); };
  const counts = verdictCounts();
  byId('kinds').replaceChildren(...counts.map(([kind, outcome, count]) => el('button', {
    type: 'button', class: 'chip', 'aria-pressed': 'false', 'data-kind': kind, onclick: () => toggleKind(kind),
  }, badge(outcome, kind), ' ', el('span', { class: 'chip-count' }, number(count)))));
  byId('kinds').hidden = counts.length < 2;
}

function toggleKind(kind) {
  if (!filter.kinds.delete(kind)) filter.kinds.add(kind);
  applyFilter();
}

/** Nothing but what is asked for, from elsewhere in the page. */
function filterAnew(change) {
  resetFilter();
  change();
  applyFilter();
  byId('entries').scrollIntoView({ behavior: calm() ? 'auto' : 'smooth' });
  focusTable();
}

const filterKind = (kind) => filterAnew(() => filter.kinds.add(kind));

const filterCause = (cause) => filterAnew(() => { filter.cause = cause; });

const searchFor = (text) => filterAnew(() => {
  byId('search').value = text;
  filter.text = text.toLowerCase();
});

const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

function resetFilter() {
  filter.text = '';
  filter.task = -1;
  filter.cause = null;
  if (filter.zoom) zoomOut();
  filter.zoom = null;
  filter.kinds.clear();
  byId('search').value = '';
  byId('task').value = '-1';
}

function clearFilter() {
  resetFilter();
  applyFilter();
  byId('search').focus();
}

function applyFilter() {
  for (const chip of byId('kinds').children) chip.setAttribute('aria-pressed', String(filter.kinds.has(chip.dataset.kind)));
  filter.words = filter.text.split(/\s+/);
  if (filter.text) readTreeTexts();
  const some = Boolean(filter.text || filter.kinds.size || filter.task >= 0 || filter.cause || filter.zoom);
  filter.rows = filter.zoom ? zoomRows() : null;
  byId('zoomed').hidden = !filter.zoom;
  byId('cause').hidden = !filter.cause;
  byId('cause').replaceChildren(...(filter.cause ? [badge(filter.cause.outcome, filter.cause.title), ' ', el('span', { class: 'muted' }, '✕')] : []));
  byId('clear').hidden = !some;
  if (some) table.setFilter(table.filterRow);
  else table.clearFilter();
  writeAddress();
}

/** Rows as they stand in the table now. */
function shownRows() {
  order ??= table.getRows('active').map((row) => row.getData().row);
  return order;
}

function positionOf(row) {
  const shown = shownRows();
  const at = shown.indexOf(row);
  if (at < 0) return { before: null, after: shown.length ? shown[0] : null, text: 'not in the filter' };
  return { before: shown[at - 1] ?? null, after: shown[at + 1] ?? null, text: `${number(at + 1)} of ${number(shown.length)}` };
}

function markRow(row) {
  const before = current;
  current = row;
  for (const number of [before, row]) {
    const component = number < 0 ? null : table.getRow(number);
    if (component) mark(component);
  }
  const component = table.getRow(row);
  if (component && shownRows().includes(row)) table.scrollToRow(row, 'nearest', false).then(() => mark(component), () => {});
}

function moveBy(steps) {
  const shown = shownRows();
  if (!shown.length) return;
  const at = shown.indexOf(current);
  const next = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + steps));
  if (opened >= 0) openEntry(shown[next]);
  else {
    markRow(shown[next]);
    byId('said').textContent = `${ROWS.id[shown[next]]}, ${words(NAMES.kinds[ROWS.kind[shown[next]]])}`;
  }
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, Home: -Infinity, End: Infinity };

function tableKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key in STEPS) moveBy(STEPS[event.key]);
  else if (event.key === 'Enter' && current >= 0) openEntry(current);
  else return;
  event.preventDefault();
}

function focusTable() {
  document.querySelector('#table .tabulator-tableholder')?.focus({ preventScroll: true });
}

function sayMissing(id) {
  closeEntry();
  const notice = byId('notice');
  notice.replaceChildren(
    el('p', {}, 'This page has no entry ', el('b', { class: 'mono' }, `'${id.length > 200 ? `${id.slice(0, 200)}…` : id}'`), '. It may be of another run, or have been left out of this one.'),
    el('button', { type: 'button', onclick: () => { notice.hidden = true; searchFor(id); } }, 'Look for it'),
    el('button', { type: 'button', class: 'quiet', 'aria-label': 'Close this notice', onclick: () => { notice.hidden = true; } }, '✕'));
  notice.hidden = false;
  notice.scrollIntoView({ block: 'center' });
}
