#!/usr/bin/env bash
# Advisories, licences and sources of what we build upon: cargo-deny for the crates, pip-audit for the SDK. Advisories live
# on the network; where their database cannot be reached that is said, and the rest is checked all the same. In CI
# (AUDIT_STRICT=1) not reaching it is a failure.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

tools=$(scripts/ops/tools.sh audit) || exit 1
deny=$tools/audit/bin/cargo-deny
failed=0
check() {
    local name=$1
    shift
    if "$@" >"$tools/audit.log" 2>&1; then
        echo "ok    $name"
        return
    fi
    if [ -z "${AUDIT_STRICT:-}" ] && grep -qiE 'failed to (fetch|clone|look|resolve)|Could not resolve|NameResolution|ConnectionError|unable to (update|fetch)|Max retries|error sending request' "$tools/audit.log"; then
        echo "skip  $name: its database cannot be reached from here"
        return
    fi
    echo "FAIL  $name"
    tail -n 60 "$tools/audit.log"
    failed=1
}
check "cargo-deny: licences, bans, sources" "$deny" --locked check --hide-inclusion-graph licenses bans sources
check "cargo-deny: advisories" "$deny" --locked check --hide-inclusion-graph advisories
check "pip-audit: SDK" "$tools/venv/bin/pip-audit" --progress-spinner=off sdk/python
exit "$failed"
