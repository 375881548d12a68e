// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/pci.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <millrace/status.h>

#include "userlib/spec/vfio_user.h"

#define CAPS_FIRST 0x40u
#define CAPS_END   0x100u

struct out {
	char *why;
	size_t bytes;
};

/* Says why and returns @status. */
__attribute__((format(printf, 3, 4))) static int refuse(const struct out *o, int status,
							const char *format, ...)
{
	va_list args;

	if (!o->why || !o->bytes)
		return status;
	va_start(args, format);
	vsnprintf(o->why, o->bytes, format, args);
	va_end(args);
	return status;
}

static int read_msix(const struct mr_pci_config *c, struct mr_pci_function *f)
{
	uint32_t table;
	uint16_t control;
	int status = c->read(c->arg, f->msix_at + 2, &control, sizeof(control));

	if (!status)
		status = c->read(c->arg, f->msix_at + 4, &table, sizeof(table));
	if (status)
		return status;
	f->vectors = (control & MR_PCI_MSIX_ENTRIES) + 1u;
	f->table_bar = table & MR_PCI_MSIX_BAR;
	f->table_at = table & ~MR_PCI_MSIX_BAR;
	return 0;
}

/* Walks the list of capabilities to MSI-X's. */
static int find_msix(const struct mr_pci_config *c, struct mr_pci_function *f, const struct out *o)
{
	uint8_t at, head[2];
	uint16_t have;
	int status = c->read(c->arg, MR_PCI_STATUS, &have, sizeof(have));

	if (!status)
		status = c->read(c->arg, MR_PCI_CAPS, &at, sizeof(at));
	if (status)
		return status;
	if (!(have & MR_PCI_STATUS_CAPS))
		at = 0;
	/* No more than fit: a list in a circle ends too. */
	for (uint32_t i = 0; at && i < (CAPS_END - CAPS_FIRST) / 4; i++) {
		at &= 0xfc;
		if (at < CAPS_FIRST)
			return refuse(o, MR_E_PROTOCOL, "a PCI capability at %u, in the header",
				      at);
		status = c->read(c->arg, at, head, sizeof(head));
		if (status)
			return status;
		if (head[0] == MR_PCI_CAP_MSIX) {
			f->msix_at = at;
			return read_msix(c, f);
		}
		at = head[1];
	}
	if (at)
		return refuse(o, MR_E_PROTOCOL, "the list of PCI capabilities has no end");
	return refuse(o, MR_E_NOT_SUPPORTED,
		      "the PCI function has no MSI-X, which an LPU must have");
}

int mr_pci_read(const struct mr_pci_config *c, uint16_t vendor, uint16_t device,
		struct mr_pci_function *f, char *why, size_t why_bytes)
{
	const struct out o = {why, why_bytes};
	uint16_t ids[2];
	uint32_t class_code;
	int status = c->read(c->arg, MR_PCI_VENDOR, ids, sizeof(ids));

	memset(f, 0, sizeof(*f));
	if (!status)
		status = c->read(c->arg, MR_PCI_CLASS, &class_code, sizeof(class_code));
	if (status)
		return status;
	f->vendor = ids[0];
	f->device = ids[1];
	f->class_code = class_code >> 8;
	if (f->vendor == 0xffff || !f->vendor)
		return refuse(&o, MR_E_NOT_FOUND, "no PCI function answers there");
	if ((vendor && f->vendor != vendor) || (device && f->device != device))
		return refuse(&o, MR_E_NOT_SUPPORTED,
			      "this is PCI %04x:%04x, not the device asked for; name the LPU's",
			      f->vendor, f->device);
	if (f->class_code != MR_PCI_CLASS_LPU)
		return refuse(
			&o, MR_E_NOT_SUPPORTED,
			"PCI %04x:%04x is of class %06x, not a processing accelerator (%06x): "
			"name the LPU's function",
			f->vendor, f->device, f->class_code, MR_PCI_CLASS_LPU);
	return find_msix(c, f, &o);
}

int mr_pci_enable(const struct mr_pci_config *c, const struct mr_pci_function *f)
{
	uint16_t control, command = MR_PCI_COMMAND_MEMORY | MR_PCI_COMMAND_NOINTX;
	int status = c->write(c->arg, MR_PCI_COMMAND, &command, sizeof(command));

	if (!status)
		status = c->read(c->arg, f->msix_at + 2, &control, sizeof(control));
	control |= MR_PCI_MSIX_ENABLE;
	if (!status)
		status = c->write(c->arg, f->msix_at + 2, &control, sizeof(control));
	command |= MR_PCI_COMMAND_MASTER;
	return status ? status : c->write(c->arg, MR_PCI_COMMAND, &command, sizeof(command));
}
