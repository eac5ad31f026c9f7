/* SPDX-License-Identifier: MIT */
/*
 * client.c - the control area, the program's side: posting events, naming files, stopping. The ring
 * and the bell are explained in ring.h.
 *
 * A thread that has claimed something and goes away without a word would be waited for. So all
 * signals are blocked meanwhile (a handler may leave by longjmp), a dead thread is noticed by its
 * number, and a program that another thread has replaced by exec gives up what its main thread had
 * (run_control_open): that number lives on. Nothing is held while a thread waits for room.
 */
#include "control.h"

#include "process.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SIGSET_BYTES (_NSIG / 8) /* the kernel's */

/* ---- Who we are --------------------------------------------------------------------------- */

/*
 * The numbers of this thread for the supervisor: a thread in a PID namespace of its own has others
 * for itself. The /proc in which the supervisor was found knows them. Read once for a thread;
 * whoever has another number (a child of fork) reads them again.
 */
struct numbers {
	_Atomic int32_t own_tid; /* for which the others are; written last */
	int32_t pid, tid;
};

static _Thread_local struct numbers numbers __attribute__((tls_model("initial-exec")));

static const char *digits_read(const char *s, int32_t *number)
{
	*number = 0;
	while (*s >= '0' && *s <= '9' && *number < INT32_MAX / 10)
		*number = *number * 10 + (*s++ - '0');
	return s;
}

/* "PID/task/TID" */
static void numbers_read(struct numbers *n, int32_t own)
{
	char link[64];
	ssize_t length = readlink("/proc/thread-self", link, sizeof(link) - 1);
	const char *rest;

	atomic_store(&n->own_tid, 0);
	link[length > 0 ? length : 0] = '\0';
	rest = digits_read(link, &n->pid);
	if (strncmp(rest, "/task/", 6) == 0)
		digits_read(rest + 6, &n->tid);
	else
		n->tid = 0;
	if (n->pid == 0 || n->tid == 0) {
		n->pid = getpid();
		n->tid = own;
	}
	atomic_store(&n->own_tid, own);
}

static const struct numbers *own_numbers(void)
{
	int32_t own = (int32_t)syscall(SYS_gettid);

	if (atomic_load(&numbers.own_tid) != own) {
		int saved = errno;

		numbers_read(&numbers, own);
		errno = saved;
	}
	return &numbers;
}

static uint32_t own_tid(void)
{
	return (uint32_t)own_numbers()->tid;
}

/* ---- Signals and bells -------------------------------------------------------------------- */

/* Past the C library: whoever loads this may have put something into its place. */
static void signals_block(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, old, SIGSET_BYTES);
}

static void signals_restore(const sigset_t *old)
{
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, old, NULL, SIGSET_BYTES);
}

bool run_supervisor_lives(const struct run_control *control)
{
	return process_lives(control->supervisor, control->supervisor_start);
}

void run_ring(struct run_control *control)
{
	/* Cleared before the wake-up, not after it: a supervisor that falls asleep in between is
	 * woken in vain, but never left asleep. */
	if (atomic_fetch_add(&control->bell, BELL_STEP) & BELL_ASLEEP) {
		atomic_fetch_and(&control->bell, ~BELL_ASLEEP);
		futex_wake_all(&control->bell);
	}
}

/* ---- Events ------------------------------------------------------------------------------- */

/* Claim the slot at head. NULL: the ring is full. */
static struct run_event *slot_claim(struct run_control *control, uint64_t *claimed)
{
	for (;;) {
		uint64_t head = atomic_load(&control->head);
		struct run_event *slot = ring_slot(control, head);
		uint64_t turn = atomic_load(&slot->turn);
		uint64_t mine = turn_make(head, own_tid());
		bool done = false;

		if (turn_lap(turn) < turn_lap(mine))
			return NULL;
		if (turn == turn_make(head, SLOT_FREE))
			done = atomic_compare_exchange_strong(&slot->turn, &turn, mine);
		atomic_compare_exchange_strong(&control->head, &head, head + 1);
		if (done) {
			*claimed = mine;
			return slot;
		}
	}
}

static void slot_publish(struct run_event *slot, uint64_t claimed)
{
	atomic_compare_exchange_strong(&slot->turn, &claimed, claimed | SLOT_PUBLISHED);
}

static bool event_try(struct run_control *control, const struct run_event *event)
{
	struct run_event *slot;
	struct timespec now;
	uint64_t claimed;
	sigset_t old;

	clock_gettime(CLOCK_MONOTONIC, &now);
	signals_block(&old);
	slot = slot_claim(control, &claimed);
	if (slot) {
		slot->kind = event->kind;
		slot->file = event->file;
		slot->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
		slot->pid = own_numbers()->pid;
		slot->tid = (int32_t)turn_owner(claimed);
		slot->offset = event->offset;
		slot->length = event->length;
		slot->address = event->address;
		slot->caller = event->caller;
		slot_publish(slot, claimed);
	}
	signals_restore(&old);
	return slot != NULL;
}

static bool ring_full(struct run_control *control)
{
	uint64_t head = atomic_load(&control->head);

	return turn_lap(atomic_load(&ring_slot(control, head)->turn)) <
	       turn_lap(turn_make(head, SLOT_FREE));
}

/* False: nobody makes room any more. */
static bool room_wait(struct run_control *control)
{
	uint32_t drained;

	if (!run_supervisor_lives(control))
		return false;
	drained = atomic_fetch_or(&control->drained, DRAINED_AWAITED) | DRAINED_AWAITED;
	if (ring_full(control)) {
		run_ring(control);
		futex_wait(&control->drained, drained, RUN_LOOK_MS);
	}
	return true;
}

void run_post(struct run_control *control, const struct run_event *event)
{
	int saved = errno;

	while (!event_try(control, event)) {
		if (!room_wait(control)) {
			atomic_fetch_add(&control->lost, 1);
			errno = saved;
			return;
		}
	}
	run_ring(control);
	errno = saved;
}

static bool is_read(struct run_control *control, uint64_t position)
{
	return turn_lap(atomic_load(&ring_slot(control, position)->turn)) >
	       turn_lap(turn_make(position, SLOT_FREE));
}

/* What is read after an event shows that the event was dealt with: so one more is posted. */
void run_settle(struct run_control *control)
{
	const struct run_event nothing = {.kind = RUN_EVENT_NONE, .file = RUN_FILE_NONE};
	int saved = errno;
	uint64_t last;

	run_post(control, &nothing);
	last = atomic_load(&control->head) - 1;
	while (!is_read(control, last) && run_supervisor_lives(control)) {
		uint32_t drained =
			atomic_fetch_or(&control->drained, DRAINED_AWAITED) | DRAINED_AWAITED;

		if (!is_read(control, last))
			futex_wait(&control->drained, drained, RUN_LOOK_MS);
	}
	errno = saved;
}

/* ---- Files -------------------------------------------------------------------------------- */

/* What the kernel calls the file, if that is still its name here; else "". */
static void path_read(int fd, uint64_t dev, uint64_t ino, char path[static 4096])
{
	char link[32] = "/proc/self/fd/", digits[16];
	size_t at = strlen(link), count = 0;
	struct stat st;
	ssize_t length;

	for (unsigned rest = (unsigned)fd; count == 0 || rest > 0; rest /= 10)
		digits[count++] = (char)('0' + rest % 10);
	while (count > 0)
		link[at++] = digits[--count];
	length = readlink(link, path, 4095);
	path[length > 0 ? length : 0] = '\0';
	if (path[0] != '/' || stat(path, &st) != 0 || st.st_dev != dev || st.st_ino != ino)
		path[0] = '\0';
}

/* The entry is of this file. A name that differs is another file's that got the number again; but
 * a file that has lost its name keeps its entry. */
static bool entry_matches(const struct run_file *entry, uint64_t dev, uint64_t ino,
			  const char *path)
{
	return entry->dev == dev && entry->ino == ino &&
	       (path[0] == '\0' || strcmp(entry->path, path) == 0);
}

/* Is the entry somebody's? Waits while it is being written. If it is free, or its writer dead, it
 * is claimed for us: false. */
static bool entry_wait(struct run_file *entry, uint32_t tid)
{
	for (;;) {
		uint32_t state = atomic_load(&entry->state);

		if (state == RUN_FILE_THERE)
			return true;
		if ((state == 0 || !process_lives((pid_t)state, 0)) &&
		    atomic_compare_exchange_strong(&entry->state, &state, tid))
			return false;
		sched_yield();
	}
}

static void entry_write(struct run_file *entry, uint64_t dev, uint64_t ino, const char *path)
{
	entry->dev = dev;
	entry->ino = ino;
	strcpy(entry->path, path);
	atomic_store(&entry->state, RUN_FILE_THERE);
}

uint16_t run_file_number(struct run_control *control, int fd, uint64_t dev, uint64_t ino)
{
	uint16_t number = RUN_FILE_NONE;
	uint32_t tid = own_tid();
	int saved = errno;
	char path[4096];
	sigset_t old;

	path_read(fd, dev, ino, path);
	signals_block(&old);
	for (uint16_t i = 0; i < RUN_FILES && number == RUN_FILE_NONE; i++) {
		struct run_file *entry = &control->files[i];

		if (!entry_wait(entry, tid)) {
			entry_write(entry, dev, ino, path);
			number = i;
		} else if (entry_matches(entry, dev, ino, path)) {
			number = i;
		}
	}
	signals_restore(&old);
	errno = saved;
	return number;
}

/* ---- Stops -------------------------------------------------------------------------------- */

/* A slot of this thread's that was left by longjmp, or a free one. */
static struct run_stop *stop_claim(struct run_control *control, int32_t tid)
{
	for (unsigned i = 0; i < RUN_STOPS; i++) {
		uint32_t state = atomic_load(&control->stops[i].state);

		if (atomic_load(&control->stops[i].tid) == tid &&
		    (state == RUN_STOP_ASKED || state == RUN_STOP_TOLD))
			return &control->stops[i];
	}
	for (unsigned i = 0; i < RUN_STOPS; i++) {
		int32_t nobody = 0;

		if (atomic_compare_exchange_strong(&control->stops[i].tid, &nobody, tid))
			return &control->stops[i];
	}
	return NULL;
}

/* False: nobody will tell. */
static bool stop_wait_told(struct run_control *control, struct run_stop *stop)
{
	while (atomic_load(&stop->state) == RUN_STOP_ASKED) {
		if (!run_supervisor_lives(control))
			return false;
		futex_wait(&stop->state, RUN_STOP_ASKED, RUN_LOOK_MS);
	}
	return true;
}

struct run_stop *run_stop_begin(struct run_control *control, uint16_t file, int error,
				uint64_t offset, uint64_t needed, bool fatal)
{
	struct run_stop *stop = NULL;
	int saved = errno;
	sigset_t old;

	signals_block(&old);
	if (run_supervisor_lives(control))
		stop = stop_claim(control, (int32_t)own_tid());
	if (stop) {
		stop->pid = own_numbers()->pid;
		stop->file = file;
		stop->fatal = fatal;
		stop->error = error;
		stop->offset = offset;
		stop->needed = needed;
		atomic_store(&stop->state, RUN_STOP_ASKED);
		run_ring(control);
	}
	signals_restore(&old);
	if (stop && fatal && !stop_wait_told(control, stop)) {
		run_stop_end(control, stop);
		stop = NULL;
	}
	errno = saved;
	return stop;
}

void run_stop_end(struct run_control *control, struct run_stop *stop)
{
	uint32_t state = atomic_load(&stop->state);

	/* One that a handler has met in the midst of ours has used, and ended, the same slot. */
	if (atomic_load(&stop->tid) != (int32_t)own_tid())
		return;
	while (state == RUN_STOP_ASKED || state == RUN_STOP_TOLD) {
		if (atomic_compare_exchange_strong(&stop->state, &state, RUN_STOP_OVER)) {
			int saved = errno;

			run_ring(control);
			errno = saved;
			return;
		}
	}
}

void run_wait_for_retry(struct run_control *control, uint32_t seen, unsigned timeout_ms)
{
	int saved = errno;

	futex_wait(&control->retry, seen, timeout_ms);
	errno = saved;
}

/* ---- Opening ------------------------------------------------------------------------------ */

/* What the program that was here before exec has claimed with our number, and left. */
static void leftovers_release(struct run_control *control)
{
	uint64_t head = atomic_load(&control->head);
	uint32_t tid = own_tid();

	/* The one at head itself may be claimed with head not moved yet. */
	for (uint64_t back = 0; back <= RUN_EVENTS && back <= head; back++) {
		struct run_event *slot = ring_slot(control, head - back);
		uint64_t turn = atomic_load(&slot->turn);

		if (back > 0 && turn_lap(turn) != turn_lap(turn_make(head - back, 0)))
			break;
		if (turn_owner(turn) == tid) {
			slot->kind = RUN_EVENT_NONE;
			slot_publish(slot, turn);
		}
	}
	for (unsigned i = 0; i < RUN_FILES && atomic_load(&control->files[i].state) != 0; i++)
		if (atomic_load(&control->files[i].state) == tid)
			entry_write(&control->files[i], 0, 0, "");
	for (unsigned i = 0; i < RUN_STOPS; i++)
		if (atomic_load(&control->stops[i].tid) == (int32_t)tid)
			atomic_store(&control->stops[i].state, RUN_STOP_OVER);
}

struct run_control *run_control_open(const char *path)
{
	struct run_control *control = MAP_FAILED;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat st;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &st) == 0 && st.st_size == sizeof(*control))
		control = mmap(NULL, sizeof(*control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		return NULL;
	if (control->magic != RUN_MAGIC || control->size != sizeof(*control)) {
		munmap(control, sizeof(*control));
		return NULL;
	}
	leftovers_release(control);
	return control;
}
