// Sphinx ranks pages alike whose text has a word: help goes first, then what is looked up, then why, what proves, and
// what changed. The numbers below score() are Sphinx's own.
const FIRST = [
  ["how-to/something-broke", 10],
  ["how-to/", 5],
  ["tutorial/", 4],
  ["reference/", 4],
  ["explanation/", 3],
  ["index", 2],
  ["evidence/", -2],
  ["project/", -3],
];
var Scorer = {
  score: ([docname, , , , score]) =>
    score + (FIRST.find(([start]) => docname.startsWith(start))?.[1] ?? 0),
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
