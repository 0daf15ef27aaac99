"""Reading a request body as leniently, and refusing it in the same words, as pydantic does for vLLM.

vLLM takes `"stream": "yes"` and `"max_tokens": "12"`, and a test client may send either. What is refused comes back as
HTTP 400 of type `Bad Request` with a listing of the errors; each reader below raises that.
"""

import json
from http import HTTPStatus
from typing import Any

import msgspec

# An error repeats the offending value, up to this many characters (vLLM bounds it so since 0.30).
_MAX_ECHO_CHARS = 200


class ApiError(Exception):
    """A refusal in the engine's envelope: HTTP status, type, message, and the parameter at fault."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The JSON body."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return msgspec.json.encode({"error": error})


def invalid(message: str, param: str | None = None, value: object = None) -> ApiError:
    """A request that is well formed and makes no sense: 400 `BadRequestError`, parameter and value in the message."""
    extras = [f"{name}={what}" for name, what in (("parameter", param), ("value", value)) if what is not None]
    return ApiError(400, "BadRequestError", f"{message} ({', '.join(extras)})" if extras else message, param)


def malformed(kind: str, where: str, message: str, value: object, context: dict[str, Any] | None = None) -> ApiError:
    """A request of the wrong form: 400 `Bad Request` with pydantic's listing of one error."""
    error = {"type": kind, "loc": where, "msg": message, "input": _echo(value)}
    if context is not None:
        error["ctx"] = context
    return ApiError(400, HTTPStatus.BAD_REQUEST.phrase, f"1 validation error:\n  {error}", where)


def _echo(value: object) -> object:
    if isinstance(value, str):
        return value if len(value) <= _MAX_ECHO_CHARS else value[:_MAX_ECHO_CHARS] + "...[truncated]"
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return str(value)


def read_object(data: bytes) -> dict[str, Any]:
    """The JSON object in a request body.

    Raises:
        ApiError: it is not JSON, or not an object.
    """
    if not data:
        raise malformed("missing", "body", "Field required", None)
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _read_slowly(data)
    if not isinstance(body, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise malformed("model_attributes_type", "body", message, body)
    return body


def _read_slowly(data: bytes) -> Any:
    """Read with the decoder vLLM's framework uses, which takes more and words the complaints.

    What it takes more is NaN and lone surrogates. The latter cannot be written back as UTF-8 and become `?`.
    """
    try:
        return json.loads(json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "replace"))
    except json.JSONDecodeError as error:
        context = {"error": error.msg}
        raise malformed("json_invalid", f"body.{error.pos}", "JSON decode error", {}, context) from None
    except UnicodeDecodeError:
        raise ApiError(400, HTTPStatus.BAD_REQUEST.phrase, "There was an error parsing the body") from None


_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
_FALSE = frozenset({"0", "false", "f", "no", "n", "off"})


def flag(body: dict[str, Any], name: str, default: bool, where: str = "body") -> bool:
    """A truth value; absent and null are the default."""
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    if isinstance(value, str):
        word = value.lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        message = "Input should be a valid boolean, unable to interpret input"
        raise malformed("bool_parsing", f"{where}.{name}", message, value)
    raise malformed("bool_type", f"{where}.{name}", "Input should be a valid boolean", value)


def integer(body: dict[str, Any], name: str) -> int | None:
    """A whole number; absent and null are None."""
    value = body.get(name)
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            message = "Input should be a valid integer, unable to parse string as an integer"
            raise malformed("int_parsing", f"body.{name}", message, value) from None
    raise malformed("int_type", f"body.{name}", "Input should be a valid integer", value)


def number(body: dict[str, Any], name: str) -> float | None:
    """A number; absent and null are None."""
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            message = "Input should be a valid number, unable to parse string as a number"
            raise malformed("float_parsing", f"body.{name}", message, value) from None
    raise malformed("float_type", f"body.{name}", "Input should be a valid number", value)


def mapping(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    """An object; absent and null are None."""
    value = body.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise malformed("dict_type", f"body.{name}", "Input should be a valid dictionary", value)
