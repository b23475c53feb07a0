#!/usr/bin/env bash
# Makes .venv with this package and its development tools, again whenever pyproject.toml changes.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
stamp=.venv/installed-for
wanted=$(cat pyproject.toml src/license_client/_version.py | cksum)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    .venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
    echo "$wanted" >"$stamp"
fi
