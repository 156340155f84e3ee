package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
	"faena.dev/faena/internal/wiring"
)

func (a *app) groupsCommand() *cobra.Command {
	cmd := a.withOutput(&cobra.Command{Use: "groups", Short: "List and manage groups of worker hosts (admin)", Args: exactly(0), RunE: a.listGroups})
	cmd.AddCommand(a.putGroupCommand(), a.showGroupCommand(), a.deleteGroupCommand())
	return cmd
}

func (a *app) listGroups(cmd *cobra.Command, _ []string) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	list, err := client.Read[client.GroupList](c.ListGroups(cmd.Context()))
	if err != nil {
		return err
	}
	return a.show(list.Items, func() [][]string {
		rows := [][]string{{"NAME", "STATE", "WORKERS", "READY", "ACTIVE"}}
		for _, g := range list.Items {
			rows = append(rows, []string{g.Name, string(g.State), strconv.Itoa(g.Workers), strconv.Itoa(g.Ready), strconv.Itoa(g.Active)})
		}
		return rows
	})
}

func (a *app) showGroupCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use: "show NAME", Short: "Show a group with its public keys", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			g, err := client.Read[client.Group](c.GetGroup(cmd.Context(), args[0]))
			if err != nil {
				return err
			}
			return a.show(g, func() [][]string {
				return [][]string{{"name", g.Name}, {"state", string(g.State)}, {"workers", strconv.Itoa(g.Workers)}, {"ready", strconv.Itoa(g.Ready)},
					{"active", strconv.Itoa(g.Active)}, {"nkey", or(g.Nkey, "-")}, {"recipient", or(g.Recipient, "-")},
					{"made", ago(g.CreatedAt)}, {"changed", ago(g.UpdatedAt)}}
			})
		},
	})
}

func (a *app) putGroupCommand() *cobra.Command {
	var keys client.GroupKeys
	file := ""
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Make a group, or change its public keys; what no flag names stays as it is", Args: exactly(1),
		Example: "  faena-worker keygen > gpu.json      # on the group's first host\n  faena groups put gpu --keys gpu.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				if keys != (client.GroupKeys{}) {
					return usage{errors.New("--keys has both keys: --nkey and --recipient cannot be given with it")}
				}
				public, err := wiring.ReadKeys(file, a.in)
				if err != nil {
					return err
				}
				keys = client.GroupKeys(public)
			}
			return a.putGroup(cmd.Context(), args[0], keys)
		},
	}
	cmd.Flags().StringVar(&keys.Nkey, "nkey", "", "public nkey of the group's workers, U…")
	cmd.Flags().StringVar(&keys.Recipient, "recipient", "", "public age key of the group, age1…")
	cmd.Flags().StringVar(&file, "keys", "", "`FILE` with both, as faena-worker keygen prints them; - is standard input")
	return a.withOutput(cmd)
}

// putGroup changes what is named: the API replaces both keys, so what they are now goes back with it.
func (a *app) putGroup(ctx context.Context, name string, keys client.GroupKeys) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	was, err := client.Read[client.Group](c.GetGroup(ctx, name))
	if f, _ := errors.AsType[*client.Failure](err); err != nil && (f == nil || f.Reason != "group_not_found") {
		return err
	}
	body := client.GroupKeys{Nkey: was.Nkey, Recipient: was.Recipient}
	set(&body.Nkey, keys.Nkey)
	set(&body.Recipient, keys.Recipient)
	g, err := client.Read[client.Group](c.PutGroup(ctx, name, body))
	if err != nil {
		return err
	}
	if g.State == client.GroupStatePending {
		a.say("Group %s is pending: functions may name it once NATS knows its key (faena-api nats-config) and a worker of it has connected.", g.Name)
	} else {
		a.say("Group %s is ready.", g.Name)
	}
	return a.show(g, nil)
}

func (a *app) deleteGroupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Remove a group that nobody uses", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if _, err := client.Read[struct{}](c.DeleteGroup(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("Group %s is gone.", args[0])
			return nil
		},
	}
}
