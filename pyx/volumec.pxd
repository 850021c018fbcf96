"""C declarations of volume.h and volume_check.h; nothing else."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "volume_check.h" nogil:
    const uint32_t PV_VOLUME_VERSION
    const uint32_t PV_VOLUME_PAGE
    const uint32_t PV_VOLUME_LIVE
    const uint32_t PV_VOLUME_READ_ONLY
    const uint32_t PV_FOUND_KINDS
    const uint64_t PV_VOLUME_DISK_BLOCKS

    struct pv_volume_io:
        void *context

    struct pv_volume_super:
        uint64_t sequence
        uint8_t id[16]
        uint64_t size
        uint32_t block_size
        uint64_t journal_pages
        uint64_t table_first
        uint64_t table_pages
        uint64_t pointers_first
        uint64_t pointers_pages
        uint64_t blocks

    struct pv_volume_row:
        uint32_t state
        uint32_t flags
        uint64_t generation
        uint8_t id[16]
        uint8_t parent[16]
        char name[64]
        uint64_t size
        uint64_t quota
        uint64_t allocated
        uint64_t created

    struct pv_volume_extent:
        uint64_t offset
        uint64_t length

    struct pv_volume_disk:
        uint64_t size
        uint32_t row
        bint read_only

    struct pv_volume:
        pv_volume_io io
        pv_volume_super super
        uint32_t rows
        uint64_t free_blocks
        uint64_t free_pages
        uint64_t held_count
        uint64_t dirty_count
        uint64_t commits
        uint64_t checkpoints
        uint64_t copied_blocks
        uint64_t filled_blocks
        int failed
        char problem[256]

    struct pv_volume_check:
        pv_volume *v
        bint repair
        void *context
        void (*report)(void *context, uint32_t kind, const char *text) noexcept

    pv_volume_io pv_volume_file(int fd)
    uint32_t pv_volume_block_count(const pv_volume *v, uint64_t block)
    uint64_t pv_volume_block_offset(const pv_volume *v, uint64_t block)
    bint pv_volume_is_held(const pv_volume *v, uint64_t block)
    int pv_volume_read(const pv_volume_io *io, void *to, size_t length, uint64_t offset)
    int pv_volume_write(const pv_volume_io *io, const void *source, size_t length, uint64_t offset)
    int pv_volume_plan(pv_volume_super *plan, uint64_t size, uint32_t block_size, uint64_t pointer_pages, uint64_t table_pages)
    int pv_volume_format(const pv_volume_io *io, pv_volume_super *plan)
    int pv_volume_open(pv_volume *v, pv_volume_io io, uint64_t size, bint read_only, bint tolerant)
    void pv_volume_close(pv_volume *v)
    int pv_volume_commit(pv_volume *v)
    int pv_volume_checkpoint(pv_volume *v)
    pv_volume_row *pv_volume_row_at "pv_volume_row"(pv_volume *v, uint32_t row)
    int pv_volume_find(pv_volume *v, const char *name, uint32_t *row)
    int pv_volume_create(pv_volume *v, const char *name, uint64_t size, uint64_t quota, uint32_t *row)
    int pv_volume_share(pv_volume *v, uint32_t source, const char *name, uint32_t flags, uint32_t *row)
    int pv_volume_remove(pv_volume *v, uint32_t row)
    int pv_volume_resize(pv_volume *v, uint32_t row, uint64_t size)
    int pv_volume_open_disk(pv_volume *v, uint32_t row, pv_volume_disk **disk)
    void pv_volume_close_disk(pv_volume *v, pv_volume_disk *disk)
    int pv_volume_lookup(pv_volume *v, pv_volume_disk *disk, uint64_t offset, uint64_t length, bint write,
                         pv_volume_extent *extents, uint32_t most, uint32_t *count, uint64_t *covered)
    int pv_volume_discard(pv_volume *v, pv_volume_disk *disk, uint64_t offset, uint64_t length, uint64_t *done)
    int pv_volume_write_zeroes(pv_volume *v, pv_volume_disk *disk, uint64_t offset, uint64_t length, uint64_t *done)
    int pv_volume_run(pv_volume_check *check)
