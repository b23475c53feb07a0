#!/usr/bin/env bash
# Runs every `sh` block of docs/api.md, in order, in one shell: the first one that fails ends it. The document is the
# script, so it cannot say what does not work.
#
#   API=http://127.0.0.1:8000 ISSUER=http://127.0.0.1:8001 docs/api-walkthrough.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
blocks=$(awk '/^```sh$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$here/api.md")
cd "$(mktemp -d)"
set -x
eval "$blocks"
