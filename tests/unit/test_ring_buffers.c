/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registered buffers: prompts out of a client's own memfd, each reason for which one is refused, holes punched
 * into one that is in use, and that unregistering and a client's death give everything back.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "tests/unit/ring_world.h"

#define SECOND 1000000000ll
#define BYTES  65536u
#define NEEDED (MR_FEATURE_BUFFERS | MR_FEATURE_SCORE | MR_FEATURE_KEEP)

static struct world w;
static struct mr_ring *ring;

static struct mr_ring *join(uint64_t features)
{
	struct mr_ring_options options = {.path = w.path, .required = features};
	struct mr_ring *made = NULL;

	assert_int_equal(mr_ring_connect(&options, &made), 0);
	return made;
}

static int set_up(void **state)
{
	if (world_make(&w, 16))
		return -1;
	world_run(&w);
	ring = join(NEEDED);
	/* By then the server has closed what it sent. */
	return world_settle(&w.clients, 1) == 1 ? 0 : -1;
}

static int tear_down(void **state)
{
	mr_ring_disconnect(ring);
	if (world_settle(&w.clients, 0) || world_settle(&w.active, 0))
		return -1;
	world_end(&w);
	return 0;
}

static struct mr_cqe next(struct mr_ring *of)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(of, 5 * SECOND), 0);
	assert_int_equal(mr_ring_poll(of, &cqe), 1);
	return cqe;
}

static int memory(unsigned flags, int seals)
{
	int fd = memfd_create("test-buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING | flags);

	if (fd >= 0 && ftruncate(fd, BYTES))
		assert_int_equal(flags != 0, 1);
	if (fd >= 0 && seals)
		assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Mappings of test-buffer in this process, which the server is in too. */
static int mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int count = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		count += strstr(line, "memfd:test-buffer") != NULL;
	fclose(f);
	return count;
}

static int descriptors(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* SUBMIT of @count ids at @offset of buffer @buffer; the answer's CQEs are checked against @last. */
static struct mr_cqe submit(uint64_t buffer, uint64_t offset, uint32_t count, uint32_t last)
{
	const struct mr_sqe sqe = {.op = MR_OP_SUBMIT,
				   .flags = MR_SUBMIT_TOKENS | MR_SUBMIT_IGNORE_EOS,
				   .key = 1,
				   .data_offset = offset,
				   .data_bytes = count * 4,
				   .buffer = buffer};
	struct mr_cqe cqe;
	uint32_t tokens = 0;

	assert_int_equal(mr_ring_push(ring, &sqe), 0);
	for (;;) {
		cqe = next(ring);
		if (cqe.type != MR_CQE_TOKEN)
			return cqe;
		assert_int_equal(cqe.token, last + ++tokens);
	}
}

static void test_use(void **state)
{
	uint64_t before = mr_metric_read(MR_M_copy_prompt_ring);
	int fd = memory(0, F_SEAL_SHRINK), fds;
	struct mr_cqe cqe;
	uint32_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	assert_true(p != MAP_FAILED);
	for (uint32_t i = 0; i < BYTES / 4; i++)
		p[i] = 100 + i % 50;
	fds = descriptors();
	assert_int_equal(mappings(), 1);
	for (uint32_t number = 1; number <= MR_BUFFERS_MAX; number++)
		assert_int_equal(mr_ring_register(ring, number, fd), 0);
	assert_int_equal(descriptors(), fds); /* the server keeps none */
	assert_int_equal(mappings(), 1 + (int)MR_BUFFERS_MAX);
	close(fd);
	cqe = submit(2, 8, 5, 106);
	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.index, MR_MAX_TOKENS);
	assert_int_equal(mr_metric_read(MR_M_copy_prompt_ring) - before, 20); /* once, counted */
	/* To its last byte and not beyond. */
	assert_int_equal(submit(1, BYTES - 8, 2, p[BYTES / 4 - 1]).type, MR_CQE_DONE);
	cqe = submit(1, BYTES - 4, 2, 0);
	assert_int_equal(cqe.status, MR_E_RANGE);
	assert_int_equal(cqe.token, offsetof(struct mr_sqe, data_offset));
	cqe = submit(1, UINT64_MAX - 7, 2, 0);
	assert_int_equal(cqe.status, MR_E_RANGE);
	/* Holes read zeros, whoever is in the middle of what. */
	assert_int_equal(madvise(p, BYTES, MADV_REMOVE), 0);
	assert_int_equal(submit(3, 4096, 4, 0).type, MR_CQE_DONE);
	/* Given up: the number names nothing, and may be used anew. */
	assert_int_equal(mr_ring_unregister(ring, 3), 0);
	assert_int_equal(mr_ring_unregister(ring, 3), MR_E_NOT_FOUND);
	assert_int_equal(mappings(), 4);
	cqe = submit(3, 0, 1, 0);
	assert_int_equal(cqe.status, MR_E_NOT_FOUND);
	assert_int_equal(cqe.token, offsetof(struct mr_sqe, buffer));
	fd = memory(0, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
	assert_int_equal(mr_ring_register(ring, 3, fd), 0);
	close(fd);
	assert_int_equal(submit(3, 0, 2, 0).type, MR_CQE_DONE);
	munmap(p, BYTES);
	/* The client goes with four of them. */
	mr_ring_disconnect(ring);
	assert_int_equal(world_settle(&w.clients, 0), 0);
	assert_int_equal(mappings(), 0);
	ring = join(NEEDED);
}

static void refused(uint32_t number, int fd, int status)
{
	uint64_t before = mr_metric_read(MR_M_ring_bad_buffer);

	assert_int_equal(mr_ring_register(ring, number, fd), status);
	assert_int_equal(mr_metric_read(MR_M_ring_bad_buffer), before + 1);
	if (fd > 2)
		close(fd);
	/* The client is served as before. */
	assert_int_equal(mr_ring_nop(ring, 9), 0);
	assert_int_equal(next(ring).type, MR_CQE_DONE);
}

static void test_refused(void **state)
{
	int fds = descriptors(), fd, pair[2];
	struct mr_ring *plain;

	refused(1, memory(0, 0), MR_E_PERMISSION);
	refused(1, memory(0, F_SEAL_GROW | F_SEAL_WRITE), MR_E_PERMISSION);
	refused(0, memory(0, F_SEAL_SHRINK), MR_E_RANGE);
	refused(MR_BUFFERS_MAX + 1, memory(0, F_SEAL_SHRINK), MR_E_RANGE);
	refused(UINT32_MAX, memory(0, F_SEAL_SHRINK), MR_E_RANGE);
	fd = memory(0, 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	refused(1, fd, MR_E_RANGE);
	fd = memory(0, 0);
	assert_int_equal(ftruncate(fd, (off_t)MR_BUFFER_BYTES_MAX + 1), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	refused(1, fd, MR_E_RANGE);
	refused(1, open("/proc/self/exe", O_RDONLY | O_CLOEXEC), MR_E_FORMAT);
	assert_int_equal(pipe2(pair, O_CLOEXEC), 0);
	refused(1, pair[0], MR_E_FORMAT);
	close(pair[1]);
	fd = memory(MFD_HUGETLB, 0);
	if (fd >= 0) {
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
		refused(1, fd, MR_E_NOT_SUPPORTED);
	}
	assert_int_equal(mr_ring_register(ring, 1, -1), MR_E_INVALID);
	fd = memory(0, F_SEAL_SHRINK);
	assert_int_equal(mr_ring_register(ring, 1, fd), 0);
	refused(1, fd, MR_E_EXISTS);
	assert_int_equal(mr_ring_unregister(ring, 1), 0);
	assert_int_equal(mr_ring_unregister(ring, MR_BUFFERS_MAX + 1), MR_E_RANGE);
	assert_int_equal(descriptors(), fds);
	assert_int_equal(mappings(), 0);
	plain = join(0);
	assert_int_equal(mr_ring_register(plain, 1, 0), MR_E_NOT_SUPPORTED);
	mr_ring_disconnect(plain);
}

/* The server's answer, into *@m. */
static void answered(int socket, struct mr_register *m, int status)
{
	struct pollfd ready = {.fd = socket, .events = POLLIN};

	mr_ring_kick(ring);
	assert_int_equal(poll(&ready, 1, 5000), 1);
	assert_int_equal(recv(socket, m, sizeof(*m), 0), sizeof(*m));
	assert_int_equal(m->status, status);
}

/* Messages that no client in its senses sends. */
static void test_messages(void **state)
{
	static const struct mr_register good = {
		.magic = MR_REGISTER_MAGIC, .version = 1, .op = MR_REGISTER_ADD, .buffer = 1};
	static const int wants[] = {MR_E_PROTOCOL, MR_E_PROTOCOL,      MR_E_VERSION, MR_E_INVALID,
				    MR_E_INVALID,  MR_E_NOT_SUPPORTED, MR_E_INVALID, MR_E_PROTOCOL};
	int fds = descriptors(), s = ring->own->socket;
	struct mr_register m;

	for (unsigned i = 0; i < 8; i++) {
		m = good;
		m.magic += i == 1;
		m.version += i == 2;
		m.status = i == 3;
		m.bytes = i == 4;
		m.op += i == 5 ? 2 : 0;
		m.reserved[3] = i == 6;
		/* The last has all but a descriptor, the first is short. */
		assert_true(send(s, &m, i ? sizeof(m) : 20, MSG_NOSIGNAL) > 0);
		answered(s, &m, wants[i]);
	}
	/* More descriptors than are wanted are closed. */
	for (int i = 0; i < 3; i++) {
		union {
			struct cmsghdr header;
			char space[CMSG_SPACE(sizeof(int) * 4)];
		} control = {0};
		struct iovec part = {.iov_base = &m, .iov_len = sizeof(m)};
		struct msghdr message = {.msg_iov = &part,
					 .msg_iovlen = 1,
					 .msg_control = &control,
					 .msg_controllen = sizeof(control)};

		m = good;
		m.buffer = 0;
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * 4);
		for (int j = 0; j < 4; j++)
			((int *)CMSG_DATA(&control.header))[j] = s;
		assert_int_equal(sendmsg(s, &message, 0), sizeof(m));
		answered(s, &m, MR_E_RANGE);
	}
	assert_int_equal(descriptors(), fds);
	/* One that never reads its answers is hung up on. */
	m = good;
	for (int i = 0; i < 20000 && __atomic_load_n(&w.clients, __ATOMIC_ACQUIRE); i++)
		if (send(s, &m, sizeof(m), MSG_NOSIGNAL) < 0)
			usleep(500);
	assert_int_equal(world_settle(&w.clients, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_use), TEST(test_refused), TEST(test_messages)};

	return cmocka_run_group_tests_name("ring_buffers", tests, NULL, NULL);
}
