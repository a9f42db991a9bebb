// Names of workers, shortened so that those which differ still look different.

const MARKS = /[@#./:_-]/;

/** The index behind the last mark within what all texts have in common from their beginning. */
function sharedHead(texts) {
  const [first] = texts;
  let same = 0;
  while (same < first.length && texts.every((text) => text[same] === first[same])) same += 1;
  while (same > 0 && !MARKS.test(first[same - 1])) same -= 1;
  return same;
}

const reversed = (text) => [...text].reverse().join('');

/** How names may be shown, the longest way first; each way leaves out the same of all of them. */
function waysToShow(names) {
  const ways = [names];
  if (names.length < 2) return ways;
  const head = sharedHead(names);
  const tail = sharedHead(names.map((name) => reversed(name.slice(head))));
  const core = (from, to) => names.map((name) => (from ? '…' : '') + name.slice(from, name.length - to) + (to ? '…' : ''));
  const near = sharedHead([names[0].slice(0, Math.max(0, head - 1))]);
  for (const [from, to] of [[near, 0], [head, 0], [head, tail]]) {
    if (from > 1 || to > 1) ways.push(core(from > 1 ? from : 0, to > 1 ? to : 0));
  }
  return ways;
}

/** The names within so many units of length, all different; ``lengthOf`` measures a text. */
function fitted(names, room, lengthOf) {
  if (!names.length) return [];
  const fits = (way) => way.every((name) => lengthOf(name) <= room);
  const ways = waysToShow(names);
  const way = ways.find(fits) || ways.at(-1).map((name) => middle(name, room, lengthOf));
  const met = new Set();
  if (way.every((name) => !met.has(name) && met.add(name))) return way;
  return way.map((name, at) => middle(`${at + 1} ${name}`, room, lengthOf));
}

/** A text without as much of its middle as there is no room for. */
function middle(text, room, lengthOf) {
  if (lengthOf(text) <= room) return text;
  let [low, high] = [1, text.length];
  const cut = (kept) => `${text.slice(0, kept >> 1)}…${text.slice(text.length - kept + (kept >> 1))}`;
  while (low < high) {
    const kept = (low + high + 1) >> 1;
    if (lengthOf(cut(kept)) <= room) low = kept;
    else high = kept - 1;
  }
  return cut(low);
}

