// Latency out of the host's metrics: quantiles of what came between two readings of the histogram.

import { readMetrics } from './api.js';

const BUCKET = /^host_message_latency_seconds_bucket\{(?:.*,)?le="([^"]+)"[^}]*\} (\S+)/;

/** The upper bounds of the buckets with their counts, each with the counts of the buckets below. */
export function buckets(text) {
  const found = text.split('\n').map((line) => BUCKET.exec(line)).filter(Boolean);
  return found.map(([, bound, count]) => [bound === '+Inf' ? Infinity : Number(bound), Number(count)]);
}

/** The value below which this share of the new samples lies, or null without any. Between two bounds, samples count as even. */
export function quantile(share, before, now) {
  const fresh = now.map(([bound, count], at) => [bound, count - (before[at]?.[1] ?? 0)]);
  const total = fresh.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  const rank = share * total;
  const at = fresh.findIndex(([, count]) => count >= rank);
  const [lower, below] = at > 0 ? fresh[at - 1] : [0, 0];
  const [upper, upTo] = fresh[at];
  return upper === Infinity ? lower : lower + ((upper - lower) * (rank - below)) / (upTo - below);
}

export class Latency {
  constructor() {
    this.before = null;
    this.values = {};
  }

  /** Reads the metrics once. A host that was started again counts from 0. */
  async look() {
    const now = buckets(await readMetrics());
    const { before } = this;
    this.before = now;
    const isNew = !before || before.length !== now.length || (now.at(-1)?.[1] ?? 0) < before.at(-1)?.[1];
    this.values = isNew ? {} : { median: quantile(0.5, before, now), p99: quantile(0.99, before, now) };
  }
}
