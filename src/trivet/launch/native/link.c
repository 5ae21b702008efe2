/* Network interfaces, addresses and routes, in the network namespace the executor is in (rtnetlink(7)). */
#include "executor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MESSAGE_SIZE = 512, REPLY_SIZE = 16384 };

struct message {
    struct nlmsghdr header;
    char body[MESSAGE_SIZE];
};

struct subnet {
    int family;
    unsigned char address[16];
    size_t size;
    unsigned char prefix;
};

static int netlink_open(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
}

static void begin(struct message *message, uint16_t type, uint16_t flags, const void *body, size_t size)
{
    memset(message, 0, sizeof *message);
    message->header.nlmsg_type = type;
    message->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    message->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(size);
    memcpy(message->body, body, size);
}

static void add(struct message *message, uint16_t type, const void *value, size_t size)
{
    uint32_t offset = NLMSG_ALIGN(message->header.nlmsg_len);
    struct rtattr *attribute = (struct rtattr *)((char *)message + offset);
    attribute->rta_type = type;
    attribute->rta_len = (unsigned short)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    message->header.nlmsg_len = offset + (uint32_t)RTA_ALIGN(attribute->rta_len);
}

/* Send and wait for the acknowledgement. */
static int exchange(int fd, struct message *message)
{
    _Alignas(struct nlmsghdr) char reply[REPLY_SIZE];
    message->header.nlmsg_flags |= NLM_F_ACK;
    if (send(fd, message, message->header.nlmsg_len, 0) < 0)
        return -1;
    ssize_t length = recv(fd, reply, sizeof reply, 0);
    if (length < (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)))
        return -1;
    struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)reply);
    errno = -error->error;
    return error->error ? -1 : 0;
}

static bool parse_mac(const char *text, unsigned char mac[6])
{
    int used = 0;
    return sscanf(text, "%2hhx:%2hhx:%2hhx:%2hhx:%2hhx:%2hhx%n", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4], &mac[5],
                  &used) == 6
        && used == 17 && !text[17];
}

/* Index of the interface in one RTM_NEWLINK message if its address is `mac`, else 0. */
static int index_if(struct nlmsghdr *header, const unsigned char mac[6])
{
    struct ifinfomsg *info = NLMSG_DATA(header);
    struct rtattr *attribute = IFLA_RTA(info);
    int length = (int)IFLA_PAYLOAD(header);
    for (; RTA_OK(attribute, length); attribute = RTA_NEXT(attribute, length))
        if (attribute->rta_type == IFLA_ADDRESS && RTA_PAYLOAD(attribute) == 6 && !memcmp(RTA_DATA(attribute), mac, 6))
            return info->ifi_index;
    return 0;
}

static int index_of_mac(int fd, const unsigned char mac[6])
{
    _Alignas(struct nlmsghdr) char reply[REPLY_SIZE];
    struct message message;
    struct ifinfomsg info = { .ifi_family = AF_UNSPEC };
    begin(&message, RTM_GETLINK, NLM_F_DUMP, &info, sizeof info);
    if (send(fd, &message, message.header.nlmsg_len, 0) < 0)
        return -1;
    for (int found = 0;;) {
        ssize_t received = recv(fd, reply, sizeof reply, 0);
        if (received <= 0)
            return -1;
        unsigned length = (unsigned)received;
        for (struct nlmsghdr *header = (struct nlmsghdr *)reply; NLMSG_OK(header, length);
             header = NLMSG_NEXT(header, length)) {
            if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR) {
                errno = ENODEV;
                return found ? found : -1;
            }
            if (!found && header->nlmsg_type == RTM_NEWLINK)
                found = index_if(header, mac);
        }
    }
}

static int index_of(int fd, const char *link)
{
    unsigned char mac[6];
    struct ifreq request = { 0 };
    if (parse_mac(link, mac))
        return index_of_mac(fd, mac);
    if (strlen(link) >= IFNAMSIZ) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(request.ifr_name, link);
    return ioctl(fd, SIOCGIFINDEX, &request) < 0 ? -1 : request.ifr_ifindex;
}

/* Parse ADDRESS[/PREFIX], IPv4 or IPv6. */
static bool parse_subnet(const char *text, struct subnet *subnet)
{
    char address[64];
    const char *slash = strchr(text, '/');
    size_t length = slash ? (size_t)(slash - text) : strlen(text);
    if (length >= sizeof address)
        return false;
    memcpy(address, text, length);
    address[length] = 0;
    subnet->family = strchr(address, ':') ? AF_INET6 : AF_INET;
    subnet->size = subnet->family == AF_INET6 ? 16 : 4;
    unsigned prefix = (unsigned)subnet->size * 8, limit = prefix;
    int used = 0;
    if (slash && (sscanf(slash, "/%3u%n", &prefix, &used) != 1 || slash[used] || prefix > limit))
        return false;
    subnet->prefix = (unsigned char)prefix;
    return inet_pton(subnet->family, address, subnet->address) == 1;
}

/* Say what failed, unless nothing did, and close the socket. */
static int finish(struct executor *executor, int fd, int result, const char *what, const char *link)
{
    if (result < 0)
        refuse(executor, errno, "%s of interface %s", what, link);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* A socket to speak to the kernel about an interface, whose index is found. */
static int reach(struct executor *executor, const char *what, const char *link, int *index)
{
    int fd = netlink_open();
    if (fd < 0)
        return -1;
    *index = index_of(fd, link);
    return *index < 0 ? finish(executor, fd, -1, what, link) : fd;
}

static int set_link(int fd, const struct ifinfomsg *info, uint16_t type, const void *value, size_t size)
{
    struct message message;
    begin(&message, RTM_NEWLINK, 0, info, sizeof *info);
    if (size)
        add(&message, type, value, size);
    return exchange(fd, &message);
}

/*
 * Rename an interface. The kernel of a machine names those that are plugged in together in the order in which it sees
 * them: one that is known by its address takes its name from another one that has it, which will get its own.
 */
static int rename_link(int fd, const char *link, int index, const char *name)
{
    static const char aside[] = "was%d"; /* the kernel chooses the number */
    unsigned char mac[6];
    struct ifinfomsg info = { .ifi_index = index };
    int result = set_link(fd, &info, IFLA_IFNAME, name, strlen(name) + 1);
    if (result == 0 || errno != EEXIST || !parse_mac(link, mac))
        return result;
    struct ifinfomsg other = { .ifi_index = index_of(fd, name) };
    if (other.ifi_index < 0 || set_link(fd, &other, IFLA_IFNAME, aside, sizeof aside) < 0)
        return -1;
    return set_link(fd, &info, IFLA_IFNAME, name, strlen(name) + 1);
}

int operate_link_up(struct executor *executor, struct cursor *fields)
{
    static const char what[] = "bring up";
    const char *link = take_text(fields), *name = take_text(fields);
    uint32_t mtu = (uint32_t)take_integer(fields);
    int index, result = 0, fd = reach(executor, what, link, &index);
    if (fd < 0)
        return -1;
    struct ifinfomsg up = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    if (strlen(name) >= IFNAMSIZ)
        result = refuse(executor, ENAMETOOLONG, "interface name %s", name);
    if (result == 0 && *name && strcmp(name, link))
        result = rename_link(fd, link, index, name);
    if (result == 0)
        result = set_link(fd, &up, IFLA_MTU, &mtu, mtu ? sizeof mtu : 0);
    return finish(executor, fd, result, what, link);
}

int operate_link_address(struct executor *executor, struct cursor *fields)
{
    static const char what[] = "MAC address";
    const char *link = take_text(fields), *text = take_text(fields);
    unsigned char mac[6];
    if (!parse_mac(text, mac))
        return refuse(executor, EINVAL, "not a MAC address: %s", text);
    int index, fd = reach(executor, what, link, &index);
    if (fd < 0)
        return -1;
    struct ifinfomsg same = { .ifi_index = index };
    return finish(executor, fd, set_link(fd, &same, IFLA_ADDRESS, mac, sizeof mac), what, link);
}

static void begin_address(struct message *message, uint16_t type, uint16_t flags, const struct subnet *subnet, int index)
{
    /* Without duplicate address detection an IPv6 address can be used at once; the engine gave it out. */
    struct ifaddrmsg info = { .ifa_family = (unsigned char)subnet->family, .ifa_prefixlen = subnet->prefix,
                              .ifa_index = (unsigned)index, .ifa_flags = type == RTM_NEWADDR ? IFA_F_NODAD : 0 };
    begin(message, type, flags, &info, sizeof info);
    add(message, IFA_LOCAL, subnet->address, subnet->size);
}

int operate_drop_address(struct executor *executor, struct cursor *fields)
{
    static const char what[] = "drop the address";
    const char *link = take_text(fields), *address = take_text(fields);
    struct subnet subnet;
    if (!parse_subnet(address, &subnet))
        return refuse(executor, EINVAL, "not an address: %s", address);
    int index, fd = reach(executor, what, link, &index);
    if (fd < 0)
        return -1;
    struct message message;
    begin_address(&message, RTM_DELADDR, 0, &subnet, index);
    int result = exchange(fd, &message);
    if (result < 0 && errno == EADDRNOTAVAIL) /* somebody inside was faster */
        result = 0;
    return finish(executor, fd, result, what, link);
}

int operate_add_address(struct executor *executor, struct cursor *fields)
{
    static const char what[] = "address";
    const char *link = take_text(fields), *address = take_text(fields);
    struct subnet subnet;
    if (!parse_subnet(address, &subnet))
        return refuse(executor, EINVAL, "not an address: %s", address);
    int index, fd = reach(executor, what, link, &index);
    if (fd < 0)
        return -1;
    struct message message;
    begin_address(&message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &subnet, index);
    add(&message, IFA_ADDRESS, subnet.address, subnet.size);
    if (subnet.family == AF_INET && subnet.prefix < 31) {
        uint32_t broadcast;
        memcpy(&broadcast, subnet.address, sizeof broadcast);
        broadcast |= htonl(subnet.prefix ? 0xffffffffu >> subnet.prefix : 0xffffffffu);
        add(&message, IFA_BROADCAST, &broadcast, sizeof broadcast);
    }
    return finish(executor, fd, exchange(fd, &message), what, link);
}

int operate_add_route(struct executor *executor, struct cursor *fields)
{
    static const char what[] = "route";
    const char *link = take_text(fields), *destination = take_text(fields), *gateway = take_text(fields);
    struct subnet subnet = { 0 }, via = { 0 };
    if (*destination && !parse_subnet(destination, &subnet))
        return refuse(executor, EINVAL, "not a destination: %s", destination);
    if (*gateway && !parse_subnet(gateway, &via))
        return refuse(executor, EINVAL, "not a gateway: %s", gateway);
    int family = subnet.family ? subnet.family : via.family ? via.family : AF_INET;
    int index, fd = reach(executor, what, link, &index);
    if (fd < 0)
        return -1;
    struct message message;
    struct rtmsg info = { .rtm_family = (unsigned char)family, .rtm_dst_len = subnet.prefix,
                          .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT, .rtm_type = RTN_UNICAST,
                          .rtm_scope = *gateway || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK };
    begin(&message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &info, sizeof info);
    if (*destination)
        add(&message, RTA_DST, subnet.address, subnet.size);
    if (*gateway)
        add(&message, RTA_GATEWAY, via.address, via.size);
    add(&message, RTA_OIF, &index, sizeof index);
    return finish(executor, fd, exchange(fd, &message), what, link);
}
