/* SPDX-License-Identifier: MIT */
/*
 * doctor.c - `mkwrite doctor`: what this host allows, why not more, and what to change.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BACKENDS_MAX	 8
#define OLDEST_MAJOR	 6
#define OLDEST_MINOR	 1
#define MAP_COUNT_WANTED 65530
#define LINE_LENGTH	 80u
#define TEXT_INDENT	 11u

const char doctor_help[] =
	"Usage: mkwrite doctor\n"
	"\n"
	"Say for each backend whether this host allows it, why not, and what to change;\n"
	"which features its kernel has and what the missing ones cost; the limits that\n"
	"matter. Backends that are usable are tried out on an object in memory.\n"
	"\n"
	"  --json  tell it as JSON\n"
	"\n"
	"Examples:\n"
	"  mkwrite doctor\n"
	"  mkwrite doctor --json | python3 -m json.tool\n"
	"  docker run --security-opt seccomp=... IMAGE mkwrite doctor\n"
	"\n"
	"Exit status: 0 the backend uffd is usable; 1 it failed when tried out; 2 wrong\n"
	"command line; 3 it is not usable.\n";

/* Those without which nothing works, and those that are made up for, at a cost. The bit is that of
 * UFFDIO_API; where there is none the version decides, or a try. */
struct feature {
	const char *name;
	int bit;
	unsigned major, minor;
	bool needed;
	const char *cost; /* of its absence */
};

enum feature_special { FEATURE_BY_VERSION = -1, FEATURE_PAGEMAP_SCAN = -2 };

static const struct feature features[] = {
	{"missing pages of memfds", 5, 4, 11, true, "nothing can be mapped"},
	{"write protection of memfds", 12, 5, 19, true, "no write can be notified"},
	{"thread of a fault", 8, 4, 14, true, "a refusal finds nobody to tell"},
	{"exact addresses", 11, 5, 18, false, "refusals name the page only"},
	{"faults as signals", 7, 4, 14, false, "the backend inline is not available"},
	{"continue write-protected", FEATURE_BY_VERSION, 6, 4, false,
	 "cached pages are mapped one by one: about 1.3 us a page in place of 0.3"},
	{"PAGEMAP_SCAN", FEATURE_PAGEMAP_SCAN, 6, 7, false,
	 "which pages are mapped is read entry by entry: slower"},
};
#define FEATURE_COUNT (sizeof(features) / sizeof(features[0]))

struct doctor {
	const struct tool_options *options;
	struct host host;
	struct mkw_backend_info backends[BACKENDS_MAX];
	struct selftest tests[BACKENDS_MAX];
	size_t count;
	uint64_t features; /* of the backend uffd, 0 if unknown */
};

static unsigned backend_map_flags(const char *name)
{
	return strcmp(name, "inline") == 0 ? MKW_INLINE : 0;
}

static bool kernel_at_least(const struct host *host, unsigned major, unsigned minor)
{
	return host->major > major || (host->major == major && host->minor >= minor);
}

enum feature_state { FEATURE_ABSENT, FEATURE_PRESENT, FEATURE_UNKNOWN };

/* Without any userfaultfd the version of the kernel says nothing about it. */
static enum feature_state feature_look(const struct doctor *doctor, const struct feature *feature)
{
	bool present;

	if (feature->bit == FEATURE_PAGEMAP_SCAN)
		present = doctor->host.pagemap_scan;
	else if (doctor->features == 0)
		return FEATURE_UNKNOWN;
	else if (feature->bit >= 0)
		present = (doctor->features >> feature->bit) & 1;
	else
		present = kernel_at_least(&doctor->host, feature->major, feature->minor);
	return present ? FEATURE_PRESENT : FEATURE_ABSENT;
}

static void doctor_examine(struct doctor *doctor)
{
	host_read(&doctor->host);
	doctor->count = mkw_backends(doctor->backends, BACKENDS_MAX);
	if (doctor->count > BACKENDS_MAX)
		doctor->count = BACKENDS_MAX;
	for (size_t i = 0; i < doctor->count; i++) {
		const struct mkw_backend_info *backend = &doctor->backends[i];

		if (strcmp(backend->name, "uffd") == 0)
			doctor->features = backend->features;
		if (backend->usable)
			selftest_run(backend_map_flags(backend->name), &doctor->tests[i]);
	}
}

static int doctor_verdict(const struct doctor *doctor)
{
	for (size_t i = 0; i < doctor->count; i++) {
		if (strcmp(doctor->backends[i].name, "uffd") != 0)
			continue;
		if (!doctor->backends[i].usable)
			return TOOL_NOT_POSSIBLE;
		return doctor->tests[i].passed ? TOOL_OK : TOOL_FAILED;
	}
	return TOOL_NOT_POSSIBLE;
}

/* ---- For people ---------------------------------------------------------------------------- */

/* Text behind what stands on the line already, in lines of LINE_LENGTH with an indent. */
static void wrapped_print(size_t column, const char *text)
{
	while (*text) {
		size_t length = strcspn(text, " ");

		if (column + 1 + length > LINE_LENGTH && column > TEXT_INDENT) {
			printf("\n%*s", (int)TEXT_INDENT - 1, "");
			column = TEXT_INDENT - 1;
		}
		printf(" %.*s", (int)length, text);
		column += 1 + length;
		text += length + strspn(text + length, " ");
	}
	putchar('\n');
}

static void backends_print(const struct doctor *doctor)
{
	printf("backends\n");
	for (size_t i = 0; i < doctor->count; i++) {
		const struct mkw_backend_info *backend = &doctor->backends[i];
		const struct selftest *test = &doctor->tests[i];
		const char *verdict = backend->usable ? "usable" : "NOT usable";

		wrapped_print((size_t)printf("  %-8s %s%s", backend->name, verdict,
					     backend->reason[0] ? ":" : ""),
			      backend->reason);
		if (backend->remedy[0])
			wrapped_print((size_t)printf("%*sto change:", (int)TEXT_INDENT, ""),
				      backend->remedy);
		if (backend->usable)
			wrapped_print((size_t)printf("%*stried out:%s", (int)TEXT_INDENT, "",
						     test->passed ? "" : " FAILED:"),
				      test->text);
	}
}

static void kernel_print(const struct doctor *doctor)
{
	const struct host *host = &doctor->host;

	printf("kernel %s: %s\n", host->release,
	       kernel_at_least(host, OLDEST_MAJOR, OLDEST_MINOR)
		       ? "supported (6.1 is the oldest)"
		       : "NOT supported, 6.1 is the oldest");
	for (size_t i = 0; i < FEATURE_COUNT; i++) {
		const struct feature *feature = &features[i];

		switch (feature_look(doctor, feature)) {
		case FEATURE_PRESENT:
			printf("  %-28s yes\n", feature->name);
			break;
		case FEATURE_UNKNOWN:
			printf("  %-28s unknown\n", feature->name);
			break;
		case FEATURE_ABSENT:
			printf("  %-28s NO (Linux %u.%u has it): %s\n", feature->name,
			       feature->major, feature->minor, feature->cost);
			break;
		}
	}
}

static const char *device_text(const struct host *host)
{
	if (host->device_error == 0)
		return "may be opened";
	return host->device_error == ENOENT ? "is not there" : "may not be opened";
}

static const char *seccomp_text(const struct host *host)
{
	switch (host->seccomp) {
	case 0:
		return "none";
	case 1:
		return "strict";
	case 2:
		return "a filter (it may forbid userfaultfd)";
	default:
		return "unknown";
	}
}

static void limits_print(const struct host *host)
{
	printf("permissions\n");
	printf("  %-28s %s\n", "CAP_SYS_PTRACE", host->ptrace_capability ? "yes" : "no");
	if (host->unprivileged >= 0)
		printf("  %-28s %" PRId64 "\n", "vm.unprivileged_userfaultfd", host->unprivileged);
	printf("  %-28s %s\n", "/dev/userfaultfd", device_text(host));
	printf("  %-28s %s\n", "seccomp", seccomp_text(host));
	printf("  %-28s %s%s\n", "container", host->container[0] ? "yes, by " : "no sign of one",
	       host->container);
	printf("limits\n");
	printf("  %-28s %" PRId64 "%s\n", "vm.max_map_count", host->map_count_max,
	       host->map_count_max < MAP_COUNT_WANTED
		       ? " (low: many views or refusals at a time end in ENOMEM)"
		       : "");
	printf("  %-28s %" PRIu64 "\n", "open files", host->descriptors_max);
	printf("  %-28s %s, %s available\n", "memory", text_size(host->memory_bytes).s,
	       text_size(host->available_bytes).s);
	if (host->cgroup_bytes)
		printf("  %-28s %s (page caches of objects count)\n", "control group's memory",
		       text_size(host->cgroup_bytes).s);
	printf("  %-28s %u%s\n", "processors", host->cpus,
	       host->cpus == 1 ? " (faults are served on the writer's own)" : "");
}

/* ---- For scripts --------------------------------------------------------------------------- */

static void backends_json(struct json *json, const struct doctor *doctor)
{
	json_array(json, "backends");
	for (size_t i = 0; i < doctor->count; i++) {
		const struct mkw_backend_info *backend = &doctor->backends[i];

		json_object(json, NULL);
		json_text(json, "name", backend->name);
		json_flag(json, "usable", backend->usable);
		json_text(json, "reason", backend->reason);
		json_text(json, "remedy", backend->remedy);
		json_number(json, "features", backend->features);
		if (backend->usable) {
			json_flag(json, "test_passed", doctor->tests[i].passed);
			json_text(json, "test", doctor->tests[i].text);
		} else {
			json_null(json, "test_passed");
			json_null(json, "test");
		}
		json_end(json);
	}
	json_end(json);
}

static void kernel_json(struct json *json, const struct doctor *doctor)
{
	json_object(json, "kernel");
	json_text(json, "release", doctor->host.release);
	json_flag(json, "supported", kernel_at_least(&doctor->host, OLDEST_MAJOR, OLDEST_MINOR));
	json_array(json, "features");
	for (size_t i = 0; i < FEATURE_COUNT; i++) {
		json_object(json, NULL);
		json_text(json, "name", features[i].name);
		if (feature_look(doctor, &features[i]) == FEATURE_UNKNOWN)
			json_null(json, "present");
		else
			json_flag(json, "present",
				  feature_look(doctor, &features[i]) == FEATURE_PRESENT);
		json_flag(json, "needed", features[i].needed);
		json_text(json, "cost", features[i].cost);
		json_end(json);
	}
	json_end(json);
	json_end(json);
}

static void known_number(struct json *json, const char *key, int64_t value)
{
	if (value >= 0)
		json_number(json, key, (uint64_t)value);
	else
		json_null(json, key);
}

static void doctor_json(const struct doctor *doctor)
{
	const struct host *host = &doctor->host;
	struct json json;

	json_begin(&json, stdout);
	json_object(&json, NULL);
	json_flag(&json, "usable", doctor_verdict(doctor) == TOOL_OK);
	backends_json(&json, doctor);
	kernel_json(&json, doctor);
	json_flag(&json, "cap_sys_ptrace", host->ptrace_capability);
	known_number(&json, "unprivileged_userfaultfd", host->unprivileged);
	json_flag(&json, "dev_userfaultfd", host->device_error == 0);
	known_number(&json, "seccomp", host->seccomp);
	json_text(&json, "container", host->container);
	known_number(&json, "max_map_count", host->map_count_max);
	json_number(&json, "open_files", host->descriptors_max);
	json_number(&json, "memory_bytes", host->memory_bytes);
	json_number(&json, "available_bytes", host->available_bytes);
	if (host->cgroup_bytes)
		json_number(&json, "cgroup_bytes", host->cgroup_bytes);
	else
		json_null(&json, "cgroup_bytes");
	json_number(&json, "processors", host->cpus);
	json_end(&json);
}

int doctor_main(int argc, char **argv, const struct tool_options *options)
{
	const struct option_spec specs[] = {{NULL, OPTION_FLAG, NULL}};
	struct doctor doctor = {.options = options};
	int code = options_take(&argc, argv, specs, options);

	if (code != 0)
		return code;
	if (argc > 1)
		return tool_usage(options, "%s: doctor takes no operand", argv[1]);
	doctor_examine(&doctor);
	if (options->json) {
		doctor_json(&doctor);
	} else {
		backends_print(&doctor);
		kernel_print(&doctor);
		limits_print(&doctor.host);
	}
	return doctor_verdict(&doctor);
}
