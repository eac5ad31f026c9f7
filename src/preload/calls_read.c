/* SPDX-License-Identifier: MIT */
/*
 * calls_read.c - hooks of what reads data of any length into the caller's memory (calls.h).
 *
 * Where a dirty limit lets in a part only, or much is asked for, a file is read part by part until
 * the count is reached, a stream gives a short count, and for a message all is let in.
 */
#include "calls.h"

#include <string.h>

/* A call to be made, perhaps for parts of its buffer one after the other. */
struct reading {
	enum reading_by { READ, PREAD, PREAD2, RECV, RANDOM, FREAD, FREAD_UNLOCKED } what;
	int fd, flags;
	off64_t offset;
	FILE *file;
	__SOCKADDR_ARG address;
	socklen_t *address_length;
};

static ssize_t make(const struct reading *r, void *p, size_t n, size_t done)
{
	switch (r->what) {
	case READ:
		return NEXT(read)(r->fd, p, n);
	case PREAD:
		return NEXT(pread64)(r->fd, p, n, r->offset + (off64_t)done);
	case RECV:
		return NEXT(recvfrom)(r->fd, p, n, r->flags, r->address, r->address_length);
	case RANDOM:
		return NEXT(getrandom)(p, n, (unsigned)r->flags);
	case FREAD:
		return (ssize_t)NEXT(fread)(p, 1, n, r->file);
	default:
		return (ssize_t)NEXT(fread_unlocked)(p, 1, n, r->file);
	}
}

static enum calls_kind kind_of(const struct reading *r)
{
	enum calls_kind kind;

	if (r->what == RANDOM || r->what == FREAD || r->what == FREAD_UNLOCKED)
		return CALLS_FILLS;
	kind = calls_kind(r->fd);
	if (r->what == RECV && kind == CALLS_STREAM && r->flags & MSG_WAITALL)
		return CALLS_FILLS;
	return kind;
}

/* One call, with all of its buffer let in or what can be. *asked: how much it asked for. */
static ssize_t read_part(const struct reading *r, void *p, size_t n, size_t done, size_t *asked,
			 enum calls_kind *kind)
{
	CALLS_LETS_OF_BLOCK(lets);

	*asked = calls_let(&lets, p, n < CALLS_PIECE_BYTES ? n : CALLS_PIECE_BYTES);
	if (*asked < n) {
		*kind = kind_of(r);
		if (*kind == CALLS_MESSAGE) {
			calls_let_message(&lets, &(struct iovec){p, n}, 1);
			*asked = n;
		}
	}
	return make(r, p, *asked, done);
}

static ssize_t read_parts(const struct reading *r, void *p, size_t n)
{
	enum calls_kind kind = CALLS_FILLS;
	size_t done = 0, asked;

	do {
		ssize_t got = read_part(r, (char *)p + done, n - done, done, &asked, &kind);

		if (got < 0)
			return done ? (ssize_t)done : got;
		done += (size_t)got;
		if ((size_t)got < asked)
			break;
	} while (done < n && kind == CALLS_FILLS && !(r->flags & MSG_PEEK && r->what == RECV));
	return (ssize_t)done;
}

HOOK ssize_t read(int fd, void *p, size_t n)
{
	if (!calls_covers(p, n))
		return NEXT(read)(fd, p, n);
	return read_parts(&(struct reading){.what = READ, .fd = fd}, p, n);
}

HOOK ssize_t __read_chk(int fd, void *p, size_t n, size_t size)
{
	if (n > size || !calls_covers(p, n))
		return NEXT(__read_chk)(fd, p, n, size);
	return read_parts(&(struct reading){.what = READ, .fd = fd}, p, n);
}

static ssize_t read_at(int fd, void *p, size_t n, off64_t offset)
{
	return read_parts(&(struct reading){.what = PREAD, .fd = fd, .offset = offset}, p, n);
}

HOOK ssize_t pread(int fd, void *p, size_t n, off_t offset)
{
	return calls_covers(p, n) ? read_at(fd, p, n, offset) : NEXT(pread)(fd, p, n, offset);
}

HOOK ssize_t pread64(int fd, void *p, size_t n, off64_t offset)
{
	return calls_covers(p, n) ? read_at(fd, p, n, offset) : NEXT(pread64)(fd, p, n, offset);
}

HOOK ssize_t __pread_chk(int fd, void *p, size_t n, off_t offset, size_t size)
{
	if (n > size || !calls_covers(p, n))
		return NEXT(__pread_chk)(fd, p, n, offset, size);
	return read_at(fd, p, n, offset);
}

HOOK ssize_t __pread64_chk(int fd, void *p, size_t n, off64_t offset, size_t size)
{
	if (n > size || !calls_covers(p, n))
		return NEXT(__pread64_chk)(fd, p, n, offset, size);
	return read_at(fd, p, n, offset);
}

static ssize_t receive(int fd, void *p, size_t n, int flags, __SOCKADDR_ARG address,
		       socklen_t *length)
{
	CALLS_LETS_OF_BLOCK(lets);

	/* The address may be of any size up to *length; who asks for one gives room for a few. */
	if (address.__sockaddr__ &&
	    calls_covers(address.__sockaddr__, sizeof(struct sockaddr_storage)))
		calls_let_all(&lets, address.__sockaddr__, *length);
	calls_let_all(&lets, length, length ? sizeof(*length) : 0);
	return read_parts(&(struct reading){.what = RECV,
					    .fd = fd,
					    .flags = flags,
					    .address = address,
					    .address_length = length},
			  p, n);
}

static bool receive_covers(void *p, size_t n, __SOCKADDR_ARG address, socklen_t *length)
{
	return calls_covers(p, n) || calls_covers(length, sizeof(*length)) ||
	       calls_covers(address.__sockaddr__, sizeof(struct sockaddr_storage));
}

HOOK ssize_t recv(int fd, void *p, size_t n, int flags)
{
	if (!calls_covers(p, n))
		return NEXT(recv)(fd, p, n, flags);
	return receive(fd, p, n, flags, (__SOCKADDR_ARG){.__sockaddr__ = NULL}, NULL);
}

HOOK ssize_t __recv_chk(int fd, void *p, size_t n, size_t size, int flags)
{
	if (n > size || !calls_covers(p, n))
		return NEXT(__recv_chk)(fd, p, n, size, flags);
	return receive(fd, p, n, flags, (__SOCKADDR_ARG){.__sockaddr__ = NULL}, NULL);
}

HOOK ssize_t recvfrom(int fd, void *p, size_t n, int flags, __SOCKADDR_ARG address,
		      socklen_t *length)
{
	if (!receive_covers(p, n, address, length))
		return NEXT(recvfrom)(fd, p, n, flags, address, length);
	return receive(fd, p, n, flags, address, length);
}

HOOK ssize_t __recvfrom_chk(int fd, void *p, size_t n, size_t size, int flags,
			    __SOCKADDR_ARG address, socklen_t *length)
{
	if (n > size || !receive_covers(p, n, address, length))
		return NEXT(__recvfrom_chk)(fd, p, n, size, flags, address, length);
	return receive(fd, p, n, flags, address, length);
}

HOOK ssize_t getrandom(void *p, size_t n, unsigned flags)
{
	if (!calls_covers(p, n))
		return NEXT(getrandom)(p, n, flags);
	return read_parts(&(struct reading){.what = RANDOM, .flags = (int)flags}, p, n);
}

/* ---- Lists of buffers --------------------------------------------------------------------- */

static ssize_t make_vector(const struct reading *r, const struct iovec *iov, int count, size_t done)
{
	off64_t offset = r->offset == -1 ? -1 : r->offset + (off64_t)done;

	if (r->what == READ)
		return NEXT(readv)(r->fd, iov, count);
	if (r->what == PREAD)
		return NEXT(preadv64)(r->fd, iov, count, offset);
	return NEXT(preadv64v2)(r->fd, iov, count, offset, r->flags);
}

/*
 * Let in what can be of a list from byte done on, as a list of its own; *bytes: how much that is.
 * Returns how many buffers.
 */
static int cut_vector(struct calls_lets *lets, const struct iovec *iov, int count, size_t done,
		      struct iovec *part, size_t *bytes)
{
	int parts = 0;

	*bytes = 0;
	for (int i = 0; i < count && parts < (int)CALLS_LETS && *bytes < CALLS_PIECE_BYTES; i++) {
		size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
		size_t length = iov[i].iov_len - skip, may;

		done -= skip;
		if (!length)
			continue;
		may = length < CALLS_PIECE_BYTES ? length : CALLS_PIECE_BYTES;
		may = calls_let(lets, (char *)iov[i].iov_base + skip, may);
		part[parts++] = (struct iovec){(char *)iov[i].iov_base + skip, may};
		*bytes += may;
		if (may < length)
			break;
	}
	return parts;
}

static ssize_t vector_part(const struct reading *r, const struct iovec *iov, int count, size_t done,
			   size_t *asked)
{
	CALLS_LETS_OF_BLOCK(lets);
	struct iovec part[CALLS_LETS];
	int parts = cut_vector(&lets, iov, count, done, part, asked);

	return make_vector(r, part, parts, done);
}

/* What is more than can be let in at once. */
static ssize_t vector_parts(const struct reading *r, const struct iovec *iov, int count,
			    enum calls_kind kind)
{
	size_t done = 0, total = 0, asked;

	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	do {
		ssize_t got = vector_part(r, iov, count, done, &asked);

		if (got < 0)
			return done ? (ssize_t)done : got;
		done += (size_t)got;
		if ((size_t)got < asked)
			break;
	} while (done < total && kind == CALLS_FILLS);
	return (ssize_t)done;
}

/* All at once, if it can be let in. */
static bool vector_whole(const struct reading *r, const struct iovec *iov, int count,
			 enum calls_kind *kind, ssize_t *got)
{
	CALLS_LETS_OF_BLOCK(lets);

	if (!calls_let_vector(&lets, iov, (size_t)count)) {
		*kind = calls_kind(r->fd);
		if (*kind != CALLS_MESSAGE)
			return false;
		calls_unlet(&lets);
		calls_let_message(&lets, iov, (size_t)count);
	}
	*got = make_vector(r, iov, count, 0);
	return true;
}

static ssize_t read_vector(const struct reading *r, const struct iovec *iov, int count)
{
	enum calls_kind kind;
	ssize_t got;

	if (vector_whole(r, iov, count, &kind, &got))
		return got;
	return vector_parts(r, iov, count, kind);
}

static bool vector_covers(const struct iovec *iov, int count)
{
	return preload_control && count > 0 && calls_covers_vector(iov, (size_t)count);
}

HOOK ssize_t readv(int fd, const struct iovec *iov, int count)
{
	if (!vector_covers(iov, count))
		return NEXT(readv)(fd, iov, count);
	return read_vector(&(struct reading){.what = READ, .fd = fd}, iov, count);
}

HOOK ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	if (!vector_covers(iov, count) || offset < 0)
		return NEXT(preadv)(fd, iov, count, offset);
	return read_vector(&(struct reading){.what = PREAD, .fd = fd, .offset = offset}, iov,
			   count);
}

HOOK ssize_t preadv64(int fd, const struct iovec *iov, int count, off64_t offset)
{
	if (!vector_covers(iov, count) || offset < 0)
		return NEXT(preadv64)(fd, iov, count, offset);
	return read_vector(&(struct reading){.what = PREAD, .fd = fd, .offset = offset}, iov,
			   count);
}

static ssize_t read_vector_2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	return read_vector(
		&(struct reading){.what = PREAD2, .fd = fd, .offset = offset, .flags = flags}, iov,
		count);
}

HOOK ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	if (!vector_covers(iov, count) || offset < -1)
		return NEXT(preadv2)(fd, iov, count, offset, flags);
	return read_vector_2(fd, iov, count, offset, flags);
}

HOOK ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t offset, int flags)
{
	if (!vector_covers(iov, count) || offset < -1)
		return NEXT(preadv64v2)(fd, iov, count, offset, flags);
	return read_vector_2(fd, iov, count, offset, flags);
}

HOOK ssize_t process_vm_readv(pid_t pid, const struct iovec *iov, unsigned long count,
			      const struct iovec *from, unsigned long from_count,
			      unsigned long flags)
{
	CALLS_LETS_OF_BLOCK(lets);

	if (preload_control && calls_covers_vector(iov, count) &&
	    !calls_let_vector(&lets, iov, count)) {
		calls_unlet(&lets);
		calls_let_message(&lets, iov, count);
	}
	return NEXT(process_vm_readv)(pid, iov, count, from, from_count, flags);
}

/* ---- Streams of stdio, which read long pieces straight into the caller's memory ------------- */

static size_t read_file(void *p, size_t size, size_t n, FILE *file)
{
	struct reading r = {.what = FREAD, .file = file};
	size_t got;

	flockfile(file);
	got = (size_t)read_parts(&r, p, size * n);
	funlockfile(file);
	return got / size;
}

static bool file_covers(void *p, size_t size, size_t n)
{
	size_t bytes;

	return !__builtin_mul_overflow(size, n, &bytes) && calls_covers(p, bytes);
}

HOOK size_t fread(void *p, size_t size, size_t n, FILE *file)
{
	return file_covers(p, size, n) ? read_file(p, size, n, file)
				       : NEXT(fread)(p, size, n, file);
}

HOOK size_t fread_unlocked(void *p, size_t size, size_t n, FILE *file)
{
	struct reading r = {.what = FREAD_UNLOCKED, .file = file};

	if (!file_covers(p, size, n))
		return NEXT(fread_unlocked)(p, size, n, file);
	return (size_t)read_parts(&r, p, size * n) / size;
}

HOOK size_t __fread_chk(void *p, size_t bytes, size_t size, size_t n, FILE *file)
{
	if (!file_covers(p, size, n) || size * n > bytes)
		return NEXT(__fread_chk)(p, bytes, size, n, file);
	return read_file(p, size, n, file);
}

HOOK size_t __fread_unlocked_chk(void *p, size_t bytes, size_t size, size_t n, FILE *file)
{
	if (!file_covers(p, size, n) || size * n > bytes)
		return NEXT(__fread_unlocked_chk)(p, bytes, size, n, file);
	return fread_unlocked(p, size, n, file);
}

/* From now on libc reads into it, unseen. */
HOOK int setvbuf(FILE *file, char *p, int mode, size_t n)
{
	if (calls_covers(p, n))
		calls_open_all(RUN_SAY_RAW_CALLS);
	return NEXT(setvbuf)(file, p, mode, n);
}

/* ---- Reads that go on after the call: threads of libc make them ----------------------------- */

static bool lists_covered(int mode, const struct aiocb *const *list, int count)
{
	(void)mode;
	for (int i = 0; i < count; i++)
		if (list[i] && list[i]->aio_lio_opcode == LIO_READ &&
		    calls_covers((const void *)list[i]->aio_buf, list[i]->aio_nbytes))
			return true;
	return false;
}

HOOK int aio_read(struct aiocb *cb)
{
	if (calls_covers((const void *)cb->aio_buf, cb->aio_nbytes))
		calls_open_all(RUN_SAY_RAW_CALLS);
	return NEXT(aio_read)(cb);
}

HOOK int aio_read64(struct aiocb64 *cb)
{
	if (calls_covers((const void *)cb->aio_buf, cb->aio_nbytes))
		calls_open_all(RUN_SAY_RAW_CALLS);
	return NEXT(aio_read64)(cb);
}

HOOK int lio_listio(int mode, struct aiocb *const list[], int count, struct sigevent *event)
{
	if (lists_covered(mode, (const struct aiocb *const *)list, count))
		calls_open_all(RUN_SAY_RAW_CALLS);
	return NEXT(lio_listio)(mode, list, count, event);
}

HOOK int lio_listio64(int mode, struct aiocb64 *const list[], int count, struct sigevent *event)
{
	/* On 64-bit machines the two are the same. */
	if (lists_covered(mode, (const struct aiocb *const *)list, count))
		calls_open_all(RUN_SAY_RAW_CALLS);
	return NEXT(lio_listio64)(mode, list, count, event);
}
