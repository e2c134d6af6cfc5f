// Charts over the last ten minutes, drawn by uPlot. Every chart has the same time line, with the changes of versions on it.

import { KINDS } from './changes.js';
import { element, number, put, rate, span } from './dom.js';

const WINDOW_S = 600;
const HEIGHT = 180;

const CHARTS = [
  {
    id: 'throughput',
    title: 'Throughput',
    unit: 'messages a second',
    say: rate,
    lines: [
      { name: 'settled', label: 'settled, as the hosts say', colour: '--line-1' },
      { name: 'results', label: 'results written', colour: '--line-2', dash: [5, 4] },
    ],
  },
  {
    id: 'latency',
    title: 'Latency',
    unit: 'from the inbox to the outcome, this host',
    say: (seconds) => span(typeof seconds === 'number' ? seconds * 1000 : undefined),
    lines: [
      { name: 'median', label: 'half of the messages', colour: '--line-1' },
      { name: 'p99', label: '99 of 100', colour: '--line-2', dash: [5, 4] },
    ],
  },
  {
    id: 'inbox',
    title: 'Inbox',
    unit: 'deliveries',
    say: number,
    lines: [
      { name: 'waiting', label: 'waiting', colour: '--line-1' },
      { name: 'progress', label: 'in progress', colour: '--line-2', dash: [5, 4] },
    ],
  },
  {
    id: 'oldest',
    title: 'Age of the oldest delivery',
    unit: 'time in the inbox',
    say: (seconds) => span(typeof seconds === 'number' ? seconds * 1000 : undefined),
    lines: [{ name: 'oldest', label: 'oldest', colour: '--line-1' }],
  },
  {
    id: 'lag',
    title: 'Position lag',
    unit: 'messages heard and not known to be in the inbox',
    say: number,
    lines: [{ name: 'lag', label: 'largest of all hosts', colour: '--line-1' }],
  },
];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** All charts, with their common points in time. */
export class Charts {
  constructor(container, changes) {
    this.changes = changes;
    this.times = [];
    this.values = new Map(CHARTS.flatMap((chart) => chart.lines.map((line) => [line.name, []])));
    this.probation = [];
    this.charts = CHARTS.map((chart) => new Chart(container, chart, this));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#each((chart) => chart.make()));
    new ResizeObserver(() => this.#each((chart) => chart.resize())).observe(container);
    document.addEventListener('visibilitychange', () => this.draw());
  }

  /** Adds a point in time. What is not known leaves a hole in its line. */
  add(time, values, isProbation) {
    // The clock of the server may be set back.
    if (this.times.length && time <= this.times.at(-1)) return;
    this.times.push(time);
    this.probation.push(isProbation);
    for (const [name, line] of this.values) line.push(values[name] ?? null);
    while (this.times[0] < time - WINDOW_S) {
      for (const line of [this.times, this.probation, ...this.values.values()]) line.shift();
    }
    this.draw();
  }

  /** A hole in all lines: nothing is known of the time until the next point. */
  interrupt() {
    if (!this.times.length) return;
    const time = this.times.at(-1) + 0.001;
    this.times.push(time);
    this.probation.push(false);
    for (const line of this.values.values()) line.push(null);
  }

  draw() {
    if (!document.hidden) this.#each((chart) => chart.draw());
  }

  #each(act) {
    this.charts.forEach(act);
  }
}

class Chart {
  constructor(container, chart, all) {
    this.chart = chart;
    this.all = all;
    this.plot = element('div', { class: 'plot', role: 'img', id: `chart-${chart.id}` });
    this.values = chart.lines.map(() => element('b', {}, '–'));
    const legend = chart.lines.map((line, at) =>
      element('span', { class: `key key-${at + 1}` }, this.values[at], ` ${line.label}`),
    );
    this.readout = element('span', { class: 'readout', 'aria-hidden': 'true' });
    const head = element('figcaption', {}, element('h3', {}, chart.title), element('span', {}, chart.unit), this.readout);
    this.figure = element('figure', {}, head, this.plot, element('p', { class: 'legend' }, ...legend));
    container.append(this.figure);
    this.make();
  }

  /** Makes the chart, or makes it anew in other colours. */
  make() {
    this.made?.destroy();
    const { lines, say } = this.chart;
    const axis = { stroke: colour('--soft'), grid: { stroke: colour('--grid'), width: 1 }, ticks: { show: false } };
    const series = lines.map((line, at) => ({
      label: line.label,
      stroke: colour(line.colour),
      width: 2,
      dash: line.dash,
      fill: at === 0 ? `${colour(line.colour)}22` : undefined,
      points: { show: false },
    }));
    const options = {
      width: this.plot.clientWidth || 320,
      height: HEIGHT,
      legend: { show: false },
      cursor: { points: { size: 6 }, drag: { setScale: false } },
      scales: { x: { range: () => this.#range() }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.1 : 1] } },
      axes: [
        { ...axis, values: [[60, '{HH}:{mm}'], [1, '{HH}:{mm}:{ss}']], space: 70 },
        // Of things that are counted there is no half.
        { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (say !== number || Number.isInteger(tick) ? say(tick) : '')) },
      ],
      series: [{}, ...series],
      hooks: {
        drawClear: [(plot) => this.#shade(plot)],
        draw: [(plot) => this.#marks(plot)],
        setCursor: [(plot) => this.#read(plot)],
      },
    };
    this.made = new uPlot(options, this.#data(), this.plot);
  }

  resize() {
    const width = this.plot.clientWidth;
    if (width && width !== this.made.width) this.made.setSize({ width, height: HEIGHT });
  }

  draw() {
    this.made.setData(this.#data());
    const { title, unit, say, lines } = this.chart;
    const said = lines.map((line, at) => {
      const values = this.all.values.get(line.name);
      put(this.values[at], say(values.at(-1) ?? undefined));
      const largest = values.reduce((max, value) => (value === null ? max : Math.max(max, value)), 0);
      return `${line.label}: now ${say(values.at(-1) ?? undefined)}, at most ${say(largest)}`;
    });
    const marks = this.#marked().map((change) => KINDS[change.event]?.name);
    const changed = marks.length ? ` Changes of versions: ${marks.join(', ')}.` : '';
    // Nothing reads it aloud by itself; whoever comes to the chart hears the state of the moment.
    this.plot.setAttribute('aria-label', `${title}, ${unit}, last ten minutes. ${said.join('; ')}.${changed}`);
    this.figure.hidden = this.chart.id === 'latency' && !this.all.values.get('median').some((value) => value !== null);
  }

  #data() {
    return [this.all.times, ...this.chart.lines.map((line) => this.all.values.get(line.name))];
  }

  #range() {
    const last = this.all.times.at(-1) ?? Date.now() / 1000;
    // The line grows from one minute to the whole window.
    const first = this.all.times[0] ?? last;
    return [Math.max(last - WINDOW_S, Math.min(first, last - 60)), last];
  }

  #marked() {
    const [first, last] = this.#range();
    return this.all.changes.all.filter(({ time }) => time / 1000 >= first && time / 1000 <= last).reverse();
  }

  /** Shades the times in which a version was on probation. */
  #shade(plot) {
    const { times, probation } = this.all;
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = colour('--probation');
    for (let at = 1; at < times.length; at += 1) {
      if (!probation[at]) continue;
      const [from, to] = [times[at - 1], times[at]].map((time) => plot.valToPos(time, 'x', true));
      ctx.fillRect(Math.max(from, bbox.left), bbox.top, to - Math.max(from, bbox.left), bbox.height);
    }
    ctx.restore();
  }

  #marks(plot) {
    const { ctx, bbox } = plot;
    const scale = devicePixelRatio || 1;
    ctx.save();
    ctx.setLineDash([]);
    ctx.lineWidth = 1.5 * scale;
    ctx.font = `bold ${12 * scale}px system-ui, sans-serif`;
    ctx.textAlign = 'center';
    for (const change of this.#marked()) {
      const kind = KINDS[change.event];
      if (!kind) continue;
      const x = plot.valToPos(change.time / 1000, 'x', true);
      ctx.strokeStyle = ctx.fillStyle = colour(kind.colour);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top + 14 * scale);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(kind.letter, x, bbox.top + 11 * scale);
    }
    ctx.restore();
  }

  #read(plot) {
    const at = plot.cursor.idx;
    const time = at === null || at === undefined ? undefined : this.all.times[at];
    if (time === undefined || plot.cursor.left < 0) return put(this.readout, '');
    const values = this.chart.lines.map((line) => this.chart.say(this.all.values.get(line.name)[at] ?? undefined));
    put(this.readout, `${new Date(time * 1000).toLocaleTimeString([], { hourCycle: 'h23' })}: ${values.join(' · ')}`);
  }
}
