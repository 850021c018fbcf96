"""The ledger of a device: what its next process has to know where this one is killed (abi_device.h; rules.md 18, 21).

    taken, not ended at once --record--> entry --entry_done--> answered --published--> free
    every publication: settle (each queue, each server) -> seal -> rings -> clear_answered

A process that follows a dead one resumes each queue as it is attached, and holds its requests in flight (`Pair.again`).
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from pyx.abi cimport (
    PV_DEVICE_ENTRIES, PV_DEVICE_LEDGER_SIZE, PV_DEVICE_SERVERS, PV_FLAG_PACK, PV_ID, PV_PORTS_MAX, PV_QUEUES_MAX,
    pv_device_commit, pv_device_entry, pv_device_ledger, pv_device_queue, pv_request,
)
from pyx.ledgerc cimport (
    pv_device_again, pv_device_clear, pv_device_ledger_open, pv_device_record, pv_device_recorded, pv_device_resume,
    pv_device_settle,
)
from pyx.loop cimport Loop
from pyx.pairc cimport pv_pair_count, pv_pair_unpack
from pyx.portc cimport Job, Pair, Port, Server
from pyx.ringc cimport pv_consumer_fetch
from pyx.segment cimport Mapping


cdef class Ledgers(Loop):

    # ---- control thread ----

    cdef int open_ledger(self, int fd) except -1:
        """Before the data thread runs. ValueError where it is another version's."""
        cdef uint32_t i
        self.ledger_mapping = Mapping(fd, PV_DEVICE_LEDGER_SIZE)
        self.ledger = <pv_device_ledger *>self.ledger_mapping.base
        if not pv_device_ledger_open(self.ledger, &self.wired_left):
            raise ValueError("the device's ledger is of another version")
        self.left = []
        for i in range(PV_DEVICE_ENTRIES):
            if pv_device_recorded(&self.ledger.entries[i]):
                self.left.append(i)
            else:
                self.free_entry(<uint16_t>i)
        return 0

    cdef int resume_pair(self, Port *port, uint64_t generation, uint64_t segment) except -1:
        """Inside or before `quiet`: the queue pair goes on where the process before this one left it, if there was one."""
        cdef Pair *pair = &port.pair
        cdef pv_device_commit commit
        cdef uint32_t i
        port.owner = PV_ID(port.number, generation)
        if self.ledger == NULL:
            return 0
        cdef pv_device_queue *queue = &self.ledger.ports[port.number * PV_QUEUES_MAX]
        again = []
        for i in range(pair.queues):
            pair.goes_on |= pv_device_resume(self.ledger, &queue[i], port.owner, segment, &pair.requests[i],
                                             &pair.completions[i], &commit)
            pair.part[i] = commit.part
            if commit.part:
                pv_consumer_fetch(&pair.requests[i], 0, &pair.head[i])
                if commit.part >= pv_pair_count(&pair.head[i]):
                    pair.part[i] = 0  # its guest has rewritten it, and bears what comes of that
            if i == 0:
                port.resumed = commit.waiting
                port.resumed_progress = commit.progress
                again = self.again_of(port.owner, &commit)
        pair.again = <uint16_t *>calloc(len(again) + 1, sizeof(uint16_t))
        if pair.again == NULL:
            raise MemoryError()
        for i, number in enumerate(again):
            pair.again[i] = number
        pair.again_count = len(again)
        pair.ledger = queue
        return 0

    cdef list again_of(self, uint64_t owner, const pv_device_commit *commit):
        """The entries of a queue that are to be done again, as they were taken; others of it are free."""
        cdef pv_device_entry *entry
        found, others = [], []
        for number in self.left:
            entry = &self.ledger.entries[<int>number]
            if entry.owner != owner:
                others.append(number)
            elif pv_device_again(entry, commit):
                found.append((entry.position, entry.part, number))
            else:
                pv_device_clear(entry)
                self.free_entry(number)
        self.left = others
        return [number for _, _, number in sorted(found)]

    cdef int resume_server(self, Server *server, uint64_t id, uint64_t segment) except -1:
        """Inside `quiet`: answers go on where the process before this one left them."""
        cdef pv_device_commit commit
        cdef pv_device_queue *queue
        cdef int i, at = -1
        if self.ledger == NULL:
            return 0
        for i in range(<int>PV_DEVICE_SERVERS):
            queue = &self.ledger.servers[i]
            if queue.owner == id:
                at = i
                break
            if queue.owner == 0 and at < 0:
                at = i
        if at < 0:
            raise ValueError(f"at most {PV_DEVICE_SERVERS} I/O partitions")
        server.ledger = &self.ledger.servers[at]
        pv_device_resume(self.ledger, server.ledger, id, segment, NULL, &server.completions, &commit)
        return 0

    cdef int drop_left(self) except -1:
        """Inside `quiet`: whoever is not here by now was detached while no process was."""
        cdef pv_device_queue *queue
        cdef uint32_t i, k
        cdef bint here
        if self.ledger == NULL:
            return 0
        for number in self.left:
            pv_device_clear(&self.ledger.entries[<int>number])
            self.free_entry(number)
        self.left = []
        for i in range(PV_PORTS_MAX * PV_QUEUES_MAX):
            if not self.ports[i // PV_QUEUES_MAX].used:
                self.ledger.ports[i].owner = 0
        for i in range(PV_DEVICE_SERVERS):
            here = False
            queue = &self.ledger.servers[i]
            for k in range(self.server_count):
                here |= self.servers[k].ledger == queue
            if not here:
                queue.owner = 0
        return 0

    cdef void close_ledger(self, Port *port) noexcept:
        """Inside `quiet`: nothing of it is done again. Its last completions are shown."""
        cdef Pair *pair = &port.pair
        cdef uint32_t i
        if pair.ledger != NULL:
            for i in range(pair.queues):
                pair.ledger[i].owner = 0
            for i in range(pair.again_head, pair.again_count):
                pv_device_clear(&self.ledger.entries[pair.again[i]])
                self.free_entry(pair.again[i])
        free(pair.again)
        pair.again = NULL
        pair.again_head = pair.again_count = 0

    # ---- data thread ----

    cdef void free_entry(self, uint16_t number) noexcept nogil:
        self.entries_free[self.entries_free_count] = number
        self.entries_free_count += 1

    cdef uint32_t record(self, Port *port, const Job *job) noexcept nogil:
        """Records the request of a queue pair that is at work, as it does not end at once; its entry + 1, 0: there is no
        ledger, or no room."""
        cdef Pair *pair = &port.pair
        cdef uint16_t number
        cdef pv_request request
        if self.ledger == NULL or self.entries_free_count == 0 or pair.said == NULL:
            return 0
        if pair.said.flags & PV_FLAG_PACK:
            pv_pair_unpack(&pair.translation, pair.said, pair.part[0], job.enqueued, &request)
        else:
            request = pair.said[0]
        self.entries_free_count -= 1
        number = self.entries_free[self.entries_free_count]
        pv_device_record(&self.ledger.entries[number], port.owner, pair.requests[0].head + pair.taken[0], pair.part[0], &request)
        return <uint32_t>number + 1

    cdef bint recordable(self, const Job *job) noexcept nogil:
        """Is there room for a request, should it not end at once?"""
        return self.ledger == NULL or job.server != NULL or job.entry != 0 or self.entries_free_count > 0

    cdef void entry_done(self, Port *port, uint32_t entry) noexcept nogil:
        """The completion that was pushed last is that of an entry: it is cleared once that is shown."""
        self.ledger.entries[entry - 1].done = port.pair.completions[0].tail
        self.answered[self.answered_count] = <uint16_t>(entry - 1)
        self.answered_count += 1

    cdef bint settle_port(self, Port *port) noexcept nogil:
        """Writes down where its queues stand, once all their completions are pushed. Has anything changed?"""
        cdef Pair *pair = &port.pair
        cdef uint32_t i
        cdef bint changed = False
        for i in range(pair.queues):
            if (pair.taken[i] or pair.part[i] or pair.completions[i].tail != pair.completions[i].published
                    or i == 0 and port.progress != port.settled_progress):
                pv_device_settle(self.ledger, &pair.ledger[i], pair.requests[i].head + pair.taken[i], pair.completions[i].tail,
                                 pair.part[i], port.sending if i == 0 and port.progress else 0, 0 if i else port.progress)
                changed = True
        port.settled_progress = port.progress
        return changed

    cdef bint settle_servers(self) noexcept nogil:
        cdef uint32_t i
        cdef bint changed = False
        for i in range(self.server_count):
            if self.servers[i].completions.tail != self.servers[i].completions.published:
                pv_device_settle(self.ledger, self.servers[i].ledger, 0, self.servers[i].completions.tail, 0, 0, 0)
                changed = True
        return changed

    cdef void clear_answered(self) noexcept nogil:
        """Complete first, clear second (rules.md 18)."""
        cdef uint16_t number
        while self.answered_count:
            self.answered_count -= 1
            number = self.answered[self.answered_count]
            pv_device_clear(&self.ledger.entries[number])
            self.free_entry(number)
