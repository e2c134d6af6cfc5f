// The types of the world `plugin` in wit/plugin.wit, as componentize-qjs maps them: a 64-bit number is a number, and
// exact up to 2^53; none is null; an error of a function is thrown. wit/ has the full documentation.

declare module "host:plugin/processor@1.0.0" {
  /** A published message. */
  export interface Message {
    /** The message's `message_id`: the string itself, or the JSON text of a number. */
    id: string;
    /** The whole message, one JSON object, byte for byte as published. */
    body: string;
    /** Number of the attempt: 1 at first, one more after each retry. */
    attempt: number;
  }

  /** One result and its destination. */
  export interface Output {
    /** Name of an output that the operator has configured, or null for the main output. */
    to: string | null;
    /** The JSON text of an object. */
    body: string;
  }

  /** The plugin's decision about a message. */
  export type Outcome =
    | { tag: "emit"; val: string }
    | { tag: "emit-all"; val: Output[] }
    | { tag: "drop" }
    | { tag: "retry"; val: number | null }
    | { tag: "reject"; val: string };

  /** What a plugin exports, under the name `processor`. */
  export interface Processor {
    /** Processes one message. A thrown text is a failure. */
    process(message: Message): Outcome;
  }
}

declare module "host:plugin/context@1.0.0" {
  const context: {
    /** The Pub/Sub channel on which the message was published. */
    channel(): string;
    /** When the host took the message in, in milliseconds since 1970, by the clock of Redis. */
    receivedMs(): number;
    /** Id of the consumer, as in `consumer:ids` and in each result. */
    consumerId(): string;
    /** Number of the plugin version in this host: 1 at the start of the host, one more after each reload. */
    generation(): number;
  };
  export default context;
}

declare module "wasi:logging/logging@0.1.0-draft" {
  export type Level = "trace" | "debug" | "info" | "warn" | "error" | "critical";
  const logging: {
    log(level: Level, context: string, message: string): void;
  };
  export default logging;
}

declare module "wasi:config/store@0.2.0-rc.1" {
  const store: {
    get(key: string): string | null;
    getAll(): [string, string][];
  };
  export default store;
}

declare module "wasi:random/random@0.2.0" {
  const random: {
    getRandomBytes(len: number): ArrayLike<number>;
    /** Loses bits: a number holds 53 of the 64. */
    getRandomU64(): number;
  };
  export default random;
}

declare module "wasi:clocks/wall-clock@0.2.0" {
  export interface Datetime {
    seconds: number;
    nanoseconds: number;
  }
  const clock: {
    now(): Datetime;
    resolution(): Datetime;
  };
  export default clock;
}

declare module "wasi:clocks/monotonic-clock@0.2.0" {
  export interface Pollable {
    ready(): boolean;
    block(): void;
    [Symbol.dispose](): void;
  }
  const clock: {
    /** Nanoseconds since a moment in the past. */
    now(): number;
    resolution(): number;
    subscribeInstant(when: number): Pollable;
    subscribeDuration(when: number): Pollable;
  };
  export default clock;
}
