// Whether a host is there. It is not while the component is built, when the code outside of functions runs; a call of
// the host would end the build then, without a word on where the call is.

let running = false;

/** The component is built, and an instance of it processes a message. */
export function started(): void {
  running = true;
}

/** Throws while the component is built; the stack of the error leads to the call. */
export function needHost(what: string): void {
  if (!running) {
    throw new Error(`${what} needs the host, which is not there during the build: move the call into a function`);
  }
}
