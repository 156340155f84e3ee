package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

func (a *app) usersCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "users", Short: "List and manage users (admin)", Args: exactly(0), RunE: a.listUsers}
	cmd.AddCommand(a.putUserCommand(), a.passwordCommand(), a.usageCommand(), &cobra.Command{
		Use: "delete NAME", Short: "Remove a user with everything it has; the name is never given again", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, _, err := a.client()
			if err != nil {
				return err
			}
			_, err = client.Read[struct{}](c.DeleteUser(cmd.Context(), args[0]))
			return err
		},
	})
	return cmd
}

func (a *app) listUsers(cmd *cobra.Command, _ []string) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	all, size, cursor := []client.User{}, 200, ""
	for {
		page, err := client.Read[client.UserPage](c.ListUsers(cmd.Context(), &client.ListUsersParams{Limit: &size, Cursor: cursor}))
		if err != nil {
			return err
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	return a.show(all, func() [][]string {
		rows := [][]string{{"USER", "ROLE", "LIMITS", "MADE"}}
		for _, u := range all {
			rows = append(rows, []string{u.Name, string(u.Role), limits(u.Groups), ago(u.CreatedAt)})
		}
		return rows
	})
}

func limits(groups map[string]int) string {
	var parts []string
	for _, g := range slices.Sorted(maps.Keys(groups)) {
		parts = append(parts, g+"="+strconv.Itoa(groups[g]))
	}
	return strings.Join(parts, ",")
}

func (a *app) putUserCommand() *cobra.Command {
	var role string
	var groups map[string]int
	var withPassword, fromStdin bool
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Make or change a user", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			body := client.UserProfile{Role: client.Role(role), Groups: groups}
			if withPassword || fromStdin {
				if body.Password, err = a.password("Password of "+args[0], fromStdin); err != nil {
					return err
				}
			}
			c, _, err := a.client()
			if err != nil {
				return err
			}
			u, err := client.Read[client.User](c.PutUser(cmd.Context(), args[0], body))
			if err != nil {
				return err
			}
			a.say("User %s: role %s, limits %s.", u.Name, u.Role, limits(u.Groups))
			return nil
		},
	}
	cmd.Flags().StringVar(&role, "role", "", "user or admin (default user)")
	cmd.Flags().StringToIntVar(&groups, "limit", nil, "active activations per group, such as default=4")
	cmd.Flags().BoolVar(&withPassword, "password", false, "ask for a password")
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (a *app) passwordCommand() *cobra.Command {
	fromStdin := false
	cmd := &cobra.Command{
		Use: "password [NAME]", Short: "Replace a password: one's own, or another user's", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, p, err := a.client()
			if err != nil {
				return err
			}
			name := p.Username
			if len(args) == 1 {
				name = args[0]
			}
			password, err := a.password("New password of "+name, fromStdin)
			if err != nil {
				return err
			}
			if _, err := client.Read[struct{}](c.PutPassword(cmd.Context(), name, client.Password{Password: password})); err != nil {
				return err
			}
			if name == p.Username {
				p.Password = password
				return a.saveProfile(a.profile, p)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (a *app) usageCommand() *cobra.Command {
	return &cobra.Command{
		Use: "usage [NAME]", Short: "Count a user's activations", Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, p, err := a.client()
			if err != nil {
				return err
			}
			name := p.Username
			if len(args) == 1 {
				name = args[0]
			}
			u, err := client.Read[client.Usage](c.GetUsage(cmd.Context(), name))
			if err != nil {
				return err
			}
			n := func(v int64) string { return strconv.FormatInt(v, 10) }
			return a.show(u, func() [][]string {
				return [][]string{{"USER", "ACTIVE", "LIMIT", "BACKLOG", "COMPLETED", "FAILED"}, {name, n(u.Active), n(u.Limit), n(u.Backlog), n(u.Completed), n(u.Failed)}}
			})
		},
	}
}

func (a *app) workersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "workers", Short: "List the workers that are present (admin)", Args: exactly(0),
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
	}
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
		}
		rows = append(rows, []string{w.ID, w.Group, w.Version, fmt.Sprint(w.Places), fmt.Sprint(w.Busy), fmt.Sprint(w.Containers), mebibytes(w.MemoryBytes), state})
	}
	return rows
}
