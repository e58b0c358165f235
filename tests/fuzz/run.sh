#!/bin/sh
# Runs the fuzz targets with libFuzzer: run.sh SECONDS [TARGET...], two at a time. What is found is in target/fuzz/TARGET/found.
set -eu
cd "$(dirname "$0")/../.."

folder=${CARGO_TARGET_DIR:-target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
binary=$folder/$host/fuzz/fuzz

# One target, where the script has called itself.
if [ "$1" = --one ]; then
    seconds=$2 name=$3 out=$folder/$3
    mkdir -p "$out/corpus" "$out/found"
    # As much stack as a thread of a plugin has. What asks for four gigabytes at once is refused them, and ends.
    ulimit -s 2048
    ulimit -v 4194304
    if ! PHILOTES_FUZZ=$name PHILOTES_FUZZ_RUNNING=$out/running "$binary" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=1536 -max_len=16384 -dict=tests/fuzz/words -print_final_stats=1 -artifact_prefix="$out/found/" \
        "$out/corpus" "tests/fuzz/corpus/$name" >"$out/log" 2>&1; then
        cp "$out/running" "$out/found/last"
        echo "$name: found something: $out/found, $out/log; again: PHILOTES_FUZZ=$name $binary $out/found/FILE" >&2
        tail -n 25 "$out/log" >&2
        exit 1
    fi
    echo "$name: nothing found; $(grep -o 'Done [0-9]* runs in [0-9]* second' "$out/log")s, \
$(grep -o 'cov: [0-9]* ft: [0-9]*' "$out/log" | tail -n 1)"
    exit 0
fi

seconds=$1
shift
[ $# -gt 0 ] || set -- tests/fuzz/corpus/*
# Counters where the program branches and what it compares, as cargo-fuzz has them; stable compilers know them as well.
sancov="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
# With a target said, build scripts and macros go without them.
RUSTFLAGS="$sancov -Clinker=clang -Clink-arg=-fuse-ld=mold" cargo build --profile fuzz --target "$host" --target-dir "$folder" \
    --package philotes-fuzz --features libfuzzer
for target in "$@"; do echo "${target##*/}"; done | xargs -P 2 -n 1 sh tests/fuzz/run.sh --one "$seconds"
