// The host's API: the token, requests, and streams of events. The token is kept for this tab only, and goes out in a header.

/** Relative, so that a proxy may put the host below a path of its own. */
const API = 'api/v1/';

const TOKEN = 'host-token';

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

/** What the host answered instead of what was asked for. A status of 0 means that there was no answer. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token.get()) headers.Authorization = `Bearer ${token.get()}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: 'no-store', redirect: 'error' });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Refusal(0, 'the host does not answer');
  }
  if (answer.ok) return answer;
  const text = await answer.json().then((body) => body.error, () => null);
  throw new Refusal(answer.status, text || `the host answered ${answer.status}`);
}

export async function read(path, filter = {}) {
  return (await ask(API + path + query(filter))).json();
}

/** The host's metrics, in the text format of OpenMetrics. */
export async function readMetrics() {
  return (await ask('metrics')).text();
}

export async function command(path, body = {}) {
  const options = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  return (await ask(API + path, options)).json();
}

function query(filter) {
  const given = Object.entries(filter).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}

/** Longest silence of a stream; the host says something at least every 15 s. */
const SILENCE_MS = 20000;

/**
 * Reads a stream of events until it ends, and calls `on(event, data)` for each. Returns when the host has closed the stream;
 * throws a Refusal when there is none, or when nothing came for too long.
 */
export async function follow(path, filter, on, signal) {
  const stop = new AbortController();
  const giveUp = () => stop.abort();
  signal?.addEventListener('abort', giveUp, { once: true });
  let silence = setTimeout(giveUp, SILENCE_MS);
  try {
    const answer = await ask(API + path + query(filter), { signal: stop.signal, headers: { Accept: 'text/event-stream' } });
    on('open', null);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const parse = parser(on);
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(giveUp, SILENCE_MS);
      parse(value);
    }
  } catch (error) {
    if (signal?.aborted || error instanceof Refusal) throw error;
    throw new Refusal(0, 'the host does not answer');
  } finally {
    clearTimeout(silence);
    signal?.removeEventListener('abort', giveUp);
    stop.abort();
  }
}

/** A parser of server-sent events, fed with pieces of text. */
export function parser(on) {
  let rest = '';
  let event = '';
  let data = [];
  return (piece) => {
    const lines = (rest + piece).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (data.length) on(event || 'message', JSON.parse(data.join('\n')));
        event = '';
        data = [];
      } else if (line.startsWith('event:')) event = line.slice(6).trim();
      else if (line.startsWith('data:')) data.push(line.slice(5).replace(/^ /, ''));
    }
  };
}
