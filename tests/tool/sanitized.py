#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`mkwrite run` and programs that are built with a sanitizer.

usage: sanitized.py MKWRITE PROGRAM... [--list] [NAME-PART...]

Tests are as in tool.py.
"""
import os
import sys

sys.dont_write_bytecode = True # the source directory is left as it is
import tool # pylint: disable=wrong-import-position

PROGRAMS = [os.path.abspath(path) for path in sys.argv[2:] if os.path.exists(path)]


def test_sanitized():
    """A sanitized program does what it does by itself, and its sanitizer has nothing to say."""
    for program in PROGRAMS:
        result = tool.run("run", "--trace=trace", "--", program, "data")
        assert result.out == b"equal\n" and result.err == b"", (program, result.err)
        assert os.path.getsize("trace") > 32 + 100, "it was not watched"


def test_sanitized_children():
    """So does one that a shell runs."""
    for program in PROGRAMS:
        result = tool.run("run", "--", "sh", "-c", '"$0" data; exit $?', program)
        assert result.out == b"equal\n" and result.err == b"", (program, result.err)


tool.main(globals(), sys.argv[2 + len(PROGRAMS):])
