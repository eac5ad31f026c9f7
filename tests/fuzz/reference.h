/* SPDX-License-Identifier: MIT */
/*
 * reference.h - URIs and option values once more, written from the manual mkwrite(7) and not from
 * the library: what fuzz_uri compares the library with. Slow, simple, no text is changed in place.
 */
#ifndef FUZZ_REFERENCE_H
#define FUZZ_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REFERENCE_OPTIONS 64
#define REFERENCE_LAYERS  16 /* the leaf counts */

struct reference_option {
	char *key, *value;
};

struct reference_layer {
	char *scheme;
	struct reference_option options[REFERENCE_OPTIONS];
	size_t option_count;
};

struct reference_uri {
	struct reference_layer layers[REFERENCE_LAYERS]; /* outermost first; the last is the leaf */
	size_t layer_count;
	char *path;
};

/* False: it is none. To be freed in both cases. */
bool reference_parse(struct reference_uri *uri, const char *text);
void reference_free(struct reference_uri *uri);

/* The value of an option, or NULL. */
const char *reference_option(const struct reference_layer *layer, const char *key);

/* "64M"; at most INT64_MAX. */
bool reference_size(const char *text, uint64_t *bytes);
bool reference_uint(const char *text, uint64_t min, uint64_t max, uint64_t *number);
bool reference_bool(const char *text, bool *flag);

/* May these values stand with these keys? Only for mem and delay. */
bool reference_values_good(const struct reference_uri *uri);

#endif
