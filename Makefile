# SPDX-License-Identifier: MIT
# The front door: every target sees to its packages, builds in build/ (meson) and does its work.
#
#   make            build the library, the command and the tests
#   make demo       build, and show what it is for, on real files; FILES="..."
#   make test       build, and run every bounded test        TESTS="name parts" SUITE=contract
#   make check      the same and more of it, then again under ASan+UBSan and TSan, then fuzz and mutants
#   make mutants    break a copy of the library in many ways: the explorer must see each   NAMES="..."
#   make fuzz       build, and let libFuzzer look for inputs that fail   FUZZ_S=seconds TARGETS="uri api trace"
#   make bench      build, and measure against the kernel's own mmap; ARGS="..."
#   make install    PREFIX=/usr/local DESTDIR=; without PREFIX as configured, at first /usr/local
#   make format     put all C files into the project's format
#   make clean      remove what was built

SHELL = bash -o pipefail
comma = ,
BUILD ?= build
SETUP = scripts/setup
MESON_FLAGS ?=
PREFIX ?=
RUN_TESTS = scripts/run-tests $(if $(TOTALS),--totals $(TOTALS)) $(addprefix --suite ,$(SUITE))
FUZZ_S ?= 60
TARGETS ?= uri api trace
FUZZED = -Dfuzz=true -Dchecks=true -Doptimization=2 -Db_sanitize=address$(comma)undefined -Db_lundef=false
SANITIZED = -Dchecks=true -Doptimization=1 -Db_lundef=false
C_FILES = $(shell git ls-files -co --exclude-standard '*.c' '*.h')

.PHONY: all build demo test test-asan test-tsan mutants check fuzz bench install format format-check clean

all: build

# $(call build,DIRECTORY,MESON FLAGS,TARGETS). A directory that was not configured to the end is made
# anew.
define build
@[ -f $(1)/build.ninja ] || { rm -rf $(1); meson setup $(1) $(2) $(MESON_FLAGS) >$(1).log || \
	{ cat $(1).log; rm -f $(1).log; exit 1; }; }; rm -f $(1).log
@ninja -C $(1) --quiet $(3) | sed '/^ninja: no work to do/d'
endef

build:
	@$(SETUP)
	$(call build,$(BUILD))

demo: build
	$(BUILD)/mkwrite demo $(FILES)

test: build
	@$(SETUP) test
	@$(RUN_TESTS) $(BUILD) $(TESTS)

# ASan gives the main thread a small stack for signals, which nested faults of inline views, whose
# frames it makes larger, would run over.
test-asan: export ASAN_OPTIONS = use_sigaltstack=0
test-asan:
	@$(SETUP) test
	$(call build,$(BUILD)-asan,-Db_sanitize=address$(comma)undefined $(SANITIZED))
	@$(RUN_TESTS) $(BUILD)-asan $(TESTS)

test-tsan:
	@$(SETUP) test
	$(call build,$(BUILD)-tsan,-Db_sanitize=thread $(SANITIZED))
	@$(RUN_TESTS) $(BUILD)-tsan $(TESTS)

mutants:
	@$(SETUP) dev
	scripts/mutants $(NAMES)

check: export MKW_TEST_HEAVY = 1
check: export MKW_TEST_TIMEOUT_S = 1200
check:
	$(MAKE) test
	$(MAKE) test-asan
	$(MAKE) test-tsan
	$(MAKE) fuzz FUZZ_S=300
	$(MAKE) mutants

fuzz: export CC = clang
fuzz:
	@$(SETUP) dev
	$(call build,$(BUILD)-fuzz,$(FUZZED),$(TARGETS:%=tests/fuzz/fuzz-%))
	@scripts/fuzz $(BUILD)-fuzz $(FUZZ_S) $(TARGETS)

bench:
	@$(SETUP) bench
	$(call build,$(BUILD))
	$(BUILD)/mkwrite bench $(ARGS)

install: build
	@[ -z "$(PREFIX)" ] || meson configure $(BUILD) -Dprefix=$(PREFIX)
	@meson install -C $(BUILD) --quiet $(if $(DESTDIR),--destdir $(abspath $(DESTDIR)))
	@[ -n "$(DESTDIR)" ] || [ "$$(id -u)" != 0 ] || ldconfig

format:
	@$(SETUP) dev
	clang-format -i $(C_FILES)

format-check:
	@$(SETUP) dev
	@clang-format --dry-run -Werror $(C_FILES)

clean:
	rm -rf $(BUILD) $(BUILD)-*
