/* SPDX-License-Identifier: MIT */
/*
 * run.h - `mkwrite run`: what its files share.
 *
 * The command is the supervisor of a program. The main thread starts it, passes signals on to it,
 * and ends as it does (run_start.c, run_signals.c). The watcher, a second thread, does all else
 * while it runs: it reads events and looks at stops (run_watch.c), and says on stderr what has to
 * be said (run_say.c, run_stops.c). They share only what is atomic or does not change any more; the
 * main thread touches the rest when the watcher has ended.
 *
 * stdout and stdin are the program's: once it runs the supervisor has neither.
 */
#ifndef RUN_H
#define RUN_H

#include "run/control.h"
#include "snapshot.h"
#include "tool.h"

#include <elf.h>
#include <limits.h>
#include <signal.h>

/* ---- run_elf.c: what kind of file is that? ------------------------------------------------- */

enum elf_kind {
	ELF_NOT,     /* something else */
	ELF_DAMAGED, /* its headers lead out of the file, or are none that the kernel would take */
	ELF_FOREIGN, /* not for this machine, or not of this size of addresses */
	ELF_STATIC,  /* nobody would load a library into it */
	ELF_DYNAMIC,
};

struct elf_info {
	enum elf_kind kind;
	unsigned bits, machine;	    /* ELF_FOREIGN and better */
	char interpreter[PATH_MAX]; /* ELF_DYNAMIC */
};
/* 0 or -errno of reading. */
int elf_read(int fd, struct elf_info *info);
/* "x86-64"; "machine 77" in a buffer of the function's, for one that has no name here. */
const char *elf_machine_name(unsigned machine);
const char *elf_own_machine_name(void);

/* ---- run_check.c: can the program be run? -------------------------------------------------- */

#define RUN_SCRIPTS_MAX	 5
#define RUN_PROBLEMS_MAX 8

struct run_problem {
	const char *code; /* for programs: "static" */
	int exit;
	char text[PATH_MAX + 256];
};

struct run_target {
	const char *name;			 /* as it was given */
	char path[PATH_MAX];			 /* what is executed; "" if it is not found */
	char scripts[RUN_SCRIPTS_MAX][PATH_MAX]; /* on the way to program, path first */
	unsigned script_count;
	char program[PATH_MAX]; /* the file whose code runs */
	struct elf_info elf;
	char library[PATH_MAX];
	struct run_problem problems[RUN_PROBLEMS_MAX];
	unsigned problem_count;
};

/* Look at everything that could be in the way. 0, or the exit status of the first problem. */
int target_check(struct run_target *target, const char *name);
/* What --check prints, on stdout. */
void target_report(const struct run_target *target, const struct tool_options *options);

/* ---- run_library.c: what is loaded into programs ------------------------------------------- */

/* Where it is. False: it is not there, and path is where it should be. */
bool library_find(char path[static PATH_MAX]);

/* ---- The supervisor ------------------------------------------------------------------------ */

struct run_settings {
	struct run_options shared;
	const char *full_command; /* NULL: none */
	const char *trace;
	struct snapshot_plan snapshot_plan; /* if shared.snapshots */
	char **program;			    /* its argv */
};

struct run_inherited { /* what the program gets as we got it */
	sigset_t mask;
	struct sigaction pipe, child;
};

struct run {
	const struct tool_options *options;
	struct run_settings settings;
	struct run_target target;
	struct run_inherited inherited;
	struct run_control *control;
	int control_fd;
	sigset_t signals; /* what the main thread waits for */
	pid_t program;
	bool program_stopped;
	_Atomic bool ended; /* the program has: the watcher looks once more, and ends */
	struct watch *watch;
	struct copier *copier; /* NULL: no snapshots */
};

/* ---- run_start.c --------------------------------------------------------------------------- */

/* Start the program. 0, or an exit status with a message. */
int program_start(struct run *run);
/* Start the command that --on-full-exec names, its stdout our stderr, without what we have put into
 * the program's environment; variables: NAME=VALUE, ends with NULL. Its pid or -1; errno. */
pid_t command_start(const struct run *run, const char *command, char *const *variables);
/* From now on our stdin and stdout are nobody's. */
void stdio_leave(void);
/* Descriptors 0 to 2 that are closed are taken, so that no file of ours is written to as stderr;
 * closed again for the program. 0 or -errno. */
int stdio_fill(void);

/* ---- run_signals.c ------------------------------------------------------------------------- */

/* Signals are for the main thread from now on. */
void signals_take(struct run *run);
/* This one, whatever it is, has a handler. */
void signals_leave(struct run *run, int signal);
/* Put back for a child, before exec. */
void signals_give(const struct run_inherited *inherited);
/* Pass signals on until the program has ended; then it is a zombie. */
void signals_pass(struct run *run);
/* End as a program with this wait status does; returns the exit status if it is one. */
int status_repeat(int wait_status);

/* ---- run_watch.c --------------------------------------------------------------------------- */

/* 0 or an exit status with a message. */
int watch_prepare(struct run *run);
int watch_start(struct run *run);
/* The program has ended, with that wait status, or has not begun; so the watcher ends. */
void watch_end(struct run *run, int wait_status);

/* ---- run_stops.c --------------------------------------------------------------------------- */

struct stops;
struct stops *stops_create(struct run *run); /* NULL: no memory */
/* Look at all stops: tell of new ones, start commands, free what is over. */
void stops_look(struct stops *stops);
void stops_destroy(struct stops *stops);

/* ---- run_say.c: how things are named in messages ------------------------------------------- */

struct run_name {
	char s[PATH_MAX];
};
/* "fio[123]" */
struct run_name name_of_process(const struct run *run, pid_t pid);
/* Its path, from here if it is below; control characters are left out. */
struct run_name name_of_file(const struct run *run, uint16_t file);
struct run_name name_of_path(const char *path);
/* The directory in which the file's file system is mounted; "its file system" if that is unknown.
 */
struct run_name name_of_mount(const struct run *run, uint16_t file);
/* A copy of the file's path; "" if it has none. */
void file_path(const struct run *run, uint16_t file, char path[static PATH_MAX]);
/* "no space left on the device" */
const char *error_words(int error);

struct said; /* what has been said, once each */
struct said *said_create(void);
void say_event(struct run *run, struct said *said, const struct run_event *event);
void said_destroy(struct said *said);

#endif
