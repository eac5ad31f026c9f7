/* SPDX-License-Identifier: MIT */
/*
 * info.c - `mkwrite info`: the stores that URIs can name; or one object, opened read-only.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <mkwrite/store.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char info_help[] =
	"Usage: mkwrite info [URI...]\n"
	"\n"
	"Without URI: list the stores and their options. With one, open the object (read-\n"
	"only) and tell its size, what its layers and options are, its identity (equal\n"
	"identities are the same storage), and what its store can still take. A path is\n"
	"a URI too: of the store file:.\n"
	"\n"
	"  --json  tell it as JSON\n"
	"\n"
	"Examples:\n"
	"  mkwrite info\n"
	"  mkwrite info disk.img\n"
	"  mkwrite info 'delay?us=5000:file:disk.img?quota=1G'\n"
	"\n"
	"Exit status: 0 told; 1 it cannot be opened; 2 wrong command line; 3 not possible\n"
	"on this host.\n";

struct object_info {
	const char *uri;
	uint64_t size_bytes;
	bool fixed_size;
	unsigned char identity[MKW_IDENTITY_MAX];
	size_t identity_length;
	uint64_t dev, ino;
	int capacity_error; /* of mkw_capacity */
	uint64_t free_bytes, total_bytes;
	bool allocated_known; /* a file lies beneath */
	uint64_t allocated_bytes;
};

/* ---- The list of stores -------------------------------------------------------------------- */

/* One option: "quota=SIZE" and its meaning. Moves *s on; false at the end. */
static bool option_next(const char **s, const char **name, int *name_length, const char **meaning,
			int *meaning_length)
{
	if (**s == '\0')
		return false;
	*name = *s;
	*name_length = (int)strcspn(*s, "\t\n");
	*s += *name_length;
	if (**s == '\t')
		++*s;
	*meaning = *s;
	*meaning_length = (int)strcspn(*s, "\n");
	*s += *meaning_length;
	if (**s == '\n')
		++*s;
	return true;
}

static void driver_print(const struct mkw_store_driver *driver)
{
	const char *s = driver->options ? driver->options : "";
	const char *name, *meaning;
	int name_length, meaning_length;

	printf("%s:%s\n    %s\n", driver->scheme, driver->layer ? "URI" : "PATH", driver->summary);
	while (option_next(&s, &name, &name_length, &meaning, &meaning_length))
		printf("      %-18.*s %.*s\n", name_length, name, meaning_length, meaning);
}

static void driver_json(struct json *json, const struct mkw_store_driver *driver)
{
	const char *s = driver->options ? driver->options : "";
	const char *name, *meaning;
	int name_length, meaning_length;

	json_object(json, NULL);
	json_text(json, "scheme", driver->scheme);
	json_text(json, "summary", driver->summary);
	json_flag(json, "layer", driver->layer);
	json_array(json, "options");
	while (option_next(&s, &name, &name_length, &meaning, &meaning_length)) {
		char text[256];

		json_object(json, NULL);
		snprintf(text, sizeof(text), "%.*s", name_length, name);
		json_text(json, "option", text);
		snprintf(text, sizeof(text), "%.*s", meaning_length, meaning);
		json_text(json, "meaning", text);
		json_end(json);
	}
	json_end(json);
	json_end(json);
}

static int drivers_list(const struct tool_options *options)
{
	const struct mkw_store_driver *driver;
	struct json json;

	if (!options->json) {
		for (size_t i = 0; (driver = mkw_store_driver(i)) != NULL; i++)
			driver_print(driver);
		printf("\nOptions are given as SCHEME:PATH?KEY=VALUE&KEY=VALUE, those of a layer "
		       "as\n"
		       "LAYER?KEY=VALUE:URI. In a path, '?' is written %%3F and '%%' %%25.\n");
		return TOOL_OK;
	}
	json_begin(&json, stdout);
	json_object(&json, NULL);
	json_array(&json, "stores");
	for (size_t i = 0; (driver = mkw_store_driver(i)) != NULL; i++)
		driver_json(&json, driver);
	json_end(&json);
	json_end(&json);
	return TOOL_OK;
}

/* ---- One object ---------------------------------------------------------------------------- */

/* What only the driver's answer tells: the identity, the file beneath, what the store can do. */
static int storage_read(struct object_info *info, const struct tool_options *options)
{
	struct mkw_open_args args = {0};
	int error = mkw_store_open(info->uri, MKW_RDONLY, &args);
	char *path;
	struct stat stat_buffer;

	if (error != 0)
		return tool_library_error(options, info->uri, error);
	memcpy(info->identity, args.identity, sizeof(info->identity));
	info->identity_length = args.identity_length;
	info->dev = args.dev;
	info->ino = args.ino;
	info->fixed_size = args.ops->flags & MKW_STORE_FIXED_SIZE;
	if (args.ops->release)
		args.ops->release(args.store);

	path = uri_file_path(info->uri);
	if (path && stat(path, &stat_buffer) == 0) {
		info->allocated_known = true;
		info->allocated_bytes = (uint64_t)stat_buffer.st_blocks * 512;
	}
	free(path);
	return 0;
}

static int object_read(struct mkw_space *space, struct object_info *info,
		       const struct tool_options *options)
{
	struct mkw_handle *handle;
	int code = storage_read(info, options), error;

	if (code != 0)
		return code;
	error = mkw_open(space, info->uri, MKW_RDONLY, &handle);
	if (error != 0)
		return tool_library_error(options, info->uri, error);
	info->size_bytes = mkw_size(handle);
	info->capacity_error = mkw_capacity(handle, &info->free_bytes, &info->total_bytes);
	error = mkw_close(handle);
	return error == 0 ? 0 : tool_library_error(options, info->uri, error);
}

static void identity_text(const struct object_info *info, char *text, size_t size)
{
	size_t to = 0;

	text[0] = '\0';
	for (size_t i = 0; i < info->identity_length && to + 3 <= size; i++)
		to += (size_t)snprintf(text + to, size - to, "%02x", info->identity[i]);
}

static void part_print(const struct uri_part *part)
{
	bool layer = part->driver && part->driver->layer;

	printf("  %-10s %.*s: %s\n", layer ? "layer" : "store", part->scheme_length, part->scheme,
	       part->driver ? part->driver->summary : "");
	if (!layer)
		printf("  %-10s %.*s\n", "path", part->path_length, part->path);
	if (part->options_length > 0)
		printf("  %-10s %.*s\n", "options", part->options_length, part->options);
}

static void object_print(const struct object_info *info)
{
	char identity[2 * MKW_IDENTITY_MAX + 1];
	const char *uri = info->uri;
	struct uri_part part;

	printf("%s\n", info->uri);
	while (uri) {
		uri_next(&uri, &part);
		part_print(&part);
	}
	printf("  %-10s %" PRIu64 " (%s)%s\n", "size", info->size_bytes,
	       text_size(info->size_bytes).s, info->fixed_size ? ", fixed" : "");
	if (info->allocated_known)
		printf("  %-10s %" PRIu64 " (%s)\n", "allocated", info->allocated_bytes,
		       text_size(info->allocated_bytes).s);
	if (info->capacity_error == 0)
		printf("  %-10s %s free of %s\n", "capacity", text_size(info->free_bytes).s,
		       text_size(info->total_bytes).s);
	else
		printf("  %-10s the store cannot say\n", "capacity");
	identity_text(info, identity, sizeof(identity));
	printf("  %-10s %s\n", "identity",
	       info->identity_length ? identity : "none: every opening is storage of its own");
	if (info->ino)
		printf("  %-10s device %" PRIu64 ", inode %" PRIu64 "\n", "file", info->dev,
		       info->ino);
}

static void part_json(struct json *json, const struct uri_part *part)
{
	char text[4096];

	json_object(json, NULL);
	snprintf(text, sizeof(text), "%.*s", part->scheme_length, part->scheme);
	json_text(json, "scheme", text);
	snprintf(text, sizeof(text), "%.*s", part->path_length, part->path);
	json_text(json, "path", text);
	snprintf(text, sizeof(text), "%.*s", part->options_length, part->options);
	json_text(json, "options", text);
	json_end(json);
}

static void object_json(struct json *json, const struct object_info *info)
{
	char identity[2 * MKW_IDENTITY_MAX + 1];
	const char *uri = info->uri;
	struct uri_part part;

	json_object(json, NULL);
	json_text(json, "uri", info->uri);
	json_array(json, "parts");
	while (uri) {
		uri_next(&uri, &part);
		part_json(json, &part);
	}
	json_end(json);
	json_number(json, "size_bytes", info->size_bytes);
	json_flag(json, "fixed_size", info->fixed_size);
	if (info->allocated_known)
		json_number(json, "allocated_bytes", info->allocated_bytes);
	else
		json_null(json, "allocated_bytes");
	if (info->capacity_error == 0) {
		json_number(json, "free_bytes", info->free_bytes);
		json_number(json, "total_bytes", info->total_bytes);
	} else {
		json_null(json, "free_bytes");
		json_null(json, "total_bytes");
	}
	identity_text(info, identity, sizeof(identity));
	json_text(json, "identity", identity);
	json_number(json, "dev", info->dev);
	json_number(json, "ino", info->ino);
	json_end(json);
}

/* All that can be told is told; the first failure is the exit code. */
static int objects_list(int argc, char **argv, const struct tool_options *options)
{
	struct mkw_space *space;
	struct json json;
	int error = mkw_space_create(NULL, &space);
	int code = 0;

	if (error != 0)
		return tool_library_error(options, "no space", error);
	json_begin(&json, stdout);
	if (options->json) {
		json_object(&json, NULL);
		json_array(&json, "objects");
	}
	for (int i = 1; i < argc; i++) {
		char *uri = uri_from_argument(argv[i]);
		struct object_info info = {.uri = uri};
		int result =
			uri ? object_read(space, &info, options) : tool_errno(options, argv[i]);

		if (result != 0)
			code = code ? code : result;
		else if (options->json)
			object_json(&json, &info);
		else
			object_print(&info);
		free(uri);
	}
	if (options->json) {
		json_end(&json);
		json_end(&json);
	}
	error = mkw_space_destroy(space, 0);
	if (error != 0 && code == 0)
		code = tool_library_error(options, "closing", error);
	return code;
}

int info_main(int argc, char **argv, const struct tool_options *options)
{
	const struct option_spec specs[] = {{NULL, OPTION_FLAG, NULL}};
	int code = options_take(&argc, argv, specs, options);

	if (code != 0)
		return code;
	return argc == 1 ? drivers_list(options) : objects_list(argc, argv, options);
}
