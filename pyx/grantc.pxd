"""C declarations of grant.h; nothing else."""

from libc.stdint cimport uint32_t

from pyx.abi cimport pv_monitor_page


cdef extern from "grant.h" nogil:
    struct pv_grants:
        uint32_t granted
        uint32_t withheld[4]
        uint32_t proved
        uint32_t disproved
        uint32_t life
    uint32_t PV_NIC_WITHHELD(unsigned long long length)
    void pv_grant_tell(pv_monitor_page *page, uint32_t endpoint, const uint32_t *withheld)
    void pv_grant_clear(pv_monitor_page *page, uint32_t endpoint)
    void pv_grant_renew(pv_monitor_page *page, uint32_t endpoint)
    pv_grants pv_grant_read(pv_monitor_page *page, uint32_t endpoint)
    void pv_grant_prove(pv_monitor_page *page, uint32_t endpoint, uint32_t proved, uint32_t disproved)
