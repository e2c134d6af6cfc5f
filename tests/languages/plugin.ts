// The plugin of tests/conformance.rs in TypeScript: the property `do` of a message says what. README.md lists the words.

import { addProperty, config, context, drop, emit, emitAll, type Message, type Outcome, parseExact, plugin } from "./host";
import { reject, retry } from "./host";

// The tests write another number into the component.
const VERSION = "typescript-version-1";

// Messages of this instance that asked for its state.
let calls = 0;

function process(message: Message): Outcome {
  const asked = JSON.parse(message.body);
  switch (asked.do) {
    case undefined:
      return emit({ version: VERSION });
    case "echo":
      return emit(message.body);
    case "add":
      return emit(addProperty(message.body, asked.name, parseExact(message.body).value));
    case "exact":
      return emit({ text: JSON.stringify(parseExact(message.body).value) });
    case "ordinary":
      return emit({ text: JSON.stringify(asked.value) });
    case "id":
      return emit({ id: message.id });
    case "attempt":
      return message.attempt < (asked.until ?? 1) ? retry(asked.delay) : emit({ attempt: message.attempt });
    case "random":
      return emit({ random: crypto.randomUUID() });
    case "many-randoms": {
      const values = Array.from({ length: 20_000 }, () => Math.random());
      const inside = values.every((value) => value >= 0 && value < 1);
      const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
      return emit({ different: new Set(values).size, inside, mean: Math.round(mean * 10) / 10 });
    }
    case "time":
      return emit({ ms: Date.now() });
    case "config":
      return emit({ value: config(asked.key) ?? null });
    case "context":
      return emit({
        channel: context.channel(),
        consumer: context.consumerId(),
        received: context.receivedMs(),
        generation: context.generation(),
      });
    case "log":
      console.trace("to trace: é😀");
      console.debug("to", "debug: é😀");
      console.info("to info: é😀", { total: 1.5 }, [1, null]);
      console.warn("to warn: é😀", new TypeError("as a value"));
      console.error("to error: é😀");
      return drop();
    case "several":
      return emitAll([{ body: { n: 1 } }, { body: '{"n": 2.0}' }]);
    case "outputs":
      return emitAll([
        { to: "audit", body: { n: 1 } },
        { body: { n: 2 } },
        { to: "fraud", body: { n: 3 } },
        { to: "audit", body: { n: 4 } },
      ]);
    case "unknown-output":
      return emitAll([{ to: "nowhere", body: {} }]);
    case "none":
      return emitAll([]);
    case "raw":
      return emit(asked.result as string);
    case "drop":
      return drop();
    case "retry":
      return retry(asked.delay);
    case "reject":
      return reject("asked for: é😀");
    case "fail":
      throw "asked for: é😀";
    case "throw":
      return broken();
    case "state":
      calls += 1;
      return emit({ calls });
    case "loop":
      for (;;);
    case "eat": {
      const eaten = [];
      for (;;) {
        eaten.push(new Uint8Array(1 << 20).fill(1));
      }
    }
    default:
      throw new Error(`unknown: ${asked.do}`);
  }
}

function broken(): Outcome {
  throw new RangeError("asked for: é😀", { cause: new Error("the cause") });
}

export const processor = plugin(process);
