/*
 * zip.c - the directory of a ZIP archive as torch.save writes it, ZIP64 included, and its checksums. Members are
 * read where they lie, so none may be compressed; of several readings of a file that is made to have them, the one
 * taken is that of the central directory, and the local headers must agree.
 */
#include <stdlib.h>

#include "format/internal.h"

#define MAX_MEMBERS (4 * SILL__MAX_TENSORS)
#define END_BYTES 22u
#define END64_BYTES 56u
#define LOCATOR_BYTES 20u
#define CENTRAL_BYTES 46u
#define LOCAL_BYTES 30u

/* ---- checksums: eight bytes a step (slicing by 8) */

typedef struct crc_tables { uint32_t t[8][256]; } crc_tables;

static void make_tables(crc_tables *c, uint32_t polynomial) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int k = 0; k < 8; k++) v = v & 1 ? v >> 1 ^ polynomial : v >> 1;
        c->t[0][i] = v;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++) c->t[k][i] = c->t[k - 1][i] >> 8 ^ c->t[0][c->t[k - 1][i] & 255];
}

static uint32_t sum(uint32_t polynomial, uint32_t crc, const uint8_t *p, size_t n) {
    crc_tables c; /* 2,048 entries are made in no time beside what is summed, and no thread has to wait for another */
    crc = ~crc;
    if (n < 64) { /* making the tables would take longer */
        for (; n > 0; n--) {
            crc ^= *p++;
            for (int k = 0; k < 8; k++) crc = crc & 1 ? crc >> 1 ^ polynomial : crc >> 1;
        }
        return ~crc;
    }
    make_tables(&c, polynomial);
    for (; n >= 8; n -= 8, p += 8) {
        crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        crc = c.t[7][crc & 255] ^ c.t[6][crc >> 8 & 255] ^ c.t[5][crc >> 16 & 255] ^ c.t[4][crc >> 24] ^ c.t[3][p[4]] ^
              c.t[2][p[5]] ^ c.t[1][p[6]] ^ c.t[0][p[7]];
    }
    for (; n > 0; n--) crc = crc >> 8 ^ c.t[0][(crc ^ *p++) & 255];
    return ~crc;
}

uint32_t sill__crc32(uint32_t crc, const void *data, size_t n) { return sum(0xedb88320u, crc, data, n); }
uint32_t sill__crc32c(uint32_t crc, const void *data, size_t n) { return sum(0x82f63b78u, crc, data, n); }

/* ---- the directory */

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

typedef struct ends { uint64_t n, at, bytes; } ends; /* of the central directory */

/* The end record, whose comment must reach to the end of the file: nothing may stand behind the archive. */
static const uint8_t *find_end(const sill__map *map) {
    if (map->bytes < END_BYTES) return NULL;
    for (size_t comment = 0; comment <= 65535 && comment + END_BYTES <= map->bytes; comment++) {
        const uint8_t *p = map->data + map->bytes - END_BYTES - comment;
        if (!memcmp(p, "PK\5\6", 4) && u16(p + 20) == comment) return p;
    }
    return NULL;
}

static sill_status read_ends(const sill__map *map, const char *path, ends *e, sill_error *err) {
    const uint8_t *end = find_end(map);
    if (!end)
        return sill__fail(err, SILL_EFORMAT, "%s: the ZIP archive has no end; it is cut off or damaged (fetch it again)", path);
    uint64_t behind = (uint64_t)(end - map->data), disk = u16(end + 4) | u16(end + 6);
    *e = (ends){u16(end + 10), u32(end + 16), u32(end + 12)};
    if (behind >= LOCATOR_BYTES && !memcmp(end - LOCATOR_BYTES, "PK\6\7", 4)) {
        uint64_t at = u64(end - LOCATOR_BYTES + 8);
        if (behind < LOCATOR_BYTES + END64_BYTES || at > behind - LOCATOR_BYTES - END64_BYTES || memcmp(map->data + at, "PK\6\6", 4))
            return sill__fail(err, SILL_EFORMAT, "%s: the ZIP64 end record is not where the archive says", path);
        const uint8_t *p = map->data + at;
        disk = u32(p + 16) | u32(p + 20);
        *e = (ends){u64(p + 32), u64(p + 48), u64(p + 40)};
        behind = at;
    }
    if (disk != 0 && disk != 65535) return sill__fail(err, SILL_EUNSUPPORTED, "%s: a ZIP archive in several parts", path);
    if (e->at > behind || e->bytes != behind - e->at)
        return sill__fail(err, SILL_EFORMAT, "%s: the directory of the ZIP archive (byte %llu, %llu bytes) does not end where its end "
                          "record begins (byte %llu)", path, (unsigned long long)e->at, (unsigned long long)e->bytes,
                          (unsigned long long)behind);
    if (e->n > MAX_MEMBERS || e->n > e->bytes / CENTRAL_BYTES)
        return sill__fail(err, SILL_EFORMAT, "%s: %llu members cannot be in the %llu bytes of the ZIP directory (at most %u are read)",
                          path, (unsigned long long)e->n, (unsigned long long)e->bytes, MAX_MEMBERS);
    return SILL_OK;
}

/* ZIP64's extra field of one member: sizes and place, each where the plain field is full. */
static bool read_extra(const uint8_t *p, size_t n, uint64_t *usize, uint64_t *csize, uint64_t *at) {
    uint64_t *const fields[] = {usize, csize, at};
    for (size_t k = 0; k + 4 <= n;) {
        const size_t id = u16(p + k), bytes = u16(p + k + 2);
        if (bytes > n - k - 4) return false;
        size_t from = k + 4;
        for (int i = 0; id == 1 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX) continue;
            if (from + 8 > k + 4 + bytes) return false;
            *fields[i] = u64(p + from);
            from += 8;
        }
        k += 4 + bytes;
    }
    return true;
}

/* The member whose central header of at most N bytes is at P; *USED is its length, SPAN what it takes of the file. */
static sill_status read_member(sill__zip_member *m, const sill__map *map, const char *path, uint64_t directory, const uint8_t *p,
                               size_t n, size_t *used, sill__span *span, sill_error *err) {
    if (n < CENTRAL_BYTES || memcmp(p, "PK\1\2", 4)) return sill__fail(err, SILL_EFORMAT, "%s: the ZIP directory is damaged", path);
    const size_t name = u16(p + 28), extra = u16(p + 30), comment = u16(p + 32);
    uint64_t csize = u32(p + 20), usize = u32(p + 24), at = u32(p + 42);
    *used = CENTRAL_BYTES + name + extra + comment;
    if (*used > n || !read_extra(p + CENTRAL_BYTES + name, extra, &usize, &csize, &at))
        return sill__fail(err, SILL_EFORMAT, "%s: the ZIP directory is damaged", path);
    *m = (sill__zip_member){.name = (const char *)p + CENTRAL_BYTES, .n_name = name, .bytes = usize, .crc = u32(p + 16),
                            .method = (uint16_t)u16(p + 10)};
    const sill__shown shown = sill__show(m->name, name);
    const char *text = shown.text;
    if (u16(p + 8) & 1) return sill__fail(err, SILL_EUNSUPPORTED, "%s: the member %s is encrypted", path, text);
    if (m->method == 0 && csize != usize)
        return sill__fail(err, SILL_EFORMAT, "%s: the member %s is stored, but has two sizes (%llu and %llu)", path, text,
                          (unsigned long long)csize, (unsigned long long)usize);
    if (at > directory || directory - at < LOCAL_BYTES || memcmp(map->data + at, "PK\3\4", 4))
        return sill__fail(err, SILL_EFORMAT, "%s: the member %s is not at byte %llu, where the ZIP directory says", path, text,
                          (unsigned long long)at);
    const uint8_t *local = map->data + at;
    const uint64_t head = LOCAL_BYTES + u16(local + 26) + u16(local + 28);
    if (u16(local + 26) != name || directory - at < head || memcmp(local + LOCAL_BYTES, m->name, name) || u16(local + 8) != m->method)
        return sill__fail(err, SILL_EFORMAT, "%s: the member %s has another name or method where it is stored than in the ZIP "
                          "directory", path, text);
    m->at = at + head;
    if (csize > directory - m->at)
        return sill__fail(err, SILL_EFORMAT, "%s: the member %s has %llu bytes at byte %llu, past the end of what the archive holds",
                          path, text, (unsigned long long)csize, (unsigned long long)m->at);
    *span = (sill__span){at, m->at + csize, 0};
    return SILL_OK;
}

static int by_name(const void *a, const void *b) {
    const sill__zip_member *x = a, *y = b;
    int d = memcmp(x->name, y->name, SILL_MIN(x->n_name, y->n_name));
    return d ? d : x->n_name < y->n_name ? -1 : x->n_name > y->n_name;
}

sill_status sill__zip_read(sill__zip *z, const sill__map *map, const char *path, sill_error *err) {
    ends e = {0};
    memset(z, 0, sizeof *z);
    sill_status s = read_ends(map, path, &e, err);
    if (s != SILL_OK) return s;
    z->members = sill__calloc((size_t)e.n, sizeof *z->members);
    sill__span *spans = sill__calloc((size_t)e.n, sizeof *spans);
    if (!z->members || !spans) s = sill__fail(err, SILL_ENOMEM, "%s: no memory for the ZIP directory", path);
    const uint8_t *p = map->data + e.at;
    size_t left = (size_t)e.bytes, used = 0;
    for (; s == SILL_OK && z->n < e.n; z->n++, p += used, left -= used)
        if ((s = read_member(&z->members[z->n], map, path, e.at, p, left, &used, &spans[z->n], err)) != SILL_OK) break;
    if (s == SILL_OK && left) s = sill__fail(err, SILL_EFORMAT, "%s: the ZIP directory has more than its %zu members", path, z->n);
    if (s == SILL_OK) {
        sill__sort_spans(spans, z->n);
        qsort(z->members, z->n, sizeof *z->members, by_name);
    }
    for (size_t i = 1; s == SILL_OK && i < z->n; i++) {
        if (spans[i].begin < spans[i - 1].end) s = sill__fail(err, SILL_EFORMAT, "%s: members of the ZIP archive overlap", path);
        else if (!by_name(&z->members[i], &z->members[i - 1]))
            s = sill__fail(err, SILL_EFORMAT, "%s: two members of the ZIP archive with the name %s", path,
                           sill__show(z->members[i].name, z->members[i].n_name).text);
    }
    sill__free(spans);
    return s;
}

const sill__zip_member *sill__zip_find(const sill__zip *z, const char *name, size_t n) {
    const sill__zip_member key = {.name = name, .n_name = n};
    return z->n ? bsearch(&key, z->members, z->n, sizeof key, by_name) : NULL;
}

void sill__zip_free(sill__zip *z) {
    sill__free(z->members);
    memset(z, 0, sizeof *z);
}
