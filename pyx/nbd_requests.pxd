from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.memory cimport Buffer


cdef extern from "nbd.h" nogil:
    enum:
        PV_NBD_READ
        PV_NBD_WRITE
        PV_NBD_DISCONNECT
        PV_NBD_FLUSH
        PV_NBD_TRIM
        PV_NBD_WRITE_ZEROES
        PV_NBD_BLOCK_STATUS
        PV_NBD_FLAG_FUA
        PV_NBD_FLAG_NO_HOLE
        PV_NBD_FLAG_DF
        PV_NBD_FLAG_ONE
        PV_NBD_REQUEST_SIZE
        PV_NBD_STATE_HOLE
        PV_NBD_OK
        PV_NBD_EPERM
        PV_NBD_EIO
        PV_NBD_EINVAL
        PV_NBD_ENOSPC
        PV_NBD_ESHUTDOWN

    struct pv_nbd_request:
        uint64_t cookie
        uint64_t offset
        uint32_t length
        uint16_t flags
        uint16_t command

    bint pv_nbd_parse(const uint8_t *at, pv_nbd_request *request)
    uint8_t *pv_nbd_put32(uint8_t *at, uint32_t value)
    uint32_t pv_nbd_simple(uint8_t *head, uint64_t cookie, uint32_t error)
    uint32_t pv_nbd_data(uint8_t *head, uint64_t cookie, uint64_t offset, uint32_t length)
    uint32_t pv_nbd_error(uint8_t *head, uint64_t cookie, uint32_t error)
    uint32_t pv_nbd_status(uint8_t *head, uint64_t cookie, uint32_t descriptors)
    uint32_t pv_nbd_reason(uint16_t status, uint16_t reason)
    void pv_nbd_payload(char *to, const char *source, uint32_t length)
    void pv_nbd_keep(char *bytes, uint32_t begin, uint32_t end)

cdef extern from "pool.h" nogil:
    struct pv_pool:
        uint32_t pages
    bint pv_pool_init(pv_pool *pool, uint32_t pages)
    void pv_pool_free(pv_pool *pool)
    bint pv_pool_take(pv_pool *pool, uint32_t count, uint32_t *first)
    void pv_pool_give(pv_pool *pool, uint32_t first, uint32_t count)


cdef enum:
    NOBODY = 0xFFFFFFFF
    REQUESTS = 2048         # of all connections at once: eight times what a disk's queue takes
    DISKS = 32              # as many as a partition has endpoints
    STATUS_PAGES = 8        # of a block status: where its descriptors stand, 8 bytes each

# One request of a client, from its head to the last byte of its reply.
cdef struct Request:
    uint64_t cookie
    uint64_t offset         # as the client said
    uint64_t start, span    # the same in whole sectors: first byte and bytes
    uint64_t cursor         # bytes of the span that the disk was asked for
    uint32_t length
    uint32_t pieces         # requests to the disk in flight
    uint32_t received       # bytes of the payload of a write
    uint32_t first_page, pages
    uint32_t connection
    uint32_t disk
    uint32_t next           # in whichever list it is: free, of its disk, of replies
    uint32_t error          # enum pv_nbd_error
    uint32_t descriptors    # of a block status,
    uint32_t last_state     # and of the last of them
    uint32_t head_size, data_size
    uint16_t command, flags
    bint listed             # in the list of its disk
    bint used
    uint8_t head[28]

cdef struct Disk:
    void *queue             # ClientQueue, kept alive by `kept`
    uint64_t size
    uint32_t transfer_max
    bint read_only
    bint gone               # taken away: nobody answers
    uint32_t *owner         # request by slot in flight
    uint32_t head, tail     # list of requests that the disk was not asked for as a whole
    uint32_t in_flight


cdef class NbdRequests:
    cdef Buffer buffer
    cdef char *memory
    cdef pv_pool pool
    cdef uint32_t free_pages
    cdef Request *requests
    cdef uint32_t free_request, free_requests  # first of the list, and how many
    cdef Disk disks[32]
    cdef uint32_t disk_count
    cdef list kept
    cdef bint freed         # a request or a page became free since the last look
    cdef readonly uint64_t served

    cdef uint32_t open_request(self, uint32_t connection, uint32_t pages) noexcept nogil
    cdef void close_request(self, uint32_t index) noexcept nogil
    cdef void append(self, uint32_t *head, uint32_t *tail, uint32_t index) noexcept nogil
    cdef void ask(self, uint32_t index) noexcept nogil
    cdef void hand_over(self, Disk *disk) noexcept nogil
    cdef bint ask_next(self, Disk *disk, Request *r, uint32_t index) noexcept nogil
    cdef uint32_t collect(self, Disk *disk) noexcept nogil
    cdef void piece_done(self, uint32_t index, uint32_t bytes) noexcept nogil
    cdef void describe(self, Request *r, uint32_t bytes) noexcept nogil
    cdef void finished(self, uint32_t index) noexcept nogil
    cdef bint abandoned(self, const Request *r) noexcept nogil
    cdef bint inside(self, Disk *d, uint64_t offset, uint32_t length) noexcept nogil
    cdef bint ring_pending(self) noexcept nogil
