/* SPDX-License-Identifier: MIT */
/*
 * calls_message.c - hooks of recvmsg and recvmmsg (calls.h). Besides the data the kernel stores the
 * sender's address, control messages, and the lengths of both into the header itself.
 */
#include "calls.h"

#include <string.h>

/* All that is not data. */
static bool header_covers(const struct msghdr *m)
{
	return calls_covers(m, sizeof(*m)) || calls_covers(m->msg_name, m->msg_namelen) ||
	       calls_covers(m->msg_control, m->msg_controllen);
}

static bool message_covers(const struct msghdr *m)
{
	return header_covers(m) || calls_covers_vector(m->msg_iov, m->msg_iovlen);
}

static bool let_header(struct calls_lets *lets, struct msghdr *m)
{
	return calls_let_all(lets, m, sizeof(*m)) &&
	       calls_let_all(lets, m->msg_name, m->msg_namelen) &&
	       calls_let_all(lets, m->msg_control, m->msg_controllen);
}

/* Buffers of a stream that can be let in, the last one cut perhaps. */
static size_t cut(struct calls_lets *lets, const struct msghdr *m, struct iovec *part, size_t max)
{
	size_t parts = 0;

	while (parts < m->msg_iovlen && parts < max) {
		const struct iovec *iov = &m->msg_iov[parts];

		part[parts].iov_base = iov->iov_base;
		part[parts].iov_len =
			iov->iov_len < CALLS_PIECE_BYTES ? iov->iov_len : CALLS_PIECE_BYTES;
		part[parts].iov_len = calls_let(lets, iov->iov_base, part[parts].iov_len);
		if (part[parts++].iov_len < iov->iov_len)
			break;
	}
	return parts;
}

static ssize_t receive_short(struct calls_lets *lets, int fd, struct msghdr *m, int flags)
{
	struct iovec part[CALLS_LETS / 2];
	struct msghdr shorter = *m;
	ssize_t got;

	shorter.msg_iov = part;
	shorter.msg_iovlen = cut(lets, m, part, CALLS_LETS / 2);
	got = NEXT(recvmsg)(fd, &shorter, flags);
	if (got >= 0) {
		m->msg_namelen = shorter.msg_namelen;
		m->msg_controllen = shorter.msg_controllen;
		m->msg_flags = shorter.msg_flags;
	}
	return got;
}

HOOK ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	CALLS_LETS_OF_BLOCK(lets);
	unsigned of_header;

	if (!preload_control || !m || !message_covers(m))
		return NEXT(recvmsg)(fd, m, flags);
	if (m->msg_iovlen > UIO_MAXIOV) /* EMSGSIZE */
		return NEXT(recvmsg)(fd, m, flags);
	let_header(&lets, m);
	of_header = lets.count;
	if (!calls_let_vector(&lets, m->msg_iov, m->msg_iovlen)) {
		while (lets.count > of_header)
			preload_let_end(&lets.let[--lets.count]);
		if (calls_kind(fd) == CALLS_STREAM && !(flags & MSG_WAITALL))
			return receive_short(&lets, fd, m, flags);
		calls_let_message(&lets, m->msg_iov, m->msg_iovlen);
	}
	return NEXT(recvmsg)(fd, m, flags);
}

/* As many messages as can be let in whole, at least one. */
static unsigned let_messages(struct calls_lets *lets, struct mmsghdr *messages, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct msghdr *m = &messages[i].msg_hdr;

		if (m->msg_iovlen > UIO_MAXIOV)
			return i + 1; /* EMSGSIZE */
		if (calls_let_all(lets, &messages[i], sizeof(messages[i])) && let_header(lets, m) &&
		    calls_let_vector(lets, m->msg_iov, m->msg_iovlen))
			continue;
		/* What of this one was let in does no harm. */
		if (i > 0)
			return i;
		calls_let_message(lets, m->msg_iov, m->msg_iovlen);
		return 1;
	}
	return count;
}

static bool messages_cover(struct mmsghdr *messages, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (calls_covers(&messages[i], sizeof(messages[i])) ||
		    message_covers(&messages[i].msg_hdr))
			return true;
	return false;
}

HOOK int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags,
		  struct timespec *timeout)
{
	CALLS_LETS_OF_BLOCK(lets);

	if (count > UIO_MAXIOV)
		count = UIO_MAXIOV; /* as the kernel does */
	if (preload_control &&
	    (calls_covers(timeout, sizeof(*timeout)) || messages_cover(messages, count))) {
		calls_let_all(&lets, timeout, sizeof(*timeout));
		count = let_messages(&lets, messages, count);
	}
	return NEXT(recvmmsg)(fd, messages, count, flags, timeout);
}
