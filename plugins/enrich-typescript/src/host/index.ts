// What a plugin in TypeScript needs from its host: outcomes, configuration, facts about the message, and JSON that
// keeps its digits. Importing this module also provides `console`, `crypto` and a real `Math.random` (globals.ts).
//
// Code outside of functions runs while the component is built: its results are part of the component, and calls of the
// host are not possible there. Ask for configuration, facts and randomness inside a function.

import "./globals";
import type { Message, Outcome, Output, Processor } from "host:plugin/processor@1.0.0";
import hostContext from "host:plugin/context@1.0.0";
import store from "wasi:config/store@0.2.0-rc.1";
import { describe } from "./describe";
import { needHost, started } from "./running";

export type { Message, Outcome, Output };

/** The export `processor` for a function. A thrown value is a failure, whose text has the stack of an `Error`. */
export function plugin(process: (message: Message) => Outcome): Processor {
  return {
    process(message) {
      started();
      // The engine takes the number for one with a sign.
      message.attempt >>>= 0;
      try {
        return process(message);
      } catch (thrown) {
        const text = describe(thrown);
        if (thrown instanceof Error) {
          // Nobody has meant it, so it is in the log at the first attempt, and not only in the dead letter after the last.
          console.error(text);
        }
        // The interface expects the text of the failure as the thrown value.
        throw text;
      }
    },
  };
}

/** One result: the JSON text of an object, or an object. An object loses digits if it came from `JSON.parse`. */
export function emit(result: string | object): Outcome {
  return { tag: "emit", val: text(result) };
}

/** Several results at once. `to` names a configured output; without `to` a result goes to the main output. */
export function emitAll(results: { to?: string; body: string | object }[]): Outcome {
  return { tag: "emit-all", val: results.map(({ to, body }) => ({ to: to ?? null, body: text(body) })) };
}

/** No result, on purpose. */
export function drop(): Outcome {
  return { tag: "drop" };
}

/** Another attempt, after this delay or one that the host chooses. */
export function retry(delayMs?: number): Outcome {
  // The engine takes the number for one with a sign, and would cut what is above 2^31.
  return { tag: "retry", val: delayMs === undefined ? null : Math.min(Math.max(delayMs, 0), 0xffffffff) | 0 };
}

/** The message itself is wrong: it becomes a dead letter at once, with this reason. */
export function reject(reason: string): Outcome {
  return { tag: "reject", val: reason };
}

/** A value of the plugin's configuration, or `undefined` for a key without a value. */
export function config(key: string): string | undefined {
  needHost("config");
  return store.get(key) ?? undefined;
}

/** Facts about the message in process and its consumer. Each call asks the host. */
export const context: typeof hostContext = hostContext;

/**
 * The JSON object `body` with one more property at its end. Everything else stays as it was written: every digit, the
 * order and the white space. If `body` has the property already, the host takes the last one, which is the new one.
 */
export function addProperty(body: string, name: string, value: unknown): string {
  const end = body.lastIndexOf("}");
  if (end < 0) {
    throw new TypeError(`addProperty: no JSON object: ${body.slice(0, 100)}`);
  }
  const property = JSON.stringify(name) + ":" + (JSON.stringify(value) ?? "null");
  const before = body.slice(0, end).trimEnd();
  return before + (before.endsWith("{") ? "" : ",") + property + "}";
}

/** A number that keeps its text. `JSON.stringify` writes the text; it is not for calculations. */
export type ExactNumber = { readonly rawJSON: string };

/**
 * `JSON.parse`, but numbers keep their text: 12.50, 9007199254740993 and 1E400 are written by `JSON.stringify` as they
 * were read. Properties whose names are whole numbers move to the front of their object, as always in JavaScript.
 */
export function parseExact(json: string): any {
  // The engine passes the text of a number to a reviver as well, but the wrong text if a name occurs twice. So numbers
  // become strings with a mark that occurs nowhere else.
  const mark = unusedIn(json);
  const marked = json.replace(TOKEN, (token) => (token.startsWith('"') ? token : `"${mark}${token}"`));
  return JSON.parse(marked, (_name, value: unknown) =>
    typeof value === "string" && value.startsWith(mark) ? raw.rawJSON(value.slice(1)) : value,
  );
}

/** A string, or a number that is not in the place of a name. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[-+.\deE]*(?!\s*:)/g;

/** A character for private use that is not in the text, as it is or as an escape. */
function unusedIn(json: string): string {
  for (let code = 0xe000; ; code++) {
    const mark = String.fromCharCode(code);
    if (!json.includes(mark) && !json.toLowerCase().includes(`\\u${code.toString(16)}`)) {
      return mark;
    }
  }
}

// Part of JavaScript since ES2026, and not yet of the types of every editor.
const raw = JSON as unknown as { rawJSON(text: string): ExactNumber };

function text(result: string | object): string {
  return typeof result === "string" ? result : JSON.stringify(result);
}
