/* Who the program runs as: look-up in the image's own files. privilege.c then becomes that.
 *
 * The image is hostile: its passwd may be a FIFO, a device, a link or a gigabyte. Only regular files below
 * the root are read, at most FILE_LIMIT bytes of them. Docker's rules (moby/sys/user): a number is always an
 * id; an explicit group means no supplementary groups; ids end at 2^31-1.
 */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { FILE_LIMIT = 1 << 20, FIELD_LIMIT = 7, ID_LIMIT = 0x7fffffff };
enum { PASSWD_NAME = 0, PASSWD_UID = 2, PASSWD_GID = 3, PASSWD_HOME = 5, PASSWD_FIELDS = 6 };
enum { GROUP_NAME = 0, GROUP_GID = 2, GROUP_MEMBERS = 3, GROUP_FIELDS = 4 };

struct span {
    const char *at;
    size_t length;
};

/* A file of the image, read into memory of its own. */
struct table {
    char *bytes;
    size_t length;
    int error;
};

static struct span span_of(const char *text) { return (struct span){ text, strlen(text) }; }

static bool equal(struct span a, struct span b)
{
    return a.length == b.length && !memcmp(a.at, b.at, a.length);
}

/* 1: a number within range; 0: not a number; -1: a number out of range. */
static int parse_id(struct span text, uint32_t *id)
{
    bool negative = text.length && text.at[0] == '-';
    uint64_t value = 0;
    for (size_t i = negative; i < text.length; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return 0;
        value = value * 10 + (uint64_t)(text.at[i] - '0');
        if (value > ID_LIMIT)
            value = (uint64_t)ID_LIMIT + 1;
    }
    if (text.length == (size_t)negative)
        return 0;
    *id = (uint32_t)value;
    return negative || value > ID_LIMIT ? -1 : 1;
}

/* --- reading ---------------------------------------------------------------------------------------- */

static int open_regular(struct executor *executor, const char *path)
{
    struct stat status;
    int seen = root_open(executor, path, O_PATH);
    if (seen < 0)
        return -1;
    bool regular = fstat(seen, &status) == 0 && S_ISREG(status.st_mode);
    close(seen);
    int fd = regular ? root_open(executor, path, O_RDONLY | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd >= 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size <= FILE_LIMIT)
        return fd;
    if (fd >= 0)
        close(fd);
    errno = regular ? EFBIG : EINVAL;
    return -1;
}

static struct table table_read(struct executor *executor, const char *path)
{
    struct table table = { .bytes = MAP_FAILED };
    int fd = open_regular(executor, path);
    if (fd >= 0)
        table.bytes = mmap(NULL, FILE_LIMIT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (table.bytes == MAP_FAILED) {
        table.error = errno;
        table.bytes = NULL;
    }
    while (table.bytes && table.length < FILE_LIMIT) {
        ssize_t size = read(fd, table.bytes + table.length, FILE_LIMIT - table.length);
        if (size <= 0)
            break;
        table.length += (size_t)size;
    }
    if (fd >= 0)
        close(fd);
    return table;
}

static void table_free(struct table *table)
{
    if (table->bytes)
        munmap(table->bytes, FILE_LIMIT);
}

/* Cut the next line into fields; the number of fields, or -1 at the end. */
static int next_line(const struct table *table, size_t *at, struct span fields[FIELD_LIMIT])
{
    if (!table->bytes || *at >= table->length)
        return -1;
    const char *line = table->bytes + *at;
    const char *newline = memchr(line, '\n', table->length - *at);
    const char *end = newline ? newline : table->bytes + table->length;
    int count = 0;
    *at = (size_t)(end - table->bytes) + 1;
    while (count < FIELD_LIMIT) {
        const char *colon = count == FIELD_LIMIT - 1 ? NULL : memchr(line, ':', (size_t)(end - line));
        fields[count++] = (struct span){ line, (size_t)((colon ? colon : end) - line) };
        if (!colon)
            break;
        line = colon + 1;
    }
    return count;
}

static bool lists(struct span members, struct span name)
{
    while (members.length) {
        const char *comma = memchr(members.at, ',', members.length);
        size_t length = comma ? (size_t)(comma - members.at) : members.length;
        if (equal((struct span){ members.at, length }, name))
            return true;
        size_t used = comma ? length + 1 : length;
        members = (struct span){ members.at + used, members.length - used };
    }
    return false;
}

/* --- looking up ------------------------------------------------------------------------------------- */

static int add_group(struct executor *executor, uint32_t gid)
{
    struct identity *identity = &executor->identity;
    for (size_t i = 0; i < identity->group_count; i++)
        if (identity->groups[i] == gid)
            return 0;
    if (identity->group_count == GROUP_LIMIT)
        return refuse(executor, EINVAL, "more than %d groups", GROUP_LIMIT);
    identity->groups[identity->group_count++] = gid;
    return 0;
}

static void set_home(struct identity *identity, struct span home)
{
    bool usable = home.length && home.length < sizeof identity->home && home.at[0] == '/' && !memchr(home.at, 0, home.length);
    memcpy(identity->home, usable ? home.at : "/", usable ? home.length : 1);
    identity->home[usable ? home.length : 1] = 0;
}

/* Find the line of /etc/passwd for a name or (numeric) an id; 1 found, 0 not there, -1 unusable. */
static int find_user(struct executor *executor, const struct table *passwd, struct span name, int64_t uid, struct span *found)
{
    struct span fields[FIELD_LIMIT];
    struct identity *identity = &executor->identity;
    size_t at = 0;
    for (int count; (count = next_line(passwd, &at, fields)) >= 0;) {
        uint32_t line_uid = 0, line_gid = 0;
        if (count < PASSWD_FIELDS)
            continue;
        bool sound = parse_id(fields[PASSWD_UID], &line_uid) == 1 && parse_id(fields[PASSWD_GID], &line_gid) == 1;
        if (uid >= 0 ? !sound || line_uid != uid : !equal(fields[PASSWD_NAME], name))
            continue;
        if (!sound)
            return refuse(executor, EINVAL, "user %.*s has no usable ids in /etc/passwd", (int)name.length, name.at);
        identity->uid = line_uid;
        identity->gid = line_gid;
        set_home(identity, fields[PASSWD_HOME]);
        *found = fields[PASSWD_NAME];
        return 1;
    }
    return 0;
}

/* Turn a group's name or number into its id. */
static int find_group(struct executor *executor, const struct table *table, struct span name, uint32_t *gid)
{
    struct span fields[FIELD_LIMIT];
    size_t at = 0;
    int numeric = parse_id(name, gid);
    if (numeric)
        return numeric > 0 ? 0 : refuse(executor, EINVAL, "group id %.*s is out of range", (int)name.length, name.at);
    for (int count; (count = next_line(table, &at, fields)) >= 0;) {
        if (count < GROUP_GID + 1 || !equal(fields[GROUP_NAME], name))
            continue;
        return parse_id(fields[GROUP_GID], gid) == 1
            ? 0
            : refuse(executor, EINVAL, "group %.*s has no usable id in /etc/group", (int)name.length, name.at);
    }
    return refuse(executor, table->error && table->error != ENOENT ? table->error : ENOENT,
                  "no group %.*s in /etc/group", (int)name.length, name.at);
}

static int add_memberships(struct executor *executor, const struct table *table, struct span user)
{
    struct span fields[FIELD_LIMIT];
    size_t at = 0;
    for (int count; (count = next_line(table, &at, fields)) >= 0;) {
        uint32_t gid;
        if (count < GROUP_FIELDS || !lists(fields[GROUP_MEMBERS], user) || parse_id(fields[GROUP_GID], &gid) != 1)
            continue;
        if (add_group(executor, gid) < 0)
            return -1;
    }
    return 0;
}

static int resolve_user(struct executor *executor, const struct table *passwd, struct span name, struct span *found)
{
    uint32_t uid = 0;
    int numeric = name.length ? parse_id(name, &uid) : 1;
    if (numeric < 0)
        return refuse(executor, EINVAL, "user id %.*s is out of range", (int)name.length, name.at);
    int result = find_user(executor, passwd, name, numeric ? (int64_t)uid : -1, found);
    if (result < 0 || result > 0)
        return result < 0 ? -1 : 0;
    if (!numeric)
        return refuse(executor, passwd->error && passwd->error != ENOENT ? passwd->error : ENOENT,
                      "no user %.*s in /etc/passwd", (int)name.length, name.at);
    executor->identity.uid = uid;
    return 0;
}

static int resolve(struct executor *executor, const struct table *passwd, const struct table *table, const char *spec,
                   struct strings extra)
{
    const char *colon = strchr(spec, ':');
    struct span user = { spec, colon ? (size_t)(colon - spec) : strlen(spec) }, found = { "", 0 };
    struct identity *identity = &executor->identity;
    if (resolve_user(executor, passwd, user, &found) < 0)
        return -1;
    if (colon && colon[1] && find_group(executor, table, span_of(colon + 1), &identity->gid) < 0)
        return -1;
    if (add_group(executor, identity->gid) < 0)
        return -1;
    if (!(colon && colon[1]) && found.length && add_memberships(executor, table, found) < 0)
        return -1;
    for (uint32_t i = 0; i < extra.count; i++) {
        uint32_t gid;
        struct bytes name = strings_next(&extra);
        if (find_group(executor, table, (struct span){ name.data, name.length }, &gid) < 0 || add_group(executor, gid) < 0)
            return -1;
    }
    return 0;
}

static void forget(struct identity *identity)
{
    memset(identity, 0, sizeof *identity);
    strcpy(identity->home, "/");
}

int operate_user(struct executor *executor, struct cursor *fields)
{
    const char *spec = take_text(fields);
    struct strings extra = take_strings(fields);
    struct table passwd = table_read(executor, "/etc/passwd"), table = table_read(executor, "/etc/group");
    forget(&executor->identity);
    int result = resolve(executor, &passwd, &table, spec, extra), error = errno;
    executor->identity.known = result == 0;
    table_free(&passwd);
    table_free(&table);
    errno = error;
    return result;
}

int operate_identity(struct executor *executor, struct cursor *fields)
{
    struct identity *identity = &executor->identity;
    forget(identity);
    int64_t uid = take_integer(fields), gid = take_integer(fields);
    struct strings groups = take_strings(fields);
    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return refuse(executor, EINVAL, "an id is out of range");
    if (executor->root >= 0) {
        struct table passwd = table_read(executor, "/etc/passwd");
        struct span found;
        find_user(executor, &passwd, span_of(""), uid, &found);
        table_free(&passwd);
    }
    identity->uid = (uid_t)uid;
    identity->gid = (gid_t)gid;
    for (uint32_t i = 0; i < groups.count; i++) {
        uint32_t id;
        struct bytes text = strings_next(&groups);
        if (parse_id((struct span){ text.data, text.length }, &id) != 1)
            return refuse(executor, EINVAL, "not a group id: %s", text.data);
        if (add_group(executor, id) < 0)
            return -1;
    }
    identity->known = true;
    return 0;
}
