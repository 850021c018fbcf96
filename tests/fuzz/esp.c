/* Fuzz target over what a NIC believes of a packet with ESP, and of one that it is to seal (packet.h, replay.h, esp.h).
 *
 *   esp FILE...             runs these inputs
 *   esp --seconds N SEED    inputs of its own: whole frames, of which bytes and lengths are changed
 *
 * An input is four bytes that choose the association, and a frame. The cipher here leaves bytes as they are and takes every
 * tag, so that the fuzzer is behind the authentication: peers that have the key may lie, too. Whatever the input is, nothing
 * reads or writes beyond the frame and the room around it, what comes out is a whole packet, and what is sealed opens again
 * as it was. With -fsanitize=fuzzer, libFuzzer drives it. */
#include "esp.h"

#include "harness.h"

static uint64_t opened_well, sealed_well;

static void *make(void) { return malloc(1); }
static int begin(void *c, const void *cipher, void *engine, const uint8_t *key, const uint8_t *nonce, int encrypt)
{
    (void)c, (void)cipher, (void)engine, (void)key, (void)nonce, (void)encrypt;
    return 1;
}
static int control(void *c, int kind, int number, void *argument)
{
    (void)c;
    if (kind == PV_EVP_GET_TAG)
        memset(argument, 0xee, (size_t)number);
    return 1;
}
static int update(void *c, uint8_t *out, int *count, const uint8_t *in, int length)
{
    (void)c;
    volatile uint8_t sum = 0; /* reads what a cipher would read: a sanitizer sees it */
    for (int i = 0; i < length; i++)
        sum ^= in[i];
    demand(!out || out == in, "in place");
    *count = length;
    return 1;
}
static int finish(void *c, uint8_t *out, int *count)
{
    (void)c, (void)out;
    *count = 0;
    return 1;
}
static const void *cipher(void) { return NULL; }
static void cleanse(void *at, size_t length) { memset(at, 0, length); }
static const struct pv_aead NOTHING = {make, free, begin, control, update, finish, {cipher, cipher, cipher}, cleanse};

/* An association whose ends, or inner networks, are those of the packet. */
static struct pv_association chosen(const uint8_t *choice, const uint8_t *frame, const struct pv_packet *p, uint8_t direction)
{
    struct pv_association t = {.command = PV_ESP_ADD, .direction = direction, .key_length = 16, .window = 64};
    t.mode = choice[0] & 1 ? PV_ESP_TUNNEL : PV_ESP_TRANSPORT;
    t.flags = choice[0] & 2 ? PV_ESP_EXTENDED : 0;
    t.version = p->version ? p->version : 4;
    t.inner_version = choice[0] & 4 ? 4 : 6;
    t.spi = direction == PV_ESP_IN && p->version && p->end - p->body >= 4 ? pv_get32(frame + p->body) : 0x1000;
    t.sequence = choice[1];
    if (p->version) {
        memcpy(t.source, pv_packet_source(frame, p), pv_address_bits(p->version) / 8);
        memcpy(t.destination, pv_packet_destination(frame, p), pv_address_bits(p->version) / 8);
    }
    if (direction == PV_ESP_OUT && t.mode == PV_ESP_TUNNEL) {
        t.version = choice[0] & 8 ? 4 : 6;
        t.inner_version = p->version ? p->version : 4;
        memset(t.source, 0, sizeof(t.source));
        memset(t.destination, 0, sizeof(t.destination));
    }
    return t;
}

/* `ours`: its IP header was written here. */
static void check_whole(const uint8_t *start, uint32_t length, const uint8_t *low, const uint8_t *high, bool ours)
{
    struct pv_frame f; /* what an honest peer's kernel would find behind the IP header is its own business */
    demand(start >= low && start <= high && length <= (uint32_t)(high - start), "within the room");
    pv_frame_parse(start, length < PV_HEADERS_MAX ? length : PV_HEADERS_MAX, length, &f);
    demand(f.version && f.end <= length && (!ours || pv_frame_valid_ip(start, &f)), "a whole packet");
}

static void check_open(const uint8_t *choice, const uint8_t *frame, uint32_t length)
{
    uint8_t *room = malloc(PV_ESP_HEADROOM + length), *at = room + PV_ESP_HEADROOM, *start = NULL;
    struct pv_packet p;
    struct pv_esp e;
    uint64_t number = 0;
    uint32_t opened = 0;
    memcpy(at, frame, length);
    pv_packet_parse(at, length, length, true, &p);
    struct pv_association told = chosen(choice, at, &p, PV_ESP_IN);
    if (p.version && p.esp && pv_association_sound(&told)) {
        demand(p.body <= p.end && p.end <= length && p.next_at < p.body, "headers within the frame");
        demand(pv_esp_begin(&e, &NOTHING, &told, 1), "a sound association is taken up");
        if (pv_esp_opens(&e, at, &p)
            && pv_esp_open(&e, &NOTHING, true, at, &p, &number, &start, &opened) == PV_REASON_NONE) {
            demand(number > e.replay.newest || e.replay.newest - number < told.window, "a number within the window");
            pv_replay_take(&e.replay, number);
            demand(!pv_replay_fresh(&e.replay, told.window, number), "taken once");
            opened_well += opened > 0;
            if (opened)
                check_whole(start, opened, room, at + length, told.mode == PV_ESP_TRANSPORT);
        }
        pv_esp_end(&e, &NOTHING);
    }
    free(room);
}

static void check_seal(const uint8_t *choice, const uint8_t *frame, uint32_t length)
{
    uint8_t *room = malloc(PV_ESP_HEADROOM + length + PV_ESP_TAILROOM), *at = room + PV_ESP_HEADROOM, *start, *back;
    struct pv_packet p, q;
    struct pv_esp out, in;
    uint64_t number = 0;
    uint32_t sealed = 0, opened = 0;
    memcpy(at, frame, length);
    pv_packet_parse(at, length, length, false, &p);
    struct pv_association told = chosen(choice, at, &p, PV_ESP_OUT);
    struct pv_association reverse = told;
    reverse.direction = PV_ESP_IN;
    demand(pv_esp_begin(&out, &NOTHING, &told, 1) && pv_esp_begin(&in, &NOTHING, &reverse, 1), "taken up");
    if (pv_association_sound(&told) && pv_esp_carries(&out, at, &p)
        && pv_esp_seal(&out, &NOTHING, true, at, &p, &start, &sealed) == PV_REASON_NONE) {
        check_whole(start, sealed, room, at + length + PV_ESP_TAILROOM, true);
        pv_packet_parse(start, sealed, sealed, true, &q);
        if (p.next != 60 && p.next != PV_PROTOCOL_NOTHING) { /* options for the destination are sealed with the rest */
            demand(q.esp && pv_esp_opens(&in, start, &q), "it is ESP, and its own");
            demand(pv_esp_open(&in, &NOTHING, true, start, &q, &number, &back, &opened) == PV_REASON_NONE, "and opens");
            demand(opened == p.end && number == told.sequence + 1, "as long as it was");
            demand(!memcmp(back + p.body, frame + p.body, p.end - p.body), "with the same bytes");
            sealed_well++;
        }
    }
    pv_esp_end(&out, &NOTHING);
    pv_esp_end(&in, &NOTHING);
    free(room);
}

/* The first bytes alone, as a device looks at them before it moves the frame. */
static void check_look(const uint8_t *choice, const uint8_t *frame, uint32_t length)
{
    uint32_t have = PV_FRAME_MIN + choice[2] < length ? PV_FRAME_MIN + choice[2] : length;
    uint8_t *bytes = malloc(have);
    struct pv_packet p;
    memcpy(bytes, frame, have);
    pv_packet_parse(bytes, have, length, choice[3] & 1, &p);
    demand(!p.version || (p.next_at < have && p.body <= p.end && p.end <= length), "headers within the frame");
    struct pv_association told = chosen(choice, bytes, &p, PV_ESP_OUT);
    demand(!p.version || told.version, "addresses that are there");
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 + PV_FRAME_MIN || size > 4 + 9200)
        return 0;
    check_look(data, data + 4, (uint32_t)size - 4);
    check_open(data, data + 4, (uint32_t)size - 4);
    check_seal(data, data + 4, (uint32_t)size - 4);
    return 0;
}

#ifndef LIBFUZZER
/* An IP header in front of `length` bytes; returns where they begin. */
static uint8_t *header(uint8_t *ip, bool six, uint8_t next, uint32_t length)
{
    uint32_t extra = draw(4) ? 0 : 8 * (1 + draw(2));
    if (!six) {
        memset(ip, 0x0a, 20 + extra);
        ip[0] = (uint8_t)(0x45 + extra / 4);
        pv_put16(ip + 2, 20 + extra + length);
        pv_put16(ip + 6, draw(8) ? 0 : draw(65536));
        ip[9] = next;
        return ip + 20 + extra;
    }
    static const uint8_t kinds[] = {0, 43, 44, 60};
    memset(ip, 0xfd, 40);
    pv_put32(ip, 6u << 28);
    pv_put16(ip + 4, extra + length);
    ip[6] = extra ? kinds[draw(4)] : next;
    memset(ip + 40, 0, extra);
    if (extra) {
        ip[40] = draw(6) ? next : 0; /* one more, where there may be nothing */
        ip[41] = (uint8_t)(extra / 8 - 1);
    }
    return ip + 40 + extra;
}

/* A frame as a peer would send it, sealed by the cipher above, or plain. */
static size_t whole(uint8_t *out)
{
    uint8_t *frame = out + 4, inside[2048];
    bool six = draw(2), within = draw(2);
    uint32_t tags = draw(4) % 3, at = 12, content = draw(3) ? draw(4) * draw(16) : draw(1400), padding;
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)draw(256);
    memset(frame, 0x22, 12);
    for (; tags; tags--, at += 4)
        pv_put32(frame + at, 0x81000000u | draw(4096));
    pv_put16(frame + at, six ? PV_ETHERTYPE_IPV6 : PV_ETHERTYPE_IPV4);
    memset(inside, 7, sizeof(inside));
    if (out[0] & 1) /* a tunnel: a packet of the version that it carries */
        content += (uint32_t)(header(inside, !(out[0] & 4), PV_PROTOCOL_UDP, content) - inside);
    padding = -(content + 2) & 3;
    uint32_t length = within ? PV_ESP_FRONT + content + padding + 2 + PV_AEAD_TAG : content;
    uint8_t *body = header(frame + at + 2, six, within ? PV_PROTOCOL_ESP : PV_PROTOCOL_UDP, length);
    if (!within) {
        memcpy(body, inside, content);
        return (size_t)(body + content - out);
    }
    pv_put32(body, 0x1000 + draw(4));
    pv_put32(body + 4, draw(300));
    memset(body + 8, 0, 8);
    memcpy(body + PV_ESP_FRONT, inside, content);
    uint8_t *trailer = body + PV_ESP_FRONT + content;
    for (uint32_t i = 0; i < padding; i++)
        *trailer++ = (uint8_t)(i + 1);
    *trailer++ = (uint8_t)(draw(6) ? padding : draw(256));
    *trailer++ = out[0] & 1 ? (out[0] & 4 ? PV_PROTOCOL_IPV4 : PV_PROTOCOL_IPV6) : (uint8_t)(draw(6) ? 17 : draw(256));
    memset(trailer, 0xee, PV_AEAD_TAG);
    return (size_t)(trailer + PV_AEAD_TAG - out);
}

static size_t place(size_t size)
{
    return draw(2) ? draw((uint32_t)size) : 4 + draw(80) % size;
}

static size_t input(uint8_t *bytes)
{
    return change(bytes, whole(bytes), 4, place);
}

int main(int argc, char **argv)
{
    uint64_t *const counts[] = {&opened_well, &sealed_well};
    return drive(argc, argv, 9300, input, counts, 2);
}
#endif
