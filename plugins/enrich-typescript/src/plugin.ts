// Adds `random_property` to every message and leaves everything else unchanged, to the last digit.

import { addProperty, emit, type Message, type Outcome, plugin } from "./host";

function process(message: Message): Outcome {
  const [random] = crypto.getRandomValues(new BigUint64Array(1));
  const text = random!.toString(16).padStart(16, "0");
  return emit(addProperty(message.body, "random_property", text));
}

export const processor = plugin(process);
