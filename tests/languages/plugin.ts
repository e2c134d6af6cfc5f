// What tests/languages.rs asks of the shim: the property `do` of a message says what.

import { addProperty, config, context, drop, emit, emitAll, type Message, type Outcome, parseExact, plugin } from "./host";
import { reject, retry } from "./host";

function process(message: Message): Outcome {
  const asked = JSON.parse(message.body);
  switch (asked.do) {
    case "add":
      return emit(addProperty(message.body, asked.name, asked.value));
    case "exact":
      return emit(JSON.stringify(parseExact(message.body)));
    case "random":
      return emit({ random: Math.random(), uuid: crypto.randomUUID() });
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
      return emit({ channel: context.channel(), consumer: context.consumerId(), received: context.receivedMs() });
    case "log":
      console.debug("to", "debug");
      console.log("to the log:", { total: 1.5 }, [1, null]);
      console.warn("to warn", new TypeError("as a value"));
      console.error("to error");
      return drop();
    case "several":
      return emitAll([{ body: { n: 1 } }, { body: '{"n": 2.0}' }]);
    case "retry":
      return retry(asked.delay);
    case "reject":
      return reject("asked for");
    case "throw-text":
      throw "a text";
    case "throw":
      return broken();
    default:
      throw new Error(`unknown: ${asked.do}`);
  }
}

function broken(): Outcome {
  throw new RangeError("asked for", { cause: new Error("the cause") });
}

export const processor = plugin(process);
