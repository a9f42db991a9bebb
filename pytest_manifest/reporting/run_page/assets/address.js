// What the page shows, in its address: the filter, the zoom and the open entry.

const PARTS = ['entry', 'text', 'task', 'verdict', 'cause', 'zoom'];
const PART = new RegExp(`^(${PARTS.join('|')})=`);

function writeAddress() {
  const parts = [
    ['entry', opened < 0 ? '' : ROWS.id[opened]],
    ['text', filter.text],
    ['task', filter.task < 0 ? '' : NAMES.tasks[filter.task]],
    ['verdict', [...filter.kinds].join(',')],
    ['cause', filter.cause ? String(filter.cause.at) : ''],
    ['zoom', filter.zoom ? filter.zoom.map((edge) => edge.toFixed(4)).join(',') : ''],
  ].filter(([, value]) => value).map(([name, value]) => `${name}=${encodeURIComponent(value)}`);
  const hash = parts.length ? `#${parts.join('&')}` : '';
  if (location.hash !== hash) history.replaceState(null, '', hash || location.pathname + location.search);
}

/** The parts of the address by their names; null where it names none. An id may hold an ampersand. */
function addressParts() {
  const texts = [];
  for (const text of location.hash.slice(1).split('&')) {
    if (PART.test(text)) texts.push(text);
    else if (texts.length) texts[texts.length - 1] += `&${text}`;
    else return null;
  }
  return new Map(texts.map((text) => {
    const at = text.indexOf('=');
    let value = text.slice(at + 1);
    try {
      value = decodeURIComponent(value);
    } catch { /* a percent sign of the id's own */ }
    return [text.slice(0, at), value];
  }));
}

/** Filter as the address says, where it says anything of that: a link to an entry keeps the filter. */
function readFilter(parts) {
  if (!PARTS.slice(1).some((name) => parts.has(name))) return;
  resetFilter();
  byId('search').value = parts.get('text') || '';
  filter.text = byId('search').value.toLowerCase();
  filter.task = parts.has('task') ? NAMES.tasks.indexOf(parts.get('task')) : -1;
  byId('task').value = String(filter.task);
  for (const kind of (parts.get('verdict') || '').split(',')) if (NAMES.kinds.includes(kind)) filter.kinds.add(kind);
  const at = Number(parts.get('cause') ?? -1);
  if (CAUSES[at]) filter.cause = { at, ...CAUSES[at] };
  const [from, to] = (parts.get('zoom') || '').split(',').map(Number);
  if (gantt && from < to) {
    filter.zoom = [from, to];
    gantt.drawn.setScale('x', { min: from, max: to });
  }
  applyFilter();
}

/** The entries of which an attempt was run in the part of the timeline that is shown. */
function zoomRows() {
  const [from, to] = filter.zoom;
  const rows = new Set();
  for (let bar = 0; bar < shownBars; bar += 1) {
    if (BAR_FROM[bar] <= to && BAR_TO[bar] >= from) rows.add(BARS.row[bar]);
  }
  return rows;
}

/** Filter by what the timeline shows, once it has come to rest. */
const followZoom = later(() => {
  const range = gantt.zoomed ? [gantt.drawn.scales.x.min, gantt.drawn.scales.x.max] : null;
  if (String(range) === String(filter.zoom) || !table || printing) return;
  filter.zoom = range;
  applyFilter();
}, 120);

/** Open what the address names, and say so where this page has no such entry. */
function openByHash() {
  byId('notice').hidden = true;
  const parts = addressParts();
  if (!parts) {
    if (!location.hash) closeEntry();
    return;
  }
  readFilter(parts);
  const id = parts.get('entry');
  if (id === undefined) {
    closeEntry();
    return;
  }
  const row = rowOf.get(id);
  if (row === undefined) sayMissing(id);
  else if (row !== opened) openEntry(row);
  else writeAddress();
}
