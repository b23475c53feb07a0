#!/usr/bin/env bash
# Checks everything that an operator uses and no compiler sees: image, manifests, alerts, dashboards, infra, workflows.
# Each line is one validator; the last line counts. Needs no cluster, and no network once the tools are there.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit

tools=$(scripts/ops/tools.sh) || exit 1
export PATH="$tools/venv/bin:$tools/debian/usr/bin:$PATH"
export NODE_PATH="$tools/npm/node_modules"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0
failed=0

# step NAME COMMAND…: silent when all is well.
step() {
    local name=$1
    shift
    if "$@" >"$out/said" 2>&1; then
        echo "ok    $name"
        passed=$((passed + 1))
    else
        echo "FAIL  $name"
        sed 's/^/      /' "$out/said"
        failed=$((failed + 1))
    fi
}

# A kind without a schema is one that we know to be another project's.
schemas() {
    kubernetes-validate --strict --kubernetes-version 1.32 "$1" >"$out/validated" 2>&1 || { cat "$out/validated"; return 1; }
    ! grep "find schema" "$out/validated" | grep -vE 'kind (BackendConfig|FrontendConfig|ClusterIssuer|(Cluster)?SecretStore|ExternalSecret|PodMonitoring|Rules) '
}
policies() {
    "$tools/checkov/bin/checkov" --quiet --compact --skip-download --framework "$1" --file "${@:2}" 2>/dev/null
}
render() {
    kubectl kustomize "$1" >"$out/$2.yaml"
}
fits() {
    local program=${CODITECT_LICENSE_BIN:-target/debug/coditect-license}
    if [ -x "$program" ]; then
        python3 scripts/ops/manifests.py "$1" --program "$program"
    else
        python3 scripts/ops/manifests.py "$1"
    fi
}
deployable() {
    local image
    image=europe-docker.pkg.dev/p/r/coditect-license@sha256:$(printf '0%.0s' {1..64})
    scripts/deploy.sh --render "$1" "$image" >"$out/deploy.yaml" || return 1
    ! grep -E 'image: .*coditect-license' "$out/deploy.yaml" | grep -vF "$image"
}
rejects_tags() {
    ! scripts/deploy.sh --render production coditect-license:latest 2>/dev/null
}
alerts() {
    python3 scripts/ops/extract.py rules k8s/monitoring/rules.yaml >"$out/rules.yml"
    cp k8s/monitoring/tests/*.yml "$out/"
    promtool check rules --lint=all "$out/rules.yml"
}
routes() {
    python3 scripts/ops/extract.py alertmanager k8s/monitoring/alertmanager.yaml >"$out/alertmanager.yml"
    amtool check-config "$out/alertmanager.yml" || return 1
    [ "$(amtool config routes test --config.file="$out/alertmanager.yml" severity=page 2>/dev/null)" = pagerduty-page ] &&
        [ "$(amtool config routes test --config.file="$out/alertmanager.yml" severity=ticket 2>/dev/null)" = pagerduty-ticket ] &&
        [ "$(amtool config routes test --config.file="$out/alertmanager.yml" alertname=Unknown 2>/dev/null)" = pagerduty-ticket ]
}

python3() { "$tools/venv/bin/python" "$@"; }

mapfile -t scripts < <(git ls-files '*.sh' | grep -v '^sdk/' | while read -r file; do head -1 "$file" | grep -q '^#!.*sh' && echo "$file"; done)

step "hadolint: Dockerfile" hadolint Dockerfile
step "checkov: Dockerfile" policies dockerfile Dockerfile
step "compose.yaml" python3 scripts/ops/compose.py compose.yaml
step "yamllint" yamllint --strict .
step "shellcheck" shellcheck "${scripts[@]}"
step "ruff: drills and validators" ruff check --quiet drills scripts/ops
step "ruff format: drills and validators" ruff format --quiet --check drills scripts/ops
for environment in staging production; do
    step "kubectl kustomize: $environment" render "k8s/overlays/$environment" "$environment"
    step "kubernetes-validate 1.32: $environment" schemas "$out/$environment.yaml"
    step "manifests fit the program: $environment" fits "$out/$environment.yaml"
    step "deploy.sh --render: $environment" deployable "$environment"
done
step "deploy.sh wants a digest" rejects_tags
for part in monitoring cluster/staging cluster/production; do
    step "kubectl kustomize: $part" render "k8s/$part" "${part/\//-}"
    step "kubernetes-validate 1.32: $part" schemas "$out/${part/\//-}.yaml"
done
step "checkov: manifests" policies kubernetes "$out"/{staging,production,monitoring,cluster-staging,cluster-production}.yaml
step "checkov: sources" "$tools/checkov/bin/checkov" --quiet --compact --skip-download --framework kubernetes --directory k8s
step "promtool: rules" alerts
step "promtool: each alert fires and clears" promtool test rules "$out/rules_test.yml"
step "promtool: slow burns" promtool test rules "$out/slow_test.yml"
[ ! -f docs/RUNBOOK.md ] || step "each alert is tested and has its section" python3 scripts/ops/alerts.py
step "amtool: routing" routes
step "dashboards are what their script writes" python3 scripts/ops/dashboards.py --check

step "tofu fmt: infra" python3 scripts/ops/fmt.py
step "infra fits the provider's schema, and itself" python3 scripts/ops/provider.py infra "$NODE_PATH/@cdktf"
step "… and what does not would be noticed" python3 scripts/ops/provider_test.py infra "$NODE_PATH/@cdktf"
step "actionlint: workflows" actionlint .github/workflows/*.yml
step "zizmor: workflows" zizmor --offline --no-progress --quiet .github
step "workflows run the make targets of home, actions by commit" python3 scripts/ops/workflows.py
step "the blocking function's claims" node --test infra/modules/identity-platform/function/

# With a built program: real Prometheus and Alertmanager beside real replicas. The other alerts are fired by `make drills`.
program=${CODITECT_LICENSE_BIN:-target/debug/coditect-license}
if [ -x "$program" ] && [ -x target/debug/engines ]; then
    step "panels have answers, a ticket and a page reach PagerDuty (live)" python3 drills/alerts.py --short
else
    echo "skip  panels and alerts, live: no $program and target/debug/engines"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
