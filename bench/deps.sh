#!/bin/sh
# SPDX-License-Identifier: MIT
# What `make bench` needs beyond the build: ZeroMQ, one of the two programs Semel is measured
# beside. Installs it by apt (with sudo when not root); elsewhere says what is missing.
set -eu

if printf '#include <zmq.h>\n' | ${CC:-cc} -E - >/dev/null 2>&1; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "make bench needs the ZeroMQ development files (zmq.h and libzmq)" >&2
    exit 1
fi
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
echo "installing libzmq3-dev"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libzmq3-dev
