"""Errors of the host: one code per kind, one document shape, one table to exit codes and HTTP.

Every part that answers a caller (wire, API, command line) uses these codes, so an error keeps its
kind from the ultravisor's refusal up to the exit code of `hostctl`. The document is

    {"error": {"code": str, "message": str, "details": object}}

and `details` says only what the caller may know (rules 31 and 35).
"""

from typing import Any, NamedTuple


class Kind(NamedTuple):
    """What a code means to each kind of caller."""

    exit: int
    http: int
    meaning: str


KINDS = {
    "usage": Kind(2, 400, "the request is not formed as the interface asks for"),
    "invalid": Kind(3, 422, "the manifest or the specification breaks a rule"),
    "not_found": Kind(4, 404, "no such partition, device or decision"),
    "conflict": Kind(5, 409, "the change contradicts what exists"),
    "state": Kind(5, 409, "not possible in the present state"),
    "unreachable": Kind(6, 503, "the daemon does not answer"),
    "timeout": Kind(7, 504, "not finished by its deadline"),
    "not_placed": Kind(8, 409, "well-formed, but the command partition found no place for it"),
    "denied": Kind(1, 403, "the caller may not do this"),
    "unsupported": Kind(1, 501, "this host can not do it"),
    "internal": Kind(1, 500, "a fault of the host itself; its log has more"),
}

EXIT_OK = 0
EXIT_FAILURE = 1
# More refusals of the API that have a status of their own in HTTP but share a code.
HTTP_METHOD = 405
HTTP_TOO_LARGE = 413
HTTP_TOO_MANY = 429


class HostError(Exception):
    """An error with a code of `KINDS`, a message for people and details for programs."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        if code not in KINDS:
            raise ValueError(f"unknown error code {code!r}; known: {', '.join(KINDS)}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    @property
    def exit_code(self) -> int:
        return KINDS[self.code].exit

    @property
    def http_status(self) -> int:
        return KINDS[self.code].http

    def document(self) -> dict[str, Any]:
        return error_document(self.code, self.message, self.details)


def error_document(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The one shape of an error on every wire."""
    return {"error": {"code": code, "message": message, "details": details or {}}}


def from_document(document: Any, fallback: str) -> HostError:
    """The exception for a received error document; `fallback` is the message for a broken one."""
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        return HostError("internal", fallback)
    code = error.get("code")
    if code not in KINDS:
        code = "internal"
    exception = HostError(code, str(error.get("message") or fallback))
    details = error.get("details")
    exception.details = details if isinstance(details, dict) else {}
    return exception


def from_exception(exception: BaseException) -> HostError:
    """Any exception as a HostError: errors of the wire keep their code, the rest is `internal`.

    The text of an unexpected exception stays in the log: it may name what the caller must not know.
    """
    if isinstance(exception, HostError):
        return exception
    code = getattr(exception, "code", None)
    if isinstance(code, str) and code in KINDS:
        message = getattr(exception, "message", None) or str(exception) or KINDS[code].meaning
        error = HostError(code, message)
        details = getattr(exception, "details", None)
        error.details = details if isinstance(details, dict) else {}
        return error
    if isinstance(exception, TimeoutError):
        return HostError("timeout", str(exception) or KINDS["timeout"].meaning)
    return HostError("internal", f"{type(exception).__name__} in the daemon; its log has the details")
