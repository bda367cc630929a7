#!/bin/sh
# SPDX-License-Identifier: MIT
# Print and install what is missing for building, testing or checking: deps.sh [build|test|check]
# Debian and its kin by apt-get (with sudo when not root); elsewhere a list of what is missing.
# Reads nothing from the terminal.
set -eu
want=${1:-test}
missing=
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM

# need PACKAGE PROBE...: the package is missing when the probe fails
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

links() { # COMPILER FLAG: compiles, links and runs a program
    printf 'int main(void) { return 0; }\n' >"$scratch/a.c" &&
        "$1" -fsanitize="$2" -o "$scratch/a" "$scratch/a.c"
}

python_fit() { # Meson and the checkers need 3.7
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 7))'
}

probe() {
    missing=
    need make command -v make
    need gcc command -v gcc
    need libc6-dev test -e /usr/include/stdio.h
    need python3 python_fit
    need meson command -v meson
    need ninja-build command -v ninja
    need pkg-config command -v pkg-config
    need libsqlite3-dev pkg-config --exists sqlite3
    need libjansson-dev pkg-config --exists jansson
    need libncurses-dev pkg-config --exists ncursesw
    [ "$want" = test ] || return 0
    need g++ command -v g++
    need binutils command -v nm
    need cmake command -v cmake
    need libuv1-dev pkg-config --exists libuv
    need libglib2.0-dev pkg-config --exists glib-2.0
    need libgtk-3-dev pkg-config --exists gtk+-3.0
    need xvfb command -v Xvfb
    need xdotool command -v xdotool
    need libcmocka-dev pkg-config --exists cmocka
    need libpython3-stdlib python3 -c 'import sqlite3'
    need clang command -v clang
    need "$(runtime)" links clang address
    need scdoc command -v scdoc
    need spin command -v spin
    need e2fsprogs command -v mkfs.ext4
    need mount command -v mount
    # Only this version lays the code out as it is; where it cannot be had, format is not checked.
    if [ "$want" = check ] && apt-cache show clang-format-14 >/dev/null 2>&1; then
        need clang-format-14 command -v clang-format-14
    fi
}

runtime() { # the package of clang's sanitizers: of the clang that is, or will be, there
    version=$(clang -dumpversion 2>/dev/null | cut -d. -f1)
    if [ -z "$version" ]; then
        version=$(apt-cache depends clang 2>/dev/null |
            sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    fi
    echo "libclang-rt-${version:-14}-dev"
}

probe
[ -n "$missing" ] || exit 0
echo "missing:$missing"

if ! command -v apt-get >/dev/null; then
    echo "There is no apt-get here. Please install what these Debian packages hold, by name:"
    for package in $missing; do
        echo "  $package"
    done
    exit 1
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "Neither root nor sudo. As root: apt-get install$missing"
        exit 1
    fi
    as_root=sudo
fi

echo "installing with ${as_root:+sudo }apt-get:$missing"
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -q </dev/null
probe # the name of clang's runtime needs the lists
# shellcheck disable=SC2086
$as_root apt-get install -q -y --no-install-recommends $missing </dev/null

probe
if [ -n "$missing" ]; then
    echo "still missing:$missing"
    exit 1
fi
