"""What the monitor does for I/O partitions with each request of a client: validate and translate, post to the device, copy
for the conventional path (U5, U8, U9, A4).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from pyx.abi cimport (
    PV_CALL_OWN, PV_CALL_SUBMIT, PV_DEVICES_MAX, PV_ENDPOINTS_MAX, PV_EXTENTS_PER_SLOT, PV_ID_SLOT, PV_MONITOR_CALLS,
    PV_MONITOR_COPIED_BYTES, PV_MONITOR_REFUSED, PV_MONITOR_TRANSLATED, PV_MONITOR_TRANSLATED_BYTES,
    PV_PARTITIONS_MAX, PV_PATH_COPY, PV_PATH_REDIRECT, PV_REASON_ENDPOINT_UNKNOWN, PV_REASON_EPOCH_STALE,
    PV_REASON_NONE, PV_REASON_ROOM, PV_REASON_PARTITION_STATE, PV_REASON_PARTITION_UNKNOWN, PV_REASON_PATH_DENIED, PV_STAGE_COPY,
    PV_STATUS_OK, PV_STATUS_REFUSED, pv_completion, pv_dma_extents, pv_kernel, pv_reason, pv_request, pv_system_call,
)
from pyx.callers cimport Caller, Callers, path_of
from pyx.dmac cimport pv_dma_move, pv_span
from pyx.ringc cimport pv_count, pv_meter_turn, pv_now, pv_producer, pv_producer_free, pv_producer_push, pv_push_dma, pv_saturate
from pyx.validatec cimport (
    pv_extent, pv_operation_has_data, pv_operation_writes_memory, pv_translate, pv_validate, pv_validate_access, pv_validate_form,
)

cdef extern from *:
    """
    #include "abi.h"
    static inline uint64_t pv_epoch_load(struct pv_kernel *kernel, uint32_t slot)
    { return atomic_load_explicit(&kernel->epochs[slot], memory_order_acquire); }
    """
    uint64_t pv_epoch_load(pv_kernel *kernel, uint32_t slot) nogil


cdef inline void request_of(const pv_system_call *call, pv_request *request) noexcept nogil:
    """The client's request that a call of its server carries."""
    memset(request, 0, sizeof(pv_request))
    request.id = call.id
    request.gpa = call.submit.gpa
    request.device_offset = call.submit.device_offset
    request.endpoint_generation = call.submit.endpoint_generation
    request.length = call.submit.length
    request.endpoint = call.submit.endpoint
    request.operation = call.submit.operation
    request.flags = call.submit.flags


cdef class Translator(Callers):
    """Submit and copy, in the name of clients whose endpoints are in the calling server's charge."""

    cdef pv_reason client_of(self, Caller *c, const pv_system_call *call, Caller **client) noexcept nogil:
        """The client in whose name a server calls, who pays for the work from here on. A refused call is the server's own
        affair: it cannot charge a partition that it does not serve."""
        cdef pv_reason reason = self.named(c, call, client)
        cdef uint32_t slot = call.client if reason == PV_REASON_NONE else PV_ID_SLOT(c.id)
        if self.meter.owner != slot:
            # The stretch that the round began with has nobody's work in it yet.
            pv_meter_turn(&self.meter, slot, 0 if self.begun else pv_now())
        self.begun = False
        return reason

    cdef pv_reason named(self, Caller *c, const pv_system_call *call, Caller **client) noexcept nogil:
        """Looks the client up: the server must hold its office and be in charge of the endpoint."""
        cdef Caller *found
        if pv_epoch_load(self.kernel, PV_ID_SLOT(c.id)) != call.submit.epoch or call.submit.epoch == 0:
            return PV_REASON_EPOCH_STALE
        found = &self.callers[call.client] if call.client < PV_PARTITIONS_MAX else NULL
        if found == NULL or not found.used or found.map == NULL:
            return PV_REASON_PARTITION_UNKNOWN
        if not self.refresh(found):
            return PV_REASON_PARTITION_STATE
        # A server may name only endpoints that the ultravisor gave into its charge.
        if (call.submit.endpoint < PV_ENDPOINTS_MAX and found.descriptor.endpoints[call.submit.endpoint].generation
                and found.descriptor.endpoints[call.submit.endpoint].server != PV_ID_SLOT(c.id)):
            return PV_REASON_PARTITION_UNKNOWN
        client[0] = found
        return PV_REASON_NONE

    cdef pv_reason check(self, Caller *c, Caller *client, const pv_system_call *call, pv_extent *extents,
                         uint32_t *count) noexcept nogil:
        """Validates a submitted request and translates its address: in the client's memory, or in the caller's own
        where the client's data went there by a copy."""
        cdef pv_request request
        cdef pv_reason reason
        cdef uint32_t path
        request_of(call, &request)
        count[0] = 0
        if call.flags & PV_CALL_OWN == 0:
            reason = pv_validate(client.cache, &client.descriptor, client.map, &request, extents, count)
            path = PV_PATH_REDIRECT
        else:
            reason = pv_validate_form(&request)
            if reason == PV_REASON_NONE:
                reason = pv_validate_access(&client.descriptor, &request)
            if reason == PV_REASON_NONE and pv_operation_has_data(request.operation):
                if c.map == NULL or not self.refresh(c):
                    return PV_REASON_PARTITION_STATE
                reason = pv_translate(c.cache, &c.descriptor, c.map, request.gpa, request.length,
                                      pv_operation_writes_memory(request.operation), extents, count)
            path = PV_PATH_COPY
        if reason == PV_REASON_NONE and path_of(client, request.endpoint) != path:
            reason = PV_REASON_PATH_DENIED
        return reason

    cdef bint submit(self, Caller *c, const pv_system_call *call, uint64_t now) noexcept nogil:
        """Validates, translates and posts one request of a client. False: no room at the device, nothing happened."""
        cdef Caller *client = NULL
        cdef pv_dma_extents more
        cdef pv_extent extents[260]
        cdef uint32_t count = 0, slots, i
        cdef pv_producer *ring
        cdef pv_reason reason = self.client_of(c, call, &client)
        if reason == PV_REASON_NONE:
            reason = self.check(c, client, call, extents, &count)
            if reason != PV_REASON_NONE:
                pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>reason], 1)
        if reason != PV_REASON_NONE:
            self.complete_submit(c, call, reason)
            return True
        endpoint = &client.descriptor.endpoints[call.submit.endpoint]
        ring = &self.hardware[c.server][endpoint.device] if endpoint.device < PV_DEVICES_MAX else NULL
        if ring == NULL or ring.ring == NULL:
            self.complete_submit(c, call, PV_REASON_ENDPOINT_UNKNOWN)
            return True
        slots = 1 if count <= 1 else 1 + (count + PV_EXTENTS_PER_SLOT - 1) // PV_EXTENTS_PER_SLOT
        if pv_producer_free(ring, slots) < slots:
            return False
        pv_push_dma(ring, call, extents[0].hpa if count == 1 else 0, call.submit.device_offset + endpoint.offset,
                    pv_saturate(now - call.submit.pickup_time if now > call.submit.pickup_time else 0),
                    PV_ID_SLOT(c.id), endpoint.port, count, <uint32_t>endpoint.generation)
        if count > 1:
            for i in range(count):
                more.extent[i % PV_EXTENTS_PER_SLOT].hpa = extents[i].hpa
                more.extent[i % PV_EXTENTS_PER_SLOT].length = extents[i].length
                if i % PV_EXTENTS_PER_SLOT == PV_EXTENTS_PER_SLOT - 1 or i == count - 1:
                    pv_producer_push(ring, &more)
        pv_count(&client.counters[<int>PV_MONITOR_TRANSLATED], 1)
        pv_count(&client.counters[<int>PV_MONITOR_TRANSLATED_BYTES], call.submit.length)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + <int>PV_CALL_SUBMIT * PV_REASON_ROOM], 1)
        return True

    cdef pv_reason copy(self, Caller *c, const pv_system_call *call) noexcept nogil:
        """Copies between a client's memory and the calling server's buffer: the conventional path (A4). Which way
        the operation says; both ranges are validated and translated like any other."""
        cdef Caller *client = NULL
        cdef pv_request request
        cdef pv_extent guest[260]
        cdef pv_extent own[260]
        cdef uint32_t guest_count = 0, own_count = 0
        cdef bint to_guest = pv_operation_writes_memory(call.submit.operation)
        cdef pv_reason reason = self.client_of(c, call, &client)
        if reason != PV_REASON_NONE:
            return reason
        request_of(call, &request)
        request.device_offset = 0  # here the caller's buffer; the client's own is validated with the call that submits it
        reason = pv_validate(client.cache, &client.descriptor, client.map, &request, guest, &guest_count)
        if reason == PV_REASON_NONE and (path_of(client, request.endpoint) != PV_PATH_COPY or not client.mapped
                                         or guest_count == 0):
            reason = PV_REASON_PATH_DENIED
        if reason != PV_REASON_NONE:
            pv_count(&client.counters[<int>PV_MONITOR_REFUSED + <int>reason], 1)
            return reason
        if c.map == NULL or not c.mapped or not self.refresh(c):
            return PV_REASON_PARTITION_STATE
        reason = pv_translate(c.cache, &c.descriptor, c.map, call.submit.device_offset, request.length, not to_guest, own,
                              &own_count)
        if reason != PV_REASON_NONE:
            return reason
        if self.delays[<int>PV_STAGE_COPY]:
            self.delay(PV_STAGE_COPY)
        pv_dma_move(self.window.origin(), <const pv_span *>(&guest[0] if to_guest else &own[0]),
                    <const pv_span *>(&own[0] if to_guest else &guest[0]), request.length,
                    &client.counters[<int>PV_MONITOR_COPIED_BYTES])
        return PV_REASON_NONE

    cdef void complete_submit(self, Caller *c, const pv_system_call *call, pv_reason reason) noexcept nogil:
        cdef pv_completion answer
        memset(&answer, 0, sizeof(answer))
        answer.id = call.id
        answer.epoch = call.submit.epoch
        answer.status = PV_STATUS_OK if reason == PV_REASON_NONE else PV_STATUS_REFUSED
        answer.reason = reason
        answer.queue = call.queue
        answer.call = call.call
        answer.pickup_time = call.submit.pickup_time
        pv_producer_push(&c.completions, &answer)
        pv_count(&c.counters[<int>PV_MONITOR_CALLS + call.call * PV_REASON_ROOM + <int>reason], 1)
