"""Paths of endpoints in the monitor: what is offered, who goes over, and the translation entries of queue pairs (A1, A3).

A guest goes over when it asks for the path that the last transaction wants; its server has drained the endpoint by
then. On the direct path the device translates by itself, from an entry that only this process writes.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcmp, memset

from pyx.abi cimport (
    PV_CALL_KEY, PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_ENDPOINT_DISK, PV_ENDPOINT_NIC, PV_ENDPOINT_PATH, PV_MONITOR_CALLS,
    PV_MONITOR_REFUSED, PV_OFFLOADS_ALL, PV_PARTITIONS_MAX, PV_PATH_COPY, PV_PATH_COUNT, PV_PATH_DIRECT, PV_PATH_NONE,
    PV_PATH_REDIRECT, PV_PORTS_MAX, PV_REASON_ENDPOINT_UNKNOWN, PV_REASON_GENERATION_STALE, PV_REASON_LIST_LIMIT,
    PV_REASON_NONE, PV_REASON_PATH_CLOSED, PV_REASON_PATH_DENIED, PV_REASON_ROOM,
    PV_REASON_SERVICE_UNAVAILABLE, PV_STATUS_OK, PV_STATUS_REFUSED, PV_VECTOR, PV_VECTOR_CALL, pv_completion,
    pv_endpoint, pv_monitor_page, pv_reason, pv_system_call, pv_translation,
)
from pyx.callers cimport Caller, EVENTS_MAX, path_of
from pyx.capacityc cimport pv_capacity_tell
from pyx.grantc cimport PV_NIC_WITHHELD, pv_grant_clear, pv_grant_read, pv_grant_renew, pv_grant_tell, pv_grants
from pyx.offloadc cimport PV_PATH_OFFLOADS
from pyx.pairc cimport pv_translation_close, pv_translation_fill, pv_translation_open, pv_translation_read
from pyx.ringc cimport pv_count, pv_interrupt_post, pv_now, pv_producer_push
from pyx.translator cimport Translator

from pyx import abi as names

cdef enum:
    PATH_BITS = 3 << 8  # of an endpoint's flags (abi_partition.h)

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void *to, size_t length, unsigned int flags)

cdef extern from *:
    """
    #include "abi.h"
    static inline void pv_want_path(struct pv_monitor_page *page, uint32_t endpoint, uint32_t path)
    { atomic_store_explicit(&page->wanted[endpoint], path, memory_order_seq_cst); }
    """
    void pv_want_path(pv_monitor_page *page, uint32_t endpoint, uint32_t path) nogil


cdef class Pairs(Translator):
    """The path in force for each endpoint, and the keys of queue pairs."""

    def offer_path(self, uint64_t partition, uint32_t endpoint) -> str:
        """Takes the view in force and tells the partition which path it wants for `endpoint`. Returns the path that is
        in force: after the return a guest can go over only to the one that is wanted now."""
        cdef Caller *c = self.opened(partition)
        cdef uint32_t path
        if endpoint >= PV_ENDPOINTS_MAX or not c.calls:
            raise KeyError(f"partition {partition:#x} has no endpoint {endpoint} or no call ring")
        with self.quiet():
            self.refresh(c)
            path = PV_ENDPOINT_PATH(c.descriptor.endpoints[endpoint].flags)
            pv_want_path(<pv_monitor_page *>c.doorbell, endpoint, path)
            pv_interrupt_post(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL, self.symmetric)
            path = path_of(c, endpoint)
        return names.PATH_NAMES[path]

    def set_offloads(self, uint32_t device, uint32_t withheld, by_peer, bint renewed=False):
        """Bits that a device withholds from its endpoints, and by port those that its wires do. Told to all partitions at
        once. `renewed`: it has another process, so what drivers were shown is to be shown again."""
        cdef uint32_t i
        if device >= PV_DEVICES_MAX:
            raise ValueError(f"device slot {device}: at most {PV_DEVICES_MAX}")
        if any(not 0 <= port < PV_PORTS_MAX for port in by_peer):
            raise ValueError(f"ports {list(by_peer)}: at most {PV_PORTS_MAX}")
        with self.quiet():
            self.withheld[device] = withheld
            for i in range(PV_PORTS_MAX):
                self.withheld_by_peer[device][i] = by_peer.get(i, 0)
            for i in range(PV_PARTITIONS_MAX):
                if self.callers[i].used:
                    self.viewed(&self.callers[i])
                    if renewed:
                        self.renew(&self.callers[i], device)

    def offloads(self, uint64_t partition) -> dict:
        """{endpoint: {"granted", "device", "path", "policy", "peer", "proved", "disproved"}} of a partition's NICs, as bits
        of abi.OFFLOADS. The last two are its own word."""
        cdef Caller *c = self.opened(partition)
        cdef pv_grants found
        cdef uint32_t i
        told = {}
        for i in range(PV_ENDPOINTS_MAX):
            if c.calls and c.descriptor.endpoints[i].generation and c.descriptor.endpoints[i].kind == PV_ENDPOINT_NIC:
                found = pv_grant_read(<pv_monitor_page *>c.doorbell, i)
                told[i] = {"granted": found.granted, "device": found.withheld[0], "path": found.withheld[1],
                           "policy": found.withheld[2], "peer": found.withheld[3], "proved": found.proved,
                           "disproved": found.disproved}
        return told

    cdef void viewed(self, Caller *c) noexcept nogil:
        cdef uint32_t i
        if c.calls:
            for i in range(PV_ENDPOINTS_MAX):
                self.tell_offloads(c, i)
                if c.paths[i] != PV_PATH_DIRECT:  # there the device lets it pass once it has the entry: write_entry
                    self.tell_capacity(c, i)

    cdef void tell_capacity(self, Caller *c, uint32_t index) noexcept nogil:
        """Writes the size of a disk into the page that the partition reads, and wakes it where that is a new one."""
        cdef const pv_endpoint *endpoint = &c.descriptor.endpoints[index]
        cdef uint64_t bytes = endpoint.length if endpoint.generation and endpoint.kind == PV_ENDPOINT_DISK else 0
        if c.calls and pv_capacity_tell(<pv_monitor_page *>c.doorbell, index, endpoint.generation, bytes):
            pv_interrupt_post(c.interrupts, <uint64_t>1 << PV_VECTOR_CALL, self.symmetric)

    cdef void renew(self, Caller *c, uint32_t device) noexcept nogil:
        cdef uint32_t i
        for i in range(PV_ENDPOINTS_MAX if c.calls else 0):
            if c.descriptor.endpoints[i].kind == PV_ENDPOINT_NIC and c.descriptor.endpoints[i].device == device:
                pv_grant_renew(<pv_monitor_page *>c.doorbell, i)

    cdef void tell_offloads(self, Caller *c, uint32_t index) noexcept nogil:
        """Writes what an endpoint may use into the page that the partition reads: device and path and policy and peer."""
        cdef const pv_endpoint *endpoint = &c.descriptor.endpoints[index]
        cdef uint32_t withheld[4]
        if endpoint.generation == 0 or endpoint.kind != PV_ENDPOINT_NIC:
            pv_grant_clear(<pv_monitor_page *>c.doorbell, index)
            return
        withheld[0] = self.withheld[endpoint.device] if endpoint.device < PV_DEVICES_MAX else PV_OFFLOADS_ALL
        withheld[1] = PV_OFFLOADS_ALL & ~PV_PATH_OFFLOADS(path_of(c, index))
        withheld[2] = PV_NIC_WITHHELD(endpoint.length)
        withheld[3] = 0
        if endpoint.device < PV_DEVICES_MAX and endpoint.port < PV_PORTS_MAX:
            withheld[3] = self.withheld_by_peer[endpoint.device][endpoint.port]
        pv_grant_tell(<pv_monitor_page *>c.doorbell, index, withheld)

    def path(self, uint64_t partition, uint32_t endpoint) -> str:
        """The path in force."""
        cdef Caller *c = self.opened(partition)
        return names.PATH_NAMES[path_of(c, endpoint)]

    def adopt_pair(self, uint64_t partition, uint32_t index) -> bool:
        """Takes over the queue pair that the console opened by itself before there was a monitor (W1): its entry stays
        in force, under its key, where it says what the descriptor and the map say. False: it did not, and is closed."""
        cdef Caller *c = self.opened(partition)
        cdef bint equal
        if index >= PV_ENDPOINTS_MAX:
            raise KeyError(f"partition {partition:#x} has no endpoint {index}")
        with self.quiet():
            self.refresh(c)
            if not self.has_entry(c, index):
                raise KeyError(f"partition {partition:#x} has no endpoint {index} at a connected device")
            equal = self.take_pair(c, index)
        return equal

    cdef bint has_entry(self, Caller *c, uint32_t index) noexcept nogil:
        cdef const pv_endpoint *endpoint = &c.descriptor.endpoints[index]
        return (endpoint.generation != 0 and endpoint.device < PV_DEVICES_MAX and endpoint.port < PV_PORTS_MAX
                and self.translations[endpoint.device] != NULL)

    cdef bint take_pair(self, Caller *c, uint32_t index) noexcept nogil:
        """Goes on with a queue pair that another writer has set up, under its key, if its entry says what descriptor and
        map say; it may have been set up before the present wish for a path, or before its disk grew. False: it did not,
        and is closed."""
        cdef pv_translation found, wanted
        cdef pv_endpoint endpoint = c.descriptor.endpoints[index]
        cdef bint equal, grown = False
        memset(&wanted, 0, sizeof(wanted))
        equal = (c.map != NULL and pv_translation_fill(&wanted, c.map, c.descriptor.memory_pages)
                 and pv_translation_read(&self.translations[endpoint.device][endpoint.port], &found))
        if equal:
            endpoint.flags = endpoint.flags & ~<uint32_t>PATH_BITS | found.endpoint.flags & PATH_BITS
            grown = endpoint.kind == PV_ENDPOINT_DISK and found.endpoint.length < endpoint.length
            if grown:
                endpoint.length = found.endpoint.length
            equal = (found.key != 0 and found.partition == c.id and found.index == index
                     and found.extent_count == wanted.extent_count
                     and memcmp(&found.endpoint, &endpoint, sizeof(pv_endpoint)) == 0
                     and memcmp(found.extents, wanted.extents, sizeof(wanted.extents)) == 0)
        self.set_path(c, index, PV_PATH_DIRECT)
        c.keys[index] = found.key if equal else 0
        if equal and grown:
            equal = self.write_entry(c, index, found.key) == PV_REASON_NONE
        if not equal:
            self.close_pair(c, index)
        return equal

    def give_pair(self, uint64_t partition, uint32_t index):
        """Forgets a queue pair without closing it: from now on the console writes its entry again (W10)."""
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            if index < PV_ENDPOINTS_MAX:
                self.set_path(c, index, 0)
                c.keys[index] = 0

    def drop_endpoint(self, uint64_t partition, uint32_t index):
        """An endpoint goes while its guest runs: no queue pair, no wish for a path. Requests that still name it are
        refused by the device, which knows its port's generation."""
        cdef Caller *c = self.opened(partition)
        if index >= PV_ENDPOINTS_MAX:
            raise KeyError(f"partition {partition:#x} has no endpoint {index}")
        with self.quiet():
            self.close_pair(c, index)
            self.set_path(c, index, 0)
            c.keys[index] = 0
            if c.calls:
                pv_want_path(<pv_monitor_page *>c.doorbell, index, PV_PATH_NONE)

    def cut_pair(self, uint64_t partition, uint32_t index) -> int:
        """Takes the queue pair of an endpoint from its guest: the entry is closed, the key is void, and the endpoint is on the
        redirected path. Returns the generation of the last entry that was written. Safe to call twice."""
        cdef Caller *c = self.opened(partition)
        if index >= PV_ENDPOINTS_MAX:
            raise KeyError(f"partition {partition:#x} has no endpoint {index}")
        with self.quiet():
            self.refresh(c)
            self.close_pair(c, index)
            if c.calls:
                self.tell_offloads(c, index)
        return self.translation_generation

    def silence(self, uint64_t partition, bint on):
        """Calls of a partition are refused (`call_denied`) from the return on, or carried out again."""
        cdef Caller *c = self.opened(partition)
        with self.quiet():
            c.silent = on

    def retranslate(self, uint64_t partition) -> int:
        """Takes the map that was published last: after the return nothing is translated as before. Entries of queue pairs are
        written anew under their keys; returns how many of them hold no more than nothing, because the map has more pieces."""
        cdef Caller *c = self.opened(partition)
        cdef uint32_t i, closed = 0
        cdef bint current
        with self.quiet():
            current = self.refresh(c)
            for i in range(PV_ENDPOINTS_MAX):
                if c.paths[i] == PV_PATH_DIRECT and self.has_entry(c, i):
                    if not current or self.write_entry(c, i, c.keys[i]) != PV_REASON_NONE:
                        pv_translation_close(&self.translations[c.descriptor.endpoints[i].device][c.descriptor.endpoints[i].port])
                        closed += 1
        if not current:
            raise ValueError(f"partition {partition:#x}: its view cannot be read")
        return closed

    # ---- worker ----

    cdef pv_reason change_path(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """A client goes over to another path: the one that the last transaction wants, and no other. The server has
        made sure that nothing of the endpoint is in flight."""
        cdef Caller *client = NULL
        cdef pv_reason reason = self.client_of(c, call, &client)
        cdef uint32_t index = call.submit.endpoint, path = call.submit.length
        cdef const pv_endpoint *endpoint
        if reason != PV_REASON_NONE:
            return reason
        if index >= PV_ENDPOINTS_MAX or client.descriptor.endpoints[index].generation == 0:
            return PV_REASON_ENDPOINT_UNKNOWN
        endpoint = &client.descriptor.endpoints[index]
        if endpoint.generation != call.submit.endpoint_generation:
            return PV_REASON_GENERATION_STALE
        if path == PV_PATH_NONE or path >= PV_PATH_COUNT or path != PV_ENDPOINT_PATH(endpoint.flags):
            pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>PV_REASON_PATH_DENIED], 1)
            return PV_REASON_PATH_DENIED
        if path == PV_PATH_COPY and not client.mapped:
            return PV_REASON_PATH_DENIED
        if self.event_count == EVENTS_MAX:
            return PV_REASON_SERVICE_UNAVAILABLE
        self.close_pair(client, index)
        if path == PV_PATH_DIRECT:
            reason = self.open_pair(client, index)
            if reason != PV_REASON_NONE:
                return reason
        self.set_path(client, index, path)
        if client.calls:
            self.tell_offloads(client, index)
            self.tell_capacity(client, index)
        self.tell(client.id, 0, 0, index, path)
        return PV_REASON_NONE

    cdef pv_reason open_pair(self, Caller *client, uint32_t index) noexcept nogil:
        """Writes the translation entry of a queue pair, under a new key: checked once, here (A3)."""
        cdef uint64_t key = 0
        if not self.has_entry(client, index):
            return PV_REASON_ENDPOINT_UNKNOWN
        while key == 0:
            if getrandom(&key, sizeof(key), 0) != <ssize_t>sizeof(key):
                return PV_REASON_SERVICE_UNAVAILABLE
        return self.write_entry(client, index, key)

    cdef pv_reason write_entry(self, Caller *client, uint32_t index, uint64_t key) noexcept nogil:
        """Publishes the entry of a queue pair under a generation that never was."""
        cdef pv_translation entry
        cdef const pv_endpoint *endpoint = &client.descriptor.endpoints[index]
        memset(&entry, 0, sizeof(entry))
        if not pv_translation_fill(&entry, client.map, client.descriptor.memory_pages):
            return PV_REASON_LIST_LIMIT
        entry.key = key
        entry.partition = client.id
        entry.index = index
        entry.endpoint = endpoint[0]
        if self.translation_generation == 0:
            self.translation_generation = pv_now()  # beyond those of an earlier monitor, whose copies devices may hold
        self.translation_generation += 1
        client.keys[index] = key
        pv_translation_open(&self.translations[endpoint.device][endpoint.port], &entry, self.translation_generation)
        self.tell_capacity(client, index)
        return PV_REASON_NONE

    cdef void tell_key(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """The key of the caller's own queue pair at endpoint number raw[0..1]: only guest, monitor and device know it."""
        cdef pv_completion answer
        cdef uint32_t index = call.raw[0] | <uint32_t>call.raw[1] << 8
        cdef pv_reason reason = PV_REASON_NONE
        if index >= PV_ENDPOINTS_MAX:
            reason = PV_REASON_ENDPOINT_UNKNOWN
        elif c.paths[index] != PV_PATH_DIRECT:
            reason = PV_REASON_PATH_CLOSED
        memset(&answer, 0, sizeof(answer))
        answer.id = call.id
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        if reason == PV_REASON_NONE:
            answer.pickup_time = c.keys[index]
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_CALL_KEY * PV_REASON_ROOM + <int>reason], 1)
