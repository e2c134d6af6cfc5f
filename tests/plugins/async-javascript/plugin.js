// A plugin with an async function, which waits for promises.

const later = (value) => Promise.resolve().then(() => value);

export const processor = {
  async process(message) {
    const body = JSON.parse(await later(message.body));
    if (body.do === "reject") return { tag: "reject", val: `${await later("not")} wanted` };
    if (body.do === "fail") throw `${await later("cannot")} do that`;
    while (body.do === "loop") await later(null);
    return { tag: "emit", val: JSON.stringify({ version: "async", attempt: message.attempt }) };
  },
};
