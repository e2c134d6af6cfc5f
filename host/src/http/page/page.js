// The page as a whole: the token, the stream of figures, and how old the figures are.

import { Refusal, follow, read, token } from './api.js';
import { Changes } from './changes.js';
import { Charts } from './charts.js';
import { connect, showStatus } from './commands.js';
import { DeadLetters } from './dead.js';
import { $, clock, put, say, span } from './dom.js';
import { Figures } from './figures.js';
import { Latency } from './latency.js';
import { Tail } from './tail.js';

/** Age from which on the figures count as old. */
const OLD_MS = 3500;

/** Waits between attempts to connect. */
const WAITS_MS = [500, 1000, 2000, 5000];

/** Time between two looks at what this host says of itself. */
const STATUS_MS = 2000;

const changes = new Changes($('changes'), $('no-changes'));
const charts = new Charts($('charts'), changes);
const figures = new Figures();
const dead = new DeadLetters();
const tail = new Tail();
const latency = new Latency();

/** When the last figures came, by this machine's steady clock, and their time by the server's. */
let cameAt = null;
let asOf = null;
let isConnected = false;

function connected(is, text) {
  const state = is ? 'connected' : 'lost';
  // Said once for each change, not for every attempt.
  if ($('connection').dataset.state !== state || !is) {
    if ($('connection').textContent !== text) say($('connection'), text);
    $('connection').dataset.state = state;
  }
  if (isConnected && !is) charts.interrupt();
  isConnected = is;
  showAge();
}

function showAge() {
  const age = cameAt === null ? null : performance.now() - cameAt;
  const isOld = age === null ? !isConnected : age > OLD_MS || !isConnected;
  document.body.dataset.figures = isOld ? 'old' : 'fresh';
  if (age === null) put($('age'), 'No figures yet.');
  else put($('age'), isOld ? `These figures are ${span(age)} old, of ${clock(asOf)}.` : `Figures of ${clock(asOf)}.`);
}

function on(event, data) {
  if (event === 'open') connected(true, 'Connected.');
  if (event === 'version') {
    changes.remembered(data);
    refreshStatus();
  }
  // The host answers, and cannot look at the group.
  if (event === 'problem') connected(false, `No new figures: ${data.error}`);
  if (event !== 'group') return;
  if (!isConnected) connected(true, 'Connected.');
  cameAt = performance.now();
  asOf = data.timestamp;
  changes.seen(data);
  const { time, values, isProbation } = figures.show(data);
  charts.add(time, { ...values, ...latency.values }, isProbation);
  dead.seen(data.dead_letters);
  showAge();
}

/** What this host says of itself alone. A host that does not answer is asked once, not every other second. */
let isAsking = false;

async function refreshStatus() {
  if (isAsking) return;
  isAsking = true;
  try {
    await Promise.all([showStatus(), latency.look()]);
  } catch (error) {
    // The stream of figures says what is wrong with the connection.
    if (!(error instanceof Refusal)) throw error;
  } finally {
    isAsking = false;
  }
}

async function history() {
  const { history: entries } = await read('versions');
  entries.forEach((entry) => changes.remembered(entry));
}

/** Asks for the token, and waits for one. */
function askForToken(reason) {
  token.forget();
  tail.end();
  $('page').hidden = true;
  $('forget').hidden = true;
  $('entry').hidden = false;
  say($('entry-problem'), reason);
  $('token').value = '';
  $('token').focus();
  put($('age'), '');
  say($('connection'), 'The host asks for a token.');
  $('connection').dataset.state = 'lost';
  return new Promise((resolve) => {
    $('entry-form').addEventListener('submit', function given(event) {
      event.preventDefault();
      if (!$('token').value) return;
      $('entry-form').removeEventListener('submit', given);
      token.set($('token').value);
      $('token').value = '';
      $('entry').hidden = true;
      $('page').hidden = false;
      resolve();
    });
  });
}

async function run() {
  let hadToken = Boolean(token.get());
  for (let attempt = 0; ; ) {
    try {
      await Promise.all([showStatus(), history()]);
      $('forget').hidden = !token.get();
      attempt = 0;
      await follow('events', {}, on);
      connected(false, 'The host has closed the connection. Trying again.');
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status === 401) {
        await askForToken(hadToken ? 'This token is not the token of the host.' : '');
        hadToken = true;
        continue;
      }
      const what = error.status === 0 ? 'The connection to the host is lost' : `The host refuses: ${error.message}`;
      connected(false, `${what}. Trying again.`);
    }
    await new Promise((resolve) => setTimeout(resolve, WAITS_MS[Math.min(attempt, WAITS_MS.length - 1)]));
    attempt += 1;
  }
}

$('forget').addEventListener('click', () => {
  token.forget();
  location.reload();
});
connect(refreshStatus);
setInterval(showAge, 500);
setInterval(() => isConnected && !document.hidden && refreshStatus(), STATUS_MS);
run();
