// What an entry's job started: unpacked from its block, drawn as a tree with the times of each task.

const TREES = DATA.trees;
const treeBlocks = new Map();
const ALL_UNFOLDED = 40;

let treeTexts = null;
let treeTextsRead = null;

/** The trees of a block's entries, by row. */
async function readTrees(number) {
  const found = await unpack(byId(`trees-${number}`).textContent);
  return new Map(found.map(([place, some]) => [number * DATA.details.size + place, some]));
}

/** An entry's trees, one for each attempt that started tasks; blocks are kept as those of details are. */
async function treesOf(row) {
  const number = Math.floor(row / DATA.details.size);
  if (!TREES || !TREES.blocks.includes(number)) return [];
  if (!treeBlocks.has(number)) {
    if (treeBlocks.size > 8) treeBlocks.clear();
    treeBlocks.set(number, readTrees(number));
  }
  return (await treeBlocks.get(number)).get(row) || [];
}

/** All rows with their trees. */
async function everyTree() {
  const found = [];
  for (const number of TREES.blocks) found.push(...await readTrees(number));
  return found;
}

/** Have the filter find tasks, ids and workers of descendants, which are read when it is first used. */
function readTreeTexts() {
  if (!TREES || treeTextsRead) return;
  treeTextsRead = everyTree().then((found) => {
    treeTexts = new Map(found.map(([row, some]) => [row, some.map(textOfTree).join('\n').toLowerCase()]));
    applyFilter();
  }, () => {}); // a browser that cannot unpack them finds entries alone
}

function textOfTree(tree) {
  const tasks = [...new Set(tree.task)].map((at) => TREES.tasks[at]);
  const places = [...new Set(tree.place)].filter((at) => at >= 0).map((at) => NAMES.places[at]);
  return [...tree.id, ...tasks, ...places].join('\n');
}

const treeCounts = (counts) => (counts.length === 1 && TREES.kinds[counts[0][0]] === 'passed' ? 'all passed'
  : counts.map(([kind, count]) => `${number(count)} ${words(TREES.kinds[kind])}`).join(', '));

/** A section for each tree, closed but for one in which the filter finds something. */
function trees(found) {
  return (found.trees || []).map((tree) => treePart(tree, found.trees.length > 1 || tree.attempt > 1));
}

function treePart(tree, numbered) {
  const view = treeView(tree);
  const title = `${many(tree.total, 'descendant')}${numbered ? ` of attempt ${tree.attempt}` : ''}`;
  const began = tree.root[1] ?? tree.root[0];
  const notes = [
    treeCounts(tree.counts),
    began === null || tree.end === null ? null : `${seconds(tree.end - began)} to the last end`,
    `critical path: ${many(tree.path.length + 1, 'task')}`,
  ].filter(Boolean);
  const details = el('details', { class: 'tree-part', ontoggle: view.fill },
    el('summary', {}, el('h3', {}, title), el('span', { class: 'muted notes' }, notes.map((note) => el('span', {}, note)))),
    view.holder);
  details.reveal = (id) => {
    if (!tree.id.includes(id)) return;
    details.open = true;
    view.reveal(id);
  };
  const hit = tree.id.findIndex((id) => isSearched(id));
  if (hit >= 0) details.reveal(tree.id[hit]);
  return el('section', {}, details);
}

/** Whether the filter is on a part of this id; a word of one or two letters is in too many. */
function isSearched(id) {
  return Boolean(filter.text) && filter.words.some((word) => word.length > 2 && id.toLowerCase().includes(word));
}

function revealTask(id) {
  for (const part of document.querySelectorAll('#details .tree-part')) part.reveal(id);
}

/** The tree's rows: the job itself, then what it started; filled in when it is first opened. */
function treeView(tree) {
  const nodes = nodesOf(tree);
  const folded = foldedAtFirst(nodes);
  const holder = el('div', {});
  const items = el('div', { class: 'tree', role: 'tree', 'aria-label': 'Descendants', onkeydown: treeKey });
  let filled = false;

  function fill() {
    if (filled) return;
    filled = true;
    holder.append(...[axisOf(nodes), items, treeLegend(), leftOut(tree)].filter(Boolean));
    draw();
  }

  function draw() {
    let hiddenBelow = Infinity;
    const rows = [];
    nodes.forEach((node, at) => {
      if (node.depth > hiddenBelow) return;
      hiddenBelow = folded.has(at) ? node.depth : Infinity;
      rows.push(...rowOfNode(node, folded.has(at), () => fold(at)));
    });
    items.replaceChildren(...rows);
    items.querySelector('.node')?.setAttribute('tabindex', '0');
  }

  function fold(at) {
    if (!folded.delete(at)) folded.add(at);
    draw();
    focusNode(items, nodes[at].id);
  }

  function reveal(id) {
    const at = nodes.findIndex((node) => node.id === id);
    if (at < 0) return;
    for (let up = at; up >= 0; up = nodes[up].parent) if (up !== at) folded.delete(up);
    nodes[at].open = true;
    if (filled) draw();
    fill();
    setTimeout(() => focusNode(items, id));
  }

  return { holder, fill, reveal };
}

function focusNode(items, id) {
  for (const row of items.querySelectorAll('.node')) {
    const on = row.dataset.id === id;
    row.tabIndex = on ? 0 : -1;
    if (on) {
      row.focus({ preventScroll: true });
      row.scrollIntoView({ block: 'nearest' });
    }
  }
}

function nodesOf(tree) {
  const path = new Set(tree.path);
  const notes = new Map(tree.notes.map(([at, ...note]) => [at, note]));
  const retried = new Map(tree.retried);
  const [sent, start, stop] = tree.root;
  const root = { id: '', task: 'the job itself', depth: 0, kind: null, outcome: 'own', sent, start, stop, run: start !== null && stop !== null ? stop - start : null, path: true, parent: -1, children: 0 };
  const nodes = [root];
  const last = [0];
  tree.id.forEach((id, at) => {
    const depth = tree.depth[at] + 1;
    const kind = TREES.kinds[tree.kind[at]];
    const parent = last[depth - 1] ?? 0;
    last.length = depth;
    last.push(nodes.length);
    nodes[parent].children += 1;
    nodes.push({
      id, depth, kind, parent, task: TREES.tasks[tree.task[at]], how: TREES.ways[tree.how[at]], outcome: OUTCOMES[TREES.outcomes[tree.kind[at]]],
      place: tree.place[at] < 0 ? null : NAMES.places[tree.place[at]], sent: tree.sent[at], start: tree.start[at], stop: tree.stop[at],
      run: tree.run[at], path: path.has(at), note: notes.get(at), retries: retried.get(at) || 0, children: 0, hit: isSearched(id),
    });
  });
  const times = nodes.flatMap((node) => [node.start, node.stop, node.sent]).filter((time) => time !== null);
  const { low, high } = bounds(times);
  const from = start ?? (low === Infinity ? 0 : low);
  const scale = { from, long: Math.max((high === -Infinity ? from : high) - from, 1e-6) };
  for (const node of nodes) node.scale = scale;
  return nodes;
}

/** Of a large tree only what leads to the critical path and to failures is unfolded. */
function foldedAtFirst(nodes) {
  const folded = new Set();
  if (nodes.length <= ALL_UNFOLDED) return folded;
  nodes.forEach((node, at) => { if (node.children && at) folded.add(at); });
  nodes.forEach((node) => {
    if (!node.path && !node.hit && (node.outcome === 'passed' || node.outcome === 'own')) return;
    for (let up = node.parent; up >= 0; up = nodes[up].parent) folded.delete(up);
  });
  return folded;
}

function rowOfNode(node, isFolded, onFold) {
  const bad = !['passed', 'own'].includes(node.outcome);
  const sign = bad ? el('span', { class: `badge ${node.outcome}`, title: words(node.kind) }, el('span', { class: 'sign' }, SIGNS[node.outcome])) : null;
  const fold = el('span', { class: 'fold', 'aria-hidden': 'true' }, node.children && node.depth ? (isFolded ? '▸' : '▾') : '');
  const name = el('span', { class: 'node-name' }, fold, sign, el('span', { class: node.depth ? 'mono' : null, title: node.task }, node.task),
    isFolded ? el('span', { class: 'muted' }, ` +${number(node.children)}`) : null,
    node.retries ? el('span', { class: 'muted', title: many(node.retries, 'retry', 'retries') }, ` ↻${number(node.retries)}`) : null);
  name.style.paddingLeft = `calc(${Math.min(node.depth, 12)} * var(--indent))`;
  const row = el('div', {
    class: ['node', node.path && 'path', node.hit && 'hit'].filter(Boolean).join(' '), role: 'treeitem', tabindex: '-1', 'data-id': node.id,
    'aria-level': String(node.depth + 1), 'aria-expanded': node.children ? String(!isFolded) : null, 'aria-label': toldOfNode(node),
    onclick: (event) => (event.target.closest('.fold') && node.children && node.depth ? onFold() : toggleNote(row, node)),
  }, name, trackOf(node), el('span', { class: 'num muted' }, node.run === null ? (bad ? words(node.kind) : '') : seconds(node.run)));
  row.fold = node.children && node.depth ? (want) => { if (want !== isFolded) onFold(); } : null;
  if (!node.open) return [row];
  return [row, noteOf(node)];
}

const toldOfNode = (node) => [node.task, node.kind && words(node.kind), node.run === null ? null : `ran ${seconds(node.run)}`, node.retries ? many(node.retries, 'retry', 'retries') : null, node.path ? 'on the critical path' : null].filter(Boolean).join(', ');

function toggleNote(row, node) {
  if (!node.depth) return;
  node.open = !node.open;
  if (node.open) row.after(noteOf(node));
  else row.nextSibling.remove();
}

/** The time of a task: a line while its message waited, a bar while it ran. */
function trackOf(node) {
  const { from, long } = node.scale;
  const track = el('span', { class: 'track', 'aria-hidden': 'true' });
  const add = (name, begin, end) => {
    const part = el('span', { class: name });
    const left = Math.max(0, ((begin - from) / long) * 100);
    part.style.left = `${Math.min(left, 99.5)}%`;
    part.style.width = `${Math.max(0, ((end - from) / long) * 100 - left)}%`;
    track.append(part);
  };
  if (node.sent !== null && node.start !== null) add('waits', Math.max(node.sent, from), node.start);
  else if (node.sent !== null) add(`sent ${node.outcome}`, Math.max(node.sent, from), node.sent);
  if (node.start !== null) add(`runs ${node.outcome}${node.stop === null ? ' open' : ''}`, node.start, node.stop ?? node.start);
  return track;
}

function noteOf(node) {
  const [said, error, trace, log] = node.note || [];
  const wait = node.sent !== null && node.start !== null ? Math.max(0, node.start - node.sent) : null;
  const notes = [
    node.how, node.place, node.sent === null ? null : `sent ${clock(node.sent, 3)} UTC`, wait === null ? 'not started' : `waited ${seconds(wait)}`,
    node.run === null ? null : `ran ${seconds(node.run)}`, node.retries ? many(node.retries, 'retry', 'retries') : null, node.path ? 'on the critical path' : null,
  ].filter(Boolean);
  return el('div', { class: 'node-note' },
    el('p', {}, badge(node.outcome, node.kind), ' ', el('span', { class: 'mono' }, node.id)),
    el('p', { class: 'muted notes' }, notes.map((note) => el('span', {}, note))),
    said ? el('p', { class: 'wrapped' }, said) : null,
    error && !trace ? el('p', { class: 'mono wrapped' }, error) : null,
    trace ? pre('Traceback', trace, 'lines') : null,
    log ? pre('Log', log) : null);
}

function axisOf(nodes) {
  const { from, long } = nodes[0].scale;
  return el('div', { class: 'node tree-axis', 'aria-hidden': 'true' }, el('span', { class: 'muted' }, `from ${clock(from, 3)} UTC`),
    el('span', { class: 'track muted' }, el('span', {}, '0 s'), el('span', {}, `+${seconds(long / 2)}`), el('span', {}, `+${seconds(long)}`)), el('span', {}));
}

function treeLegend() {
  const item = (name, text) => el('span', {}, el('span', { class: `key ${name}`, 'aria-hidden': 'true' }), text);
  return el('p', { class: 'muted notes tree-legend' }, item('path', 'critical path: what decided when the tree ended'), item('waits', 'waits, ↻ earlier tries included'), item('runs', 'task runs'));
}

function leftOut(tree) {
  const missing = tree.total - tree.id.length;
  return missing ? el('p', { class: 'muted' }, `${many(missing, 'more descendant')} not in this page: it has those that did not pass, the critical path, and the slowest. The ledger has all.`) : null;
}

/** Up and down from task to task, left and right fold and unfold, Enter shows more of one. */
function treeKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || !event.target.classList.contains('node')) return;
  const rows = [...event.currentTarget.querySelectorAll('.node')];
  const at = rows.indexOf(event.target);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (next !== undefined) {
    if (!rows[next]) return;
    rows[at].tabIndex = -1;
    rows[next].tabIndex = 0;
    rows[next].focus();
  } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') rows[at].fold?.(event.key === 'ArrowLeft');
  else if (event.key === 'Enter' || event.key === ' ') rows[at].click();
  else return;
  event.preventDefault();
  event.stopPropagation();
}

/** What the bar of a descendant stands for, in the timeline. */
function toldOfTask(tree, at, row) {
  const kind = TREES.kinds[tree.kind[at]];
  const ran = tree.stop[at] === null ? 'its end is not known' : `ran ${seconds(tree.run[at] ?? tree.stop[at] - tree.start[at])}`;
  return [
    el('div', { class: 'mono strong' }, TREES.tasks[tree.task[at]]),
    el('div', {}, badge(OUTCOMES[TREES.outcomes[tree.kind[at]]], kind), ' ', el('span', { class: 'muted' }, `descendant of ${ROWS.id[row]}`)),
    `${clock(tree.start[at], 3)} UTC, ${ran}`,
  ];
}
