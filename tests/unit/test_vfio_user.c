// SPDX-License-Identifier: Apache-2.0
/* The vfio-user bus: a whole LPU behind it, a server that goes and comes back, servers that lie or stop. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/bus/vfio_user.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/pages.h"
#include "driver/model/model.h"
#include "support/lpu_rig.h"
#include "support/vfio_user_rig.h"

#define TOKENS 24u

static struct vu_rig rig;
static struct mr_arena *arena;
static struct mr_model *model;

static int setup(void **state)
{
	const struct mr_arena_options o = {.node = -1, .no_huge = 1, .shareable = 1};

	vu_rig_start(&rig, 0);
	assert_int_equal(mr_arena_create(&o, &arena), 0);
	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0), 0);
	return 0;
}

static int teardown(void **state)
{
	vu_rig_stop(&rig);
	mr_arena_destroy(arena);
	mr_model_close(model);
	return 0;
}

static int open_bus(struct mr_bus **bus, char *why, size_t why_bytes)
{
	const struct mr_vfio_user_bus_options o = {
		.path = rig.path, .timeout_ms = 2000, .why = why, .why_bytes = why_bytes};

	return mr_bus_vfio_user_open(&o, bus);
}

static int lost(const struct mr_bus *bus)
{
	return __atomic_load_n(&bus->lost, __ATOMIC_RELAXED);
}

/* What the server's thread finds in rig.arg from its next reply on. */
static void say(const void *arg)
{
	__atomic_store_n(&rig.arg, (void *)(uintptr_t)arg, __ATOMIC_RELEASE);
}

static struct mr_device *open_lpu(void)
{
	struct mr_lpu_options o = {.arena = arena, .context = 128};
	struct mr_device *dev;
	char why[256];

	if (open_bus(&o.bus, why, sizeof(why)))
		fail_msg("%s", why);
	assert_int_equal(mr_lpu_open(&o, &dev), 0);
	return dev;
}

/* TOKENS tokens after token 7 at position 0, by @steps, on a slot of their own; sleeping in between. */
static void generate(struct mr_device *dev, uint32_t steps, uint32_t *ids)
{
	struct mr_slot slot = lpu_rig_slot(dev, TOKENS + 1);
	struct mr_event events[TOKENS + 1];
	uint32_t token = 7;

	for (uint32_t done = 0; done < TOKENS; done += steps) {
		struct mr_decode_entry e = {slot, done, token, NULL, 0, 0};
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
		uint32_t n = 0;
		assert_int_equal(dev->work->decode(dev, &e, 1, steps, 5), 0);
		while (!n || events[n - 1].type != MR_EVENT_DONE) {
			int got = dev->work->poll(dev, events + n, TOKENS + 1 - n);
			assert_true(got >= 0);
			n += (uint32_t)got;
			if (!got && !dev->work->arm(dev))
				assert_int_equal(poll(&p, 1, 20000), 1);
		}
		assert_int_equal(events[n - 1].status, 0);
		assert_int_equal(n - 1, steps);
		for (uint32_t i = 0; i < steps; i++)
			ids[done + i] = token = events[i].token;
	}
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
}

static void expected(uint32_t *ids)
{
	const struct lpu_rig_options o = {.chip = "tiny"};
	struct lpu_rig local;

	lpu_rig_open(&local, &o);
	generate(local.dev, 4, ids);
	lpu_rig_close(&local);
}

static void tokens_are_those_of_a_device_in_this_process(void **state)
{
	uint32_t want[TOKENS], ids[TOKENS];
	struct mr_lpu_counters c;
	struct mr_device *dev;

	expected(want);
	for (int trapped = 0; trapped < 2; trapped++) {
		if (trapped) {
			vu_rig_stop(&rig);
			vu_rig_start(&rig, 1);
		}
		dev = open_lpu();
		assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
		for (uint32_t steps = 1; steps <= 8; steps *= 8) {
			generate(dev, steps, ids);
			assert_memory_equal(ids, want, sizeof(want));
		}
		assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_COUNTERS, &c, sizeof(c)), sizeof(c));
		assert_int_equal(c.records, 2 * TOKENS);
		assert_int_equal(c.steps, 2 * TOKENS);
		assert_int_equal(c.bad_doorbell + c.dma_faults + c.refused, 0);
		dev->admin->close(dev);
	}
}

/* A server that goes: no hang, a name, whoever sleeps wakes up, and reset brings all back. */
static void a_server_that_goes_and_comes_back(void **state)
{
	uint32_t want[TOKENS], ids[TOKENS];
	struct mr_device *dev = open_lpu();
	struct mr_decode_entry e = {.token = 7};
	struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
	struct mr_event event;
	int got;

	expected(want);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	generate(dev, 4, ids);
	e.slot = lpu_rig_slot(dev, TOKENS + 1);
	do /* until the slot's opening, which makes no event, is through */
		assert_int_equal(dev->work->poll(dev, &event, 1), 0);
	while (dev->work->arm(dev));
	vu_rig_stop_server(&rig);
	assert_int_equal(poll(&p, 1, 20000), 1);
	assert_int_equal(dev->work->decode(dev, &e, 1, 4, 99), 0);
	while ((got = dev->work->poll(dev, &event, 1)) >= 0)
		assert_int_equal(got, 0);
	assert_int_equal(got, MR_E_DISCONNECTED);
	assert_int_equal(dev->work->arm(dev), 1);
	assert_int_equal(dev->admin->reset(dev), MR_E_NOT_FOUND);
	assert_int_equal(dev->work->poll(dev, &event, 1), 1); /* given up, and its end is told */
	assert_int_equal(event.tag, 99);
	assert_int_equal(event.status, MR_E_DEVICE);
	assert_int_equal(dev->work->poll(dev, &event, 1), MR_E_NOT_FOUND);

	/* Another device in its place: it has no program until the driver brings it. */
	vu_rig_serve(&rig);
	vu_rig_stop(&rig);
	vu_rig_start(&rig, 0);
	dev->admin->close(dev);
	dev = open_lpu();
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	e.slot = lpu_rig_slot(dev, TOKENS + 1);
	vu_rig_stop_server(&rig);
	assert_int_equal(dev->work->decode(dev, &e, 1, 4, 99), 0);
	while (dev->work->poll(dev, &event, 1) >= 0)
		;
	assert_int_equal(rig.port.ops->reset(rig.port.ctx), 0);
	vu_rig_serve(&rig);
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->work->poll(dev, &event, 1), 1); /* once, by name */
	assert_int_equal(event.type, MR_EVENT_DONE);
	assert_int_equal(event.tag, 99);
	assert_int_equal(event.status, MR_E_DEVICE);
	assert_int_equal(dev->work->poll(dev, &event, 1), 0);
	generate(dev, 4, ids);
	assert_memory_equal(ids, want, sizeof(want));
	/* The new connection's loss is noticed as the first one's. */
	vu_rig_stop_server(&rig);
	while ((got = dev->work->poll(dev, &event, 1)) >= 0)
		;
	assert_int_equal(got, MR_E_DISCONNECTED);
	vu_rig_serve(&rig);
	dev->admin->close(dev);
}

static void the_bus_alone(void **state)
{
	struct mr_arena_options private = {.node = -1, .no_huge = 1};
	const struct mr_region *r, *own;
	struct mr_arena *other;
	struct mr_bus *bus;

	assert_int_equal(open_bus(&bus, NULL, 0), 0);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(mr_arena_create(&private, &other), 0);
	assert_int_equal(mr_arena_region(other, MR_REGION_KV, 4096, &own), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_true(mr_pages_fd(r->base) >= 0);
	assert_int_equal(bus->ops->dma_map(bus, own->iova, own->base, 4096, 1), MR_E_NOT_SUPPORTED);
	assert_int_equal(bus->ops->dma_map(bus, r->iova, r->base, 4096, 1), 0);
	assert_int_equal(bus->ops->dma_map(bus, r->iova, r->base, 4096, 1), MR_E_EXISTS);
	assert_int_equal(bus->ops->dma_unmap(bus, r->iova), 0);
	assert_int_equal(bus->ops->dma_unmap(bus, r->iova), MR_E_NOT_FOUND);
	assert_int_equal(bus->ops->irq_fd(bus, 5), MR_E_RANGE);
	assert_int_equal(bus->ops->irq_fd(bus, 1), bus->ops->irq_fd(bus, 1));
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_SQ_LO, 0x1000);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_ADMIN_SQ_LO), 0x1000);
	assert_int_equal(bus->ops->reset(bus), 0);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_ADMIN_SQ_LO), 0);
	bus->ops->doorbell(bus, 100000, 0, 1); /* no such page: goes nowhere, harms nothing */
	assert_int_equal(lost(bus), 0);
	bus->ops->close(bus);
	mr_arena_destroy(other);
}

/* ---- lies --------------------------------------------------------------------------------------- */

struct lie {
	uint16_t command;
	uint32_t region; /* of GET_REGION_INFO, REGION_READ: only that one; 99 = any */
	uint32_t at;     /* byte of the message; 0 = none is changed */
	uint32_t value;
	uint32_t width;
	int cut;   /* bytes less */
	int drop;  /* no reply */
	int error; /* errno instead */
	int status;
	const char *why;
};

static int tell(struct vu_rig *r, struct mr_vu_header *head, uint8_t *message, size_t *bytes)
{
	const struct lie *lie = __atomic_load_n(&r->arg, __ATOMIC_ACQUIRE);
	uint32_t region = 99;

	if (head->command == MR_VU_DEVICE_GET_REGION_INFO)
		memcpy(&region, message + 16 + offsetof(struct mr_vu_region_info, index), 4);
	else if (head->command == MR_VU_REGION_READ)
		memcpy(&region, message + 16 + offsetof(struct mr_vu_access, region), 4);
	if (!lie || head->command != lie->command || region != lie->region)
		return 0;
	if (lie->drop)
		return 1;
	if (lie->error) {
		head->flags |= MR_VU_FLAG_ERROR;
		head->error = (uint32_t)lie->error;
		head->bytes = 16;
		*bytes = 16;
	}
	*bytes -= (size_t)lie->cut;
	head->bytes -= (uint32_t)lie->cut;
	if (lie->at + lie->width > *bytes) /* more than there was */
		*bytes = head->bytes = lie->at + lie->width;
	memcpy(message + lie->at, &lie->value, lie->width);
	if (lie->width && lie->at < 16)
		memcpy(head, message, 16);
	return 0;
}

/* Of a configuration word that the client reads as @width bytes at @at, whatever else it reads. */
static int tell_config(struct vu_rig *r, struct mr_vu_header *head, uint8_t *message, size_t *bytes)
{
	const struct lie *lie = __atomic_load_n(&r->arg, __ATOMIC_ACQUIRE);
	struct mr_vu_access a;

	memcpy(&a, message + 16, sizeof(a));
	if (head->command == MR_VU_REGION_READ && a.region == lie->region && a.offset == lie->at)
		memcpy(message + 32, &lie->value, lie->width);
	return 0;
}

#define INFO(field)   (16 + (uint32_t)offsetof(struct mr_vu_region_info, field))
#define DEVICE(field) (16 + (uint32_t)offsetof(struct mr_vu_device_info, field))
#define IRQ(field)    (16 + (uint32_t)offsetof(struct mr_vu_irq_info, field))

static void a_server_that_lies_is_named(void **state)
{
	static const struct lie lies[] = {
		{MR_VU_VERSION, 99, 16, 1, 2, 0, 0, 0, MR_E_VERSION, "vfio-user 1"},
		{MR_VU_VERSION, 99, 18, 7, 2, 0, 0, 0, MR_E_VERSION, "vfio-user 0.7"},
		{MR_VU_VERSION, 99, 20, '[', 1, 0, 0, 0, MR_E_PROTOCOL, "capabilities"},
		{MR_VU_VERSION, 99, 16, 0, 2, 1, 0, 0, MR_E_PROTOCOL, "capabilities"}, /* no NUL */
		{MR_VU_VERSION, 99, 0, 0, 0, 0, 0, ENOTSUP, MR_E_VERSION, "refused vfio-user"},
		{MR_VU_VERSION, 99, 0, 9, 2, 0, 0, 0, MR_E_PROTOCOL, "vfio-user server?"},
		{MR_VU_VERSION, 99, 4, 15, 4, 0, 0, 0, MR_E_PROTOCOL, "vfio-user server?"},
		{MR_VU_VERSION, 99, 4, 0xffffffff, 4, 0, 0, 0, MR_E_PROTOCOL, "vfio-user server?"},
		{MR_VU_VERSION, 99, 2, 5, 2, 0, 0, 0, MR_E_PROTOCOL, "vfio-user server?"},
		{MR_VU_VERSION, 99, 8, 3, 4, 0, 0, 0, MR_E_PROTOCOL, "vfio-user server?"},
		{MR_VU_DEVICE_GET_INFO, 99, DEVICE(flags), 1, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "LPU"},
		{MR_VU_DEVICE_GET_INFO, 99, DEVICE(regions), 7, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "LPU"},
		{MR_VU_DEVICE_GET_INFO, 99, DEVICE(irqs), 2, 4, 0, 0, 0, MR_E_NOT_SUPPORTED, "LPU"},
		{MR_VU_DEVICE_GET_INFO, 99, 0, 0, 0, 4, 0, 0, MR_E_PROTOCOL, "restart it"},
		{MR_VU_DEVICE_GET_INFO, 99, 0, 0, 0, 0, 0, EIO, MR_E_INVALID, "restart it"},
		{MR_VU_DEVICE_GET_REGION_INFO, 7, INFO(size), 64, 4, 0, 0, 0, MR_E_PROTOCOL, "256"},
		{MR_VU_DEVICE_GET_REGION_INFO, 7, INFO(index), 3, 4, 0, 0, 0, MR_E_PROTOCOL,
		 "restart"},
		{MR_VU_DEVICE_GET_REGION_INFO, 0, INFO(size), 2048, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "BAR0 has 2048"},
		{MR_VU_DEVICE_GET_REGION_INFO, 0, INFO(flags), 1, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "BAR0 cannot be"},
		{MR_VU_DEVICE_GET_REGION_INFO, 2, INFO(size), 4096, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "BAR2 has 4096"},
		{MR_VU_DEVICE_GET_REGION_INFO, 2, INFO(size), 24576, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "power of two"},
		{MR_VU_DEVICE_GET_REGION_INFO, 4, INFO(size), 64, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "MSI-X table"},
		{MR_VU_DEVICE_GET_REGION_INFO, 2, INFO(cap_offset) - 8, 15, 4, 0, 0, 0,
		 MR_E_PROTOCOL, "BAR2's"}, /* capabilities, at 0 */
		{MR_VU_DEVICE_GET_IRQ_INFO, 99, IRQ(count), 1, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "1 MSI-X"},
		{MR_VU_DEVICE_GET_IRQ_INFO, 99, IRQ(flags), 0, 4, 0, 0, 0, MR_E_NOT_SUPPORTED,
		 "0 MSI-X"},
		{MR_VU_REGION_READ, 7, 28, 9, 4, 0, 0, 0, MR_E_PROTOCOL, "restart"}, /* count */
		{MR_VU_REGION_READ, 7, 0, 0, 0, 1, 0, 0, MR_E_PROTOCOL, "restart"},
		{MR_VU_REGION_READ, 0, 32, 0x12345678, 4, 0, 0, 0, MR_E_VERSION, "magic 12345678"},
	};
	struct mr_bus *bus;
	char why[256];

	rig.spoil = tell;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		say(&lies[i]);
		int status = open_bus(&bus, why, sizeof(why));
		if (status != lies[i].status || !strstr(why, lies[i].why))
			fail_msg("lie %zu: %s, '%s'", i, mr_status_name(status), why);
		assert_null(bus);
	}
}

/* BAR2's description with a list of areas that can be mapped. */
struct sparse {
	struct mr_vu_cap cap;
	struct mr_vu_sparse head;
	struct mr_vu_area area[2];
	uint32_t offset; /* of the capability */
};

static int tell_sparse(struct vu_rig *r, struct mr_vu_header *head, uint8_t *message, size_t *bytes)
{
	const struct sparse *s = __atomic_load_n(&r->arg, __ATOMIC_ACQUIRE);
	struct mr_vu_region_info info;

	memcpy(&info, message + 16, sizeof(info));
	if (head->command != MR_VU_DEVICE_GET_REGION_INFO || info.index != MR_VU_BAR2)
		return 0;
	info.flags |= MR_VU_REGION_CAPS;
	info.cap_offset = s->offset;
	memcpy(message + 16, &info, sizeof(info));
	memcpy(message + *bytes, s, offsetof(struct sparse, offset));
	*bytes += offsetof(struct sparse, offset);
	head->bytes = (uint32_t)*bytes;
	return 0;
}

static void parts_of_bar2_are_mapped(void **state)
{
	const struct mr_vu_area one = {4096, 4096}, rest = {8192, 24576}, far = {32768, 4096};
	const struct mr_vu_area odd = {100, 4096}, wide = {4096, UINT64_MAX - 4095};
	const struct {
		struct sparse s;
		int status;
	} cases[] = {
		{{{1, 1, 0}, {1, 0}, {one}, 32}, 0},
		{{{1, 1, 0}, {2, 0}, {one, rest}, 32}, 0},
		{{{1, 1, 0}, {2, 0}, {one, one}, 32}, 0},
		{{{1, 1, 0}, {2, 0}, {odd, far}, 32}, 0}, /* by message then */
		{{{1, 1, 0}, {1, 0}, {wide}, 32}, 0},
		{{{9, 1, 0}, {1, 0}, {one}, 32}, 0}, /* unknown: the whole */
		{{{1, 1, 0}, {0, 0}, {one}, 32}, 0},
		{{{1, 1, 0}, {3, 0}, {one, rest}, 32}, MR_E_PROTOCOL},
		{{{1, 1, 0}, {0xffffffff, 0}, {one, rest}, 32}, MR_E_PROTOCOL},
		{{{9, 1, 32}, {1, 0}, {one}, 32}, MR_E_PROTOCOL}, /* a circle */
		{{{9, 1, 4}, {1, 0}, {one}, 32}, MR_E_PROTOCOL},
		{{{9, 1, 0xffffff}, {1, 0}, {one}, 32}, MR_E_PROTOCOL},
		{{{1, 1, 0}, {1, 0}, {one}, 76}, MR_E_PROTOCOL},
	};
	uint32_t ids[TOKENS], want[TOKENS];
	struct mr_device *dev;
	struct mr_bus *bus;

	rig.spoil = tell_sparse;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		say(&cases[i].s);
		int status = open_bus(&bus, NULL, 0);
		if (status != cases[i].status)
			fail_msg("case %zu: %s", i, mr_status_name(status));
		if (bus)
			bus->ops->close(bus);
	}
	expected(want);
	say(&cases[0].s); /* queue 1 mapped, the admin queue not */
	dev = open_lpu();
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	generate(dev, 4, ids);
	assert_memory_equal(ids, want, sizeof(want));
	dev->admin->close(dev);
}

static void a_function_that_is_no_lpu_is_named(void **state)
{
	static const struct lie lies[] = {
		{0, 7, 0, 0xffffffff, 4, 0, 0, 0, MR_E_NOT_FOUND, "no PCI function"},
		{0, 7, 8, 0x01080201, 4, 0, 0, 0, MR_E_NOT_SUPPORTED, "class 010802"},
		{0, 7, 6, 0, 2, 0, 0, 0, MR_E_NOT_SUPPORTED, "no MSI-X"},
		{0, 7, 0x34, 0, 1, 0, 0, 0, MR_E_NOT_SUPPORTED, "no MSI-X"},
		{0, 7, 0x34, 8, 1, 0, 0, 0, MR_E_PROTOCOL, "in the header"},
		{0, 7, 0x50, 0x5009, 2, 0, 0, 0, MR_E_PROTOCOL, "no end"},
		{0, 7, 0x54, 6, 4, 0, 0, 0, MR_E_NOT_SUPPORTED, "MSI-X table"},
		{0, 7, 0x54, 0xff4, 4, 0, 0, 0, MR_E_NOT_SUPPORTED, "MSI-X table"},
		{0, 0, MR_LPU_REG_VERSION, 0x20000, 4, 0, 0, 0, MR_E_VERSION, "version 2.0"},
	};
	struct mr_vfio_user_bus_options o = {.path = rig.path, .vendor = 0x8086};
	struct mr_bus *bus;
	char why[256];

	rig.spoil = tell_config;
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		say(&lies[i]);
		int status = open_bus(&bus, why, sizeof(why));
		if (status != lies[i].status || !strstr(why, lies[i].why))
			fail_msg("lie %zu: %s, '%s'", i, mr_status_name(status), why);
	}
	rig.spoil = NULL;
	o.why = why;
	o.why_bytes = sizeof(why);
	assert_int_equal(mr_bus_vfio_user_open(&o, &bus), MR_E_NOT_SUPPORTED);
	assert_non_null(strstr(why, "not the device asked for"));
	o.path = "";
	assert_int_equal(mr_bus_vfio_user_open(&o, &bus), MR_E_INVALID);
	o.path = "/tmp/mr-no-such-socket";
	assert_int_equal(mr_bus_vfio_user_open(&o, &bus), MR_E_NOT_FOUND);
	assert_non_null(strstr(why, "millrace lpu sim"));
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* A server that stops: no reply at bring-up, none later. */
static void a_server_that_stops_is_given_up_in_time(void **state)
{
	static const struct lie silence = {MR_VU_REGION_READ, 0, 0, 0, 0, 0, 1, 0,
					   MR_E_TIMEOUT,      ""};
	struct mr_vfio_user_bus_options o = {.path = rig.path, .timeout_ms = 150};
	struct mr_bus *bus;
	struct pollfd p = {.events = POLLIN};
	uint64_t from = now_ms();

	rig.spoil = tell;
	say(&silence);
	assert_int_equal(mr_bus_vfio_user_open(&o, &bus), MR_E_TIMEOUT);
	say(NULL);
	assert_int_equal(mr_bus_vfio_user_open(&o, &bus), 0);
	p.fd = bus->ops->irq_fd(bus, 1);
	say(&silence);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), ~0u);
	assert_int_equal(lost(bus), MR_E_TIMEOUT);
	assert_int_equal(poll(&p, 1, 0), 1); /* sleepers wake up */
	from = now_ms() - from;
	assert_true(from < 5000);
	/* A late answer must not be taken for the next one's: nothing is asked any more. */
	say(NULL);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), ~0u);
	bus->ops->reg_write(bus, MR_LPU_REG_CONTROL, 0);
	bus->ops->doorbell(bus, 0, 0, 1);
	assert_int_equal(bus->ops->dma_unmap(bus, 1), MR_E_NOT_FOUND);
	assert_int_equal(bus->ops->reset(bus), 0);
	assert_int_equal(lost(bus), 0);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	bus->ops->close(bus);
}

/* ---- DMA by message ------------------------------------------------------------------------------ */

struct dma {
	uint16_t command;
	struct mr_vu_dma_access a;
	uint32_t error;
	uint8_t data[64]; /* written, or what came back */
	int done;
};

/* Puts a command of the server before the reply, and takes its answer from the client. */
static int ask_first(struct vu_rig *r, struct mr_vu_header *head, uint8_t *message, size_t *bytes)
{
	struct dma *d = __atomic_load_n(&r->arg, __ATOMIC_ACQUIRE);
	const struct mr_vfio_user_transport *t = &r->transport;
	struct mr_vu_header mine = {9, d->command, sizeof(mine) + sizeof(d->a), 0, 0};
	struct mr_vu_dma_access got;

	if (d->done || head->command != MR_VU_REGION_READ)
		return 0;
	d->done = 1;
	if (d->command == MR_VU_DMA_WRITE)
		mine.bytes += (uint32_t)d->a.count;
	t->send(t->ctx, &mine, sizeof(mine), -1);
	t->send(t->ctx, &d->a, sizeof(d->a), -1);
	if (d->command == MR_VU_DMA_WRITE)
		t->send(t->ctx, d->data, d->a.count, -1);
	if (t->receive(t->ctx, &mine, sizeof(mine), NULL, 0, NULL))
		return 0;
	d->error = mine.flags & MR_VU_FLAG_ERROR ? mine.error : 0;
	if (!d->error) {
		t->receive(t->ctx, &got, sizeof(got), NULL, 0, NULL);
		if (d->command == MR_VU_DMA_READ)
			t->receive(t->ctx, d->data, d->a.count, NULL, 0, NULL);
	}
	return 0;
}

static void memory_by_message_as_far_as_it_is_mapped(void **state)
{
	const struct mr_region *r;
	struct mr_bus *bus;
	struct dma d;

	assert_int_equal(open_bus(&bus, NULL, 0), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_int_equal(bus->ops->dma_map(bus, r->iova, r->base, 4096, 3), 0);
	rig.spoil = ask_first;
	say(&d);
	d = (struct dma){MR_VU_DMA_WRITE, {r->iova + 8, 5}, 0, "water", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, 0);
	assert_memory_equal((uint8_t *)r->base + 8, "water", 5);
	d = (struct dma){MR_VU_DMA_READ, {r->iova + 10, 3}, 0, "", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, 0);
	assert_memory_equal(d.data, "ter", 3);
	d = (struct dma){MR_VU_DMA_READ, {r->iova + 4090, 10}, 0, "", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, EFAULT);
	d = (struct dma){MR_VU_DMA_READ, {r->iova, 1u << 30}, 0, "", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, EINVAL);
	d = (struct dma){MR_VU_DEVICE_RESET, {0, 0}, 0, "", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, ENOTSUP);
	assert_int_equal(bus->ops->dma_unmap(bus, r->iova), 0);
	assert_int_equal(bus->ops->dma_map(bus, r->iova, r->base, 4096, 1), 0);
	d = (struct dma){MR_VU_DMA_WRITE, {r->iova, 4}, 0, "no", 0};
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(d.error, EFAULT); /* read-only */
	assert_int_equal(lost(bus), 0);
	bus->ops->close(bus);
}

/* A command of the server while the client asks nothing: the watcher answers it. */
static void memory_by_message_while_nothing_is_asked(void **state)
{
	const struct mr_region *r;
	struct mr_bus *bus;
	struct {
		struct mr_vu_header head;
		struct mr_vu_dma_access a;
		char data[4];
	} __attribute__((packed))
	write = {{9, MR_VU_DMA_WRITE, sizeof(write), 0, 0}, {0, 4}, "race"};

	assert_int_equal(open_bus(&bus, NULL, 0), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_RECORDS, 4096, &r), 0);
	assert_int_equal(bus->ops->dma_map(bus, r->iova, r->base, 4096, 3), 0);
	write.a.address = r->iova + 100;
	assert_int_equal(rig.transport.send(rig.transport.ctx, &write, sizeof(write), -1), 0);
	/* Our server, which asked nothing itself, takes the answer for a broken client, and goes. */
	for (int i = 0; !lost(bus); i++) {
		assert_true(i < 20000);
		usleep(1000);
	}
	assert_int_equal(lost(bus), MR_E_DISCONNECTED);
	assert_memory_equal((char *)r->base + 100, "race", 4);
	bus->ops->close(bus);
	/* A reply to nothing ends it. */
	assert_int_equal(open_bus(&bus, NULL, 0), 0);
	write.head.flags = MR_VU_FLAG_REPLY;
	assert_int_equal(rig.transport.send(rig.transport.ctx, &write, sizeof(write), -1), 0);
	for (int i = 0; !lost(bus); i++) {
		assert_true(i < 20000);
		usleep(1000);
	}
	assert_int_equal(lost(bus), MR_E_PROTOCOL);
	bus->ops->close(bus);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(tokens_are_those_of_a_device_in_this_process),
		TEST(a_server_that_goes_and_comes_back),
		TEST(the_bus_alone),
		TEST(a_server_that_lies_is_named),
		TEST(parts_of_bar2_are_mapped),
		TEST(a_function_that_is_no_lpu_is_named),
		TEST(a_server_that_stops_is_given_up_in_time),
		TEST(memory_by_message_as_far_as_it_is_mapped),
		TEST(memory_by_message_while_nothing_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
