#!/usr/bin/env bash
# Instructions an operation: each workload is run under callgrind with N and with 2 N operations; the difference is
# divided by N, so that the set-up does not count. Repeatable to the digit on one machine and toolchain.
#   ./instructions.sh                   everything
#   ./instructions.sh hotspare hit      one cache, one workload
set -euo pipefail
cd "$(dirname "$0")"
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 2; }
cargo build --quiet --release --bin count
binary="${CARGO_TARGET_DIR:-target}/release/count"
operations=50000
counted() { # cache workload operations
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$binary" "$1" "$2" --ops "$3" 2>&1 \
        | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
printf '%-14s %-10s %s\n' cache workload "instructions an operation"
for cache in ${1:-hotspare hotspare+log quick_cache scc}; do
    for workload in ${2:-hit miss set overwrite get-many}; do
        once=$(counted "$cache" "$workload" $operations)
        twice=$(counted "$cache" "$workload" $((2 * operations)))
        printf '%-14s %-10s %d\n' "$cache" "$workload" $(((twice - once) / operations))
    done
done
