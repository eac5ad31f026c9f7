/* SPDX-License-Identifier: MIT */
/*
 * signal.c - the process's handlers of SIGBUS and SIGSEGV. They stay installed for good: others may
 * have chained to them. What is not ours goes on to the program's handlers (action.c): those found
 * at installation, or given to mkw_sigaction since.
 *
 *   SIGBUS  queued by mmu_refuse: becomes the kernel's BUS_ADRERR, is delivered to a guard, or
 * passed on from a fault in an inline view: served, and the access tried again; or refused likewise
 *           from the opener of a protection window: passed (refuse.c)
 *   SIGSEGV from a view in place: served, and the access tried again, or refused as a SIGBUS; so
 *           is a SIGBUS that the kernel raises there itself
 *   SIGSEGV from a protection window of mmu_refuse, or while a view is changed: the access is tried
 *           again
 *
 * Everything here is async-signal-safe. No state but whether they are installed.
 */
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static struct mmu_signal_upcalls upcalls;
static pthread_mutex_t install = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool installed;

void mmu_set_signal_upcalls(const struct mmu_signal_upcalls *given)
{
	upcalls = *given;
}

#if defined(__x86_64__)
static enum mmu_access access_of(const void *context, uintptr_t address, bool *absent)
{
	const ucontext_t *uc = context;

	(void)address;
	*absent = !(uc->uc_mcontext.gregs[REG_ERR] & 1);
	return uc->uc_mcontext.gregs[REG_ERR] & 2 ? MMU_WRITE : MMU_READ;
}
#elif defined(__aarch64__)
static enum mmu_access access_of(const void *context, uintptr_t address, bool *absent)
{
	const ucontext_t *uc = context;
	const unsigned char *p = (const unsigned char *)uc->uc_mcontext.__reserved;
	const unsigned char *end = p + sizeof(uc->uc_mcontext.__reserved);

	(void)address;
	*absent = false;
	while (p + 16 <= end) {
		uint32_t head[2]; /* magic, size */
		uint64_t esr;

		memcpy(head, p, sizeof(head));
		if (head[1] < 8)
			break;
		if (head[0] == 0x45535201) { /* ESR_MAGIC */
			memcpy(&esr, p + 8, sizeof(esr));
			*absent = (esr & 0x3c) == 0x04; /* a translation fault, at any level */
			return esr & 0x40 ? MMU_WRITE : MMU_READ; /* WnR */
		}
		p += head[1];
	}
	return MMU_READ;
}
#else
/* The processor's reason is not known here: only a write can fault on a page that is mapped. */
static enum mmu_access access_of(const void *context, uintptr_t address, bool *absent)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	(void)context;
	*absent = false;
	if (fd < 0)
		return MMU_READ;
	if (pread(fd, &entry, sizeof(entry), (off_t)(address / MKW_PAGE_SIZE * sizeof(entry))) < 0)
		entry = 0;
	close(fd);
	*absent = !(entry >> 63);
	return entry >> 63 ? MMU_WRITE : MMU_READ;
}
#endif

/* Of the fault in place that the thread is serving. */
static _Thread_local void *serving __attribute__((tls_model("initial-exec")));

const void *mmu_fault_context(void)
{
	return serving;
}

/* By our handlers and by those called from them. SIGSYS: a library that watches system calls may
 * have to hear of one that is made there. */
static const int never_blocked[] = {SIGSEGV, SIGBUS, SIGSYS};

static void send_to_self(int sig, siginfo_t *info)
{
	pid_t pid = getpid(), tid = (pid_t)syscall(SYS_gettid);

	/* The kernel lets only the main thread keep a code of its own. */
	if (syscall(SYS_rt_tgsigqueueinfo, pid, tid, sig, info))
		syscall(SYS_tgkill, pid, tid, sig);
}

/*
 * End the process as if no handler had been there. An access that faulted does so again after
 * return, with the kernel's own words; what was sent is sent again, to arrive at return.
 */
static void take_default(int sig, siginfo_t *info, bool faults_again)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t set;

	sigaction(sig, &plain, NULL);
	if (faults_again)
		return;
	sigemptyset(&set);
	sigaddset(&set, sig);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	send_to_self(sig, info);
}

/*
 * SIGSEGV and SIGBUS are never blocked while the program's handlers run, so that these may write to
 * views. The price: a handler that fails by itself is called again, where the kernel would end the
 * process. So many times, each deeper in the stack than the one before, are taken for that.
 */
#define DEEPEST 64
static bool too_deep(void)
{
	static _Thread_local struct {
		uintptr_t frame;
		unsigned depth;
	} last __attribute__((tls_model("initial-exec")));
	uintptr_t frame = (uintptr_t)__builtin_frame_address(0);

	last.depth = last.frame - frame - 1 < 65536 ? last.depth + 1 : 0;
	last.frame = frame;
	return last.depth >= DEEPEST;
}

/* Run a handler of the program's under the mask that it asked for. */
static void call_handler(const struct sigaction *action, int sig, siginfo_t *info, ucontext_t *uc)
{
	sigset_t set = uc->uc_sigmask;

	for (int i = 1; i < NSIG; i++)
		if (sigismember(&action->sa_mask, i) == 1)
			sigaddset(&set, i);
	for (size_t i = 0; i < sizeof(never_blocked) / sizeof(never_blocked[0]); i++)
		sigdelset(&set, never_blocked[i]);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	if (action->sa_flags & SA_SIGINFO)
		action->sa_sigaction(sig, info, uc);
	else
		action->sa_handler(sig);
}

/* sent: by a thread, not by an access that will fault again by itself. */
static void chain(int sig, siginfo_t *info, void *context, bool sent)
{
	struct sigaction now;

	if (!sent && upcalls.bad_address)
		upcalls.bad_address((uintptr_t)info->si_addr, info->si_code != SI_KERNEL);
	action_take(sig, &now);
	if (now.sa_handler == SIG_IGN && sent && info->si_code <= 0)
		return;
	/* An access that cannot go on ends the process even where the signal is ignored. */
	if (now.sa_handler == SIG_DFL || now.sa_handler == SIG_IGN || (!sent && too_deep()))
		take_default(sig, info, !sent);
	else
		call_handler(&now, sig, info, context);
}

static void refuse_here(siginfo_t *info, void *context, const struct mkw_refusal *refusal,
			bool sent)
{
	siginfo_t kernels;

	upcalls.deliver(refusal);
	memset(&kernels, 0, sizeof(kernels));
	kernels.si_signo = SIGBUS;
	kernels.si_code = BUS_ADRERR;
	kernels.si_addr = info->si_addr;
	chain(SIGBUS, &kernels, context, sent);
}

/* A fault in an inline view, perhaps. False: it is none of ours. */
static bool serve_inline(siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	struct mkw_refusal refusal;
	enum mmu_access access;
	bool absent;

	if (info->si_code != BUS_ADRERR || !upcalls.inline_fault)
		return false;
	memset(&refusal, 0, sizeof(refusal));
	access = access_of(context, address, &absent);
	fault_note(address, absent);
	if (!upcalls.inline_fault(address, access, &refusal))
		return false;
	if (refusal.error)
		refuse_here(info, context, &refusal, false);
	return true;
}

/* Refused: whoever is asked may have waited for better times; else the signal is what the kernel
 * sends for a page that it cannot give. */
static void refuse_in_place(siginfo_t *info, void *context, const struct mkw_refusal *refusal)
{
	siginfo_t kernels;

	upcalls.deliver(refusal);
	if (upcalls.again && upcalls.again(refusal, context))
		return;
	memset(&kernels, 0, sizeof(kernels));
	kernels.si_signo = SIGBUS;
	kernels.si_code = BUS_ADRERR;
	kernels.si_addr = info->si_addr;
	chain(SIGBUS, &kernels, context, true);
}

/* A write to a view in place, perhaps: one that its protection forbids; broken: an access that the
 * kernel refuses. Reads are never forbidden here, but to read a hole tmpfs needs space, too: it is
 * asked for as if to write. */
static bool serve_in_place(siginfo_t *info, void *context, bool broken)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	void *outer = serving;
	struct mkw_refusal refusal;
	bool absent, served;

	if (info->si_code != (broken ? BUS_ADRERR : SEGV_ACCERR) || !upcalls.in_place_fault ||
	    (!broken && access_of(context, address, &absent) != MMU_WRITE))
		return false;
	memset(&refusal, 0, sizeof(refusal));
	serving = context;
	served = upcalls.in_place_fault(address, broken, &refusal);
	serving = outer;
	if (served && refusal.error)
		refuse_in_place(info, context, &refusal);
	return served;
}

static bool try_unknown(const siginfo_t *info, const void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	bool absent;

	return info->si_code > 0 && info->si_code != SI_KERNEL && upcalls.unknown &&
	       upcalls.unknown(address, access_of(context, address, &absent) == MMU_WRITE);
}

/* Sent by mmu_refuse. One that is not on record came too late: the access has been given up, or it
 * will fault again. */
static void take_refusal(siginfo_t *info, void *context)
{
	struct mkw_refusal refusal;

	memset(&refusal, 0, sizeof(refusal));
	if (upcalls.refused && upcalls.refused((uintptr_t)info->si_addr, &refusal))
		refuse_here(info, context, &refusal, true);
}

/*
 * With too many signals pending in the process (RLIMIT_SIGPENDING) the kernel sends ours without
 * what it was to say. A refusal on record was meant, or a window; else it came too late.
 */
static bool take_wordless(siginfo_t *info, void *context)
{
	struct mkw_refusal refusal;

	if (info->si_code != SI_USER || info->si_pid != 0 || info->si_uid != 0 || !signal_arrived())
		return false;
	memset(&refusal, 0, sizeof(refusal));
	if (upcalls.refused && upcalls.refused(0, &refusal)) {
		info->si_addr = refusal.address;
		refuse_here(info, context, &refusal, true);
	}
	return true;
}

/*
 * An access in an inline view faults, and by the time its handler looks the view is unmapped: what
 * the kernel has for it now is a SIGSEGV. So an access that nobody knows is tried once more, and is
 * somebody else's when it comes again.
 */
static bool first_time(const siginfo_t *info)
{
	static _Thread_local void *tried __attribute__((tls_model("initial-exec")));
	bool first = info->si_code == BUS_ADRERR && info->si_addr != tried;

	tried = first ? info->si_addr : NULL;
	return first;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	window_pass(); /* ours may be one with another that was pending */
	if (info->si_code == PASSED_CODE || info->si_code == REFUSED_CODE)
		signal_arrived();
	if (info->si_code == REFUSED_CODE)
		take_refusal(info, context);
	else if (info->si_code != PASSED_CODE && !take_wordless(info, context) &&
		 !serve_inline(info, context) && !serve_in_place(info, context, true) &&
		 !try_unknown(info, context) && !first_time(info))
		chain(sig, info, context, info->si_code <= 0 || info->si_code == BUS_MCEERR_AO);
	errno = saved;
}

/*
 * The view allows the access: what forbade it was a change of ours, over by now or soon. If it is
 * forbidden again where no window is open and nothing has been changed by us since, it was not us:
 * the program has made the view inaccessible by a plain mprotect, and meant it.
 */
static bool forbidden_by_us(uintptr_t address, enum mmu_access access)
{
	static _Thread_local struct {
		uintptr_t address;
		uint64_t changes;
	} before __attribute__((tls_model("initial-exec")));
	uint64_t changes = protection_changes();
	bool again = before.address == address && before.changes == changes;

	if (!upcalls.allowed || !upcalls.allowed(address, access) || (!window_await_end() && again))
		return false;
	before.address = address;
	before.changes = changes;
	return true;
}

static void on_sigsegv(int sig, siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	int saved = errno;
	bool absent;

	if (!serve_in_place(info, context, false) &&
	    (info->si_code != SEGV_ACCERR ||
	     !forbidden_by_us(address, access_of(context, address, &absent))) &&
	    !try_unknown(info, context))
		chain(sig, info, context, info->si_code <= 0);
	errno = saved;
}

static void (*handler_of(int sig))(int, siginfo_t *, void *)
{
	return sig == SIGBUS ? on_sigbus : on_sigsegv;
}

static bool is_ours(const struct sigaction *action, int sig)
{
	return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == handler_of(sig);
}

/* Put our handler in. What was there is the program's, unless it was ours. */
static int install_one(int sig)
{
	struct sigaction before, again,
		action = {
			.sa_sigaction = handler_of(sig),
			.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER,
		};

	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < sizeof(never_blocked) / sizeof(never_blocked[0]); i++)
		sigdelset(&action.sa_mask, never_blocked[i]);
	/* A signal that comes once ours is there finds the program's; which may have changed it in
	 * between. */
	if (sigaction(sig, NULL, &before))
		return -errno;
	if (!is_ours(&before, sig))
		action_replace(sig, &before, NULL);
	if (sigaction(sig, &action, &again))
		return -errno;
	if (!is_ours(&again, sig) && again.sa_handler != before.sa_handler)
		action_replace(sig, &again, NULL);
	return 0;
}

int signals_install(void)
{
	int err = 0;

	machine_lock(&install);
	if (!installed) {
		err = install_one(SIGBUS);
		if (!err)
			err = install_one(SIGSEGV);
		installed = !err;
	}
	machine_unlock(&install);
	return err;
}

/* Nothing of ours is installed, as far as we know. */
static int set_plain(int sig, const struct sigaction *action, struct sigaction *before)
{
	struct sigaction was;

	if (sigaction(sig, action, &was))
		return -errno;
	/* In between it was, and we have taken ours away. */
	if (action && is_ours(&was, sig)) {
		action_read(sig, &was);
		install_one(sig);
	}
	if (before)
		*before = was;
	return 0;
}

int mkw_sigaction(int sig, const struct sigaction *action, struct sigaction *before)
{
	struct sigaction now, was;

	if (sig != SIGSEGV && sig != SIGBUS)
		return -EINVAL;
	if (!atomic_load(&installed))
		return set_plain(sig, action, before);
	if (action) {
		now = *action; /* a fault of the caller's is met here */
		sigdelset(&now.sa_mask, SIGKILL);
		sigdelset(&now.sa_mask, SIGSTOP);
		action_replace(sig, &now, &was);
	} else {
		action_read(sig, &was);
	}
	if (before)
		*before = was;
	return 0;
}

bool signals_ours(void)
{
	struct sigaction now;

	return sigaction(SIGBUS, NULL, &now) == 0 && is_ours(&now, SIGBUS);
}

void signals_abandon(void)
{
	pthread_mutex_init(&install, NULL);
	actions_abandon();
}

void signals_record(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported)
{
	if (upcalls.record)
		upcalls.record(tid, refusal, reported);
}

void signals_die(uintptr_t address)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	siginfo_t info;
	sigset_t set;

	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = REFUSED_CODE;
	info.si_addr = (void *)address;
	sigaction(SIGBUS, &plain, NULL);
	sigemptyset(&set);
	sigaddset(&set, SIGBUS);
	send_to_self(SIGBUS, &info);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
