/* SPDX-License-Identifier: MIT */
/*
 * host.c - what doctor wants to know of the host beyond what mkw_backends tells. All of it is read
 * only; what cannot be read is left unknown.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

/* The first bytes of a file, as a string. False: not there, or empty. */
static bool file_read(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length;

	if (fd < 0)
		return false;
	length = read(fd, text, size - 1);
	close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	return true;
}

static int64_t number_read(const char *path)
{
	char text[64];

	return file_read(path, text, sizeof(text)) ? strtoll(text, NULL, 10) : -1;
}

/* The number behind "Name:" in text, in the base it is written in; false: not there. */
static bool field_read(const char *text, const char *name, int base, uint64_t *value)
{
	const char *at = strstr(text, name);

	if (!at)
		return false;
	*value = strtoull(at + strlen(name), NULL, base);
	return true;
}

static void kernel_read(struct host *host)
{
	struct utsname name;

	if (uname(&name) != 0)
		return;
	snprintf(host->release, sizeof(host->release), "%s", name.release);
	if (sscanf(name.release, "%u.%u", &host->major, &host->minor) != 2)
		host->major = host->minor = 0;
}

static void process_read(struct host *host)
{
	char text[8192];
	uint64_t value;

	host->seccomp = -1;
	if (!file_read("/proc/self/status", text, sizeof(text)))
		return;
	if (field_read(text, "\nSeccomp:", 10, &value))
		host->seccomp = (int)value;
	if (field_read(text, "\nCapEff:", 16, &value))
		host->ptrace_capability = (value >> CAP_SYS_PTRACE) & 1;
}

/* Hints only: a container need not show itself, nor does it matter if nothing is forbidden. */
static void container_read(struct host *host)
{
	static const char *const marks[] = {"/.dockerenv", "/run/.containerenv",
					    "/run/systemd/container"};
	const char *variable = getenv("container");

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		if (access(marks[i], F_OK) == 0) {
			snprintf(host->container, sizeof(host->container), "%s", marks[i]);
			return;
		}
	if (variable && variable[0])
		snprintf(host->container, sizeof(host->container), "container=%s", variable);
}

/* The limit of the own control group (v2) or of one above it. */
static uint64_t cgroup_limit(void)
{
	char text[4096], path[4352], *group, *end;
	uint64_t limit = 0;

	if (!file_read("/proc/self/cgroup", text, sizeof(text)))
		return 0;
	group = strstr(text, "0::/");
	if (!group)
		return 0;
	group += 3;
	group[strcspn(group, "\n")] = '\0';
	for (;;) {
		char value[64];

		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group);
		if (file_read(path, value, sizeof(value)) && value[0] != 'm') {
			uint64_t bytes = strtoull(value, NULL, 10);

			if (limit == 0 || bytes < limit)
				limit = bytes;
		}
		end = strrchr(group, '/');
		if (!end)
			return limit;
		*end = '\0';
	}
}

static void memory_read(struct host *host)
{
	char text[4096];
	uint64_t kilobytes;

	if (file_read("/proc/meminfo", text, sizeof(text))) {
		if (field_read(text, "MemTotal:", 10, &kilobytes))
			host->memory_bytes = kilobytes * 1024;
		if (field_read(text, "MemAvailable:", 10, &kilobytes))
			host->available_bytes = kilobytes * 1024;
	}
	host->cgroup_bytes = cgroup_limit();
}

/* A kernel that knows PAGEMAP_SCAN (6.7) objects to the empty argument, an older one to the call.
 */
static bool pagemap_scan_known(void)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	unsigned char argument[96] = {0}; /* struct pm_scan_arg */
	bool known;

	if (fd < 0)
		return false;
	known = ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'f', 16, sizeof(argument)), argument) == 0 ||
		errno != ENOTTY;
	close(fd);
	return known;
}

void host_read(struct host *host)
{
	struct rlimit limit;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	*host = (struct host){0};
	kernel_read(host);
	process_read(host);
	container_read(host);
	memory_read(host);
	host->unprivileged = number_read("/proc/sys/vm/unprivileged_userfaultfd");
	host->map_count_max = number_read("/proc/sys/vm/max_map_count");
	host->device_error = access("/dev/userfaultfd", R_OK | W_OK) == 0 ? 0 : errno;
	host->descriptors_max = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
	host->cpus = cpus > 0 ? (unsigned)cpus : 1;
	host->pagemap_scan = pagemap_scan_known();
}
