"""Holds a role's variables against its argument specification, and finds typing errors in names.

A value passes if every template that uses it sees the type that the specification names. There this
is stricter than Ansible's own validation, which converts a copy of the value and throws it away:
`domains: app.example.com` passes there as a list, and the role then walks its letters.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from ansible.module_utils.common.validation import check_type_bits, check_type_bytes

from .addresses import without_login
from .formats import FORMATS, Check, Range

SHOWN = 80  # characters of a value that a message quotes
# What a template reads through these may be another thing each time.
UNPREDICTABLE = re.compile(
    r"\b(hostvars|vars|lookup|query|q|now)\s*[\[(.]|\b(hostvars|vars)\s*[|,)]"
    r"|[|,('\"]\s*(ansible\.builtin\.)?(random|shuffle|expandvars|expanduser|fileglob)\b"
)
NEAR = 2  # typing errors in a whole name that still let it be recognised
SHORTEST = 8  # characters that a name needs to be recognised by its likeness

SECRET = "a secret, not shown here"


class Problem(NamedTuple):
    """One thing to set right: the variable (empty for the host) and the message about it."""

    variable: str
    message: str


class Type(NamedTuple):
    """A type of argument specifications: what it is called, its test and what to write instead."""

    title: str
    holds: Callable[[Any], bool]
    remedy: str


def _is_text(value: object) -> bool:
    return isinstance(value, str) or _is_integer(value)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _converts(check: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def holds(value: object) -> bool:
        try:
            check(value)
        except (TypeError, ValueError):
            return False
        return True

    return holds


TYPES: dict[str, Type] = {
    "str": Type("text", _is_text, "put it in quotation marks"),
    "path": Type("a path", lambda value: isinstance(value, str), "write the path as text"),
    "int": Type("an integer", _is_integer, "write a whole number, without a unit"),
    "float": Type(
        "a number",
        lambda value: _is_integer(value) or isinstance(value, float),
        "write a number, without a unit",
    ),
    "bool": Type(
        "true or false",
        lambda value: isinstance(value, bool),
        "write true or false",
    ),
    "list": Type("a list", _is_list, "write one item per line, each after a hyphen"),
    "dict": Type(
        "a dictionary",
        lambda value: isinstance(value, Mapping),
        "write one `key: value` per line below it",
    ),
    "bytes": Type("a size", _converts(check_type_bytes), "write a size such as 64M"),
    "bits": Type("a size in bits", _converts(check_type_bits), "write a size such as 64Mb"),
    "raw": Type("a value", lambda value: True, ""),
}


def kind(value: object) -> str:
    """What a value is, in the words of the messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    for title, type_ in (
        ("text", str),
        ("a number", (int, float)),
        ("a dictionary", Mapping),
        ("a list", Sequence),
    ):
        if isinstance(value, type_):
            return title
    return type(value).__name__


def shown(value: object) -> str:
    """A value for a message: of a container only the outline, and the rest cut where it is long.

    A login in an address is left out.
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(str, value))}}}" if value else "{}"
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        many = "1 item" if len(value) == 1 else f"{len(value)} items"
        return f"[{many}]" if value else "[]"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = str(value)
    # Before it is cut, since half of a password tells a lot.
    text = without_login(text)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def first_sentence(option: Mapping[str, Any]) -> str:
    """What the specification says first about an option, without its markup."""
    description = option.get("description", "")
    if not isinstance(description, str):
        description = str(description[0]) if description else ""
    text = re.sub(r"\b[A-Z]\(([^)]*)\)", r"\1", " ".join(description.split()))
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(".")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like this one, empty if none is."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def distance(one: str, other: str) -> int:
    """Typing errors between two names: letters left out, put in, changed or swapped."""
    rows = [list(range(len(other) + 1))]
    for i, a in enumerate(one, 1):
        row = [i]
        for j, b in enumerate(other, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]


def is_secret(option: Mapping[str, Any]) -> bool:
    """Whether an option, or anything below it, is marked as a secret."""
    inner = [*option.get("options", {}).values(), *option.get("values", {}).values()]
    return bool(option.get("no_log")) or any(is_secret(one) for one in inner)


class Checker:
    """Gathers the problems of one role's variables."""

    def __init__(
        self,
        role: str,
        spec: Mapping[str, Mapping[str, Any]],
        formats: Mapping[str, str],
        origins: Mapping[str, str] | None = None,
    ) -> None:
        """Args:
            role: the role's name, which all its variables start with.
            spec: the options of its entry point in meta/argument_specs.yml.
            formats: name of a format, or a range such as `1..60`, by path, such as
                `nginx_sites.*.domains.*`. With a `?` behind it, empty text is right too.
            origins: what a role that calls this one makes its variables of: the variable that a
                person writes by path, such as `nginx_sites[0].domains`. `nginx_sites[1:]` is a
                list that begins there. The more exact path counts.

        Raises ValueError if a format or the variable that a path starts with is unknown.
        """
        self.role = role
        self.spec = spec
        self.formats: dict[str, Check] = {}
        self.origins = origins or {}
        self.problems: list[Problem] = []
        # Variables without a value because of a problem that is reported elsewhere.
        self.doubtful: set[str] = set()
        for path, format_ in formats.items():
            name = str(format_).removesuffix("?")
            check = FORMATS.get(name) or cast("Check | None", Range.parse(name))
            if check is None:
                raise ValueError(
                    f"{format_} is neither a range such as 1..60 nor a format; "
                    f"there are {', '.join(FORMATS)}"
                )
            self.formats[path] = _or_empty(check) if name != format_ else check
            if path.split(".")[0] not in spec:
                raise ValueError(f"{path} starts with no variable of role {role}")

    def add(self, variable: str, message: str) -> None:
        self.problems.append(Problem(variable, message))

    def written(self, where: str) -> str:
        """The name under which a person wrote what another role made this variable of."""
        for path in sorted(self.origins, key=len, reverse=True):
            start = re.fullmatch(r"(.*)\[(\d+):\]", path)
            if start:
                item = re.match(re.escape(start[1]) + r"\[(\d+)\]", where)
                if item and int(item[1]) >= int(start[2]):
                    index = int(item[1]) - int(start[2])
                    return f"{self.origins[path]}[{index}]{where[item.end() :]}"
            elif where == path or where.startswith((f"{path}.", f"{path}[")):
                return self.origins[path] + where[len(path) :]
        parts = [
            origin
            for path, origin in self.origins.items()
            if path.startswith((f"{where}.", f"{where}["))
        ]
        return f"{where} (made of {', '.join(dict.fromkeys(parts))})" if parts else where

    def faulty(self) -> set[str]:
        """Variables that cannot be relied on: with a problem, or made of one that has."""
        return {problem.variable for problem in self.problems if problem.variable} | self.doubtful

    def value(self, name: str, value: object, *, secret: bool = False) -> None:
        """Check a variable that is set: its type, its formats and all below it.

        `secret` says that the value comes from a vault, whatever the specification calls it.
        """
        self._value(name, name, (name,), value, self.spec[name], secret=secret)

    def missing(self, name: str) -> None:
        """Report a variable that is set nowhere if it has to be."""
        if self.spec[name].get("required"):
            self.add(name, f"{name} is not set: {_meaning(self.spec[name], 'set it')}")

    def _value(
        self,
        variable: str,
        where: str,
        path: tuple[str, ...],
        value: Any,
        option: Mapping[str, Any],
        *,
        secret: bool,
    ) -> None:
        secret = secret or bool(option.get("no_log"))
        hidden = secret or is_secret(option)
        inner = where
        where = self.written(where)
        found = SECRET if hidden else f"{shown(value)} ({kind(value)})"
        if value is None:
            if option.get("required") or option.get("default") is not None:
                self.add(variable, f"{where} is null: {_meaning(option, 'give it a value')}")
            return
        type_name = str(option.get("type", "str"))
        type_ = TYPES[type_name]
        # A number has lost its zeros in front by now, and a check of its length means its digits.
        if not type_.holds(value) or (secret and type_name == "str" and not isinstance(value, str)):
            remedy = self._type_remedy(where, path, value, type_name, secret=hidden)
            self.add(variable, f"{where} is {found}; {type_.title} is needed: {remedy}")
            return
        choices = option.get("choices")
        if choices:
            for item in value if type_name == "list" else [value]:
                if item not in choices:
                    found = SECRET if secret else f"{shown(item)} ({kind(item)})"
                    near = nearest(str(item), map(str, choices))
                    hint = f"did you mean {near}? " if near and not secret else ""
                    allowed = ", ".join(str(choice) for choice in choices if choice != "")
                    self.add(variable, f"{where} is {found}; {hint}use one of {allowed}")
        if value != option.get("default"):
            self._format(variable, where, path, value, option, secret=secret)
        if type_name == "dict":
            self._dictionary(variable, inner, path, value, option, secret=secret)
        elif type_name == "list":
            element = {
                "type": option.get("elements", "raw"),
                **({"options": option["options"]} if "options" in option else {}),
            }
            for index, item in enumerate(value):
                inside = f"{inner}[{index}]"
                if item is None:
                    inside = self.written(inside)
                    self.add(variable, f"{inside} is null: remove the item, or give it a value")
                else:
                    self._value(variable, inside, (*path, "*"), item, element, secret=secret)

    def _dictionary(
        self,
        variable: str,
        where: str,
        path: tuple[str, ...],
        value: Mapping[str, Any],
        option: Mapping[str, Any],
        *,
        secret: bool,
    ) -> None:
        options = option.get("options")
        if "values" in option:
            # The keys are names of a person's. What is wrong with one of a variable says nothing of
            # another; further down, all of it concerns the one that it belongs to.
            entry = {"type": "dict", "required": True, "options": option["values"]}
            for key, item in value.items():
                name, about = f"{where}.{key}", variable if len(path) > 1 else f"{variable}.{key}"
                if item is None:
                    name = self.written(name)
                    self.add(about, f"{name} is null: remove it, or describe it")
                else:
                    self._value(about, name, (*path, "*"), item, entry, secret=secret)
            return
        if not options:
            for key, item in value.items():
                inside = self.written(f"{where}.{key}")
                self._format(variable, inside, (*path, "*"), item, option, secret=secret)
            return
        for key in value:
            if key not in options:
                self.add(
                    variable,
                    f"{self.written(f'{where}.{key}')} is not a key of {self.written(where)}; "
                    + _suggestion(str(key), options, f"the keys are {', '.join(options)}"),
                )
        for key, inner in options.items():
            inside = f"{where}.{key}"
            if key in value:
                self._value(variable, inside, (*path, key), value[key], inner, secret=secret)
            elif inner.get("required"):
                inside = self.written(inside)
                self.add(variable, f"{inside} is not set: {_meaning(inner, 'set it')}")

    def _format(
        self,
        variable: str,
        where: str,
        path: tuple[str, ...],
        value: Any,
        option: Mapping[str, Any],
        *,
        secret: bool,
    ) -> None:
        check = self._format_of(path)
        fault = check(value) if check else None
        if not fault:
            return
        if secret:
            self.add(variable, f"{where} {fault.problem}: {fault.remedy}")
            return
        # A range says nothing of the unit, which the description does.
        remedy = _meaning(option, fault.remedy) if isinstance(check, Range) else fault.remedy
        self.add(variable, f"{where} is {shown(value)}, which {fault.problem}: {remedy}")

    def _format_of(self, path: tuple[str, ...]) -> Check | None:
        for pattern, check in self.formats.items():
            parts = pattern.split(".")
            if len(parts) == len(path) and all(
                part in ("*", step) for part, step in zip(parts, path, strict=True)
            ):
                return check
        return None

    def _type_remedy(
        self, where: str, path: tuple[str, ...], value: Any, type_name: str, *, secret: bool
    ) -> str:
        check = self._format_of(path)
        if check and not TYPES[type_name].holds(value) and type_name in ("int", "str", "path"):
            fault = check(value)
            if fault:
                return fault.remedy
        remedy = TYPES[type_name].remedy
        if secret or not isinstance(value, str):
            return remedy
        if type_name == "list":
            return f"{remedy}, or {where}: [{without_login(value)}]"
        meant = _meant(value, type_name)
        if meant is None:
            return remedy
        remedy += f", without quotation marks: {where}: {meant}"
        # What another role made of a description is nothing to be given there.
        if len(path) == 1 and where == path[0]:
            remedy += f""", on the command line -e '{{"{where}": {meant}}}'"""
        return remedy

    def _shortened(self, known: str) -> str:
        """A variable without the rest of its role's name: `gunicorn_workers`."""
        first, _, rest = self.role.partition("_")
        return f"{first}_{known.removeprefix(f'{self.role}_')}" if rest else ""

    def unknown(
        self,
        names: Iterable[str],
        is_set: Callable[[str], bool],
        other_roles: Mapping[str, Iterable[str]],
        short_names: Iterable[str] = (),
    ) -> None:
        """Report names that start with the role's, or nearly so, and are none of its variables.

        A name with the role's prefix is the role's, and wrong if the specification has not got it.
        One without is reported only if it is two typing errors at most from a variable that nobody
        has set: `ngnix_http_port`, when nginx_http_port has its default. A deliberate
        `main_http_port` that another variable is made of stays unmentioned. `gunicorn_workers`,
        which has only the first word of the role's name, is reported.

        Another role may never run, as where `monitoring_enable` was to switch it on. So a name
        that is nearly one of its variables is reported too, and all else is left to that role.

        Args:
            names: what is set anywhere, facts and Ansible's own names left out.
            is_set: tells whether a variable has another value than its default.
            other_roles: the variables of the roles beside this one, by the role's name.
            short_names: variables without the role's prefix, which are typed on a command line.
        """
        prefix = f"{self.role}_"
        longer = tuple(f"{other}_" for other in other_roles if other.startswith(prefix))
        foreign = tuple(f"{other}_" for other in other_roles if other != self.role)
        known = [name for name in self.spec if len(name) >= SHORTEST]
        for name in names:
            # The second is how a role brings the description of an application.
            if name in self.spec or name.endswith("_application"):
                continue
            if name.startswith(prefix):
                if not (longer and name.startswith(longer)):
                    self.add(
                        name,
                        f"{name} is not a variable of role {self.role}; "
                        + _suggestion(
                            name,
                            self.spec,
                            f"the variables of role {self.role} are in its README",
                            prefix,
                        ),
                    )
            elif name.startswith(foreign):
                role = max((one for one in other_roles if name.startswith(f"{one}_")), key=len)
                theirs = list(other_roles[role])
                near = next((one for one in theirs if _alike(name, one)), "")
                if near and name not in theirs:
                    self.add(
                        name,
                        f"{name} is not a variable of role {role}; did you mean {near}? "
                        f"Rename it, or remove it",
                    )
            else:
                # The first of the nearest: `aplications` is one letter from `applications` and two
                # from `application`.
                near = min(
                    (
                        one
                        for one in (*short_names, *known)
                        if name != one
                        and (_alike(name, one) or name == self._shortened(one))
                        and not is_set(one)
                    ),
                    key=lambda one: distance(name, one),
                    default="",
                )
                if near and name not in short_names:
                    self.add(
                        name,
                        f"{name} is not a variable of role {self.role}; did you mean {near}? "
                        f"Rename it, or if it is yours choose a name that is less like it",
                    )


def _or_empty(check: Check) -> Check:
    """A check that lets empty text pass."""
    return lambda value: None if value == "" else check(value)


def _alike(name: str, known: str) -> bool:
    """Whether a name is another with NEAR typing errors at most; counting letters first is fast."""
    if abs(len(name) - len(known)) > NEAR:
        return False
    one, other = Counter(name), Counter(known)
    if ((one - other) + (other - one)).total() > 2 * NEAR:
        return False
    return distance(name, known) <= NEAR


def _suggestion(name: str, known: Iterable[str], otherwise: str, prefix: str = "") -> str:
    # What all of them begin with would make any two alike.
    short = {one.removeprefix(prefix): one for one in known}
    near = nearest(name.removeprefix(prefix), short)
    if near:
        return f"did you mean {short[near]}? Rename it, or remove it"
    return f"{otherwise}: rename it, or remove it"


def _meaning(option: Mapping[str, Any], remedy: str) -> str:
    """A remedy with what the variable is for."""
    sentence = first_sentence(option)
    return f"{remedy} ({sentence})" if sentence else remedy


def _meant(text: str, type_name: str) -> str | None:
    """What a number or a boolean written as text is in YAML, None if that is unclear."""
    if type_name == "int" and re.fullmatch(r"\s*[+-]?\d+\s*", text):
        return str(int(text))
    if type_name == "float" and re.fullmatch(r"\s*[+-]?\d+(\.\d+)?\s*", text):
        return text.strip()
    if type_name == "bool":
        if text.strip().lower() in ("true", "yes", "on", "1"):
            return "true"
        if text.strip().lower() in ("false", "no", "off", "0"):
            return "false"
    return None


def covers(listens_on: str, wanted: str) -> bool:
    """Whether a listener on one address stands in the way of another on the same port."""
    everywhere = ("0.0.0.0", "::", "")
    return listens_on == wanted or listens_on in everywhere or wanted in everywhere


def walk(value: Any) -> Iterator[Any]:
    """Items of lists, however deep."""
    if _is_list(value):
        for item in value:
            yield from walk(item)
    else:
        yield value
