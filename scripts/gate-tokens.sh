#!/usr/bin/env bash
# ID tokens of test users of Identity Platform, one a line, for the gate's load against staging.
#
#   PROJECT=… ACCOUNT=license-deployer@… API_KEY=… IDENTITY_TENANT=… scripts/gate-tokens.sh 100 >tokens.txt
#
# ACCOUNT signs a custom token for each user (it may sign as itself: infra/modules/artifact-registry), which Identity
# Platform exchanges for an ID token, blocking function included: the same tokens as those of people.
set -euo pipefail

: "${PROJECT:?}" "${ACCOUNT:?}" "${API_KEY:?}" "${IDENTITY_TENANT:?}"
count=${1:?how many}
audience=https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
umask 077

for number in $(seq "$count"); do
    now=$(date +%s)
    printf '{"iss":"%s","sub":"%s","aud":"%s","iat":%d,"exp":%d,"uid":"gate-%d","tenant_id":"%s"}' \
        "$ACCOUNT" "$ACCOUNT" "$audience" "$now" $((now + 3600)) "$number" "$IDENTITY_TENANT" >"$scratch/claims"
    gcloud iam service-accounts sign-jwt --project="$PROJECT" --iam-account="$ACCOUNT" "$scratch/claims" "$scratch/custom" --quiet 2>/dev/null
    printf '{"token":"%s","tenantId":"%s","returnSecureToken":true}' "$(cat "$scratch/custom")" "$IDENTITY_TENANT" >"$scratch/body"
    curl --fail --silent --show-error --retry 3 --header 'Content-Type: application/json' --data "@$scratch/body" \
        "https://identitytoolkit.googleapis.com/v1/accounts:signInWithCustomToken?key=$API_KEY" >"$scratch/answer"
    python3 -c 'import json, sys; print(json.load(sys.stdin)["idToken"])' <"$scratch/answer"
done
