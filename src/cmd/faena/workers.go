package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

func (a *app) workersCommand() *cobra.Command {
	cmd := a.withOutput(&cobra.Command{
		Use: "workers", Short: "List the workers that are present, and drain them (admin)", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			list, err := client.Read[client.WorkerList](c.ListWorkers(cmd.Context()))
			if err != nil {
				return err
			}
			return a.show(list.Items, func() [][]string { return workerRows(list.Items) })
		},
	})
	cmd.AddCommand(
		a.drainCommand("drain", "Let a worker take nothing more; what it runs is finished", "Worker %s takes nothing more, also when it is started again, until: faena workers resume %[1]s",
			(*client.Client).DrainWorker),
		a.drainCommand("resume", "Let a worker take activations again", "Worker %s takes activations again.", (*client.Client).ResumeWorker))
	return cmd
}

func (a *app) drainCommand(verb, short, done string,
	call func(*client.Client, context.Context, client.WorkerID, ...client.RequestEditorFn) (*http.Response, error)) *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: verb + " ID", Short: short, Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			w, err := client.Read[client.Worker](call(c, cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			a.say(done, w.ID)
			return a.show(w, nil)
		},
	})
}

func workerRows(list []client.Worker) [][]string {
	rows := [][]string{{"WORKER", "GROUP", "VERSION", "PLACES", "BUSY", "CONTAINERS", "MEMORY", "STATE"}}
	for _, w := range list {
		state := "ready"
		switch {
		case w.Draining:
			state = "draining"
		case !w.Ready:
			state = w.NotReady
		case w.Unfiltered != "":
			state = "ready, but packets are not filtered"
		}
		rows = append(rows, []string{w.ID, w.Group, w.Version, fmt.Sprint(w.Places), fmt.Sprint(w.Busy), fmt.Sprint(w.Containers), mebibytes(w.MemoryBytes), state})
	}
	return rows
}
