// The live tail: outcomes as they happen, sampled by the host.

import { Refusal, follow } from './api.js';
import { $, clock, element, number, put, say } from './dom.js';

const LINES_MAX = 200;
const TEXT_MAX = 300;

const NAMES = { result: 'result', 'dead-letter': 'dead letter', retry: 'retry' };

export class Tail {
  constructor() {
    this.lines = [];
    this.skipped = 0;
    $('tail-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.stop ? this.end() : this.start();
    });
  }

  async start() {
    const stop = new AbortController();
    this.stop = stop;
    this.skipped = 0;
    put($('tail-go'), 'Stop');
    put($('tail-state'), 'Waits for outcomes.');
    const filter = { kind: $('tail-kind').value, id: $('tail-id').value.trim(), text: $('tail-text').value.trim(), rate: 20 };
    let end = 'The host has ended the tail.';
    try {
      await follow('tail', filter, (event, data) => this.#on(event, data), stop.signal);
    } catch (error) {
      if (stop.signal.aborted) end = 'Stopped.';
      else if (error instanceof Refusal) end = `The tail has ended: ${error.message}`;
      else throw error;
    }
    if (this.stop === stop) {
      this.stop = null;
      put($('tail-go'), 'Start');
      say($('tail-state'), end);
    }
  }

  end() {
    this.stop?.abort();
  }

  #on(event, data) {
    if (event === 'problem') say($('tail-state'), data.error);
    if (event === 'skipped') this.skipped += data.events;
    if (event === 'outcome') this.lines.push(data);
    if (event === 'outcome' || event === 'skipped') this.#later();
  }

  /** Shows what has come, once for each picture of the screen. */
  #later() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      const list = $('tail');
      list.prepend(...this.lines.splice(0).slice(-LINES_MAX).reverse().map(line));
      while (list.childElementCount > LINES_MAX) list.lastElementChild.remove();
      const skipped = this.skipped ? ` ${number(this.skipped)} outcomes were left out.` : '';
      put($('tail-state'), `Newest first.${skipped}`);
    });
  }
}

function line(event) {
  const kind = event.outcome ?? '';
  const name = (NAMES[kind] ?? kind) + (event.output && event.output !== 'main' ? ` ${event.output}` : '');
  return element(
    'li',
    { 'data-kind': kind },
    element('time', {}, clock(event.time ?? event.at)),
    ' ',
    element('b', {}, name),
    ' ',
    element('span', { class: 'id' }, event.message_id ?? '–'),
    ' ',
    element('span', { class: 'soft' }, event.consumer_id ?? ''),
    ' ',
    element('span', {}, detail(event)),
  );
}

function detail({ outcome, attempt, due, fields = {} }) {
  const text =
    outcome === 'retry'
      ? `attempt ${attempt}, due ${clock(due)}`
      : outcome === 'dead-letter'
        ? `${fields.reason ?? ''}: ${fields.error ?? ''}`
        : Object.entries(fields).map(([name, value]) => `${name}=${value}`).join(' ');
  return text.length > TEXT_MAX ? `${text.slice(0, TEXT_MAX)}…` : text;
}
