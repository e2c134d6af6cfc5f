// Dead letters: a page of them, one of them whole, and what can be done with them.

import { Refusal, read } from './api.js';
import { carryOut, confirmed } from './commands.js';
import { $, clock, element, number, put, rows, say } from './dom.js';

/** Dead letters in the table at once. */
const PAGE = 10;

/** Characters of an error and a payload in the table. */
const TEXT_MAX = 160;

const cut = (text) => (text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text);
const plain = (value) => (typeof value === 'string' ? value : value === undefined || value === null ? '' : JSON.stringify(value));

export class DeadLetters {
  constructor() {
    this.filter = {};
    /** Where the pages before this one began. */
    this.trail = [];
    this.after = undefined;
    this.next = null;
    this.length = null;
    $('dead-filter').addEventListener('submit', (event) => {
      event.preventDefault();
      this.filter = { reason: $('dead-reason').value, id: $('dead-id').value.trim(), text: $('dead-text').value.trim() };
      this.#go([], undefined);
    });
    $('dead-older').addEventListener('click', () => this.#go([...this.trail, this.after], this.next));
    $('dead-newer').addEventListener('click', () => this.#go(this.trail.slice(0, -1), this.trail.at(-1)));
    $('dead-replay').addEventListener('click', () => this.#all('replay'));
    $('dead-purge').addEventListener('click', () => this.#all('purge'));
    $('letter-replay').addEventListener('click', () => this.#shown('replay'));
    $('letter-purge').addEventListener('click', () => this.#shown('purge'));
    $('letter-close').addEventListener('click', () => $('letter').close());
  }

  /** The number of dead letters at this moment. Another number means that the list is out of date. */
  seen({ length, reasons }) {
    this.#choices(Object.keys(reasons));
    if (length === this.length) return;
    this.length = length;
    this.refresh();
  }

  /** The reasons to choose from. A chosen one stays, also when the last letter with it is gone. */
  #choices(reasons) {
    const select = $('dead-reason');
    for (const reason of reasons) {
      const isKnown = [...select.options].some((option) => option.value === reason);
      if (!isKnown) select.append(element('option', { value: reason }, reason));
    }
  }

  async refresh() {
    // One request at a time; what changes meanwhile is read by the next one.
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      do {
        this.again = false;
        const filter = { ...this.filter, limit: PAGE, after: this.after };
        this.#show(await read('dead-letters', filter));
      } while (this.again);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (error.status !== 401) put($('dead-shown'), `The dead letters cannot be shown: ${error.message}`);
    } finally {
      this.busy = false;
    }
  }

  #go(trail, after) {
    this.trail = trail;
    this.after = after;
    this.refresh();
  }

  #show({ dead_letters: letters, next }) {
    this.next = next;
    $('dead-older').disabled = !next;
    $('dead-newer').disabled = this.trail.length === 0;
    const isFiltered = Object.values(this.filter).some(Boolean);
    put($('dead-shown'), shown(letters.length, isFiltered, next));
    put($('dead-replay'), isFiltered ? 'Replay all that match…' : 'Replay all…');
    put($('dead-purge'), isFiltered ? 'Purge all that match…' : 'Purge all…');
    for (const id of ['dead-replay', 'dead-purge']) $(id).disabled = letters.length === 0;
    rows($('dead-letters'), letters, (letter) => letter.entry_id, [
      ['Time', (letter) => clock(letter.at)],
      ['Message', (letter) => letter.message_id ?? '–'],
      ['Reason', (letter) => letter.reason ?? '–'],
      ['Attempts', (letter) => number(letter.attempts)],
      ['Error', (letter) => cut(plain(letter.error))],
      ['Payload', (letter) => cut(plain(letter.payload))],
      ['Actions', (letter) => this.#actions(letter)],
    ]);
  }

  #actions(letter) {
    const name = letter.message_id ?? letter.entry_id;
    const button = (verb, act) => element('button', { type: 'button', onclick: act, 'aria-label': `${verb} ${name}` }, verb);
    return element(
      'span',
      { class: 'buttons' },
      button('Show', () => this.#whole(letter.entry_id)),
      button('Replay', () => this.#one('replay', letter.entry_id, name)),
      button('Purge', () => this.#one('purge', letter.entry_id, name)),
    );
  }

  async #whole(entryId) {
    let letter;
    try {
      letter = await read(`dead-letters/${encodeURIComponent(entryId)}`);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      say($('failed'), `The dead letter cannot be shown: ${error.message}`);
      return;
    }
    this.letter = { id: entryId, name: letter.message_id ?? entryId };
    const { payload, ...rest } = letter;
    const fields = Object.entries(rest).filter(([, value]) => value !== null);
    $('letter-fields').replaceChildren(
      ...fields.flatMap(([name, value]) => [element('dt', {}, name), element('dd', {}, plain(value))]),
    );
    put($('letter-payload'), plain(payload));
    $('letter').showModal();
  }

  #shown(verb) {
    $('letter').close();
    this.#one(verb, this.letter.id, this.letter.name);
  }

  async #one(verb, entryId, name) {
    const isSure = await confirmed(`${VERBS[verb].title} ${name}?`, VERBS[verb].text, VERBS[verb].title);
    if (isSure) await this.#done(verb, { entry_ids: [entryId] });
  }

  async #all(verb) {
    const filter = Object.fromEntries(Object.entries(this.filter).filter(([, value]) => value));
    const which = Object.entries(filter).map(([name, value]) => `${name} ${value}`);
    const title = `${VERBS[verb].title} all dead letters${which.length ? ` with ${which.join(' and ')}` : ''}?`;
    if (await confirmed(title, VERBS[verb].text, VERBS[verb].title)) await this.#done(verb, { filter: which.length ? filter : { all: true } });
  }

  async #done(verb, choice) {
    await carryOut(`dead-letters/${verb}`, choice, (answer) => outcome(VERBS[verb].done, answer));
    await this.refresh();
  }
}

/** How many are shown. The host looks at so many for one page; among older ones there may be others. */
function shown(length, isFiltered, next) {
  if (length) return `${number(length)} shown`;
  if (!isFiltered) return 'There are none.';
  return next ? 'None of these match; look at older ones.' : 'None match.';
}

/** What came of a command to dead letters. */
function outcome(done, { [done]: count, gone, kept, more }) {
  const parts = [`${number(count)} dead letter${count === 1 ? '' : 's'} ${done}`];
  if (gone) parts.push(`${number(gone)} were gone already`);
  if (kept) parts.push(`${number(kept)} cannot be ${done} and stay`);
  if (more) parts.push('there are more: give the command again');
  return `${parts.join('; ')}.`;
}

const VERBS = {
  replay: { title: 'Replay', done: 'replayed', text: 'The message goes back to the inbox and is processed again.' },
  purge: { title: 'Purge', done: 'purged', text: 'The message is gone for good.' },
};
