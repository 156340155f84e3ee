// The function of the faults: it tells a ledger that it begins, sleeps, tells it that it is about to end, and writes its parameter, or its first line,
// or fails.
//
//	function ADDRESS PORT        the parameter is "TOKEN MILLISECONDS all|line|fail" and anything after a line feed, from standard input if the last
//	                             argument is the port, otherwise in the last argument
//
// It begins only once the ledger has answered: what has run is in the ledger. To standard error it writes its attempt.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int ledger = -1;

static void tell(const char *what, const char *token) {
	char line[256], answer;
	int n = snprintf(line, sizeof line, "%s %s %s %s\n", what, getenv("FAENA_ACTIVATION_ID"), getenv("FAENA_ATTEMPT"), token);
	if (write(ledger, line, n) != n || read(ledger, &answer, 1) != 1) exit(70);
}

int main(int argc, char **argv) {
	static char buffer[8 << 20];
	char token[64], what[8], *parameter = buffer;
	size_t size = 0, n;
	int ms;
	struct sockaddr_in to = {.sin_family = AF_INET};
	if (argc < 3) return 64;
	to.sin_port = htons(atoi(argv[2]));
	if (!inet_aton(argv[1], &to.sin_addr)) return 65;
	if (argc > 3) {
		parameter = argv[3];
		size = strlen(parameter);
	} else
		while ((n = fread(buffer + size, 1, sizeof buffer - 1 - size, stdin)) > 0) size += n;
	if (sscanf(parameter, "%63s %d %7s", token, &ms, what) != 3) return 66;
	if (!strcmp(what, "line")) size = strchr(parameter, '\n') + 1 - parameter;
	ledger = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(ledger, (struct sockaddr *)&to, sizeof to)) return 69;
	tell("start", token);
	fprintf(stderr, "attempt %s\n", getenv("FAENA_ATTEMPT"));
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&pause, &pause)) {}
	tell("end", token);
	if (!strcmp(what, "fail")) return 1;
	while (size > 0) {
		ssize_t w = write(1, parameter, size);
		if (w <= 0) return 71;
		parameter += w;
		size -= w;
	}
	return 0;
}
