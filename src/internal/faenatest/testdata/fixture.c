// The functions that tests run: one static program with a mode for each thing that a function can do, good or bad. The
// first argument is the mode, then its arguments; a parameter that Faena appends comes last and is ignored unless said.
//
//	arg                 writes its last argument, as it is
//	cat                 copies standard input to standard output
//	exit N              writes "out" and "err", ends with N
//	attempt N           writes the FAENA_ATTEMPT that it is, ends with 7 where that is less than N
//	sleep MS            sleeps, then writes "slept"
//	env                 writes its environment, a line each
//	cwd | uid | fds     writes its directory; its user; the descriptors that are open
//	size N              writes N bytes of a pattern: byte i is i*7+i/251, modulo 256
//	yes                 writes for ever
//	err N               writes N bytes to standard error, then "done" to standard output
//	tick N MS           writes N lines to standard error, one each MS milliseconds
//	oom | oom-child     takes memory until it is killed; a child does, and the program ends with 0
//	bomb                forks until it cannot, then ends with 0, its children waiting for ever
//	daemon              leaves a child that holds standard output open and sleeps, ends with 0
//	orphans N           leaves N sleeping children, ends with 0
//	stubborn            ignores SIGTERM and sleeps for ever
//	raise N             kills itself with signal N
//	litter              leaves files in /tmp and /dev/shm, closed directories, and System V shared memory
//	found               writes how many of such things it found
//	close-tmp           leaves a file in /tmp, and /tmp closed to everybody
//	replace PATH        puts a file of its own into the place of another, or says why it cannot
//	traced              ends while a child traces it
//	stranger            leaves a process of another user
//	signals             writes which signals it ignores and blocks
//	limit               lowers a limit of process 1
//	deaf                closes standard input without reading it, writes "deaf"
//	write PATH          writes a file, or says why it cannot
//	make PATH           likewise, a file that is not there yet
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void put(int fd, const void *p, size_t n) {
	const char *s = p;
	while (n > 0) {
		ssize_t m = write(fd, s, n);
		if (m < 0 && errno == EINTR) continue;
		if (m <= 0) exit(9);
		s += m;
		n -= (size_t)m;
	}
}

static void say(int fd, const char *s) { put(fd, s, strlen(s)); }

static void nap(long ms) {
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}

static void forever(void) { for (;;) pause(); }

static void pattern(int fd, long n) {
	static unsigned char buf[65536];
	long i = 0;
	while (i < n) {
		long m = n - i < (long)sizeof buf ? n - i : (long)sizeof buf;
		for (long k = 0; k < m; k++) buf[k] = (unsigned char)((i + k) * 7 + (i + k) / 251);
		put(fd, buf, (size_t)m);
		i += m;
	}
}

static void eat(void) {
	for (;;) {
		char *p = malloc(1 << 20);
		if (p) memset(p, 1, 1 << 20);
	}
}

static int entries(const char *dir) {
	DIR *d = opendir(dir);
	int n = 0;
	if (!d) return 0;
	for (struct dirent *e; (e = readdir(d));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) n++;
	closedir(d);
	return n;
}

static void litter(void) {
	mkdir("/tmp/a", 0700);
	mkdir("/tmp/a/b", 0700);
	close(open("/tmp/a/b/c", O_CREAT | O_WRONLY, 0600));
	chmod("/tmp/a/b", 0);
	chmod("/tmp/a", 0);
	if (symlink("/", "/tmp/link") < 0) exit(8);
	close(open("/dev/shm/x", O_CREAT | O_WRONLY, 0600));
	if (shmget(42, 4096, IPC_CREAT | 0600) < 0) exit(8);
	say(1, "littered");
}

/* child runs fn in a child, waits until it has said that it is ready, and leaves it. */
static void child(int (*fn)(void)) {
	int p[2], c;
	char ok = 0;
	if (pipe(p) < 0 || (c = fork()) < 0) exit(8);
	if (!c) {
		ok = fn() < 0 ? 'n' : 'y';
		put(p[1], &ok, 1);
		forever();
	}
	if (read(p[0], &ok, 1) != 1 || ok != 'y') exit(8);
}

static int seize(void) { return (int)ptrace(PTRACE_SEIZE, getppid(), 0, 0); }
static int stranger(void) { return setuid(1000); }

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "", *last = argv[argc - 1];
	long n = argc > 2 ? atol(argv[2]) : 0, ms = argc > 3 ? atol(argv[3]) : 0;
#define IS(m) (!strcmp(mode, m))
	if (IS("arg")) say(1, last);
	else if (IS("cat")) {
		static char buf[65536];
		for (ssize_t m; (m = read(0, buf, sizeof buf)) > 0;) put(1, buf, (size_t)m);
	} else if (IS("exit")) { say(1, "out"); say(2, "err"); return (int)n; }
	else if (IS("attempt")) { const char *a = getenv("FAENA_ATTEMPT"); say(1, a ? a : "?"); return a && atol(a) < n ? 7 : 0; }
	else if (IS("sleep")) { nap(n); say(1, "slept"); }
	else if (IS("env")) for (char **e = environ; *e; e++) { say(1, *e); say(1, "\n"); }
	else if (IS("cwd")) { char b[4096]; say(1, getcwd(b, sizeof b) ? b : "?"); }
	else if (IS("uid")) dprintf(1, "%d:%d", getuid(), getgid());
	else if (IS("fds")) { for (int fd = 0; fd < 1024; fd++) if (fcntl(fd, F_GETFD) >= 0) dprintf(1, "%d ", fd); }
	else if (IS("size")) pattern(1, n);
	else if (IS("yes")) for (;;) pattern(1, 65536);
	else if (IS("err")) { pattern(2, n); say(1, "done"); }
	else if (IS("tick")) for (long i = 0; i < n; i++) { dprintf(2, "tick %ld\n", i); nap(ms); }
	else if (IS("oom")) eat();
	else if (IS("oom-child")) {
		pid_t p = fork();
		if (p == 0) eat();
		waitpid(p, NULL, 0);
		say(1, "survived");
	} else if (IS("bomb")) {
		int made = 0;
		for (;; made++) {
			pid_t p = fork();
			if (p < 0) break;
			if (p == 0) forever();
		}
		dprintf(1, "%d", made);
	} else if (IS("daemon")) {
		if (fork() == 0) { setsid(); nap(600000); return 0; }
		say(1, "main has ended");
	} else if (IS("orphans")) {
		for (long i = 0; i < n; i++) if (fork() == 0) forever();
		say(1, "left");
	} else if (IS("stubborn")) { signal(SIGTERM, SIG_IGN); say(2, "here"); forever(); }
	else if (IS("raise")) { raise((int)n); nap(1000); }
	else if (IS("litter")) litter();
	else if (IS("found")) dprintf(1, "tmp %d shm %d ipc %d", entries("/tmp"), entries("/dev/shm"), shmget(42, 1, 0) >= 0);
	else if (IS("signals")) {
		struct sigaction a;
		sigset_t blocked;
		sigprocmask(SIG_BLOCK, NULL, &blocked);
		for (int s = 1; s < 65; s++) {
			if (!sigaction(s, NULL, &a) && a.sa_handler != SIG_DFL) dprintf(1, "%d is not at its default ", s);
			if (sigismember(&blocked, s) == 1) dprintf(1, "%d is blocked ", s);
		}
		say(1, "done");
	} else if (IS("close-tmp")) {
		close(open("/tmp/secret", O_CREAT | O_WRONLY, 0600));
		say(1, chmod("/tmp", 0300) < 0 ? "not mine" : "closed");
	} else if (IS("replace")) say(1, unlink(argv[2]) < 0 || open(argv[2], O_CREAT | O_WRONLY, 0600) < 0 ? strerror(errno) : "replaced");
	else if (IS("traced")) { prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); child(seize); say(1, "traced"); }
	else if (IS("stranger")) { child(stranger); say(1, "left"); }
	else if (IS("limit")) {
		struct rlimit r = {10, 10};
		dprintf(1, "%d", prlimit(1, RLIMIT_NOFILE, &r, NULL));
	} else if (IS("deaf")) { close(0); say(1, "deaf"); }
	else if (IS("write") || IS("make")) {
		int fd = open(argv[2], O_CREAT | O_WRONLY | (IS("make") ? O_EXCL : 0), 0600);
		say(1, fd < 0 ? strerror(errno) : "written");
	} else { dprintf(2, "unknown mode %s\n", mode); return 64; }
	return 0;
}
