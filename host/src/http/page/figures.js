// The figures of the group: totals, findings, hosts and consumers.

import { showStanding, standing } from './changes.js';
import { $, clock, element, mark, number, put, rate, rows, short, span } from './dom.js';

const CONSUMERS_MAX = 100;

/** Results ever written, over all outputs. */
function results(group) {
  return group.outputs.reduce((sum, output) => sum + output.added, 0);
}

export class Figures {
  constructor() {
    this.before = null;
    $('consumer-host').addEventListener('change', () => this.group && this.#consumers(this.group));
  }

  /** Shows a look at the group, and returns what the charts need of it. */
  show(group) {
    this.group = group;
    put($('group'), group.group.output);
    document.title = `${group.group.output} · host`;
    put($('redis'), `channel ${group.group.channel ?? '–'}, ${group.redis.server} at ${group.redis.address}`);
    this.#totals(group);
    this.#findings(group);
    this.#hosts(group);
    this.#choices(group);
    this.#consumers(group);
    return this.#point(group);
  }

  #totals(group) {
    const { totals, inbox, retries, dead_letters: dead } = group;
    const processed = group.hosts.map((host) => host.processed);
    put($('now-rate'), rate(totals.messages_per_second));
    put($('now-processed'), processed.includes(null) ? '–' : number(processed.reduce((sum, one) => sum + one, 0)));
    put($('now-results'), number(results(group)));
    put($('now-inbox'), number(inbox.length));
    put($('now-oldest'), inbox.length ? span(inbox.oldest_age_ms) : '–');
    put($('now-lag'), number(totals.position_lag));
    put($('now-retries'), number(retries.waiting));
    put($('now-dead'), number(dead.length));
    put($('now-hosts'), number(totals.hosts));
    put($('now-consumers'), number(totals.consumers));
    const reasons = Object.entries(dead.reasons).map(([reason, count]) => `${reason} ${number(count)}`);
    const trimmed = [[totals.dead_letters_trimmed, 'dead letters'], [totals.results_trimmed, 'results']]
      .filter(([count]) => count > 0)
      .map(([count, what]) => `${number(count)} ${what}`);
    const sentences = [
      reasons.length ? `By reason: ${reasons.join(', ')}.` : '',
      trimmed.length ? `Trimmed since the hosts started: ${trimmed.join(', ')}.` : '',
    ];
    put($('reasons'), sentences.filter(Boolean).join(' '));
  }

  #findings({ problems, warnings }) {
    const found = [...problems.map((one) => ['Problem', one]), ...warnings.map((one) => ['Warning', one])];
    const line = ([kind, { text }]) => `${kind}: ${text}`;
    const list = $('findings');
    // A live region: it changes only when the findings do, and without the ages in them.
    const kinds = found.map(([kind, { code }]) => `${kind} ${code}`).join();
    if (list.dataset.kinds === kinds) return;
    list.dataset.kinds = kinds;
    list.replaceChildren(
      ...found.map((one) => element('li', { class: one[0].toLowerCase(), title: one[1].code }, line(one))),
    );
  }

  #hosts({ hosts, group }) {
    rows($('hosts'), hosts, (host) => host.id, [
      ['Host', (host) => host.id],
      ['Messages/s', (host) => rate(host.messages_per_second)],
      ['Processed', (host) => number(host.processed)],
      ['Consumers', (host) => number(host.consumers + host.remote_consumers)],
      ['Intake', (host) => host.intake ?? '–'],
      ['Position lag', (host) => number(host.position_lag)],
      ['Version', (host) => short(host.plugin?.digest)],
      ['Generation', (host) => number(host.plugin?.generation)],
      ['Standing', (host) => standing(host.plugin)],
      ['In use since', (host) => clock(host.plugin?.since)],
      ['Swaps', (host) => number(host.plugin?.swaps)],
      ['Rollbacks', (host) => number(host.plugin?.rollbacks)],
      ['Heartbeat', (host) => (host.heartbeat_age_ms === null ? '–' : `${span(host.heartbeat_age_ms)} ago`)],
    ]);
    for (const [at, host] of hosts.entries()) {
      const row = $('hosts').rows[at];
      mark(row.cells[6], 'title', host.plugin?.digest);
      showStanding(row.cells[8], host.plugin);
      mark(row, 'data-active', host.id === group.active_intake ? 'yes' : null);
    }
  }

  /** The hosts to choose from for the table of consumers. */
  #choices({ hosts }) {
    const select = $('consumer-host');
    const ids = ['', ...hosts.map((host) => host.id)];
    if (ids.join() === [...select.options].map((option) => option.value).join()) return;
    const chosen = select.value;
    select.replaceChildren(...ids.map((id) => element('option', { value: id }, id || 'all hosts')));
    select.value = ids.includes(chosen) ? chosen : '';
  }

  #consumers({ consumers }) {
    const host = $('consumer-host').value;
    const wanted = host ? consumers.filter((consumer) => consumer.host === host) : consumers;
    const shown = wanted.slice(0, CONSUMERS_MAX);
    put($('consumers-shown'), `${number(shown.length)} of ${number(wanted.length)} shown`);
    rows($('consumers'), shown, (consumer) => consumer.id, [
      ['Consumer', ({ id, remote }) => (remote ? `${id} (remote)` : id)],
      ['Messages/s', (consumer) => rate(consumer.messages_per_second)],
      ['Processed', (consumer) => number(consumer.processed)],
    ]);
  }

  #point(group) {
    const time = Date.parse(group.timestamp) / 1000;
    const written = results(group);
    const before = this.before;
    this.before = { time, written };
    // A stream that was deleted begins again at 0.
    const seconds = before ? time - before.time : 0;
    const perSecond = seconds > 0 && seconds < 5 && written >= before.written ? (written - before.written) / seconds : null;
    const { inbox, totals, hosts } = group;
    const values = {
      settled: totals.messages_per_second,
      results: perSecond,
      waiting: inbox.waiting,
      progress: inbox.in_progress,
      oldest: inbox.length ? (inbox.oldest_age_ms ?? 0) / 1000 : 0,
      lag: totals.position_lag,
    };
    return { time, values, isProbation: hosts.some((host) => host.plugin?.state === 'probation') };
  }
}
