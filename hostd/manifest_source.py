"""Manifests as files: YAML with the place of every value, so that errors name line and column.

YAML is read as its 1.2 core schema: `no` and `on` are text, 10:20 is text, and only true, false,
null and numbers mean something else. Aliases are expanded under a limit, because a page of them can
stand for more entries than any memory holds.
"""

import os
import re
from typing import Any

import yaml
from pydantic import ValidationError

from hostd.manifest import Manifest
from hostd.manifest_checks import absolute, check_machine
from hostd.manifest_problems import ManifestError, Path, Problem, dotted, problem_at, problems_of

FILE_BYTES_MAX = 1 << 20
NODES_MAX = 200_000
DEPTH_MAX = 16  # the deepest value of a manifest is at depth 6
Place = tuple[str, int | None, int | None]

_TAG = "tag:yaml.org,2002:"
_INTEGER = r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"
_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"


class _Loader(yaml.SafeLoader):
    """SafeLoader with other implicit types."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _kind, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", _INTEGER, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z", re.ASCII), list(_first))


class Source:
    """The data of one YAML text, and where each value and key stands.

    Problems found while reading (syntax, repeated keys) are in `problems`; `data` is what could be read.
    """

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._values: dict[Path, yaml.Mark] = {}
        self._keys: dict[Path, yaml.Mark] = {}
        self._nodes = 0
        self.data: Any = None
        node = self._compose(text)
        if node is not None:
            self.data = self._read(node, ())

    def place(self, path: Path, kind: str) -> Place:
        """File, line and column of a value, of a key, or of the mapping in which a key is missing."""
        if kind == "key" and path in self._keys:
            return self._at(self._keys[path])
        if kind == "missing":
            path = path[:-1]
        while path not in self._values and path:
            path = path[:-1]
        return self._at(self._values.get(path))

    def _at(self, mark: yaml.Mark | None) -> Place:
        return (self.file, mark.line + 1, mark.column + 1) if mark is not None else (self.file, 1, 1)

    def _problem(self, mark: yaml.Mark | None, path: Path, message: str, **fields: Any) -> None:
        self.problems.append(Problem(*self._at(mark), dotted(path), message, **fields))

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            message = " ".join(part for part in (error.context, error.problem) if part)
            hint = "indent with spaces" if "'\\t'" in message else error.note
            self._problem(error.problem_mark or error.context_mark, (), f"not YAML: {message}", hint=hint)
        except yaml.reader.ReaderError as error:
            before = text[: error.position]
            mark = yaml.Mark(self.file, error.position, before.count("\n"), len(before.rpartition("\n")[2]), None, 0)
            self._problem(mark, (), f"not YAML: character U+{error.character:04X} is not allowed")
        except RecursionError:
            self._problem(None, (), "nested too deep to be read", accepted=f"at most {DEPTH_MAX} levels")
        else:
            if node is None:
                self._problem(None, (), "is empty", hint="the least is: version: 1")
            return node
        return None

    def _read(self, node: yaml.Node, path: Path) -> Any:
        """The plain value of a node; also notes the places of all values in it."""
        self._values[path] = node.start_mark
        self._nodes += 1
        if len(path) > DEPTH_MAX or self._nodes > NODES_MAX:
            if not self.problems or self.problems[-1].accepted is None:
                limit = f"{DEPTH_MAX} levels" if len(path) > DEPTH_MAX else f"{NODES_MAX} values with aliases expanded"
                self._problem(node.start_mark, path[:1], "is too large", accepted=f"at most {limit}")
            return None
        if isinstance(node, yaml.CollectionNode) and node.tag not in (_TAG + "map", _TAG + "seq"):
            self._problem(node.start_mark, path, f"can not be read as {node.tag}", hint="leave the tag out")
        if isinstance(node, yaml.MappingNode):
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._read(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._scalar(node, path)

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(key_node.start_mark, path, "a key is not text", accepted="text")
                continue
            key = key_node.value
            if key in result:
                first = self._keys[(*path, key)].line + 1
                hint = f"first in line {first}"
                self._problem(key_node.start_mark, (*path, key), "the same key a second time", hint=hint)
                continue
            self._keys[(*path, key)] = key_node.start_mark
            result[key] = self._read(value_node, (*path, key))
        for other in merged:
            self._merge(other, path, result)
        return result

    def _merge(self, node: yaml.Node, path: Path, result: dict[Any, Any]) -> None:
        """`<<: *other` gives the keys that the mapping has not itself."""
        if not isinstance(node, yaml.MappingNode):
            self._problem(node.start_mark, path, "<< does not name a mapping", accepted="an alias of a mapping")
            return
        for key_node, value_node in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.value not in result:
                self._keys[(*path, key_node.value)] = key_node.start_mark
                result[key_node.value] = self._read(value_node, (*path, key_node.value))

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text, kind = str(node.value), node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind == "int" and re.fullmatch(_INTEGER, text, re.ASCII) and len(text) < 40:
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if kind == "float" and re.fullmatch(_FLOAT, text, re.ASCII):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        self._problem(node.start_mark, path, f"can not be read as {node.tag}", value=text, hint="leave the tag out")
        return text


def loads(text: str, file: str = "", machine: bool = True) -> Manifest:
    """The manifest of a YAML text; raises ManifestError with all problems.

    With `machine` it must also fit this machine: its processors, and the folders that it names.
    Relative folders count from the folder of `file`.
    """
    source = Source(text, file)
    if source.problems and source.data is None:
        raise ManifestError(source.problems)
    base = os.path.dirname(file)
    problems = list(source.problems)
    if machine:
        problems += [
            problem_at(source.place, found) for found in check_machine(source.data, base, os.sched_getaffinity(0))
        ]
    manifest = None
    try:
        manifest = Manifest.model_validate(source.data)
    except ValidationError as error:
        problems += problems_of(error, Manifest, source.place)
    if problems or manifest is None:
        raise ManifestError(sorted(problems, key=lambda problem: (problem.line or 0, problem.column or 0)))
    return _absolute(manifest, base)


def load(path: str | os.PathLike[str], machine: bool = True) -> Manifest:
    """The manifest of a file; raises ManifestError, also where the file can not be read."""
    return loads(read(path), os.fspath(path), machine)


def read(path: str | os.PathLike[str]) -> str:
    """The text of a manifest file, bounded."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ManifestError([Problem(name, None, None, "", f"can not be read: {error.strerror}")]) from error
    if len(content) > FILE_BYTES_MAX:
        raise ManifestError([Problem(name, None, None, "", "is too large", accepted=f"at most {FILE_BYTES_MAX} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise ManifestError([Problem(name, line, column, "", "is not UTF-8", accepted="text in UTF-8")]) from error


def _absolute(manifest: Manifest, base: str) -> Manifest:
    def path(name: str | None) -> str | None:
        return None if name is None else absolute(name, base)

    return manifest.model_copy(
        update={
            "devices": [
                device.model_copy(
                    update={
                        "folder": path(device.folder),
                        "volume": device.volume and device.volume.model_copy(update={"file": path(device.volume.file)}),
                    }
                )
                for device in manifest.devices
            ],
            "partitions": [spec.model_copy(update={"directory": path(spec.directory)}) for spec in manifest.partitions],
        }
    )
