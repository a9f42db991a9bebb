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
  else if (event.key === '/' && !typing) byId('search').focus();
  else if (event.key === 'ArrowDown' && event.target === byId('search')) { focusTable(); moveBy(current < 0 ? 0 : 1); }
  else if (event.key === 'Enter' && event.target === byId('search') && shownRows().length) openEntry(shownRows()[0]);
  else if (opened >= 0 && event.target === byId('details') && (event.key === 'ArrowDown' || event.key === 'ArrowUp')) moveBy(STEPS[event.key]);
  else return;
  event.preventDefault();
}

function navigation() {
  const links = [...document.querySelectorAll('main > section[id]')].filter((section) => !section.hidden && section.querySelector('h2'))
    .map((section) => el('a', { href: `#${section.id}` }, section.querySelector('h2').textContent));
  byId('nav').replaceChildren(...links);
}

/** Paper is white, and shows no table by pieces: what the filter shows is written out. */
function beforePrint() {
  document.documentElement.dataset.theme = 'light';
  printing = true;
  redraw();
  const bad = (row) => (ROWS.outcome[row] === 0 ? 1 : 0);
  const rows = [...shownRows()].sort((one, other) => bad(one) - bad(other));
  const some = rows.slice(0, PRINTED);
  const at = (column, row) => (ROWS[column] ? seconds(ROWS[column][row]) : '');
  byId('print-table').replaceChildren(plainTable('Entries', [
    ['Verdict', (row) => badge(OUTCOMES[ROWS.outcome[row]], NAMES.kinds[ROWS.kind[row]])],
    ['Entry', (row) => el('span', { class: 'mono' }, ROWS.id[row])],
    ['Task', (row) => el('span', { class: 'mono' }, NAMES.tasks[ROWS.task[row]])],
    ['Wait', (row) => at('wait', row), true],
    ['Run', (row) => at('runtime', row), true],
    ['Message', (row) => (ROWS.message[row] < 0 ? '' : NAMES.messages[ROWS.message[row]])],
  ], some), el('p', { class: 'muted' }, rows.length > some.length ? `and ${number(rows.length - some.length)} more` : ''));
}

function afterPrint() {
  printing = false;
  byId('print-table').replaceChildren();
  setTheme(theme);
}

overview();
causes();
comparison();
tasks();
workers();
entries();
byId('times').hidden = !DATA.figures.wait && !DATA.figures.runtime;
timeline();
throughput();
histogram('wait', DATA.figures.wait);
histogram('runtime', DATA.figures.runtime);
navigation();
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
