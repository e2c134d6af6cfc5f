// Changes of plugin versions, on the time line of the charts and as a table: those that this host remembers, and those that
// the figures of the other hosts show.

import { clock, put, rows, short } from './dom.js';

const CHANGES_MAX = 100;

/** Two accounts of one change differ by less than this. */
const SAME_MS = 3000;

export const KINDS = {
  started: { name: 'started', letter: 'S', colour: '--mark-plain' },
  swapped: { name: 'swapped', letter: '↑', colour: '--mark-swap' },
  forced: { name: 'forced', letter: '↑', colour: '--mark-swap' },
  trusted: { name: 'trusted', letter: '✓', colour: '--mark-trust' },
  'rolled-back': { name: 'rolled back', letter: '↓', colour: '--mark-back' },
  waiting: { name: 'waiting for the canary', letter: 'W', colour: '--mark-plain' },
  failing: { name: 'failing nearly everything', letter: '!', colour: '--mark-back' },
  recovered: { name: 'processing again', letter: '✓', colour: '--mark-trust' },
  refused: { name: 'refused', letter: '×', colour: '--mark-back' },
};

export class Changes {
  constructor(body, empty) {
    this.body = body;
    this.empty = empty;
    this.all = [];
    this.hosts = new Map();
  }

  /** A change that this host remembers. */
  remembered(entry) {
    this.#add(entry);
  }

  /** Compares the hosts with what they were at the look before. */
  seen(group) {
    const now = new Map();
    for (const { id, plugin } of group.hosts) {
      if (!plugin) continue;
      now.set(id, plugin);
      const before = this.hosts.get(id);
      for (const event of before ? difference(before, plugin) : []) {
        const at = event === 'swapped' || event === 'rolled-back' ? plugin.since || group.timestamp : group.timestamp;
        const [was, generation] = [event === 'trusted' ? undefined : before.digest, plugin.generation];
        this.#add({ at, event, host: id, generation, digest: event === 'refused' ? undefined : plugin.digest, before: was });
      }
    }
    this.hosts = now;
  }

  /** Adds a change, unless it is known. A second account of one adds what the first one lacks. */
  #add(change) {
    const at = Date.parse(change.at);
    if (Number.isNaN(at)) return;
    const isSame = (known) =>
      known.event === change.event &&
      Math.abs(known.time - at) < SAME_MS &&
      (!known.digest || !change.digest || known.digest === change.digest) &&
      (!known.generation || !change.generation || known.generation === change.generation) &&
      (!known.host || !change.host || known.host === change.host);
    const known = this.all.find(isSame);
    if (known) {
      for (const name of ['host', 'digest', 'before', 'reason']) known[name] ??= change[name];
    } else {
      this.all.push({ ...change, time: at, key: `${change.event} ${change.at} ${change.host ?? ''}` });
      this.all.sort((one, other) => other.time - one.time);
      this.all.length = Math.min(this.all.length, CHANGES_MAX);
    }
    this.show();
  }

  show() {
    this.empty.hidden = this.all.length > 0;
    rows(this.body, this.all, (change) => change.key, [
      ['Time', (change) => clock(change.at)],
      ['Change', (change) => KINDS[change.event]?.name ?? String(change.event)],
      ['Version', (change) => short(change.digest)],
      ['Before', (change) => short(change.before)],
      ['Host', (change) => change.host ?? 'this host'],
      ['Reason', (change) => change.reason ?? ''],
    ]);
  }
}

/** What happened to a plugin between two looks. */
function difference(before, now) {
  if (now.rollbacks > before.rollbacks) return ['rolled-back'];
  if (now.digest !== before.digest || now.generation > before.generation) return ['swapped'];
  const events = [];
  if (before.state === 'probation' && now.state === 'steady') events.push('trusted');
  if (now.refusals > before.refusals) events.push('refused');
  return events;
}

/** How a version stands, in words. */
export function standing(plugin) {
  const words = { steady: 'trusted', probation: 'on probation', 'rolled-back': 'rolled back', failing: 'failing' }[plugin?.state] ?? '–';
  if (plugin?.waiting) return `${words}; ${short(plugin.waiting.digest)} waits for the canary ${plugin.waiting.canary ?? ''}`;
  return plugin?.verdict ? `${words}; rolled back by ${plugin.verdict.host}` : words;
}

export function showStanding(target, plugin) {
  put(target, standing(plugin));
  target.dataset.state = plugin?.state ?? '';
}
