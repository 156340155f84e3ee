// A function that tries to get out, and writes what it found: a line name=value for each thing, errno's name where it was refused.
// "euid" writes only which user it is: as a file of mode 4755 it would be root. "wait" waits for ever.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void tried(const char *what, long result) { printf("%s=%s\n", what, result < 0 ? strerrorname_np(errno) : "done"); }

static void opened(const char *path, int how) {
	char what[300];
	snprintf(what, sizeof what, "open %s", path);
	tried(what, open(path, how));
}

// lines writes the lines of a file that begin with a word, as name=value.
static void lines(const char *path, const char *word) {
	char line[1024], name[100], value[900];
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, word, strlen(word)) && sscanf(line, "%99[^:]: %899[^\n]", name, value) == 2) printf("%s=%s\n", name, value);
	if (f) fclose(f);
}

// first writes the first line of the first of two files that is there.
static void first(const char *what, const char *a, const char *b) {
	char line[200] = "";
	FILE *f = fopen(a, "r");
	if (!f) f = fopen(b, "r");
	if (f && fgets(line, sizeof line, f)) line[strcspn(line, "\n")] = 0;
	printf("%s=%s\n", what, line);
	if (f) fclose(f);
}

// walk counts the sockets and block devices that are anywhere but in /proc and /sys.
static void walk(const char *dir, int *sockets, int *disks) {
	DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[4096];
		struct stat s;
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
		snprintf(path, sizeof path, "%s/%s", strcmp(dir, "/") ? dir : "", e->d_name);
		if (!strcmp(path, "/proc") || !strcmp(path, "/sys") || lstat(path, &s) < 0) continue;
		*sockets += S_ISSOCK(s.st_mode);
		*disks += S_ISBLK(s.st_mode);
		if (S_ISDIR(s.st_mode)) walk(path, sockets, disks);
	}
	if (d) closedir(d);
}

static void mounts(void) {
	char line[4096], root[1000], point[1000], options[500], type[100];
	FILE *f = fopen("/proc/self/mountinfo", "r");
	while (f && fgets(line, sizeof line, f)) {
		char *rest = strstr(line, " - ");
		if (sscanf(line, "%*s %*s %*s %999s %999s %499s", root, point, options) == 3 && rest && sscanf(rest, " - %99s", type) == 1)
			printf("mount %s=%s %.2s\n", point, type, options);
	}
	if (f) fclose(f);
}

static void calls(void) {
	tried("mount", mount("none", "/tmp", "tmpfs", 0, ""));
	tried("remount /", mount("", "/", "", MS_REMOUNT | MS_BIND, ""));
	tried("umount init", umount2("/.faena/init", MNT_DETACH));
	tried("chroot", chroot("/tmp"));
	tried("new user namespace", unshare(CLONE_NEWUSER));
	tried("new mount namespace", unshare(CLONE_NEWNS));
	tried("namespace of init", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
	tried("trace init", ptrace(PTRACE_ATTACH, 1, 0, 0));
	tried("raw socket", socket(AF_INET, SOCK_RAW, 1));
	tried("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
	tried("block device", mknod("/tmp/disk", S_IFBLK | 0600, 0x0801));
	close(open("/tmp/mine", O_CREAT | O_WRONLY, 0600));
	tried("chown", chown("/tmp/mine", 1, 1));
	tried("setuid", setuid(getuid() ? 0 : 1));
	tried("raise nofile", setrlimit(RLIMIT_NOFILE, &(struct rlimit){1 << 20, 1 << 20}));
	tried("bpf", syscall(SYS_bpf, 0, NULL, 0));
	tried("keyctl", syscall(SYS_keyctl, 0, -3, 1));
	tried("perf", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
	tried("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
	tried("module", syscall(SYS_init_module, NULL, 0, ""));
	tried("clock", syscall(SYS_settimeofday, NULL, NULL) < 0 ? -1 : syscall(SYS_clock_settime, 0, &(struct { long s, n; }){1, 0}));
	tried("hostname", sethostname("x", 1));
	tried("handle", syscall(SYS_open_by_handle_at, -1, NULL, 0));
}

int main(int argc, char **argv) {
	if (argc > 1 && !strcmp(argv[1], "euid")) return printf("%d", geteuid()), 0;
	for (; argc > 1 && !strcmp(argv[1], "wait");) pause();
	int sockets = 0, disks = 0;
	struct rlimit files, core;
	for (const char *w[] = {"Cap", "NoNewPrivs", "Seccomp:", 0}, **p = w; *p; p++) lines("/proc/self/status", *p);
	getrlimit(RLIMIT_NOFILE, &files);
	getrlimit(RLIMIT_CORE, &core);
	printf("uid=%d\nnofile=%ld %ld\ncore=%ld %ld\n", getuid(), (long)files.rlim_cur, (long)files.rlim_max, (long)core.rlim_cur, (long)core.rlim_max);
	first("pids", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max");
	first("memory", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max");
	mounts();
	walk("/", &sockets, &disks);
	printf("sockets=%d\ndisks=%d\n", sockets, disks);
	for (const char *w[] = {"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/systemd/private", "/.faena/run/s", 0}, **p = w; *p; p++)
		opened(*p, O_PATH);
	for (const char *r[] = {"/dev/mem", "/dev/kmsg", "/proc/kcore", "/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc", 0}, **p = r; *p; p++) opened(*p, O_RDONLY);
	for (const char *w[] = {"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/1/oom_score_adj", "/sys/kernel/uevent_helper", "/.faena/init", "/etc/passwd", 0}, **p = w; *p; p++)
		opened(*p, O_WRONLY);
	for (const char *w[] = {"/sys/fs/cgroup/x", "/.faena/run/x", "/x", 0}, **p = w; *p; p++) opened(*p, O_CREAT | O_WRONLY);
	calls();
	fflush(stdout);
	printf("euid of a file of root's=");
	fflush(stdout);
	if (fork() == 0) return execl("/rootly", "rootly", "euid", NULL), 1;
	wait(NULL);
	printf("\n");
	return 0;
}
