'use strict';
// The bench and the soak: the application of fixtures/app and its clients in one process, so that the
// work done does not depend on another one. Four connections ask as fast as they are answered: sixty
// requests that open files, then one that takes CPU time. Then it says how many it answered,
// in what time and with how much CPU time of all its threads.
//
// node served-application.js FOLDER [--now] [seconds=8]
//
// It goes on when it has said so, idle, until SIGTERM: a recorder can be stopped before it ends.

const http = require('node:http');
const path = require('node:path');
const { createRequire } = require('node:module');

const repository = path.join(__dirname, '../../../../..');
const { option, run, say } = require(path.join(repository, 'fixtures/workloads/protocol.js'));
const requireFromApplication = createRequire(path.join(repository, 'fixtures/app/server.js'));
const express = requireFromApplication('express');
const { sendProfile } = requireFromApplication('./lib/profile.js');
const { sendReport } = requireFromApplication('./lib/report.js');
const { sendSettings } = requireFromApplication('./lib/settings.js');

const CONNECTIONS = 4;
const LIGHT_ROUTES = ['/profile', '/settings', '/profile?name=grace', '/profile?name=nobody'];
const LIGHT_REQUESTS = 60;
const WARM_UP_SECONDS = 1.5;
const LONGEST_IDLE_MS = 60_000;

const agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS });

function startServer() {
  const application = express();
  application.get('/profile', sendProfile);
  application.get('/settings', sendSettings);
  application.get('/report', sendReport);
  return new Promise(function listen(resolve) {
    const server = application.listen(0, '127.0.0.1', () => resolve(server.address().port));
  });
}

function requestOnce(port, route) {
  return new Promise(function sendRequest(resolve, reject) {
    const request = http.get({ host: '127.0.0.1', port, path: route, agent }, (response) => {
      response.resume();
      response.once('end', resolve);
      response.once('error', reject);
    });
    request.once('error', reject);
  });
}

async function requestUntil(port, end, connection) {
  let answered = 0;
  // The connections do not ask for their reports at the same time.
  for (let index = connection * 15; performance.now() < end; index += 1) {
    const isLight = index % (LIGHT_REQUESTS + 1) < LIGHT_REQUESTS;
    await requestOnce(port, isLight ? LIGHT_ROUTES[index % LIGHT_ROUTES.length] : '/report');
    answered += 1;
  }
  return answered;
}

async function serve(port, seconds) {
  const cpuBegin = process.cpuUsage();
  const begin = performance.now();
  const end = begin + seconds * 1000;
  const connections = Array.from({ length: CONNECTIONS }, (_, connection) =>
    requestUntil(port, end, connection));
  const answered = (await Promise.all(connections)).reduce((sum, count) => sum + count, 0);
  const took = (performance.now() - begin) / 1000;
  const cpu = process.cpuUsage(cpuBegin);
  return { answered, seconds: took, cpu_seconds: (cpu.user + cpu.system) / 1e6 };
}

process.once('SIGTERM', () => process.exit(0));
startServer().then(async function warmUpAndRun(port) {
  await serve(port, WARM_UP_SECONDS);
  await run(async function measureRequests() {
    say(await serve(port, option('seconds', 8)));
  });
  // If whoever started it is gone, nobody sends the signal.
  setTimeout(() => process.exit(1), LONGEST_IDLE_MS);
});
