// Adds `random_property` to every message and leaves everything else unchanged, to the last digit.

import { addProperty, emit, type Message, type Outcome, plugin } from "./host";

function process(message: Message): Outcome {
  const random = crypto.getRandomValues(new Uint8Array(8));
  const text = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return emit(addProperty(message.body, "random_property", text));
}

export const processor = plugin(process);
