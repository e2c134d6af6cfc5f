"""Adds `random_property` to every message and leaves everything else unchanged, to the last digit."""

import secrets

from host import Message, Outcome, add_property, emit, plugin


def process(message: Message) -> Outcome:
    return emit(add_property(message.body, "random_property", secrets.token_hex(8)))


Processor = plugin(process)
