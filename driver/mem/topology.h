/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host's NUMA nodes, as hwloc sees them: which exist, and which one a thread runs on. Used by
 * driver/mem/arena.c at setup. HWLOC_SYNTHETIC and HWLOC_XMLFILE replace the host's topology, so
 * that logic for several nodes is tested on a machine with one.
 */
#ifndef MR_DRIVER_MEM_TOPOLOGY_H
#define MR_DRIVER_MEM_TOPOLOGY_H

struct mr_topology {
	int nodes; /* NUMA nodes, at least 1 */
	int local; /* OS index of the calling thread's node; the first node where that is unknown */
	int physical; /* 1 = this host's own topology, 0 = one given by the environment */
};

/*
 * Reads the topology and checks @node (OS index, -1 = do not check). Returns 0, MR_E_INVALID for a
 * node that does not exist, or MR_E_NO_MEMORY. Takes some milliseconds: setup only.
 */
int mr_topology_read(int node, struct mr_topology *out);

/*
 * OS indices of one logical CPU for each core that this process may run on, those of @node first (-1 =
 * in hwloc's order), up to @max into @cpus. Returns how many, at least 1; the first is 0 where hwloc does not
 * say. Setup only.
 */
unsigned mr_topology_cores(int node, int *cpus, unsigned max);

#endif /* MR_DRIVER_MEM_TOPOLOGY_H */
