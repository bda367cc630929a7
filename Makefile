# SPDX-License-Identifier: MIT
# A thin front: the build itself is Meson's. Everything goes to build/.
PREFIX ?= /usr/local
DESTDIR ?=
BUILD = build/release

.PHONY: all build test check format demo bench install clean

all: build

build: deps-build
	@if [ -e $(BUILD)/build.ninja ]; then \
		meson setup --reconfigure $(BUILD) -Dprefix=$(PREFIX) -Dtests=false >/dev/null; \
	else \
		meson setup $(BUILD) -Dprefix=$(PREFIX) -Dtests=false >/dev/null; \
	fi
	@ninja -C $(BUILD)

# The release, ASan+UBSan and TSan lanes and the walls; the last line is the tally.
test: deps-test
	@python3 tools/lanes.py

# Format, lint and walls.
check: deps-check
	@python3 tools/format.py
	@python3 tools/lanes.py walls

# Lay the C files out anew.
format: deps-check
	@python3 tools/format.py --fix

# A bank whose server is killed, and an audit of it: see 'semel demo --help'.
demo: build
	@$(BUILD)/tool/semel demo

bench: build
	@sh bench/deps.sh
	@bench/run $(BUILD)

install: build
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild
	@[ -n "$(DESTDIR)" ] || ldconfig 2>/dev/null || true

clean:
	rm -rf build

.PHONY: deps-build deps-test deps-check
deps-build deps-test deps-check:
	@sh tools/deps.sh $(@:deps-%=%)
