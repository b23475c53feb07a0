#!/usr/bin/env bash
# Runs drills, each on engines of its own that end with it. Without names: all of them, about eight minutes.
#
#   drills/run.sh                 history tls restore redis_loss failover rotation rolling revocation alerts
#   drills/run.sh failover        one of them
#   drills/run.sh --short         those that take less than a minute together
#
# DRILL_KEEP=1 keeps the folder with the logs. CODITECT_LICENSE_BIN names another program than target/debug/coditect-license.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

all=(history tls restore redis_loss failover rotation rolling revocation alerts)
short=(tls redis_loss failover revocation)
case ${1:-} in
    "") names=("${all[@]}") ;;
    --short) names=("${short[@]}") ;;
    *) names=("$@") ;;
esac

tools=$(scripts/ops/tools.sh prometheus) || exit 1
export PATH="$tools/debian/usr/bin:$PATH"
failed=0
for name in "${names[@]}"; do
    [ -f "drills/$name.py" ] || { echo "drills: no drill $name: ${all[*]}" >&2; exit 2; }
    echo "== $name"
    "$tools/venv/bin/python" "drills/$name.py" || failed=$((failed + 1))
done
echo
if [ "$failed" -gt 0 ]; then
    echo "$failed of ${#names[@]} drills failed"
    exit 1
fi
echo "all ${#names[@]} drills passed"
