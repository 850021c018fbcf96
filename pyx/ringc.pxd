"""C declarations of ring.h, wait.h, gate.h, interrupt.h, statistics.h and charge.h; nothing else."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from pyx.abi cimport pv_doorbell, pv_interrupts, pv_request, pv_ring, pv_statistics, pv_statistics_row, pv_system_call


cdef extern from "ring.h" nogil:
    struct pv_producer:
        pv_ring *ring
        pv_doorbell *doorbell
        uint64_t tail
        uint64_t published
        uint64_t head
        uint64_t wakes
        uint32_t capacity
        bint broken

    struct pv_consumer:
        pv_ring *ring
        uint64_t head
        uint64_t tail
        uint32_t capacity
        bint broken

    struct pv_wait:
        uint64_t value
        uint64_t address
        uint32_t flags
        uint32_t reserved

    const uint32_t FUTEX_32
    uint64_t pv_now()
    void pv_pause()
    void pv_ring_init(void *memory, uint32_t capacity)
    bint pv_ring_open(void *memory, uint32_t capacity)
    bint pv_capacity_valid(uint32_t capacity)
    void pv_producer_attach(pv_producer *p, void *memory, uint32_t capacity, pv_doorbell *doorbell, bint symmetric)
    void pv_consumer_attach(pv_consumer *c, void *memory, uint32_t capacity)
    uint32_t pv_producer_free(pv_producer *p, uint32_t want)
    void pv_producer_push(pv_producer *p, const void *slot)
    void pv_producer_publish(pv_producer *p)
    void pv_producer_wake(pv_producer *p)
    uint32_t pv_consumer_available(pv_consumer *c)
    uint32_t pv_consumer_beyond(pv_consumer *c, uint32_t taken)
    void pv_consumer_fetch(const pv_consumer *c, uint32_t index, void *copy)
    void pv_consumer_prefetch(const pv_consumer *c, uint32_t index)
    void pv_consumer_release(pv_consumer *c, uint32_t count)
    uint64_t pv_consumer_shown(const pv_consumer *c)
    bint pv_consumer_pending(const pv_consumer *c)
    int pv_membarrier_register()
    uint32_t pv_doorbell_prepare(pv_doorbell *doorbell)
    void pv_doorbell_fence(bint symmetric)
    void pv_doorbell_cancel(pv_doorbell *doorbell)
    bint pv_doorbell_ring(pv_doorbell *doorbell)
    bint pv_doorbell_wait(pv_doorbell *doorbell, uint32_t word, uint64_t timeout_ns)
    long pv_doorbells_wait(pv_wait *waits, uint32_t count, uint64_t timeout_ns)

cdef extern from "slots.h" nogil:
    void pv_push_request(pv_producer *p, uint64_t id, uint64_t gpa, uint64_t device_offset,
                         uint64_t endpoint_generation, uint64_t enqueue_time, uint32_t length, uint16_t endpoint,
                         uint8_t operation, uint8_t flags, uint32_t taken, uint64_t key)
    void pv_push_completion(pv_producer *p, uint64_t id, uint64_t epoch, uint16_t status, uint16_t reason,
                            uint32_t bytes, uint64_t pickup_time, const uint32_t *times, uint16_t queue)
    void pv_silence_last(pv_producer *p)
    void pv_push_packed(pv_producer *p, uint64_t id, uint64_t gpa, uint64_t enqueue_time, uint32_t length,
                        uint16_t endpoint, uint8_t operation, uint64_t key)
    struct pv_run:
        uint64_t id
        uint32_t before
        uint32_t bytes
        uint16_t status
        uint16_t reason
    bint pv_run_extend(pv_run *run, uint64_t id, uint16_t status, uint16_t reason, uint32_t bytes)
    void pv_run_end(pv_producer *p, pv_run *run, uint64_t pickup_time, const uint32_t *times)
    void pv_stamp_last(pv_producer *p, uint32_t completion)
    void pv_push_submit(pv_producer *p, uint16_t call, uint64_t id, const pv_request *request, uint64_t pickup_time,
                        uint64_t epoch, uint16_t client, uint16_t queue, uint16_t flags)
    void pv_push_dma(pv_producer *p, const pv_system_call *call, uint64_t hpa, uint64_t device_offset,
                     uint32_t validated, uint16_t server, uint16_t port, uint16_t extent_count,
                     uint32_t port_generation)

cdef extern from "interrupt.h" nogil:
    bint pv_interrupt_post(pv_interrupts *interrupts, uint64_t vectors, bint symmetric)
    uint64_t pv_interrupt_take(pv_interrupts *interrupts)

cdef extern from "statistics.h" nogil:
    pv_statistics_row *pv_row(pv_statistics *s, uint32_t index)
    uint64_t *pv_row_counters(pv_statistics_row *row)
    uint64_t *pv_row_histogram(pv_statistics_row *row, uint32_t counters, uint32_t index)
    uint64_t pv_row_partition(const pv_statistics_row *row)
    uint64_t pv_row_endpoint(const pv_statistics_row *row)
    uint32_t pv_row_find(pv_statistics *s, uint64_t partition, uint64_t endpoint)
    uint32_t pv_row_take(pv_statistics *s, uint64_t partition, uint64_t endpoint)
    void pv_rows_close(pv_statistics *s, uint64_t partition)
    void pv_count(uint64_t *counter, uint64_t amount)
    void pv_observe(uint64_t *histogram, uint64_t ns, uint64_t times)
    uint32_t pv_saturate(uint64_t ns)

cdef extern from "wait.h" nogil:
    struct pv_idle:
        uint64_t last_work
        uint64_t now
    void pv_idle_init(pv_idle *idle, bint realtime)
    void pv_idle_worked(pv_idle *idle, uint64_t now)
    bint pv_idle_step(pv_idle *idle, uint64_t *counters)
    void pv_idle_sleep(pv_idle *idle)
    void pv_idle_woken(pv_idle *idle, bint found, uint64_t *counters)

cdef extern from "gate.h" nogil:
    struct pv_gate:
        bint running
    void pv_gate_init(pv_gate *gate)
    bint pv_gate_wanted(pv_gate *gate)
    void pv_gate_run(pv_gate *gate, bint running)
    void pv_gate_park(pv_gate *gate)
    void pv_gate_close(pv_gate *gate, pv_doorbell *bell)
    void pv_gate_open(pv_gate *gate)

cdef extern from "charge.h" nogil:
    const uint32_t PV_CHARGE_IDLE
    const uint32_t PV_CHARGE_SHARED
    struct pv_meter:
        uint64_t since
        uint32_t owner
    void pv_meter_start(pv_meter *m)
    void pv_meter_go_on(pv_meter *m, const uint64_t *counters)
    void pv_meter_items(pv_meter *m, uint32_t slot, uint32_t count)
    void pv_meter_turn(pv_meter *m, uint32_t owner, uint64_t now)
    bint pv_meter_due(const pv_meter *m, uint64_t now)
    void pv_meter_settle(pv_meter *m, pv_statistics *s, uint64_t *counters, uint64_t now)
    void pv_charge_open(pv_statistics *s, uint64_t partition)
    void pv_charge_close(pv_statistics *s, uint64_t partition)
    uint64_t pv_charge_read(const pv_statistics *s, uint64_t partition)
