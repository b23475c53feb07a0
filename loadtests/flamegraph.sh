#!/bin/sh
# Flame graph of the service under one kind of load, after `make bench` has built what it needs:
#
#     loadtests/flamegraph.sh heartbeat docs/images/flame-heartbeat.svg
#
# Needs perf, and inferno (`cargo install inferno`). Stacks come from the debug information, 32 KiB of each.
set -eu
cd "$(dirname "$0")/.."
scenario=$1
picture=$2
for tool in perf inferno-collapse-perf inferno-flamegraph target/release/loadtests; do
    command -v "$tool" > /dev/null || { echo "flamegraph: $tool is missing" >&2; exit 1; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

target/release/loadtests bench --scenario "$scenario" --runs 1 --seconds 16 --sessions 4000 2> "$work/log" > "$work/table" &
bench=$!
until grep -q 'measuring service' "$work/log"; do
    kill -0 "$bench" || { cat "$work/log" >&2; exit 1; }
    sleep 0.2
done
sleep 2
perf record --quiet --freq 299 --call-graph dwarf,32768 --pid "$(pgrep -n -x -f '.*/coditect-license serve')" \
    --output "$work/perf.data" -- sleep 8
wait "$bench"
perf script --no-inline --input "$work/perf.data" 2> /dev/null | inferno-collapse-perf > "$work/stacks"
inferno-flamegraph --title "coditect-license, $scenario" --minwidth 0.3 < "$work/stacks" > "$picture"
cat "$work/table"
