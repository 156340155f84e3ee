// agent takes the place of faena-init in the tests of dockerengine: it connects to the worker's socket and does what
// it is told, one line each. Every answer is its length in decimal, a newline, and that many bytes.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int sock;

static void answer(const char *p, size_t n) {
	char head[32];
	int h = snprintf(head, sizeof head, "%zu\n", n);
	if (write(sock, head, h) != h) _exit(3);
	while (n > 0) {
		ssize_t w = write(sock, p, n);
		if (w <= 0) _exit(3);
		p += w, n -= w;
	}
}

static void say(const char *format, ...) {
	char text[1024];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	answer(text, n);
}

// cat answers with a file's content, or "error N".
static void cat(const char *path) {
	static char buf[1 << 16];
	int fd = open(path, O_RDONLY);
	if (fd < 0) { say("error %d", errno); return; }
	ssize_t n = 0, r;
	while ((r = read(fd, buf + n, sizeof buf - n)) > 0) n += r;
	close(fd);
	answer(buf, n);
}

// put writes n MiB to a file and answers with the bytes written and the errno that ended it.
static void put(const char *path, int mib) {
	static char block[1 << 20];
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	if (fd < 0) { say("0 %d", errno); return; }
	long long n = 0;
	int err = 0;
	while (n < (long long)mib << 20) {
		ssize_t w = write(fd, block, sizeof block);
		if (w < 0) { err = errno; break; }
		n += w;
	}
	close(fd);
	say("%lld %d", n, err);
}

// grow uses n MiB of memory in a child and answers with how the child ended.
static void grow(int mib) {
	pid_t pid = fork();
	if (pid == 0) {
		char *p = malloc((size_t)mib << 20);
		if (p == NULL) _exit(7);
		for (size_t i = 0; i < (size_t)mib << 20; i += 4096) p[i] = 1;
		_exit(0);
	}
	int status = 0;
	if (pid < 0 || waitpid(pid, &status, 0) != pid) { say("error %d", errno); return; }
	if (WIFSIGNALED(status)) say("signal %d", WTERMSIG(status));
	else say("exit %d", WEXITSTATUS(status));
}

// forks starts n children at once, answers with how many there were and the last errno, and ends them.
static void forks(int n) {
	int made = 0, err = 0;
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0) { pause(); _exit(0); }
		if (pid < 0) { err = errno; break; }
		made++;
	}
	kill(-1, SIGKILL);
	while (wait(NULL) > 0) {}
	say("%d %d", made, err);
}

// dial tries a TCP connection and answers with 0 or the errno.
static void dial(const char *ip, int port) {
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct timeval patience = {.tv_sec = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	inet_pton(AF_INET, ip, &to.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	int err = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? 0 : errno;
	close(fd);
	say("%d", err);
}

// serve listens on a port for as long as the container lives.
static void serve(int port) {
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) != 0 || listen(fd, 8) != 0) { say("%d", errno); return; }
	say("0");
}

static void obey(char *line) {
	char path[512];
	int n;
	struct rlimit r;
	if (sscanf(line, "cat %511s", path) == 1) cat(path);
	else if (sscanf(line, "put %511s %d", path, &n) == 2) put(path, n);
	else if (sscanf(line, "grow %d", &n) == 1) grow(n);
	else if (sscanf(line, "forks %d", &n) == 1) forks(n);
	else if (sscanf(line, "access %511s", path) == 1) say("%d", access(path, F_OK) == 0 ? 0 : errno);
	else if (sscanf(line, "mkdir %511s", path) == 1) say("%d", mkdir(path, 0755) == 0 ? 0 : errno);
	else if (sscanf(line, "dial %511s %d", path, &n) == 2) dial(path, n);
	else if (sscanf(line, "serve %d", &n) == 1) serve(n);
	else if (strcmp(line, "ids") == 0) say("%d %d %d", getuid(), getgid(), getpid());
	else if (strcmp(line, "cwd") == 0) say("%s", getcwd(path, sizeof path) ? path : "?");
	else if (strcmp(line, "chown") == 0) say("%d", chown("/tmp", 1, 1) == 0 ? 0 : errno);
	else if (sscanf(line, "rlimit %d", &n) == 1) {
		getrlimit(n, &r);
		say("%llu %llu", (unsigned long long)r.rlim_cur, (unsigned long long)r.rlim_max);
	} else say("what is %s?", line);
}

int main(void) {
	struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/.faena/run/init.sock"};
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(sock, (struct sockaddr *)&to, sizeof to) != 0) return 1;
	FILE *in = fdopen(dup(sock), "r");
	static char line[1024];
	while (fgets(line, sizeof line, in) != NULL) {
		line[strcspn(line, "\n")] = 0;
		obey(line);
	}
	return 0;
}
