// Command factor writes the prime factors of its argument. It knows nothing of where it runs.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: factor NUMBER")
		os.Exit(2)
	}
	n, err := strconv.ParseUint(os.Args[1], 10, 64)
	if err != nil || n < 2 {
		fmt.Fprintf(os.Stderr, "factor: %q is no number above 1\n", os.Args[1])
		os.Exit(1)
	}
	fmt.Print(n, " =")
	sign := " "
	for p := uint64(2); n > 1; p++ {
		if p > n/p {
			p = n // what is left is prime
		}
		for n%p == 0 {
			fmt.Print(sign, p)
			sign, n = " × ", n/p
		}
	}
	fmt.Println()
}
