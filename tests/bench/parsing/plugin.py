"""`enrich` with the module `json`, which writes 12.50 as 12.5."""

import json
import secrets

from host import Message, Outcome, emit, plugin


def process(message: Message) -> Outcome:
    body = json.loads(message.body)
    body["random_property"] = secrets.token_hex(8)
    return emit(json.dumps(body))


Processor = plugin(process)
