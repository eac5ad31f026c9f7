/* SPDX-License-Identifier: MIT */
/* in_place.c - objects whose pages are the kernel's own: mappings of a file that was adopted. */
#include "place.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(in_place_once, "S1.5 a first write in place is asked for once, and is the file's at once")
{
	struct place p;
	char byte;

	place_open(&p, NULL, 64);
	CHECK_EQ(p.map[5 * PAGE], 0);
	CHECK_EQ(p.store.asked, 0);
	for (unsigned i = 0; i < 1000; i++)
		((volatile unsigned char *)p.map)[5 * PAGE] = (unsigned char)i;
	CHECK_EQ(p.store.asked, 1);
	CHECK_EQ(pread(p.store.fd, &byte, 1, 5 * PAGE), 1);
	CHECK_EQ((unsigned char)byte, 999 & 255);
	CHECK_EQ(place_stat(&p).dirty_bytes, PAGE);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(place_stat(&p).dirty_bytes, 0);
	p.map[5 * PAGE] = 1;
	CHECK_EQ(p.store.asked, 2);
	place_close(&p);
}

TEST(in_place_refused, "S1.1 a refused write in place is an error at its exact address")
{
	struct mkw_refusal refusal;
	struct place p;

	place_open(&p, NULL, 64);
	p.store.error = -ENOSPC;
	p.store.refuse_from = 8;
	for (unsigned i = 0; i < 8; i++)
		place_write_one(p.map + i * PAGE);
	CHECK_EQ(mkw_guard(place_write_one, p.map + 8 * PAGE + 17, &refusal), -ENOSPC);
	CHECK(refusal.address == p.map + 8 * PAGE + 17);
	CHECK_EQ(refusal.offset, 8 * PAGE + 17);
	p.store.refuse_from = -1;
	CHECK_EQ(mkw_guard(place_write_one, p.map + 8 * PAGE + 17, &refusal), 0);
	CHECK_EQ(p.map[8 * PAGE + 17], 1);
	place_close(&p);
}

TEST(in_place_dies, "S1.1 a refused write that nobody takes ends the process by SIGBUS")
{
	struct place p;
	int status;
	pid_t pid;

	place_open(&p, NULL, 8);
	p.store.error = -EDQUOT;
	p.store.refuse_from = 3;
	pid = fork();
	if (pid == 0) {
		place_write_one(p.map + 3 * PAGE);
		_exit(1);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS);
	place_close(&p);
}

TEST(in_place_stream, "a stream in place is granted in runs that grow")
{
	struct place p;

	place_open(&p, NULL, 4096);
	for (unsigned i = 0; i < 4096; i++)
		place_write_one(p.map + i * PAGE);
	CHECK(p.store.asked < 64);
	CHECK_EQ(p.store.pages_asked, 4096);
	place_close(&p);
}

TEST(in_place_limit, "S1.3 never more dirty pages in place than the limit allows")
{
	struct place p;

	place_open_limit(&p, 32, 2048);
	for (unsigned i = 0; i < 2048; i++)
		p.map[(i * 7 % 2048) * PAGE] = (unsigned char)(i + 1);
	for (unsigned i = 0; i < 2048; i++)
		CHECK_EQ(p.map[(i * 7 % 2048) * PAGE], (unsigned char)(i + 1));
	CHECK(place_stat(&p).dirty_peak_bytes <= 32 * PAGE);
	CHECK(p.store.written >= 2048 - 32);
	place_close(&p);
}

TEST(in_place_forked, "7.1 a child of fork has the space, and asks for itself")
{
	struct place p;
	int status;
	pid_t pid;

	place_open(&p, NULL, 64);
	place_write_one(p.map);
	pid = fork();
	if (pid == 0) {
		unsigned before = p.store.asked;

		place_write_one(p.map); /* granted in the parent, and so here */
		if (p.store.asked != before)
			_exit(1);
		p.map[5 * PAGE] = 7;
		if (p.store.asked != before + 1)
			_exit(2);
		_exit(mkw_unmap(p.map, p.length) != 0 ? 3 : 0);
	}
	REQUIRE_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	CHECK_EQ(p.map[5 * PAGE], 7);
	CHECK_EQ(p.store.asked, 1);
	p.map[5 * PAGE] = 8;
	CHECK_EQ(p.store.asked, 2);
	place_close(&p);
}

static void *write_later(void *arg)
{
	struct place *p = arg;

	p->map[PAGE] = 9;
	return NULL;
}

TEST(in_place_quiesced, "4.5 quiesced, nobody writes; afterwards every first write is asked for")
{
	struct place p;
	pthread_t thread;

	place_open(&p, NULL, 64);
	CHECK_EQ(mkw_advise(p.map, p.length, MKW_RANDOM), 0);
	p.map[0] = p.map[PAGE] = 1;
	CHECK_EQ(p.store.asked, 2);
	CHECK_EQ(mkw_quiesce(p.handle), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, write_later, &p), 0);
	while (place_stat(&p).waits == 0)
		sched_yield();
	CHECK_EQ(p.map[PAGE], 1);
	CHECK_EQ(p.store.written, 0);
	CHECK_EQ(mkw_resume(p.handle), 0);
	REQUIRE_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(p.map[PAGE], 9);
	CHECK_EQ(p.store.asked, 3);
	p.map[0] = 2;
	CHECK_EQ(p.store.asked, 4);
	CHECK_EQ(place_stat(&p).dirty_bytes, 2 * PAGE);
	place_close(&p);
}

TEST(in_place_granted, "4.7 a system call stores to what was granted before it")
{
	char text[3 * PAGE];
	struct mkw_pin *pin;
	struct place p;
	int fds[2];

	place_open(&p, NULL, 64);
	REQUIRE_EQ(pipe(fds), 0);
	memset(text, 'x', sizeof(text));
	CHECK_EQ(write(fds[1], text, sizeof(text)), sizeof(text));
	CHECK_EQ(read(fds[0], p.map + 100, PAGE), -1);
	CHECK_EQ(errno, EFAULT);
	CHECK_EQ(mkw_grant(p.map + 100, PAGE), 0);
	CHECK_EQ(read(fds[0], p.map + 100, PAGE), PAGE);
	CHECK_EQ(mkw_pin(p.map + 8 * PAGE, 2 * PAGE, MKW_WRITE, &pin), 0);
	CHECK_EQ(read(fds[0], p.map + 8 * PAGE, 2 * PAGE), 2 * PAGE);
	CHECK_EQ(mkw_sync(p.handle, 0, 0), 0);
	CHECK_EQ(mkw_unpin(pin), 0);
	CHECK_MEM(p.map + 100, text, PAGE);
	CHECK_MEM(p.map + 8 * PAGE, text, 2 * PAGE);
	close(fds[0]);
	close(fds[1]);
	place_close(&p);
}

TEST(in_place_parts, "7.4 a part of a view in place is forgotten, and its mapping stays")
{
	struct place p;

	place_open(&p, NULL, 64);
	p.map[10 * PAGE] = 1;
	CHECK_EQ(mkw_unmap(p.map + 10 * PAGE, 4 * PAGE), 0);
	CHECK_EQ(mprotect(p.map + 10 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE), 0);
	p.map[10 * PAGE] = p.map[12 * PAGE] = 2;
	CHECK_EQ(p.store.asked, 1);
	p.map[9 * PAGE] = p.map[20 * PAGE] = 3;
	CHECK_EQ(p.store.asked, 3);
	CHECK_EQ(mkw_protect(p.map, 4 * PAGE, MKW_READ), 0);
	CHECK_EQ(mkw_protect(p.map, 4 * PAGE, MKW_READ | MKW_WRITE), 0);
	p.map[0] = 1;
	CHECK_EQ(p.store.asked, 4);
	place_close(&p);
}
