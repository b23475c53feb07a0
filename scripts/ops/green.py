#!/usr/bin/env python3
"""Reads rendered manifests, prints the Deployment of `serve` as its green twin."""

import sys


def main() -> None:
    documents = sys.stdin.read().split("\n---\n")
    own = [text for text in documents if "\nkind: Deployment\n" in f"\n{text}\n" and "\n  name: license-api\n" in text]
    if len(own) != 1:
        sys.exit(f"expected one Deployment license-api, found {len(own)}")
    text = own[0].replace("\n  name: license-api\n", "\n  name: license-api-green\n")
    print(text.replace("track: blue", "track: green"))


if __name__ == "__main__":
    main()
