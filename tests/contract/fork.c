#include "harness/world.h"
#include <sys/wait.h>
#include <unistd.h>
#include <stdio.h>
TEST(first, "7.1 x")
{
	struct world w;
	int status;
	world_make(&w, 8*PAGE);
	script_put_pattern(w.store,0,8,1);
	world_open(&w, 8*PAGE);
	put(w.view, 'a');
	pid_t pid = fork();
	if (pid == 0) {
		fprintf(stderr, "child %d\n", getpid());
		fprintf(stderr, "read %d\n", w.view[3*PAGE]);
		w.view[0]='z';
		w.view[PAGE]='b';
		fprintf(stderr, "done\n");
		_exit(7);
	}
	waitpid(pid,&status,0);
	CHECK_EQ(WEXITSTATUS(status),7);
	CHECK_EQ(w.view[PAGE], 'b');
	world_end(&w);
}
