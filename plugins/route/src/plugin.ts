// Takes an order apart: every line becomes a result of its own, and a large order goes to the output `fraud` as well.
//
// host.toml configures the output `fraud`. Configuration of the plugin: `fraud_from`, the total from which an order is
// large; 10000 without it.

import { config, emitAll, type ExactNumber, type Message, type Outcome, parseExact, plugin, reject } from "./host";

/** An order as `parseExact` reads it: for writing, not for calculations. */
type ExactOrder = { order: string; customer?: string; total: ExactNumber; lines: object[] };

function process(message: Message): Outcome {
  // Once with numbers to compare, and once with numbers that keep their digits in the results.
  const order: unknown = JSON.parse(message.body);
  if (!isOrder(order)) {
    return reject("an order has `order`, a number `total`, and objects in `lines`");
  }
  const exact: ExactOrder = parseExact(message.body);

  const results: { to?: string; body: object }[] = exact.lines.map((line, index) => ({
    body: { order: exact.order, line: index + 1, ...line },
  }));
  if (order.total >= fraudFrom()) {
    results.push({ to: "fraud", body: { order: exact.order, customer: exact.customer, total: exact.total } });
  }
  // An order without lines, and not large, has no result: that is `drop`.
  return emitAll(results);
}

function isOrder(value: any): value is { total: number } {
  return (
    typeof value.order === "string" &&
    typeof value.total === "number" &&
    Array.isArray(value.lines) &&
    value.lines.every((line: unknown) => typeof line === "object" && line !== null && !Array.isArray(line))
  );
}

function fraudFrom(): number {
  const text = config("fraud_from") ?? "10000";
  const from = Number(text);
  if (Number.isNaN(from)) {
    throw new Error(`the configuration fraud_from is not a number: ${text}`);
  }
  return from;
}

export const processor = plugin(process);
