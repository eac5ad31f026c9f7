/* SPDX-License-Identifier: MIT */
/*
 * reserve.c - space for holes that are about to be written (reserve.h).
 *
 * A run lies in one or more pieces: aligned stretches of piece_bytes. What is done for it:
 *   its pieces are known to have space       nothing: no system call
 *   else                                     look for holes from the run to the end of its pieces,
 *                                            then before the run, and give space to each
 *   no space for all that                    give space to the run's own holes only
 *   that is refused as well                  that is the answer
 * Pieces are remembered by their numbers in a small table; one that is forgotten is looked at anew,
 * one that has lost its space meanwhile costs a SIGBUS, and comes back as `broken`.
 *
 * All that is reserved ahead in a file and not asked for yet stays below a sixteenth of what is
 * free, so a program with a file full of holes does not fill the disk much before its time.
 *
 * No locks: two threads that reserve the same piece at once do the same twice. A piece that is
 * remembered after another thread has punched it is the case of `broken`, too. The system calls
 * that are cancellation points of the C library are made by syscall(2): nothing may unwind from
 * here.
 */
#include "run/reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/quota.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES	 4096u
#define GRANULE_BYTES	 (1u << 20) /* of pieces, where nothing is reserved ahead */
#define PIECE_BYTES_MAX	 (1u << 30)
#define AHEAD_SHARE	 16u
#define FIEMAP_EXTENTS	 8u
#define FIEMAP_ROUNDS	 32u
#define LITTLE_BYTES	 (16u * PAGE_BYTES) /* so few free bytes explain a refusal */
#define FOLIO_BYTES_MAX	 (2u << 20)
#define DOUBTS		 4u
#define DOUBT_NS	 1000000000u
#define QUOTA_UNIT_BYTES 1024u

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif

_Static_assert(sizeof(long) == 8, "system calls get offsets in one argument");

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return value > UINT64_MAX - unit ? UINT64_MAX / unit * unit
					 : (value + unit - 1) / unit * unit;
}

static bool is_full(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

static void bytes_take(_Atomic uint64_t *from, uint64_t bytes)
{
	uint64_t has = atomic_load(from);

	while (!atomic_compare_exchange_weak(from, &has, has - least(has, bytes)))
		;
}

/* ---- What is known ------------------------------------------------------------------------ */

static _Atomic uint64_t *known_slot(struct reserve *r, uint64_t piece)
{
	return &r->known[piece % RESERVE_KNOWN];
}

static bool known_covers(struct reserve *r, uint64_t offset, uint64_t end)
{
	uint64_t tail = atomic_load(&r->tail);

	for (uint64_t at = offset; at < end;) {
		uint64_t piece = at / r->piece_bytes, next = (piece + 1) * r->piece_bytes;
		bool in_tail = tail && (tail - 1) / r->piece_bytes == piece &&
			       least(next, end) <= round_up(tail, PAGE_BYTES);

		if (!in_tail && atomic_load(known_slot(r, piece)) != piece + 1)
			return false;
		at = next;
	}
	return true;
}

/* [start, end) has space; it begins with a piece, and ends with one, or with the file. */
static void known_add(struct reserve *r, uint64_t start, uint64_t end)
{
	uint64_t piece = start / r->piece_bytes;

	for (; (piece + 1) * r->piece_bytes <= end; piece++)
		atomic_store(known_slot(r, piece), piece + 1);
	if (end > piece * r->piece_bytes)
		atomic_store(&r->tail, end);
}

uint64_t reserve_known(struct reserve *r, uint64_t offset, uint64_t *start)
{
	uint64_t tail = round_up(atomic_load(&r->tail), PAGE_BYTES);

	*start = offset / r->piece_bytes * r->piece_bytes;
	if (known_covers(r, *start, *start + r->piece_bytes))
		return r->piece_bytes;
	return offset < tail && known_covers(r, *start, tail) && tail - *start < r->piece_bytes
		       ? tail - *start
		       : 0;
}

void reserve_forget(struct reserve *r, uint64_t offset, uint64_t length)
{
	uint64_t last = length > UINT64_MAX - offset ? UINT64_MAX : offset + length - 1;

	for (size_t i = 0; i < RESERVE_KNOWN; i++) {
		uint64_t piece = atomic_load(&r->known[i]);

		if (piece && piece - 1 >= offset / r->piece_bytes &&
		    piece - 1 <= last / r->piece_bytes)
			atomic_compare_exchange_strong(&r->known[i], &piece, 0);
	}
	atomic_store(&r->tail, 0);
}

/* ---- Looking for holes, and filling them -------------------------------------------------- */

struct scan {
	struct reserve *r;
	int fd;
	uint64_t size;	    /* of the file */
	uint64_t from, end; /* holes in here are filled, others are only noticed */
	uint64_t run_end;   /* up to here the run itself goes */
	uint64_t hole_bytes;
	bool count_only; /* nothing is filled, hole_bytes is all that is wanted */
	bool has_holes;	 /* there are some that were not filled */
	bool shared;	 /* some extents must be copied to be written */
	bool unshared;	 /* they were */
};

static int space_allocate(int fd, int mode, uint64_t offset, uint64_t length)
{
	long result;

	do
		result = syscall(SYS_fallocate, fd, mode, offset, length);
	while (result && errno == EINTR);
	return result ? -errno : 0;
}

static void hole_post(struct scan *s, uint64_t start, uint64_t end)
{
	/* The page in which the file ends is one to the supervisor. */
	if (end == s->size)
		end = round_up(end, PAGE_BYTES);
	s->r->post(s->r->arg, RUN_EVENT_RESERVED, start, end - start);
}

/* Pages of [start, end) that are in the cache, or swapped out of it; -1: the kernel is too old to
 * tell. */
static int64_t pages_cached(int fd, uint64_t start, uint64_t end)
{
	struct filesystem_pages count;

	if (!filesystem_cachestat(fd, start, end, &count))
		return -1;
	return (int64_t)(count.cache + count.evicted);
}

static int hole_fill(struct scan *s, uint64_t start, uint64_t end)
{
	int error;

	hole_post(s, start, end);
	error = space_allocate(s->fd, FALLOC_FL_KEEP_SIZE, start, end - start);
	if (!error)
		s->hole_bytes += end - start;
	return error;
}

/*
 * To SEEK_HOLE, pages of tmpfs that are reserved look like holes as long as nobody has written
 * them, or reserved them once more: then the kernel clears them, and they are data, which nobody
 * gives back. So the program's preallocation is safe in any case; for what is ours already to be
 * given back some day, only pages are filled that are not in the cache.
 */
static int pages_fill(struct scan *s, uint64_t start, uint64_t end)
{
	int error = 0;

	for (uint64_t at = start, step = end - start; at < end && !error;) {
		uint64_t stop = step < end - at ? at + step : end;
		int64_t cached = pages_cached(s->fd, at, stop);

		if (cached < 0)
			return hole_fill(s, at, end);
		if (cached && stop - at > PAGE_BYTES) {
			step = round_up((stop - at) / 2, PAGE_BYTES);
			continue;
		}
		if (!cached)
			error = hole_fill(s, at, stop);
		at = stop;
		step *= 2;
	}
	return error;
}

static int scan_hole(struct scan *s, uint64_t start, uint64_t end)
{
	uint64_t from = most(start, s->from), stop = least(end, s->end);

	s->has_holes |= from > start || stop < end;
	if (from >= stop)
		return 0;
	if (!s->count_only)
		return s->r->holes == HOLES_BY_PAGE ? pages_fill(s, from, stop)
						    : hole_fill(s, from, stop);
	s->hole_bytes += stop - from;
	return 0;
}

union fiemap_room {
	struct fiemap map;
	char room[sizeof(struct fiemap) + FIEMAP_EXTENTS * sizeof(struct fiemap_extent)];
};

/* The next extents from `at` on. 0 or -errno. */
static int fiemap_read(struct scan *s, uint64_t at, uint64_t end, union fiemap_room *u)
{
	memset(&u->map, 0, sizeof(u->map));
	u->map.fm_start = at;
	u->map.fm_length = end - at;
	u->map.fm_extent_count = FIEMAP_EXTENTS;
	return ioctl(s->fd, FS_IOC_FIEMAP, &u->map) ? -errno : 0;
}

static int scan_extents(struct scan *s, uint64_t start, uint64_t end)
{
	union fiemap_room u;
	uint64_t at = start;
	int error = 0;

	for (unsigned round = 0; at < end && !error; round++) {
		uint64_t before = at;

		if (round >= FIEMAP_ROUNDS && at >= s->run_end) {
			s->has_holes = true; /* perhaps: a patchwork is not looked at to its end */
			return 0;
		}
		error = fiemap_read(s, at, end, &u);
		for (uint32_t i = 0; i < u.map.fm_mapped_extents && at < end && !error; i++) {
			const struct fiemap_extent *e = &u.map.fm_extents[i];

			if (e->fe_logical > at)
				error = scan_hole(s, at, least(e->fe_logical, end));
			s->shared |= (e->fe_flags & FIEMAP_EXTENT_SHARED) != 0;
			at = most(at, e->fe_logical + e->fe_length);
		}
		if (error || at >= end)
			break;
		if (u.map.fm_mapped_extents < FIEMAP_EXTENTS) {
			error = scan_hole(s, at, end);
			at = end;
		} else if (at == before) {
			error = -EIO; /* nonsense */
		}
	}
	return error;
}

static int scan_seek(struct scan *s, uint64_t start, uint64_t end)
{
	int error = 0;

	for (uint64_t at = start; at < end && !error;) {
		off_t hole = lseek(s->fd, (off_t)at, SEEK_HOLE);
		off_t data =
			hole < 0 || (uint64_t)hole >= end ? hole : lseek(s->fd, hole, SEEK_DATA);

		if (hole < 0)
			return errno == ENXIO ? 0 : -errno; /* cut meanwhile */
		if ((uint64_t)hole >= end)
			return 0;
		if (data < 0 && errno != ENXIO)
			return -errno;
		at = data < 0 ? end : least((uint64_t)data, end);
		if (at > (uint64_t)hole)
			error = scan_hole(s, (uint64_t)hole, at);
	}
	return error;
}

/* Parts of the file without space. Those in [s->from, s->end) get it. */
static int scan_range(struct scan *s, uint64_t start, uint64_t end)
{
	if (s->r->holes == HOLES_BY_EXTENT)
		return scan_extents(s, start, end);
	return scan_seek(s, start, end);
}

/* ---- Room --------------------------------------------------------------------------------- */

static uint64_t room_on_disk(int fd, bool with_reserve)
{
	struct statfs fs;

	/* Who does not tell is not to be believed to be full. */
	if (fstatfs(fd, &fs) || !fs.f_blocks)
		return UINT64_MAX;
	return (uint64_t)(with_reserve ? fs.f_bfree : fs.f_bavail) *
	       (uint64_t)(fs.f_frsize ? fs.f_frsize : fs.f_bsize);
}

static uint64_t room_in_quota(int fd, int type, unsigned id)
{
	struct if_dqblk quota;
	struct timespec now;
	uint64_t limit;

	memset(&quota, 0, sizeof(quota));
	if (syscall(SYS_quotactl_fd, fd, QCMD((unsigned)Q_GETQUOTA, (unsigned)type), id, &quota))
		return UINT64_MAX; /* there is none, or it is not ours to know */
	limit = quota.dqb_bhardlimit ? quota.dqb_bhardlimit : UINT64_MAX / QUOTA_UNIT_BYTES;
	clock_gettime(CLOCK_REALTIME, &now);
	if (quota.dqb_bsoftlimit && quota.dqb_btime && (uint64_t)now.tv_sec > quota.dqb_btime)
		limit = quota.dqb_bsoftlimit;
	limit *= QUOTA_UNIT_BYTES;
	return limit - least(limit, quota.dqb_curspace);
}

static uint64_t room_in_quotas(int fd, const struct stat *st)
{
	struct fsxattr attributes;
	uint64_t room = least(room_in_quota(fd, USRQUOTA, st->st_uid),
			      room_in_quota(fd, GRPQUOTA, st->st_gid));

	if (!ioctl(fd, FS_IOC_FSGETXATTR, &attributes) && attributes.fsx_projid)
		room = least(room, room_in_quota(fd, PRJQUOTA, attributes.fsx_projid));
	return room;
}

/* Are there so many bytes, for all one can see? 0, -ENOSPC or -EDQUOT. */
static int room_check(struct reserve *r, int fd, const struct stat *st, uint64_t bytes)
{
	/* What root alone may use; btrfs counts there what nobody can. */
	bool with_reserve = !geteuid() && !r->copies;

	if (room_on_disk(fd, with_reserve) < bytes)
		return -ENOSPC;
	return room_in_quotas(fd, st) < bytes ? -EDQUOT : 0;
}

/* ---- Where nothing can be reserved -------------------------------------------------------- */

static void count_begin(struct reserve *r)
{
	if (!atomic_exchange(&r->counted, true))
		r->post(r->arg, RUN_EVENT_SAY, 0, RUN_SAY_NO_RESERVE);
}

/* Some file systems call everything data. Blocks that are missing betray them. */
static bool seek_is_blind(const struct reserve *r, int fd, const struct stat *st)
{
	return r->holes == HOLES_UNKNOWN && st->st_blocks * 512 < st->st_size &&
	       lseek(fd, 0, SEEK_HOLE) >= st->st_size;
}

static uint64_t count_holes(struct reserve *r, int fd, const struct stat *st, uint64_t offset,
			    uint64_t end)
{
	struct scan s = {.r = r, .fd = fd, .size = (uint64_t)st->st_size, .count_only = true};

	s.from = offset;
	s.end = s.run_end = end;
	if (scan_range(&s, offset, end))
		return end - offset;
	if (!s.hole_bytes && seek_is_blind(r, fd, st))
		return end - offset;
	return s.hole_bytes;
}

/*
 * Blocks that were promised and are still to be allocated are among the free ones. When these
 * become few all that was promised is written, so that both are known again.
 */
static int count_run(struct reserve *r, int fd, const struct stat *st, uint64_t offset,
		     uint64_t end)
{
	uint64_t holes = count_holes(r, fd, st, offset, end);
	uint64_t wanted = atomic_fetch_add(&r->counted_bytes, holes) + holes;
	int error;

	if (!holes || !room_check(r, fd, st, wanted))
		return 0;
	atomic_store(&r->counted_bytes, holes);
	if (syscall(SYS_fdatasync, fd) && is_full(-errno))
		return -errno;
	error = room_check(r, fd, st, holes);
	if (error)
		bytes_take(&r->counted_bytes, holes);
	return error;
}

/* ---- A run -------------------------------------------------------------------------------- */

int reserve_init(struct reserve *r, int fd, uint64_t piece_bytes, reserve_post_fn *post, void *arg)
{
	struct statfs fs;
	struct stat st;

	if (fstat(fd, &st) || fstatfs(fd, &fs))
		return -errno;
	memset(r, 0, sizeof(*r));
	atomic_store(&r->fd, fd);
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	r->holes = filesystem_holes(&fs);
	r->ahead = piece_bytes && r->holes != HOLES_UNKNOWN;
	r->copies = (unsigned long)fs.f_type == BTRFS_SUPER_MAGIC;
	r->post = post;
	r->arg = arg;
	r->piece_bytes = piece_bytes ? PAGE_BYTES : GRANULE_BYTES;
	while (r->piece_bytes < piece_bytes && r->piece_bytes < PIECE_BYTES_MAX)
		r->piece_bytes *= 2;
	return 0;
}

/* May whole pieces be reserved, by what is free and what is reserved ahead already? */
static bool ahead_fits(struct reserve *r, int fd)
{
	return r->ahead && atomic_load(&r->ahead_bytes) + r->piece_bytes <=
				   room_on_disk(fd, false) / AHEAD_SHARE;
}

/* Space for the holes of [offset, end), and for more if wanted. 0 or -errno. */
static int run_fill(struct scan *s, uint64_t offset, uint64_t end, bool ahead)
{
	struct reserve *r = s->r;
	uint64_t start = offset / r->piece_bytes * r->piece_bytes;
	uint64_t stop = least(round_up(end, r->piece_bytes), s->size);
	int error;

	s->from = ahead ? start : offset;
	s->end = ahead ? stop : end;
	s->run_end = end;
	error = scan_range(s, offset, stop);
	if (is_full(error) && s->end > end) {
		/* The last free bytes are for what is written now. */
		s->from = offset;
		s->end = end;
		s->has_holes = true;
		error = scan_range(s, offset, end);
	} else if (!error && start < offset && scan_range(s, start, offset)) {
		s->has_holes = true;
	}
	if (error)
		return error;
	if (!s->has_holes && !s->shared)
		known_add(r, start, stop);
	if (s->hole_bytes > end - offset)
		atomic_fetch_add(&r->ahead_bytes, s->hole_bytes - (end - offset));
	return 0;
}

/* 0 or -errno; those that do not say that there is no space are for the caller to judge. */
static int run_reserve(struct scan *s, const struct stat *st, uint64_t offset, uint64_t end,
		       bool ahead)
{
	int error;

	if (s->r->holes == HOLES_UNKNOWN)
		error = space_allocate(s->fd, FALLOC_FL_KEEP_SIZE, offset, end - offset);
	else
		error = run_fill(s, offset, end, ahead);
	if (!error && s->shared) {
		error = space_allocate(s->fd, FALLOC_FL_UNSHARE_RANGE, offset, end - offset);
		s->unshared = !error;
		return is_full(error) ? error : 0;
	}
	if (error != -EOPNOTSUPP && error != -ENOSYS)
		return error;
	count_begin(s->r);
	return count_run(s->r, s->fd, st, offset, end);
}

/* ---- Broken runs -------------------------------------------------------------------------- */

/*
 * Where does the kernel lack space? In the run, if somebody has punched it; else around: it asks
 * the file system for all of the folio that a page is part of, and readahead makes folios of many
 * pages. How large it is nobody tells. 0, perhaps with *filled; or -errno.
 */
static int broken_fill(struct scan *s, const struct stat *st, uint64_t offset, uint64_t end,
		       bool *filled)
{
	int error = 0;

	*filled = false;
	for (uint64_t unit = PAGE_BYTES; unit <= FOLIO_BYTES_MAX && !error && !*filled; unit *= 2) {
		error = run_reserve(s, st, offset / unit * unit,
				    least(round_up(end, unit), s->size), false);
		*filled = s->hole_bytes || s->unshared;
	}
	return error;
}

/* Nothing tells why the kernel has refused this write. Perhaps it does not any more? */
static bool broken_doubt(struct reserve *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	uint64_t now = (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;

	if (now - atomic_load(&r->doubt_ns) > DOUBT_NS) {
		atomic_store(&r->doubt_ns, now);
		atomic_store(&r->doubts, 0);
	}
	return atomic_fetch_add(&r->doubts, 1) < DOUBTS;
}

static int broken_explain(struct scan *s, const struct stat *st, uint64_t offset, uint64_t end)
{
	struct reserve *r = s->r;
	bool filled = false;
	char byte;
	int error = 0;

	reserve_forget(r, offset, end - offset);
	while (syscall(SYS_pread64, s->fd, &byte, sizeof(byte), offset) < 0)
		if (errno != EINTR)
			return -EIO;
	if (atomic_load(&r->counted))
		error = count_run(r, s->fd, st, offset, end);
	else if (r->holes != HOLES_UNLIMITED)
		error = broken_fill(s, st, offset, end, &filled);
	if (is_full(error))
		return error;
	if (filled || broken_doubt(r))
		return 0;
	error = room_check(r, s->fd, st, end - offset + LITTLE_BYTES);
	/* Not every free block is one that the next copy may go to. */
	if (!error)
		error = r->copies ? -ENOSPC : -EIO;
	return error;
}

static int run_answer(struct reserve *r, uint64_t offset, uint64_t length, bool broken)
{
	struct stat st;
	struct scan s = {.r = r, .fd = atomic_load(&r->fd)};
	uint64_t end;
	int error;

	if (s.fd < 0)
		return -EBADF;
	if (fstat(s.fd, &st)) {
		if (errno == EBADF)
			return -EBADF;
		return broken ? -EIO : 0;
	}
	/* The program may have closed it, and opened something else. */
	if (st.st_dev != r->dev || st.st_ino != r->ino)
		return -EBADF;
	s.size = (uint64_t)st.st_size;
	if (offset >= s.size)
		return -ENXIO;
	end = least(offset + length, s.size);
	if (broken)
		return broken_explain(&s, &st, offset, end);
	if (r->holes == HOLES_UNLIMITED)
		return 0;
	if (atomic_load(&r->counted))
		return count_run(r, s.fd, &st, offset, end);
	error = run_reserve(&s, &st, offset, end, ahead_fits(r, s.fd));
	/* What is no matter of space the kernel is to judge. */
	return is_full(error) ? error : 0;
}

int reserve_run(struct reserve *r, uint64_t offset, uint64_t length, bool broken)
{
	int before = errno, result;

	if (!broken && !atomic_load(&r->counted) && known_covers(r, offset, offset + length)) {
		bytes_take(&r->ahead_bytes, length);
		return 0;
	}
	result = run_answer(r, offset, length, broken);
	errno = before;
	return result;
}
