#!/usr/bin/env bash
# `tofu validate` of both environments, where the registry of providers can be reached. Elsewhere scripts/ops/provider.py
# stands in for it, which `make ops-test` runs everywhere.
set -euo pipefail
cd "$(dirname "$0")/../.."

tofu=$(command -v tofu || command -v terraform || true)
[ -n "$tofu" ] || { echo "validate: no tofu" >&2; exit 1; }
for environment in dev production; do
    folder=infra/environments/$environment
    "$tofu" -chdir="$folder" init -backend=false -input=false -no-color
    "$tofu" -chdir="$folder" validate -no-color
done
