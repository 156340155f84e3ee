// The function of these tests: it tells the test that it runs, by TCP, and does what it is told.
//
//	reporter PORT stdin, or PORT arg PARAMETER
//
// To PORT of the container's default gateway, which is the host, it sends
// the attempt, a space and the parameter up to the first line's end. The answer is one byte: g, write the parameter and end well; x,
// end with 3. While it waits, and until it has ended, the connection is open.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char text[1 << 20];

static in_addr_t gateway(void) {
	char line[256], name[32];
	unsigned to, via;
	FILE *f = fopen("/proc/net/route", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "%31s %x %x", name, &to, &via) == 3 && to == 0) return via;
	return INADDR_NONE;
}

int main(int argc, char **argv) {
	if (argc < 3) return 64;
	size_t size = 0;
	if (!strcmp(argv[2], "stdin")) {
		for (ssize_t n; (n = read(0, text + size, sizeof text - size)) > 0;) size += n;
	} else {
		size = strlen(argv[argc - 1]);
		memcpy(text, argv[argc - 1], size);
	}
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr.s_addr = gateway()};
	int s = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(s, (struct sockaddr *)&to, sizeof to)) {
		perror("connect");
		return 70;
	}
	const char *attempt = getenv("FAENA_ATTEMPT");
	dprintf(s, "%s %.*s\n", attempt ? attempt : "?", (int)strcspn(text, "\n"), text);
	char told;
	if (read(s, &told, 1) != 1) return 71;
	if (told == 'x') return 3;
	for (size_t at = 0; at < size;) {
		ssize_t n = write(1, text + at, size - at);
		if (n < 0) return 72;
		at += n;
	}
	return 0;
}
