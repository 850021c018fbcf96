"""Page faults of partitions, answered by a thread of the monitor: the configuration region (H1 to H3, H5, H8).

    first touch -> kernel -> userfaultfd -> here: true page | changed page | all ones | poison -> the guest goes on

What a partition is shown stands in a table that the control thread replaces (`show`); whatever is not in it is all
ones. A page stays once it is there: no second trap. Pages of ones are the partition's own cost up to a budget; beyond
it the oldest is taken back and traps again. One partition's faults cost the others one bounded round.
"""

import fcntl
import os

from libc.errno cimport EAGAIN, EINTR, ENOENT, ESRCH, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from pyx.abi cimport (
    PV_CONFIG_ADDRESS, PV_CONFIG_REGION, PV_FAULT_HIDDEN, PV_FAULT_RECLAIMED, PV_FAULT_REFUSED, PV_FAULT_REMAPPED,
    PV_FAULT_REMOVED, PV_FAULT_REPLACED, PV_FAULT_UNMAPPED, PV_HIDDEN_PAGES_MAX, PV_PAGE, PV_PAGE_SHIFT,
    PV_PARTITIONS_MAX, PV_TABLE_ENTRIES_MAX, pv_statistics,
)
from pyx.eventc cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, epoll_create1, epoll_ctl, epoll_event, epoll_wait,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from pyx.ringc cimport pv_count, pv_row, pv_row_counters, pv_row_find, pv_row_take, pv_rows_close
from pyx.segment cimport Mapping

from pyx import abi as names
from pyx.process import become_data_thread

cdef extern from *:
    """
    #include "userfault.h"
    /* Takes pages out of the region: the next touch traps again. */
    static inline int pv_region_punch(int fd, uint64_t offset, uint64_t length)
    { return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length); }
    /* What a message of the kernel says: its kind, and the address or range that it is about. */
    static inline uint8_t pv_uffd_said(const struct uffd_msg *m, uint64_t *first, uint64_t *end)
    {
        if (m->event == UFFD_EVENT_PAGEFAULT) {
            *first = m->arg.pagefault.address;
            *end = m->arg.pagefault.flags;
        } else if (m->event == UFFD_EVENT_REMAP) {
            *first = m->arg.remap.from;
            *end = m->arg.remap.from + m->arg.remap.len;
        } else {
            *first = m->arg.remove.start;
            *end = m->arg.remove.end;
        }
        return m->event;
    }
    """
    struct uffd_msg:
        pass
    uint8_t UFFD_EVENT_PAGEFAULT, UFFD_EVENT_REMAP, UFFD_EVENT_REMOVE, UFFD_EVENT_UNMAP
    int pv_region_punch(int fd, uint64_t offset, uint64_t length) nogil
    uint8_t pv_uffd_said(const uffd_msg *m, uint64_t *first, uint64_t *end) nogil
    int pv_uffd_copy(int fd, uint64_t address, const void *page, uint64_t length) nogil
    int pv_uffd_poison(int fd, uint64_t address, uint64_t length) nogil
    int pv_uffd_wake(int fd, uint64_t address, uint64_t length) nogil
    ssize_t read(int fd, void *buffer, size_t size) nogil
    ssize_t pread(int fd, void *buffer, size_t size, long offset) nogil
    long lseek(int fd, long offset, int whence) nogil
    int SEEK_DATA

cdef enum:
    BATCH = 16           # messages of one partition before the next gets its turn (rules.md 12)
    RETRY_MS = 1         # a fault that waits for an event of its own process
    WAIT_MS = 1000       # every wait has a timeout (rules.md 15)
    WAKE = 0xFFFF        # in place of a partition's slot

cdef char ONES[4096]
memset(ONES, 0xFF, 4096)


cdef class Faults:
    """`statistics_fd`, `statistics_size`: the segment of kind `view` in which this thread counts."""

    def __cinit__(self, int statistics_fd, uint64_t statistics_size):
        cdef epoll_event event
        self.statistics_mapping = Mapping(statistics_fd, statistics_size)
        self.statistics = <pv_statistics *>self.statistics_mapping.base
        pthread_mutex_init(&self.mutex, NULL)
        self.poll = epoll_create1(EPOLL_CLOEXEC)
        if self.poll < 0:
            raise OSError(errno, os.strerror(errno), "epoll")
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        event.events = EPOLLIN
        event.data.u64 = WAKE
        epoll_ctl(self.poll, EPOLL_CTL_ADD, self.wake, &event)

    # ---- control thread ----

    def attach(self, uint64_t partition, int faults, int region, bint refusing=False, bint adopted=False):
        """From now on answers the faults of a partition; the descriptors stay the caller's. `refusing`: a touch of a page
        that is not shown is a signal for its toucher instead of ones. `adopted`: pages of a killed monitor are left for
        `adopt`, which begins the answers.

        ValueError where the region is no memory object of the right and fixed size, or the partition has one already.
        """
        cdef Trapped *t = &self.partitions[partition & 0xFFFF]
        if (partition & 0xFFFF) >= PV_PARTITIONS_MAX or t.id:
            raise ValueError(f"partition {partition}: its faults are answered already")
        seals = fcntl.fcntl(region, fcntl.F_GET_SEALS)
        if os.fstat(region).st_size != PV_CONFIG_REGION or not seals & fcntl.F_SEAL_SHRINK or not seals & fcntl.F_SEAL_GROW:
            raise ValueError(f"partition {partition}: its configuration region has another size, or not a fixed one")
        if not adopted and pv_region_punch(region, 0, PV_CONFIG_REGION) != 0:
            raise OSError(errno, os.strerror(errno), f"partition {partition}: emptying its configuration region")
        memset(t, 0, sizeof(Trapped))
        t.state = <uint8_t *>calloc(PV_CONFIG_REGION >> PV_PAGE_SHIFT, 1)
        t.hidden = <uint32_t *>calloc(PV_HIDDEN_PAGES_MAX, sizeof(uint32_t))
        if t.state == NULL or t.hidden == NULL:
            free(t.state)
            free(t.hidden)
            raise MemoryError
        t.counters = pv_row_counters(pv_row(self.statistics, self.open_row(partition)))
        t.faults = fcntl.fcntl(faults, fcntl.F_DUPFD_CLOEXEC, 3)
        t.region = fcntl.fcntl(region, fcntl.F_DUPFD_CLOEXEC, 3)
        t.refusing = refusing
        t.id = partition
        if not adopted:
            self.listen(partition)

    def adopt(self, uint64_t partition):
        """Takes over, after `show`, what lies in the region: pages that are as they would be shown now stay, without another
        trap. Then faults are answered; those that a killed monitor had read are made again."""
        cdef Trapped *t = self.find(partition)
        cdef char there[4096]
        cdef long at = lseek(t.region, 0, SEEK_DATA)
        while at >= 0:
            if pread(t.region, there, PV_PAGE, at) != PV_PAGE:
                raise OSError(errno, os.strerror(errno), f"partition {partition}: byte {at} of its region")
            self.find_again(t, <uint32_t>(at >> PV_PAGE_SHIFT), there)
            at = lseek(t.region, at + PV_PAGE, SEEK_DATA)
        self.listen(partition)
        pv_uffd_wake(t.faults, PV_CONFIG_ADDRESS, PV_CONFIG_REGION)

    cdef void find_again(self, Trapped *t, uint32_t page, const char *there) noexcept nogil:
        cdef const char *content
        cdef uint8_t outcome = self.shown(t, page, &content)
        t.state[page] = outcome + 1
        if memcmp(there, content, PV_PAGE) != 0 or (t.refusing and outcome == <uint8_t>PV_FAULT_HIDDEN):
            self.withdraw(t, page)
        elif outcome == <uint8_t>PV_FAULT_HIDDEN:
            self.hide(t, page)

    def listen(self, uint64_t partition):
        cdef epoll_event event
        cdef Trapped *t = self.find(partition)
        event.events = EPOLLIN
        event.data.u64 = partition & 0xFFFF
        if epoll_ctl(self.poll, EPOLL_CTL_ADD, t.faults, &event) != 0:
            self.detach(partition)
            raise OSError(f"partition {partition}: its userfaultfd cannot be waited for")

    def show(self, uint64_t partition, list pages):
        """Replaces what the partition is shown: [(page of the region, "true" or "changed", 4096 bytes)].

        A page that the partition has touched and that differs from now on is taken back: its next touch traps.
        """
        cdef Trapped *t = self.find(partition)
        cdef Shown *new = <Shown *>calloc(max(len(pages), 1), sizeof(Shown))
        cdef Shown *old
        cdef uint32_t count = 0, i
        cdef const char *text
        if new == NULL:
            raise MemoryError
        try:
            for page, outcome, content in pages:
                if not 0 <= page < PV_CONFIG_REGION >> PV_PAGE_SHIFT or len(content) != PV_PAGE or outcome not in ("true", "changed"):
                    raise ValueError(f"page {page}: not {len(content)} bytes of {outcome}")
                new[count].page = page
                new[count].outcome = names.FAULT_COUNTERS[outcome]
                new[count].content = <char *>malloc(PV_PAGE)
                if new[count].content == NULL:
                    raise MemoryError
                text = content
                memcpy(new[count].content, text, PV_PAGE)
                count += 1
        except BaseException:
            release(new, count)
            raise
        with nogil:
            pthread_mutex_lock(&self.mutex)
            for i in range(t.shown_count):
                if not same(&t.shown[i], new, count):
                    self.withdraw(t, t.shown[i].page)
            for i in range(count):
                if not same(&new[i], t.shown, t.shown_count):
                    self.withdraw(t, new[i].page)
            old, t.shown = t.shown, new
            i, t.shown_count = t.shown_count, count
            pthread_mutex_unlock(&self.mutex)
            release(old, i)

    def detach(self, uint64_t partition):
        """Answers no more; its counts stay until `forget`. Safe to call twice."""
        cdef Trapped *t = &self.partitions[partition & 0xFFFF]
        if t.id != partition or not partition:
            return
        with nogil:
            pthread_mutex_lock(&self.mutex)
            epoll_ctl(self.poll, EPOLL_CTL_DEL, t.faults, NULL)
            t.id = 0
            pthread_mutex_unlock(&self.mutex)
        os.close(t.faults)
        os.close(t.region)
        release(t.shown, t.shown_count)
        free(t.state)
        free(t.hidden)

    def pages(self, uint64_t partition) -> dict:
        """Pages of the region that the partition has now: {page: name of the outcome}."""
        cdef Trapped *t = self.find(partition)
        outcomes = {number + 1: name for name, number in names.FAULT_COUNTERS.items()}
        cdef uint32_t page
        found = {}
        pthread_mutex_lock(&self.mutex)
        for page in range(PV_CONFIG_REGION >> PV_PAGE_SHIFT):
            if t.state[page]:
                found[page] = outcomes[t.state[page]]
        pthread_mutex_unlock(&self.mutex)
        return found

    def forget(self, uint64_t partition):
        """Frees the statistics row of a removed partition."""
        pv_rows_close(self.statistics, partition)

    def run(self, int priority=0):
        """The thread: returns after `stop`. Real-time where the right is there, so that no computing guest delays the
        answer to another; not pinned, because an answer from the guest's own processor costs a tenth."""
        self.realtime = become_data_thread((), priority)
        with nogil:
            self.loop()

    def stop(self):
        self.stopping = True
        os.eventfd_write(self.wake, 1)

    cdef Trapped *find(self, uint64_t partition) except NULL:
        cdef Trapped *t = &self.partitions[partition & 0xFFFF]
        if (partition & 0xFFFF) >= PV_PARTITIONS_MAX or not partition or t.id != partition:
            raise KeyError(partition)
        return t

    def open_row(self, uint64_t partition):
        # One that it has already goes on counting under the next monitor.
        row = pv_row_find(self.statistics, partition, 0) or pv_row_take(self.statistics, partition, 0)
        if row == 0:
            raise ValueError(f"no free statistics row among {self.statistics.rows}")
        return row

    # ---- fault thread ----

    cdef void loop(self) noexcept nogil:
        cdef epoll_event events[32]
        cdef uint64_t rung
        cdef uint32_t i, slot
        cdef int found
        while not self.stopping:
            found = epoll_wait(self.poll, events, 32, RETRY_MS if self.waiting else WAIT_MS)
            pthread_mutex_lock(&self.mutex)
            for i in range(<uint32_t>max(found, 0)):
                slot = <uint32_t>events[i].data.u64
                if slot == WAKE:
                    read(self.wake, &rung, 8)
                elif self.partitions[slot].id:  # detached since the kernel said so
                    self.serve(&self.partitions[slot])
            if self.waiting:
                self.waiting = False
                for slot in range(PV_PARTITIONS_MAX):
                    if self.partitions[slot].id and self.partitions[slot].waiting_count:
                        self.serve(&self.partitions[slot])
            pthread_mutex_unlock(&self.mutex)

    cdef void serve(self, Trapped *t) noexcept nogil:
        """One bounded round: what its kernel side says, events first, then faults, the earlier ones first."""
        cdef uffd_msg messages[BATCH]
        cdef uint64_t addresses[64 + BATCH]
        cdef uint64_t flags[64 + BATCH]
        cdef uint64_t first, end
        cdef uint32_t i, count = t.waiting_count
        cdef uint8_t kind
        cdef ssize_t size
        for i in range(count):
            addresses[i] = t.waiting[i]
            flags[i] = 0
        size = read(t.faults, messages, sizeof(uffd_msg) * (BATCH if count + BATCH <= 64 else 1))
        if size < 0 and errno != EAGAIN and errno != EINTR:
            epoll_ctl(self.poll, EPOLL_CTL_DEL, t.faults, NULL)
            return
        for i in range(<uint32_t>(max(size, 0) // sizeof(uffd_msg))):
            kind = pv_uffd_said(&messages[i], &first, &end)
            if kind != UFFD_EVENT_PAGEFAULT:
                self.event(t, kind, first, end)
            else:
                addresses[count] = first & ~<uint64_t>(PV_PAGE - 1)
                flags[count] = end
                count += 1
        t.waiting_count = 0
        for i in range(count):
            if not self.answer(t, addresses[i], flags[i]) and t.waiting_count < 64:
                t.waiting[t.waiting_count] = addresses[i]
                t.waiting_count += 1
                self.waiting = True

    cdef void event(self, Trapped *t, uint8_t kind, uint64_t first, uint64_t end) noexcept nogil:
        """The partition changed one of its own regions: counted. What it dropped traps again, what it moved is refused
        where it lies now."""
        if kind == UFFD_EVENT_REMAP:
            pv_count(&t.counters[<int>PV_FAULT_REMAPPED], 1)
        elif kind == UFFD_EVENT_UNMAP:
            pv_count(&t.counters[<int>PV_FAULT_UNMAPPED], 1)
        elif kind == UFFD_EVENT_REMOVE:
            pv_count(&t.counters[<int>PV_FAULT_REMOVED], 1)

    cdef bint outside(self, Trapped *t, uint64_t address, uint64_t flags) noexcept nogil:
        """A fault outside the configuration region. Without anybody who knows the range it is refused."""
        cdef int status = pv_uffd_poison(t.faults, address, PV_PAGE)
        if status < 0:
            return errno == ENOENT or errno == ESRCH
        if status == 0:
            pv_count(&t.counters[<int>PV_FAULT_REFUSED], 1)
            pv_uffd_wake(t.faults, address, PV_PAGE)
        return True

    cdef bint answer(self, Trapped *t, uint64_t address, uint64_t flags) noexcept nogil:
        """False: not now, because the kernel wants an event read first."""
        if address < PV_CONFIG_ADDRESS or address - PV_CONFIG_ADDRESS >= PV_CONFIG_REGION:
            return self.outside(t, address, flags)
        return self.install(t, <uint32_t>((address - PV_CONFIG_ADDRESS) >> PV_PAGE_SHIFT))

    cdef uint8_t shown(self, Trapped *t, uint32_t page, const char **content) noexcept nogil:
        """What a page is to be, and what it then holds."""
        cdef uint32_t i
        for i in range(t.shown_count):
            if t.shown[i].page == page:
                content[0] = t.shown[i].content
                return t.shown[i].outcome
        content[0] = ONES
        return <uint8_t>PV_FAULT_HIDDEN

    cdef bint install(self, Trapped *t, uint32_t page) noexcept nogil:
        cdef const char *content
        cdef uint8_t outcome = self.shown(t, page, &content)
        cdef uint64_t address = PV_CONFIG_ADDRESS + (<uint64_t>page << PV_PAGE_SHIFT)
        cdef int status
        if t.refusing and outcome == <uint8_t>PV_FAULT_HIDDEN:
            return self.outside(t, address, 0)
        status = pv_uffd_copy(t.faults, address, content, PV_PAGE)
        if status == 1:
            return True  # another thread of the partition touched it too
        if status < 0:
            if errno == ENOENT or errno == ESRCH:
                return True  # the range or its process is gone
            return False     # EAGAIN: an event comes first; ENOMEM: later
        t.state[page] = outcome + 1
        pv_count(&t.counters[outcome], 1)
        if outcome == <uint8_t>PV_FAULT_HIDDEN:
            self.hide(t, page)
        pv_uffd_wake(t.faults, address, PV_PAGE)
        return True

    cdef void hide(self, Trapped *t, uint32_t page) noexcept nogil:
        """Charges a page of ones; beyond the budget the oldest is taken back."""
        cdef uint32_t oldest
        if t.hidden_count == PV_HIDDEN_PAGES_MAX:
            oldest = t.hidden[t.hidden_head]
            t.hidden_head = (t.hidden_head + 1) % PV_HIDDEN_PAGES_MAX
            t.hidden_count -= 1
            if t.state[oldest] == <uint8_t>PV_FAULT_HIDDEN + 1:
                pv_region_punch(t.region, <uint64_t>oldest << PV_PAGE_SHIFT, PV_PAGE)
                t.state[oldest] = 0
                pv_count(&t.counters[<int>PV_FAULT_RECLAIMED], 1)
        t.hidden[(t.hidden_head + t.hidden_count) % PV_HIDDEN_PAGES_MAX] = page
        t.hidden_count += 1

    cdef void withdraw(self, Trapped *t, uint32_t page) noexcept nogil:
        """The view changed here: what is installed goes, and the next touch traps."""
        if t.state[page]:
            pv_region_punch(t.region, <uint64_t>page << PV_PAGE_SHIFT, PV_PAGE)
            t.state[page] = 0
            pv_count(&t.counters[<int>PV_FAULT_REPLACED], 1)


cdef bint same(const Shown *one, const Shown *others, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        if others[i].page == one.page:
            return others[i].outcome == one.outcome and memcmp(others[i].content, one.content, PV_PAGE) == 0
    return False


cdef void release(Shown *shown, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        free(shown[i].content)
    free(shown)
