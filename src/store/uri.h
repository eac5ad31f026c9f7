/* SPDX-License-Identifier: MIT */
/*
 * uri.h - the text that names storage, taken apart.
 *
 *   leaf   SCHEME:PATH[?key=value&...]
 *   layer  SCHEME[?key=value&...]:URI      the URI beneath, as written
 *
 * Keys, values and a leaf's path are percent decoded; no byte of them is NUL.
 */
#ifndef STORE_URI_H
#define STORE_URI_H

#include <mkwrite/store.h>

#define URI_MAX_BYTES	16384u
#define URI_MAX_OPTIONS 64u

struct uri {
	const char *path;
	struct mkw_option options[URI_MAX_OPTIONS];
	size_t option_count;
	char *text; /* what all of them point into */
};

/* How long the scheme at the beginning of text is; 0: none is there. */
size_t uri_scheme_length(const char *text);

/* Take apart what follows the scheme: rest begins at its ':' or '?'. 0, or a negative errno with a
 * sentence and nothing to free. */
int uri_parse(struct uri *uri, const char *scheme, const char *rest, bool layer);
void uri_free(struct uri *uri);

#endif
