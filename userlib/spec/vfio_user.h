/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of vfio-user, the published protocol that serves a PCI device over a Unix socket (QEMU's
 * docs/interop/vfio-user.rst), as far as the bus client and the simulator's server speak it: both include
 * this and share nothing else. All numbers are in the host's byte order.
 *
 * A message is a header and, by command, a payload. Descriptors travel beside the header's first byte as
 * SCM_RIGHTS. A reply carries the command's id and number; where its error flag is set there is no payload
 * and `error` is an errno. Region and interrupt numbers are those of PCI under VFIO.
 */
#ifndef MR_SPEC_VFIO_USER_H
#define MR_SPEC_VFIO_USER_H

#include <stddef.h>
#include <stdint.h>

#define MR_VU_MAJOR 0u
#define MR_VU_MINOR 1u

enum mr_vu_command {
	MR_VU_VERSION = 1,
	MR_VU_DMA_MAP = 2,
	MR_VU_DMA_UNMAP = 3,
	MR_VU_DEVICE_GET_INFO = 4,
	MR_VU_DEVICE_GET_REGION_INFO = 5,
	MR_VU_DEVICE_GET_REGION_IO_FDS = 6,
	MR_VU_DEVICE_GET_IRQ_INFO = 7,
	MR_VU_DEVICE_SET_IRQS = 8,
	MR_VU_REGION_READ = 9,
	MR_VU_REGION_WRITE = 10,
	MR_VU_DMA_READ = 11,  /* from the server */
	MR_VU_DMA_WRITE = 12, /* from the server */
	MR_VU_DEVICE_RESET = 13,
	MR_VU_REGION_WRITE_MULTI = 15,
	MR_VU_DEVICE_FEATURE = 16,
	MR_VU_MIG_DATA_READ = 17,
	MR_VU_MIG_DATA_WRITE = 18,
};

struct mr_vu_header {
	uint16_t id;
	uint16_t command; /* enum mr_vu_command */
	uint32_t bytes;   /* of the message, this header included */
	uint32_t flags;   /* MR_VU_FLAG_* */
	uint32_t error;   /* errno, in a reply with MR_VU_FLAG_ERROR */
};
#define MR_VU_FLAG_TYPE     0xfu /* 0 = command, 1 = reply */
#define MR_VU_FLAG_REPLY    0x1u
#define MR_VU_FLAG_NO_REPLY 0x10u /* of a command: none is wanted */
#define MR_VU_FLAG_ERROR    0x20u

/* VERSION, both ways; JSON with its NUL follows. */
struct mr_vu_version {
	uint16_t major;
	uint16_t minor;
};

/* The JSON's "capabilities", what holds where one is missing, and what both of our sides offer. */
#define MR_VU_CAP_FDS           "max_msg_fds"
#define MR_VU_CAP_XFER          "max_data_xfer_size"
#define MR_VU_CAP_MAPS          "max_dma_maps"
#define MR_VU_CAP_PAGES         "pgsizes"
#define MR_VU_CAP_MULTI         "write_multiple"
#define MR_VU_FDS_DEFAULT       1u
#define MR_VU_XFER_DEFAULT      1048576u
#define MR_VU_FDS_MAX           16u
#define MR_VU_XFER_MAX          65536u
#define MR_VU_VERSION_BYTES_MAX 4096u /* of the JSON that either side takes */

struct mr_vu_dma_map {
	uint32_t argsz;  /* of this */
	uint32_t flags;  /* MR_VU_DMA_* */
	uint64_t offset; /* in the file whose descriptor comes along; 0 without one */
	uint64_t address;
	uint64_t size;
};
#define MR_VU_DMA_READABLE 1u /* the same bits as MR_PORT_DMA_* */
#define MR_VU_DMA_WRITABLE 2u

/* Also the reply. */
struct mr_vu_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t address;
	uint64_t size;
};
#define MR_VU_UNMAP_DIRTY 1u /* VFIO's: wants a bitmap of written pages */
#define MR_VU_UNMAP_ALL   2u /* VFIO's: every mapping */

/* Also the reply, as the three below. */
struct mr_vu_device_info {
	uint32_t argsz; /* of the reply that fits, or that there is */
	uint32_t flags;
	uint32_t regions;
	uint32_t irqs;
};
#define MR_VU_DEVICE_RESETS 1u
#define MR_VU_DEVICE_PCI    2u

struct mr_vu_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset; /* of the first capability, from this struct's start */
	uint64_t size;
	uint64_t offset; /* for mmap of the descriptor that comes along */
};
#define MR_VU_REGION_READS  1u
#define MR_VU_REGION_WRITES 2u
#define MR_VU_REGION_MMAP   4u
#define MR_VU_REGION_CAPS   8u

struct mr_vu_cap {
	uint16_t id;
	uint16_t version;
	uint32_t next; /* offset of the next one, 0 = none */
};
#define MR_VU_CAP_SPARSE 1u /* struct mr_vu_sparse follows: only these areas can be mapped */

struct mr_vu_sparse {
	uint32_t areas;
	uint32_t reserved;
};
struct mr_vu_area {
	uint64_t offset; /* in the region */
	uint64_t size;
};

enum mr_vu_region {
	MR_VU_BAR0 = 0,
	MR_VU_BAR2 = 2,
	MR_VU_BAR4 = 4,
	MR_VU_ROM = 6,
	MR_VU_CONFIG = 7,
	MR_VU_VGA = 8,
	MR_VU_REGIONS = 9,
};

struct mr_vu_irq_info {
	uint32_t argsz;
	uint32_t flags; /* MR_VU_IRQ_EVENTFD */
	uint32_t index; /* enum mr_vu_irq */
	uint32_t count; /* of the vectors */
};
#define MR_VU_IRQ_EVENTFD 1u

enum mr_vu_irq { MR_VU_INTX, MR_VU_MSI, MR_VU_MSIX, MR_VU_ERR, MR_VU_REQ, MR_VU_IRQS };

/* Eventfds come along; for BOOL a byte a vector follows. No reply payload. */
struct mr_vu_irq_set {
	uint32_t argsz;
	uint32_t flags; /* one MR_VU_SET_DATA_* | one MR_VU_SET_* */
	uint32_t index;
	uint32_t start;
	uint32_t count;
};
#define MR_VU_SET_DATA_NONE    1u
#define MR_VU_SET_DATA_BOOL    2u
#define MR_VU_SET_DATA_EVENTFD 4u
#define MR_VU_SET_MASK         8u
#define MR_VU_SET_UNMASK       16u
#define MR_VU_SET_TRIGGER      32u

/* REGION_READ: data follows in the reply; REGION_WRITE: in the command. */
struct mr_vu_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
};

/* REGION_WRITE_MULTI: a u64 count, then as many of these; the reply is the count of writes done. */
struct mr_vu_write {
	uint64_t offset;
	uint32_t region;
	uint32_t count; /* 1 to 8 */
	uint8_t data[8];
};

/* DMA_READ: data follows in the reply; DMA_WRITE: in the command. */
struct mr_vu_dma_access {
	uint64_t address;
	uint64_t count;
};

_Static_assert(sizeof(struct mr_vu_header) == 16, "header");
_Static_assert(sizeof(struct mr_vu_dma_map) == 32, "DMA_MAP");
_Static_assert(sizeof(struct mr_vu_dma_unmap) == 24, "DMA_UNMAP");
_Static_assert(sizeof(struct mr_vu_device_info) == 16, "GET_INFO");
_Static_assert(sizeof(struct mr_vu_region_info) == 32, "GET_REGION_INFO");
_Static_assert(sizeof(struct mr_vu_irq_info) == 16, "GET_IRQ_INFO");
_Static_assert(sizeof(struct mr_vu_irq_set) == 20, "SET_IRQS");
_Static_assert(sizeof(struct mr_vu_access) == 16, "REGION_READ");
_Static_assert(sizeof(struct mr_vu_write) == 24, "REGION_WRITE_MULTI");

/* ---- PCI configuration space, as far as the device has it -------------------------------------- */

#define MR_PCI_CONFIG_BYTES 4096u
#define MR_PCI_VENDOR       0x00u
#define MR_PCI_DEVICE       0x02u
#define MR_PCI_COMMAND      0x04u
#define MR_PCI_STATUS       0x06u
#define MR_PCI_CLASS        0x08u /* revision, then 24 bits of class */
#define MR_PCI_BAR0         0x10u /* 4 bytes each, 6 of them */
#define MR_PCI_CAPS         0x34u

#define MR_PCI_COMMAND_MEMORY 2u
#define MR_PCI_COMMAND_MASTER 4u
#define MR_PCI_COMMAND_NOINTX 0x400u
#define MR_PCI_STATUS_CAPS    0x10u
#define MR_PCI_CLASS_LPU      0x120000u /* processing accelerator */
#define MR_PCI_CAP_MSIX       0x11u
#define MR_PCI_CAP_EXPRESS    0x10u

#define MR_PCI_MSIX_ENTRIES  0x7ffu  /* of message control: vectors - 1 */
#define MR_PCI_MSIX_ENABLE   0x8000u /* of message control */
#define MR_PCI_MSIX_BAR      7u      /* of table and PBA words: which BAR; the rest is the offset */
#define MR_PCI_EXPRESS_FLR   (1u << 28) /* of device capabilities: function-level reset is there */
#define MR_PCI_EXPRESS_RESET 0x8000u    /* of device control: do one */

#endif /* MR_SPEC_VFIO_USER_H */
