"""The plugin of tests/conformance.rs in Python: the property `do` of a message says what. README.md lists the words."""

import json
import logging
import random
import secrets
import sys
import time

from host import (
    Err,
    Message,
    Outcome,
    Output,
    add_property,
    config,
    context,
    drop,
    dumps,
    emit,
    emit_all,
    loads,
    plugin,
    reject,
    retry,
)

# The tests write another number into the component.
VERSION = "python-version-1"

# Messages of this instance that asked for its state.
calls = 0


def process(message: Message) -> Outcome:
    asked = json.loads(message.body)
    match asked.get("do"):
        case None:
            return emit({"version": VERSION})
        case "echo":
            return emit(message.body)
        case "add":
            return emit(add_property(message.body, asked["name"], loads(message.body)["value"]))
        case "exact":
            return emit({"text": dumps(loads(message.body)["value"])})
        case "ordinary":
            return emit({"text": json.dumps(asked["value"])})
        case "id":
            return emit({"id": message.id})
        case "attempt" if message.attempt < asked.get("until", 1):
            return retry(asked.get("delay"))
        case "attempt":
            return emit({"attempt": message.attempt})
        case "random":
            return emit({"random": f"{random.random()} {secrets.token_hex(16)}"})
        case "many-randoms":
            values = [random.random() for _ in range(20_000)]
            inside = all(0 <= value < 1 for value in values)
            return emit({"different": len(set(values)), "inside": inside, "mean": round(sum(values) / len(values), 1)})
        case "time":
            return emit({"ms": int(time.time() * 1000)})
        case "config":
            return emit({"value": config(asked["key"])})
        case "context":
            return emit(
                {
                    "channel": context.channel(),
                    "consumer": context.consumer_id(),
                    "received": context.received_ms(),
                    "generation": context.generation(),
                }
            )
        case "log":
            logging.log(5, "to trace: é😀")
            logging.debug("to debug: é😀")
            logging.info("to %s: é😀", "info")
            logging.getLogger("orders").warning("to warn: é😀")
            logging.error("to error: é😀")
            logging.critical("to critical: é😀")
            return drop()
        case "print":
            print("to stdout: é😀")
            print("to stderr: é😀", file=sys.stderr)
            return drop()
        case "several":
            return emit_all([{"n": 1}, '{"n": 2.0}'])
        case "outputs":
            return emit_all(
                [Output("audit", '{"n": 1}'), {"n": 2}, Output("fraud", '{"n": 3}'), Output("audit", '{"n": 4}')]
            )
        case "unknown-output":
            return emit_all([Output("nowhere", "{}")])
        case "none":
            return emit_all([])
        case "raw":
            return emit(asked["result"])
        case "drop":
            return drop()
        case "retry":
            return retry(asked.get("delay"))
        case "reject":
            return reject("asked for: é😀")
        case "fail":
            raise Err("asked for: é😀")
        case "throw":
            return broken()
        case "state":
            global calls
            calls += 1
            return emit({"calls": calls})
        case "loop":
            while True:
                pass
        case "eat":
            eaten = []
            while True:
                eaten.append(bytearray(1 << 20))
        case other:
            raise ValueError(f"unknown: {other}")


def broken() -> Outcome:
    raise OverflowError("asked for: é😀")


Processor = plugin(process)
