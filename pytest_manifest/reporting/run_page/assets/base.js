// What the others share: the data, and what leads to an entry of it.

const DATA = JSON.parse(document.getElementById('data').textContent);
const NAMES = DATA.names;
const ROWS = DATA.rows;
const BARS = DATA.bars;
const COUNT = ROWS.id.length;
const ORIGIN = Date.parse(DATA.run.created);
const OUTCOMES = NAMES.outcomes;
const RANK = [4, 0, 1, 2, 3]; // of OUTCOMES, what went wrong first
const rowOf = new Map(ROWS.id.map((id, row) => [id, row]));

const entryHash = (id) => `#entry=${encodeURIComponent(id)}`;

/** A link that opens the entry; a plain text where this run has none of that id. */
function entryLink(id) {
  return rowOf.has(id) ? el('a', { href: entryHash(id), class: 'mono' }, id) : el('span', { class: 'mono' }, id);
}

function show(id) {
  byId(id).hidden = false;
  return byId(id).querySelector('.body');
}

