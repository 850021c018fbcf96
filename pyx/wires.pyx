"""Wires of a NIC device: ports of its switch that lead out of the host, and the switch's memory of what lies behind them
(U9, U10; wire.h).

A wire is a port without a partition: it always has a buffer, of the device's own memory, and hands what was delivered
there to the kernel. So frames to it are judged, cut and summed like all others. What comes in is judged like a guest's
frame; its source address is learned (IEEE 802.1D, 7.8) unless it is an endpoint's, which nobody outside may claim. A frame
to an address that is nowhere known goes to all wires; endpoints have no address but their own.
"""

import os

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport fdopen
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyx.abi cimport (
    PV_FRAME_MAX, PV_HEADED_MAX, PV_NIC_FORWARDED_FRAMES, PV_NIC_RECEIVE_BYTES, PV_NIC_RECEIVE_DROPPED,
    PV_NIC_RECEIVE_FRAMES, PV_NIC_TRANSMIT_BYTES, PV_NIC_TRANSMIT_DROPPED, PV_NIC_TRANSMIT_FRAMES, PV_OFFLOADS_ALL,
    PV_OP_SEND, PV_OP_SEND_HEADED, PV_PORTS_MAX, PV_REASON_COUNT, PV_REASON_NO_BUFFER, PV_REASON_NONE, PV_STAGE_COUNT,
)
from pyx.device cimport Device
from pyx.groups cimport Groups
from pyx.offloads cimport Target
from pyx.portc cimport BATCH, Job, Port
from pyx.ringc cimport PV_CHARGE_IDLE, pv_count, pv_now, pv_row, pv_row_counters, pv_row_take, pv_rows_close
from pyx.waker cimport Waker
from pyx.wakerc cimport pv_waker_arm, pv_waker_remove
from pyx.wirec cimport (
    PV_WIRE_PACKET, PV_WIRE_PCAP, PV_WIRE_SENT, PV_WIRE_TAKEN, PV_WIRE_TAP, PV_WIRE_VXLAN, pv_wire, pv_wire_close, pv_wire_flush, pv_wire_kind,
    pv_wire_read, pv_wire_write,
)

from pyx import abi as names
from pyx.process import become_data_thread
from pyx.statistics import WIRES as _OWNERS

cdef extern from "abi.h":
    const uint32_t PV_HISTOGRAM_WORDS

KINDS = {"tap": PV_WIRE_TAP, "packet": PV_WIRE_PACKET, "vxlan": PV_WIRE_VXLAN, "pcap": PV_WIRE_PCAP}

cdef enum:
    WIRES = 16

cdef uint64_t OWNER = _OWNERS  # of the counters of wires
cdef uint64_t SWEEP_NS = 1_000_000_000


cdef class Wires(Groups):

    def __cinit__(self, *args, **kwargs):
        cdef uint32_t i
        for i in range(WIRES):
            self.wires[i].fd = self.wires[i].out = -1
        self.waker = Waker()
        self.waker.open(self.bell)

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.wire_count):
            self.drop_counters(&self.ports[self.wires[i].port])
            pv_wire_close(&self.wires[i])

    # ---- control thread ----

    cdef void drop_counters(self, Port *port):
        if port.counters != NULL:
            pv_rows_close(self.statistics, OWNER | <uint64_t>port.number << 16)
        free(port.histograms[0])

    def add_wire(self, uint32_t number, str kind, int fd, int other=-1, uint32_t vni=0, bint watches=False, uint32_t left=0):
        """Puts a wire at port `number`. `fd`: its nonblocking descriptor; of kind pcap the file to record in, -1: none, and
        `other` one to read from, past its header; of kind vxlan the bound socket, and `other` the connected one. The device
        has its own copies afterwards. `left`: bits of PV_WIRE_SENT that endpoints need not do in frames that go out here. A
        TAP or packet socket takes just these as they are; without any its frames have no header in front. ValueError where the port is taken or there are too many wires."""
        cdef pv_wire *wire = &self.wires[self.wire_count]
        cdef Port *p
        cdef uint32_t i, row
        if number >= PV_PORTS_MAX or self.ports[number].used:
            raise ValueError(f"port {number} is out of range or taken")
        if self.wire_count == WIRES:
            raise ValueError(f"at most {WIRES} wires at one device")
        memset(wire, 0, sizeof(pv_wire))
        wire.fd = wire.out = -1
        wire.kind = <pv_wire_kind><int>KINDS[kind]
        wire.headed = left and (wire.kind == PV_WIRE_TAP or wire.kind == PV_WIRE_PACKET)
        wire.withheld = 0 if watches else PV_WIRE_SENT & ~left
        wire.vni = vni
        wire.port = number
        wire.incoming = <uint8_t *>calloc(1, PV_HEADED_MAX)
        wire.outgoing = <uint8_t *>calloc(1, PV_HEADED_MAX)
        p = &self.ports[number]
        memset(p, 0, sizeof(Port))
        p.number = number
        row = pv_row_take(self.statistics, OWNER | <uint64_t>number << 16, number)
        if row:
            p.counters = pv_row_counters(pv_row(self.statistics, row))
        p.histograms[0] = <uint64_t *>calloc(PV_HISTOGRAM_WORDS, 8)
        try:
            if not (wire.incoming and wire.outgoing and p.counters and p.histograms[0]):
                raise MemoryError()
            if wire.kind == PV_WIRE_PCAP:
                if fd >= 0:
                    wire.record = fdopen(os.dup(fd), "ab")
                if other >= 0:
                    wire.replay = fdopen(os.dup(other), "rb")
            else:
                wire.fd = os.dup(fd)
                if other >= 0:
                    wire.out = os.dup(other)
                self.waker.add(wire.fd)
        except BaseException:
            self.drop_counters(p)
            pv_wire_close(wire)
            memset(p, 0, sizeof(Port))
            raise
        for i in range(1, PV_STAGE_COUNT):
            p.histograms[i] = p.histograms[0]
        p.client = PV_CHARGE_IDLE
        p.held_for = p.peer = p.fd = -1
        p.offloads = PV_OFFLOADS_ALL & ~PV_WIRE_TAKEN(PV_WIRE_SENT & ~left if wire.headed else PV_WIRE_SENT)
        p.wire = self.wire_count + 1
        p.lead = number
        p.watches = watches
        with self.quiet():
            self.install_port(p)
            self.wire_count += 1
            self.watchers += watches
            self.forget_peers()

    def remove_wire(self, uint32_t number):
        """Its descriptors are closed and what was learned behind it is forgotten. KeyError where there is none."""
        cdef Port *p = self.attached(number)
        cdef uint32_t at = p.wire - 1
        cdef uint64_t *histogram = p.histograms[0]
        if p.wire == 0:
            raise KeyError(f"port {number} is no wire")
        self.drop_line(number)
        with self.quiet():
            self.sweep(number, <uint64_t>-1)
            self.watchers -= p.watches
            self.forget_members(number, 0)
            self.close_port(p)
            if self.wires[at].fd >= 0:
                pv_waker_remove(&self.waker.one, self.wires[at].fd)
            pv_wire_close(&self.wires[at])
            self.wire_count -= 1
            if at != self.wire_count:
                self.wires[at] = self.wires[self.wire_count]
                memset(&self.wires[self.wire_count], 0, sizeof(pv_wire))
                self.wires[self.wire_count].fd = self.wires[self.wire_count].out = -1
                self.ports[self.wires[at].port].wire = at + 1
            self.forget_peers()
        pv_rows_close(self.statistics, OWNER | <uint64_t>number << 16)
        free(histogram)

    def wire_state(self, uint32_t number) -> dict:
        """Frames and bytes from and to a wire, drops by reason, how many addresses it has learned, and what ended it."""
        cdef Port *p = self.attached(number)
        cdef uint32_t i
        if p.wire == 0:
            raise KeyError(f"port {number} is no wire")
        drops = {}
        for i in range(1, PV_REASON_COUNT):
            lost = p.counters[<int>PV_NIC_TRANSMIT_DROPPED + i] + p.counters[<int>PV_NIC_RECEIVE_DROPPED + i]
            if lost:
                drops[names.REASON_NAMES[i]] = lost
        failure = self.wires[p.wire - 1].failure
        return {
            "frames_in": p.counters[<int>PV_NIC_TRANSMIT_FRAMES], "bytes_in": p.counters[<int>PV_NIC_TRANSMIT_BYTES],
            "frames_out": p.counters[<int>PV_NIC_RECEIVE_FRAMES], "bytes_out": p.counters[<int>PV_NIC_RECEIVE_BYTES],
            "drops": drops, "learned": self.count_learned(number), "groups": self.count_groups(number),
            "failure": os.strerror(failure) if failure else None,
        }

    def wake(self, processors=(), priority=0):
        """A thread of its own: rings the device's bell for readable wires, until `end_wake`."""
        become_data_thread(processors, priority)
        self.waker.run()

    def end_wake(self):
        self.waker.end()

    # ---- data thread ----

    cdef int find(self, uint64_t mac) noexcept nogil:
        """Port of an address; -1: unknown."""
        return -1

    cdef uint32_t handle(self, Port *port, const Job *job, uint64_t now) noexcept nogil:
        """What the switch does with a frame (switch.pyx)."""
        return PV_REASON_NONE

    # ---- data thread: frames to wires ----

    cdef bint wire_target(self, Port *port, Target *target) noexcept nogil:
        cdef pv_wire *wire = &self.wires[port.wire - 1]
        target.one.hpa = <uint64_t>wire.outgoing - <uint64_t>self.origin
        target.one.length = target.length = PV_HEADED_MAX if wire.headed else PV_FRAME_MAX
        target.spans = &target.one
        target.entry = NULL
        target.headed = wire.headed
        return True

    cdef void wire_send(self, Port *sender, Port *port, uint32_t length) noexcept nogil:
        """What was delivered to a wire's buffer goes out. A wire never makes the switch wait: what it does not take is
        dropped, as on a cable."""
        if pv_wire_write(&self.wires[port.wire - 1], length) != 0:
            pv_count(&port.counters[<int>PV_NIC_RECEIVE_DROPPED + <int>PV_REASON_NO_BUFFER], 1)
        else:
            port.tally.received_frames += 1
            pv_count(&sender.counters[<int>PV_NIC_FORWARDED_FRAMES], 1)
        self.mark(port)

    # ---- data thread: frames from wires ----

    cdef bint enter(self, Port *port, const Job *job) noexcept nogil:
        """A frame onto the simulated line of its sender. False: there is no room on it now."""
        return True

    cdef uint32_t take_wire(self, pv_wire *wire) noexcept nogil:
        cdef Port *port = &self.ports[wire.port]
        cdef uint32_t count = 0
        cdef uint64_t wait
        cdef Job job
        memset(&job, 0, sizeof(Job))
        job.one.hpa = <uint64_t>wire.incoming - <uint64_t>self.origin
        job.spans = &job.one
        job.span_count = 1
        job.operation = PV_OP_SEND_HEADED if wire.headed else PV_OP_SEND
        while count < BATCH and wire.failure == 0:
            if wire.waiting == 0:
                wire.waiting = pv_wire_read(wire)
                if wire.waiting == 0:
                    break
            elif port.held_for >= 0 and not self.ready(port):
                wait = self.ready_at(port)
                if wait < self.wait_until:
                    self.wait_until = wait
                break
            port.held_for = -1
            job.one.length = job.length = wire.waiting
            if port.line:
                if not self.enter(port, &job):
                    break
            elif self.handle(port, &job, self.begin) == WAIT:
                wait = self.ready_at(port)
                if wait < self.wait_until:
                    self.wait_until = wait
                break
            wire.waiting = 0
            count += 1
        return count

    cdef uint32_t poll(self) noexcept nogil:
        cdef uint32_t work = Device.poll(self), i, taken = 0
        if self.wire_count == 0:
            return work
        self.begin = self.validated = pv_now()
        for i in range(self.wire_count):
            taken += self.take_wire(&self.wires[i])
        if taken or self.dirty_count:  # pieces of a frame that waits have arrived
            self.publish()
        if self.begin - self.swept > SWEEP_NS:
            self.swept = self.begin
            self.forget_old(self.begin)
        return work + taken

    cdef bint pending(self) noexcept nogil:
        cdef uint32_t i
        if Device.pending(self):
            return True
        for i in range(self.wire_count):
            if self.wires[i].record != NULL:
                pv_wire_flush(&self.wires[i])
            if self.wires[i].waiting == 0 and self.wires[i].failure == 0:
                if self.wires[i].fd >= 0:
                    pv_waker_arm(&self.waker.one, self.wires[i].fd)
                elif self.wires[i].replay != NULL:
                    return True
        return False
