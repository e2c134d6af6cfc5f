"""What a plugin in Python needs from its host: outcomes, configuration, the log, and JSON that keeps its digits.

Code outside of functions runs while the component is built: its results are part of the component, and calls of the
host are not possible there. Ask for configuration, time and random values inside a function. Import modules outside of
functions: no files exist when the plugin runs.
"""

import json
import logging
import re
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any, overload

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.processor import (
    Message,
    Outcome,
    Outcome_Drop,
    Outcome_Emit,
    Outcome_EmitAll,
    Outcome_Reject,
    Outcome_Retry,
    Output,
)
from wit_world.imports import context, logging as wasi_logging, store

__all__ = [
    "Err", "Message", "Outcome", "Output", "add_property", "config", "context", "drop", "dumps", "emit", "emit_all",
    "loads", "map_texts", "plugin", "reject", "retry",
]


def plugin(process: Callable[[Message], Outcome]) -> type[exports.Processor]:
    """The class `Processor` for a function. An exception is a failure, whose text is the traceback; the text of an
    `Err("text")` is that text alone."""

    class Processor(exports.Processor):
        def process(self, message: Message) -> Outcome:
            try:
                return process(message)
            except Err:
                raise
            except Exception as error:
                # The error first, as its text is what people look for. The first frame is this function.
                frames = traceback.format_tb(error.__traceback__)[1:]
                text = "".join([*traceback.format_exception_only(error), *frames]).strip()
                # Nobody has meant it, so it is in the log at the first attempt, and not only in the dead letter after
                # the last.
                wasi_logging.log(wasi_logging.Level.ERROR, "", text)
                raise Err(text) from None

    return Processor


def emit(result: str | dict[str, Any]) -> Outcome:
    """One result: the JSON text of an object, or a dict for `dumps`."""
    return Outcome_Emit(_text(result))


def emit_all(results: list[Output | str | dict[str, Any]]) -> Outcome:
    """Several results at once, for the main output or, as `Output(to, body)`, for a configured one."""
    return Outcome_EmitAll([item if isinstance(item, Output) else Output(None, _text(item)) for item in results])


def drop() -> Outcome:
    """No result, on purpose."""
    return Outcome_Drop()


def retry(delay_ms: int | None = None) -> Outcome:
    """Another attempt, after this delay or one that the host chooses."""
    return Outcome_Retry(delay_ms)


def reject(reason: str) -> Outcome:
    """The message itself is wrong: it becomes a dead letter at once, with this reason."""
    return Outcome_Reject(reason)


@overload
def config(key: str) -> str | None: ...
@overload
def config(key: str, default: str) -> str: ...
def config(key: str, default: str | None = None) -> str | None:
    """A value of the plugin's configuration."""
    value = store.get(key)
    return default if value is None else value


def add_property(body: str, name: str, value: Any) -> str:
    """The JSON object `body` with one more property at its end.

    Everything else stays as it was written: every digit, the order and the white space. If `body` has the property
    already, the host takes the last one, which is the new one.
    """
    end = body.rindex("}")
    before = body[:end].rstrip()
    return f"{before}{'' if before.endswith('{') else ','}{json.dumps(name)}:{dumps(value)}}}"


# A string of JSON and, if the string is the name of a property, the colon after it.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?')


def map_texts(body: str, change: Callable[[str], str]) -> str:
    """The JSON text `body` with `change` applied to every value that is a string, at any depth.

    Names of properties and everything else stay as they were written.
    """

    def changed(match: re.Match[str]) -> str:
        literal = match.group()
        if match.group(1):
            return literal
        before = json.loads(literal)
        after = change(before)
        return literal if after == before else json.dumps(after)

    return _STRING.sub(changed, body)


class Number(Decimal):
    """A number that is written as it was read: 12.50, 1E400, -0. A result of a calculation is a plain `Decimal`."""

    text: str

    def __new__(cls, text: str) -> "Number":
        number = super().__new__(cls, text)
        number.text = text
        return number


def loads(text: str) -> Any:
    """`json.loads`, but a number keeps its text: it is an `int` or, where an `int` or `float` would lose digits, a
    `Number`, which is a `Decimal`."""
    return json.loads(text, parse_float=Number, parse_int=_integer)


def dumps(value: Any) -> str:
    """`json.dumps` without spaces, which also writes every `Decimal` and refuses what is no JSON, such as NaN."""
    if isinstance(value, Number):
        return value.text
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{value} is no number of JSON")
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join([f"{json.dumps(name)}:{dumps(item)}" for name, item in value.items()]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join([dumps(item) for item in value]) + "]"
    return json.dumps(value, allow_nan=False)


def _integer(digits: str) -> "int | Number":
    # -0 as an int is 0, and Python refuses to read an int of more than 4,300 digits.
    return Number(digits) if digits == "-0" or len(digits) > 4_000 else int(digits)


def _text(result: str | dict[str, Any]) -> str:
    return result if isinstance(result, str) else dumps(result)


class _Handler(logging.Handler):
    """Lines of Python's `logging` in the host's log, with their level and the ids of the consumer and the message."""

    def emit(self, record: logging.LogRecord) -> None:
        level = wasi_logging.Level.TRACE
        for least, word in (
            (logging.CRITICAL, wasi_logging.Level.CRITICAL),
            (logging.ERROR, wasi_logging.Level.ERROR),
            (logging.WARNING, wasi_logging.Level.WARN),
            (logging.INFO, wasi_logging.Level.INFO),
            (logging.DEBUG, wasi_logging.Level.DEBUG),
        ):
            if record.levelno >= least:
                level = word
                break
        wasi_logging.log(level, record.name, self.format(record))


# The host decides which levels it shows.
logging.basicConfig(handlers=[_Handler()], format="%(message)s", level=1)
