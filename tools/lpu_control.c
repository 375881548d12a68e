// SPDX-License-Identifier: Apache-2.0
#include "tools/lpu_control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "firmware-sim/sim.h"
#include "firmware-sim/vfio_user.h"

#define LINE_MS 2000 /* for a client's line */
#define ASK_S   15   /* for an answer: the device may be busy for 10 seconds */

struct lpu_control {
	char *path;
	struct mr_lpu_port port;
	int listener, stop_fd;
	pthread_t thread;
};

static void refuse(char *out, int status, const char *text)
{
	snprintf(out, LPU_CONTROL_LINE, "error %s %s", mr_status_name(status),
		 text ? text : mr_strerror(status));
}

static void count_faults(const struct lpu_control *c, char *out)
{
	size_t n = (size_t)snprintf(out, LPU_CONTROL_LINE, "ok");

	for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS && n < LPU_CONTROL_LINE; k++)
		n += (size_t)snprintf(out + n, LPU_CONTROL_LINE - n, " %s=%" PRIu64,
				      mr_sim_fault_name(k), mr_sim_injected(&c->port, k));
}

/* What the device's hardware feels: 1 = the line was one of these. */
static int feel(const struct lpu_control *c, const char *line)
{
	unsigned temperature_mk, power_mw;
	unsigned long long corrected, lost;
	int end = 0;

	if (!strcmp(line, "assert")) {
		mr_sim_assert(&c->port);
	} else if (sscanf(line, "sense %u:%u%n", &temperature_mk, &power_mw, &end) == 2 &&
		   !line[end]) {
		mr_sim_sense(&c->port, temperature_mk, power_mw);
	} else if (sscanf(line, "ecc %llu:%llu%n", &corrected, &lost, &end) == 2 && !line[end]) {
		mr_sim_ecc(&c->port, corrected, lost);
	} else {
		return 0;
	}
	return 1;
}

static void act(const struct lpu_control *c, const char *line, char *out)
{
	unsigned chip, value;
	uint64_t address;
	int end = 0, status;

	if (sscanf(line, "poke %u %" SCNi64 " %i%n", &chip, (int64_t *)&address, (int *)&value,
		   &end) == 3 &&
	    !line[end] && value < 256) {
		uint8_t byte = (uint8_t)value;
		status = mr_sim_poke(&c->port, chip, address, &byte);
		if (status)
			refuse(out, status, NULL);
		else
			snprintf(out, LPU_CONTROL_LINE, "ok %u", byte);
	} else if (feel(c, line)) {
		snprintf(out, LPU_CONTROL_LINE, "ok");
	} else if (!strncmp(line, "damage ", 7)) {
		status = mr_sim_damage(&c->port, line + 7);
		if (status)
			refuse(out, status, NULL);
		else
			snprintf(out, LPU_CONTROL_LINE, "ok");
	} else if (!strncmp(line, "fault ", 6)) {
		status = mr_sim_fault(&c->port, line + 6);
		if (status)
			refuse(out, status, NULL);
		else
			snprintf(out, LPU_CONTROL_LINE, "ok");
	} else if (!strcmp(line, "faults")) {
		count_faults(c, out);
	} else {
		refuse(out, MR_E_INVALID,
		       "poke CHIP ADDRESS VALUE, damage LIST, fault LIST, faults, sense MK:MW, "
		       "ecc N:N, or assert");
	}
}

/* A line of @fd, without its newline: 0, or 1 where none comes in time. */
static int read_line(int fd, char *line)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	size_t n = 0;

	while (n < LPU_CONTROL_LINE - 1 && poll(&p, 1, LINE_MS) == 1) {
		if (read(fd, line + n, 1) != 1)
			return 1;
		if (line[n] == '\n') {
			line[n] = 0;
			return 0;
		}
		n++;
	}
	return 1;
}

static void *serve(void *arg)
{
	struct lpu_control *c = arg;
	char line[LPU_CONTROL_LINE], out[LPU_CONTROL_LINE];
	int fd;

	while ((fd = mr_vfio_user_accept(c->listener, c->stop_fd)) >= 0) {
		if (!read_line(fd, line)) {
			act(c, line, out);
			size_t n = strlen(out);
			out[n] = '\n';
			if (send(fd, out, n + 1, MSG_NOSIGNAL) < 0)
				fprintf(stderr, "millrace: lpu control: %s\n", strerror(errno));
		}
		close(fd);
	}
	return NULL;
}

int lpu_control_start(const char *path, const struct mr_lpu_port *port, int stop_fd,
		      struct lpu_control **control)
{
	struct lpu_control *c = calloc(1, sizeof(*c));
	int status = MR_E_NO_MEMORY;

	*control = NULL;
	if (!c)
		return status;
	c->port = *port;
	c->stop_fd = stop_fd;
	c->path = strdup(path);
	c->listener = c->path ? mr_vfio_user_listen(path) : MR_E_NO_MEMORY;
	if (c->listener >= 0 && !pthread_create(&c->thread, NULL, serve, c)) {
		*control = c;
		return 0;
	}
	if (c->listener >= 0) {
		close(c->listener);
		unlink(path);
	} else {
		status = c->listener;
	}
	free(c->path);
	free(c);
	return status;
}

void lpu_control_stop(struct lpu_control *c)
{
	if (!c)
		return;
	pthread_join(c->thread, NULL);
	close(c->listener);
	unlink(c->path);
	free(c->path);
	free(c);
}

int lpu_control_ask(const char *path, const char *line, char answer[LPU_CONTROL_LINE])
{
	const struct timeval limit = {.tv_sec = ASK_S};
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = -1, status = MR_E_NOT_FOUND;
	size_t n = 0;
	ssize_t got = 0;

	if (strlen(path) >= sizeof(a.sun_path))
		return MR_E_INVALID;
	memcpy(a.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return MR_E_IO;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (!connect(fd, (const struct sockaddr *)&a, sizeof(a))) {
		char text[LPU_CONTROL_LINE];
		int bytes = snprintf(text, sizeof(text), "%s\n", line);
		status = bytes < (int)sizeof(text) &&
					 send(fd, text, (size_t)bytes, MSG_NOSIGNAL) == bytes
				 ? MR_E_TIMEOUT
				 : MR_E_DISCONNECTED;
		while (status == MR_E_TIMEOUT && n < LPU_CONTROL_LINE - 1 &&
		       (got = recv(fd, answer + n, LPU_CONTROL_LINE - 1 - n, 0)) > 0) {
			n += (size_t)got;
			if (answer[n - 1] == '\n') {
				answer[n - 1] = 0;
				status = 0;
			}
		}
		if (status == MR_E_TIMEOUT && !got)
			status = MR_E_DISCONNECTED;
	}
	close(fd);
	return status;
}
