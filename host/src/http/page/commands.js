// Commands to the host that this page came from, each one only after a confirmation.

import { Refusal, command, read } from './api.js';
import { showStanding } from './changes.js';
import { $, number, put, say, short } from './dom.js';

/** Answers the question that is asked. */
let answer = () => {};

// The event `close` comes some time after a dialog has closed, perhaps when it already asks the next question. So an answer is
// taken from what the user does, and `close` counts only if no question is asked any more.
$('confirm').addEventListener('submit', (event) => answer(event.submitter?.value === 'yes'));
$('confirm').addEventListener('cancel', () => answer(false));
$('confirm').addEventListener('close', () => $('confirm').open || answer(false));

/** Asks whether to do something. Escape and the button Cancel say no, and so does another question. */
export function confirmed(title, text, verb) {
  answer(false);
  put($('confirm-title'), title);
  put($('confirm-text'), text);
  put($('confirm-yes'), verb);
  $('confirm').showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

/** Carries a command out and says what came of it; returns whether it was done. */
export async function carryOut(path, body, sentence = ({ done }) => `Done: ${done}.`) {
  try {
    const answer = await command(path, body);
    say($('done'), sentence(answer));
    return true;
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    say($('failed'), `Not done: ${error.message}`);
    return false;
  }
}

const COMMANDS = {
  pause: {
    title: 'Pause this host?',
    text: 'It takes no more messages to process. It goes on appending messages to the inbox; nothing is lost.',
    verb: 'Pause',
  },
  resume: { title: 'Resume this host?', text: 'It takes messages to process again.', verb: 'Resume' },
  reload: {
    title: 'Reload the plugin and the configuration?',
    text: 'The host looks at both files again, and swaps to another version if there is one.',
    verb: 'Reload',
    body: () => ({ force: $('force').checked }),
  },
  rollback: {
    title: 'Roll back the plugin?',
    text: 'The host goes back to the version that it used before.',
    verb: 'Roll back',
  },
  trust: { title: 'Trust the version in use?', text: 'Its probation ends now.', verb: 'Trust' },
};

/** Connects the buttons. `changed` is called when a command may have changed the host. */
export function connect(changed) {
  for (const [name, { title, text, verb, body }] of Object.entries(COMMANDS)) {
    $(`do-${name}`).addEventListener('click', async () => {
      if ((await confirmed(title, text, verb)) && (await carryOut(name, body?.() ?? {}))) changed();
    });
  }
  $('scale').addEventListener('submit', async (event) => {
    event.preventDefault();
    const consumers = Number($('consumers-wanted').value);
    const text = 'This holds until the next start, or the next change of the configuration.';
    const isSure = await confirmed(`Change this host to ${number(consumers)} consumers?`, text, 'Change');
    if (isSure && (await carryOut('consumers', { consumers }))) changed();
  });
}

/** Shows what this host says of itself. */
export async function showStatus() {
  const status = await read('status');
  put($('own-version'), `${short(status.digest)}, generation ${number(status.generation)}`);
  showStanding($('own-standing'), status);
  put($('own-consumers'), number(status.consumers));
  const paused = status.paused ?? null;
  put($('own-work'), paused === null ? 'not said' : paused ? 'paused' : 'processes messages');
  $('do-pause').disabled = paused === true;
  $('do-resume').disabled = paused === false;
  // The version before is kept only as long as the probation lasts.
  for (const id of ['do-rollback', 'do-trust']) $(id).disabled = status.state !== 'probation';
  if (!$('consumers-wanted').value) $('consumers-wanted').value = status.consumers;
  return status;
}
