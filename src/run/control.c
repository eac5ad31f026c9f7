/* SPDX-License-Identifier: MIT */
/*
 * control.c - the control area, the supervisor's side: making it, reading events, sleeping until
 * something happens. The ring and the bell are explained in ring.h.
 *
 * Whoever runs the program can write to all of it. What is read here is a copy, and nothing in it
 * is used as an index or a length without a look.
 */
#include "control.h"

#include "process.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

/* How many events may be read before those who wait for room are told. */
#define DRAINED_EVERY 1024u

/* Descriptors 0 to 2 are left to those for whom they are meant, even if they are closed now. */
static int memfd_make(void)
{
	int low = memfd_create("mkwrite-run", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	int fd, saved;

	if (low < 0 || low > STDERR_FILENO)
		return low;
	fd = fcntl(low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	saved = errno;
	close(low);
	errno = saved;
	return fd;
}

/* Nobody can cut it, and what is written in a signal handler is allocated now. */
static int memfd_size(int fd)
{
	if (ftruncate(fd, sizeof(struct run_control)) != 0 ||
	    fallocate(fd, 0, offsetof(struct run_control, events),
		      sizeof(struct run_control) - offsetof(struct run_control, events)) != 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
		return -errno;
	return 0;
}

int run_control_create(const struct run_options *options, struct run_control **control, int *fd)
{
	struct run_control *made = MAP_FAILED;
	int error;

	*fd = memfd_make();
	if (*fd < 0)
		return -errno;
	error = memfd_size(*fd);
	if (error == 0) {
		made = mmap(NULL, sizeof(*made), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
		error = made == MAP_FAILED ? -errno : 0;
	}
	if (error != 0) {
		close(*fd);
		return error;
	}
	/* The zeros of a new memfd are the first lap of a ring that is empty. */
	made->size = sizeof(*made);
	made->supervisor = getpid();
	made->supervisor_start = process_start(made->supervisor);
	made->options = *options;
	made->magic = RUN_MAGIC;
	*control = made;
	return 0;
}

void run_control_destroy(struct run_control *control, int fd)
{
	munmap(control, sizeof(*control));
	close(fd);
}

static void event_copy(struct run_event *to, const struct run_event *from)
{
	to->kind = from->kind;
	to->file = from->file;
	to->time_ns = from->time_ns;
	to->pid = from->pid;
	to->tid = from->tid;
	to->offset = from->offset;
	to->length = from->length;
	to->address = from->address;
	to->caller = from->caller;
}

static void room_tell(struct run_control *control)
{
	uint32_t drained = atomic_load(&control->drained);

	if (!(drained & DRAINED_AWAITED))
		return;
	atomic_store(&control->drained, (drained + DRAINED_STEP) & ~DRAINED_AWAITED);
	futex_wake_all(&control->drained);
}

/* The slot at tail is claimed. If its thread is dead: take it back. True: it is free again. */
static bool slot_recover(struct run_control *control, struct run_event *slot, uint64_t turn)
{
	if (process_lives((pid_t)turn_owner(turn), 0))
		return false;
	/* It may have published as the last thing it did. */
	if (atomic_compare_exchange_strong(&slot->turn, &turn,
					   turn_make(control->tail + RUN_EVENTS, SLOT_FREE))) {
		atomic_fetch_add(&control->lost, 1);
		control->tail++;
	}
	return true;
}

bool run_next(struct run_control *control, struct run_event *event)
{
	for (;;) {
		struct run_event *slot = ring_slot(control, control->tail);
		uint64_t turn = atomic_load(&slot->turn);

		if (turn == turn_make(control->tail, SLOT_PUBLISHED)) {
			event_copy(event, slot);
			atomic_store(&slot->turn, turn_make(control->tail + RUN_EVENTS, SLOT_FREE));
			control->tail++;
			if (control->tail % DRAINED_EVERY == 0)
				room_tell(control);
			return true;
		}
		if (turn_owner(turn) == SLOT_FREE || !slot_recover(control, slot, turn)) {
			room_tell(control);
			return false;
		}
	}
}

void run_listen(struct run_control *control, uint32_t *seen, unsigned timeout_ms)
{
	uint32_t bell = atomic_fetch_or(&control->bell, BELL_ASLEEP) & ~BELL_ASLEEP;

	if (bell == *seen)
		futex_wait(&control->bell, bell | BELL_ASLEEP, timeout_ms);
	*seen = atomic_fetch_and(&control->bell, ~BELL_ASLEEP) & ~BELL_ASLEEP;
}

void run_retry(struct run_control *control)
{
	atomic_fetch_add(&control->retry, 1);
	futex_wake_all(&control->retry);
}
