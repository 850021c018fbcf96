"""C declarations of dma.h; nothing else."""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "dma.h" nogil:
    struct pv_span:
        uint64_t hpa
        uint64_t length
    void pv_dma_move(char *origin, const pv_span *to, const pv_span *source, uint64_t length, uint64_t *account)
    void pv_dma_fetch(const char *origin, void *to, const pv_span *source, uint32_t length)
    void pv_dma_device(char *origin, const pv_span *spans, uint32_t count, char *memory, bint read)
    void pv_dma_store(char *origin, const pv_span *to, const void *source, uint32_t length)
    void pv_dma_move_at(char *origin, const pv_span *to, uint64_t to_at, const pv_span *source, uint64_t from_at,
                        uint64_t length, uint64_t *account)
    void pv_dma_fetch_at(const char *origin, void *to, const pv_span *source, uint64_t at, uint32_t length)
    void pv_dma_store_at(char *origin, const pv_span *to, uint64_t at, const void *source, uint32_t length)
    uint64_t pv_dma_sum(const char *origin, const pv_span *spans, uint64_t at, uint64_t length)
