#!/usr/bin/env bash
# Installs the validators under target/ops-tools, unless they are there; prints that folder. Silent when there is nothing to do.
# Prometheus and Alertmanager come from Debian's packages, unpacked and not installed: no service starts.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${OPS_TOOLS:-$PWD/target/ops-tools}
mkdir -p "$tools"
log=$tools/install.log
# One at a time: CI begins to install while the tests still compile.
exec 9>"$tools/lock"
flock 9

fail() {
    echo "ops tools: $1 (see $log)" >&2
    exit 1
}

# wheels FOLDER FILE: a virtual environment with exactly that list.
wheels() {
    cmp --silent "$2" "$tools/$1/installed.txt" 2>/dev/null && return
    rm -rf "${tools:?}/$1"
    python3 -m venv "$tools/$1" >>"$log" 2>&1 || fail "no python3 with venv"
    "$tools/$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$2" >>"$log" 2>&1 || fail "pip could not install $2"
    cp "$2" "$tools/$1/installed.txt"
}

packages() {
    cmp --silent scripts/ops/package.json "$tools/npm/installed.json" 2>/dev/null && return
    command -v npm >/dev/null || fail "no npm: install Node.js 20 or later"
    rm -rf "$tools/npm"
    mkdir -p "$tools/npm"
    cp scripts/ops/package.json "$tools/npm/package.json"
    npm install --prefix "$tools/npm" --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps >>"$log" 2>&1 || fail "npm could not install scripts/ops/package.json"
    cp scripts/ops/package.json "$tools/npm/installed.json"
}

# Where there is no Debian, put prometheus, promtool, prometheus-alertmanager and amtool on PATH.
prometheus() {
    [ -x "$tools/debian/usr/bin/promtool" ] && { templates; return; }
    command -v promtool >/dev/null && command -v amtool >/dev/null && return
    command -v apt-get >/dev/null || fail "no promtool and amtool, and no apt-get"
    rm -rf "$tools/debian" "$tools/download"
    mkdir -p "$tools/debian" "$tools/download"
    (
        cd "$tools/download"
        apt-get -qq download prometheus prometheus-alertmanager || { apt-get -qq update && apt-get -qq download prometheus prometheus-alertmanager; }
    ) >>"$log" 2>&1 || fail "apt-get could not download prometheus"
    for file in "$tools"/download/*.deb; do
        dpkg-deb --extract "$file" "$tools/debian"
    done
    rm -rf "$tools/download"
    templates
}

# Debian's Alertmanager reads its templates from where the package puts them, and does not start without.
templates() {
    local at=/usr/share/prometheus/alertmanager
    [ -e "$at/default.tmpl" ] && return
    { mkdir -p "$at" && cp -r "$tools/debian$at/." "$at"; } || fail "cannot write $at: install Debian's prometheus-alertmanager"
}

case ${1:-all} in
    # Everything that does not need apt-get, which others may be using.
    early)
        wheels venv scripts/ops/requirements.txt
        wheels checkov scripts/ops/checkov.txt
        packages
        ;;
    audit) wheels audit scripts/ops/audit.txt; wheels venv scripts/ops/requirements.txt ;;
    prometheus) prometheus; wheels venv scripts/ops/requirements.txt ;;
    all)
        wheels venv scripts/ops/requirements.txt
        wheels checkov scripts/ops/checkov.txt
        packages
        prometheus
        ;;
    *) fail "usage: tools.sh [all|early|audit|prometheus]" ;;
esac
echo "$tools"
