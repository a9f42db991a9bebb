// Elements made of text, numbers and times in words: of the run's page and of the live one.

const SIGNS = { passed: '✓', failed: '✕', error: '!', skipped: '–', pending: '…' };
const byId = (id) => document.getElementById(id);

/** An element; texts are set as text, so that nothing in them is ever markup. */
function el(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === 'class') made.className = value;
    else if (key.startsWith('on')) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? '' : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const words = (name) => name.replace(/_/g, ' ');
const many = (count, one, more) => `${number(count)} ${count === 1 ? one : more || one + 's'}`;

/** The sign and the word of an outcome: its colour says nothing that they do not. */
function badge(outcome, kind) {
  const sign = el('span', { class: 'sign', 'aria-hidden': 'true' }, SIGNS[outcome]);
  return el('span', { class: `badge ${outcome}` }, sign, words(kind || outcome));
}

function number(value) {
  return value.toLocaleString('en-US', { maximumFractionDigits: 2 });
}

function significant(value) {
  return value.toLocaleString('en-US', { maximumSignificantDigits: 3 });
}

/** Three digits that count, zeros too, so that a column of them stands in line: 1.70, 12.3, 254. */
const three = (value) => (Math.abs(value) < 999.5 ? value.toPrecision(3) : significant(value));

/** Seconds as people say them: 640 µs, 12.0 ms, 1.25 s, 3 min 05 s, 2 h. */
const seconds = (value) => duration(value, three);

/** The same without zeros at the end, for round figures: 10 ms, 1.5 s. */
const brief = (value) => duration(value, significant);

function duration(value, digits) {
  if (value === null || value === undefined) return '';
  const size = Math.abs(value);
  if (size === 0) return '0 s';
  if (size < 0.0009995) return `${digits === three ? Math.round(value * 1e6) : significant(value * 1e6)} µs`;
  if (size < 0.9995) return `${digits(value * 1e3)} ms`;
  if (size < 59.95) return `${digits(value)} s`;
  const whole = Math.round(size);
  const sign = value < 0 ? '-' : '';
  const two = (part) => String(part).padStart(2, '0');
  const rest = Math.floor((whole % 3600) / 60);
  if (whole < 3600) return `${sign}${rest} min${whole % 60 ? ` ${two(whole % 60)} s` : ''}`;
  return `${sign}${Math.floor(whole / 3600)} h${rest ? ` ${two(rest)} min` : ''}`;
}

/** Jobs a second, in the unit in which there is at least one; of several, in which the most have. */
function rate(value, most = value) {
  if (value === null) return '';
  const [unit, length] = [['s', 1], ['min', 60]].find(([, each]) => most * each >= 0.9995) || ['h', 3600];
  return `${three(value * length)} / ${unit}`;
}

/** The time of day in UTC, of seconds since the page's origin; the date where it is another day. */
function clock(offset, digits) {
  if (offset === null || offset === undefined) return '';
  const moment = new Date(ORIGIN + offset * 1000);
  const time = moment.toISOString().slice(11, digits ? 20 + digits : 19);
  return moment.toISOString().slice(0, 10) === new Date(ORIGIN).toISOString().slice(0, 10) ? time : `${dayMonth(moment)}, ${time}`;
}

const dayMonth = (moment) => moment.toLocaleDateString('en-GB', { day: 'numeric', month: 'short', timeZone: 'UTC' });

function day(moment) {
  const options = { weekday: 'short', day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' };
  return new Date(moment).toLocaleDateString('en-GB', options);
}

/** A table of rows; columns are [title, cell of a row, is it a number]. */
function plainTable(caption, columns, rows) {
  const head = el('tr', {}, columns.map(([title, , figure]) =>
    el('th', { scope: 'col', class: figure ? 'num' : null }, title)));
  const body = rows.map((row) => el('tr', {}, columns.map(([, cell, figure]) =>
    el('td', { class: figure ? 'num' : null }, cell(row) ?? ''))));
  const table = el('table', {}, el('caption', { class: 'unseen' }, caption),
    el('thead', {}, head), el('tbody', {}, body));
  return el('div', { class: 'scroll', tabindex: '0', role: 'group', 'aria-label': caption }, table);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Values with their smallest and largest, without spreading ten thousand arguments. */
function bounds(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return { low, high };
}

const later = (action, pause) => {
  let waiting = 0;
  return () => {
    clearTimeout(waiting);
    waiting = setTimeout(action, pause);
  };
};

function firstLine(text, most) {
  const line = text.trim().split('\n')[0];
  return line.length > most ? `${line.slice(0, most - 1)}…` : line;
}

const processName = ({ worker, pid }) => (pid === null ? worker : `${worker}#${pid}`);
