// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the vfio-user bus with a server that answers as the input says. Each reply of an honest server is changed
 * by one byte of the input and, for some, more: 0-127 as it is, then: bytes changed, cut, lengthened, another
 * message in its place or before it, the connection closed, no reply. Whatever comes, every call must end, with a
 * status that has a name, and nothing must be left.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/bus/vfio_user.h"
#include "driver/mem/arena.h"
#include "firmware-sim/sim.h"
#include "firmware-sim/vfio_user.h"
#include "userlib/spec/vfio_user.h"

#define TIMEOUT_MS 20

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mr_lpu_port port;
static struct mr_vfio_user *server;
static struct mr_arena *arena;
static const struct mr_region *region;
static char path[64];
static int listener, stop_fd;
static struct mr_vfio_user_socket sock;
static struct mr_vfio_user_transport honest;
static struct {
	const uint8_t *at, *end;
} input; /* the server thread's, between two joins */

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_vfio_user_client: %s\n", what);
	abort();
}

static uint32_t next(unsigned bytes)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < bytes && input.at < input.end; i++)
		v |= (uint32_t)*input.at++ << 8 * i;
	return v;
}

static int receive(void *ctx, void *to, size_t bytes, int *fds, uint32_t max, uint32_t *count)
{
	return honest.receive(honest.ctx, to, bytes, fds, max, count);
}

/* A message made of the input. */
static int other(void)
{
	uint8_t m[16 + 255];
	uint32_t bytes = 16 + next(1);

	for (uint32_t i = 0; i < bytes; i++)
		m[i] = (uint8_t)next(1);
	if (next(1) & 1)
		memcpy(m + 4, &bytes, sizeof(bytes));
	return honest.send(honest.ctx, m, bytes, -1);
}

static int spoil(void *ctx, const void *from, size_t bytes, int fd)
{
	uint32_t op = next(1), n;
	uint8_t *m;
	int status;

	if (op < 128)
		return honest.send(honest.ctx, from, bytes, fd);
	m = calloc(1, bytes + 256);
	memcpy(m, from, bytes);
	switch (op % 8) {
	case 0:
	case 1: /* bytes changed */
	case 2:
		for (n = op % 8 + 1; n; n--) {
			uint32_t at = next(1) % (uint32_t)bytes;
			m[at] ^= (uint8_t)next(1);
		}
		break;
	case 3: /* cut or lengthened, and says so */
		n = next(1);
		bytes = n < 128 || bytes < 16 ? bytes + n % 128
					      : 16 + (bytes - 16) * (n - 128) / 128;
		n = (uint32_t)bytes;
		memcpy(m + 4, &n, sizeof(n));
		break;
	case 4: /* in its place */
		free(m);
		return other();
	case 5: /* before it */
		other();
		break;
	case 6:
		free(m);
		return MR_E_DISCONNECTED;
	case 7: /* none */
		free(m);
		return 0;
	}
	status = honest.send(honest.ctx, m, bytes, next(1) & 1 ? -1 : fd);
	free(m);
	return status;
}

static void *serve(void *arg)
{
	const struct mr_vfio_user_transport t = {receive, spoil, NULL};
	int fd;

	while ((fd = mr_vfio_user_accept(listener, stop_fd)) >= 0) {
		sock = (struct mr_vfio_user_socket){fd, stop_fd};
		honest = mr_vfio_user_socket_transport(&sock);
		mr_vfio_user_serve(server, &t);
		close(fd);
	}
	return NULL;
}

static void set_up(void)
{
	const struct mr_sim_options sim = {.chip_path = "tiny", .slots = 8};
	const struct mr_arena_options a = {.node = -1, .no_huge = 1, .shareable = 1};
	struct mr_vfio_user_options o = {.port = &port};

	check(!mr_sim_create(&sim, &port), "power on");
	o.doorbell_fd = mr_sim_doorbell_fd(&port, &o.doorbell_bytes);
	check(!mr_vfio_user_create(&o, &server), "server");
	check(!mr_arena_create(&a, &arena), "arena");
	check(!mr_arena_region(arena, MR_REGION_RECORDS, 8192, &region), "region");
	snprintf(path, sizeof(path), "/tmp/mr-fuzz-%d.s", getpid());
	unlink(path);
}

static void named(int status)
{
	check(status <= 0 && status >= MR_E_INTERNAL, "a status without a name");
}

static void drive(struct mr_bus *bus)
{
	for (int round = 0; round < 2; round++) {
		int fd = bus->ops->irq_fd(bus, 1);
		check(fd >= 0 || fd >= MR_E_INTERNAL, "irq_fd");
		named(bus->ops->dma_map(bus, region->iova, region->base, region->bytes, 3));
		bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_ENTRIES, 8);
		bus->ops->reg_read(bus, MR_LPU_REG_HEARTBEAT);
		bus->ops->doorbell(bus, 0, MR_LPU_DB_ARM, 1);
		bus->ops->doorbell(bus, 7, MR_LPU_DB_SQ_TAIL, 1);
		if (bus->lost) {
			named(bus->lost);
			check(bus->ops->reg_read(bus, 0) == ~0u, "a lost bus answers");
		}
		if (round)
			named(bus->ops->dma_unmap(bus, region->iova));
		named(bus->ops->reset(bus)); /* a new connection, where this one was lost */
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char why[128];
	struct mr_vfio_user_bus_options o = {
		.path = path, .timeout_ms = TIMEOUT_MS, .why = why, .why_bytes = sizeof(why)};
	const uint64_t one = 1;
	pthread_t thread;
	struct mr_bus *bus;
	int status;

	if (!server)
		set_up();
	input.at = data;
	input.end = data + size;
	stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	listener = mr_vfio_user_listen(path);
	check(listener >= 0 && !pthread_create(&thread, NULL, serve, NULL), "listen");
	status = mr_bus_vfio_user_open(&o, &bus);
	named(status);
	if (!status) {
		drive(bus);
		bus->ops->close(bus);
	} else {
		check(why[0] != 0, "no reason given");
	}
	check(write(stop_fd, &one, sizeof(one)) == sizeof(one), "stop");
	pthread_join(thread, NULL);
	close(listener);
	close(stop_fd);
	unlink(path);
	return 0;
}
