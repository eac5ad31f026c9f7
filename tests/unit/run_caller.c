/* SPDX-License-Identifier: MIT */
/* Who is named for an access that faulted: real faults, in functions whose code has bounds. */
#include "harness/test.h"
#include "run/caller.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE ((size_t)65536)

#if defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define OWN_STRCPY
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_STRCPY
#endif

static unsigned char *memory;
static volatile uintptr_t caller, instruction;
static volatile unsigned faults;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)info;
	caller = run_caller(context);
#if defined(__x86_64__)
	instruction = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
#endif
	faults++;
	mprotect(memory, SIZE, PROT_READ | PROT_WRITE);
}

static void begin(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

#if !defined(__x86_64__)
	SKIP("only the instruction is known on this machine");
#endif
	memory = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(memory != MAP_FAILED);
	REQUIRE_EQ(sigaction(SIGSEGV, &action, NULL), 0);
	run_caller_learn();
}

static void protect(void)
{
	REQUIRE_EQ(mprotect(memory, SIZE, PROT_READ), 0);
	faults = 0;
}

/* A function of a section of its own, whose bounds the linker knows. */
#define BOUNDED(name)                            \
	extern const char __start_code_##name[]; \
	extern const char __stop_code_##name[];  \
	__attribute__((noinline, section("code_" #name)))
#define IN(name, address) \
	((address) >= (uintptr_t)__start_code_##name && (address) < (uintptr_t)__stop_code_##name)

/* The compiler's own idea of memcpy is none; nor is a sanitizer's. */
static void *of_libc(const char *name)
{
	void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD), *function;

	if (!libc)
		SKIP("no libc.so.6 here");
	function = dlsym(libc, name);
	REQUIRE(function != NULL);
	dlclose(libc);
	return function;
}

typedef void *copy_fn(void *, const void *, size_t);
typedef void *set_fn(void *, int, size_t);
typedef char *string_fn(char *, const char *);

BOUNDED(store) static void store(volatile unsigned char *to)
{
	*to = 1;
}

BOUNDED(copy) static void copy(copy_fn *function, void *to, const void *from, size_t size)
{
	function(to, from, size);
	faults |= 0; /* no tail call */
}

BOUNDED(set) static void set(set_fn **function, void *to, size_t size)
{
	(*function)(to, 7, size);
	faults |= 0;
}

struct table {
	char other[200];
	string_fn *function;
};

BOUNDED(string) static void string(const struct table *table, char *to, const char *from)
{
	table->function(to, from);
	faults |= 0;
}

BOUNDED(direct) static void direct(char *to, const char *from)
{
	strcpy(to, from);
	faults |= 0;
}

TEST(caller_store, "a store by the program is named itself")
{
	begin();
	protect();
	store(memory + 100);
	CHECK_EQ(faults, 1);
	CHECK(IN(store, caller));
	CHECK_EQ(caller, instruction);
}

TEST(caller_copy, "memcpy, memset, strcpy: whoever called them is named, for all lengths")
{
	static const size_t sizes[] = {1, 3, 16, 33, 100, 300, 2048, 20000, SIZE};
	static unsigned char from[SIZE];
	copy_fn *memcpy_ = of_libc("memcpy"), *memmove_ = of_libc("memmove");
	set_fn *memset_ = of_libc("memset");
	struct table table = {.function = of_libc("strcpy")};

	begin();
	memset(from, 'x', sizeof(from));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		protect();
		copy(memcpy_, memory, from, sizes[i]);
		CHECK_EQ(faults, 1);
		CHECK(IN(copy, caller) && !IN(copy, instruction));
		protect();
		copy(memmove_, memory, from, sizes[i]);
		CHECK(IN(copy, caller) && faults == 1);
		protect();
		set(&memset_, memory, sizes[i]);
		CHECK(IN(set, caller) && faults == 1);
		protect();
		from[sizes[i] - 1] = '\0';
		string(&table, (char *)memory, (const char *)from);
		CHECK(IN(string, caller) && faults == 1);
		from[sizes[i] - 1] = 'x';
	}
}

TEST(caller_direct, "a call through the table of procedures is seen as well")
{
	static char from[1000];

#if defined(OWN_STRCPY)
	SKIP("a sanitizer has a strcpy of its own");
#endif
	begin();
	memset(from, 'y', sizeof(from) - 1);
	protect();
	direct((char *)memory, from);
	CHECK_EQ(faults, 1);
	CHECK(IN(direct, caller));
}

#if defined(__x86_64__)
static uintptr_t caller_of(uintptr_t at, const void *stack)
{
	ucontext_t uc = {0};

	uc.uc_mcontext.gregs[REG_RIP] = (greg_t)at;
	uc.uc_mcontext.gregs[REG_RSP] = (greg_t)(uintptr_t)stack;
	return run_caller(&uc);
}

static uintptr_t back; /* where the function that was called last returns to */

static void *note(void *to, const void *from, size_t size)
{
	(void)from;
	(void)size;
	back = (uintptr_t)__builtin_return_address(0);
	return to;
}
#endif

TEST(caller_frame, "where the stack does not begin with a return address the instruction is named")
{
#if defined(__x86_64__)
	uintptr_t at = (uintptr_t)of_libc("memcpy"), stack[2] = {0, 0};

	run_caller_learn();
	copy(note, NULL, NULL, 0);
	stack[0] = back;
	CHECK_EQ(caller_of(at, stack), back - 1);
	CHECK_EQ(caller_of((uintptr_t)caller_of, stack), (uintptr_t)caller_of);
	stack[0] = back - 1; /* in code, and behind no call */
	CHECK_EQ(caller_of(at, stack), at);
	stack[0] = back + 1;
	CHECK_EQ(caller_of(at, stack), at);
	stack[0] = (uintptr_t)stack;
	CHECK_EQ(caller_of(at, stack), at);
	for (uintptr_t i = 0; i < 10; i++) { /* near the ends of the address space */
		stack[0] = i;
		CHECK_EQ(caller_of(at, stack), at);
		stack[0] = UINTPTR_MAX - i;
		CHECK_EQ(caller_of(at, stack), at);
	}
#else
	SKIP("only the instruction is known on this machine");
#endif
}

#if defined(__x86_64__)
/* All forms of an indirect call, and what looks like one: "at" is where the bytes stand that the
 * label follows. */
#define FORM(code) \
	asm volatile("jmp 1f\n\t.fill 8, 1, 0x90\n\t" code "\n1:\tlea 1b(%%rip), %0" : "=r"(form))

TEST(caller_forms, "every form of a call instruction is known, a jump is none")
{
	uintptr_t at = (uintptr_t)of_libc("memcpy"), form;

	run_caller_learn();
#define CALL(code)                                        \
	do {                                              \
		FORM(code);                               \
		CHECK_EQ(caller_of(at, &form), form - 1); \
	} while (0)
	CALL("call .+0x1000");
	CALL("call *%%rax");
	CALL("call *%%r12");
	CALL("call *(%%rax)");
	CALL("call *(%%rsp)");
	CALL("call *(%%r13)");
	CALL("call *8(%%rbx)");
	CALL("call *8(%%rsp)");
	CALL("call *0x1234(%%rdi)");
	CALL("call *0x1234(%%r12)");
	CALL("call *0x1234(,%%rax,8)");
	CALL("call *0x1234(%%rbx,%%rax,8)");
	CALL("call *0x1234(%%rip)");
#undef CALL
	FORM("jmp *%%rax");
	CHECK_EQ(caller_of(at, &form), at);
	FORM("jmp *0x1234(%%rip)");
	CHECK_EQ(caller_of(at, &form), at);
	FORM("nop");
	CHECK_EQ(caller_of(at, &form), at);
}
#endif

TEST(caller_forgotten, "where nothing is known, or not any more, the instruction is named")
{
	static unsigned char from[100];
	copy_fn *memcpy_ = of_libc("memcpy");

	begin();
	run_caller_forget();
	protect();
	copy(memcpy_, memory, from, sizeof(from));
	CHECK_EQ(caller, instruction);
	run_caller_learn();
	protect();
	copy(memcpy_, memory, from, sizeof(from));
	CHECK(IN(copy, caller));
}

static _Atomic bool stop;

static void *learn_on(void *unused)
{
	(void)unused;
	while (!stop)
		run_caller_learn();
	return NULL;
}

TEST(caller_learning, "threads that learn meanwhile: the caller, or the instruction, nothing else")
{
	static unsigned char from[5000];
	copy_fn *memcpy_ = of_libc("memcpy");
	struct test_thread threads[2];

	begin();
	for (size_t i = 0; i < 2; i++)
		test_thread_start(&threads[i], learn_on, NULL);
	for (unsigned i = 0; i < test_rounds(500); i++) {
		protect();
		copy(memcpy_, memory, from, sizeof(from));
		REQUIRE(IN(copy, caller) || caller == instruction);
	}
	stop = true;
	for (size_t i = 0; i < 2; i++)
		test_thread_join(&threads[i]);
	protect();
	copy(memcpy_, memory, from, sizeof(from));
	CHECK(IN(copy, caller));
}
