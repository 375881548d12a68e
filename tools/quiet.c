// SPDX-License-Identifier: Apache-2.0
/* See quiet.h. */
#include "tools/quiet.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <ucontext.h>

#include <millrace/status.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF          0
#define PR_SYS_DISPATCH_ON           1
#endif
#define LET_PASS 0 /* values of the selector that the kernel reads at each system call */
#define TELL     1

static struct tool_quiet counted;
static int dispatching;
static struct sigaction old_action;
/* Written by this thread and its signal handler, read by the kernel. */
static volatile char selector;
static __thread int counting __attribute__((tls_model("initial-exec")));

static void note(const void *p)
{
	if (__builtin_expect(counting, 0) && p)
		counted.allocations++;
}

#if defined(MR_ASAN) || defined(MR_TSAN)
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
					      void (*on_free)(const volatile void *));

static void on_malloc(const volatile void *p, size_t bytes)
{
	note((const void *)p);
}

static void on_free(const volatile void *p)
{
	note((const void *)p);
}

static void hook_allocator(void)
{
	static int hooked;

	if (!hooked)
		hooked = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
}
#else
/* The C library's own, under the names that it keeps for who replaces them. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);
void __libc_free(void *p);

void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *p, size_t bytes);
void *memalign(size_t align, size_t bytes);
void *aligned_alloc(size_t align, size_t bytes);
int posix_memalign(void **out, size_t align, size_t bytes);
void free(void *p);

void *malloc(size_t bytes)
{
	note(&counted);
	return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
	note(&counted);
	return __libc_calloc(count, bytes);
}

void *realloc(void *p, size_t bytes)
{
	note(&counted);
	return __libc_realloc(p, bytes);
}

void *memalign(size_t align, size_t bytes)
{
	note(&counted);
	return __libc_memalign(align, bytes);
}

void *aligned_alloc(size_t align, size_t bytes)
{
	return memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes)
{
	int saved = errno;
	void *p;

	if (align % sizeof(void *) || !align || (align & (align - 1)))
		return EINVAL;
	p = memalign(align, bytes);
	errno = saved;
	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

void free(void *p)
{
	note(p);
	__libc_free(p);
}

static void hook_allocator(void)
{
}
#endif

/* Lets the kernel alone from here on, and goes back to the instruction that called it. */
static void on_call(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	selector = LET_PASS;
	counted.calling_spans++;
	counted.call = info->si_syscall;
	regs[REG_RIP] -= 2; /* SYSCALL is two bytes */
	regs[REG_RAX] = info->si_syscall;
}

int tool_quiet_start(void)
{
	struct sigaction action = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO};

	counted = (struct tool_quiet){.call = -1};
	hook_allocator();
	selector = LET_PASS;
	sigaction(SIGSYS, &action, &old_action);
	dispatching =
		prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, 0L, 0L, &selector) == 0;
	if (dispatching)
		return 0;
	sigaction(SIGSYS, &old_action, NULL);
	return MR_E_NOT_SUPPORTED;
}

void tool_quiet_begin(void)
{
	counted.spans++;
	counting = 1;
	if (dispatching)
		selector = TELL;
}

void tool_quiet_end(void)
{
	selector = LET_PASS;
	counting = 0;
}

struct tool_quiet tool_quiet_stop(void)
{
	tool_quiet_end();
	if (dispatching) {
		prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0L, 0L, 0L);
		sigaction(SIGSYS, &old_action, NULL);
	}
	dispatching = 0;
	return counted;
}
