/* A medium in memory that records every write and flush, and fails on demand: the function table of volume_io.h. */
#ifndef VOLUME_MEDIUM_H
#define VOLUME_MEDIUM_H

#include "volume_check.h"

struct entry {
    uint64_t offset, length; /* length 0: a flush */
    uint8_t *data;
};

enum fault { FAULT_NONE, FAULT_ERROR, FAULT_SHORT, FAULT_AGAIN };

struct medium {
    uint8_t *bytes;
    uint64_t size;
    struct entry *log;
    size_t entries, room;
    bool recording;
    uint64_t calls, fault_at; /* which call fails, counted from 1; 0: none */
    enum fault fault;
    int error; /* of FAULT_ERROR */
    bool failed;
};

static bool faulty(struct medium *m)
{
    m->calls++;
    if (m->fault == FAULT_NONE || m->calls != m->fault_at)
        return false;
    m->failed = true;
    return true;
}

static void record(struct medium *m, const void *data, uint64_t length, uint64_t offset)
{
    if (!m->recording)
        return;
    if (m->entries == m->room) {
        m->room = m->room ? 2 * m->room : 256;
        m->log = realloc(m->log, m->room * sizeof(*m->log));
    }
    struct entry *e = &m->log[m->entries++];
    *e = (struct entry){offset, length, length ? malloc(length) : NULL};
    if (length)
        memcpy(e->data, data, length);
}

static ssize_t medium_read(void *context, void *to, size_t length, uint64_t offset)
{
    struct medium *m = context;
    if (faulty(m)) {
        if (m->fault != FAULT_SHORT)
            return m->fault == FAULT_AGAIN ? -EINTR : -m->error;
        length = length / 2 + 1;
    }
    if (offset >= m->size)
        return 0;
    if (length > m->size - offset)
        length = m->size - offset;
    memcpy(to, m->bytes + offset, length);
    return (ssize_t)length;
}

static ssize_t medium_write(void *context, const void *from, size_t length, uint64_t offset)
{
    struct medium *m = context;
    if (faulty(m)) {
        if (m->fault != FAULT_SHORT)
            return m->fault == FAULT_AGAIN ? -EINTR : -m->error;
        length = length / 2 / 512 * 512 + (length <= 512 ? length : 512);
    }
    if (offset > m->size || length > m->size - offset)
        return -ENOSPC;
    record(m, from, length, offset);
    memcpy(m->bytes + offset, from, length);
    return (ssize_t)length;
}

static int medium_flush(void *context)
{
    struct medium *m = context;
    if (faulty(m) && m->fault != FAULT_SHORT)
        return m->fault == FAULT_AGAIN ? -EINTR : -m->error;
    record(m, NULL, 0, 0);
    return 0;
}

static struct pv_volume_io medium_io(struct medium *m)
{
    return (struct pv_volume_io){m, medium_read, medium_write, medium_flush};
}

static void medium_forget(struct medium *m)
{
    for (size_t i = 0; i < m->entries; i++)
        free(m->log[i].data);
    free(m->log);
    m->log = NULL;
    m->entries = m->room = 0;
}

/* xorshift64*, Vigna 2014: quick, seeded. */
static uint64_t draw_state;

static uint64_t draw(uint64_t below)
{
    draw_state ^= draw_state >> 12;
    draw_state ^= draw_state << 25;
    draw_state ^= draw_state >> 27;
    return (draw_state * 2685821657736338717ull >> 16) % below;
}

#endif
