// SPDX-License-Identifier: Apache-2.0
/* See bench_peer.h: a shell command with its input and output on one socket pair. */
#include "tools/bench_peer.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct bench_peer {
	pid_t pid;
	FILE *in, *out;
	char name[64];
	int ready; /* prepared for the row that runs */
};

static int answer(struct bench_peer *peer, char *line, size_t bytes)
{
	if (!fgets(line, (int)bytes, peer->in))
		return -1;
	line[strcspn(line, "\n")] = 0;
	return 0;
}

static void child(const char *command, const char *model, uint32_t threads, int fd)
{
	char text[16], script[4096];

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	snprintf(text, sizeof(text), "%u", threads);
	/* The command may be a word with arguments; the model's path is never parsed by the shell. */
	snprintf(script, sizeof(script), "exec %s \"$1\" \"$2\"", command);
	dup2(fd, 0);
	dup2(fd, 1);
	execl("/bin/sh", "sh", "-c", script, "peer", model, text, NULL);
	_exit(127);
}

int bench_peer_open(const char *command, const char *model, uint32_t threads,
		    struct bench_peer **out)
{
	struct bench_peer *peer = calloc(1, sizeof(*peer));
	char flags[1024];
	int fds[2];

	if (!peer)
		return MR_E_NO_MEMORY;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		free(peer);
		return MR_E_IO;
	}
	fflush(NULL);
	peer->pid = fork();
	if (peer->pid == 0)
		child(command, model, threads, fds[1]);
	close(fds[1]);
	peer->in = fdopen(fds[0], "r");
	peer->out = fdopen(dup(fds[0]), "w");
	if (peer->pid < 0 || !peer->in || !peer->out ||
	    answer(peer, peer->name, sizeof(peer->name)) || answer(peer, flags, sizeof(flags))) {
		fprintf(stderr, "millrace: the peer does not start: %s\n", command);
		bench_peer_close(peer);
		return MR_E_IO;
	}
	printf("  peer: %s, %u threads; %s\n", peer->name, threads, flags);
	peer->name[strcspn(peer->name, " ")] = 0;
	*out = peer;
	return 0;
}

void bench_peer_close(struct bench_peer *peer)
{
	if (!peer)
		return;
	if (peer->in)
		fclose(peer->in);
	if (peer->out)
		fclose(peer->out);
	if (peer->pid > 0) {
		kill(peer->pid, SIGTERM);
		waitpid(peer->pid, NULL, 0);
	}
	free(peer);
}

const char *bench_peer_name(const struct bench_peer *peer)
{
	return peer->name;
}

int bench_peer_prepare(struct bench_peer *peer, const struct bench_end *e)
{
	char line[256];

	fprintf(peer->out, "prepare %u %u %u %u %u\n", e->prefill, e->first, e->batch, e->context,
		e->steps);
	fflush(peer->out);
	peer->ready = !answer(peer, line, sizeof(line)) && !strcmp(line, "ok");
	return peer->ready ? 0 : MR_E_NOT_SUPPORTED;
}

int bench_peer_run(struct bench_peer *peer, const struct bench_end *e, double *seconds)
{
	char line[256], *end;

	if (!peer->ready)
		return MR_E_NOT_SUPPORTED;
	fprintf(peer->out, "run\n");
	fflush(peer->out);
	if (answer(peer, line, sizeof(line)))
		return MR_E_IO;
	*seconds = strtod(line, &end);
	return end == line || !(*seconds > 0) ? MR_E_NOT_SUPPORTED : 0;
}
