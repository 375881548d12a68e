// SPDX-License-Identifier: Apache-2.0
/* The vfio-user server against a raw client that does right and wrong. */
#include <errno.h>
#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <millrace/lpu_spec.h>

#include "support/vfio_user_rig.h"

static struct vu_rig rig;
static int fd;

static int setup(void **state)
{
	vu_rig_start(&rig, 0);
	fd = vu_raw_connect(&rig, 1);
	return 0;
}

static int teardown(void **state)
{
	close(fd);
	vu_rig_stop(&rig);
	return 0;
}

static int read_at(uint32_t region, uint64_t at, void *to, uint32_t bytes)
{
	const struct mr_vu_access a = {at, region, bytes};
	uint8_t out[sizeof(a) + 4096];
	int error = vu_raw_do(fd, MR_VU_REGION_READ, &a, sizeof(a), out, sizeof(out));

	if (!error) {
		assert_memory_equal(out, &a, sizeof(a));
		memcpy(to, out + sizeof(a), bytes);
	}
	return error;
}

static int write_at(uint32_t region, uint64_t at, const void *from, uint32_t bytes)
{
	struct {
		struct mr_vu_access a;
		uint8_t data[64];
	} m = {{at, region, bytes}, {0}};
	struct mr_vu_access out;

	memcpy(m.data, from, bytes);
	return vu_raw_do(fd, MR_VU_REGION_WRITE, &m, (uint32_t)sizeof(m.a) + bytes, &out,
			 sizeof(out));
}

static uint32_t reg(uint32_t offset)
{
	uint32_t value;

	assert_int_equal(read_at(MR_VU_BAR0, offset, &value, sizeof(value)), 0);
	return value;
}

static void put(uint32_t offset, uint32_t value)
{
	assert_int_equal(write_at(MR_VU_BAR0, offset, &value, sizeof(value)), 0);
}

/* 1 = the server has closed the connection. */
static int closed(int socket)
{
	struct pollfd p = {.fd = socket, .events = POLLIN};
	char c;

	return poll(&p, 1, 10000) == 1 && recv(socket, &c, 1, MSG_DONTWAIT) <= 0;
}

static int open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int map(uint64_t iova, uint64_t size, uint64_t offset, uint32_t flags, int file)
{
	const struct mr_vu_dma_map c = {sizeof(c), flags, offset, iova, size};

	vu_raw_send(fd, MR_VU_DMA_MAP, 0, &c, sizeof(c), &file, file >= 0);
	return vu_raw_reply(fd, MR_VU_DMA_MAP, NULL, 0, NULL, NULL);
}

static int unmap(uint64_t iova, uint64_t size, uint32_t flags)
{
	const struct mr_vu_dma_unmap c = {sizeof(c), flags, iova, size};
	struct mr_vu_dma_unmap out;
	int error = vu_raw_do(fd, MR_VU_DMA_UNMAP, &c, sizeof(c), &out, sizeof(out));

	if (!error)
		assert_memory_equal(&c, &out, sizeof(c));
	return error;
}

static int irqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count, const int *fds,
		uint32_t fd_count)
{
	const struct mr_vu_irq_set c = {sizeof(c), flags, index, start, count};

	vu_raw_send(fd, MR_VU_DEVICE_SET_IRQS, 0, &c, sizeof(c), fds, fd_count);
	return vu_raw_reply(fd, MR_VU_DEVICE_SET_IRQS, NULL, 0, NULL, NULL);
}

static void the_version_comes_first_and_must_fit(void **state)
{
	static const struct {
		uint16_t major, minor;
		const char *json;
		int error; /* and then the connection ends */
	} cases[] = {
		{0, 0, "", 0},
		{0, 9, "{}", 0},
		{0, 1, "{\"capabilities\":{\"max_msg_fds\":1,\"migration\":{\"pgsize\":4096}}}", 0},
		{1, 0, "{}", ENOTSUP},
		{0, 1, "{", EINVAL},
		{0, 1, "[1]", EINVAL},
		{0, 1, "{\"capabilities\":7}", EINVAL},
		{0, 1, "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]", EINVAL},
	};
	uint8_t in[256], out[512];
	struct mr_vu_version v;
	uint32_t bytes;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		close(fd);
		fd = vu_raw_connect(&rig, 0);
		v = (struct mr_vu_version){cases[i].major, cases[i].minor};
		memcpy(in, &v, sizeof(v));
		memcpy(in + sizeof(v), cases[i].json, strlen(cases[i].json) + 1);
		bytes = cases[i].json[0] ? (uint32_t)strlen(cases[i].json) + 1 : 0;
		vu_raw_send(fd, MR_VU_VERSION, 0, in, (uint32_t)sizeof(v) + bytes, NULL, 0);
		assert_int_equal(vu_raw_reply(fd, MR_VU_VERSION, out, sizeof(out), &bytes, NULL),
				 cases[i].error);
		if (cases[i].error) {
			assert_true(closed(fd));
			continue;
		}
		memcpy(&v, out, sizeof(v));
		assert_int_equal(v.major, 0);
		assert_true(v.minor <= cases[i].minor && v.minor <= MR_VU_MINOR);
		assert_int_equal(out[bytes - 1], 0);
		assert_non_null(strstr((char *)out + sizeof(v), MR_VU_CAP_XFER));
		/* Nothing that the client did not name. */
		assert_null(strstr((char *)out + sizeof(v), MR_VU_CAP_MULTI));
		assert_null(strstr((char *)out + sizeof(v), "migration"));
		/* Once. */
		vu_raw_send(fd, MR_VU_VERSION, 0, in, sizeof(v), NULL, 0);
		assert_int_equal(vu_raw_reply(fd, MR_VU_VERSION, out, sizeof(out), NULL, NULL),
				 EINVAL);
	}
	close(fd);
	fd = vu_raw_connect(&rig, 0); /* no version at all */
	vu_raw_send(fd, MR_VU_DEVICE_RESET, 0, NULL, 0, NULL, 0);
	assert_true(closed(fd));
}

static void a_header_that_cannot_be_ends_the_connection(void **state)
{
	const struct mr_vu_header bad[] = {
		{1, MR_VU_DEVICE_GET_INFO, 15, 0, 0},
		{1, MR_VU_DEVICE_GET_INFO, 0xffffffff, 0, 0},
		{1, MR_VU_DEVICE_GET_INFO, 16, MR_VU_FLAG_REPLY, 0},
		{1, MR_VU_DEVICE_GET_INFO, 16, 0x80, 0},
	};
	struct mr_vfio_user_stats stats;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(send(fd, &bad[i], sizeof(bad[i]), 0), sizeof(bad[i]));
		assert_true(closed(fd));
		close(fd);
		fd = vu_raw_connect(&rig, 1);
	}
	mr_vfio_user_stats(rig.server, &stats);
	assert_int_equal(stats.broken, sizeof(bad) / sizeof(bad[0]));
	send(fd, &bad[0], 7, 0); /* cut short */
}

static void it_is_a_pci_function(void **state)
{
	static const uint64_t sizes[MR_VU_REGIONS] = {4096, 0, 32768, 0, 4096, 0, 0, 4096, 0};
	struct mr_vu_device_info info = {.argsz = sizeof(info)};
	struct mr_vu_region_info region;
	struct mr_vu_irq_info irq;
	uint8_t config[256];
	uint32_t value, ones = ~0u;

	assert_int_equal(
		vu_raw_do(fd, MR_VU_DEVICE_GET_INFO, &info, sizeof(info), &info, sizeof(info)), 0);
	assert_int_equal(info.flags, MR_VU_DEVICE_RESETS | MR_VU_DEVICE_PCI);
	assert_int_equal(info.regions, 9);
	assert_int_equal(info.irqs, 5);
	for (uint32_t i = 0; i < MR_VU_REGIONS; i++) {
		const struct mr_vu_region_info ask = {.argsz = sizeof(ask), .index = i};
		uint32_t bytes;
		int file;
		vu_raw_send(fd, MR_VU_DEVICE_GET_REGION_INFO, 0, &ask, sizeof(ask), NULL, 0);
		assert_int_equal(vu_raw_reply(fd, MR_VU_DEVICE_GET_REGION_INFO, &region,
					      sizeof(region), &bytes, &file),
				 0);
		assert_int_equal(region.size, sizes[i]);
		assert_int_equal(file >= 0, i == MR_VU_BAR2);
		assert_int_equal(!!(region.flags & MR_VU_REGION_MMAP), i == MR_VU_BAR2);
		if (file >= 0) {
			assert_int_equal(ftruncate(file, 0), -1); /* sealed */
			close(file);
		}
	}
	for (uint32_t i = 0; i < MR_VU_IRQS; i++) {
		irq = (struct mr_vu_irq_info){.argsz = sizeof(irq), .index = i};
		assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq), &irq,
					   sizeof(irq)),
				 0);
		assert_int_equal(irq.count, i == MR_VU_MSIX ? 5 : 0);
	}
	assert_int_equal(read_at(MR_VU_CONFIG, 0, config, sizeof(config)), 0);
	assert_int_equal(config[0] | config[1] << 8, MR_SIM_PCI_VENDOR);
	assert_int_equal(config[11], 0x12);
	assert_int_equal(config[config[0x34]], MR_PCI_CAP_MSIX);
	assert_int_equal(config[config[config[0x34] + 1]], MR_PCI_CAP_EXPRESS);
	/* A BAR of all ones reads back its size; ids do not change. */
	assert_int_equal(write_at(MR_VU_CONFIG, MR_PCI_BAR0 + 8, &ones, 4), 0);
	assert_int_equal(read_at(MR_VU_CONFIG, MR_PCI_BAR0 + 8, &value, 4), 0);
	assert_int_equal(value, ~(32768u - 1) | 4);
	assert_int_equal(write_at(MR_VU_CONFIG, 0, &ones, 4), 0);
	assert_int_equal(read_at(MR_VU_CONFIG, 0, &value, 4), 0);
	assert_int_equal(value, MR_SIM_PCI_DEVICE << 16 | MR_SIM_PCI_VENDOR);
}

static void accesses_stay_inside_their_regions(void **state)
{
	static const struct mr_vu_access bad[] = {
		{2, MR_VU_BAR0, 4},
		{0, MR_VU_BAR0, 3},
		{4096, MR_VU_BAR0, 4},
		{4092, MR_VU_BAR0, 8},
		{UINT64_MAX - 3, MR_VU_BAR0, 4},
		{0, MR_VU_BAR0, 0},
		{0, MR_VU_BAR0, 0xfffffffc},
		{0, 1, 4},
		{0, MR_VU_ROM, 4},
		{0, 9, 4},
		{0, 0xffffffff, 4},
		{4096, MR_VU_CONFIG, 1},
		{32768, MR_VU_BAR2, 4},
	};
	struct mr_vu_access a = {0, MR_VU_BAR0, 4};
	uint8_t out[64];
	uint64_t two[2] = {0x1122334455667788, 0};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(
			vu_raw_do(fd, MR_VU_REGION_READ, &bad[i], sizeof(bad[i]), out, sizeof(out)),
			EINVAL);
	assert_int_equal(vu_raw_do(fd, MR_VU_REGION_READ, &a, sizeof(a) - 1, out, 64), EINVAL);
	assert_int_equal(vu_raw_do(fd, MR_VU_REGION_WRITE, &a, sizeof(a), out, 64), EINVAL);
	assert_int_equal(read_at(MR_VU_BAR2, 8, out, 4), 0); /* write-only: 0 */
	assert_memory_equal(out, "\0\0\0\0", 4);
	/* The MSI-X table is memory, the pending bits are not. */
	assert_int_equal(write_at(MR_VU_BAR4, 16, two, 16), 0);
	assert_int_equal(write_at(MR_VU_BAR4, 0x800, two, 8), 0);
	assert_int_equal(write_at(MR_VU_BAR4, 0x7fc, two, 8), 0);
	memset(two, 0xff, sizeof(two));
	assert_int_equal(read_at(MR_VU_BAR4, 16, two, 16), 0);
	assert_int_equal(two[0], 0x1122334455667788);
	assert_int_equal(read_at(MR_VU_BAR4, 0x7fc, two, 16), 0);
	assert_int_equal(two[0] | two[1], 0);
}

static void memory_is_mapped_checked_and_unmapped(void **state)
{
	const uint32_t rw = MR_VU_DMA_READABLE | MR_VU_DMA_WRITABLE;
	int good = vu_memfd(8192, 1), open_ended = vu_memfd(8192, 0), other[2];

	assert_int_equal(pipe(other), 0);
	assert_int_equal(map(0x10000, 4096, 0, rw, good), 0);
	assert_int_equal(map(0x10000, 4096, 0, rw, good), EEXIST);
	assert_int_equal(map(0xf000, 0x10000, 0, rw, -1), EEXIST);
	assert_int_equal(map(0x20000, 4096, 4096, MR_VU_DMA_READABLE, good), 0);
	assert_int_equal(map(0x30000, 8192, 4096, rw, good), EINVAL);
	assert_int_equal(map(0x30000, 4096, UINT64_MAX - 4095, rw, good), EINVAL);
	assert_int_equal(map(0x30000, 4096, 0, rw, open_ended), EPERM);
	assert_int_equal(map(0x30000, 4096, 0, rw, other[0]), EPERM);
	assert_int_equal(map(0x30800, 4096, 0, rw, good), EINVAL);
	assert_int_equal(map(0x30000, 100, 0, rw, good), EINVAL);
	assert_int_equal(map(0x30000, 0, 0, rw, good), EINVAL);
	assert_int_equal(map(0x30000, 4096, 0, 0, good), EINVAL);
	assert_int_equal(map(0x30000, 4096, 0, 4, good), EINVAL);
	assert_int_equal(map(UINT64_MAX - 4095, 8192, 0, rw, good), EINVAL);
	assert_int_equal(map(0x40000, 4096, 0, rw, -1), 0); /* noted, not for the device */
	assert_int_equal(unmap(0x10000, 8192, 0), ENOENT);
	assert_int_equal(unmap(0x10000, 4096, MR_VU_UNMAP_DIRTY), ENOTSUP);
	assert_int_equal(unmap(0x10000, 4096, 0), 0);
	assert_int_equal(unmap(0x10000, 4096, 0), ENOENT);
	assert_int_equal(unmap(1, 0, MR_VU_UNMAP_ALL), EINVAL);
	assert_int_equal(unmap(0, 0, MR_VU_UNMAP_ALL), 0);
	assert_int_equal(unmap(0x20000, 4096, 0), ENOENT);
	close(good);
	close(open_ended);
	close(other[0]);
	close(other[1]);
}

static void vectors_take_eventfds_and_nothing_else(void **state)
{
	const uint32_t assign = MR_VU_SET_DATA_EVENTFD | MR_VU_SET_TRIGGER;
	const uint32_t fire = MR_VU_SET_DATA_NONE | MR_VU_SET_TRIGGER;
	int e[2] = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)}, other[2];
	uint64_t count;

	assert_int_equal(pipe(other), 0);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 1, 2, e, 2), 0);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 1, 2, e, 1), EINVAL);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 4, 2, e, 2), EINVAL);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 0xffffffff, 2, e, 2), EINVAL);
	assert_int_equal(irqs(assign, MR_VU_INTX, 0, 1, e, 1), EINVAL);
	assert_int_equal(irqs(assign, 7, 0, 0, NULL, 0), EINVAL);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 0, 1, other, 1), EINVAL);
	assert_int_equal(irqs(MR_VU_SET_DATA_NONE | MR_VU_SET_MASK, MR_VU_MSIX, 1, 1, NULL, 0),
			 EINVAL);
	assert_int_equal(irqs(fire, MR_VU_MSIX, 2, 1, NULL, 0), 0);
	assert_int_equal(read(e[1], &count, sizeof(count)), 8);
	assert_int_equal(count, 1);
	assert_int_equal(irqs(assign, MR_VU_MSIX, 2, 1, NULL, 0), 0); /* none: taken away */
	assert_int_equal(irqs(fire, MR_VU_MSIX, 1, 2, NULL, 0), 0);
	assert_int_equal(read(e[1], &count, sizeof(count)), -1);
	assert_int_equal(read(e[0], &count, sizeof(count)), 8);
	assert_int_equal(irqs(fire, MR_VU_INTX, 0, 0, NULL, 0), 0); /* QEMU turns INTx off */
	assert_int_equal(irqs(fire, MR_VU_MSIX, 0, 0, NULL, 0), 0); /* all */
	assert_int_equal(irqs(fire, MR_VU_MSIX, 1, 1, NULL, 0), 0);
	assert_int_equal(read(e[0], &count, sizeof(count)), -1);
	close(e[0]);
	close(e[1]);
	close(other[0]);
	close(other[1]);
}

/* Enables the device with its admin rings at IOVA 0x100000. */
static void enable(void)
{
	put(MR_LPU_REG_ADMIN_ENTRIES, 4);
	put(MR_LPU_REG_ADMIN_SQ_LO, 0x100000);
	put(MR_LPU_REG_ADMIN_CQ_LO, 0x100800);
	put(MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	for (int i = 0; reg(MR_LPU_REG_STATUS) != MR_LPU_STATUS_READY; i++)
		assert_true(i < 100000);
}

static void both_resets_are_one_of_the_function(void **state)
{
	uint16_t control = MR_PCI_EXPRESS_RESET;
	uint32_t command = MR_PCI_COMMAND_MASTER;

	for (int flr = 0; flr < 2; flr++) {
		enable();
		assert_int_equal(write_at(MR_VU_CONFIG, MR_PCI_COMMAND, &command, 2), 0);
		if (flr)
			assert_int_equal(write_at(MR_VU_CONFIG, 0x78, &control, 2), 0);
		else
			assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_RESET, NULL, 0, NULL, 0), 0);
		assert_int_equal(reg(MR_LPU_REG_STATUS), 0);
		assert_int_equal(reg(MR_LPU_REG_CONTROL), 0);
		assert_int_equal(reg(MR_LPU_REG_ADMIN_SQ_LO), 0);
		assert_int_equal(read_at(MR_VU_CONFIG, MR_PCI_COMMAND, &command, 4), 0);
		assert_int_equal(command & MR_PCI_COMMAND_MASTER, 0);
		command = MR_PCI_COMMAND_MASTER;
	}
	assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_RESET, &control, 2, NULL, 0), EINVAL);
}

/* A command in shared memory, its doorbell by message, its completion and interrupt. */
static void the_device_works_through_it(void **state)
{
	const struct mr_lpu_command fence = {.head = {MR_LPU_FENCE, 0, 42}};
	int file = vu_memfd(4096, 1), e = eventfd(0, EFD_CLOEXEC);
	uint8_t *mem = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	const struct mr_lpu_completion *c = (void *)(mem + 0x800);
	struct {
		uint64_t count;
		struct mr_vu_write w[2];
	} multi = {2,
		   {{MR_LPU_DB_ARM, MR_VU_BAR2, 4, {1}}, {MR_LPU_DB_SQ_TAIL, MR_VU_BAR2, 4, {1}}}};
	struct pollfd p = {.fd = e, .events = POLLIN};
	uint64_t done;

	assert_int_equal(map(0x100000, 4096, 0, 3, file), 0);
	assert_int_equal(irqs(MR_VU_SET_DATA_EVENTFD | MR_VU_SET_TRIGGER, MR_VU_MSIX, 0, 1, &e, 1),
			 0);
	enable();
	memcpy(mem, &fence, sizeof(fence));
	assert_int_equal(vu_raw_do(fd, MR_VU_REGION_WRITE_MULTI, &multi, sizeof(multi), &done, 8),
			 0);
	assert_int_equal(done, 2);
	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(c->request, 42);
	assert_int_equal(c->status, -MR_E_NOT_SUPPORTED); /* FENCE is not for the admin queue */
	multi.w[1].count = 9;
	assert_int_equal(vu_raw_do(fd, MR_VU_REGION_WRITE_MULTI, &multi, sizeof(multi), &done, 8),
			 EINVAL);
	multi.count = UINT64_MAX;
	assert_int_equal(vu_raw_do(fd, MR_VU_REGION_WRITE_MULTI, &multi, sizeof(multi), &done, 8),
			 EINVAL);
	munmap(mem, 4096);
	close(file);
	close(e);
}

static void what_is_not_built_is_refused_and_no_reply_is_none(void **state)
{
	static const uint16_t none[] = {MR_VU_DEVICE_GET_REGION_IO_FDS,
					MR_VU_DMA_READ,
					MR_VU_DMA_WRITE,
					14,
					MR_VU_DEVICE_FEATURE,
					MR_VU_MIG_DATA_READ,
					MR_VU_MIG_DATA_WRITE,
					0,
					999};
	struct mr_vu_device_info info = {.argsz = sizeof(info)};
	uint8_t out[64];

	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_int_equal(vu_raw_do(fd, none[i], &info, sizeof(info), out, sizeof(out)),
				 ENOTSUP);
	vu_raw_send(fd, MR_VU_DEVICE_RESET, MR_VU_FLAG_NO_REPLY, NULL, 0, NULL, 0);
	vu_raw_send(fd, 999, MR_VU_FLAG_NO_REPLY, NULL, 0, NULL, 0);
	assert_int_equal(
		vu_raw_do(fd, MR_VU_DEVICE_GET_INFO, &info, sizeof(info), out, sizeof(out)), 0);
	info.argsz = 3;
	assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_GET_INFO, &info, sizeof(info), out, 64),
			 EINVAL);
	assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_GET_INFO, &info, 3, out, 64), EINVAL);
	assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_GET_REGION_INFO, &info, 16, out, 64), EINVAL);
	assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_GET_IRQ_INFO, &info, 16, out, 64), EINVAL);
}

/* After a client has left, by its will or not, nothing of it is there. */
static void a_client_leaves_nothing(void **state)
{
	int file = vu_memfd(8192, 1), e = eventfd(0, EFD_CLOEXEC), many[20], before;

	for (int i = 0; i < 20; i++)
		many[i] = file;
	before = open_files();
	for (int round = 0; round < 3; round++) {
		assert_int_equal(map(0x100000, 4096, 0, 3, file), 0);
		assert_int_equal(map(0x200000, 4096, 4096, 3, file), 0);
		assert_int_equal(
			irqs(MR_VU_SET_DATA_EVENTFD | MR_VU_SET_TRIGGER, MR_VU_MSIX, 0, 1, &e, 1),
			0);
		/* Descriptors where none belong, and more than there is room for. */
		vu_raw_send(fd, MR_VU_DEVICE_RESET, 0, NULL, 0, many, 20);
		assert_int_equal(vu_raw_reply(fd, MR_VU_DEVICE_RESET, NULL, 0, NULL, NULL), 0);
		enable();
		close(fd);
		fd = vu_raw_connect(&rig, 1); /* accepted once the last one was cleaned up */
		assert_int_equal(reg(MR_LPU_REG_STATUS), MR_LPU_STATUS_READY); /* state is kept */
		assert_int_equal(unmap(0x100000, 4096, 0), ENOENT);
		assert_int_equal(vu_raw_do(fd, MR_VU_DEVICE_RESET, NULL, 0, NULL, 0), 0);
		assert_int_equal(open_files(), before);
	}
	close(file);
	close(e);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(the_version_comes_first_and_must_fit),
		TEST(a_header_that_cannot_be_ends_the_connection),
		TEST(it_is_a_pci_function),
		TEST(accesses_stay_inside_their_regions),
		TEST(memory_is_mapped_checked_and_unmapped),
		TEST(vectors_take_eventfds_and_nothing_else),
		TEST(both_resets_are_one_of_the_function),
		TEST(the_device_works_through_it),
		TEST(what_is_not_built_is_refused_and_no_reply_is_none),
		TEST(a_client_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
