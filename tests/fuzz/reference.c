/* SPDX-License-Identifier: MIT */
/* reference.c - URIs and option values, written a second time (reference.h). */
#include "fuzz/reference.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *scheme;
	bool layer;
	const char *keys;
} schemes[] = {
	{"mem", false, " quota name "},
	{"file", false, " quota extent direct "},
	{"error", true, " op errno code nth count prob seed range "},
	{"delay", true, " us op "},
};
#define SCHEMES (sizeof(schemes) / sizeof(*schemes))

static int digit(char c, const char *digits)
{
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/* NULL: a bad escape, or a NUL. */
static char *decoded(const char *text, size_t length)
{
	static const char hex[] = "00112233445566778899aAbBcCdDeEfF";
	char *out = calloc(length + 1, 1);
	size_t used = 0;

	for (size_t i = 0; i < length; i++) {
		out[used] = text[i];
		if (text[i] == '%') {
			int high = i + 2 < length ? digit(text[i + 1], hex) : -1;
			int low = i + 2 < length ? digit(text[i + 2], hex) : -1;

			if (high < 0 || low < 0 || high / 2 * 16 + low / 2 == 0) {
				free(out);
				return NULL;
			}
			out[used] = (char)(high / 2 * 16 + low / 2);
			i += 2;
		}
		used++;
	}
	return out;
}

static bool key_known(const char *keys, const char *key)
{
	size_t length = strlen(key);

	if (!length || strchr(key, ' '))
		return false;
	for (const char *at = keys; (at = strstr(at, key)); at++)
		if (at[-1] == ' ' && at[length] == ' ')
			return true;
	return false;
}

static bool option_parse(struct reference_layer *layer, const char *keys, const char *text,
			 size_t length)
{
	const char *equals = memchr(text, '=', length);
	size_t key_length = equals ? (size_t)(equals - text) : length;

	if (layer->option_count == REFERENCE_OPTIONS)
		return false;
	struct reference_option *option = &layer->options[layer->option_count];

	option->key = decoded(text, key_length);
	option->value = equals ? decoded(equals + 1, length - key_length - 1) : calloc(1, 1);
	layer->option_count++;
	if (!option->key || !option->value || !key_known(keys, option->key))
		return false;
	for (size_t i = 0; i + 1 < layer->option_count; i++)
		if (!strcmp(layer->options[i].key, option->key))
			return false;
	return true;
}

static bool options_parse(struct reference_layer *layer, const char *keys, const char *text,
			  size_t length)
{
	for (;;) {
		const char *and = memchr(text, '&', length);
		size_t one = and? (size_t)(and-text) : length;

		if (!option_parse(layer, keys, text, one))
			return false;
		if (!and)
			return true;
		text += one + 1;
		length -= one + 1;
	}
}

static bool leaf_parse(struct reference_uri *uri, struct reference_layer *layer, const char *keys,
		       const char *text)
{
	size_t length = strcspn(text, "?");

	if (!length)
		return false;
	uri->path = decoded(text, length);
	if (!uri->path)
		return false;
	return !text[length] ||
	       options_parse(layer, keys, text + length + 1, strlen(text + length + 1));
}

bool reference_parse(struct reference_uri *uri, const char *text)
{
	memset(uri, 0, sizeof(*uri));
	while (uri->layer_count < REFERENCE_LAYERS) {
		struct reference_layer *layer = &uri->layers[uri->layer_count];
		size_t length = strcspn(text, ":?"), which = 0;

		while (which < SCHEMES && (strlen(schemes[which].scheme) != length ||
					   strncmp(schemes[which].scheme, text, length)))
			which++;
		if (which == SCHEMES || !text[length])
			return false;
		layer->scheme = strndup(text, length);
		uri->layer_count++;
		text += length;
		if (!schemes[which].layer)
			return *text == ':' &&
			       leaf_parse(uri, layer, schemes[which].keys, text + 1);
		size_t options = strcspn(text, ":");

		if (!text[options] || (*text == '?' && !options_parse(layer, schemes[which].keys,
								      text + 1, options - 1)))
			return false;
		text += options + 1;
	}
	return false;
}

void reference_free(struct reference_uri *uri)
{
	for (size_t i = 0; i < uri->layer_count; i++) {
		struct reference_layer *layer = &uri->layers[i];

		for (size_t j = 0; j < layer->option_count; j++) {
			free(layer->options[j].key);
			free(layer->options[j].value);
		}
		free(layer->scheme);
	}
	free(uri->path);
}

const char *reference_option(const struct reference_layer *layer, const char *key)
{
	for (size_t i = 0; i < layer->option_count; i++)
		if (!strcmp(layer->options[i].key, key))
			return layer->options[i].value;
	return NULL;
}

/* ---- Values ------------------------------------------------------------------------------- */

bool reference_uint(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	unsigned __int128 value = 0;

	if (!*text || strspn(text, "0123456789") != strlen(text))
		return false;
	for (; *text; text++) {
		value = value * 10 + (unsigned)(*text - '0');
		if (value > max)
			return false;
	}
	*number = (uint64_t)value;
	return value >= min;
}

bool reference_size(const char *text, uint64_t *bytes)
{
	size_t length = strlen(text);
	int unit = length ? digit(text[length - 1], "kKmMgGtT") : -1;
	unsigned shift = unit < 0 ? 0 : (unsigned)(unit / 2 + 1) * 10;
	char *number = strndup(text, unit < 0 ? length : length - 1);
	bool good = reference_uint(number, 0, INT64_MAX >> shift, bytes);

	free(number);
	*bytes = good ? *bytes << shift : 0;
	return good;
}

bool reference_bool(const char *text, bool *flag)
{
	*flag = !*text || !strcmp(text, "1") || !strcmp(text, "yes") || !strcmp(text, "on");
	return *flag || !strcmp(text, "0") || !strcmp(text, "no") || !strcmp(text, "off");
}

static bool delay_good(const struct reference_layer *layer)
{
	static const char ops[] =
		" fault page_mkwrite unreserve writepages truncate punch_hole fsync "
		"attach control capacity all ";
	const char *us = reference_option(layer, "us"), *op = reference_option(layer, "op");
	uint64_t number;

	return (!us || reference_uint(us, 0, 3600000000, &number)) && (!op || key_known(ops, op));
}

bool reference_values_good(const struct reference_uri *uri)
{
	const struct reference_layer *leaf = &uri->layers[uri->layer_count - 1];
	const char *quota = reference_option(leaf, "quota"), *name = reference_option(leaf, "name");
	uint64_t bytes;

	for (size_t i = 0; i + 1 < uri->layer_count; i++)
		if (!delay_good(&uri->layers[i]))
			return false;
	return reference_size(uri->path, &bytes) && (!quota || reference_size(quota, &bytes)) &&
	       (!name || (*name && strlen(name) <= 48));
}
