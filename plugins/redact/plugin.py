"""Replaces e-mail addresses and card numbers in all text values of a message.

Configuration: `kinds`, the kinds to redact, separated by commas; `email,card` without it.
"""

import re

from host import Message, Outcome, config, emit, map_texts, plugin

EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,63}")

# 13 to 19 digits, with single spaces or hyphens between them, that are not part of a longer number.
CARD = re.compile(r"(?<!\d)(?<!\d[ -])\d(?:[ -]?\d){12,18}(?![ -]?\d)", re.ASCII)


def has_check_digit(number: str) -> bool:
    """Whether the last digit is right by the formula of Luhn, which every card number follows."""
    digits = [int(char) for char in number if char.isdigit()]
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def redact_emails(text: str) -> str:
    return EMAIL.sub("[email]", text) if "@" in text else text


def redact_cards(text: str) -> str:
    return CARD.sub(lambda match: "[card]" if has_check_digit(match.group()) else match.group(), text)


KINDS = {"email": redact_emails, "card": redact_cards}


def process(message: Message) -> Outcome:
    kinds = [kind.strip() for kind in config("kinds", "email,card").split(",")]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        # A failure and not `reject`: the message is right, the configuration is not.
        raise ValueError(f"unknown kind in the configuration `kinds`: {', '.join(unknown)}; known: {', '.join(KINDS)}")

    def redact(text: str) -> str:
        for kind in kinds:
            text = KINDS[kind](text)
        return text

    return emit(map_texts(message.body, redact))


Processor = plugin(process)
