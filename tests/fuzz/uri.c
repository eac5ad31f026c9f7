/* SPDX-License-Identifier: MIT */
/*
 * uri.c - fuzz target: URIs, options, and values of options.
 *
 * An input is text. Its first character gives the flags of opening ('0' none, '1' MKW_RDWR, '3'
 * MKW_CREATE too, and so on), the rest of the first line is the URI; each line after it is set by
 * mkw_control as an option of what was opened, and tried as a value by itself.
 */
#include "fuzz/fuzz.h"
#include "fuzz/reference.h"
#include "store/uri.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_OBJECT ((uint64_t)1 << 46)

static struct mkw_space *space;

#define EXPECT_SAYS(result)                                                             \
	EXPECT((result) >= 0 || ((result) > -4096 && mkw_error_message()[0]), "%d: %s", \
	       (int)(result), mkw_error_message()[0] ? "no errno" : "no sentence")

/* ---- Values ------------------------------------------------------------------------------- */

static void errno_try(const char *text)
{
	int number = 0, error = mkw_parse_errno("key", text, &number);
	uint64_t digits;

	EXPECT_SAYS(error);
	if (error) {
		EXPECT(error == -EINVAL, "\"%s\": %d", text, error);
		EXPECT(!reference_uint(text, 1, 133, &digits), "\"%s\" is an errno", text);
		return;
	}
	EXPECT(number >= 1 && number <= 133, "\"%s\": errno %d", text, number);
	if (reference_uint(text, 1, 133, &digits))
		EXPECT(number == (int)digits, "\"%s\": errno %d", text, number);
	else
		EXPECT(text[0] == 'E', "\"%s\": errno %d", text, number);
}

static void value_try(const char *text)
{
	uint64_t number = 0, wanted = 0;
	bool flag = false, wanted_flag = false, good;
	int error;

	good = reference_size(text, &wanted);
	error = mkw_parse_size("key", text, &number);
	EXPECT_SAYS(error);
	EXPECT(error == (good ? 0 : -EINVAL) && (!good || number == wanted),
	       "size \"%s\": %d, %llu", text, error, (unsigned long long)number);
	good = reference_uint(text, 3, UINT64_MAX - 1, &wanted);
	error = mkw_parse_uint("key", text, 3, UINT64_MAX - 1, &number);
	EXPECT_SAYS(error);
	EXPECT(error == (good ? 0 : -EINVAL) && (!good || number == wanted),
	       "number \"%s\": %d, %llu", text, error, (unsigned long long)number);
	good = reference_bool(text, &wanted_flag);
	error = mkw_parse_bool("key", text, &flag);
	EXPECT_SAYS(error);
	EXPECT(error == (good ? 0 : -EINVAL) && (!good || flag == wanted_flag),
	       "flag \"%s\": %d, %d", text, error, flag);
	errno_try(text);
}

/* ---- Taking apart and putting together ---------------------------------------------------- */

static char *encode(char *to, const char *from)
{
	for (; *from; from++) {
		if (strchr("%?&=:#", *from) || (unsigned char)*from <= ' ' || *from & 0x80)
			to += sprintf(to, "%%%02x", (unsigned char)*from);
		else
			*to++ = *from;
	}
	*to = '\0';
	return to;
}

static void together(char *to, const struct uri *uri, bool layer)
{
	if (!layer) {
		*to++ = ':';
		to = encode(to, uri->path);
	}
	for (size_t i = 0; i < uri->option_count; i++) {
		*to++ = i ? '&' : '?';
		to = encode(to, uri->options[i].key);
		*to++ = '=';
		to = encode(to, uri->options[i].value);
	}
	if (layer)
		sprintf(to, ":%s", uri->path);
}

/* What was taken apart, put together and taken apart again is the same. */
static void round_trip(const struct uri *uri, const char *scheme, bool layer)
{
	static char text[3 * URI_MAX_BYTES + 4 * URI_MAX_OPTIONS + 16];
	struct uri again;

	together(text, uri, layer);
	int error = uri_parse(&again, scheme, text, layer);

	EXPECT(!error, "\"%s\" was put together from a good URI: %d", text, error);
	EXPECT(!strcmp(uri->path, again.path), "path \"%s\" came back as \"%s\"", uri->path,
	       again.path);
	EXPECT(uri->option_count == again.option_count, "options were lost in \"%s\"", text);
	for (size_t i = 0; i < uri->option_count; i++)
		EXPECT(!strcmp(uri->options[i].key, again.options[i].key) &&
			       !strcmp(uri->options[i].value, again.options[i].value),
		       "option %zu changed in \"%s\"", i, text);
	uri_free(&again);
}

static void apart_try(const char *text)
{
	size_t length = uri_scheme_length(text);
	const struct mkw_store_driver *driver = NULL;
	struct uri uri;

	for (size_t i = 0; length && (driver = mkw_store_driver(i)); i++)
		if (strlen(driver->scheme) == length && !strncmp(driver->scheme, text, length))
			break;
	if (!driver || strlen(text) > URI_MAX_BYTES)
		return;
	int error = uri_parse(&uri, driver->scheme, text + length, driver->layer);

	EXPECT_SAYS(error);
	if (error)
		return;
	round_trip(&uri, driver->scheme, driver->layer);
	uri_free(&uri);
}

/* ---- Opening ------------------------------------------------------------------------------ */

static bool flags_good(unsigned flags)
{
	if (flags > 0x1f || ((flags & MKW_EXCL) && !(flags & MKW_CREATE)))
		return false;
	return flags & MKW_RDWR || !(flags & (MKW_CREATE | MKW_TRUNC));
}

static bool only_memory(const struct reference_uri *uri)
{
	for (size_t i = 0; i + 1 < uri->layer_count; i++)
		if (strcmp(uri->layers[i].scheme, "delay"))
			return false;
	return !strcmp(uri->layers[uri->layer_count - 1].scheme, "mem");
}

/* What opening answers, where the text alone decides it; 1: it does not. */
static int open_answer(const struct reference_uri *uri, bool parsed, const char *text,
		       unsigned flags)
{
	uint64_t size;

	if (strlen(text) > URI_MAX_BYTES)
		return flags_good(flags) ? -ENAMETOOLONG : -EINVAL;
	if (!flags_good(flags) || !parsed)
		return -EINVAL;
	if (!only_memory(uri))
		return 1;
	if (!reference_values_good(uri))
		return -EINVAL;
	reference_size(uri->path, &size);
	return size > LARGEST_OBJECT && !(flags & MKW_TRUNC) ? -EFBIG : 0;
}

/* What was given can be read back. */
static void memory_look(struct mkw_handle *handle, const struct reference_uri *uri, unsigned flags)
{
	const char *quota = reference_option(&uri->layers[uri->layer_count - 1], "quota");
	uint64_t size, bytes, free_bytes = 0, total = 0;

	reference_size(uri->path, &size);
	EXPECT(mkw_size(handle) == (flags & MKW_TRUNC ? 0 : size), "size %llu, not %llu",
	       (unsigned long long)mkw_size(handle), (unsigned long long)size);
	int error = mkw_capacity(handle, &free_bytes, &total);

	EXPECT_SAYS(error);
	if (!quota) {
		EXPECT(error == -ENOTSUP, "capacity without a quota: %d", error);
		return;
	}
	reference_size(quota, &bytes);
	EXPECT(!error && total == bytes && free_bytes == bytes / PAGE * PAGE,
	       "quota=%s: %d, %llu free of %llu", quota, error, (unsigned long long)free_bytes,
	       (unsigned long long)total);
}

/* The first call of the operation fails as was asked for, the second does not. */
static void error_look(struct mkw_handle *handle, const struct reference_uri *uri)
{
	const struct reference_layer *layer = &uri->layers[0];
	const char *op = reference_option(layer, "op"), *name = reference_option(layer, "errno");
	uint64_t free_bytes, total;
	int number = EIO;

	if (strcmp(layer->scheme, "error") || uri->layer_count != 2 || !op ||
	    strcmp(op, "capacity") || layer->option_count != (name ? 2u : 1u) ||
	    strcmp(uri->layers[1].scheme, "mem") || !reference_option(&uri->layers[1], "quota"))
		return;
	if (name)
		EXPECT(!mkw_parse_errno("errno", name, &number), "accepted errno=%s", name);
	int first = mkw_capacity(handle, &free_bytes, &total);
	int second = mkw_capacity(handle, &free_bytes, &total);

	EXPECT(first == -number && second == 0, "made to fail with %d: %d, then %d", -number, first,
	       second);
}

static void control_try(struct mkw_handle *handle, const struct reference_uri *uri,
			const char *text)
{
	int error = mkw_control(handle, text);
	uint64_t bytes, free_bytes, total;
	bool quota = !strncmp(text, "quota=", 6) && reference_size(text + 6, &bytes);

	EXPECT_SAYS(error);
	if (!only_memory(uri))
		return;
	if (uri->layer_count == 1)
		EXPECT(error == (quota ? 0 : -EINVAL), "\"%s\": %d", text, error);
	if (error || !quota)
		return;
	error = mkw_capacity(handle, &free_bytes, &total);
	EXPECT(!error && total == bytes, "\"%s\": then %d, %llu", text, error,
	       (unsigned long long)total);
}

static void bytes_try(struct mkw_handle *handle, bool memory)
{
	unsigned char byte = 0x5a;
	bool empty = mkw_size(handle) == 0;
	ssize_t got = mkw_pread(handle, &byte, 1, 0);

	EXPECT_SAYS(got);
	if (memory)
		EXPECT(got == !empty && byte == (empty ? 0x5a : 0), "read %zd, %#x", got, byte);
	byte = 0x3c;
	got = mkw_pwrite(handle, &byte, 1, 0);
	EXPECT_SAYS(got);
	int error = mkw_sync(handle, 0, 0);

	EXPECT_SAYS(error);
	if (got != 1)
		return;
	byte = 0;
	EXPECT(mkw_pread(handle, &byte, 1, 0) <= 0 || byte == 0x3c, "wrote 0x3c, read %#x", byte);
}

static void space_end(void)
{
	int error = mkw_space_destroy(space, 0);

	if (error == -EBUSY)
		error = mkw_space_destroy(space, MKW_DISCARD);
	EXPECT(error != -EBUSY && error != -EINVAL, "the space does not end: %d", error);
	space = NULL;
}

static void open_try(const char *text, unsigned flags, char *lines)
{
	struct reference_uri uri;
	struct mkw_handle *handle = NULL;
	bool parsed = reference_parse(&uri, text);
	int answer = open_answer(&uri, parsed, text, flags);
	int error = mkw_open(space, text, flags, &handle);

	EXPECT_SAYS(error);
	EXPECT(answer == 1 || error == answer, "\"%s\", flags %#x: %d, not %d", text, flags, error,
	       answer);
	if (error) {
		EXPECT(!handle, "a handle with error %d", error);
		reference_free(&uri);
		return;
	}
	if (only_memory(&uri))
		memory_look(handle, &uri, flags);
	error_look(handle, &uri);
	for (char *line = lines, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		control_try(handle, &uri, line);
	}
	bytes_try(handle, only_memory(&uri) && uri.layer_count == 1);
	error = mkw_close(handle);
	EXPECT_SAYS(error);
	/* What could not be written has stayed with the space. */
	if (error)
		space_end();
	reference_free(&uri);
}

void fuzz_one(const uint8_t *data, size_t size)
{
	unsigned flags = size ? (unsigned)(data[0] - '0') & 0x3f : 0;
	char *text = malloc(size + 1);
	struct mkw_stat stat;

	if (!space)
		EXPECT(!mkw_space_create(NULL, &space), "no space");
	/* Exactly as long as it is, for the sanitizer. */
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	char *uri = strdup(size ? text + 1 : text);
	char *lines = strchr(uri, '\n');

	if (lines) {
		*lines++ = '\0';
		for (char *line = lines; *line;
		     line += strcspn(line, "\n"), line += *line == '\n') {
			char *value = strndup(line, strcspn(line, "\n"));

			value_try(value);
			free(value);
		}
	}
	char *exact = strdup(uri);

	value_try(exact);
	apart_try(exact);
	open_try(exact, flags, lines);
	free(exact);
	free(uri);
	free(text);
	if (!space)
		return;
	EXPECT(!mkw_space_stat(space, &stat, sizeof(stat)), "no statistics");
	EXPECT(!stat.resident_bytes && !stat.dirty_bytes, "%llu bytes resident, %llu dirty",
	       (unsigned long long)stat.resident_bytes, (unsigned long long)stat.dirty_bytes);
}
