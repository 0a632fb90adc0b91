#!/usr/bin/env bash
# Instructions an operation: each workload is run under callgrind with N and with 2 N operations; the difference is
# divided by N, so that the set-up does not count. Repeatable to the digit on one machine and toolchain.
#   ./instructions.sh                   everything
#   ./instructions.sh hotspare hit      one cache, one workload
# At the end of everything: hotspare with replication off over a build of it that has no log at all; at most 1.01.
set -euo pipefail
cd "$(dirname "$0")"
command -v valgrind >/dev/null || { echo "valgrind is not installed" >&2; exit 2; }
target="${CARGO_TARGET_DIR:-target}"
cargo build --quiet --release --bin count
cp "$target/release/count" "$target/release/count-group"
operations=50000
counted() { # binary cache workload operations
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$target/release/$1" "$2" "$3" --ops "$4" 2>&1 \
        | sed -n 's/.*Collected : \([0-9]*\).*/\1/p'
}
an_operation() { # binary cache workload
    local once twice
    once=$(counted "$1" "$2" "$3" $operations)
    twice=$(counted "$1" "$2" "$3" $((2 * operations)))
    echo $(((twice - once) / operations))
}
printf '%-16s %-10s %s\n' cache workload "instructions an operation"
for cache in ${1:-hotspare hotspare+log hotspare+replica quick_cache scc}; do
    for workload in ${2:-hit miss set overwrite get-many}; do
        # A replica has no part in reads.
        case $cache-$workload in hotspare+replica-set | hotspare+replica-overwrite) ;; hotspare+replica-*) continue ;; esac
        printf '%-16s %-10s %d\n' "$cache" "$workload" "$(an_operation count-group "$cache" "$workload")"
    done
done
[ $# = 0 ] || exit 0
cargo build --quiet --release --bin count --no-default-features
cp "$target/release/count" "$target/release/count-no-group"
for workload in hit miss set overwrite get-many; do
    off=$(an_operation count-group hotspare "$workload")
    none=$(an_operation count-no-group hotspare "$workload")
    printf '%-16s %-10s %d with replication off, %d without a log: ' hotspare "$workload" "$off" "$none"
    awk -v off="$off" -v none="$none" \
        'BEGIN { ratio = off / none; printf "%.3f, %s 1.01\n", ratio, (ratio <= 1.01 ? "within" : "ABOVE") }'
done
