// What to do about an entry: the command that runs it again, to be copied, and its worker's log.

const AGAIN = DATA.run.again;
const LOGS = new Map(DATA.run.logs);

/** A word of a command, as a shell takes it. */
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replace(/'/g, `'"'"'`)}'`);

function againCommand(id) {
  const [manifest, more] = AGAIN;
  return `pytest ${quoted(`--manifest=${manifest}`)} ${quoted(`${manifest}::entry[${id}]`)}${more}`;
}

/** The command for one entry with a button that copies it; nothing where no command is known. */
function again(id) {
  if (!AGAIN) return null;
  const command = againCommand(id);
  const button = el('button', { type: 'button', class: 'copy', 'aria-label': `Copy the command that runs ${id} again`, onclick: () => copy(button, command) }, 'Copy');
  return el('p', { class: 'again' }, el('span', { class: 'muted' }, 'Run this one again'), el('code', {}, command), button);
}

async function copy(button, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyBySelection(text); // a page of a file, or a browser that asks first
  }
  button.textContent = done ? 'Copied' : 'Not copied';
  byId('said').textContent = button.textContent;
  setTimeout(() => { button.textContent = 'Copy'; }, 1600);
}

function copyBySelection(text) {
  const before = document.activeElement;
  const field = el('textarea', { class: 'unseen', 'aria-hidden': 'true' });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand('copy');
  field.remove();
  before?.focus({ preventScroll: true });
  return done;
}

/** A link to the log of the worker that had this entry; nothing where the run has kept none. */
function logLink(row) {
  const place = row === undefined || ROWS.place[row] < 0 ? '' : NAMES.places[ROWS.place[row]];
  const worker = place.split('@')[0];
  return LOGS.has(worker) ? el('a', { href: LOGS.get(worker), class: 'log-link' }, `log of ${worker}`) : null;
}
