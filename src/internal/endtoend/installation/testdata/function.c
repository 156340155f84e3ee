// The function of the tests of an installation: one static program, whose first argument says what it does. Faena appends the
// parameter as the last one.
//
//	say WORD        writes WORD, a space and the parameter; to standard error "log of" and the parameter
//	copy            copies standard input to standard output, and as many bytes of x to standard error
//	hold NAME       writes "holding" to standard error, waits for SIGURG, which is ignored until it waits, writes the parameter
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "", *last = argv[argc - 1];
	if (!strcmp(mode, "say") && argc > 3) {
		printf("%s %s", argv[2], last);
		fprintf(stderr, "log of %s\n", last);
	} else if (!strcmp(mode, "copy")) {
		static char buf[65536], xs[65536];
		size_t n;
		memset(xs, 'x', sizeof xs);
		while ((n = fread(buf, 1, sizeof buf, stdin)) > 0)
			if (fwrite(buf, 1, n, stdout) != n || fwrite(xs, 1, n, stderr) != n) return 9;
	} else if (!strcmp(mode, "hold")) {
		sigset_t set;
		int got;
		sigemptyset(&set);
		sigaddset(&set, SIGURG);
		sigprocmask(SIG_BLOCK, &set, NULL);
		fprintf(stderr, "holding %s\n", last);
		sigwait(&set, &got);
		printf("%s", last);
	} else return 64;
	return 0;
}
