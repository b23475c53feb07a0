#!/usr/bin/env python3
"""Whether each `make` target and script that the workflows name exists, and each action is pinned by its commit."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    wrong = []
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        text = file.read_text(encoding="utf-8")
        wrong += [
            f"{file.name}: no make target {one}"
            for one in re.findall(r"run: make ([a-z-]+)", text)
            if one not in targets
        ]
        wrong += [
            f"{file.name}: no script {one}"
            for one in re.findall(r"\b((?:scripts|drills)/[\w/.-]+\.sh)", text)
            if not (ROOT / one).is_file()
        ]
        wrong += [
            f"{file.name}: {one} is not pinned by a commit"
            for one in re.findall(r"uses: (\S+)", text)
            if not re.search(r"@[0-9a-f]{40}$", one)
        ]
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
