#!/bin/sh
# Runs the tests under coverage, in two halves at the same time: those that wait for real programs, and the others.
# Arguments are for pytest. Prints the output of both, one after the other; exit status 0 when both have passed.
set -u
cd "$(dirname -- "$0")/.."
bin=${BIN:-.venv/bin}
mkdir -p .tools
log=.tools/e2e-tests.log

half() {
    "$bin/coverage" run -m pytest -m "not slow" "$@"
    status=$?
    # With arguments that choose tests, one half may have none.
    [ "$status" -eq 5 ] && [ "$chosen" -gt 0 ] && return 0
    return "$status"
}

chosen=$#
half tests/e2e "$@" >"$log" 2>&1 &
e2e=$!
trap 'kill "$e2e" 2>/dev/null' INT TERM
half --ignore=tests/e2e tests "$@"
quick=$?
wait "$e2e"
slow=$?
cat "$log"
[ "$quick" -eq 0 ] && [ "$slow" -eq 0 ]
