// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_lpu.h"

#define TRIES      400 /* of 50 ms, for the server to listen */
#define SOCKET_MAX 108 /* a socket's path */

static void run_server(const struct bench_lpu_server *s, int cpu, uint32_t spin_us,
		       const struct tool_devices_options *o)
{
	char spin[16], chips[16], slots[16];
	const char *argv[20] = {"millrace", "lpu", "sim", "--quiet", "--socket", s->socket};
	int fd = open(s->output, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), n = 6;
	int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);

	snprintf(spin, sizeof(spin), "%u", spin_us);
	snprintf(chips, sizeof(chips), "%u", o->chips);
	snprintf(slots, sizeof(slots), "%u", o->slots);
	argv[n++] = "--slots";
	argv[n++] = slots;
	argv[n++] = "--spin";
	argv[n++] = spin;
	if (o->chips) {
		argv[n++] = "--chips";
		argv[n++] = chips;
	}
	if (o->chip) {
		argv[n++] = "--spec";
		argv[n++] = o->chip;
	}
	if (o->kernels) {
		argv[n++] = "--kernels";
		argv[n++] = o->kernels;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	bench_pin(cpu);
	if (fd < 0 || nothing < 0 || dup2(nothing, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		_exit(1);
	execv("/proc/self/exe", (char *const *)argv);
	_exit(1);
}

static int says_listening(const struct bench_lpu_server *s, char *text, size_t bytes)
{
	int fd = open(s->output, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, text, bytes - 1);

	text[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
	return strstr(text, "listening at") != NULL;
}

int bench_lpu_server_start(struct bench_lpu_server *s, int cpu, uint32_t spin_us,
			   const struct tool_devices_options *devices)
{
	const struct timespec nap = {.tv_nsec = 50000000};
	const char *tmp = getenv("TMPDIR");
	char text[512] = "";

	memset(s, 0, sizeof(*s));
	snprintf(s->folder, sizeof(s->folder), "%.*s/millrace-bench-XXXXXX", SOCKET_MAX - 32,
		 tmp ? tmp : "/tmp");
	if (!mkdtemp(s->folder)) {
		perror("millrace: bench lpu: a folder for the socket");
		s->folder[0] = 0;
		return MR_E_IO;
	}
	snprintf(s->socket, sizeof(s->socket), "%s/lpu", s->folder);
	snprintf(s->output, sizeof(s->output), "%s/output", s->folder);
	fflush(NULL);
	s->pid = fork();
	if (s->pid == 0)
		run_server(s, cpu, spin_us, devices);
	for (int i = 0; s->pid > 0 && i < TRIES; i++) {
		if (says_listening(s, text, sizeof(text)))
			return 0;
		if (waitpid(s->pid, NULL, WNOHANG) == s->pid)
			s->pid = 0;
		nanosleep(&nap, NULL);
	}
	fprintf(stderr, "millrace: bench lpu: 'millrace lpu sim' does not start: %s\n", text);
	bench_lpu_server_stop(s);
	return MR_E_DEVICE;
}

void bench_lpu_server_stop(struct bench_lpu_server *s)
{
	if (s->pid > 0) {
		kill(s->pid, SIGTERM);
		waitpid(s->pid, NULL, 0);
	}
	s->pid = 0;
	if (!s->folder[0])
		return;
	unlink(s->socket);
	unlink(s->output);
	rmdir(s->folder);
	s->folder[0] = 0;
}
