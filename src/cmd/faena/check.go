package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/faena"
)

// bounds are the fields of a spec that have a range, and the flags of deploy that set them.
var bounds = []struct{ field, flag, from, to string }{
	{"timeout_ms", "timeout", faena.MinTimeout.String(), strings.TrimSuffix(faena.MaxTimeout.String(), "0s")},
	{"memory_bytes", "memory", sizeText(faena.MinMemoryBytes), sizeText(faena.MaxMemoryBytes)},
	{"cpus", "cpus", fmt.Sprint(faena.MinCPUs), fmt.Sprint(faena.MaxCPUs)},
	{"pids", "pids", strconv.Itoa(faena.MinPIDs), strconv.Itoa(faena.MaxPIDs)},
	{"result_limit_bytes", "result-limit", "1", sizeText(faena.MaxResultLimitBytes)},
	{"tmpfs_bytes", "tmpfs", sizeText(faena.MinTmpfsBytes), sizeText(faena.MaxTmpfsBytes)},
	{"warm", "warm", "0", strconv.Itoa(faena.MaxWarm)},
	{"retries", "retries", "0", strconv.Itoa(faena.MaxRetries)},
	{"retry_delay_ms", "retry-delay", "0", "1h"},
	{"retry_max_delay_ms", "retry-max-delay", "the delay", "1h"},
}

// refused is what the API would refuse, seen here.
type refused struct{ error }

// checkSpec refuses what the API would, before an image is read and sent. It speaks of flags where they are what is wrong.
func checkSpec(cmd *cobra.Command, spec client.Spec) error {
	text, err := json.Marshal(spec)
	if err != nil {
		return refused{fmt.Errorf("the spec cannot be written: %w", err)} // --cpus NaN
	}
	given, checked := make(map[string]json.RawMessage), faena.Spec{}
	if err := errors.Join(json.Unmarshal(text, &given), json.Unmarshal(text, &checked)); err != nil {
		return err
	}
	if checked.Image == "" {
		checked.Image = "of the engine" // its reference is known when it has been pushed
	}
	var complaints []string
	for _, b := range bounds { // a zero is the default for the API, but nobody writes --memory 0 for it
		if _, ok := given[b.field]; !ok && b.from != "0" && cmd.Flags().Changed(b.flag) {
			complaints = append(complaints, inFlags(cmd, faena.FieldError{Field: b.field}))
		}
	}
	if e, ok := errors.AsType[*faena.Error](checked.WithDefaults().Validate()); ok {
		for _, f := range e.Fields {
			complaints = append(complaints, inFlags(cmd, f))
		}
	}
	if len(complaints) == 0 {
		return nil
	}
	return refused{errors.New(strings.Join(complaints, "\n"))}
}

// inFlags says what is wrong with a field in the words of the flag that has set it, if one has.
func inFlags(cmd *cobra.Command, f faena.FieldError) string {
	for _, b := range bounds {
		outOfRange := f.Message == "" || strings.Contains(f.Message, "must be from")
		if flag := cmd.Flags().Lookup(b.flag); b.field == f.Field && flag.Changed && outOfRange {
			return fmt.Sprintf("--%s is %s, must be from %s to %s", b.flag, flag.Value, b.from, b.to)
		}
	}
	return f.Field + ": " + f.Message
}

// sizeText writes a number of bytes as parseSize reads it.
func sizeText(n int64) string {
	switch {
	case n%(1<<30) == 0:
		return fmt.Sprintf("%dGiB", n>>30)
	case n%(1<<20) == 0:
		return fmt.Sprintf("%dMiB", n>>20)
	}
	return strconv.FormatInt(n, 10)
}
