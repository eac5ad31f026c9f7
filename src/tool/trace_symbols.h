/* SPDX-License-Identifier: MIT */
/*
 * trace_symbols.h - names of functions, from the symbol tables of a program's or library's file.
 */
#ifndef TRACE_SYMBOLS_H
#define TRACE_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbols;

/* Were names looked for when this was built? */
bool symbols_known(void);
/* Of the file at path, if it is still as it was: that large, changed then. NULL: there are none. */
struct symbols *symbols_open(const char *path, uint64_t size_bytes, uint64_t modified_ns);
void symbols_close(struct symbols *symbols);
/* The function whose code lies at offset in the file: NULL: none known. *inside: how far behind its
 * beginning. The name is good until symbols_close. */
const char *symbols_find(const struct symbols *symbols, uint64_t offset, uint64_t *inside);

#endif
