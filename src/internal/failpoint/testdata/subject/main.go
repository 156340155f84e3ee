// Command subject hits a failpoint each time that it reads a line, and writes one with its clock.
package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"faena.dev/faena/internal/clock"
	"faena.dev/faena/internal/failpoint"
)

func main() {
	fmt.Println("ready", os.Getenv("FAENA_FAILPOINTS"))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		failpoint.Hit("test/line")
		fmt.Println(lines.Text(), clock.Now().Sub(time.Now()).Round(time.Minute))
	}
}
