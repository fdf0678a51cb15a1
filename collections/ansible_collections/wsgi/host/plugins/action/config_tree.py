"""Control node's half of `wsgi.host.config_tree`: renders every file, then makes one trip.

What the options mean is documented with the module, `plugins/modules/config_tree.py`.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ansible_collections.wsgi.host.plugins.plugin_utils.versions  # noqa: F401, it is first
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.wsgi.host.plugins.plugin_utils.kept_modules import KeptModules
from ansible_collections.wsgi.host.plugins.plugin_utils.rendering import rendered

FILE_KEYS = {
    "dest",
    "template",
    "content",
    "random_bytes",
    "each",
    "as",
    "mode",
    "owner",
    "group",
    "secret",
}
SOURCE_KEYS = {"source", "dest", "mode", "owner", "group", "secret"}
SOURCE_OF_CONTENT = ("template", "content", "random_bytes")


class ActionModule(KeptModules):
    """Renders the tree here and sends it whole; the module compares, checks and swaps."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, args = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "state": {
                    "type": "str",
                    "default": "present",
                    "choices": ["present", "applied", "reverted", "absent"],
                },
                "sources": {"type": "list", "elements": "dict", "default": []},
                "files": {"type": "list", "elements": "dict", "default": []},
                "directories": {"type": "list", "elements": "dict", "default": []},
                "inputs": {"type": "dict", "default": {}},
                "stage": {"type": "list", "elements": "str", "default": []},
                "checks": {"type": "list", "elements": "dict", "default": []},
                "needs_apply": {"type": "bool", "default": False},
                "units": {"type": "list", "elements": "str", "default": []},
                "revertible": {"type": "bool", "default": False},
            }
        )
        entries = [
            *(
                entry
                for source in args["sources"]
                for entry in self._entries_of_source(source, task_vars)
            ),
            *(entry for file in args["files"] for entry in self._entries_of_file(file, task_vars)),
        ]
        _refuse_duplicates(entries)
        return self._execute_module(
            module_name="wsgi.host.config_tree",
            module_args={
                "name": args["name"],
                "state": args["state"],
                "payload": base64.b64encode(zlib.compress(json.dumps(entries).encode())).decode(),
                "directories": args["directories"],
                "inputs": args["inputs"],
                "stage": args["stage"],
                "checks": args["checks"],
                "needs_apply": args["needs_apply"],
                "units": args["units"],
                "revertible": args["revertible"],
            },
            task_vars=task_vars,
        )

    def _entries_of_source(
        self, source: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Every file below templates/<source>, at the same place below `dest`."""
        _refuse_unknown_keys("sources", source, SOURCE_KEYS, required={"source", "dest"})
        root = Path(self._find("templates", source["source"]))
        if not root.is_dir():
            raise AnsibleActionFail(
                f"sources: {source['source']} is not a directory of templates ({root}); "
                "name a directory below templates/, or list the file under `files`"
            )
        for path in sorted(root.rglob("*")):
            if not path.is_file() or path.name.endswith("~"):
                continue
            relative = path.relative_to(root)
            if path.suffix == ".j2":
                content = self._render(path, task_vars).encode()
                relative = relative.with_suffix("")
            else:
                content = path.read_bytes()
            dest = str(Path(source["dest"]) / relative)
            yield _entry(source, dest=dest, content=content, program=path.suffix != ".j2")

    def _entries_of_file(
        self, file: Mapping[str, Any], task_vars: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """The file itself, or one per element of `each`."""
        _refuse_unknown_keys("files", file, FILE_KEYS, required={"dest"})
        given = [key for key in SOURCE_OF_CONTENT if file.get(key) is not None]
        if len(given) != 1:
            raise AnsibleActionFail(
                f"files: {file['dest']} has {' and '.join(given) or 'no content'}; "
                f"give exactly one of {', '.join(SOURCE_OF_CONTENT)}"
            )
        if "each" not in file:
            yield self._single(file, str(file["dest"]), task_vars)
            return
        name = file.get("as", "item")
        for element in file["each"]:
            variables = {**task_vars, name: element}
            try:
                dest = str(file["dest"]).format_map({name: element})
            except (KeyError, IndexError, AttributeError, TypeError) as error:
                raise AnsibleActionFail(
                    f"files: dest {file['dest']} cannot be filled from an element of `each`: "
                    f"{error!r}"
                ) from error
            yield self._single(file, dest, variables)

    def _single(
        self, file: Mapping[str, Any], dest: str, variables: dict[str, Any]
    ) -> dict[str, Any]:
        if file.get("random_bytes") is not None:
            return _entry(file, dest=dest, random_bytes=int(file["random_bytes"]))
        if file.get("content") is not None:
            return _entry(file, dest=dest, content=str(file["content"]).encode())
        path = Path(self._find("templates", file["template"]))
        content = self._render(path, variables).encode()
        return _entry(file, dest=dest, content=content, program=path.suffix != ".j2")

    def _find(self, directory: str, name: str) -> str:
        try:
            return self._find_needle(directory, name)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{directory}/{name} was not found: {error}") from error

    def _render(self, path: Path, variables: dict[str, Any]) -> str:
        try:
            return rendered(path, self._templar, self._loader, variables)
        except AnsibleError as error:
            raise AnsibleActionFail(f"{path.name} cannot be rendered: {error}") from error


def _entry(options: Mapping[str, Any], *, dest: str, **kind: Any) -> dict[str, Any]:
    """What the module reads of one file. Raises where the destination is not an absolute path."""
    if not dest.startswith("/") or os.path.normpath(dest) != dest:
        raise AnsibleActionFail(f"dest {dest!r} is not an absolute, plain path")
    if "content" in kind:
        kind["content"] = base64.b64encode(kind["content"]).decode()
    mode = options.get("mode", "0644")
    if not isinstance(mode, str):
        raise AnsibleActionFail(f'mode {mode!r} of {dest} must be quoted, four digits: "0644"')
    return {
        "dest": dest,
        "mode": str(mode),
        "owner": str(options.get("owner", "root")),
        "group": str(options.get("group", "root")),
        "secret": bool(options.get("secret", False)) or "random_bytes" in kind,
        **kind,
    }


def _refuse_unknown_keys(
    option: str, value: Mapping[str, Any], known: set[str], *, required: set[str]
) -> None:
    unknown = sorted(set(value) - known)
    missing = sorted(required - set(value))
    if unknown or missing:
        found = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise AnsibleActionFail(f"{option}: {found}; an entry takes {', '.join(sorted(known))}")


def _refuse_duplicates(entries: list[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry["dest"] in seen:
            raise AnsibleActionFail(f"two entries write {entry['dest']}; a path has one source")
        seen.add(entry["dest"])
