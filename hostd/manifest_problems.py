"""Problems of a manifest as people and programs see them, made from validation errors.

Each has a place, the offending value, what would be accepted and at most one hint:

    host.yaml:9:5: partitions.0.memry: unknown key; accepted: directory, disks, ...; did you mean memory?
"""

import difflib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import inf
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from hostd.errors import HostError
from hostd.manifest_checks import Found

Path = tuple[str | int, ...]
Place = Callable[[Path, str], tuple[str, int | None, int | None]]
VALUE_SHOWN_MAX = 80


@dataclass(frozen=True)
class Problem:
    """One error of a manifest; line and column count from 1 and are null in a document without lines."""

    file: str
    line: int | None
    column: int | None
    path: str
    message: str
    value: Any = None
    accepted: str | None = None
    hint: str | None = None

    def document(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """One line, in the form that editors and compilers share."""
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in (None, ""))
        subject = f"{self.path}: " if self.path else ""
        value = "" if self.value is None else f"{show(self.value)} "
        tail = "".join(
            f"; {part}" for part in (f"accepted: {self.accepted}" if self.accepted else "", self.hint) if part
        )
        return f"{place}: {subject}{value}{self.message}{tail}" if place else f"{subject}{value}{self.message}{tail}"


class ManifestError(HostError):
    """A manifest with problems, all of them; code `invalid`."""

    def __init__(self, problems: list[Problem]) -> None:
        count = len(problems)
        summary = "the manifest has an error" if count == 1 else f"the manifest has {count} errors"
        first = f": {problems[0].text()}" if count == 1 else ""
        super().__init__("invalid", summary + first, problems=[problem.document() for problem in problems])
        self.problems = problems


def show(value: Any) -> str:
    """A value as it may stand in a message: short, quoted where it is text."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    return text if len(text) <= VALUE_SHOWN_MAX else text[: VALUE_SHOWN_MAX - 3] + "..."


def problems_of(error: ValidationError, model: type[BaseModel], place: Place) -> list[Problem]:
    """All problems of a validation error, ordered by place.

    `place(path, kind)` gives file, line and column; kind is "value", "key" or "missing".
    """
    found = [problem_of(entry, model, place) for entry in error.errors(include_url=False)]
    return sorted(dict.fromkeys(found), key=lambda problem: (problem.line or 0, problem.column or 0))


def problem_of(entry: Any, model: type[BaseModel], place: Place) -> Problem:
    path: Path = tuple(entry["loc"])
    in_key = bool(path) and path[-1] == "[key]"  # pydantic's mark of an error in a key of a mapping
    path = path[:-1] if in_key else path
    context = entry.get("ctx") or {}
    value, message, accepted, hint = entry["input"], entry["msg"], None, None
    where = "key" if in_key else "value"
    match entry["type"]:
        case "manifest":
            message, accepted, hint = context["text"], context["accepted"], context["hint"]
        case "missing":
            where, value = "missing", None
            message, accepted = "is missing", _describe(model, path) if path else ", ".join(_keys(model, path))
            message = message if path else "the document is missing"
        case "extra_forbidden":
            where, value = "key", None
            keys = _keys(model, path[:-1])
            message, accepted = "unknown key", ", ".join(keys)
            hint = _did_you_mean(path[-1], keys)
        case "literal_error":
            words = context["expected"]
            message, accepted = "is not known", words.replace("'", "")
            hint = _did_you_mean(value, accepted.replace(" or ", ", ").split(", "))
        case "model_type" | "dict_type" | "model_attributes_type":
            message, accepted = "is not a mapping", ", ".join(_keys(model, path)) or "key: value"
        case "list_type":
            message, accepted = "is not a list", "a list, each entry after a hyphen"
            hint = f"write [{value}]" if isinstance(value, str) else None
        case "string_unicode":
            message, accepted = "is not Unicode text", "text without half characters"
        case "string_type":
            message, accepted = "is not text", "text"
            hint = "put it between quotes" if isinstance(value, bool | int | float) else None
        case "int_type":
            message, accepted = "is not a whole number", "a whole number"
            hint = f"write {value} without quotes" if isinstance(value, str) and value.isdigit() else None
        case "bool_type":
            message, accepted = "is not a truth value", "true or false"
        case "too_short":
            message, accepted = f"has {context['actual_length']} entries", f"at least {context['min_length']}"
        case "too_long":
            message, accepted = f"has {context['actual_length']} entries", f"at most {context['max_length']}"
        case "greater_than_equal":
            message, accepted = "is too small", f"{context['ge']} or more"
        case "less_than_equal":
            message, accepted = "is too large", f"{context['le']} or less"
    if isinstance(value, dict | list | tuple):  # named, not repeated: a problem is one line
        value, message = None, f"{show(value)} {message}"
    elif not (value is None or isinstance(value, str | int | float)) or value in (inf, -inf) or value != value:
        value = show(value)  # what JSON has no word for: bytes of another kind of body, and NaN
    return Problem(*place(path, where), dotted(path), message, value, accepted, hint)


def problem_at(place: Place, found: Found) -> Problem:
    """A broken rule of `manifest_checks` at its place."""
    file, line, column = place(found.path, "value")
    return Problem(file, line, column, dotted(found.path), found.message, found.value, found.accepted, found.hint)


def dotted(path: Path) -> str:
    """A path as it is written: partitions.0.memory."""
    return ".".join(map(str, path))


def _did_you_mean(word: Any, words: list[str]) -> str | None:
    close = difflib.get_close_matches(str(word), words, 1)
    return f"did you mean {close[0]}?" if close else None


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    found = _model_at(model, path)
    return sorted(found.model_fields) if found is not None else []


def _describe(model: type[BaseModel], path: Path) -> str | None:
    owner = _model_at(model, path[:-1])
    field = owner.model_fields.get(str(path[-1])) if owner is not None else None
    if field is None:
        return None
    if get_origin(field.annotation) is Literal:
        return " or ".join(map(str, get_args(field.annotation)))
    return field.description


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model of the mapping at a path, by walking the annotations."""
    found: Any = model
    for part in path:
        if isinstance(part, int):
            found = _innermost(get_args(found)[0]) if get_origin(found) is list else None
        else:
            fields = found.model_fields if isinstance(found, type) and issubclass(found, BaseModel) else {}
            found = _innermost(fields[part].annotation) if part in fields else None
        if found is None:
            return None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _innermost(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation = get_args(annotation)[0]
        elif origin in (Union, UnionType):
            annotation = next(part for part in get_args(annotation) if part is not type(None))
        else:
            return annotation
