// Mends faults of the pinned Allure that would show a batch wrongly. scripts/report runs it once after
// each installation; where a line is not found, another Allure was pinned: see whether it still needs it.
import { readFileSync, writeFileSync } from "node:fs";

const plugin = new URL("node_modules/@allurereport/plugin-awesome/dist/", import.meta.url);

// An archive: each text and what takes its place are of the same length.
const page = [
  // Names of the timeline's rows make ids of 6 bits, so two of a dozen processes share a row.
  [`let o=Math.abs(n);for(let e=0;e<21;++e)`, `let o=n>>>0    ;for(let e=0;e<21;++e)`],
  [`vwxyz-"[o%64]`, `vwxyz-"[o>>>26]`],
  // Of a test and its retries on the same row only one is drawn.
  [`v=o??i,y=-1!==m.findIndex`, `v=i   ,y=-1!==m.findIndex`],
  // Rows have room for ten letters; a worker's name and its process need more.
  [
    `a=Math.min(14,.6*a2(s)*Math.sqrt(2)),o=Math.floor(D2/(a/Math.sqrt(2)))`,
    `a=Math.min(11,.6*a2(s)*Math.sqrt(2)),o=Math.floor(D2/(a/Math.sqrt(4)))`,
  ],
];
// Every opened report tells somebody else's counter of visits.
const generator = [[`analyticsEnable: true`, `analyticsEnable: false`]];

for (const [name, changes, room] of [
  ["static/report.tar", page, true],
  ["generators.js", generator, false],
]) {
  const file = new URL(name, plugin);
  let text = readFileSync(file, "latin1");
  const length = text.length;
  for (const [before, after] of changes) {
    if (text.split(before).length !== 2) throw new Error(`${name} has not once: ${before}`);
    text = text.replace(before, () => after);
  }
  if (room && text.length !== length) throw new Error(`${name} has another length`);
  writeFileSync(file, text, "latin1");
}
