package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

func (a *app) functionsCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: "functions [NAME]", Short: "List functions, or the revisions of one", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return a.revisions(cmd, c, args[0])
			}
			all, err := pages(math.MaxInt, func(size int, cursor string) ([]client.FunctionHead, string, error) {
				page, err := client.Read[client.FunctionPage](c.ListFunctions(cmd.Context(), &client.ListFunctionsParams{Limit: &size, Cursor: cursor}))
				return page.Items, page.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(all, func() [][]string {
				rows := [][]string{{"FUNCTION", "SERVES", "LATEST", "CHANGED"}}
				for _, f := range all {
					rows = append(rows, []string{f.Name, strconv.Itoa(f.Current), strconv.Itoa(f.Latest), ago(f.UpdatedAt)})
				}
				return rows
			})
		},
	})
}

func (a *app) revisions(cmd *cobra.Command, c *client.Client, name string) error {
	res, err := client.Stream(c.GetFunction(cmd.Context(), name, &client.GetFunctionParams{}))
	if err != nil {
		return err
	}
	etag := res.Header.Get("ETag")
	f, err := client.Read[client.Function](res, nil)
	if err != nil {
		return err
	}
	size := 200
	page, err := client.Read[client.RevisionPage](c.ListRevisions(cmd.Context(), name, &client.ListRevisionsParams{Limit: &size}))
	if err != nil {
		return err
	}
	return a.show(page.Items, func() [][]string {
		rows := [][]string{{"REVISION", "SERVES", "IMAGE", "DIGEST", "INPUT", "MEMORY", "TIMEOUT", "ISOLATION", "MADE", "ETAG"}}
		for _, r := range page.Items {
			serves, tag := "", ""
			if r.Revision == f.Current {
				serves, tag = "yes", etag // the function's, not the revision's: it changes with what serves
			}
			image := strings.TrimSuffix(r.Spec.Image, "@"+r.Digest) // which stands in the next column
			rows = append(rows, []string{strconv.Itoa(r.Revision), serves, image, r.Digest, string(r.Spec.Input), mebibytes(r.Spec.MemoryBytes),
				micros(r.Spec.TimeoutMs * 1000), string(r.Spec.Isolation), ago(r.CreatedAt), tag})
		}
		return rows
	})
}

func (a *app) rollbackCommand() *cobra.Command {
	revision, ifMatch := 0, ""
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Let an earlier revision serve again", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			f, err := client.Read[client.Function](c.RollbackFunction(cmd.Context(), args[0], &client.RollbackFunctionParams{IfMatch: ifMatch}, client.Rollback{Revision: revision}))
			if err != nil {
				return err
			}
			a.say("Revision %d serves now.", f.Current)
			return a.show(f, nil)
		},
	}
	cmd.Flags().IntVar(&revision, "revision", 0, "which (default the one before the current)")
	cmd.Flags().StringVar(&ifMatch, "if-match", "", "only if the function has this ETag")
	return a.withOutput(cmd)
}

func (a *app) deleteCommand() *cobra.Command {
	ifMatch := ""
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Remove a function with all its revisions", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if _, err := client.Read[struct{}](c.DeleteFunction(cmd.Context(), args[0], &client.DeleteFunctionParams{IfMatch: ifMatch})); err != nil {
				return err
			}
			a.say("Function %s is gone; its activations stay.", args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&ifMatch, "if-match", "", "only if the function has this ETag")
	return cmd
}
