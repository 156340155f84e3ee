// The function of the long queue. It does nothing but count, in its container's own layer, how often it was run there, and
// tell: what was run twice leaves a gap between what the records say.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(void) {
	char host[65] = "";
	int runs = open("/runs", O_CREAT | O_APPEND | O_WRONLY, 0600);
	if (runs < 0 || write(runs, "x", 1) != 1 || gethostname(host, sizeof host - 1) != 0)
		return 1;
	return dprintf(1, "%s %ld", host, (long)lseek(runs, 0, SEEK_END)) < 0;
}
