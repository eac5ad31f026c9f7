/* SPDX-License-Identifier: MIT */
/*
 * machine.h - what the files of src/mmu share; nobody else includes it.
 *
 * Locks: pool.lock (pool.c, workers.c), window.lock (refuse.c), frames.grow (memfd.c), install
 * (signal.c). None is held across an upcall, and none while another one of them is taken: all have
 * the rank MACHINE. They are taken and given back by machine_lock and machine_unlock only.
 */
#ifndef MMU_MACHINE_H
#define MMU_MACHINE_H

#include "mmu.h"
#include "lock/rank.h"
#include "uffd_abi.h"

#include <mkwrite/store.h>
#include <pthread.h>
#include <signal.h>

struct wakes;

/* ---- Locks -------------------------------------------------------------------------------- */

#define machine_lock(m) machine_lock_at((m), RANK_HERE)

static inline void machine_lock_at(pthread_mutex_t *m, const char *where)
{
	rank_take(RANK_MACHINE, m, "machine", where);
	pthread_mutex_lock(m);
}

static inline void machine_unlock(pthread_mutex_t *m)
{
	pthread_mutex_unlock(m);
	rank_drop(m);
}

/* ---- Descriptors (descriptor.c) ----------------------------------------------------------- */

/* What the running kernel gives, less what MKW_UFFD_WITHOUT takes away. */
struct features {
	uint64_t bits;	    /* as UFFDIO_API answered */
	bool syscalls;	    /* faults inside system calls are reported, too */
	bool continue_wp;   /* UFFDIO_CONTINUE can map write-protected (6.4) */
	bool pagemap_scan;  /* PAGEMAP_SCAN (6.7) */
	bool exact_address; /* events have the address, not only its page */
	bool fork;	    /* a child's pages can be served */
};

/* What a backend cannot do without. */
#define FEATURES_NEEDED                                                \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_MISSING_SHMEM | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_THREAD_ID)

bool feature_switched_off(const char *name);
/* Fills features; 0 or a negative errno when there is no userfaultfd at all. */
int features_probe(struct features *features);
/* A new descriptor with the features enabled; negative errno. extra is or-ed into them. */
int descriptor_open(const struct features *features, uint64_t extra);

/* ---- Handler threads ---------------------------------------------------------------------- */

#define PLACE_SEATS 8

/* Where a worker runs, and whose faults it has been serving (place.c). */
struct place {
	_Atomic int home; /* the core it is bound to; -1: none */
	struct seat {
		pid_t tid;
		int cpu;	/* of that thread, when last looked */
		bool agreed;	/* two looks in a row found it there */
		unsigned since; /* events since */
	} seat[PLACE_SEATS];
	unsigned events, local, remote; /* of this window */
	int remote_cpu;
	unsigned looks_left;
};

struct worker {
	struct worker *next; /* of pool.workers */
	struct mmu *mmu;
	pthread_t thread;
	_Atomic uint64_t word;	/* its role and a count of changes (workers.c) */
	uint64_t looked;	/* guarded by pool.lock: word at the deputy's last look, */
	unsigned unchanged;	/* and how many looks it has been that */
	_Atomic bool dismissed; /* it is to stop reading */
	unsigned asleep;	/* depth of mmu_sleep_begin */
	uint64_t asleep_since_ns;
	struct place place;
};

struct pool {
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;  /* followers wait */
	pthread_cond_t left;  /* mmu_destroy waits */
	struct worker *workers;
	unsigned count, max;
	unsigned readers;	 /* that read, or serve what they have read, and are not relieved */
	_Atomic unsigned wanted; /* of them */
	unsigned following;
	int want_cpu; /* the home of the next reader; -1: none in particular */
	bool deputy;  /* a follower watches the readers */
	unsigned idle_looks;
	/* not guarded */
	_Atomic bool stopping, kicked;
	_Atomic bool deep;	   /* the deputy sleeps until it is called */
	_Atomic bool lacking;	   /* there is no follower, and none could be started */
	bool forking;		   /* guarded by lock: no thread may be started (fork.c) */
	_Atomic uint64_t sleep_ns; /* moving average of what is between mmu_sleep_begin and _end */
};

struct doorbell { /* an access that only a reader can answer (doorbell.c) */
	uintptr_t page;
	pthread_t ringer;
	bool started; /* guarded by pool.lock: ringer is to be joined */
	_Atomic bool ringing;
	_Atomic bool owed; /* it could not be answered during a fork */
};

struct mmu {
	struct kin *kin;  /* it is a child's: this is part of it. NULL: this process's own */
	struct mmu *root; /* the space's own machine, which counts */
	_Atomic(struct mmu_fork *) fork; /* under way, its event not read yet (fork.c) */
	_Atomic int spare_fd; /* while one is: to be closed where there is no other; -1 */
	struct features features;
	int uffd;	       /* reports by events; its readers block */
	_Atomic int inline_fd; /* reports by SIGBUS; -1: no inline view yet */
	int pagemap_fd;
	int kin_socket; /* a child's: to its warden */
	unsigned wakes; /* which table: 0 the process's own (wakes.c) */
	const struct mmu_upcalls *upcalls;
	void *arg;
	struct mmu_counts counts;
	struct pool pool;
	struct doorbell doorbell;
};

static inline void count_call(struct mmu *mmu)
{
	atomic_fetch_add_explicit(&mmu->root->counts.calls, 1, memory_order_relaxed);
}

/* workers.c: the threads. */
int workers_start(struct mmu *mmu, unsigned count, unsigned max);
void workers_stop(struct mmu *mmu);
int worker_start(struct mmu *mmu); /* => pool.lock held. -EBUSY: there are as many as may be. */

/* A worker's role, the low bits of its word. */
enum role { FOLLOWING, READING, SERVING, RELIEVED };

static inline enum role role_of(uint64_t word)
{
	return (enum role)(word & 3);
}

static inline uint64_t word_next(uint64_t word, enum role role)
{
	return ((word >> 2) + 1) << 2 | (uint64_t)role;
}

/* pool.c: who reads. All => pool.lock held. */
bool pool_follow(struct worker *worker); /* until it is to read (true) or to end */
void pool_leave(struct worker *worker);	 /* a reader becomes a follower */
void pool_enlist(struct mmu *mmu, int cpu);
void pool_dismiss(struct worker *worker);
void pool_relieve(struct worker *worker); /* another one reads in its place */
bool pool_reader_at(const struct mmu *mmu, const struct worker *except, int cpu);
/* A reader has begun to serve: there must be a deputy, */
void pool_reinforce(struct mmu *mmu);
/* and it must be awake. */
void pool_call_deputy(struct mmu *mmu);

/* A thread reads, or will without starting another, until pool_end_fork. -errno: there is none. */
int pool_begin_fork(struct mmu *mmu);
void pool_end_fork(struct mmu *mmu);

/* doorbell.c */
int doorbell_create(struct mmu *mmu);
void doorbell_destroy(struct mmu *mmu);
bool doorbell_ring(struct mmu *mmu); /* => pool.lock held. Never waits. False: no thread for it. */
/* By the calling thread, which waits for the answer. */
void doorbell_ring_here(struct mmu *mmu);
void doorbell_answer(struct mmu *mmu);

/* place.c */
void place_init(struct place *place);
void place_bind(struct place *place, int cpu);
/* The calling worker serves a fault of thread tid: run where that thread runs. No lock held. */
void place_follow(struct worker *worker, pid_t tid);

/* Starts a thread that takes no signals but those that it raises by a fault. */
int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg);

/* ---- Views -------------------------------------------------------------------------------- */

int frames_fd(const struct frames *frames);
int view_fd(const struct mmu_view *view);
int view_register(int fd, void *address, size_t length, bool private);
/* Writes to the range are reported no more; wakes nobody. */
int unprotect_range(const struct mmu_view *view, uintptr_t address, size_t length);
/* mprotect.c: let writes to the range go, and all of the view if it must be; have them reported;
 * close the range, or have it read only. */
int in_place_allow(struct mmu_view *view, uintptr_t address, size_t length);
int in_place_protect(struct mmu_view *view, uintptr_t address, size_t length);
int in_place_set(struct mmu_view *view, uintptr_t address, size_t length, bool may_read);
/* Is a page there, in memory or where the kernel swaps to? No marker is. */
int page_is_there(const struct mmu_view *view, uintptr_t address, bool *there);
/* The calling thread serves a fault at address, where an entry was absent or not: a hint. */
void fault_note(uintptr_t address, bool absent);
/* The descriptor of inline views, opened at first use; negative errno. */
int inline_descriptor(struct mmu *mmu);

/* ---- Forks (fork.c, kin.c, warden.c) ------------------------------------------------------ */

/* What the two processes tell each other, by a socket that keeps messages apart. */
enum kin_word {
	KIN_HELLO,   /* child: it lives; tid is its process, as it knows itself */
	KIN_WELCOME, /* with the child's descriptor: it is served */
	KIN_REFUSE,  /* refuse an access */
	KIN_ZAP,     /* drop translations: refusal's address and length */
	KIN_ZAPPED,  /* child: done; reported: which */
	KIN_FORK,    /* child: it is about to fork; with the end of a socket to its child's */
	KIN_GO,	     /* it may. error: its child inherits nothing */
	KIN_WITHOUT, /* child: it has come to be, and goes on without the views */
};

struct kin_message {
	enum kin_word word;
	pid_t tid;
	int error;
	enum mmu_access access;
	uint64_t reported;
	struct mkw_refusal refusal;
};

/* fd -1: none. 0 or -errno; never waits. */
int kin_send(int socket, const struct kin_message *message, int fd);
/* 1, 0: there is none now, or -EPIPE: nobody is there any more. *fd: what came with it, or
 * -1; *pid: the sender, as this process knows it, where the socket was told to say. */
int kin_receive(int socket, struct kin_message *message, int *fd, pid_t *pid);

struct mmu_fork {
	struct mmu *mmu;     /* whose descriptor tells of it */
	int socket;	     /* to the child */
	int childs;	     /* the other end, until the fork is over; -1 */
	int arrival;	     /* eventfd: uffd is there */
	_Atomic int uffd;    /* the child's descriptor */
	pid_t root;	     /* the process that serves */
	struct wakes *wakes; /* its table */
	size_t count;
	struct mmu_view *views;
	size_t apart_count;
	struct mmu_extent *apart; /* what the child gets copies of at once, */
	char *bytes;		  /* these, one after the other */
};

/* The event of a fork was read: the child's descriptor. On the thread that read it. */
void fork_event(struct mmu *mmu, int uffd);
void fork_make_room(struct mmu *mmu);
/* Descriptors of processes that nobody serves and that are gone; NULL: all of them. */
void strays_close(const struct mmu *mmu);
/* Of the memory that a descriptor is for nothing is left. Asked of a page that is none of it. */
bool memory_is_gone(const struct mmu *mmu, int uffd);
/* A child asks: its machine, and the socket to its child. NULL: no memory. */
struct mmu_fork *fork_new(struct mmu *mmu, int socket);
void fork_free(struct mmu_fork *fork);
/* Let the process's children inherit the views, or not: that does not fail half-way. */
int fork_advise(const struct mmu_view *views, size_t count, bool inherit);

/* The machine of the child of that fork. */
struct mmu *kin_new(struct mmu_fork *fork);
/* For mmu_sleep_begin: a thread of a child's machine. */
void kin_sleep_begin(void);
/* The child forks, or has: somebody is to read that. */
void kin_want_reader(struct mmu *mmu);
/* Events that wait at a child's descriptor. */
void kin_read(struct mmu *mmu);
/* The process of which tid is a thread, if it is a child's; 0. */
pid_t kin_process_of(pid_t tid);
/* In a child. */
void kins_abandon(void);

/* Of the calling thread, if it serves faults: a time before the report it serves was read. */
void report_time_set(uint64_t time);

/* In the child: have these views served by whoever is at the socket's other end. */
void warden_start(const struct mmu_fork *fork);

/* In a child. */
void windows_abandon(void);
void signals_abandon(void);
/* Remember a refusal, as the VM does. */
void signals_record(pid_t tid, const struct mkw_refusal *refusal, uint64_t reported);
/* Interrupt a thread's wait. False: SIGBUS is not ours to send. */
bool signals_wake(pid_t tid);

/* ---- Signals (signal.c) ------------------------------------------------------------------- */

/* si_code of a SIGBUS that mmu_refuse queued. Negative: the kernel lets one thread send no other
 * kind to another. */
#define REFUSED_CODE (-0x6d6b77)
#define PASSED_CODE  (-0x6d6b78) /* its address says nothing */

int signals_install(void);
/* End the process by SIGBUS at address, as the kernel does where the signal cannot be had. */
void signals_die(uintptr_t address);
/* Is our handler of SIGBUS still the process's? */
bool signals_ours(void);

/* The program's handlers (action.c). sig: SIGBUS or SIGSEGV. Async-signal-safe. */
void action_read(int sig, struct sigaction *action);
void action_replace(int sig, const struct sigaction *action, struct sigaction *before);
/* The one to be run now: with SA_RESETHAND it is SIG_DFL from here on. */
void action_take(int sig, struct sigaction *action);
void actions_abandon(void); /* in a child */

/* ---- Protection windows (refuse.c) -------------------------------------------------------- */

/* None is open while it is held. */
void window_lock(void);
void window_unlock(void);
/* In a signal handler: the thread is past the window that may be open for it. Returns when that is
 * closed. */
void window_pass(void);
/* Is the thread being refused this page now? Then a report of that need not be served. */
bool refusal_is_due(pid_t tid, uintptr_t address);
/* A signal of ours has arrived, or perhaps: false if none is under way. */
bool signal_arrived(void);
/* Likewise: until the window that may be open now is closed. False: none was. */
bool window_await_end(void);
/* Counts the library's own changes of what mappings allow, each before and after. */
uint64_t protection_changes(void);
void protection_change(void);

/* ---- Other threads (thread_state.c) ------------------------------------------------------- */

enum thread_mode {
	THREAD_GONE,
	THREAD_UNKNOWN, /* there is no descriptor or no memory to look with */
	THREAD_RUNNING, /* not waiting: where it is cannot be told */
	THREAD_USER,	/* waits in a fault of user mode */
	THREAD_SYSCALL, /* waits inside a system call */
};

struct thread_state {
	enum thread_mode mode;
	pid_t process; /* whose thread it is; 0: ours */
	long number;   /* of the system call */
	uint64_t argument[6];
	char text[256]; /* as the kernel told it */
};

void thread_state_read(pid_t tid, struct thread_state *state);
/* The same, waiting a while for the thread to go to sleep in its fault. */
void thread_state_settle(pid_t tid, struct thread_state *state);

struct thread_signals {
	int cpu;
	uint64_t blocked, ignored; /* bit n-1: signal n */
};

/* 0; -ESRCH: no such thread any more; another negative errno: it cannot be told. */
int thread_signals_read(pid_t tid, struct thread_signals *signals);

/* wakes.c: around a call that wakes threads at these pages. */
void wake_begin(const struct mmu_view *view, uintptr_t address, size_t length);
void wake_end(const struct mmu_view *view, uintptr_t address, size_t length);
uint64_t wake_clock(void);
/* The process's own table, for the first machine. 0 or -errno. */
int wakes_create(void);
/* In a child: forget all tables; take one in that another process owns, its number then, 0: no
 * room; the process that owns it is no more. */
void wakes_abandon(void);
unsigned wakes_inherit(struct wakes *wakes);
void wakes_forget(unsigned table);
struct wakes *wakes_get(unsigned table);
/* A time of the table's owner, for mmu_woken_since. */
uint64_t wakes_time(unsigned table, uint64_t time);

#endif
