#!/bin/sh
# SPDX-License-Identifier: MIT
# Is every function that the library takes from outside known to the tests of failing calls?
#
# usage: symbols.sh NM ARCHIVE CALLS
#
# TAP. A name that calls does not have is a system call that no test makes fail, or must be said to
# be harmless there. What a sanitizer or a hardening compiler puts in the place of a call is its own
# business: the plain builds are looked at.
set -u
nm=$1 archive=$2 calls=$3

undefined() {
	"$nm" "$1" | awk '
		NF == 2 && $1 == "U" { wanted[$2] = 1 }
		NF == 3 { had[$3] = 1 }
		END { for (name in wanted) if (!(name in had)) print name }' |
		grep -v -e '^__asan_' -e '^__ubsan_' -e '^__tsan_' -e '^__sanitizer_' -e '_chk$' | sort
}

# The names of file $1 that the second file does not have.
unknown() {
	awk -v calls="$2" '
		BEGIN { while ((getline line < calls) > 0) { split(line, word, " "); known[word[2]] = 1 } }
		!($1 in known) { print "#   " $1 " is not in " calls }' "$1"
}

list=$(mktemp) planted=$(mktemp)
trap 'rm -f "$list" "$planted"' EXIT
echo "1..2"
undefined "$archive" >"$list"
missing=$(unknown "$list" "$calls")
if [ -s "$list" ] && [ -z "$missing" ]; then
	echo "ok 1 - symbols_known: what the library calls is listed, $(wc -l <"$list") names"
else
	echo "not ok 1 - symbols_known: what the library calls is listed"
	echo "$missing"
fi
grep -v '^fail fallocate64$' "$calls" >"$planted"
if unknown "$list" "$planted" | grep -q fallocate64; then
	echo "ok 2 - symbols_found: a name that is not listed is found"
else
	echo "not ok 2 - symbols_found: a name that is not listed is found"
fi
