// Everything in its order; colours, keys and printing.

const THEMES = ['auto', 'light', 'dark'];
const THEME_SIGNS = { auto: '◐', light: '☀', dark: '☾' };
const THEME_WORDS = { auto: 'automatic', light: 'light', dark: 'dark' };
const PRINTED = 1000;
let theme = 'auto';

/** A page opened from a file may have no store; the choice then lasts as long as the page. */
function stored(value) {
  try {
    if (value !== undefined) localStorage.setItem('manifest-theme', value);
    return localStorage.getItem('manifest-theme');
  } catch {
    return null;
  }
}

function setTheme(name) {
  theme = name;
  if (name === 'auto') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId('theme').textContent = THEME_SIGNS[name];
  byId('theme').setAttribute('aria-label', `Colours: ${THEME_WORDS[name]}`);
  byId('theme').title = `Colours: ${THEME_WORDS[name]}`;
  redraw();
}

function keys(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === 'Escape' && opened >= 0) closeEntry();
  else if (event.key === 'Escape' && event.target === byId('search')) { clearFilter(); focusTable(); }
  else if (event.key === 'Escape' && !byId('notice').hidden) byId('notice').hidden = true;
  else if (event.key === '/' && !typing) byId('search').focus();
  else if (event.key === 'ArrowDown' && event.target === byId('search')) { focusTable(); moveBy(current < 0 ? 0 : 1); }
  else if (event.key === 'Enter' && event.target === byId('search') && shownRows().length) openEntry(shownRows()[0]);
  else if (opened >= 0 && event.target === byId('details') && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) moveBy(STEPS[event.key]);
  else return;
  event.preventDefault();
}

function navigation() {
  const links = [...document.querySelectorAll('main > section[id], #added > section')].filter((section) => !section.hidden && section.querySelector('h2'))
    .map((section) => el('a', { href: `#${section.id}` }, section.dataset.name || section.querySelector('h2').textContent));
  byId('nav').replaceChildren(...links);
}

/** Rows for paper: all that did not pass, and so many that did as there is room for. */
function printedRows() {
  const rows = [...shownRows()].sort((one, other) => RANK[ROWS.outcome[one]] - RANK[ROWS.outcome[other]]);
  const passed = rows.findIndex((row) => ROWS.outcome[row] === 0);
  return { rows: rows.slice(0, passed < 0 ? rows.length : Math.max(PRINTED, passed)), all: rows.length };
}

/** Paper is white, and shows no table by pieces: what the filter shows is written out. */
function beforePrint() {
  if (printing) return;
  document.documentElement.dataset.theme = 'light';
  printing = true;
  redraw();
  for (const closed of document.querySelectorAll('main details:not([open])')) {
    closed.open = true;
    closed.dataset.closed = 'yes';
  }
  const { rows, all } = printedRows();
  const at = (column, row) => (ROWS[column] ? seconds(ROWS[column][row]) : '');
  byId('print-table').replaceChildren(plainTable('Entries', [
    ['Verdict', (row) => badge(OUTCOMES[ROWS.outcome[row]], NAMES.kinds[ROWS.kind[row]])],
    ['Entry', (row) => el('span', { class: ROWS.id[row].length < 32 ? 'mono one-line' : 'mono' }, ROWS.id[row])],
    ['Task', (row) => el('span', { class: 'mono' }, NAMES.tasks[ROWS.task[row]])],
    ['Wait', (row) => at('wait', row), true],
    ['Run', (row) => at('runtime', row), true],
    ['Worker', (row) => (ROWS.place[row] < 0 ? '' : el('span', { class: 'mono one-line' }, SHORT_PLACES[ROWS.place[row]]))],
    ['Why', (row) => (ROWS.reason[row] < 0 ? '' : NAMES.reasons[ROWS.reason[row]])],
  ], rows), el('p', { class: 'muted' }, all > rows.length ? `and ${number(all - rows.length)} more that passed` : ''));
}

function afterPrint() {
  printing = false;
  byId('print-table').replaceChildren();
  for (const opened of document.querySelectorAll('details[data-closed]')) {
    opened.open = false;
    delete opened.dataset.closed;
  }
  setTheme(theme);
}

/** The page from top to bottom, in steps between which the browser can show what is there. */
const STAGES = [
  () => { overview(); causes(); comparison(); added(); tasks(); workers(); },
  timeline,
  times,
  overTime,
  entries,
  () => { if (TREES && TREES.shown <= SHOWN_AT_ONCE) showDescendants(true); },
];

function nextStage() {
  const stage = STAGES.shift();
  if (!stage) return;
  stage();
  navigation();
  setTimeout(nextStage);
}

/** What the address asks for, now that it is there. */
function arrive() {
  const section = /^#[a-z]+(-\d+)?$/.test(location.hash) && document.querySelector(`main section${location.hash}`);
  if (section) section.scrollIntoView();
  openByHash();
}

setTheme(THEMES.includes(stored()) ? stored() : 'auto');
byId('theme').onclick = () => {
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  stored(next);
  setTheme(next);
};
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
document.addEventListener('keydown', keys);
window.addEventListener('hashchange', openByHash);
window.addEventListener('beforeprint', beforePrint);
window.addEventListener('afterprint', afterPrint);
nextStage();
