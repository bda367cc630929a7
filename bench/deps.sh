#!/bin/sh
# SPDX-License-Identifier: MIT
# What `make bench` needs beyond the build: ZeroMQ and Twisted, which Semel is measured beside.
# Installs them by apt (with sudo when not root); elsewhere says what is missing.
set -eu

missing=
printf '#include <zmq.h>\n' | ${CC:-cc} -E - >/dev/null 2>&1 || missing="$missing libzmq3-dev"
/usr/bin/python3 -c 'import twisted' >/dev/null 2>&1 || missing="$missing python3-twisted"
[ "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "make bench needs what Debian calls$missing" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing$missing"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing
