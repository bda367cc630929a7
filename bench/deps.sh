#!/bin/sh
# SPDX-License-Identifier: MIT
# What `make bench` needs beyond the build: ZeroMQ and Twisted, which Semel is measured beside, and
# SQLite, for the benchmarks of stores. Installs them by apt (with sudo when not root);
# elsewhere says what is missing.
set -eu

missing=
need() { # PACKAGE HEADER
    printf '#include <%s>\n' "$2" | ${CC:-cc} -E - >/dev/null 2>&1 || missing="$missing $1"
}
need libzmq3-dev zmq.h
need libsqlite3-dev sqlite3.h
/usr/bin/python3 -c 'import twisted' >/dev/null 2>&1 || missing="$missing python3-twisted"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "make bench needs what these Debian packages hold:$missing" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing$missing"
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
