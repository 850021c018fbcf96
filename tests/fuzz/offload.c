/* Fuzz target over what a NIC believes of a frame and of the header in front of it (frame.h, offload.h, merge.h).
 *
 *   offload FILE...             runs these inputs
 *   offload --seconds N SEED    inputs of its own: whole frames, of which bytes and fields are changed
 *
 * An input is a header of 12 bytes and a frame. Whatever it is, nothing reads or writes beyond the bytes that are there
 * (each copy has exactly their size, so that an address sanitizer sees it), the work is bounded, and what comes out is
 * whole: right lengths, right sums, the payload of the input and no other. With -fsanitize=fuzzer, libFuzzer drives it. */
#include "merge.h"

#include "harness.h"

static uint64_t accepted;

/* Sum of 16-bit words, most significant byte first, as RFC 1071 puts it: nothing of frame.h is used. */
static uint32_t plain_sum(const uint8_t *bytes, size_t length, uint32_t sum)
{
    for (size_t i = 0; i < length; i++) {
        sum += i & 1 ? bytes[i] : (uint32_t)bytes[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static void check_piece(const struct pv_offload *o, const uint8_t *frame, uint32_t length)
{
    const struct pv_frame *f = &o->frame;
    const uint8_t *ip = frame + f->ip, *transport = frame + f->transport;
    uint32_t carried, sum;
    if (f->version == 4) {
        carried = (uint32_t)(ip[2] << 8 | ip[3]) - 4u * (ip[0] & 15);
        if (o->segments > 1)
            demand(plain_sum(ip, 4u * (ip[0] & 15), 0) == 0xffff, "sum of the IPv4 header");
        sum = plain_sum(ip + 12, 8, 0);
    } else {
        carried = (uint32_t)(ip[4] << 8 | ip[5]) + 40 - (f->transport - f->ip);
        sum = plain_sum(ip + 8, 32, 0);
    }
    demand(carried <= length - f->transport, "length of the packet");
    demand(o->segments == 1 || carried == length - f->transport, "a piece is all packet");
    uint8_t tail[4] = {0, f->protocol, (uint8_t)(carried >> 8), (uint8_t)carried};
    sum = plain_sum(tail, 4, sum);
    demand(plain_sum(transport, carried, sum) == 0xffff, "sum of TCP or UDP");
    if (f->protocol == PV_PROTOCOL_UDP) {
        demand((uint32_t)(transport[4] << 8 | transport[5]) == carried, "length of UDP");
        demand(transport[6] | transport[7], "UDP has a sum");
    }
}

/* The pieces of a frame, merged as they come; cut again they must be the same. `first` takes in what it continues. */
static void check_merge(struct pv_merge *first, bool *open, const uint8_t *piece, uint32_t length)
{
    struct pv_frame f;
    uint32_t have = length < PV_HEADERS_MAX ? length : PV_HEADERS_MAX;
    pv_frame_parse(piece, have, length, &f);
    if (*open && pv_merge_continues(first, piece, &f, PV_FRAME_LARGE_MAX)) {
        uint32_t before = first->length;
        *open = !pv_merge_add(first, piece, &f);
        demand(first->length - before == length - f.payload && first->length <= PV_FRAME_LARGE_MAX, "length of a merge");
        struct pv_merge done = *first;
        struct pv_net_header header;
        struct pv_offload again;
        pv_merge_finish(&done, &header);
        demand(pv_offload_judge(&header, done.headers, done.frame.payload, done.length, &again) == PV_REASON_NONE
               && again.segments == done.count, "a merged frame is one that may be sent");
        uint8_t *headers = malloc(again.frame.payload);
        struct pv_frame last;
        uint32_t from;
        pv_offload_cut(&again, done.headers, again.segments - 1, headers, &last, &from);
        uint8_t *whole = malloc(length);
        memcpy(whole, headers, f.payload);
        memcpy(whole + f.payload, piece + f.payload, length - f.payload);
        pv_frame_complete(whole, &last, pv_sum(piece + f.payload, length - f.payload));
        demand(last.length == length && !memcmp(whole, piece, length), "cut again it is the same");
        free(whole);
        free(headers);
    } else {
        *open = pv_merge_begin(first, piece, &f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < PV_NET_HEADER || size > PV_HEADED_MAX + 64)
        return 0;
    struct pv_net_header header;
    struct pv_offload o;
    memcpy(&header, data, sizeof(header));
    const uint8_t *frame = data + PV_NET_HEADER;
    uint32_t length = (uint32_t)(size - PV_NET_HEADER), have = length < PV_HEADERS_MAX ? length : PV_HEADERS_MAX;
    uint8_t *bytes = malloc(have ? have : 1); /* exactly as many as are there */
    memcpy(bytes, frame, have);
    enum pv_reason reason = pv_offload_judge(&header, bytes, have, length, &o);
    if (reason == PV_REASON_NONE) {
        accepted++;
        demand(o.segments >= 1 && o.segments <= PV_SEGMENTS_MAX, "pieces within the bound");
        demand(o.checksum || (o.segments == 1 && o.needs == 0), "no cut without a sum");
        uint32_t payload = 0;
        struct pv_merge merge;
        bool open = false;
        for (uint32_t i = 0; o.checksum && i < o.segments; i++) {
            struct pv_frame piece;
            uint32_t from;
            uint8_t *headers = malloc(o.frame.payload);
            pv_offload_cut(&o, bytes, i, headers, &piece, &from);
            demand(piece.length >= piece.payload && from <= length && piece.length - piece.payload <= length - from,
                   "a piece lies within the frame");
            demand(o.segments == 1 || (from == o.frame.payload + payload && piece.length > piece.payload), "in order");
            uint8_t *out = malloc(piece.length);
            memcpy(out + piece.payload, frame + from, piece.length - piece.payload);
            pv_frame_complete(headers, &piece, pv_sum(out + piece.payload, piece.end - piece.payload));
            memcpy(out, headers, piece.payload);
            check_piece(&o, out, piece.length);
            if (o.segments > 1) /* whose sums of both headers are right */
                check_merge(&merge, &open, out, piece.length);
            payload += piece.length - piece.payload;
            free(out);
            free(headers);
        }
        demand(!o.checksum || payload == length - o.frame.payload, "all of the payload");
        if (o.checksum)
            pv_offload_seed(&o, bytes);
    }
    struct pv_frame f; /* the receiving side: any bytes */
    pv_frame_parse(bytes, have, length, &f);
    if (f.protocol) {
        demand(f.payload <= have && f.end <= length && f.payload <= f.end, "headers within the frame");
        (void)pv_frame_valid(bytes, &f, pv_sum(frame + f.payload, f.end - f.payload));
        (void)pv_frame_valid_ip(bytes, &f);
        struct pv_merge merge;
        if (pv_merge_begin(&merge, bytes, &f))
            (void)pv_merge_continues(&merge, bytes, &f, PV_FRAME_LARGE_MAX);
    }
    free(bytes);
    return 0;
}

#ifndef LIBFUZZER
/* A frame as a driver would send it, with its header; returns its length. */
static size_t whole(uint8_t *out)
{
    static const uint32_t sizes[] = {0, 1, 2, 13, 536, 1448, 9000, 65400};
    uint8_t *frame = out + PV_NET_HEADER;
    struct pv_net_header h = {.flags = draw(8) ? PV_NET_NEEDS_CHECKSUM : 0};
    bool tcp = draw(2), six = draw(2);
    uint32_t at = 12, tags = draw(4) % 3, payload = draw(3) ? sizes[draw(8)] : draw(65400);
    memset(frame, 0x22, 12);
    for (; tags; tags--, at += 4)
        pv_put32(frame + at, (tags == 2 ? 0x88a80000u : 0x81000000u) | draw(4096));
    pv_put16(frame + at, six ? PV_ETHERTYPE_IPV6 : PV_ETHERTYPE_IPV4);
    uint32_t ip = at + 2, transport = ip + (six ? 40 : 20 + 4 * (draw(6) ? 0 : draw(11)));
    memset(frame + ip, 0, transport - ip);
    uint8_t next = tcp ? PV_PROTOCOL_TCP : PV_PROTOCOL_UDP;
    if (six) {
        static const uint8_t kinds[] = {0, 43, 44, 60};
        frame[ip] = 0x60;
        uint8_t *link = frame + ip + 6;
        for (uint32_t i = draw(4) ? 0 : draw(8); i; i--) {
            uint32_t units = draw(3);
            *link = kinds[draw(4)];
            memset(frame + transport, 0, 8 * (units + 1));
            frame[transport + 1] = (uint8_t)units;
            link = frame + transport;
            transport += 8 * (units + 1);
        }
        *link = next;
    } else {
        frame[ip] = (uint8_t)(0x40 | (transport - ip) / 4);
        frame[ip + 9] = next;
        frame[ip + 6] = 0x40;
    }
    uint32_t options = tcp ? 4 * draw(11) : 0, data = transport + (tcp ? 20 + options : 8);
    memset(frame + transport, 0, data - transport);
    if (tcp) {
        frame[transport + 12] = (uint8_t)((5 + options / 4) << 4);
        frame[transport + 13] = (uint8_t)(draw(4) ? PV_TCP_ACK | PV_TCP_PSH : draw(256));
    }
    for (uint32_t i = 0; i < payload; i++)
        frame[data + i] = (uint8_t)(i * 7);
    uint32_t length = data + payload;
    if (six)
        pv_put16(frame + ip + 4, length - ip - 40);
    else
        pv_put16(frame + ip + 2, length - ip);
    if (!tcp)
        pv_put16(frame + transport + 4, length - transport);
    h.csum_start = (uint16_t)transport;
    h.csum_offset = tcp ? 16 : 6;
    if (draw(3)) {
        h.gso_type = tcp ? (six ? PV_NET_TCPV6 : PV_NET_TCPV4) : PV_NET_UDP;
        h.gso_size = (uint16_t)(draw(2) ? 1448 : draw(65536));
        if (tcp && frame[transport + 13] & PV_TCP_CWR)
            h.gso_type |= PV_NET_ECN;
    }
    memcpy(out, &h, sizeof(h));
    return PV_NET_HEADER + length + (draw(8) ? 0 : draw(50));
}

static size_t place(size_t size)
{
    return draw(size < 100 ? (uint32_t)size : 100);
}

static size_t input(uint8_t *bytes)
{
    return change(bytes, whole(bytes), 5, place);
}

int main(int argc, char **argv)
{
    uint64_t *const counts[] = {&accepted};
    return drive(argc, argv, PV_HEADED_MAX + 4096, input, counts, 1);
}
#endif
