#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `make check-guest` runs: the LPU as a PCI function of a guest. QEMU 11's vfio-user-pci is the client of our
# vfio-user server, and a guest drives the function through VFIO: the driver decodes tests/tiny.gguf to the bits of
# the host, doorbells mapped and trapped, on one NUMA node and with the device on the second of two. Beside it, the
# matrix of both clients (ours, QEMU's) and both servers (ours, and the one in Python).
# Each line: a case, ok or FAILED, seconds.
set -u
cd "$(dirname "$0")/../.."
bin=${MR_BIN:-build/bin}
export MR_BIN="$bin"
MR_QEMU=$(sh scripts/guest-qemu.sh) || exit 1
export MR_QEMU
export MR_GUEST_FILES=tests/tiny.gguf
work=$(mktemp -d)
server=
cleanup() {
	[ -n "$server" ] && kill "$server" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
bad=0

# serve COMMAND...: a vfio-user server at $work/s
serve() {
	rm -f "$work/s" "$work/s.control"
	"$@" >"$work/server" 2>&1 </dev/null &
	server=$!
	tries=0
	until [ -S "$work/s" ]; do
		tries=$((tries + 1))
		[ $tries -gt 200 ] && echo "FAILED: no server: $(cat "$work/server")" && exit 1
		sleep 0.05
	done
}
end_server() {
	kill "$server" 2>/dev/null
	wait "$server" 2>/dev/null
	server=
}
sim() {
	serve "$bin/millrace" lpu sim --socket "$work/s" --chips 1 --spec tiny "$@"
}

# guest NAME TESTS QEMU-OPTION...
guest() {
	name=$1 tests=$2
	shift 2
	start=$(date +%s)
	if sh tests/guest/run.sh "$tests" "$@" >"$work/out" 2>&1; then
		word=ok
	else
		word=FAILED
		bad=1
	fi
	echo "$(($(date +%s) - start)) s  $name: $word"
	if [ $word = ok ]; then
		grep -a '^ok: ' "$work/out" | sed 's|^|        |'
	else
		grep -av 'vfio_container_dma_' "$work/out" | sed 's|^|        |'
		sed 's|^|        server: |' "$work/server" | tail -n 20
	fi
}
# ours NAME: the host's own vfio-user client over the same server
ours() {
	start=$(date +%s)
	if MR_VFIO_USER=$work/s "$bin/../tests/guest" fence >"$work/out" 2>&1; then
		echo "$(($(date +%s) - start)) s  $1: ok"
		grep -a '^ok: ' "$work/out" | sed 's|^|        |'
	else
		echo "FAILED: $1: $(cat "$work/out")"
		bad=1
	fi
}
# One node of 512 MiB. RAM must be a memfd that is shared, and sealed (QEMU's default): the server maps it.
one_node="-machine q35,memory-backend=mem -m 512 -smp 2 -object memory-backend-memfd,id=mem,size=512M,share=on
	-device intel-iommu,intremap=on,caching-mode=on -device pcie-root-port,id=rp1,chassis=1"
pci() {
	echo '{"driver":"vfio-user-pci","bus":"rp1","socket":{"path":"'"$work/s"'","type":"unix"}}'
}
# same NAME: what the guest computed is what the host does
same() {
	got=$(sed -n 's/^digest //p; s/^tokens //p' "$work/out")
	[ "$got" = "$want" ] || [ "$got" = "$want
$want" ] && return
	echo "FAILED: $1: the guest made $got, the host $want"
	bad=1
}

# The host's own: logits of the prompt of tests/guest/lpu.c, and eight tokens after it, one by one.
ids=1,2,3,5,8,13,21,34,55,89,144,233
logits() {
	"$bin/millrace" model logits -m tests/tiny.gguf --chip tiny --chips 1 --top 1 --json --digest --tokens "$1"
}
digest=$(logits $ids | sed -n 's/.*"digest":"\([0-9a-f]*\)".*/\1/p')
tokens=
for i in 1 2 3 4 5 6 7 8; do
	next=$(logits $ids | sed -n 's/.*"top":\[\[\([0-9]*\),.*/\1/p')
	tokens="$tokens $next"
	ids=$ids,$next
done
want="$digest
${tokens# }"
[ ${#digest} = 64 ] || { echo "FAILED: no digest on the host"; exit 1; }

sim
ours "our client, our server"
guest "QEMU's client, our server" "fence reset lpu tool" $one_node -device "$(pci)"
same "doorbells mapped"
end_server
sim --trapped
export MR_GUEST_APPEND=hugepages=24
guest "QEMU's client, our server, doorbells trapped, huge pages" "lpu" $one_node -device "$(pci)"
same "doorbells trapped"
grep -aq 'weights): .* on 2 MiB pages' "$work/out" || { echo "FAILED: no huge pages"; bad=1; }
unset MR_GUEST_APPEND
end_server
# A device written from the specification alone.
serve python3 tests/conformance/vfio_user_server.py "$work/s"
ours "our client, the Python server"
guest "QEMU's client, the Python server" "fence" $one_node -device "$(pci)"
end_server
# IOVAs of node 1 start at 2^40: the IOMMU must translate more than 39 bits.
sim
guest "two NUMA nodes, the device on node 1" "lpu tool" -machine q35 -m 768 -smp 4,sockets=2,cores=2 \
	-object memory-backend-memfd,id=mem,size=384M,share=on \
	-object memory-backend-memfd,id=mem1,size=384M,share=on \
	-numa node,nodeid=0,cpus=0-1,memdev=mem -numa node,nodeid=1,cpus=2-3,memdev=mem1 \
	-numa dist,src=0,dst=1,val=21 -device intel-iommu,intremap=on,caching-mode=on,aw-bits=48 \
	-device pxb-pcie,id=pxb1,bus_nr=128,numa_node=1,bus=pcie.0 -device pcie-root-port,id=rp1,bus=pxb1,chassis=1 \
	-device "$(pci)"
same "two nodes"
grep -aq "all on node 1, which is the device's" "$work/out" || { echo "FAILED: the arena is not on node 1"; bad=1; }
end_server
[ $bad = 0 ] && echo "check-guest: all passed"
exit $bad
