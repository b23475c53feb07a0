#!/usr/bin/env bash
# Line coverage of the workspace: builds its own crates instrumented (not their dependencies), runs every test, and
# prints llvm-cov's report. Needs llvm-profdata and llvm-cov of rustc's own LLVM version: from rustup's llvm-tools, or
# from a package such as Debian's llvm-22.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(rustc --version --verbose | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
tool() {
    local bundled
    bundled=$(find "$(rustc --print sysroot)/lib/rustlib" -name "$1" -path '*/bin/*' 2>/dev/null | head -n 1)
    for found in "$bundled" "$(command -v "$1-$version" || true)"; do
        [ -n "$found" ] && { echo "$found"; return; }
    done
    echo "coverage: $1 of LLVM $version not found: install llvm-$version, or rustup component add llvm-tools" >&2
    exit 1
}
profdata=$(tool llvm-profdata)
cov=$(tool llvm-cov)

cargo build --quiet --package engines
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
# Not a shell script: a shell drops variables that are no names of its own, and cargo sets such (CARGO_BIN_EXE_a-b).
printf '#!/usr/bin/perl\nexec @ARGV, "-C", "instrument-coverage";\n' >"$out/rustc"
chmod +x "$out/rustc"
export RUSTC_WORKSPACE_WRAPPER="$out/rustc" LLVM_PROFILE_FILE="$out/%p-%8m.profraw"
cargo test --workspace --all-features --no-run --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | sort -u >"$out/objects"
target/debug/engines run --fast -- cargo test --workspace --all-features
"$profdata" merge --sparse "$out"/*.profraw -o "$out/merged"
objects=$(sed 's/^/--object /' "$out/objects")
# shellcheck disable=SC2086 # a list of options
"$cov" report $objects --instr-profile "$out/merged" --ignore-filename-regex='/(registry|rustc)/|/tests/|/examples/' \
    --use-color=0 | awk 'NF > 9 {print $1, $8, $9, $10}' | column -t
