/* SPDX-License-Identifier: MIT */
/*
 * fuzz.h - what the fuzz targets share: how they fail, where they keep files, how an input is read.
 *
 * A target is a file that defines fuzz_one(). It is linked either with libFuzzer, which makes
 * inputs up, or with replay.c, which runs those of a directory. A failed expectation aborts.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <mkwrite/store.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE ((size_t)MKW_PAGE_SIZE)

/* Run one input. The target leaves nothing behind: the caller looks. */
void fuzz_one(const uint8_t *data, size_t size);

/* What libFuzzer calls, and replay.c too. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Why this host cannot run the targets; NULL: it can. */
const char *fuzz_unable(void);

/* ---- Failing ------------------------------------------------------------------------------ */

_Noreturn void fuzz_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
#define EXPECT(condition, ...)                                      \
	do {                                                        \
		if (!(condition))                                   \
			fuzz_fail(__FILE__, __LINE__, __VA_ARGS__); \
	} while (0)

/* FUZZ_TRACE=1: say what is being done. */
bool fuzz_tracing(void);
void fuzz_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- Files -------------------------------------------------------------------------------- */

/*
 * Paths in URIs are arbitrary. The library's own open and realpath are bound to those of confine.c,
 * which take each path as one below a scratch directory, ".." and links included; nothing outside
 * of it can be reached. Delays are cut short there too.
 */
int confine_directory(void); /* descriptor of the scratch directory, made at the first call */
void confine_empty(void);    /* remove what is in it */

/* ---- Reading an input --------------------------------------------------------------------- */

struct input {
	const uint8_t *at, *end;
};

static inline bool input_ended(const struct input *in)
{
	return in->at == in->end;
}

/* Digits are 0 to 9, small letters 10 to 35, capitals 36 to 61; any other byte is itself. At the
 * end: 0. */
static inline unsigned input_number(struct input *in)
{
	unsigned c = input_ended(in) ? '0' : *in->at++;

	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'Z')
		return c - 'A' + 36;
	return c;
}

#endif
