/* SPDX-License-Identifier: MIT */
/*
 * uri.c - what the tool itself has to know of URIs: SCHEME:PATH[?options], beneath any number of
 * LAYER[?options]: in front. The library judges them; here they are only made and shown.
 */
#include "tool.h"

#include <mkwrite/store.h>
#include <stdlib.h>
#include <string.h>

static const struct mkw_store_driver *driver_find(const char *scheme, size_t length)
{
	const struct mkw_store_driver *driver;

	for (size_t i = 0; (driver = mkw_store_driver(i)) != NULL; i++)
		if (strlen(driver->scheme) == length &&
		    strncmp(driver->scheme, scheme, length) == 0)
			return driver;
	return NULL;
}

static size_t scheme_length(const char *s)
{
	return strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-");
}

/* A name before ':' is meant as a scheme even if there is none of that name, so that a slip of the
 * pen does not make a file. Before '?' it has to be a layer's: "what?" is a good file name. */
static bool argument_is_uri(const char *argument)
{
	size_t length = scheme_length(argument);

	if (length == 0 || argument[0] < 'a')
		return false;
	if (argument[length] == ':')
		return true;
	return argument[length] == '?' && driver_find(argument, length) != NULL;
}

char *uri_from_path(const char *path)
{
	char *uri = malloc(sizeof("file:") + strlen(path) * 3);
	char *to;

	if (!uri)
		return NULL;
	to = stpcpy(uri, "file:");
	for (; *path; path++) {
		if (*path == '?')
			to = stpcpy(to, "%3F");
		else if (*path == '%')
			to = stpcpy(to, "%25");
		else
			*to++ = *path;
	}
	*to = '\0';
	return uri;
}

char *uri_from_argument(const char *argument)
{
	return argument_is_uri(argument) ? strdup(argument) : uri_from_path(argument);
}

void uri_next(const char **uri, struct uri_part *part)
{
	const char *s = *uri;
	size_t length = scheme_length(s);

	*part = (struct uri_part){
		.scheme = s, .scheme_length = (int)length, .options = "", .path = ""};
	part->driver = driver_find(s, length);
	s += length;
	*uri = NULL;
	if (part->driver && part->driver->layer) {
		if (*s == '?') {
			part->options = s + 1;
			part->options_length = (int)strcspn(part->options, ":");
			s = part->options + part->options_length;
		}
		*uri = *s == ':' ? s + 1 : NULL;
		return;
	}
	if (*s == ':')
		s++;
	part->path = s;
	part->path_length = (int)strcspn(s, "?");
	if (s[part->path_length] == '?') {
		part->options = s + part->path_length + 1;
		part->options_length = (int)strlen(part->options);
	}
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

char *uri_file_path(const char *uri)
{
	struct uri_part part;
	char *path, *to;

	do
		uri_next(&uri, &part);
	while (uri);
	if (part.scheme_length != 4 || strncmp(part.scheme, "file", 4) != 0)
		return NULL;
	path = strndup(part.path, (size_t)part.path_length);
	if (!path)
		return NULL;
	to = path;
	for (const char *s = path; *s; s++) {
		if (s[0] == '%' && hex_value(s[1]) >= 0 && hex_value(s[2]) >= 0) {
			*to++ = (char)(hex_value(s[1]) * 16 + hex_value(s[2]));
			s += 2;
		} else {
			*to++ = *s;
		}
	}
	*to = '\0';
	return path;
}
