package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

// letters is what the commands of dead letters have in common.
type letters struct {
	user, function string
	all, yes       bool
	limit          int
}

func (a *app) deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "deadletters", Short: "List, run again and remove what nobody will run any more"}
	onlyCommands(cmd)
	cmd.AddCommand(a.listLettersCommand(), a.showLetterCommand(), a.redriveCommand(), a.purgeCommand())
	return cmd
}

func (l *letters) flags(cmd *cobra.Command, several bool) {
	of := "those of this `USER` (admin)"
	if several {
		of = "those of this `USER` (admin); * is everybody"
		cmd.Flags().StringVar(&l.function, "function", "", "only those of this function")
	}
	cmd.Flags().StringVar(&l.user, "user", "", of)
}

func (a *app) listLettersCommand() *cobra.Command {
	l := letters{}
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, newest first", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if l.limit < 1 || l.limit > maxListed {
				return usage{fmt.Errorf("--limit is %d, must be from 1 to %d", l.limit, maxListed)}
			}
			return a.listLetters(cmd.Context(), l)
		},
	}
	l.flags(cmd, true)
	cmd.Flags().IntVar(&l.limit, "limit", 50, "how many at most, from 1 to 1000")
	return a.withOutput(cmd)
}

func (a *app) listLetters(ctx context.Context, l letters) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	all, err := pages(l.limit, func(size int, cursor string) ([]client.DeadLetter, string, error) {
		page, err := client.Read[client.DeadLetterPage](c.ListDeadLetters(ctx,
			&client.ListDeadLettersParams{User: l.user, Function: l.function, Limit: &size, Cursor: cursor}))
		return page.Items, page.Next, err
	})
	if err != nil {
		return err
	}
	return a.show(all, func() [][]string {
		rows := [][]string{{"ACTIVATION", "USER", "FUNCTION", "REVISION", "REASON", "ATTEMPTS", "PARAMETER", "WRITTEN"}}
		for _, d := range all {
			rows = append(rows, []string{d.ActivationID, d.User, or(d.Function, "-"), strconv.Itoa(d.Revision), letterReason(d), strconv.Itoa(d.Attempts),
				strconv.FormatInt(d.Parameter.Size, 10) + " bytes", ago(d.At)})
		}
		return rows
	})
}

func letterReason(d client.DeadLetter) string {
	if d.Unreadable {
		return "unreadable"
	}
	return d.Reason
}

func (a *app) showLetterCommand() *cobra.Command {
	l := letters{}
	cmd := &cobra.Command{
		Use: "show ACTIVATION", Short: "Show the dead letter of an activation", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			d, err := client.Read[client.DeadLetter](c.GetDeadLetter(cmd.Context(), args[0], &client.GetDeadLetterParams{User: l.user}))
			if err != nil {
				return err
			}
			return a.show(d, func() [][]string {
				return [][]string{{"activation", d.ActivationID}, {"user", d.User}, {"group", d.Group},
					{"function", or(d.Function, "-") + " revision " + strconv.Itoa(d.Revision)}, {"reason", letterReason(d)}, {"message", d.Message},
					{"attempts", strconv.Itoa(d.Attempts)}, {"worker", or(d.Worker, "-")},
					{"parameter", strconv.FormatInt(d.Parameter.Size, 10) + " bytes"}, {"written", d.At.Local().Format("2006-01-02 15:04:05.000")}}
			})
		},
	}
	l.flags(cmd, false)
	return a.withOutput(cmd)
}

// oneOrAll checks that a command names an activation, or --all.
func (l *letters) oneOrAll(cmd *cobra.Command, args []string) error {
	if len(args) > 1 || (len(args) == 1) == l.all {
		return usage{fmt.Errorf("%s takes ACTIVATION, or --all", cmd.CommandPath())}
	}
	if len(args) == 1 && l.function != "" {
		return usage{errors.New("--function goes with --all")}
	}
	return nil
}

func (a *app) redriveCommand() *cobra.Command {
	l := letters{}
	cmd := &cobra.Command{
		Use: "redrive [ACTIVATION]", Short: "Run a dead letter again, or all of them",
		Args: l.oneOrAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.all {
				return a.redriveAll(cmd.Context(), l)
			}
			c, _, err := a.client()
			if err != nil {
				return err
			}
			made, err := client.Read[client.Accepted](c.RedriveDeadLetter(cmd.Context(), args[0], &client.RedriveDeadLetterParams{User: l.user}))
			if err != nil {
				return err
			}
			return a.show(made, func() [][]string { return [][]string{{made.ActivationID}} })
		},
	}
	l.flags(cmd, true)
	cmd.Flags().BoolVar(&l.all, "all", false, "run all again, the oldest first, as far as the limits let them through")
	return a.withOutput(cmd)
}

// redriveAll goes on from call to call until there are no more, or the appliance takes no more now.
func (a *app) redriveAll(ctx context.Context, l letters) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	all := client.Redriven{Redriven: []client.Redrive{}, Refused: []client.RedriveRefusal{}}
	later := false
	for cursor := ""; ; {
		part, err := client.Read[client.Redriven](c.RedriveDeadLetters(ctx, &client.RedriveDeadLettersParams{User: l.user, Function: l.function, Cursor: cursor}))
		if err != nil {
			a.say("%d activations were made again before that.", len(all.Redriven))
			return err
		}
		all.Redriven, all.Refused = append(all.Redriven, part.Redriven...), append(all.Refused, part.Refused...)
		for _, r := range part.Refused {
			later = later || r.Retryable
		}
		if cursor = part.Next; cursor == "" || later {
			break
		}
	}
	if err := a.show(all, func() [][]string {
		rows := [][]string{{"DEAD LETTER", "ACTIVATION", "REFUSED"}}
		for _, r := range all.Redriven {
			rows = append(rows, []string{r.From, r.ActivationID, "-"})
		}
		for _, r := range all.Refused {
			rows = append(rows, []string{r.From, "-", r.Reason})
		}
		return rows
	}); err != nil {
		return err
	}
	for _, r := range all.Refused {
		a.say("%s: %s (%s)", r.From, r.Message, r.Reason)
	}
	switch {
	case later:
		a.say("There may be more: try again later.")
		return silent{exitLimit}
	case len(all.Refused) > 0:
		return silent{exitInvalid}
	}
	return nil
}

func (a *app) purgeCommand() *cobra.Command {
	l := letters{}
	cmd := &cobra.Command{
		Use: "purge [ACTIVATION]", Short: "Remove a dead letter, or all of them",
		Args: l.oneOrAll,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if !l.all {
				if _, err := client.Read[struct{}](c.PurgeDeadLetter(cmd.Context(), args[0], &client.PurgeDeadLetterParams{User: l.user})); err != nil {
					return err
				}
				a.say("The dead letter of %s is gone.", args[0])
				return nil
			}
			if !l.yes {
				if err := a.confirm(cmd.Context(), "Remove all these dead letters? What they are of cannot be run again then."); err != nil {
					return err
				}
			}
			gone, err := client.Read[client.Purged](c.PurgeDeadLetters(cmd.Context(), &client.PurgeDeadLettersParams{User: l.user, Function: l.function}))
			if err != nil {
				return err
			}
			a.say("%d dead letters are gone.", gone.Purged)
			return a.show(gone, nil)
		},
	}
	l.flags(cmd, true)
	cmd.Flags().BoolVar(&l.all, "all", false, "remove all")
	cmd.Flags().BoolVar(&l.yes, "yes", false, "do not ask; needed with --all where standard input is no terminal")
	return a.withOutput(cmd)
}
