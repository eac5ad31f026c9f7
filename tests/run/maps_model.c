/* SPDX-License-Identifier: MIT */
/*
 * maps_model FILE SEED STEPS THREADS: random calls that make, change and end mappings of files,
 * each thread in a stretch of addresses and with a file of its own, against a model of what is
 * mapped where, what may be done with it, and what the file has. What the model expects holds
 * natively; so it must under mkwrite run. Children of fork go on with the model for a few steps.
 *
 * Ends with 0, or 1 and what went wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	   4096u
#define AREA_PAGES 48u
#define FILE_PAGES 64u
#define WORDS	   4u /* of a page, that are looked at */
#define STACK	   8192u
#define ALL	   (PROT_READ | PROT_WRITE | PROT_EXEC)

enum kind { HOLE, PLAIN, VIEW };

struct slot {
	enum kind kind;
	int protection;
	unsigned page;	       /* VIEW: of the file */
	uint64_t words[WORDS]; /* PLAIN */
	bool not_in_children;
};

struct world {
	unsigned number;
	uint64_t seed, random;
	unsigned step, size; /* pages of the file */
	int fd, data[2];     /* data: a pipe */
	char *area;
	struct slot slots[AREA_PAGES];
	uint64_t content[FILE_PAGES][WORDS];
	const char *doing;
	bool child;
};

static const char *path;
static unsigned steps;

static _Thread_local sigjmp_buf *landing;
static _Thread_local siginfo_t landed;
static _Thread_local struct world *mine;

static _Noreturn void fail(const struct world *w, const char *format, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	n += snprintf(text + n, sizeof(text) - (size_t)n,
		      "\n  (thread %u%s, seed %llu, step %u: %s)\n", w->number,
		      w->child ? ", a child" : "", (unsigned long long)w->seed, w->step, w->doing);
	(void)!write(1, text, (size_t)n);
	_exit(1);
}

static unsigned pick(struct world *w, unsigned n)
{
	w->random = w->random * 6364136223846793005u + 1442695040888963407u;
	return (unsigned)(w->random >> 33) % n;
}

/* ---- Accesses ----------------------------------------------------------------------------- */

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (!landing)
		fail(mine, "signal %d code %d at %p where nothing was touched", sig, info->si_code,
		     info->si_addr);
	landed = *info;
	siglongjmp(*landing, 1);
}

static volatile uint64_t *word_at(const struct world *w, unsigned slot, unsigned word)
{
	return (volatile uint64_t *)(w->area + (size_t)slot * PAGE + word * (PAGE / WORDS));
}

/* 0, or what the access came to: the signal and its code. */
static int touch(volatile uint64_t *p, uint64_t *value, bool write)
{
	sigjmp_buf here;
	int result = 0;

	if (sigsetjmp(here, 1)) {
		landing = NULL;
		result = landed.si_signo * 100 + landed.si_code;
		if (landed.si_addr != (void *)p)
			fail(mine, "address %p in place of %p", landed.si_addr, (void *)p);
		return result;
	}
	landing = &here;
	if (write)
		*p = *value;
	else
		*value = *p;
	landing = NULL;
	return 0;
}

static int expected(const struct world *w, const struct slot *s, bool write)
{
	const int bits = write ? PROT_WRITE : ALL;

	if (s->kind == HOLE)
		return SIGSEGV * 100 + SEGV_MAPERR;
	if ((s->protection & bits) == 0)
		return SIGSEGV * 100 + SEGV_ACCERR;
	if (s->kind == VIEW && s->page >= w->size)
		return SIGBUS * 100 + BUS_ADRERR;
	return 0;
}

static uint64_t *model_word(struct world *w, unsigned slot, unsigned word)
{
	struct slot *s = &w->slots[slot];

	return s->kind == VIEW ? &w->content[s->page][word] : &s->words[word];
}

static void do_read(struct world *w, unsigned slot, unsigned word)
{
	uint64_t value = 0;
	int want = expected(w, &w->slots[slot], false),
	    got = touch(word_at(w, slot, word), &value, false);

	if (got != want)
		fail(w, "read of page %u: %d, not %d", slot, got, want);
	if (got == 0 && value != *model_word(w, slot, word))
		fail(w, "page %u word %u: %llx, not %llx", slot, word, (unsigned long long)value,
		     (unsigned long long)*model_word(w, slot, word));
}

static void do_write(struct world *w, unsigned slot, unsigned word)
{
	uint64_t value = ((uint64_t)w->number << 56) + ((uint64_t)w->step << 8) + word + 1;
	int want = expected(w, &w->slots[slot], true),
	    got = touch(word_at(w, slot, word), &value, true);

	if (got != want)
		fail(w, "write to page %u: %d, not %d", slot, got, want);
	if (got == 0)
		*model_word(w, slot, word) = value;
}

/* By read(2) from a pipe. */
static void do_read_into(struct world *w, unsigned slot, unsigned word)
{
	uint64_t value = ~(((uint64_t)w->number << 56) + w->step);
	int want = expected(w, &w->slots[slot], true) ? EFAULT : 0, got = 0;

	if (write(w->data[1], &value, sizeof(value)) != sizeof(value))
		fail(w, "the pipe is full");
	if (read(w->data[0], (void *)word_at(w, slot, word), sizeof(value)) != sizeof(value))
		got = errno;
	if (got != want)
		fail(w, "read(2) into page %u: %d, not %d", slot, got, want);
	if (got == 0)
		*model_word(w, slot, word) = value;
	else if (read(w->data[0], &value, sizeof(value)) != sizeof(value))
		fail(w, "what could not be stored is lost");
}

static void verify(struct world *w)
{
	for (unsigned i = 0; i < AREA_PAGES; i++)
		for (unsigned k = 0; k < WORDS; k++)
			do_read(w, i, k);
	for (unsigned i = 0; i < w->size; i++) {
		uint64_t page[PAGE / 8];

		if (pread(w->fd, page, PAGE, (off_t)i * PAGE) != PAGE)
			fail(w, "pread of page %u", i);
		for (unsigned k = 0; k < WORDS; k++)
			if (page[k * (PAGE / WORDS / 8)] != w->content[i][k])
				fail(w, "the file's page %u word %u is %llx, not %llx", i, k,
				     (unsigned long long)page[k * (PAGE / WORDS / 8)],
				     (unsigned long long)w->content[i][k]);
	}
}

/* ---- Calls -------------------------------------------------------------------------------- */

static void check(const struct world *w, int got, int want)
{
	if (got != want)
		fail(w, "errno %d, not %d", got, want);
}

static int some_protection(struct world *w)
{
	static const int some[] = {PROT_READ | PROT_WRITE,
				   PROT_READ | PROT_WRITE,
				   PROT_READ | PROT_WRITE,
				   PROT_READ,
				   PROT_WRITE,
				   PROT_NONE,
				   PROT_READ | PROT_EXEC};

	return some[pick(w, sizeof(some) / sizeof(some[0]))];
}

static char *range(struct world *w, unsigned *first, unsigned *count)
{
	*first = pick(w, AREA_PAGES);
	*count = 1 + pick(w, AREA_PAGES - *first < 12 ? AREA_PAGES - *first : 12);
	return w->area + (size_t)*first * PAGE;
}

static void do_map(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);
	unsigned page = pick(w, FILE_PAGES - count);
	int protection = some_protection(w), flags = MAP_SHARED | MAP_FIXED;

	w->doing = "mmap of the file";
	if (pick(w, 4) == 0)
		flags |= MAP_POPULATE;
	if (mmap(at, count * PAGE, protection, flags, w->fd, (off_t)page * PAGE) != at)
		fail(w, "errno %d", errno);
	for (unsigned i = 0; i < count; i++)
		w->slots[first + i] =
			(struct slot){.kind = VIEW, .protection = protection, .page = page + i};
}

static void do_map_plain(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);
	int protection = some_protection(w);

	w->doing = "mmap of memory";
	if (mmap(at, count * PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	    at)
		fail(w, "errno %d", errno);
	for (unsigned i = 0; i < count; i++)
		w->slots[first + i] = (struct slot){.kind = PLAIN, .protection = protection};
}

static void do_map_wrong(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);

	w->doing = "mmap that fails";
	switch (pick(w, 4)) {
	case 0:
		check(w, mmap(at, 0, 3, MAP_SHARED | MAP_FIXED, w->fd, 0) == MAP_FAILED ? errno : 0,
		      EINVAL);
		break;
	case 1:
		check(w,
		      mmap(at, PAGE, 3, MAP_SHARED | MAP_FIXED, w->fd, 7) == MAP_FAILED ? errno : 0,
		      EINVAL);
		break;
	case 2:
		check(w,
		      mmap(at, PAGE, 3, MAP_SHARED_VALIDATE | MAP_FIXED | 0x1000000, w->fd, 0) ==
				      MAP_FAILED
			      ? errno
			      : 0,
		      EOPNOTSUPP);
		break;
	default:
		if (w->slots[first].kind != HOLE)
			check(w,
			      mmap(at, PAGE, 3, MAP_SHARED | MAP_FIXED_NOREPLACE, w->fd, 0) ==
					      MAP_FAILED
				      ? errno
				      : 0,
			      EEXIST);
	}
}

static void do_unmap(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);

	w->doing = "munmap";
	if (munmap(at, count * PAGE - pick(w, PAGE)) != 0)
		fail(w, "errno %d", errno);
	for (unsigned i = 0; i < count; i++)
		w->slots[first + i] = (struct slot){.kind = HOLE};
}

static void do_protect(struct world *w)
{
	unsigned first, count, done = 0;
	char *at = range(w, &first, &count);
	int protection = some_protection(w);

	w->doing = "mprotect";
	while (done < count && w->slots[first + done].kind != HOLE)
		done++;
	check(w, mprotect(at, count * PAGE, protection) ? errno : 0, done < count ? ENOMEM : 0);
	for (unsigned i = 0; i < done; i++)
		w->slots[first + i].protection = protection;
}

/* One mapping, as the kernel has it: memory is not merged for sure. */
static bool is_one(const struct world *w, unsigned first, unsigned count)
{
	const struct slot *s = &w->slots[first];

	for (unsigned i = 0; i < count; i++)
		if (s[i].kind != VIEW || s[i].page != s->page + i ||
		    s[i].protection != s->protection || s[i].not_in_children != s->not_in_children)
			return false;
	return true;
}

static void do_move(struct world *w)
{
	unsigned first, count, to;
	struct slot moved[AREA_PAGES];
	char *at = range(w, &first, &count), *target;
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	w->doing = "mremap, moving";
	to = pick(w, AREA_PAGES - count);
	target = w->area + (size_t)to * PAGE;
	if (!is_one(w, first, count) || (to < first + count && first < to + count))
		return;
	if (pick(w, 4) == 0)
		flags |= MREMAP_DONTUNMAP;
	if (mremap(at, count * PAGE, count * PAGE, flags, target) != target)
		fail(w, "errno %d", errno);
	memcpy(moved, &w->slots[first], count * sizeof(moved[0]));
	if ((flags & MREMAP_DONTUNMAP) == 0)
		for (unsigned i = 0; i < count; i++)
			w->slots[first + i] = (struct slot){.kind = HOLE};
	memcpy(&w->slots[to], moved, count * sizeof(moved[0]));
}

/* The same once more, by a length of 0. */
static void do_double(struct world *w)
{
	unsigned first, count, to;
	char *at = range(w, &first, &count), *target;

	w->doing = "mremap of length 0";
	to = pick(w, AREA_PAGES - count);
	target = w->area + (size_t)to * PAGE;
	if (w->slots[first].kind != VIEW || (to <= first && first < to + count))
		return;
	if (w->slots[first].page + count > FILE_PAGES)
		return;
	if (mremap(at, 0, count * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		fail(w, "errno %d", errno);
	for (unsigned i = 0; i < count; i++) {
		w->slots[to + i] = w->slots[first];
		w->slots[to + i].page += i;
	}
}

static void do_resize(struct world *w)
{
	unsigned first, count, now;
	char *at = range(w, &first, &count), *got;
	bool room = true, grows;

	w->doing = "mremap, in place";
	now = 1 + pick(w, AREA_PAGES - first);
	grows = now > count;
	if (!is_one(w, first, count) || w->slots[first].page + now > FILE_PAGES)
		return;
	/* What comes behind it may be one with it, for the kernel: then it cannot grow. */
	for (unsigned i = count; i < now; i++)
		room &= w->slots[first + i].kind == HOLE;
	got = mremap(at, count * PAGE, now * PAGE, 0);
	if (grows && !room) {
		check(w, got == MAP_FAILED ? errno : 0, ENOMEM);
		return;
	}
	if (got != at)
		fail(w, "errno %d", errno);
	for (unsigned i = count; i < now; i++) {
		w->slots[first + i] = w->slots[first];
		w->slots[first + i].page += i;
	}
	for (unsigned i = now; i < count; i++)
		w->slots[first + i] = (struct slot){.kind = HOLE};
}

static void clear(struct world *w, unsigned first, unsigned count)
{
	for (unsigned i = first; i < first + count && i < FILE_PAGES; i++)
		memset(w->content[i], 0, sizeof(w->content[i]));
}

static void do_cut(struct world *w)
{
	unsigned size = 1 + pick(w, FILE_PAGES);

	w->doing = "ftruncate";
	if (ftruncate(w->fd, (off_t)size * PAGE) != 0)
		fail(w, "errno %d", errno);
	clear(w, size, FILE_PAGES);
	w->size = size;
}

static void do_allocate(struct world *w)
{
	unsigned page = pick(w, FILE_PAGES - 8), count = 1 + pick(w, 8);
	bool punch = pick(w, 2) == 0;

	w->doing = punch ? "fallocate, punching" : "fallocate";
	if (fallocate(w->fd, FALLOC_FL_KEEP_SIZE | (punch ? FALLOC_FL_PUNCH_HOLE : 0),
		      (off_t)page * PAGE, (off_t)count * PAGE) != 0)
		fail(w, "errno %d", errno);
	if (punch)
		clear(w, page, count);
}

static void do_pwrite(struct world *w)
{
	unsigned page = pick(w, w->size), word = pick(w, WORDS);
	uint64_t value = ((uint64_t)w->step << 32) + 0xabcd;

	w->doing = "pwrite";
	if (pwrite(w->fd, &value, sizeof(value), (off_t)page * PAGE + word * (PAGE / WORDS)) !=
	    sizeof(value))
		fail(w, "errno %d", errno);
	w->content[page][word] = value;
}

/* A hole does not keep the kernel from what comes behind it. Whether it must be writable depends on
 * the kernel. */
static void do_remove(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);
	int want = 0;

	w->doing = "madvise, MADV_REMOVE";
	for (unsigned i = first; i < first + count; i++) {
		const struct slot *s = &w->slots[i];

		if (s->kind == PLAIN || (s->kind == VIEW && (s->protection & PROT_WRITE) == 0))
			return;
		if (s->kind == HOLE)
			want = ENOMEM;
	}
	check(w, madvise(at, count * PAGE, MADV_REMOVE) ? errno : 0, want);
	for (unsigned i = first; i < first + count; i++)
		if (w->slots[i].kind == VIEW)
			clear(w, w->slots[i].page, 1);
}

static void do_advise(struct world *w)
{
	/* None that splits mappings in a way that the model does not know. */
	static const int some[] = {MADV_DONTNEED, MADV_WILLNEED, MADV_DONTFORK, MADV_DOFORK};
	unsigned first, count;
	char *at = range(w, &first, &count);
	int advice = some[pick(w, sizeof(some) / sizeof(some[0]))];

	w->doing = "madvise";
	for (unsigned i = first; i < first + count; i++)
		if (w->slots[i].kind != VIEW)
			return;
	if (madvise(at, count * PAGE, advice) != 0)
		fail(w, "advice %d: errno %d", advice, errno);
	for (unsigned i = first; i < first + count; i++) {
		if (advice == MADV_DONTFORK)
			w->slots[i].not_in_children = true;
		if (advice == MADV_DOFORK)
			w->slots[i].not_in_children = false;
	}
}

static void do_sync(struct world *w)
{
	unsigned first, count;
	char *at = range(w, &first, &count);
	int want = 0;

	w->doing = "msync, fsync";
	for (unsigned i = first; i < first + count; i++)
		if (w->slots[i].kind == HOLE)
			want = ENOMEM;
	check(w, msync(at, count * PAGE, pick(w, 2) ? MS_SYNC : MS_ASYNC) ? errno : 0, want);
	if (pick(w, 4) == 0)
		check(w, fdatasync(w->fd) ? errno : 0, 0);
}

static void run(struct world *w, unsigned count);

static void do_fork(struct world *w)
{
	uint64_t sizes;
	int status;
	pid_t child;

	w->doing = "fork";
	if (w->child)
		return;
	child = fork();
	if (child == 0) {
		w->child = true;
		for (unsigned i = 0; i < AREA_PAGES; i++)
			if (w->slots[i].not_in_children)
				w->slots[i].kind = HOLE;
		run(w, 20);
		verify(w);
		sizes = w->size;
		if (write(w->data[1], &sizes, sizeof(sizes)) != sizeof(sizes))
			fail(w, "the pipe is full");
		if (write(w->data[1], w->content, sizeof(w->content)) !=
		    (ssize_t)sizeof(w->content))
			fail(w, "the pipe is full");
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		fail(w, "errno %d", errno);
	if (status != 0)
		fail(w, "the child's wait status is %#x", status);
	if (read(w->data[0], &sizes, sizeof(sizes)) != sizeof(sizes) ||
	    read(w->data[0], w->content, sizeof(w->content)) != (ssize_t)sizeof(w->content))
		fail(w, "the child has said nothing");
	w->size = (unsigned)sizes;
}

static void step(struct world *w)
{
	static void (*const calls[])(struct world *) = {
		do_map,	   do_map,     do_map,	   do_map_plain, do_map_wrong,
		do_unmap,  do_protect, do_protect, do_move,	 do_move,
		do_double, do_resize,  do_resize,  do_cut,	 do_allocate,
		do_pwrite, do_remove,  do_advise,  do_sync,
	};
	unsigned slot = pick(w, AREA_PAGES), word = pick(w, WORDS), what = pick(w, 64);

	w->step++;
	w->doing = "an access";
	if (what < 20) {
		do_write(w, slot, word);
	} else if (what < 28) {
		do_read(w, slot, word);
	} else if (what < 36) {
		do_read_into(w, slot, word);
	} else if (what == 36) {
		do_fork(w);
	} else {
		calls[pick(w, sizeof(calls) / sizeof(calls[0]))](w);
	}
	w->doing = "looking";
	if (w->step % 16 == 0)
		verify(w);
}

static void run(struct world *w, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		step(w);
}

static void *thread_main(void *arg)
{
	struct world *w = arg;
	stack_t stack = {.ss_sp = malloc(STACK), .ss_size = STACK};
	char name[4096];

	mine = w;
	sigaltstack(&stack, NULL);
	snprintf(name, sizeof(name), "%s.%u", path, w->number);
	w->fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	w->area =
		mmap(NULL, (AREA_PAGES + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w->doing = "the beginning";
	if (w->fd < 0 || w->area == MAP_FAILED || pipe2(w->data, O_CLOEXEC) != 0 ||
	    ftruncate(w->fd, (off_t)w->size * PAGE) != 0)
		fail(w, "errno %d", errno);
	w->area += PAGE; /* nobody else's mapping begins or ends at ours */
	for (unsigned i = 0; i < AREA_PAGES; i++)
		w->slots[i] = (struct slot){.kind = PLAIN, .protection = PROT_NONE};
	run(w, steps);
	w->doing = "the end";
	verify(w);
	munmap(w->area, AREA_PAGES * PAGE);
	unlink(name);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	unsigned count = argc > 4 ? (unsigned)atoi(argv[4]) : 1;
	pthread_t threads[16];

	if (argc < 5 || count == 0 || count > 16)
		return 2;
	path = argv[1];
	steps = (unsigned)atoi(argv[3]);
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	for (unsigned i = 0; i < count; i++) {
		struct world *w = calloc(1, sizeof(*w));

		w->number = i;
		w->seed = strtoull(argv[2], NULL, 10);
		w->random = w->seed * 1000 + i;
		w->size = FILE_PAGES / 2;
		pthread_create(&threads[i], NULL, thread_main, w);
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
