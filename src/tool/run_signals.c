/* SPDX-License-Identifier: MIT */
/*
 * run_signals.c - the main thread while the program runs: it waits for signals, and lets the
 * program have those that were meant for it.
 *
 * What the terminal sends goes to its whole foreground group, the program included, and is not
 * passed on. When the program stops by job control so do we, or the shell would wait; when it ends
 * by a signal so do we, or the shell would not know.
 */
#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static const int passed_signals[] = {SIGTERM, SIGHUP,  SIGINT,	SIGQUIT, SIGUSR1, SIGUSR2,
				     SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGCHLD};

void signals_take(struct run *run)
{
	struct sigaction default_action = {.sa_handler = SIG_DFL};

	/* One that is ignored would have the kernel forget the children's statuses. */
	sigaction(SIGCHLD, &default_action, &run->inherited.child);
	run->inherited.pipe = default_action;
	if (run->options->sigpipe_ignored)
		run->inherited.pipe.sa_handler = SIG_IGN;
	sigemptyset(&run->signals);
	for (size_t i = 0; i < sizeof(passed_signals) / sizeof(passed_signals[0]); i++)
		sigaddset(&run->signals, passed_signals[i]);
	/* Those that are blocked wait to be taken, even if they were ignored. */
	pthread_sigmask(SIG_BLOCK, &run->signals, &run->inherited.mask);
}

void signals_leave(struct run *run, int signal)
{
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, signal);
	sigdelset(&run->signals, signal);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

void signals_give(const struct run_inherited *inherited)
{
	sigaction(SIGCHLD, &inherited->child, NULL);
	sigaction(SIGPIPE, &inherited->pipe, NULL);
	pthread_sigmask(SIG_SETMASK, &inherited->mask, NULL);
}

/* Is our group the one that the terminal talks to? false also without a terminal. */
static bool in_foreground(bool *terminal)
{
	int fd = open("/dev/tty", O_RDONLY | O_CLOEXEC | O_NOCTTY);
	bool foreground;

	*terminal = fd >= 0;
	if (fd < 0)
		return false;
	foreground = tcgetpgrp(fd) == getpgrp();
	close(fd);
	return foreground;
}

/* The program was stopped. A shell that waits for us learns of it when we stop, too; if no shell
 * waits nobody would let us go on. */
static void stop_along(int signal)
{
	bool terminal;
	bool foreground = in_foreground(&terminal);
	bool by_terminal = signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;

	if (foreground || (terminal && by_terminal))
		raise(SIGSTOP);
}

/* True: the program has ended. It stays a zombie, so that its number stays its own. */
static bool program_look(struct run *run)
{
	siginfo_t info = {0};

	while (waitid(P_PID, (id_t)run->program, &info, WSTOPPED | WCONTINUED | WNOHANG) == 0 &&
	       info.si_pid != 0) {
		run->program_stopped = info.si_code == CLD_STOPPED;
		if (run->program_stopped)
			stop_along(info.si_status);
		info.si_pid = 0;
	}
	return waitid(P_PID, (id_t)run->program, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid != 0;
}

static void signal_pass(struct run *run, const siginfo_t *info)
{
	if (info->si_signo == SIGCONT) {
		if (run->program_stopped)
			kill(run->program, SIGCONT);
	} else if (info->si_code <= 0) {
		kill(run->program, info->si_signo);
	}
}

void signals_pass(struct run *run)
{
	siginfo_t info;

	for (;;) {
		if (sigwaitinfo(&run->signals, &info) < 0)
			continue;
		if (info.si_signo != SIGCHLD) {
			signal_pass(run, &info);
		} else if (program_look(run)) {
			return;
		} else {
			run_ring(run->control); /* perhaps a command has ended */
		}
	}
}

int status_repeat(int wait_status)
{
	struct rlimit none = {0, 0};
	sigset_t one;
	int signal;

	if (!WIFSIGNALED(wait_status))
		return WEXITSTATUS(wait_status);
	/* The program's core is there already, if it is wanted. */
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	signal = WTERMSIG(wait_status);
	sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
	sigemptyset(&one);
	sigaddset(&one, signal);
	pthread_sigmask(SIG_UNBLOCK, &one, NULL);
	raise(signal);
	return 128 + signal; /* as a shell has it: only where init of a container cannot end so */
}
