'use strict';
// The bench: N times fs.openSync and fs.closeSync of one existing file below 15 JavaScript functions,
// fewer than 2000 a second, in bursts of 20. Says the time that the bursts took, without the pauses.
//
// node paced-opens.js FOLDER [--now] [count=10000]

const fs = require('node:fs');
const path = require('node:path');

const repository = path.join(__dirname, '../../../../..');
const { folder, option, run, say } = require(path.join(repository, 'fixtures/workloads/protocol.js'));

const BURST = 20;
const PAUSE_MS = 10;
// With the function of the bursts and the innermost one, 15.
const DEPTH = 13;
// Until V8 has optimised what is hot.
const WARM_UP = 5000;

const file = path.join(folder, 'paced-opens.txt');
fs.writeFileSync(file, 'content\n');

function openAndClose() {
  const descriptor = fs.openSync(file, 'r');
  fs.closeSync(descriptor);
  return 1;
}

function descend(levels) {
  return levels === 1 ? openAndClose() : descend(levels - 1) + 0;
}

function openBurst(count) {
  let sum = 0;
  for (let index = 0; index < count; index += 1) {
    sum += descend(DEPTH);
  }
  return sum;
}

function pause() {
  return new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
}

openBurst(WARM_UP);
run(async function measureBursts() {
  const count = option('count', 10_000);
  let opened = 0;
  let nanoseconds = 0n;
  while (opened < count) {
    const begin = process.hrtime.bigint();
    opened += openBurst(Math.min(BURST, count - opened));
    nanoseconds += process.hrtime.bigint() - begin;
    await pause();
  }
  say({ iterations: opened, seconds: Number(nanoseconds) / 1e9 });
});
