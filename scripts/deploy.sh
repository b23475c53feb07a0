#!/usr/bin/env bash
# Rolls one image out: settings and network first, then `migrate` to its end, then everything else; waits until it runs.
#
#   scripts/deploy.sh staging us-central1-docker.pkg.dev/…/coditect-license@sha256:…
#   scripts/deploy.sh --render production IMAGE     prints what would be applied, and asks no cluster
#   scripts/deploy.sh --migrate production IMAGE    stops after `migrate` (scripts/blue-green.sh goes on from there)
#
# A rollout that does not come up within five minutes is rolled back. Migrations are not: they go forward only, and the
# version before runs and starts on with them, as long as the schema supports it (docs/RUNBOOK.md, "Rollback").
set -euo pipefail
cd "$(dirname "$0")/.."

kubectl=${KUBECTL:-kubectl}
mode=all
case ${1:-} in
    --render | --migrate)
        mode=${1#--}
        shift
        ;;
esac
if [ $# -ne 2 ] || [ ! -d "k8s/overlays/$1" ]; then
    echo "usage: deploy.sh [--render|--migrate] staging|production IMAGE" >&2
    exit 2
fi
environment=$1
image=$2
case $image in
    *coditect-license@sha256:*) ;;
    *)
        echo "deploy: $image: not by digest (…/coditect-license@sha256:…); a tag may mean another image tomorrow" >&2
        exit 2
        ;;
esac

manifests=$(mktemp)
trap 'rm -f "$manifests"' EXIT
$kubectl kustomize "k8s/overlays/$environment" |
    sed -E "s#^( *(- )?image: )[^ ]*coditect-license:[^ ]*\$#\1$image#" >"$manifests"
if [ "$mode" = render ]; then
    cat "$manifests"
    exit
fi

apply() {
    echo "== $1"
    $kubectl apply --server-side --force-conflicts --field-manager=deploy --filename="$manifests" --selector="license.coditect.ai/phase=$1"
}
in_namespace() {
    $kubectl --namespace=license "$@"
}

# Blue/green and rolling updates do not mix: what serves must be the Deployment that this changes.
track=$(in_namespace get service license-api --output=jsonpath='{.spec.selector.track}' --ignore-not-found)
if [ "${track:-blue}" != blue ]; then
    echo "deploy: green serves; scripts/blue-green.sh finish $environment IMAGE brings blue back first" >&2
    exit 1
fi

apply before
in_namespace wait --for=condition=Ready --timeout=120s externalsecret --all

# A Job is never changed, so the last one goes; `migrate` may run any number of times.
in_namespace delete job license-migrate --ignore-not-found --wait
apply migrate
if ! in_namespace wait --for=condition=complete --timeout=900s job/license-migrate; then
    in_namespace logs job/license-migrate --tail=50 >&2 || true
    echo "deploy: migrate did not succeed; nothing else was changed" >&2
    exit 1
fi

[ "$mode" != migrate ] || exit 0

# The autoscaler's number stays: applying the manifest's would take replicas away in the middle of the day.
replicas=$(in_namespace get deployment license-api --output=jsonpath='{.spec.replicas}' --ignore-not-found)
if [ -n "$replicas" ]; then
    sed -i "/^  name: license-api\$/,/^---\$/ s/^  replicas: [0-9]*\$/  replicas: $replicas/" "$manifests"
fi

apply after
for deployment in license-api license-project; do
    if ! in_namespace rollout status "deployment/$deployment" --timeout=300s; then
        in_namespace get pods --selector="app=$deployment" >&2 || true
        in_namespace rollout undo "deployment/$deployment"
        in_namespace rollout status "deployment/$deployment" --timeout=300s || true
        echo "deploy: $deployment did not come up and was rolled back" >&2
        exit 1
    fi
done
echo "deployed $image to $environment"
