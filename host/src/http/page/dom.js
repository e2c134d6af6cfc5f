// Elements, numbers and times. Text from outside becomes text nodes only, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children. A child that is no element becomes text. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (attribute === 'onclick') made.addEventListener('click', value);
    else if (value !== undefined && value !== null && value !== false) made.setAttribute(attribute, value);
  }
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** Sets the text of an element, if it is another one: what a screen reader reads is not replaced without need. */
export function put(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Sets or removes an attribute, if that changes anything. */
export function mark(target, attribute, value) {
  if (value === null || value === undefined) target.removeAttribute(attribute);
  else if (target.getAttribute(attribute) !== String(value)) target.setAttribute(attribute, value);
}

/**
 * Rows of a table body, one for each item. A row stays the same element as long as its key is there, so that the focus and a
 * reader's place survive. `columns` are [title, (item) => text or element]; an element is made once for each row.
 */
export function rows(body, items, key, columns) {
  const known = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let place = body.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let row = known.get(id);
    known.delete(id);
    if (!row) {
      row = element('tr', { role: 'row', 'data-key': id });
      for (const [title] of columns) row.append(element('td', { role: 'cell', 'data-title': title }));
    }
    columns.forEach(([, value], at) => {
      const cell = row.cells[at];
      const content = cell.firstElementChild ? null : value(item);
      if (content instanceof Node) cell.append(content);
      else if (content !== null) put(cell, content);
    });
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
  }
  for (const row of known.values()) row.remove();
}

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });

/** A number with separators; a dash for what is not known. */
export function number(value) {
  return typeof value === 'number' ? whole.format(value) : '–';
}

export function rate(value) {
  return typeof value === 'number' ? (value < 100 ? tenths : whole).format(value) : '–';
}

/** A length of time as people say it. */
export function span(ms) {
  if (typeof ms !== 'number') return '–';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${tenths.format(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** The local time of day of an RFC 3339 time, with the date if it is not today. */
export function clock(text) {
  const time = new Date(text);
  if (!text || Number.isNaN(time.getTime())) return '–';
  const day = time.toDateString() === new Date().toDateString() ? '' : `${time.toLocaleDateString()} `;
  return day + time.toLocaleTimeString([], { hourCycle: 'h23' });
}

/** The part of a digest that people compare. */
export function short(digest) {
  return digest ? String(digest).slice(0, 12) : '–';
}

/** Says something in a live region, also when it is the same sentence again. */
export function say(region, text) {
  region.textContent = '';
  region.textContent = text;
}
