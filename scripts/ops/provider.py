#!/usr/bin/env python3
"""Checks infra/ against the providers' schemas, without a provider: every resource and data source, every attribute, every block at every
depth, what is required, what is read of another resource, and how modules are wired.

provider.py INFRA TYPES      TYPES: node_modules/@cdktf, whose packages carry each provider's schema as type files

The Google provider is held to exactly the version that the modules ask for.
"""

import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2

GOOGLE = "6.50"
META = {"count", "for_each", "depends_on", "provider", "lifecycle", "provisioner", "connection"}
BLOCK = "__is_block__"
Body = dict[str, Any]


@dataclass(frozen=True)
class Field:
    type: str
    required: bool
    is_block: bool


Interface = dict[str, Field]


class Types:
    """The type files of one resource or data source."""

    def __init__(self, folder: Path) -> None:
        self.text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.d.ts")))
        self.interfaces = {
            name: self._fields(body)
            for name, body in re.findall(r"^export interface (\w+)[^{]*\{\n(.*?)^\}", self.text, flags=re.S | re.M)
        }
        self.root = next(
            name
            for name, fields in self.interfaces.items()
            if re.search(rf"interface {name} extends cdktf\.TerraformMetaArguments", self.text)
        )

    @staticmethod
    def _fields(body: str) -> Interface:
        found: Interface = {}
        for comment, name, optional, kind in re.findall(
            r"/\*\*(.*?)\*/\s*readonly (\w+)(\??): (.*?);\n", body, flags=re.S
        ):
            words = re.findall(r"#(\w+) \w+#", comment)
            bare = kind.replace(" | cdktf.IResolvable", "").replace("[]", "").strip()
            found[words[-1] if words else name] = Field(
                bare, not optional, bool(re.search(rf"\* {words[-1]} block\s", comment)) if words else False
            )
        return found

    def reads(self, attribute: str) -> bool:
        """Whether something of that name can be read of it."""
        camel = re.sub(r"_(\w)", lambda found: found.group(1).upper(), attribute)
        return attribute in self.interfaces[self.root] or bool(re.search(rf"\bget {camel}\(\)", self.text))


@cache
def types(root: Path, kind: str, name: str) -> Types | None:
    provider, _, rest = name.partition("_")
    package = root / f"provider-{provider}" / "lib"
    folder = package / ("data-" if kind == "data" else "")
    slug = rest.replace("_", "-")
    folder = package / (f"data-{provider}-{slug}" if kind == "data" else slug)
    return Types(folder) if folder.is_dir() else None


def bare(text: str) -> str:
    return text.strip('"')


class Module:
    """One folder of .tf files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blocks: dict[str, list[tuple[list[str], Body]]] = {}
        self.text = ""
        for file in sorted(folder.glob("*.tf")):
            source = file.read_text(encoding="utf-8")
            self.text += re.sub(r"^\s*#.*$", "", source, flags=re.M)
            for kind, entries in hcl2.loads(source).items():
                if kind.startswith("__") or not isinstance(entries, list):
                    continue
                for entry in entries:
                    self._add(kind, entry, [])

    def _add(self, kind: str, entry: Body, labels: list[str]) -> None:
        # Labels are keys around the body: {"type": {"name": {…, is_block}}}.
        if BLOCK in entry:
            self.blocks.setdefault(kind, []).append(
                (labels, {key: value for key, value in entry.items() if not key.startswith("__")})
            )
            return
        for label, inner in entry.items():
            if label.startswith("__"):
                continue
            self._add(kind, inner, [*labels, bare(label)])

    def named(self, kind: str) -> dict[str, Body]:
        return {labels[-1]: body for labels, body in self.blocks.get(kind, [])}


class Check:
    def __init__(self, infra: Path, roots: Path) -> None:
        self.infra, self.roots = infra, roots
        self.wrong: list[str] = []
        self.counted = {"resources and data sources": 0, "attributes and blocks": 0}

    def body(self, where: str, known: Types, interface: str, body: Body, *, root: bool) -> None:
        fields = known.interfaces.get(interface)
        if fields is None:
            self.wrong.append(f"{where}: no schema {interface}")
            return
        given = set()
        for key, value in body.items():
            if key.startswith("__") or (root and key in META):
                continue
            if key == "dynamic":
                for entry in value:
                    for label, dynamic in entry.items():
                        if label.startswith("__"):
                            continue
                        given.add(bare(label))
                        for content in dynamic["content"]:
                            self.block(where, known, fields, bare(label), content)
                continue
            given.add(key)
            blocks = (
                value
                if isinstance(value, list) and value and all(isinstance(one, dict) and BLOCK in one for one in value)
                else None
            )
            if blocks is None:
                self.attribute(where, fields, key)
            else:
                for one in blocks:
                    self.block(where, known, fields, key, one)
                kind = fields.get(key)
                if (
                    kind
                    and len(blocks) > 1
                    and not re.search(rf"readonly \w+\??: {re.escape(kind.type)}\[\]", known.text)
                ):
                    self.wrong.append(f"{where}: {key}: {len(blocks)} of them, but only one may be there")
        for name, field in fields.items():
            if field.required and name not in given:
                self.wrong.append(f"{where}: {name} is required")

    def attribute(self, where: str, fields: Interface, key: str) -> None:
        self.counted["attributes and blocks"] += 1
        if key not in fields:
            self.wrong.append(f"{where}: no attribute {key}")
        elif fields[key].is_block:
            self.wrong.append(f"{where}: {key} is a block, not an attribute")

    def block(self, where: str, known: Types, fields: Interface, key: str, body: Body) -> None:
        self.counted["attributes and blocks"] += 1
        if key not in fields:
            self.wrong.append(f"{where}: no block {key}")
        elif not fields[key].is_block:
            self.wrong.append(f"{where}: {key} is an attribute, not a block")
        else:
            self.body(f"{where}.{key}", known, fields[key].type, body, root=False)

    def resources(self, module: Module) -> None:
        for kind in ("resource", "data"):
            for (type_name, name), body in module.blocks.get(kind, []):
                where = (
                    f"{module.folder.relative_to(self.infra)}: {'data.' if kind == 'data' else ''}{type_name}.{name}"
                )
                known = types(self.roots, kind, type_name)
                self.counted["resources and data sources"] += 1
                if known is None:
                    self.wrong.append(f"{where}: the provider has no such type")
                else:
                    self.body(where, known, known.root, body, root=True)

    def references(self, module: Module) -> None:
        """What is read exists: variables, locals, outputs of modules, attributes of resources."""
        where = str(module.folder.relative_to(self.infra))
        variables, locals_ = (
            module.named("variable"),
            {key for _, body in module.blocks.get("locals", []) for key in body},
        )
        for name in set(re.findall(r"\bvar\.(\w+)", module.text)) - set(variables):
            self.wrong.append(f"{where}: no variable {name}")
        for name in set(variables) - set(re.findall(r"\bvar\.(\w+)", module.text)):
            self.wrong.append(f"{where}: variable {name} is never used")
        for name in set(re.findall(r"\blocal\.(\w+)", module.text)) - locals_:
            self.wrong.append(f"{where}: no local {name}")
        declared = {(kind, *labels) for kind in ("resource", "data") for labels, _ in module.blocks.get(kind, [])}
        reference = r"(?<![\w.\"/])(data\.)?((?:google|random|archive)_\w+)\.(\w+)((?:\[[^\]]*\])?)\.(\w+)"
        for data, type_name, name, _, attribute in set(re.findall(reference, module.text)):
            kind = "data" if data else "resource"
            if (kind, type_name, name) not in declared:
                self.wrong.append(f"{where}: {data}{type_name}.{name} does not exist")
                continue
            known = types(self.roots, kind, type_name)
            if known and not known.reads(attribute):
                self.wrong.append(f"{where}: {type_name}.{name} has no {attribute}")

    def wiring(self, module: Module) -> None:
        where = str(module.folder.relative_to(self.infra))
        for name, body in module.named("module").items():
            source = (module.folder / bare(body["source"])).resolve()
            if not source.is_dir():
                self.wrong.append(f"{where}: module {name}: no folder {source}")
                continue
            other = Module(source)
            variables = other.named("variable")
            given = set(body) - META - {"source", "version", "providers"}
            for extra in given - set(variables):
                self.wrong.append(f"{where}: module {name} has no variable {extra}")
            for missing in {one for one, declared in variables.items() if "default" not in declared} - given:
                self.wrong.append(f"{where}: module {name} needs {missing}")
            for output in set(re.findall(rf"\bmodule\.{name}\.(\w+)", module.text)) - set(other.named("output")):
                self.wrong.append(f"{where}: module {name} has no output {output}")
        for name in set(re.findall(r"\bmodule\.(\w+)", module.text)) - set(module.named("module")):
            self.wrong.append(f"{where}: no module {name}")

    def described(self, module: Module) -> None:
        where = str(module.folder.relative_to(self.infra))
        for kind in ("variable", "output"):
            self.wrong += [
                f"{where}: {kind} {name} has no description"
                for name, body in module.named(kind).items()
                if not body.get("description")
            ]
        if module.folder.parent.name == "modules":
            readme = module.folder / "README.md"
            text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
            self.wrong += [
                f"{where}: README.md does not say «{part}»"
                for part in ("## Costs", "## When it dies")
                if part not in text
            ]
        if f'version = "~> {GOOGLE}"' not in module.text:
            self.wrong.append(f"{where}: does not ask for google ~> {GOOGLE}")

    def run(self, only: Path | None = None) -> None:
        version = re.search(
            r"hashicorp/google/([\d.]+)/docs",
            (self.roots / "provider-google/lib/sql-user/index.d.ts").read_text(encoding="utf-8"),
        )
        if not version or not version.group(1).startswith(f"{GOOGLE}."):
            self.wrong.append(f"the type files are of google {version and version.group(1)}, not {GOOGLE}")
        for folder in [only] if only else sorted({file.parent for file in self.infra.rglob("*.tf")}):
            module = Module(folder)
            self.resources(module)
            self.references(module)
            self.wiring(module)
            self.described(module)


def main() -> None:
    check = Check(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
    check.run()
    for line in sorted(set(check.wrong)):
        print(line)
    print(", ".join(f"{count} {what}" for what, count in check.counted.items()), "checked")
    sys.exit(1 if check.wrong else 0)


if __name__ == "__main__":
    main()
