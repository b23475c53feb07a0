#!/usr/bin/env bash
# Tries the API against its own OpenAPI document with generated requests, as each role: no 5xx, no answer that the
# document does not name, none that breaks its schema. Starts a service of its own, and ends it.
#
#   scripts/schemathesis.sh [most cases an operation]      SEED=7 repeats a run; ROLES="auditor" picks some
set -euo pipefail
cd "$(dirname "$0")/.."
cases=${1:-20}
version=4.32.5
venv=target/schemathesis
if [ "$(cat "$venv/installed" 2>/dev/null)" != "$version" ]; then
    scripts/install-python.sh
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$version"
    echo "$version" >"$venv/installed"
fi

dir=$(mktemp -d)
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
api=127.0.0.1:$(port) issuer=127.0.0.1:$(port)
# Limits are off: a run asks more often than any caller may.
RATE_LIMIT_PER_USER_PER_MINUTE=0 RATE_LIMIT_PER_TENANT_PER_SECOND=0 target/debug/coditect-license dev \
    --dir "$dir/dev" --listen-addr "$api" --metrics-addr "127.0.0.1:$(port)" --issuer-addr "$issuer" >"$dir/out" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
for _ in $(seq 300); do
    curl -sf "http://$api/health" >/dev/null && grep -q '^Demo tenant' "$dir/out" && break
    kill -0 "$server" 2>/dev/null || { cat "$dir/out"; exit 1; }
    sleep 0.1
done
tenant=$(sed -n 's/^Demo tenant \([^,]*\),.*/\1/p' "$dir/out")

st=$PWD/$venv/bin/st
failed=0
for role in ${ROLES:-platform_admin tenant_admin auditor analyst none}; do
    token=$(curl -sf "http://$issuer/token?sub=$role&tenant_id=demo&roles=$role")
    # Paths lead to the demo tenant, so that requests get further than its door.
    cat >"$dir/schemathesis.toml" <<CONFIG
[parameters]
"path.tenant_id" = "$tenant"
CONFIG
    echo "== $role"
    (cd "$dir" && exec "$st" --config-file "$dir/schemathesis.toml" run "http://$api/openapi.json" \
        --header "Authorization: Bearer $token" --max-examples "$cases" --workers 1 --request-timeout 10 \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
        --phases examples,coverage,fuzzing --suppress-health-check all --warnings off --no-color \
        ${SEED:+--seed "$SEED"}) >"$dir/$role" 2>&1 || failed=1
    if [ "$failed" = 1 ]; then cut -c1-2000 "$dir/$role" | head -c 20000; else tail -n 12 "$dir/$role"; fi
    [ "$failed" = 0 ] || break
done
exit "$failed"
