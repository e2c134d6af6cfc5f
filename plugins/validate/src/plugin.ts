// Passes messages on that follow a JSON Schema (2020-12), and rejects all others with the path of the first error.
//
// The schema is src/schema.json. The configuration `schema`, the text of a schema, takes its place.

import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { config, emit, type Message, type Outcome, plugin, reject } from "./host";
import builtIn from "./schema.json";

// Strict about unknown keywords, so that a misspelt one is an error; not about types, which a schema may leave out.
const ajv = new Ajv2020({ strictTypes: false });

// Compiled while the component is built, so that an instance starts with the finished check.
const check = ajv.compile(builtIn);

// The check for the configured schema, made for the first message: configuration does not exist during the build, and
// does not change while an instance exists.
let configured: ValidateFunction | undefined;

function process(message: Message): Outcome {
  const schema = config("schema");
  if (schema !== undefined) {
    configured ??= ajv.compile(JSON.parse(schema));
  }
  const valid = configured ?? check;
  if (!valid(JSON.parse(message.body))) {
    return reject(describe(valid.errors?.[0]));
  }
  // The text as it came, and not the parsed object: every digit stays.
  return emit(message.body);
}

/** Such as: /lines/0/quantity must be >= 1. */
function describe(error: ErrorObject | undefined): string {
  return `${error?.instancePath || "the message"} ${error?.message ?? "is wrong"}`;
}

export const processor = plugin(process);
