package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// withOutput gives a command the choice between a table and JSON. One without it has nothing to show as JSON.
func (a *app) withOutput(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVarP(&a.output, "output", "o", "table", "form of what is shown: table or json")
	return cmd
}

// json reports whether what is shown should be JSON.
func (a *app) json() bool { return a.output == "json" }

// show writes a value as JSON, or as the table that rows gives: a line of headings first. Without rows there is no table.
func (a *app) show(v any, rows func() [][]string) error {
	if a.json() {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	if rows == nil {
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, r := range rows() {
		if _, err := fmt.Fprintln(w, strings.Join(r, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// pageSize is how much of a list is asked for at once: the most that the API gives.
const pageSize = 200

// pages reads a list page by page, to its end or until there are most items.
func pages[T any](most int, read func(size int, cursor string) (items []T, next string, err error)) ([]T, error) {
	all := []T{}
	for cursor := ""; len(all) < most; {
		items, next, err := read(min(most-len(all), pageSize), cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if cursor = next; cursor == "" {
			break
		}
	}
	return all, nil
}

func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return t.Local().Format("2006-01-02")
}

func micros(us int64) string { return time.Duration(us * int64(time.Microsecond)).String() }

func mebibytes(n int64) string { return fmt.Sprintf("%dMiB", n>>20) }
