#!/bin/sh
# SPDX-License-Identifier: MIT
# install.sh - what a user finds after `make install`: libraries, headers, pkg-config, manual pages;
# and does the example of the README build and run with nothing else? Speaks TAP.
#
# usage: install.sh BUILD-DIRECTORY SOURCE-DIRECTORY PREFIX
set -u
build=$1 source=$2 prefix=$3
# A file store wants a file system with room; the build directory is on one.
work=$(mktemp -d "$build/install-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
number=0 failures=0

# check NAME COMMAND...: its output is shown if it fails.
check() {
	name=$1
	shift
	number=$((number + 1))
	if "$@" >"$work/out" 2>&1; then
		echo "ok $number - $name"
	else
		failures=$((failures + 1))
		echo "not ok $number - $name"
		sed 's/^/#   /' "$work/out"
	fi
}

root=$work/root

# What is installed, wherever the prefix and the library directory of this system are.
find_installed() {
	find "$root$prefix" -path "*$1" -print | grep -m 1 .
}

install_all() {
	meson install -C "$build" --no-rebuild --quiet --destdir "$root"
}

headers_alone() {
	for header in mkwrite.h store.h; do
		[ -f "$root$prefix/include/mkwrite/$header" ] || return 1
		echo "#include <mkwrite/$header>" |
			cc -std=c11 -Wall -Wextra -Wpedantic -Werror -I"$root$prefix/include" \
				-fsyntax-only -x c - || return 1
		# C++ users are few, but the headers promise it.
		command -v c++ >/dev/null || continue
		echo "#define MKW_CHECK_LOCKS
#include <mkwrite/$header>" |
			c++ -Wall -Wextra -Werror -I"$root$prefix/include" -fsyntax-only -x c++ - || return 1
	done
}

soname_is_0() {
	readelf -d "$(find_installed /libmkwrite.so)" | grep 'SONAME.*\[libmkwrite\.so\.0\]'
}

# Names of what the shared library defines for others, but for the version's own.
exported() {
	nm -D --defined-only "$(find_installed /libmkwrite.so)" | sed 's/.* //; s/@.*//' |
		grep -v '^MKW_' | sort -u
}

exports_mkw_only() {
	exported | grep '^mkw_' && ! exported | grep -v '^mkw_'
}

# Comments name functions too, but none that are not declared.
exports_are_declared() {
	sed -n 's/^static inline .*\b\(mkw_[a-z0-9_]*\)(.*/\1/p' "$source"/include/mkwrite/*.h |
		sort -u >"$work/inline"
	grep -ho '\bmkw_[a-z0-9_]*(' "$source"/include/mkwrite/*.h | tr -d '(' | sort -u |
		comm -23 - "$work/inline" >"$work/declared"
	exported >"$work/exported"
	diff "$work/declared" "$work/exported"
}

# pkg-config as a user calls it, but for the staging directory in front.
pkg() {
	PKG_CONFIG_PATH=$(dirname "$(find_installed /mkwrite.pc)") PKG_CONFIG_SYSROOT_DIR=$root \
		pkg-config "$@" mkwrite
}

compile_examples() {
	for name in refuse index; do
		# shellcheck disable=SC2046 # flags are several words
		cc "$source/examples/$name.c" $(pkg --cflags --libs) -o "$work/$name" || return
	done
}

run_example() {
	(cd "$work" && LD_LIBRARY_PATH=$(dirname "$(find_installed /libmkwrite.so)") ./refuse) &&
		[ "$(stat -c %s "$work/demo.db")" = 1048576 ] &&
		[ "$(head -c 4096 "$work/demo.db" | tr -d x | wc -c)" = 0 ]
}

example_was_refused() {
	(cd "$work" && LD_LIBRARY_PATH=$(dirname "$(find_installed /libmkwrite.so)") ./refuse |
		grep 'refused at offset')
}

# It checks its images itself; under the limit, some of it is in the swap file.
save_example() {
	(cd "$work" && LD_LIBRARY_PATH=$(dirname "$(find_installed /libmkwrite.so)") ./index >saved) &&
		[ "$(grep -c '^save [1-4]: the index after [0-9]* changes, whole' "$work/saved")" = 4 ] &&
		grep '^resident at most 6144 KiB' "$work/saved"
}

# The README's own program, as it stands there.
readme_program() {
	sed -n '/^```c$/,/^```$/p' "$source/README.md" | sed '1d;$d' >"$work/readme.c"
	# shellcheck disable=SC2046 # flags are several words
	cc -Wall -Wextra "$work/readme.c" $(pkg --cflags --libs) -o "$work/readme" &&
		cd "$work" && LD_LIBRARY_PATH=$(dirname "$(find_installed /libmkwrite.so)") ./readme |
		grep '^refused at offset [0-9]*: .*no space.*65536 of quota=65536 are used'
}

# The command in the staging directory loads the library that is there, and no other.
run_library() {
	library=$(realpath "$(find_installed /mkwrite/libmkwrite-run.so)") &&
		cd "$work" && "$(find_installed /bin/mkwrite)" run -- env >environment &&
		[ "$(sed -n s/^LD_PRELOAD=//p environment)" = "$library" ]
}

echo "TAP version 13"
echo "1..11"
check "it installs into a staging directory" install_all
check "the public headers compile by themselves" headers_alone
check "the soname is libmkwrite.so.0" soname_is_0
check "no symbol but mkw_* is exported" exports_mkw_only
check "what the public headers declare is exported, and nothing else" exports_are_declared
check "the examples compile with pkg-config" compile_examples
check "the example runs, and its bytes are in the file" run_example
check "the example is refused past its quota" example_was_refused
check "the example that saves by fork saves whole images of the instant" save_example
check "the program in the README compiles and says what the README says" readme_program
check "the installed command runs programs with the installed library" run_library
[ "$failures" = 0 ]
