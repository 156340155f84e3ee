// A function that finds out what it can reach.
//
//	serve PORT      listens by TCP and UDP, writes its addresses to standard error, waits for ever
//	probe "MS WHAT…" tries all of it, waits MS for each, and writes a line each: "reached", an address, or why not
//
// WHAT is tcp/ADDRESS/PORT, udp/ADDRESS/PORT, dns/NAME (asks the engine's resolver for an address), or raw/SOURCE/ADDRESS/PORT (sends a
// packet of UDP with a forged source).
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int wait_ms;

static const char *why(void) { return strerror(errno); }

// to makes an address of text; link-local ones are on eth0.
static socklen_t to(const char *text, int port, struct sockaddr_storage *a) {
	struct sockaddr_in *four = (void *)a;
	struct sockaddr_in6 *six = (void *)a;
	memset(a, 0, sizeof *a);
	if (inet_pton(AF_INET, text, &four->sin_addr) == 1) return four->sin_family = AF_INET, four->sin_port = htons(port), sizeof *four;
	if (inet_pton(AF_INET6, text, &six->sin6_addr) != 1) exit(65);
	six->sin6_family = AF_INET6, six->sin6_port = htons(port);
	if (IN6_IS_ADDR_LINKLOCAL(&six->sin6_addr)) six->sin6_scope_id = if_nametoindex("eth0");
	return sizeof *six;
}

static int answered(int s, short events) {
	struct pollfd p = {s, events, 0};
	if (poll(&p, 1, wait_ms) == 0) return errno = ETIMEDOUT, 0;
	socklen_t size = sizeof errno;
	int failed = 0;
	if (getsockopt(s, SOL_SOCKET, SO_ERROR, &failed, &size) < 0 || failed) return errno = failed, 0;
	return 1;
}

static const char *tcp(const char *address, int port) {
	struct sockaddr_storage a;
	socklen_t size = to(address, port, &a);
	int s = socket(a.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (connect(s, (void *)&a, size) < 0 && errno != EINPROGRESS) return why();
	return answered(s, POLLOUT) ? "reached" : why();
}

static const char *udp(const char *address, int port) {
	struct sockaddr_storage a;
	socklen_t size = to(address, port, &a);
	char b[64];
	int s = socket(a.ss_family, SOCK_DGRAM, 0);
	if (connect(s, (void *)&a, size) < 0 || send(s, "ping", 4, 0) < 0 || !answered(s, POLLIN) || recv(s, b, sizeof b, 0) < 0) return why();
	return "reached";
}

static const char *dns(const char *name) {
	unsigned char q[300] = {7, 7, 1, 0, 0, 1}, b[600];
	static char found[INET_ADDRSTRLEN];
	size_t n = 12;
	for (const char *dot; *name; name = *dot ? dot + 1 : dot) {
		dot = strchrnul(name, '.');
		q[n++] = (unsigned char)(dot - name);
		memcpy(q + n, name, (size_t)(dot - name));
		n += (size_t)(dot - name);
	}
	q[n + 2] = 1, q[n + 4] = 1, n += 5; // the root, type A, class IN
	struct sockaddr_storage a;
	socklen_t size = to("127.0.0.11", 53, &a);
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	if (connect(s, (void *)&a, size) < 0 || send(s, q, n, 0) < 0 || !answered(s, POLLIN)) return why();
	ssize_t m = recv(s, b, sizeof b, 0);
	if (m < 16 || b[7] == 0) return "no such name";
	return inet_ntop(AF_INET, b + m - 4, found, sizeof found);
}

static const char *raw(const char *from, const char *address, int port) {
	struct sockaddr_storage a, source;
	socklen_t size = to(address, port, &a);
	to(from, 53, &source);
	if (a.ss_family == AF_INET6) { // everybody may
		int s = socket(AF_INET6, SOCK_DGRAM, 0), yes = 1;
		if (setsockopt(s, SOL_IPV6, 78 /* IPV6_FREEBIND */, &yes, sizeof yes) < 0 || bind(s, (void *)&source, sizeof(struct sockaddr_in6)) < 0) return why();
		const char *said = sendto(s, "forged", 6, 0, (void *)&a, size) < 0 ? why() : "sent";
		return close(s), said;
	}
	unsigned char p[34] = {0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17};
	struct sockaddr_in *s4 = (void *)&source, *d4 = (void *)&a;
	memcpy(p + 12, &s4->sin_addr, 4), memcpy(p + 16, &d4->sin_addr, 4);
	memcpy(p + 20, &s4->sin_port, 2), memcpy(p + 22, &d4->sin_port, 2);
	p[25] = 14, memcpy(p + 28, "forged", 6);
	int s = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	return s < 0 || sendto(s, p, sizeof p, 0, (void *)&a, size) < 0 ? why() : "sent";
}

static int serve(int port) {
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int l = socket(AF_INET6, SOCK_STREAM, 0), u = socket(AF_INET6, SOCK_DGRAM, 0);
	struct ifaddrs *list;
	if (bind(l, (void *)&any, sizeof any) < 0 || listen(l, 9) < 0 || bind(u, (void *)&any, sizeof any) < 0 || getifaddrs(&list) < 0) return perror("serve"), 1;
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		char text[INET6_ADDRSTRLEN];
		if (!i->ifa_addr || i->ifa_flags & IFF_LOOPBACK) continue;
		if (i->ifa_addr->sa_family == AF_INET) fprintf(stderr, "%s ", inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text, sizeof text));
		if (i->ifa_addr->sa_family == AF_INET6) fprintf(stderr, "%s ", inet_ntop(AF_INET6, &((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr, text, sizeof text));
	}
	fprintf(stderr, "\n");
	for (;;) {
		struct sockaddr_storage who;
		socklen_t size = sizeof who;
		char b[64];
		ssize_t n = recvfrom(u, b, sizeof b, 0, (void *)&who, &size);
		if (n >= 0) sendto(u, b, (size_t)n, 0, (void *)&who, size);
	}
}

int main(int argc, char **argv) {
	if (argc < 3) return 64;
	if (!strcmp(argv[1], "serve")) return serve(atoi(argv[2]));
	char *rest = argv[argc - 1], *word = strsep(&rest, " ");
	wait_ms = atoi(word);
	while ((word = strsep(&rest, " "))) {
		char *part[4] = {0};
		for (int i = 0; i < 4; i++) part[i] = strsep(&word, "/");
		if (!strcmp(part[0], "dns")) puts(dns(part[1]));
		else if (!part[2]) return 66;
		else if (!strcmp(part[0], "tcp")) puts(tcp(part[1], atoi(part[2])));
		else if (!strcmp(part[0], "udp")) puts(udp(part[1], atoi(part[2])));
		else if (part[3]) puts(raw(part[1], part[2], atoi(part[3])));
	}
	return 0;
}
