#!/usr/bin/env python3
"""Prints what a plain tool reads out of our Kubernetes objects.

extract.py rules FILE         the groups of a Rules object, as Prometheus and promtool read them
extract.py alertmanager FILE  Alertmanager's configuration out of its ExternalSecret, with NAME instead of each key
"""

import re
import sys

import yaml


def main() -> None:
    what, file = sys.argv[1:]
    with open(file, encoding="utf-8") as text:
        objects = [one for one in yaml.safe_load_all(text) if one]
    if what == "rules":
        groups = [group for one in objects if one["kind"] == "Rules" for group in one["spec"]["groups"]]
        print(yaml.safe_dump({"groups": groups}, sort_keys=False, width=200))
    elif what == "alertmanager":
        secret = next(one for one in objects if one["kind"] == "ExternalSecret")
        config = secret["spec"]["target"]["template"]["data"]["alertmanager.yaml"]
        config = re.sub(r"\{\{ \.(\w+) \}\}", r"\1", config)
        print(re.sub(r"\{\{ `(.*?)` \}\}", r"\1", config))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
