#!/bin/sh
# Installs Python with venv, which the SDK's tests need, unless it is there: silent when there is nothing to do.
set -eu

python3 -c 'import venv, ensurepip' 2>/dev/null && exit 0

fail() {
    echo "install-python: $1: install Python 3.10 or later with venv (on Debian: apt-get install python3-venv)" >&2
    exit 1
}

command -v apt-get >/dev/null 2>&1 || fail "no apt-get here"
if [ "$(id -u)" -eq 0 ]; then
    root=
elif sudo -n true 2>/dev/null; then
    root=sudo
else
    fail "not root, and sudo asks for a password"
fi
$root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null 2>&1 || fail "apt-get did not succeed"
$root env DEBIAN_FRONTEND=noninteractive apt-get -qq install python3-venv >/dev/null 2>&1 || fail "apt-get did not succeed"
