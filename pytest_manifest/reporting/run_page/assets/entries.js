// The table of all entries: virtual, by Tabulator; what it filters and sorts are numbers of rows.

let table = null;
let current = -1;
let order = null;
const filter = { text: '', task: -1, kinds: new Set() };
const TALL = 620;

function haystack(row) {
  const parts = [ROWS.id[row], NAMES.tasks[ROWS.task[row]], words(NAMES.kinds[ROWS.kind[row]])];
  for (const [name, column] of [['places', 'place'], ['messages', 'message'], ['tags', 'tags']]) {
    if (ROWS[column][row] >= 0) parts.push(NAMES[name][ROWS[column][row]]);
  }
  return parts.join('\n').toLowerCase();
}

function entries() {
  const hay = [];
  const data = Array.from({ length: COUNT }, (_, row) => ({
    row,
    id: ROWS.id[row],
    task: NAMES.tasks[ROWS.task[row]],
    outcome: ROWS.outcome[row],
    kind: NAMES.kinds[ROWS.kind[row]],
    place: ROWS.place[row] < 0 ? '' : NAMES.places[ROWS.place[row]],
    message: ROWS.message[row] < 0 ? '' : NAMES.messages[ROWS.message[row]],
    tries: ROWS.tries[row],
    sent: ROWS.sent ? ROWS.sent[row] : null,
    wait: ROWS.wait ? ROWS.wait[row] : null,
    runtime: ROWS.runtime ? ROWS.runtime[row] : null,
    cost: ROWS.cost ? ROWS.cost[row] : null,
  }));
  table = new Tabulator('#table', {
    data, index: 'row', columns: columns(), height: Math.min(TALL, 44 + Math.max(3, COUNT) * 34),
    layout: 'fitColumns', responsiveLayout: 'hide', keybindings: false, columnHeaderSortMulti: false,
    headerSortElement: sortSign, rowFormatter: mark, placeholder: 'No entry is like that.',
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
    openByHash();
  });
  table.filterRow = ({ row, kind }) => {
    if (filter.kinds.size && !filter.kinds.has(kind)) return false;
    if (filter.task >= 0 && ROWS.task[row] !== filter.task) return false;
    if (!filter.text) return true;
    hay[row] ??= haystack(row);
    return filter.text.split(/\s+/).every((word) => hay[row].includes(word));
  };
  filters();
}

function columns() {
  const text = (field) => (cell) => el('span', { class: field === 'message' ? null : 'mono' }, cell.getValue());
  const place = (cell) => {
    const at = ROWS.place[cell.getData().row];
    return el('span', { class: 'mono', title: cell.getValue() || null }, at < 0 ? '' : SHORT_PLACES[at]);
  };
  const time = (cell) => seconds(cell.getValue());
  const list = [
    { title: 'Verdict', field: 'outcome', width: 128, responsive: 0, formatter: (cell) => badge(OUTCOMES[cell.getValue()], cell.getData().kind) },
    { title: 'Entry', field: 'id', minWidth: 120, widthGrow: 3, responsive: 0, formatter: text('id'), sorter: natural },
    { title: 'Task', field: 'task', minWidth: 120, widthGrow: 2.2, responsive: 3, formatter: text('task') },
    { title: 'Sent', field: 'sent', width: 88, responsive: 5, hozAlign: 'right', formatter: (cell) => clock(cell.getValue()) },
    { title: 'Wait', field: 'wait', width: 88, responsive: 2, hozAlign: 'right', formatter: time },
    { title: 'Run', field: 'runtime', width: 88, responsive: 1, hozAlign: 'right', formatter: time },
    { title: 'Worker', field: 'place', minWidth: 90, widthGrow: 1, responsive: 6, formatter: place },
    { title: 'Tries', field: 'tries', width: 78, responsive: 7, hozAlign: 'right' },
    { title: 'Cost', field: 'cost', width: 84, responsive: 7, hozAlign: 'right', formatter: (cell) => (cell.getValue() === null ? '' : significant(cell.getValue())) },
    { title: 'Message', field: 'message', minWidth: 160, widthGrow: 4, responsive: 4, formatter: text('message') },
  ];
  const again = ROWS.tries.some((tries) => tries > 1);
  return list.filter(({ field }) => (field !== 'cost' || ROWS.cost) && (field !== 'tries' || again))
    .filter(({ field }) => field !== 'message' || NAMES.messages.length)
    .map((column) => ({ sorter: column.hozAlign ? missingLast : undefined, titleFormatter: heading, headerHozAlign: column.hozAlign, ...column, variableHeight: false }));
}

const natural = (one, other) => one.localeCompare(other, 'en', { numeric: true });

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

function filterKind(kind) {
  filter.kinds = new Set([kind]);
  applyFilter();
  byId('entries').scrollIntoView({ behavior: calm() ? 'auto' : 'smooth' });
}

const calm = () => matchMedia('(prefers-reduced-motion: reduce)').matches;

function clearFilter() {
  filter.text = '';
  filter.task = -1;
  filter.kinds.clear();
  byId('search').value = '';
  byId('task').value = '-1';
  applyFilter();
  byId('search').focus();
}

function applyFilter() {
  for (const chip of byId('kinds').children) chip.setAttribute('aria-pressed', String(filter.kinds.has(chip.dataset.kind)));
  const some = Boolean(filter.text || filter.kinds.size || filter.task >= 0);
  byId('clear').hidden = !some;
  if (some) table.setFilter(table.filterRow);
  else table.clearFilter();
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

function openByHash() {
  const match = /^#entry=(.+)$/.exec(location.hash);
  if (!match) return;
  let id = match[1];
  try {
    id = decodeURIComponent(id);
  } catch { /* a percent sign of the id's own */ }
  const row = rowOf.get(id);
  if (row !== undefined && row !== opened) openEntry(row);
}

