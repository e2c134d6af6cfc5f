"""What tests/languages.rs asks of the helper: the property `do` of a message says what."""

import json
import logging
import random
import secrets
import time

from host import (
    Message,
    Outcome,
    add_property,
    config,
    context,
    drop,
    dumps,
    emit,
    emit_all,
    loads,
    map_texts,
    plugin,
    reject,
    retry,
)


def process(message: Message) -> Outcome:
    asked = json.loads(message.body)
    match asked["do"]:
        case "add":
            return emit(add_property(message.body, asked["name"], asked["value"]))
        case "exact":
            return emit(dumps(loads(message.body)))
        case "texts":
            return emit(map_texts(message.body, lambda text: text.replace("tea", "coffee")))
        case "random":
            return emit({"random": random.random(), "uuid": secrets.token_hex(16)})
        case "many-randoms":
            values = [random.random() for _ in range(20_000)]
            inside = all(0 <= value < 1 for value in values)
            return emit({"different": len(set(values)), "inside": inside, "mean": round(sum(values) / len(values), 1)})
        case "time":
            return emit({"ms": int(time.time() * 1000)})
        case "config":
            return emit({"value": config(asked["key"])})
        case "context":
            facts = {"channel": context.channel(), "consumer": context.consumer_id(), "received": context.received_ms()}
            return emit(facts)
        case "log":
            logging.debug("to debug")
            logging.info("to the log: %s", asked)
            logging.getLogger("orders").warning("to warn")
            logging.error("to error")
            return drop()
        case "several":
            return emit_all([{"n": 1}, '{"n": 2.0}'])
        case "retry":
            return retry(asked.get("delay"))
        case "reject":
            return reject("asked for")
        case "throw":
            return broken()
        case other:
            raise ValueError(f"unknown: {other}")


def broken() -> Outcome:
    raise OverflowError("asked for")


Processor = plugin(process)
