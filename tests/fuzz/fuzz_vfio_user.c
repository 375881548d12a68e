// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the vfio-user server with what a client could send. Input: a byte whose lowest bit asks for a sound VERSION
 * first; then messages, each after a byte that says what descriptors come with it (a nibble each for two: nothing,
 * a sealed memfd, one that can be cut short, an eventfd, a pipe, a memfd of huge offset). After each input the server
 * must have let go of every descriptor, and the device must follow CONTROL.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <millrace/lpu_spec.h>

#include "firmware-sim/sim.h"
#include "firmware-sim/vfio_user.h"
#include "userlib/spec/vfio_user.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mr_lpu_port port;
static struct mr_vfio_user *server;

struct stream {
	const uint8_t *at, *end;
	int greet;                /* a sound VERSION comes first */
	struct mr_vu_header head; /* of the command that is to be answered */
};

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_vfio_user: %s\n", what);
	abort();
}

static int make_fd(unsigned kind)
{
	int fds[2], fd;

	switch (kind) {
	case 1:
	case 2:
	case 5:
		fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		check(fd >= 0 && !ftruncate(fd, kind == 5 ? 1ll << 40 : 65536), "memfd");
		if (kind != 2)
			fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
		return fd;
	case 3:
		return eventfd(0, EFD_CLOEXEC);
	case 4:
		check(!pipe2(fds, O_CLOEXEC), "pipe");
		close(fds[0]);
		return fds[1];
	default:
		return -1;
	}
}

static int take(struct stream *s, void *to, size_t bytes)
{
	if ((size_t)(s->end - s->at) < bytes)
		return MR_E_DISCONNECTED;
	memcpy(to, s->at, bytes);
	s->at += bytes;
	return 0;
}

static int receive(void *ctx, void *to, size_t bytes, int *fds, uint32_t max, uint32_t *count)
{
	static const struct {
		struct mr_vu_header head;
		struct mr_vu_version version;
	} hello = {{1, MR_VU_VERSION, sizeof(hello), 0, 0}, {MR_VU_MAJOR, MR_VU_MINOR}};
	struct stream *s = ctx;
	uint8_t kinds;

	if (s->greet && max) {
		memcpy(to, &hello, bytes);
		s->head = hello.head;
		return 0;
	}
	if (s->greet) {
		s->greet = 0;
		memcpy(to, &hello.version, bytes);
		return 0;
	}
	if (!max)
		return take(s, to, bytes);
	if (take(s, &kinds, 1) || take(s, to, bytes))
		return MR_E_DISCONNECTED;
	memcpy(&s->head, to, sizeof(s->head));
	for (int i = 0; i < 2; i++) {
		int fd = make_fd(i ? kinds >> 4 : kinds & 15);
		if (fd >= 0)
			fds[(*count)++] = fd;
	}
	return 0;
}

static int send_reply(void *ctx, const void *from, size_t bytes, int fd)
{
	struct stream *s = ctx;
	struct mr_vu_header head;

	memcpy(&head, from, sizeof(head));
	check(bytes >= sizeof(head) && head.bytes == bytes, "a reply of another size than it says");
	check(head.id == s->head.id && head.command == s->head.command, "a reply to nothing");
	check((head.flags & MR_VU_FLAG_TYPE) == MR_VU_FLAG_REPLY, "a reply that is none");
	check(!(head.flags & MR_VU_FLAG_ERROR) == !head.error, "an error without a name");
	check(!(s->head.flags & MR_VU_FLAG_NO_REPLY), "a reply that nobody wanted");
	return 0;
}

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	closedir(d);
	return n;
}

static void control(uint32_t value)
{
	const struct timespec nap = {.tv_nsec = 5000};

	port.ops->reg_write(port.ctx, MR_LPU_REG_CONTROL, value);
	for (int i = 0; port.ops->reg_read(port.ctx, MR_LPU_REG_STATUS) != value; i++) {
		check(i < 1000000, "the device does not follow CONTROL");
		nanosleep(&nap, NULL);
	}
}

static void power_on(void)
{
	const struct mr_sim_options sim = {.chip_path = "tiny", .slots = 8};
	struct mr_vfio_user_options o = {.port = &port};

	check(!mr_sim_create(&sim, &port), "power on");
	o.doorbell_fd = mr_sim_doorbell_fd(&port, &o.doorbell_bytes);
	check(!mr_vfio_user_create(&o, &server), "server");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream s = {data + 1, data + size, size ? data[0] & 1 : 0, {0}};
	const struct mr_vfio_user_transport t = {receive, send_reply, &s};
	int before;

	if (!size)
		return 0;
	if (!server)
		power_on();
	before = open_files();
	mr_vfio_user_serve(server, &t);
	check(open_files() == before, "descriptors are left");
	control(0);
	return 0;
}
