#!/bin/sh
# Builds the C plugins against the header alone and runs them in the small loader: plain, under valgrind, and under the
# address and undefined-behaviour sanitizers; then has the loader refuse every kind of bad library. Ends with 0 if all holds.
set -eu
here=$(dirname "$0")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c11 -Wall -Wextra -Werror -pedantic -gdwarf-4 -I $here/../../sdk/include"
CC=${CC:-gcc}

build() { # FOLDER FLAG...
    folder=$1
    shift
    mkdir "$folder"
    $CC $flags "$@" -fPIC -shared "$here/source.c" -o "$folder/libc_counter.so"
    $CC $flags "$@" -fPIC -shared "$here/sink.c" -o "$folder/libc_lines.so"
    $CC $flags "$@" "$here/loader.c" -o "$folder/loader" -rdynamic -ldl -pthread
}

run() { # FOLDER COMMAND...: the loader, in front of it whatever watches over it
    folder=$1
    shift
    "$@" "$folder/loader" "$folder/libc_counter.so" "$folder/libc_lines.so"
}

build "$out/plain" -O2
for library in libc_counter libc_lines; do
    symbols=$(nm -D --defined-only "$out/plain/$library.so" | awk '{print $3}')
    [ "$symbols" = philotes_plugin_v1 ] || { echo "$library.so exports $symbols"; exit 1; }
done
echo "plain:"
run "$out/plain"

echo "valgrind:"
build "$out/debug" -O0
run "$out/debug" valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect

echo "sanitizers:"
build "$out/sanitized" -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
run "$out/sanitized"

# Each flag is a reason, and each reason a message of the loader's; without a flag the library is sound, and is refused only
# for not being c-counter.
echo "refusals:"
for flag in SOUND $(sed -n 's/^ \*     \(REFUSE_[A-Z0-9_]*\).*/\1/p' "$here/refusals.c"); do
    $CC $flags -fPIC -shared -D"$flag" "$here/refusals.c" -o "$out/$flag.so"
    if message=$("$out/plain/loader" "$out/$flag.so" 2>&1); then
        echo "$flag was accepted"
        exit 1
    fi
    echo "$message" | sed "s|^.*$flag.so: |$flag: |; s|^.*$flag.so is|$flag: is|"
done
