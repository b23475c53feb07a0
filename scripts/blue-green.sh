#!/usr/bin/env bash
# Blue/green, for a change that a rolling update should not mix: the new version runs beside the old one, takes all
# requests at once, and gives them back at once if it must.
#
#   scripts/blue-green.sh start  ENV IMAGE   migrate, then green beside blue; nobody is sent there yet
#   scripts/blue-green.sh switch green       all requests go to green (back: switch blue)
#   scripts/blue-green.sh finish ENV IMAGE   blue gets IMAGE, takes the requests, green goes
#
# Both may decide about the same pools meanwhile: a seat cannot be granted twice, whoever asks.
set -euo pipefail
cd "$(dirname "$0")/.."

kubectl=${KUBECTL:-kubectl}
in_namespace() {
    $kubectl --namespace=license "$@"
}
usage() {
    sed -n '5,7s/^# *//p' "$0" >&2
    exit 2
}

# The Deployment of `serve` with another name and track.
green() {
    scripts/deploy.sh --render "$1" "$2" | python3 scripts/ops/green.py
}

switch() {
    in_namespace rollout status "deployment/$(deployment "$1")" --timeout=300s
    in_namespace patch service license-api --type=merge --patch="{\"spec\":{\"selector\":{\"app\":\"license-api\",\"track\":\"$1\"}}}"
    echo "requests go to $1"
}

deployment() {
    case $1 in
        blue) echo license-api ;;
        green) echo license-api-green ;;
        *) usage ;;
    esac
}

case ${1:-} in
    start)
        [ $# -eq 3 ] || usage
        scripts/deploy.sh --migrate "$2" "$3"
        replicas=$(in_namespace get deployment license-api --output=jsonpath='{.spec.replicas}')
        green "$2" "$3" | $kubectl apply --server-side --field-manager=deploy --filename=-
        in_namespace scale deployment/license-api-green --replicas="${replicas:-3}"
        in_namespace rollout status deployment/license-api-green --timeout=300s
        echo "green runs beside blue; look at it, then: scripts/blue-green.sh switch green"
        ;;
    switch)
        [ $# -eq 2 ] || usage
        deployment "$2" >/dev/null
        switch "$2"
        ;;
    finish)
        [ $# -eq 3 ] || usage
        in_namespace set image deployment/license-api "serve=$3"
        switch blue
        # The load balancer lets requests under way end before green goes.
        sleep "${DRAIN_SECONDS:-60}"
        in_namespace delete deployment license-api-green --ignore-not-found
        scripts/deploy.sh "$2" "$3"
        ;;
    *) usage ;;
esac
