package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

// maxListed is how many activations, or dead letters, are listed at most.
const maxListed = 1000

func (a *app) activationsCommand() *cobra.Command {
	var function, state string
	limit := 0
	cmd := &cobra.Command{
		Use: "activations", Short: "List activations, newest first", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxListed {
				return usage{fmt.Errorf("--limit is %d, must be from 1 to %d", limit, maxListed)}
			}
			c, _, err := a.client()
			if err != nil {
				return err
			}
			all, err := pages(limit, func(size int, cursor string) ([]client.Activation, string, error) {
				page, err := client.Read[client.ActivationPage](c.ListActivations(cmd.Context(),
					&client.ListActivationsParams{Function: function, State: client.State(state), Limit: &size, Cursor: cursor}))
				return page.Items, page.Next, err
			})
			if err != nil {
				return err
			}
			return a.show(all, func() [][]string { return activationRows(all) })
		},
	}
	cmd.Flags().StringVar(&function, "function", "", "only those of this function")
	cmd.Flags().StringVar(&state, "state", "", "only those in this state")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many at most, from 1 to 1000")
	return a.withOutput(cmd)
}

func activationRows(list []client.Activation) [][]string {
	rows := [][]string{{"ACTIVATION", "FUNCTION", "REVISION", "STATE", "REASON", "ATTEMPT", "WARM", "RUN", "TOTAL", "ADMITTED"}}
	for _, r := range list {
		rows = append(rows, []string{r.ActivationID, r.Function, strconv.Itoa(r.Revision), string(r.State), or(r.Reason, waitsFor(r)), strconv.Itoa(r.Attempt),
			strconv.FormatBool(r.Warm), micros(r.Timings.RunUs), micros(r.Timings.TotalUs), ago(r.AdmittedAt)})
	}
	return rows
}

// waitsFor says why a queued activation is not in the queue now.
func waitsFor(r client.Activation) string {
	switch {
	case r.NotBefore != nil:
		return "retry"
	case r.Backlogged:
		return "backlog"
	}
	return "-"
}

func (a *app) getCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: "get ACTIVATION", Short: "Show an activation's record", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.Read[client.Activation](c.GetActivation(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(r, func() [][]string { return recordRows(r) })
		},
	})
}

func recordRows(r client.Activation) [][]string {
	rows := [][]string{{"activation", r.ActivationID}, {"function", r.Function + " revision " + strconv.Itoa(r.Revision)},
		{"state", string(r.State)}, {"attempt", strconv.Itoa(r.Attempt)}, {"warm", strconv.FormatBool(r.Warm)},
		{"queue", micros(r.Timings.QueueUs)}, {"pull", micros(r.Timings.PullUs)}, {"start", micros(r.Timings.StartUs)},
		{"run", micros(r.Timings.RunUs)}, {"store", micros(r.Timings.StoreUs)}, {"total", micros(r.Timings.TotalUs)},
		{"result", strconv.FormatInt(r.Result.Size, 10) + " bytes"}, {"log", strconv.FormatInt(r.Log.Size, 10) + " bytes"},
		{"peak memory", mebibytes(r.PeakMemoryBytes)}, {"admitted", r.AdmittedAt.Local().Format("2006-01-02 15:04:05.000")}}
	if r.Reason != "" {
		rows = append(rows, []string{"reason", r.Reason}, []string{"message", r.Message})
	}
	if r.Backlogged {
		rows = append(rows, []string{"waits in", "the backlog"})
	}
	if r.NotBefore != nil {
		rows = append(rows, []string{"not before", r.NotBefore.Local().Format("2006-01-02 15:04:05.000")})
	}
	for _, f := range r.Failures {
		rows = append(rows, []string{"attempt " + strconv.Itoa(f.Attempt), f.Reason + ": " + f.Message})
	}
	if r.RedrivenFrom != "" {
		rows = append(rows, []string{"redriven from", r.RedrivenFrom})
	}
	if r.Worker != "" {
		rows = append(rows, []string{"worker", r.Worker})
	}
	if r.ExitCode != nil {
		rows = append(rows, []string{"exit code", strconv.Itoa(*r.ExitCode)})
	}
	for _, remark := range r.Remarks {
		rows = append(rows, []string{"remark", remark})
	}
	return rows
}

func (a *app) resultCommand() *cobra.Command {
	wait := false
	cmd := &cobra.Command{
		Use: "result ACTIVATION", Short: "Write an activation's result, byte by byte", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			err = a.result(cmd.Context(), c, args[0])
			if f, ok := errors.AsType[*client.Failure](err); ok && f.Reason == "not_ended" && wait {
				return a.waitResult(cmd.Context(), c, args[0])
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the activation has ended")
	return cmd
}

func (a *app) logsCommand() *cobra.Command {
	follow := false
	cmd := &cobra.Command{
		Use: "logs ACTIVATION", Short: "Write what an activation wrote to its standard error", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if follow {
				end, err := c.FollowLogs(cmd.Context(), args[0], 0, func(p []byte) error { _, err := a.out.Write(p); return err })
				if err == nil && end.State != client.StateSucceeded {
					a.say("faena: activation %s %s (%s)", args[0], end.State, end.Reason)
					err = silent{exitFunctionFailed}
				}
				return err
			}
			res, err := client.Stream(c.GetLogs(cmd.Context(), args[0], &client.GetLogsParams{Follow: client.GetLogsParamsFollowFalse}))
			if err != nil {
				return err
			}
			if dropped := res.Header.Get("Faena-Dropped"); dropped != "" {
				a.say("The first %s bytes were dropped.", dropped)
			}
			return a.copyOut(res)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the activation ends")
	return cmd
}

func (a *app) cancelCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: "cancel ACTIVATION", Short: "Cancel an activation", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			r, err := client.Read[client.Activation](c.CancelActivation(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			if err := a.show(r, nil); err != nil {
				return err
			}
			switch r.State {
			case client.StateRunning:
				a.say("Its worker has been asked to kill it.")
			case client.StateCancelled:
				a.say("It is cancelled.")
			default:
				return errors.New("it has ended already: " + string(r.State))
			}
			return nil
		},
	})
}
