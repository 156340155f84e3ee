// probe tries what a daemon has no business to do, and prints a line for each: "NAME: done", or why not.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int writes(const char *dir) {
	char path[256];
	snprintf(path, sizeof path, "%s/faena-probe", dir);
	int fd = open(path, O_CREAT | O_WRONLY, 0600);
	if (fd < 0) return -1;
	unlink(path);
	return close(fd);
}

static int opens(const char *path, int flags) {
	int fd = open(path, flags);
	return fd < 0 ? -1 : close(fd);
}

static int makes(int family, int type, int protocol) {
	int fd = socket(family, type, protocol);
	return fd < 0 ? -1 : close(fd);
}

static int connects(const char *path) {
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	strcpy(to.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), result = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&to, sizeof to);
	int saved = errno;
	close(fd);
	errno = saved;
	return result;
}

// in a process of its own, since it would change this one.
static int apart(int (*what)(void)) {
	int status;
	pid_t pid = fork();
	if (pid == 0) _exit(what() == 0 ? 0 : errno);
	if (pid < 0 || waitpid(pid, &status, 0) != pid) return -1;
	errno = WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
	return errno ? -1 : 0;
}

static int namespace_of_users(void) { return unshare(CLONE_NEWUSER); }
static int namespace_of_mounts(void) { return unshare(CLONE_NEWNS); }
static int namespace_of_networks(void) { return unshare(CLONE_NEWNET); }
static int root(void) { return setuid(0); }
static int traced_init(void) { return ptrace(PTRACE_SEIZE, 1, 0, 0); }
static int other_personality(void) { return personality(ADDR_NO_RANDOMIZE) < 0 ? -1 : 0; }
static int real_time(void) {
	struct sched_param p = {.sched_priority = 1};
	return sched_setscheduler(0, SCHED_FIFO, &p);
}
static int writable_code(void) {
	return mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}
static int set_root_bit(void) {
	const char *path = "/tmp/faena-probe-suid";
	int fd = open(path, O_CREAT | O_WRONLY, 0700), result = fd < 0 ? -1 : fchmod(fd, 04700), saved = errno;
	unlink(path);
	errno = saved;
	return result;
}
static int host_name(void) {
	char name[65];
	gethostname(name, sizeof name);
	return sethostname(name, strlen(name)); // to what it is
}
static int device(void) {
	const char *path = "/tmp/faena-probe-device";
	int result = mknod(path, S_IFCHR | 0600, makedev(1, 3)), saved = errno;
	unlink(path);
	errno = saved;
	return result;
}
static int interface(void) { // sets the flags of loopback to what they are
	struct ifreq r = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), result = ioctl(fd, SIOCGIFFLAGS, &r) || ioctl(fd, SIOCSIFFLAGS, &r) ? -1 : 0, saved = errno;
	close(fd);
	errno = saved;
	return result;
}
static int module(void) { return syscall(SYS_init_module, "", 0, ""); }
static int mounts(void) { return mount("none", "/tmp", "tmpfs", MS_REMOUNT | MS_BIND, ""); }
static int clock_set(void) {
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return clock_settime(CLOCK_REALTIME, &now);
}
static int signals_init(void) { return kill(1, 0); }

int main(int argc, char **argv) {
#define TRY(name, what) printf("%s: %s\n", name, (errno = 0, what) == 0 ? "done" : strerror(errno))
	TRY("own state", writes(argv[1]));
	TRY("own /tmp", writes("/tmp"));
	TRY("internet socket", makes(AF_INET, SOCK_STREAM, 0));
	TRY("write to /etc", writes("/etc"));
	TRY("write to /usr", writes("/usr/bin"));
	TRY("write to /var/lib", writes("/var/lib"));
	TRY("write to /run", writes("/run"));
	TRY("read /root", opens("/root", O_RDONLY | O_DIRECTORY));
	TRY("read /home/ada", opens("/home/ada/secret", O_RDONLY));
	TRY("read /etc/shadow", opens("/etc/shadow", O_RDONLY));
	TRY("read the credential store", opens("/etc/credstore", O_RDONLY | O_DIRECTORY));
	TRY("state of another", opens(argv[2], O_RDONLY | O_DIRECTORY));
	TRY("set a variable of the kernel", opens("/proc/sys/vm/swappiness", O_WRONLY));
	TRY("change control groups", writes("/sys/fs/cgroup/systemd"));
	TRY("read the kernel's log", opens("/proc/kmsg", O_RDONLY));
	TRY("see other processes", opens("/proc/1/status", O_RDONLY));
	TRY("signal another process", signals_init());
	TRY("trace another process", apart(traced_init));
	TRY("speak to the Docker Engine", connects("/run/docker.sock"));
	TRY("raw socket", makes(AF_INET, SOCK_RAW, 1));
	TRY("packet socket", makes(AF_PACKET, SOCK_RAW, 0));
	TRY("netlink socket", makes(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER));
	TRY("change an interface", interface());
	TRY("namespace of users", apart(namespace_of_users));
	TRY("namespace of mounts", apart(namespace_of_mounts));
	TRY("namespace of networks", apart(namespace_of_networks));
	TRY("become root", apart(root));
	TRY("set-user-ID file", set_root_bit());
	TRY("real-time priority", apart(real_time));
	TRY("writable code", writable_code());
	TRY("another personality", apart(other_personality));
	TRY("change the host's name", host_name());
	TRY("make a device", device());
	TRY("load a module", module());
	TRY("mount", mounts());
	TRY("set the clock", clock_set());
	return 0;
}
