/* SPDX-License-Identifier: MIT */
/* calls.c - see calls.h. */
#include "calls.h"

#include <sys/sysmacros.h>

void calls_unlet(struct calls_lets *lets)
{
	int saved = errno;

	while (lets->count)
		preload_let_end(&lets->let[--lets->count]);
	errno = saved;
}

void calls_open_all(enum run_say why)
{
	preload_open_all(why);
	preload_open_now();
}

size_t calls_let(struct calls_lets *lets, void *p, size_t length)
{
	size_t may;

	if (!calls_covers(p, length))
		return length;
	if (lets->count == CALLS_LETS)
		return 0;
	lets->let[lets->count].pin = NULL;
	may = preload_let_begin(&lets->let[lets->count], p, length);
	if (lets->let[lets->count].pin) /* else there is nothing to end */
		lets->count++;
	return may ? may : length;
}

bool calls_let_all(struct calls_lets *lets, void *p, size_t length)
{
	for (size_t done = 0, may; done < length; done += may) {
		may = calls_let(lets, (char *)p + done, length - done);
		if (!may)
			return false;
	}
	return true;
}

bool calls_covers_vector(const struct iovec *iov, size_t count)
{
	if (count > UIO_MAXIOV)
		return false; /* EINVAL */
	for (size_t i = 0; i < count; i++)
		if (calls_covers(iov[i].iov_base, iov[i].iov_len))
			return true;
	return false;
}

bool calls_let_vector(struct calls_lets *lets, const struct iovec *iov, size_t count)
{
	size_t total = 0;

	for (size_t i = 0; i < count; i++)
		if (__builtin_add_overflow(total, iov[i].iov_len, &total) ||
		    total > CALLS_PIECE_BYTES)
			return false;
	for (size_t i = 0; i < count; i++)
		if (calls_let(lets, iov[i].iov_base, iov[i].iov_len) < iov[i].iov_len)
			return false;
	return true;
}

void calls_let_message(struct calls_lets *lets, const struct iovec *iov, size_t count)
{
	uint64_t limit = preload_control->options.dirty_limit_bytes,
		 left = limit ? limit / 4 : ~0ull;

	for (size_t i = 0; i < count; i++) {
		if (!calls_covers(iov[i].iov_base, iov[i].iov_len))
			continue;
		if (iov[i].iov_len > left ||
		    !calls_let_all(lets, iov[i].iov_base, iov[i].iov_len)) {
			calls_unlet(lets);
			calls_open_all(RUN_SAY_RAW_CALLS);
			return;
		}
		left -= iov[i].iov_len;
	}
}

enum calls_kind calls_kind(int fd)
{
	enum calls_kind kind = CALLS_MESSAGE;
	int saved = errno, type;
	struct stat stat;

	if (NEXT(fstat)(fd, &stat) == 0) {
		if (S_ISREG(stat.st_mode) || S_ISBLK(stat.st_mode))
			kind = CALLS_FILLS;
		else if (S_ISCHR(stat.st_mode))
			kind = major(stat.st_rdev) == 1 ? CALLS_FILLS
							: CALLS_STREAM; /* zero, urandom */
		else if (S_ISFIFO(stat.st_mode))
			kind = NEXT(fcntl)(fd, F_GETFL) & O_DIRECT ? CALLS_MESSAGE : CALLS_STREAM;
		else if (S_ISSOCK(stat.st_mode) &&
			 NEXT(getsockopt)(fd, SOL_SOCKET, SO_TYPE, &type,
					  &(socklen_t){sizeof(type)}) == 0 &&
			 type == SOCK_STREAM)
			kind = CALLS_STREAM;
	}
	errno = saved;
	return kind;
}
