"""Statistics segments as Python sees them: created by hostd, written by one thread, read at each scrape.

Layout: abi.h, struct pv_statistics. `Reader.rows()` costs one pass over the rows in use and blocks nobody.
"""

from libc.stdint cimport uint32_t, uint64_t

from pyx cimport abi
from pyx.abi cimport (
    PV_BUCKETS, PV_PARTITIONS_MAX, PV_STATISTICS_MAGIC, PV_VERSION, pv_statistics, pv_statistics_row,
)
from pyx.segment cimport Mapping

from pyx import abi as names

cdef extern from "statistics.h" nogil:
    pv_statistics_row *pv_row(pv_statistics *s, uint32_t index)
    uint64_t pv_row_partition(const pv_statistics_row *row)
    uint64_t pv_row_endpoint(const pv_statistics_row *row)
    uint64_t *pv_row_counters(pv_statistics_row *row)
    uint64_t *pv_row_histogram(pv_statistics_row *row, uint32_t counters, uint32_t index)
    uint64_t pv_bucket_limit(uint32_t index)

cdef extern from "charge.h" nogil:
    uint64_t pv_charge_read(const pv_statistics *s, uint64_t partition)

cdef extern from * nogil:
    """
    #include "abi.h"
    static inline uint64_t pv_word(const uint64_t *word) { return __atomic_load_n(word, __ATOMIC_RELAXED); }
    static inline uint64_t pv_charge_partition(struct pv_statistics *s, uint32_t slot)
    { return atomic_load_explicit(&s->charges[slot].partition, memory_order_acquire); }
    """
    uint64_t pv_word(const uint64_t *word)
    uint64_t pv_charge_partition(pv_statistics *s, uint32_t slot)

#: owner of the row of the wire at a port: this number and the port above bit 16. No partition has such an id.
WIRES = 0xFFFFFFFFFF000000
KINDS = ["io", "monitor", "nic", "disk", "view", "trap", "world"]


def _counter_names(kind: str) -> dict:
    """Counter number -> name, or (name, label) for counters by operation, reason or (call, reason)."""
    base = {"io": names.IO_COUNTERS, "monitor": names.MONITOR_COUNTERS, "nic": names.NIC_COUNTERS,
            "disk": names.DISK_COUNTERS, "view": names.FAULT_COUNTERS, "trap": names.TRAP_COUNTERS, "world": {}}[kind]
    table = {}
    for name, number in base.items():
        if kind == "monitor" and name == "calls":
            calls = {0: "unknown", **{v: k for k, v in names.CALLS.items()}}
            for call, call_name in calls.items():
                for reason, reason_name in names.REASON_NAMES.items():
                    table[number + call * names.REASON_ROOM + reason] = ("calls", call_name, "done" if reason == 0 else reason_name)
        elif kind == "io" and name in ("operations", "bytes"):
            for operation, operation_name in names.OPERATION_NAMES.items():
                table[number + operation] = (name, operation_name)
        elif name == "refused_calls":
            for call in range(names.TRAP_NUMBERS):
                table[number + call] = ("refused_calls", str(call))
        elif kind not in ("view", "trap") and name in ("refused", "transmit_dropped", "receive_dropped", "errors"):
            for reason, reason_name in names.REASON_NAMES.items():
                if reason:
                    table[number + reason] = (name, reason_name)
        else:
            table[number] = name
    return table


COUNTER_NAMES = {kind: _counter_names(kind) for kind in KINDS}
STAGE_NAMES = {value: name for name, value in names.STAGES.items()}


def initialize(int fd, str kind, uint32_t rows):
    """The creator's part: writes the header of a zeroed segment for `rows` rows of `kind`."""
    counters, histograms = names.STATISTICS_SHAPES[kind]
    mapping = Mapping(fd, names.statistics_size(rows, counters, histograms))
    cdef pv_statistics *s = <pv_statistics *>(<Mapping>mapping).base
    s.magic = PV_STATISTICS_MAGIC
    s.version = PV_VERSION
    s.rows = rows
    s.counters = counters
    s.histograms = histograms
    s.kind = KINDS.index(kind)
    s.row_size = abi.PV_ROW_SIZE(counters, histograms)
    mapping.detach()


cdef class Reader:
    """Read-only look at one statistics segment, of a thread that may have a name. ValueError where magic or version are not ours."""
    cdef Mapping mapping
    cdef pv_statistics *statistics
    cdef readonly str kind, thread_name

    def __init__(self, int fd, uint64_t size, str thread_name=""):
        self.thread_name = thread_name
        self.mapping = Mapping(fd, size, writable=False)
        self.statistics = <pv_statistics *>self.mapping.base
        if self.statistics.magic != PV_STATISTICS_MAGIC or self.statistics.version != PV_VERSION:
            raise ValueError("no statistics segment of this version")
        self.kind = KINDS[self.statistics.kind]

    def thread(self) -> dict:
        """Counters of the thread itself: {name: value}."""
        cdef uint64_t *c = pv_row_counters(pv_row(self.statistics, 0))
        return {name: pv_word(&c[<uint32_t>number]) for name, number in names.THREAD_COUNTERS.items()}

    def charges(self) -> dict:
        """Processor time in ns that the thread spent for each partition that it knows: {id: ns}. Never goes back."""
        result = {}
        cdef uint32_t slot
        cdef uint64_t partition
        for slot in range(PV_PARTITIONS_MAX):
            partition = pv_charge_partition(self.statistics, slot)
            if partition:
                result[partition] = pv_charge_read(self.statistics, partition)
        return result

    def rows(self) -> list:
        """Rows in use: [{"partition": id, "endpoint": index, "queue": number, "kind", "counters": {name: n} or {name: {label: n}},
        "histograms": {stage: {"buckets": [(upper seconds, cumulative count)], "sum": seconds, "count": n}}}].
        Labels with two parts (calls) are nested twice. A device has two rows for a port: one of kind `io` for the
        requests of its queue pair, and its own."""
        result = []
        cdef uint32_t i, h, b
        cdef uint64_t *c
        cdef uint64_t *w
        cdef uint64_t total
        for i in range(1, self.statistics.rows):
            row = pv_row(self.statistics, i)
            partition = pv_row_partition(row)
            if partition == 0:
                continue
            c = pv_row_counters(row)
            owner = {"partition": partition, "endpoint": pv_row_endpoint(row) & 0xFF, "queue": pv_row_endpoint(row) >> 8}
            histograms = {}
            for h in range(self.statistics.histograms):
                w = pv_row_histogram(row, self.statistics.counters, h)
                total = 0
                buckets = []
                for b in range(PV_BUCKETS):
                    value = pv_word(&w[b])
                    total += value
                    if value:
                        buckets.append((pv_bucket_limit(b) / 1e9, total))
                histograms[STAGE_NAMES[h]] = {"buckets": buckets, "sum": pv_word(&w[PV_BUCKETS]) / 1e9, "count": total}
            if self.kind in ("nic", "disk"):
                result.append(owner | {"kind": "io", "counters": self.counters(c, "io"), "histograms": histograms})
                histograms = {}
            result.append(owner | {"kind": self.kind, "counters": self.counters(c, self.kind), "histograms": histograms})
        return result

    cdef dict counters(self, const uint64_t *words, str kind):
        result = {}
        for number, name in COUNTER_NAMES[kind].items():
            value = pv_word(&words[<uint32_t>number])
            if name[0] == "refused_calls" and not value:
                continue  # of hundreds of numbers a guest uses a few
            if isinstance(name, str):
                result[name] = value
            elif len(name) == 2:
                result.setdefault(name[0], {})[name[1]] = value
            else:
                result.setdefault(name[0], {}).setdefault(name[1], {})[name[2]] = value
        return result

    def detach(self):
        self.statistics = NULL
        self.mapping.detach()


def quantile(histogram: dict, q: float) -> float | None:
    """Upper bound in seconds of the bucket that holds quantile `q` (0..1) of a histogram from `Reader.rows`; None
    where nothing was observed. The bucket is at most 25 % wide."""
    wanted = q * histogram["count"]
    for upper, cumulative in histogram["buckets"]:
        if cumulative >= wanted and cumulative:
            return upper
    return None
