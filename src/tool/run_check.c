/* SPDX-License-Identifier: MIT */
/*
 * run_check.c - can a program be run with a library loaded into it, and if not, why, and what can
 * be done? Follows what execve() would do, but says all that is in the way, not the first errno.
 *
 * What is found can change before the program is started; then the kernel's answer counts.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* As much of a first line as the kernel looks at. */
#define SCRIPT_LINE_MAX 256

__attribute__((format(printf, 4, 5))) static void
problem_add(struct run_target *target, const char *code, int status, const char *format, ...)
{
	struct run_problem *problem = &target->problems[target->problem_count];
	va_list args;

	if (target->problem_count == RUN_PROBLEMS_MAX)
		return;
	target->problem_count++;
	problem->code = code;
	problem->exit = status;
	va_start(args, format);
	vsnprintf(problem->text, sizeof(problem->text), format, args);
	va_end(args);
}

/* ---- Where it is --------------------------------------------------------------------------- */

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* The first of PATH that can be executed, else the first that is there. */
static void path_search(struct run_target *target)
{
	const char *folders = getenv("PATH");
	char path[PATH_MAX];

	if (!folders)
		folders = "/usr/local/bin:/bin:/usr/bin";
	for (const char *end; folders; folders = *end ? end + 1 : NULL) {
		int length;

		end = strchrnul(folders, ':');
		length = snprintf(path, sizeof(path), "%.*s%s%s", (int)(end - folders), folders,
				  end == folders ? "" : "/", target->name);
		if (length < 0 || length >= PATH_MAX || !is_file(path))
			continue;
		if (access(path, X_OK) == 0) {
			strcpy(target->path, path);
			return;
		}
		if (target->path[0] == '\0')
			strcpy(target->path, path);
	}
}

static bool path_find(struct run_target *target)
{
	if (target->name[0] == '\0' || strlen(target->name) >= PATH_MAX)
		target->path[0] = '\0';
	else if (strchr(target->name, '/'))
		strcpy(target->path, target->name);
	else
		path_search(target);
	if (target->path[0] == '\0')
		problem_add(target, "not-found", RUN_EXIT_NOT_FOUND,
			    "%s: there is no program of that name in PATH",
			    name_of_path(target->name).s);
	return target->path[0] != '\0';
}

/* ---- May it be executed? ------------------------------------------------------------------- */

/* Set the program's uid, gid or capabilities, so that the loader ignores LD_PRELOAD? Nothing does
 * so for a uid or gid that we have anyway. */
static void privileges_check(struct run_target *target, int fd, const struct stat *st)
{
	struct run_name path = name_of_path(target->program);
	struct statvfs fs;
	const char *what = NULL, *code = NULL;

	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ||
	    (fstatvfs(fd, &fs) == 0 && fs.f_flag & ST_NOSUID))
		return;
	if (st->st_mode & S_ISUID && st->st_uid != getuid()) {
		code = "setuid";
		what = "set-user-ID";
	} else if ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		   st->st_gid != getgid()) {
		code = "setgid";
		what = "set-group-ID";
	} else if (getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0) {
		code = "capabilities";
		what = "given capabilities by its file";
	}
	if (code)
		problem_add(target, code, RUN_EXIT_CANNOT,
			    "%s: it is %s, and the system loads no library of others into such a "
			    "program (run it as the user whose rights it takes, or a copy without "
			    "them)",
			    path.s, what);
}

/* A file that is to be executed, as the program or for a script. Its descriptor, or -1. */
static int file_open(struct run_target *target, const char *path, const char *what)
{
	struct run_name name = name_of_path(path);
	struct statvfs fs;
	struct stat st;
	int fd;

	if (stat(path, &st) != 0) {
		problem_add(target, "not-found", RUN_EXIT_NOT_FOUND, "%s: %s%s", name.s, what,
			    strerror(errno));
		return -1;
	}
	if (!S_ISREG(st.st_mode)) {
		problem_add(target, "not-a-program", RUN_EXIT_CANNOT, "%s: %snot a regular file",
			    name.s, what);
		return -1;
	}
	if (statvfs(path, &fs) == 0 && fs.f_flag & ST_NOEXEC)
		problem_add(target, "noexec", RUN_EXIT_CANNOT,
			    "%s: %sits file system is mounted noexec (remount it with exec, or "
			    "run a copy elsewhere)",
			    name.s, what);
	else if (access(path, X_OK) != 0)
		problem_add(target, "not-executable", RUN_EXIT_CANNOT,
			    "%s: %snot executable (chmod +x makes it so)", name.s, what);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		problem_add(target, "unreadable", RUN_EXIT_CANNOT,
			    "%s: %sit cannot be read (%s), so nobody knows what it would need "
			    "(chmod +r makes it so)",
			    name.s, what, strerror(errno));
	return fd;
}

/* ---- Scripts ------------------------------------------------------------------------------- */

/* The interpreter that the first line names; false: it is no script. Without a line of that kind
 * the shell is who runs it. */
static bool script_read(int fd, char interpreter[static PATH_MAX])
{
	char line[SCRIPT_LINE_MAX + 1];
	ssize_t length = pread(fd, line, SCRIPT_LINE_MAX, 0);
	char *start;

	line[length > 0 ? length : 0] = '\0';
	if (strncmp(line, "#!", 2) != 0)
		return false;
	start = line + 2 + strspn(line + 2, " \t");
	start[strcspn(start, " \t\n")] = '\0';
	strcpy(interpreter, start);
	return true;
}

/* Go from the file at path on to what interprets it. The descriptor of the file whose code runs, or
 * -1 with a problem. */
static int program_follow(struct run_target *target)
{
	const char *what = "";
	int fd;

	strcpy(target->program, target->path);
	for (;;) {
		char next[PATH_MAX];
		bool script;

		fd = file_open(target, target->program, what);
		if (fd < 0 || elf_read(fd, &target->elf) != 0 || target->elf.kind != ELF_NOT)
			return fd;
		script = script_read(fd, next);
		close(fd);
		if (target->script_count == RUN_SCRIPTS_MAX) {
			problem_add(target, "scripts", RUN_EXIT_CANNOT,
				    "%s: it is a script of a script of a script, more than the "
				    "system follows",
				    name_of_path(target->path).s);
			return -1;
		}
		strcpy(target->scripts[target->script_count++], target->program);
		strcpy(target->program, script ? next : "/bin/sh");
		what = "the script's interpreter: ";
	}
}

/* ---- What it is ---------------------------------------------------------------------------- */

/* The loader of another C library would refuse ours, or die of it. The command itself was built for
 * the same one as the library. */
static void loader_check(struct run_target *target)
{
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	const char *loader = strrchr(target->elf.interpreter, '/');
	const char *own_loader;
	struct elf_info own;

	if (access(target->elf.interpreter, F_OK) != 0)
		problem_add(target, "loader", RUN_EXIT_CANNOT,
			    "%s: its loader %s is not there (install the C library it is made for)",
			    name_of_path(target->program).s,
			    name_of_path(target->elf.interpreter).s);
	if (self < 0)
		return;
	if (elf_read(self, &own) == 0 && own.kind == ELF_DYNAMIC) {
		own_loader = strrchr(own.interpreter, '/');
		if (!loader || !own_loader || strcmp(loader, own_loader) != 0)
			problem_add(target, "c-library", RUN_EXIT_CANNOT,
				    "%s: it is made for another C library (%s) than mkwrite "
				    "(build mkwrite with that one)",
				    name_of_path(target->program).s,
				    name_of_path(target->elf.interpreter).s);
	}
	close(self);
}

static void elf_check(struct run_target *target)
{
	struct run_name path = name_of_path(target->program);

	switch (target->elf.kind) {
	case ELF_STATIC:
		problem_add(target, "static", RUN_EXIT_CANNOT,
			    "%s: it is linked statically, so no library can be loaded into it "
			    "(build it without -static)",
			    path.s);
		break;
	case ELF_FOREIGN:
		problem_add(target, "machine", RUN_EXIT_CANNOT,
			    "%s: it is for %u-bit %s, and mkwrite is for %u-bit %s (build it, or "
			    "mkwrite, for the other)",
			    path.s, target->elf.bits, elf_machine_name(target->elf.machine),
			    (unsigned)sizeof(void *) * 8, elf_own_machine_name());
		break;
	case ELF_DYNAMIC:
		loader_check(target);
		break;
	default:
		problem_add(target, "damaged", RUN_EXIT_CANNOT,
			    "%s: it is a damaged ELF file (get it anew)", path.s);
		break;
	}
}

static void library_check(struct run_target *target)
{
	struct run_name name;
	struct statvfs fs;

	if (!library_find(target->library)) {
		problem_add(target, "library", RUN_EXIT_CANNOT,
			    "%s: the library that would be loaded is not there (install mkwrite "
			    "completely)",
			    name_of_path(target->library).s);
		return;
	}
	name = name_of_path(target->library);
	if (strpbrk(target->library, ": \t\n"))
		problem_add(target, "library", RUN_EXIT_CANNOT,
			    "%s: LD_PRELOAD can hold no path with a blank or a colon (install "
			    "mkwrite elsewhere)",
			    name.s);
	if (statvfs(target->library, &fs) == 0 && fs.f_flag & ST_NOEXEC)
		problem_add(target, "library", RUN_EXIT_CANNOT,
			    "%s: its file system is mounted noexec (install mkwrite elsewhere)",
			    name.s);
}

int target_check(struct run_target *target, const char *name)
{
	struct stat st;
	int fd;

	*target = (struct run_target){.name = name};
	if (!path_find(target))
		return target->problems[0].exit;
	fd = program_follow(target);
	if (fd >= 0) {
		elf_check(target);
		if (fstat(fd, &st) == 0)
			privileges_check(target, fd, &st);
		close(fd);
		if (target->elf.kind == ELF_DYNAMIC)
			library_check(target);
	}
	return target->problem_count > 0 ? target->problems[0].exit : 0;
}

/* ---- The report ---------------------------------------------------------------------------- */

static const char *kind_name(const struct run_target *target)
{
	static const char *const names[] = {
		[ELF_NOT] = "unknown",
		[ELF_DAMAGED] = "damaged",
		[ELF_FOREIGN] = "for another machine",
		[ELF_STATIC] = "linked statically",
		[ELF_DYNAMIC] = "linked dynamically",
	};

	return names[target->elf.kind];
}

static void report_json(const struct run_target *target)
{
	struct json json;

	json_begin(&json, stdout);
	json_object(&json, NULL);
	json_text(&json, "name", target->name);
	json_flag(&json, "can_run", target->problem_count == 0);
	json_text(&json, "path", target->path);
	json_array(&json, "scripts");
	for (unsigned i = 0; i < target->script_count; i++)
		json_text(&json, NULL, target->scripts[i]);
	json_end(&json);
	json_text(&json, "program", target->program);
	json_text(&json, "linked", kind_name(target));
	if (target->elf.kind >= ELF_FOREIGN) {
		json_number(&json, "bits", target->elf.bits);
		json_text(&json, "machine", elf_machine_name(target->elf.machine));
	}
	json_text(&json, "loader", target->elf.interpreter);
	json_text(&json, "library", target->library);
	json_array(&json, "problems");
	for (unsigned i = 0; i < target->problem_count; i++) {
		json_object(&json, NULL);
		json_text(&json, "code", target->problems[i].code);
		json_text(&json, "message", target->problems[i].text);
		json_end(&json);
	}
	json_end(&json);
	json_end(&json);
}

static void line_print(const char *what, const char *path)
{
	if (path[0] != '\0')
		printf("%-9s %s\n", what, name_of_path(path).s);
}

void target_report(const struct run_target *target, const struct tool_options *options)
{
	if (options->json) {
		report_json(target);
		return;
	}
	for (unsigned i = 0; i < target->script_count; i++)
		line_print("script", target->scripts[i]);
	line_print("program", target->program);
	if (target->elf.kind >= ELF_FOREIGN)
		printf("%-9s %u-bit %s, %s\n", "kind", target->elf.bits,
		       elf_machine_name(target->elf.machine), kind_name(target));
	line_print("loader", target->elf.interpreter);
	line_print("library", target->library);
	for (unsigned i = 0; i < target->problem_count; i++)
		printf("%-9s %s\n", "problem", target->problems[i].text);
	printf("%-9s %s\n", "result",
	       target->problem_count == 0 ? "it can be run" : "it cannot be run");
}
