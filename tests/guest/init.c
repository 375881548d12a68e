// SPDX-License-Identifier: Apache-2.0
/* See guest.h: process 1 of the guest. Arguments: the names of the tests, from behind "--" of the command line. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "tests/guest/guest.h"

static void leave(void)
{
	fflush(NULL);
	sync();
	if (getpid() == 1)
		reboot(RB_AUTOBOOT); /* QEMU is told to end instead */
	_exit(1);
}

void guest_fail(const char *format, ...)
{
	va_list args;

	printf("FAILED: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	leave();
	_exit(1);
}

void guest_ok(const char *format, ...)
{
	va_list args;

	printf("ok: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
}

int guest_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int bad = fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return bad ? -1 : 0;
}

static unsigned read_id(const char *address, const char *name)
{
	char path[96], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", address, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	if (fd >= 0)
		close(fd);
	return (unsigned)strtoul(text, NULL, 16);
}

const char *guest_find(unsigned vendor, unsigned device, unsigned nth, char address[16])
{
	struct dirent **names;
	int n = scandir("/sys/bus/pci/devices", &names, NULL, alphasort);

	for (int i = 0; i < n; i++)
		if (names[i]->d_name[0] != '.' && read_id(names[i]->d_name, "vendor") == vendor &&
		    (device == MR_VFIO_ANY_ID || read_id(names[i]->d_name, "device") == device) &&
		    !nth--) {
			snprintf(address, 16, "%.15s", names[i]->d_name);
			return address;
		}
	guest_fail("no PCI function %04x:%04x", vendor, device);
}

void guest_bind(const char *address)
{
	struct mr_vfio_place place;
	char path[96];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver/unbind", address);
	guest_write(path, address); /* may have no driver */
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver_override", address);
	CHECK(!guest_write(path, "vfio-pci"), "%s: driver_override: %s", address, strerror(errno));
	CHECK(!guest_write("/sys/bus/pci/drivers_probe", address), "%s: drivers_probe: %s", address,
	      strerror(errno));
	CHECK(!mr_vfio_find("/sys", address, &place) && !strcmp(place.driver, "vfio-pci"),
	      "%s: its driver is '%s'", address, place.driver);
}

unsigned guest_command(const char *address)
{
	uint8_t bytes[6] = {0};
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", address);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK(fd >= 0 && read(fd, bytes, sizeof(bytes)) == sizeof(bytes), "%s: no config", address);
	close(fd);
	return bytes[4] | (unsigned)bytes[5] << 8;
}

uint64_t guest_wait(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count = 0;

	if (poll(&p, 1, ms) != 1 || read(fd, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}

struct mr_bus *guest_open(const char *address)
{
	const struct mr_vfio_options o = {
		.address = address,
		.vendor = MR_VFIO_ANY_ID,
		.device = MR_VFIO_ANY_ID,
	};
	struct mr_bus *bus;
	char why[400];
	int status = mr_bus_vfio_open(&o, &bus, why, sizeof(why));

	CHECK(!status, "%d: %s", status, why);
	return bus;
}

/* In order of name: run.sh numbers them. */
static void load_modules(void)
{
	struct dirent **names;
	int n = scandir("/modules", &names, NULL, alphasort);

	for (int i = 0; i < n; i++) {
		char path[300];
		int fd;

		if (names[i]->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		CHECK(fd >= 0 && !syscall(SYS_finit_module, fd, "", 0), "%s: %s", path,
		      strerror(errno));
		close(fd);
	}
}

static void boot(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	int console = open("/dev/console", O_RDWR);
	for (int fd = 0; console >= 0 && fd < 3; fd++)
		dup2(console, fd);
	load_modules();
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{"edu", guest_edu},     {"refuse", guest_refuse}, {"nvme", guest_nvme},
		{"fence", guest_fence}, {"lpu", guest_lpu},       {"tool", guest_tool},
		{"reset", guest_reset},
	};

	if (getpid() == 1)
		boot();
	for (int i = 1; i < argc; i++) {
		size_t t = 0;

		while (t < sizeof(tests) / sizeof(tests[0]) && strcmp(argv[i], tests[t].name))
			t++;
		CHECK(t < sizeof(tests) / sizeof(tests[0]), "no test '%s'", argv[i]);
		printf("== %s\n", argv[i]);
		tests[t].run();
	}
	printf("guest: all passed\n");
	if (getpid() != 1)
		return 0;
	leave();
}
