/* SPDX-License-Identifier: MIT */
/*
 * driver.c - the table of drivers, and the way from a URI to an open store.
 *
 * What is the same for every driver is checked here, before it is called: the scheme, the flags,
 * the options it knows. Drivers are never unregistered, so a pointer to one stays good.
 *
 * Locks: drivers_lock, a leaf; never held while a driver runs.
 */
#include "store/driver.h"
#include "store/lock.h"
#include "store/uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DRIVERS_MAX 64u
#define DEPTH_MAX   16u /* layers on one another: bounds the stack, also in the fault path */

static const struct mkw_lock_class drivers_class = {.name = "drivers", .rank = DRIVERS_RANK};
static struct store_lock drivers_lock = {PTHREAD_MUTEX_INITIALIZER, &drivers_class};
static const struct mkw_store_driver *drivers[DRIVERS_MAX] = {&mem_driver, &file_driver,
							      &error_driver, &delay_driver};
static size_t driver_count = 4;

const struct mkw_store_driver *mkw_store_driver(size_t index)
{
	store_lock(&drivers_lock);
	const struct mkw_store_driver *driver = index < driver_count ? drivers[index] : NULL;

	store_unlock(&drivers_lock);
	return driver;
}

static const struct mkw_store_driver *driver_find(const char *scheme, size_t length)
{
	const struct mkw_store_driver *driver;

	for (size_t i = 0; (driver = mkw_store_driver(i)); i++)
		if (strlen(driver->scheme) == length && !memcmp(driver->scheme, scheme, length))
			return driver;
	return NULL;
}

static int driver_check(const struct mkw_store_driver *driver)
{
	if (!driver || driver->struct_size < sizeof(*driver))
		return mkw_set_error(-EINVAL,
				     "a driver's struct_size must be sizeof(struct "
				     "mkw_store_driver): %zu bytes",
				     sizeof(*driver));
	if (!driver->scheme || !driver->open)
		return mkw_set_error(-EINVAL, "a driver needs a scheme and open");
	char with_colon[40];
	int length = snprintf(with_colon, sizeof(with_colon), "%s:", driver->scheme);

	if (length <= 1 || (size_t)length >= sizeof(with_colon) ||
	    uri_scheme_length(with_colon) != strlen(driver->scheme))
		return mkw_set_error(-EINVAL,
				     "scheme \"%.40s\": a small letter, then small letters, digits "
				     "and -, at most 38",
				     driver->scheme);
	return 0;
}

int mkw_store_register(const struct mkw_store_driver *driver)
{
	int error = driver_check(driver);

	if (error)
		return error;
	store_lock(&drivers_lock);
	for (size_t i = 0; i < driver_count && !error; i++)
		if (!strcmp(drivers[i]->scheme, driver->scheme))
			error = -EEXIST;
	if (!error && driver_count == DRIVERS_MAX)
		error = -ENOSPC;
	if (!error)
		drivers[driver_count++] = driver;
	store_unlock(&drivers_lock);
	if (error == -EEXIST)
		return mkw_set_error(error, "scheme %s is known already", driver->scheme);
	if (error)
		return mkw_set_error(error, "no room for scheme %s: %u are known", driver->scheme,
				     DRIVERS_MAX);
	return 0;
}

/* Appends as far as there is room. */
static void text_append(char *text, size_t size, const char *separator, const char *from,
			size_t length)
{
	size_t used = strlen(text);

	snprintf(text + used, size - used, "%s%.*s", used ? separator : "", (int)length, from);
}

/* Is key one of the driver's, whose text is "key=...\t...\n" and so on? Lists them all in known. */
static bool option_known(const char *options, const char *key, char *known, size_t known_size)
{
	bool found = false;

	known[0] = '\0';
	while (options && *options) {
		size_t length = strcspn(options, "=\t\n");

		text_append(known, known_size, ", ", options, length);
		found |= strlen(key) == length && !memcmp(key, options, length);
		options += strcspn(options, "\n");
		options += *options == '\n';
	}
	return found;
}

static int options_check(const struct mkw_store_driver *driver, const struct uri *uri)
{
	char known[200];

	for (size_t i = 0; i < uri->option_count; i++)
		if (!option_known(driver->options, uri->options[i].key, known, sizeof(known)))
			return mkw_set_error(-EINVAL, "%s: unknown option %.40s; %s%s",
					     driver->scheme, uri->options[i].key,
					     *known ? "it knows " : "it knows none", known);
	return 0;
}

static int flags_check(unsigned flags)
{
	unsigned all = MKW_RDWR | MKW_CREATE | MKW_EXCL | MKW_TRUNC | MKW_MANUAL;

	if (flags & ~all)
		return mkw_set_error(-EINVAL, "unknown flags %#x for opening", flags & ~all);
	if ((flags & (MKW_CREATE | MKW_TRUNC)) && !(flags & MKW_RDWR))
		return mkw_set_error(-EINVAL, "MKW_CREATE and MKW_TRUNC need MKW_RDWR");
	if ((flags & MKW_EXCL) && !(flags & MKW_CREATE))
		return mkw_set_error(-EINVAL, "MKW_EXCL needs MKW_CREATE");
	return 0;
}

static int scheme_unknown(const char *uri)
{
	size_t length = uri_scheme_length(uri);
	const struct mkw_store_driver *driver;
	char known[200] = "";

	for (size_t i = 0; (driver = mkw_store_driver(i)); i++)
		text_append(known, sizeof(known), ", ", driver->scheme, strlen(driver->scheme));
	if (!length)
		return mkw_set_error(-EINVAL,
				     "\"%.60s\" does not begin with a scheme: write SCHEME:PATH, "
				     "as file:data.db; schemes are %s",
				     uri, known);
	return mkw_set_error(-EINVAL, "unknown scheme \"%.*s\"; known are %s",
			     length < 40 ? (int)length : 40, uri, known);
}

static int driver_open(const struct mkw_store_driver *driver, const struct uri *uri, unsigned flags,
		       struct mkw_open_args *args)
{
	memset(args, 0, sizeof(*args));
	args->scheme = driver->scheme;
	args->path = uri->path;
	args->options = uri->options;
	args->option_count = uri->option_count;
	args->flags = flags;
	int error = driver->open(args);

	/* They point into the URI, which ends here: a driver copies what it keeps. */
	args->path = NULL;
	args->options = NULL;
	args->option_count = 0;
	if (!error && (!args->ops || args->identity_length > MKW_IDENTITY_MAX))
		return mkw_set_error(-EINVAL,
				     "driver %s opened a store without operations, or "
				     "with an identity longer than %d bytes",
				     driver->scheme, MKW_IDENTITY_MAX);
	return error;
}

int mkw_store_open(const char *text, unsigned flags, struct mkw_open_args *args)
{
	static _Thread_local unsigned depth; /* a layer's open comes back here */

	if (!text || !args)
		return mkw_set_error(-EINVAL, "no URI given");
	if (strnlen(text, URI_MAX_BYTES + 1) > URI_MAX_BYTES)
		return mkw_set_error(-ENAMETOOLONG, "the URI is longer than %u bytes",
				     URI_MAX_BYTES);
	int error = flags_check(flags);

	if (error)
		return error;
	size_t length = uri_scheme_length(text);
	const struct mkw_store_driver *driver = length ? driver_find(text, length) : NULL;

	if (!driver)
		return scheme_unknown(text);
	if (depth == DEPTH_MAX)
		return mkw_set_error(-EINVAL, "more than %u layers on one another", DEPTH_MAX);
	struct uri uri;

	error = uri_parse(&uri, driver->scheme, text + length, driver->layer);
	if (error)
		return error;
	error = options_check(driver, &uri);
	depth++;
	if (!error)
		error = driver_open(driver, &uri, flags, args);
	depth--;
	uri_free(&uri);
	return error;
}
