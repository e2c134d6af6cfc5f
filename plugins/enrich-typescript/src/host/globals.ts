// `console`, `crypto` and `Math.random`, which QuickJS does not have, or has only with a frozen state: its generator
// would begin with the same state in every instance.

import random from "wasi:random/random@0.2.0";
import logging, { type Level } from "wasi:logging/logging@0.1.0-draft";
import { describe } from "./describe";
import { needHost } from "./running";

declare global {
  /** Lines in the host's log, with the ids of the consumer and the message. */
  var console: Record<"trace" | "debug" | "info" | "log" | "warn" | "error", (...values: unknown[]) => void>;

  var crypto: {
    /** Fills an array of integers of at most 65,536 bytes with random bits from the operating system. */
    getRandomValues<T extends ArrayBufferView>(array: T): T;
    /** A random UUID of version 4. */
    randomUUID(): string;
  };
}

function logger(level: Level): (...values: unknown[]) => void {
  return (...values) => {
    needHost("console");
    logging.log(level, "console", values.map(describe).join(" "));
  };
}

globalThis.console = {
  trace: logger("trace"),
  debug: logger("debug"),
  info: logger("info"),
  log: logger("info"),
  warn: logger("warn"),
  error: logger("error"),
};

// One call of the host brings the bits for 32 numbers. The store is empty in the built component, so that every
// instance begins with bits of its own.
const STORE_BYTES = 256;
let store = new DataView(new ArrayBuffer(0));
let used = 0;

Math.random = () => {
  if (used >= store.byteLength) {
    needHost("Math.random");
    const bytes = Uint8Array.from(random.getRandomBytes(STORE_BYTES));
    store = new DataView(bytes.buffer);
    used = 0;
  }
  // 53 bits, as many as a number holds.
  const high = store.getUint32(used) >>> 5;
  const low = store.getUint32(used + 4) >>> 6;
  used += 8;
  return (high * 0x4000000 + low) / 0x20000000000000;
};

// As in the standard.
const REQUEST_BYTES_MAX = 65_536;

globalThis.crypto = {
  getRandomValues(array) {
    if (array.byteLength > REQUEST_BYTES_MAX) {
      throw new RangeError(`getRandomValues: ${array.byteLength} bytes; the maximum is ${REQUEST_BYTES_MAX}`);
    }
    needHost("crypto.getRandomValues");
    const bytes = random.getRandomBytes(array.byteLength);
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(bytes);
    return array;
  },
  randomUUID() {
    const bytes = crypto.getRandomValues(new Uint8Array(16));
    bytes[6] = (bytes[6]! & 0x0f) | 0x40;
    bytes[8] = (bytes[8]! & 0x3f) | 0x80;
    const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  },
};
