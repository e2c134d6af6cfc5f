// `enrich` with the JSON functions of JavaScript, which round long numbers.

import { emit, type Message, type Outcome, plugin } from "./host";

function process(message: Message): Outcome {
  const random = crypto.getRandomValues(new Uint8Array(8));
  const body = JSON.parse(message.body);
  body.random_property = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return emit(JSON.stringify(body));
}

export const processor = plugin(process);
