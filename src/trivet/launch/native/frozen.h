/* A frozen process: what `trivet-freeze` writes of one that stands still, and `trivet-thaw` becomes.
 *
 *     struct frozen │ descriptors │ files │ areas │ filters' instructions │ threads' frames ║ pages
 *     ──────────────────────── mapped at TABLE ────────────────────────────────────────────
 *
 * Both are of one build and of one machine that has not been booted since: nothing of it is for anybody else.
 */
#ifndef TRIVET_FROZEN_H
#define TRIVET_FROZEN_H

#include <stdint.h>

enum {
    FROZEN_PAGE = 4096,
    FROZEN_SIGNALS = 64,
    FROZEN_FILTERS = 8,
    FROZEN_IDENTITIES = 8,
    FROZEN_PATH = 256,
    FROZEN_IMAGE = 51, /* where the thawing program has the file and the guest's memory (isolation/machine.py) */
    FROZEN_MEMORY = 50,
};

#define FROZEN_MAGIC 0x0000317a72667674u /* "tvfrz1" */
#define FROZEN_BASE 0x200000000000u      /* the thawing program itself: Makefile */
#define FROZEN_TABLE 0x210000000000u
#define FROZEN_END 0x220000000000u

struct frozen_descriptor {
    int32_t number, source; /* what is given as `source`; below 0 one of the following kinds */
    int32_t flags, cloexec;
    uint64_t value;
};
enum { FROZEN_EVENT = -1, FROZEN_SIGNAL = -2, FROZEN_RANDOM = -3 /* /dev/urandom */ };

struct frozen_file {
    uint64_t inode, size, seconds, nanoseconds;
    char path[FROZEN_PATH];
};

struct frozen_area {
    uint64_t start, end, offset;
    int32_t source; /* a file's number, or one of the following kinds */
    uint32_t protection;
};
enum { FROZEN_NOTHING = -1, FROZEN_PAGES = -2, FROZEN_GUEST = -3 };

struct frozen_action {
    uint64_t handler, flags, restorer, mask;
};

struct frozen_thread {
    uint64_t frame; /* where its rt_sigframe stands, as the process sees it */
    uint64_t local, number; /* of thread-local storage; where its id is kept */
};

/* Where sixteen bytes stand that tell a machine from others (its generation), as a UUID, or as a guest reads one. */
struct frozen_identity {
    uint64_t place;
    uint64_t little; /* the first three fields have their lowest byte first */
};

struct frozen {
    uint64_t magic, size; /* of all that is mapped at TABLE */
    uint64_t vdso, vdso_size; /* with the pages in front of it */
    uint64_t layout[11]; /* struct prctl_mm_map, prctl(2) */
    uint32_t descriptors, files, areas, threads, filters, identified;
    uint32_t instructions[FROZEN_FILTERS];
    uint64_t descriptor_at, file_at, area_at, filter_at, thread_at; /* from the beginning of the file */
    struct frozen_identity identities[FROZEN_IDENTITIES];
    struct frozen_action actions[FROZEN_SIGNALS];
    char name[16];
};

#endif
