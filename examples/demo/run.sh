#!/bin/sh
# SPDX-License-Identifier: MIT
# The demo: run.sh [BUILD_DIRECTORY]
#
# A server, three proxies that cut its connections at random times (200 ms apart on average: one
# anywhere, one always in the middle of a frame, one leaving half of them open), and client
# processes that call through them with many threads each. Everybody keeps a ledger; when all is
# over, a separate program compares the ledgers and says whether every call ran once.
#
# From the environment: DEMO_SECONDS (20), DEMO_CLIENTS (4), DEMO_THREADS (16 in each), DEMO_DIR
# (where the ledgers are kept; without it they are removed, unless the audit fails), DEMO_AUDIT
# (options of the audit).
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build/release}
seconds=${DEMO_SECONDS:-20}
clients=${DEMO_CLIENTS:-4}
threads=${DEMO_THREADS:-16}
keep=${DEMO_DIR:-}
programs=$build/examples/demo
pids=

for program in "$programs/demo_server" "$programs/demo_client" "$programs/demo_audit" \
    "$build/tool/semel"; do
    if [ ! -x "$program" ]; then
        echo "There is no $program; 'make demo' builds it." >&2
        exit 1
    fi
done

directory=${keep:-$(mktemp -d)}
mkdir -p "$directory" && rm -f "$directory"/*.ledger "$directory"/*.json || exit 1

# Sockets have short paths, whatever the directory for the ledgers is called.
sockets=$(mktemp -d /tmp/semel-demo.XXXXXX) || exit 1

leave() {
    trap - EXIT INT TERM
    # shellcheck disable=SC2086
    [ -z "$pids" ] || kill $pids 2>/dev/null
    wait
    rm -rf "$sockets"
    exit "$1"
}
trap 'leave 1' EXIT
trap 'echo; leave 130' INT
trap 'leave 143' TERM

say() { # a line that is redrawn on a terminal, and printed now and then elsewhere
    if [ -t 1 ]; then
        printf '\r\033[K%s' "$1"
    elif [ "$2" = 1 ]; then
        echo "$1"
    fi
}

sum() { # COUNTER FILE...: the sum of a counter over files that may not be there yet
    counter=$1
    shift
    cat "$@" 2>/dev/null | tr ',{}' '[\n*]' |
        awk -F: -v key="\"$counter\"" '$1 == key { sum += $2 } END { print sum + 0 }'
}

progress() { # ELAPSED
    now=$(sum completed "$directory"/client-*.json)
    say "$(printf '%3d s  %d calls  %d calls/s  %d connections broken (%d mid-frame)' "$1" \
        "$now" $(((now - before) / step)) "$(sum cuts "$directory"/proxy-*.json)" \
        "$(sum cuts_mid_frame "$directory"/proxy-*.json)")" "$2"
    before=$now
}

alive() { # PID...: is any of them running?
    for pid in "$@"; do
        kill -0 "$pid" 2>/dev/null && return 0
    done
    return 1
}

await_socket() {
    tries=0
    while [ ! -S "$1" ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "Nothing listens at $1." >&2
            exit 1
        fi
        sleep 0.1
    done
}

echo "$clients clients with $threads threads each, $seconds s, connections cut every 200 ms"
"$programs/demo_server" "unix:$sockets/server" "$directory/server.ledger" \
    "$directory/server.json" &
server=$!
pids=$server
await_socket "$sockets/server"

proxies=
proxy() { # NUMBER OPTION...
    number=$1
    shift
    "$build/tool/semel" proxy "unix:$sockets/proxy-$number" "unix:$sockets/server" -q \
        --cut-every 200ms --stats "$directory/proxy-$number.json" "$@" &
    proxies="$proxies $!"
    pids="$pids $!"
}
proxy 1
proxy 2 --mid-frame
proxy 3 --half-open --delay 1ms
for number in 1 2 3; do
    await_socket "$sockets/proxy-$number"
done

callers=
number=0
while [ "$number" -lt "$clients" ]; do
    number=$((number + 1))
    "$programs/demo_client" "unix:$sockets/proxy-$((number % 3 + 1))" "$number" "$threads" \
        "$seconds" "$directory/client-$number.ledger" "$directory/client-$number.json" &
    callers="$callers $!"
    pids="$pids $!"
done

before=0
step=1
elapsed=0
# shellcheck disable=SC2086
while alive $callers; do
    sleep "$step"
    elapsed=$((elapsed + step))
    progress "$elapsed" $((elapsed % 5 == 0))
    if ! kill -0 "$server" 2>/dev/null; then
        wait "$server"
        echo "The server died, with status $?; what it wrote is in $directory." >&2
        exit 1
    fi
    if [ "$elapsed" -gt $((seconds + 180)) ]; then
        echo "The clients hang." >&2
        exit 1
    fi
done
[ ! -t 1 ] || echo

failed=0
for pid in $callers; do
    wait "$pid" || failed=1
done
# The proxies first, so that their last counters are written before anybody reads them.
# shellcheck disable=SC2086
kill $proxies
for pid in $proxies; do
    wait "$pid" || failed=1
done
kill "$server"
wait "$server" || failed=1
pids=
if [ "$failed" = 1 ]; then
    echo "A program of the demo failed; what it wrote is in $directory." >&2
    exit 1
fi

# shellcheck disable=SC2086
if "$programs/demo_audit" ${DEMO_AUDIT:-} "$directory"; then
    [ -n "$keep" ] || rm -rf "$directory"
    leave 0
fi
echo "The ledgers are in $directory." >&2
exit 1
