// The benchmark's function: writes its last argument to standard output and ends.
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
	const char *s = argv[argc - 1];
	return write(1, s, strlen(s)) < 0;
}
