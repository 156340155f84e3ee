// The function of the fairness benchmark: its first argument says for how many milliseconds it sleeps.
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv) {
	if (argc > 1)
		usleep(1000 * atol(argv[1]));
	return write(1, "x", 1) < 0;
}
