/** Any value as text for people: an `Error` with its stack, other objects as JSON. */
export function describe(value: unknown): string {
  if (value instanceof Error) {
    const cause = value.cause === undefined ? "" : `\ncaused by ${describe(value.cause)}`;
    return `${value.name}: ${value.message}\n${value.stack ?? ""}`.trimEnd() + cause;
  }
  if (typeof value === "object" && value !== null) {
    try {
      return JSON.stringify(value) ?? String(value);
    } catch {
      // A cycle, or a BigInt.
      return String(value);
    }
  }
  return String(value);
}
