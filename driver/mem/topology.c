// SPDX-License-Identifier: Apache-2.0
/* See topology.h. The hwloc topology is read and dropped again: nothing on the data path asks it.
 */
#include "driver/mem/topology.h"

#include <hwloc.h>

#include <millrace/status.h>

static int local_node(hwloc_topology_t topology)
{
	hwloc_bitmap_t cpus = hwloc_bitmap_alloc();
	hwloc_bitmap_t nodes = hwloc_bitmap_alloc();
	int node = -1;

	if (cpus && nodes &&
	    hwloc_get_last_cpu_location(topology, cpus, HWLOC_CPUBIND_THREAD) == 0 &&
	    hwloc_cpuset_to_nodeset(topology, cpus, nodes) == 0)
		node = hwloc_bitmap_first(nodes);
	hwloc_bitmap_free(nodes);
	hwloc_bitmap_free(cpus);
	return node;
}

int mr_topology_read(int node, struct mr_topology *out)
{
	hwloc_topology_t topology;
	hwloc_const_nodeset_t all;
	int status = 0;

	if (hwloc_topology_init(&topology) != 0)
		return MR_E_NO_MEMORY;
	if (hwloc_topology_load(topology) != 0) {
		hwloc_topology_destroy(topology);
		return MR_E_NO_MEMORY;
	}
	all = hwloc_topology_get_topology_nodeset(topology);
	out->nodes = hwloc_bitmap_weight(all);
	out->physical = hwloc_topology_is_thissystem(topology);
	out->local = local_node(topology);
	if (out->local < 0 || !hwloc_bitmap_isset(all, (unsigned)out->local))
		out->local = hwloc_bitmap_first(all);
	if (node >= 0 && !hwloc_bitmap_isset(all, (unsigned)node))
		status = MR_E_INVALID;
	hwloc_topology_destroy(topology);
	return status;
}

static unsigned take_cores(hwloc_topology_t topology, hwloc_const_bitmap_t may, int node, int local,
			   int *cpus, unsigned n, unsigned max)
{
	hwloc_obj_t core = NULL;

	while (n < max &&
	       (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != NULL) {
		int here = node >= 0 && hwloc_bitmap_isset(core->nodeset, (unsigned)node);
		int cpu = -1;

		if (here != local)
			continue;
		do
			cpu = hwloc_bitmap_next(core->cpuset, cpu);
		while (cpu >= 0 && !hwloc_bitmap_isset(may, (unsigned)cpu));
		if (cpu >= 0)
			cpus[n++] = cpu;
	}
	return n;
}

unsigned mr_topology_cores(int node, int *cpus, unsigned max)
{
	hwloc_topology_t topology;
	hwloc_bitmap_t may = hwloc_bitmap_alloc();
	unsigned n = 0;

	cpus[0] = 0;
	if (may && hwloc_topology_init(&topology) == 0) {
		if (hwloc_topology_load(topology) == 0) {
			if (!hwloc_topology_is_thissystem(topology) ||
			    hwloc_get_cpubind(topology, may, HWLOC_CPUBIND_THREAD) != 0)
				hwloc_bitmap_copy(may,
						  hwloc_topology_get_topology_cpuset(topology));
			n = take_cores(topology, may, node, 1, cpus, 0, max);
			n = take_cores(topology, may, node, 0, cpus, n, max);
		}
		hwloc_topology_destroy(topology);
	}
	hwloc_bitmap_free(may);
	return n ? n : 1;
}
