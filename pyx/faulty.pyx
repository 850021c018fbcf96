"""A device that misbehaves as it is told: the fault plane's part in the data thread (rules.md 40; faults.h).

Off, it costs one branch a batch: `faults` is NULL. Armed, each request is looked up in the rules before it is executed,
and a struck one goes through `interfere`; what concerns its completion is carried along in the job, also through the
kernel, and happens in `alter`.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from pyx.abi cimport (
    PV_FRAME_MIN, PV_NET_HEADER, PV_OP_READ, PV_OP_SEND, PV_OP_SEND_HEADED, PV_OP_WRITE, PV_REASON_MEDIUM_ERROR,
    PV_REASON_MEDIUM_SHORT, PV_SECTOR, PV_STATUS_FAILED, PV_THREAD_INJECTED_DELAY,
)
from pyx.faultsc cimport (
    PV_INJECT_CERTAIN, PV_INJECT_CORRUPT, PV_INJECT_DELAY, PV_INJECT_DUPLICATE, PV_INJECT_ERROR, PV_INJECT_INTERRUPT,
    PV_INJECT_LATE, PV_INJECT_LOG_MAX, PV_INJECT_LOST, PV_INJECT_NONE, PV_INJECT_RULES_MAX, PV_INJECT_TORN, pv_faults,
    pv_inject_choose, pv_inject_commit, pv_inject_line, pv_inject_rule,
)
from pyx.dmac cimport pv_span
from pyx.intake cimport Intake
from pyx.ledgerc cimport pv_device_end
from pyx.portc cimport BATCH, Job, Port, Server
from pyx.ringc cimport pv_count, pv_now, pv_pause, pv_producer_free, pv_silence_last

from pyx import abi as names

cdef uint64_t FOREVER = <uint64_t>-1

#: kinds of faults of a request, by name
KINDS = {
    "delay": PV_INJECT_DELAY, "error": PV_INJECT_ERROR, "duplicate": PV_INJECT_DUPLICATE, "lost": PV_INJECT_LOST,
    "late": PV_INJECT_LATE, "interrupt": PV_INJECT_INTERRUPT, "torn": PV_INJECT_TORN, "corrupt": PV_INJECT_CORRUPT,
}
RULES_MAX = PV_INJECT_RULES_MAX
NAMES = {number: name for name, number in KINDS.items()}


cdef class Faulty(Intake):
    def __dealloc__(self):
        free(self.faults)

    def arm(self, list rules, uint64_t seed):
        """From now on these rules strike, in place of earlier ones; counting and log begin anew. Each is a dict of
        `kind` (KINDS), `port`, `operation` ("" for any), `after`, `most` (0: no end), `chance` (0 to 1) and
        `nanoseconds`. KeyError: such a port, kind or operation is not there; ValueError: too many rules."""
        cdef pv_faults *made
        cdef pv_inject_rule *rule
        cdef uint32_t i
        if len(rules) > PV_INJECT_RULES_MAX:
            raise ValueError(f"{len(rules)} faults at one device; at most {PV_INJECT_RULES_MAX}")
        numbers = [(KINDS[one["kind"]], names.OPERATIONS[one["operation"]] if one["operation"] else 0) for one in rules]
        for one in rules:
            self.attached(one["port"])
        made = <pv_faults *>calloc(1, sizeof(pv_faults))
        if made == NULL:
            raise MemoryError()
        made.seed = seed
        made.count = len(rules)
        for i, one in enumerate(rules):
            rule = &made.rules[i]
            rule.kind, rule.operation = numbers[i]
            rule.port = one["port"]
            rule.generation = self.ports[rule.port].generation
            rule.after = one["after"]
            rule.most = one["most"]
            rule.chance = <uint32_t>(one["chance"] * PV_INJECT_CERTAIN)
            rule.ns = one["nanoseconds"]
        self.clear_faults()
        with self.quiet():
            self.faults = made

    def clear_faults(self):
        """No rule strikes any more; completions that are held back are given now."""
        cdef pv_faults *old = self.faults
        with self.quiet():
            self.faults = NULL
            self.give_late(FOREVER)
            self.publish()
        free(old)

    def struck(self) -> dict:
        """{"rules": [{"seen", "struck"}], "log": [{"rule", "kind", "number", "operation", "length"}]}: the log's last
        lines, oldest first; `number` counts from 0 what the rule has seen."""
        cdef pv_faults *f = self.faults
        cdef pv_inject_line *line
        cdef uint64_t at
        if f == NULL:
            return {"rules": [], "log": []}
        log = []
        with self.quiet():
            for at in range(f.logged - PV_INJECT_LOG_MAX if f.logged > PV_INJECT_LOG_MAX else 0, f.logged):
                line = &f.log[at % PV_INJECT_LOG_MAX]
                log.append({"rule": line.rule, "kind": NAMES[line.kind], "number": line.number,
                            "operation": names.OPERATION_NAMES[line.operation], "length": line.length})
            counts = [{"seen": f.rules[i].seen, "struck": f.rules[i].struck} for i in range(f.count)]
        return {"rules": counts, "log": log}

    def disconnect(self, uint64_t server):
        """As that of any device; what is held back for it is given before."""
        with self.quiet():
            self.give_late(FOREVER)
            self.publish()
        Intake.disconnect(self, server)

    cdef int close_port(self, Port *port) except -1:
        self.give_late(FOREVER)
        return Intake.close_port(self, port)

    # ---- data thread ----

    cdef bint execute(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        """Executes and completes one request. `clock`: ns, begin of this one, moved on to its end by devices that
        stamp each request. False: it has to wait; nothing happened."""
        return True

    cdef bint interfere(self, Port *port, Job *job, uint64_t *clock) noexcept nogil:
        """`execute` while faults are armed."""
        cdef bint moves = (job.operation == PV_OP_READ or job.operation == PV_OP_WRITE or job.operation == PV_OP_SEND
                           or job.operation == PV_OP_SEND_HEADED)
        cdef bint paired = job.server == NULL, done = True
        cdef uint32_t length = job.length
        cdef uint64_t until
        cdef pv_inject_rule *rule = pv_inject_choose(self.faults, port.number, port.generation, job.operation, moves, paired)
        cdef uint32_t kind = PV_INJECT_NONE if rule == NULL else rule.kind
        job.fault = kind
        if kind == PV_INJECT_ERROR:
            job.fault = PV_INJECT_NONE
            self.complete(port, job, PV_STATUS_FAILED, PV_REASON_MEDIUM_ERROR, 0, clock[0], clock[0])
        elif kind == PV_INJECT_NONE:
            done = self.execute(port, job, clock)
        else:
            if kind == PV_INJECT_TORN:
                self.tear(job)
            elif kind == PV_INJECT_LATE:
                job.fault_ns = rule.ns
            port.flying += 1  # it joins no run: what happens to its completion happens to no other one
            done = self.execute(port, job, clock)
            port.flying -= 1
        if not done:
            return False
        pv_inject_commit(self.faults, rule, port.number, port.generation, job.operation, length, moves, paired)
        if kind != PV_INJECT_NONE:
            pv_count(&self.counters[<int>PV_THREAD_INJECTED_DELAY + kind - PV_INJECT_DELAY], 1)
        if kind == PV_INJECT_DELAY:
            until = pv_now() + rule.ns
            while pv_now() < until and not self.stopping:
                pv_pause()
        return True

    cdef void tear(self, Job *job) noexcept nogil:
        """Half of the request's data is left. A frame keeps its headers, which are judged before anything is moved."""
        cdef pv_span first = job.spans[0]  # a copy: it may be job.one itself
        cdef uint64_t half = (job.length if job.length < first.length else first.length) // 2 // PV_SECTOR * PV_SECTOR
        if job.operation == PV_OP_SEND or job.operation == PV_OP_SEND_HEADED:
            half = job.length // 2
            if half < PV_NET_HEADER + PV_FRAME_MIN or half > first.length:
                return
        job.one.hpa = first.hpa
        job.one.length = half
        job.spans = &job.one
        job.span_count = 1
        job.length = <uint32_t>half

    cdef void alter(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                    uint64_t start, uint64_t end) noexcept nogil:
        """The completion of a struck request."""
        cdef Job plain = job[0]
        cdef uint32_t room = 2 + BATCH + port.flying
        plain.fault = PV_INJECT_NONE
        if job.server == NULL:
            self.end_run(port, 0, self.validated)  # of the requests before it
            self.mark(port)
        if job.fault == PV_INJECT_LOST or job.fault == PV_INJECT_LATE and self.hold_back(
                port, &plain, status, reason, bytes, start, end):
            if job.fault == PV_INJECT_LOST and job.entry:
                self.entry_done(port, job.entry)  # lost for good: the next process gives it neither
            return
        if job.fault == PV_INJECT_TORN:
            status, reason = PV_STATUS_FAILED, PV_REASON_MEDIUM_SHORT
        self.complete(port, &plain, status, reason, bytes, start, end)
        if job.fault == PV_INJECT_INTERRUPT:
            self.silence(port, job.server)
        elif job.fault == PV_INJECT_CORRUPT:
            port.spoilt = True
        plain.entry = 0
        if job.fault == PV_INJECT_DUPLICATE and (
                pv_producer_free(&port.pair.completions[0], room) >= room if job.server == NULL
                else pv_producer_free(&job.server.completions, room + job.server.flying) >= room + job.server.flying):
            self.complete(port, &plain, status, reason, bytes, start, end)

    cdef void silence(self, Port *port, Server *server) noexcept nogil:
        """The guest is not woken for the completion pushed last, by this device or by its server."""
        if server == NULL:
            port.silent = True
        else:
            pv_silence_last(&server.completions)

    cdef void arrived(self, Port *port, Server *server, uint32_t operation, uint32_t length) noexcept nogil:
        """A frame has arrived in a buffer of this port, and its completion was pushed; faults are armed."""
        cdef bint paired = server == NULL
        cdef pv_inject_rule *rule = pv_inject_choose(self.faults, port.number, port.generation, operation, False, paired)
        pv_inject_commit(self.faults, rule, port.number, port.generation, operation, length, False, paired)
        if rule != NULL:
            pv_count(&self.counters[<int>PV_THREAD_INJECTED_DELAY + rule.kind - PV_INJECT_DELAY], 1)
            self.silence(port, server)

    cdef bint hold_back(self, Port *port, const Job *job, uint32_t status, uint32_t reason, uint32_t bytes,
                        uint64_t start, uint64_t end) noexcept nogil:
        """Keeps a completion until it is due; False: there is no room for one more."""
        cdef Late *late
        cdef uint32_t at = 0
        if self.late_count == LATE_MAX:
            return False
        while self.late_ones[at].port != NULL:
            at += 1
        late = &self.late_ones[at]
        late.port = port
        late.job = job[0]
        if job.request != NULL:
            late.request = job.request[0]
            late.job.request = &late.request
        if job.server == NULL and job.entry == 0:
            late.job.entry = self.record(port, job)
        if late.job.entry:
            pv_device_end(&self.ledger.entries[late.job.entry - 1], status, reason, bytes)
        late.status, late.reason, late.bytes, late.start, late.end = status, reason, bytes, start, end
        late.due = pv_now() + job.fault_ns
        self.late_count += 1
        port.flying += 1  # room for its completion is kept, and nothing of it is forgotten meanwhile
        if job.server != NULL:
            job.server.flying += 1
        return True

    cdef uint32_t give_late(self, uint64_t until) noexcept nogil:
        """Completes what is due by then; returns how many."""
        cdef uint32_t i, given = 0
        cdef Late *late
        if self.late_count == 0:
            return 0
        for i in range(LATE_MAX):
            late = &self.late_ones[i]
            if late.port == NULL or late.due > until:
                continue
            self.complete(late.port, &late.job, late.status, late.reason, late.bytes, late.start, late.end)
            late.port.flying -= 1
            if late.job.server != NULL:
                late.job.server.flying -= 1
            late.port = NULL
            self.late_count -= 1
            given += 1
        return given

    cdef uint64_t late_due(self) noexcept nogil:
        """ns at which the next completion that is held back is due; FOREVER: there is none."""
        cdef uint32_t i
        cdef uint64_t due = FOREVER
        for i in range(LATE_MAX):
            if self.late_ones[i].port != NULL and self.late_ones[i].due < due:
                due = self.late_ones[i].due
        return due
