// `enrich` with the JSON functions of JavaScript, which round long numbers.

import { emit, type Message, type Outcome, plugin } from "./host";

function process(message: Message): Outcome {
  const [random] = crypto.getRandomValues(new BigUint64Array(1));
  const body = JSON.parse(message.body);
  body.random_property = random!.toString(16).padStart(16, "0");
  return emit(JSON.stringify(body));
}

export const processor = plugin(process);
