"""Read, check and rewrite the shop's `backlog.yaml` and `platform.yaml`; a mistake is named with its line."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from devops_lab.errors import BadInput
from devops_lab.model import Item, Need, Service

T = TypeVar("T")
BACKLOG, PLATFORM = "backlog.yaml", "platform.yaml"


@dataclass(frozen=True)
class Limits:
    """What the platform can carry: of a replica, but for storage and replicas."""

    memory_mb: float
    cpu_millicores: float
    storage_mb: float
    log_mb_per_minute: float
    replicas: int
    request_seconds: float = 0.0


@dataclass(frozen=True)
class Platform:
    services: dict[str, Service]
    limits: Limits
    not_offered: dict[str, str] = field(default_factory=dict)  # name -> why not, and what will do


ORDER = (
    "id", "title", "kind", "story", "effort", "value", "time_criticality", "risk_reduction", "needs",
    "depends_on", "risk", "change", "alternatives", "status", "done_on", "sprint", "evidence",
)  # fmt: skip
ALWAYS = ("id", "title", "kind", "effort", "value", "time_criticality", "risk_reduction", "status")


class _Loader(yaml.SafeLoader):
    """YAML as it is written: a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@lru_cache(maxsize=8)
def read_backlog(text: str, changes: frozenset[str] | None = None) -> tuple[Item, ...]:
    """All items of a backlog, checked.

    Args:
        text: the file's content.
        changes: ids of the changes that exist; None = not checked.

    Raises:
        BadInput: names file, line, what was found and what was expected.
    """
    nodes = _item_nodes(text)
    items = []
    for node in nodes:
        items.append(_convert(node, Item, BACKLOG))
        _check_figures(items[-1], node)
    by_id: dict[str, Item] = {}
    for item, node in zip(items, nodes, strict=True):
        if item.id in by_id:
            raise _bad(BACKLOG, _line(node), f"a second item has the id {item.id!r}", "an id for each item")
        by_id[item.id] = item
    for item, node in zip(items, nodes, strict=True):
        for other in item.depends_on:
            _known(
                other, by_id, f"{item.id} depends on {other!r}, which is no item", _child(node, "depends_on")
            )
        wanted = [item.change, *(option.change for option in item.alternatives)]
        for change in filter(None, wanted if changes is not None else []):
            _known(
                change, changes or (), f"{item.id} names the change {change!r}, which does not exist", node
            )
    _no_cycle(by_id, dict(zip(by_id, nodes, strict=True)))
    return tuple(items)


@lru_cache(maxsize=8)
def read_platform(text: str) -> Platform:
    """The platform's declared services and limits.

    Raises:
        BadInput: names file, line, what was found and what was expected.
    """
    top = _compose(text, PLATFORM)
    for name, service in _pairs(_child(top, "services")):
        for key, _ in _pairs(service):
            key.value = "path" if key.value == "try" else key.value  # a word that Python keeps for itself
        title = yaml.ScalarNode("tag:yaml.org,2002:str", "name", name.start_mark, name.end_mark)
        service.value.insert(0, (title, name))
    return _convert(top, Platform, PLATFORM)


def with_item(text: str, item: Item) -> str:
    """The backlog with one item replaced, or added at the end; every other line stays as it was."""
    nodes = _item_nodes(text)
    old = next((node for node in nodes if _scalar(_child(node, "id")) == item.id), None)
    lines = text.splitlines(keepends=True)
    where = old or next((node for node in reversed(nodes) if not node.flow_style), None)
    if where is None or where.flow_style:
        raise _bad(
            BACKLOG, _line(where or _compose(text, BACKLOG)), "no block to write to", "`- id: …` over lines"
        )
    indent = where.start_mark.column
    plain = asdict(item)
    blank = asdict(Item("", "", "feature", 0, 0))
    kept = {name: plain[name] for name in ORDER if plain[name] != blank[name] or name in ALWAYS}
    dumped = yaml.dump(kept, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=118 - indent)
    block = "".join(" " * indent + line for line in dumped.splitlines(keepends=True))
    end = _end(lines, where)
    before = "".join(lines[: where.start_mark.line if old else end])
    gap = "\n" if not old and any(not line.strip() for line in lines) else ""
    if before and not before.endswith("\n"):
        before += "\n"
    dash = " " * (indent - 2) + "- "
    return before + gap + dash + block[indent:] + "".join(lines[end:])


def without_item(text: str, name: str) -> str:
    """The backlog without one of its items; every other line stays as it was."""
    node = next(node for node in _item_nodes(text) if _scalar(_child(node, "id")) == name)
    lines = text.splitlines(keepends=True)
    if node.flow_style:
        raise _bad(BACKLOG, _line(node), f"{name} is no block of lines", "`- id: …` over lines")
    return "".join(lines[: node.start_mark.line] + lines[_end(lines, node) :])


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key; needs and names on one line, as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _flow_list(dumper: yaml.SafeDumper, data: list[Any]) -> yaml.Node:
    return dumper.represent_sequence(
        "tag:yaml.org,2002:seq", data, flow_style=not any("title" in x for x in data if isinstance(x, dict))
    )


def _flow_need(dumper: yaml.SafeDumper, data: dict[str, Any]) -> yaml.Node:
    """Inside an item: without what is zero or empty anyway."""
    short = {name: value for name, value in data.items() if value or "id" in data or name in ALWAYS}
    is_need = set(data) <= {f.name for f in fields(Need)}
    return dumper.represent_mapping("tag:yaml.org,2002:map", short.items(), flow_style=is_need)


def _number(dumper: yaml.SafeDumper, data: float) -> yaml.Node:
    return dumper.represent_int(int(data)) if data == int(data) else dumper.represent_scalar(
        "tag:yaml.org,2002:float", repr(data)
    )  # fmt: skip


_Dumper.add_representer(list, _flow_list)
_Dumper.add_representer(dict, _flow_need)
_Dumper.add_representer(float, _number)


def _end(lines: list[str], node: yaml.Node) -> int:
    """The line after a node's last one; blank lines and comments behind it belong to what follows."""
    at_end = node.end_mark.line >= len(lines) - 1 and node.end_mark.column > 0
    end = len(lines) if at_end else node.end_mark.line
    while end > node.start_mark.line + 1 and lines[end - 1].strip()[:1] in ("", "#"):
        end -= 1
    return end


def _compose(text: str, name: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        words = " ".join(filter(None, (error.context, error.problem)))
        raise _bad(name, mark.line + 1 if mark else 1, f"it does not parse: {words}", "YAML") from error
    except yaml.YAMLError as error:
        raise _bad(name, 1, f"it does not parse: {error}", "YAML") from error
    if not isinstance(node, yaml.MappingNode):
        raise _bad(name, 1, "it is empty or no mapping", "keys and values, such as `items:`")
    return node


def _item_nodes(text: str) -> list[yaml.MappingNode]:
    top = _compose(text, BACKLOG)
    found = _child(top, "items")
    if not isinstance(found, yaml.SequenceNode):
        raise _bad(BACKLOG, _line(found), "there is no list of items", "`items:` with one `- id: …` for each")
    for node in found.value:
        if not isinstance(node, yaml.MappingNode):
            raise _bad(BACKLOG, _line(node), "this is no item", "`- id: …` and its other fields")
    return list(found.value)


def _convert(node: yaml.Node, kind: type[T], name: str) -> T:
    """Validate a node against a record; an unknown field is refused, as most often it is misspelt."""
    data = _Loader("").construct_document(node)
    _no_unknown(node, kind, name)
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at ")
        found = node
        for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
            found = _child(found, key) if key else found.value[int(index)]
        raise _bad(
            name, _line(found), f"{path.strip('`$.') or kind.__name__.lower()} is wrong", words
        ) from error


def _no_unknown(node: yaml.Node, kind: type, name: str) -> None:
    known = get_type_hints(kind)
    for key, value in _pairs(node):
        if key.value not in known:
            near = get_close_matches(str(key.value), known, 1)
            hint = f"{near[0]!r}" if near else ", ".join(known)
            raise _bad(name, _line(key), f"unknown field {key.value!r}", hint)
        hint = known[key.value]
        for inner in (hint, *get_args(hint)):
            if isinstance(inner, type) and is_dataclass(inner):
                parts = value.value if isinstance(value, yaml.SequenceNode) else [v for _, v in _pairs(value)]
                for part in [value] if inner is hint else parts:
                    _no_unknown(part, inner, name)


def _check_figures(item: Item, node: yaml.Node) -> None:
    for name in ("value", "time_criticality", "risk_reduction"):
        if getattr(item, name) < 0:
            raise _bad(BACKLOG, _line(_child(node, name)), f"{item.id}: {name} is negative", "0 or more")
    if item.effort <= 0:
        raise _bad(
            BACKLOG, _line(_child(node, "effort")), f"{item.id}: effort is {item.effort:g}", "more than 0"
        )
    if item.status == "done" and item.sprint < 1:
        raise _bad(BACKLOG, _line(node), f"{item.id} is done in no sprint", "`sprint:` with a number from 1")


def _known(wanted: str, names: Collection[str], problem: str, node: yaml.Node) -> None:
    if wanted not in names:
        near = get_close_matches(wanted, list(names), 1, 0.4)
        raise _bad(
            BACKLOG, _line(node), problem, repr(near[0]) if near else ", ".join(sorted(names)) or "none"
        )


def _no_cycle(by_id: dict[str, Item], nodes: dict[str, yaml.Node]) -> None:
    try:
        TopologicalSorter({item.id: item.depends_on for item in by_id.values()}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        line = _line(_child(nodes[circle[0]], "depends_on"))
        raise _bad(BACKLOG, line, f"items wait for each other: {' > '.join(circle)}", "no circle") from error


def _child(node: yaml.Node, key: str) -> yaml.Node:
    """The value of a key, or the node itself where the key is missing."""
    return next((value for name, value in _pairs(node) if name.value == key), node)


def _pairs(node: yaml.Node) -> list[tuple[yaml.Node, yaml.Node]]:
    return list(node.value) if isinstance(node, yaml.MappingNode) else []


def _scalar(node: yaml.Node) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _bad(name: str, line: int, problem: str, expected: str) -> BadInput:
    return BadInput(
        f"{name}, line {line}: {problem}.",
        expected=expected,
        next_step=f"Mend line {line} of {name} in the shop.",
    )
