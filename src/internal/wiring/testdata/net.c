// A function that is a server, and one that calls it: containers must not reach each other.
//
//	serve PORT         listens, calls itself at each of its addresses, writes the last to standard error, waits for ever
//	dial ADDRESS:PORT  writes "reached", or why it could not within half a second
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(struct in_addr to, int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = to};
	int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), failed = 0;
	socklen_t size = sizeof failed;
	if (s < 0) return errno;
	if (connect(s, (struct sockaddr *)&a, sizeof a) == 0) return 0;
	if (errno != EINPROGRESS) return errno;
	struct pollfd p = {s, POLLOUT, 0};
	if (poll(&p, 1, 500) == 0) return ETIMEDOUT;
	if (getsockopt(s, SOL_SOCKET, SO_ERROR, &failed, &size) < 0) return errno;
	return failed;
}

static int serve(int port) {
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct ifaddrs *list;
	const char *last = "";
	int s = socket(AF_INET, SOCK_STREAM, 0);
	if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) < 0 || listen(s, 9) < 0 || getifaddrs(&list) < 0) return perror("serve"), 1;
	for (struct ifaddrs *i = list; i; i = i->ifa_next) {
		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET) continue;
		struct in_addr own = ((struct sockaddr_in *)i->ifa_addr)->sin_addr;
		int failed = dial(own, port);
		if (failed) return fprintf(stderr, "%s: %s\n", inet_ntoa(own), strerror(failed)), 1;
		last = inet_ntoa(own);
	}
	fprintf(stderr, "%s:%d", last, port);
	for (;;) pause();
}

int main(int argc, char **argv) {
	if (argc == 3 && !strcmp(argv[1], "serve")) return serve(atoi(argv[2]));
	char *colon = argc == 3 ? strchr(argv[2], ':') : NULL;
	struct in_addr to;
	if (!colon) return 64;
	*colon = 0;
	if (!inet_aton(argv[2], &to)) return 65;
	int failed = dial(to, atoi(colon + 1));
	printf("%s", failed ? strerror(failed) : "reached");
	return 0;
}
