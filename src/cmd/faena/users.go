package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"faena.dev/faena/internal/client"
)

func (a *app) usersCommand() *cobra.Command {
	cmd := a.withOutput(&cobra.Command{Use: "users", Short: "List and manage users (admin)", Args: exactly(0), RunE: a.listUsers})
	cmd.AddCommand(a.putUserCommand(), a.passwordCommand(), a.usageCommand(), a.deleteUserCommand())
	return cmd
}

func (a *app) deleteUserCommand() *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: "delete NAME", Short: "Remove a user with everything it has; the name is never given again", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				if err := a.confirm(cmd.Context(), "Remove user "+args[0]+" with functions and history? The name is never given again."); err != nil {
					return err
				}
			}
			c, _, err := a.client()
			if err != nil {
				return err
			}
			if _, err := client.Read[struct{}](c.DeleteUser(cmd.Context(), args[0])); err != nil {
				return err
			}
			a.say("User %s is gone, with functions and history; the name is never given again.", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask; needed where standard input is no terminal")
	return cmd
}

func (a *app) listUsers(cmd *cobra.Command, _ []string) error {
	c, _, err := a.client()
	if err != nil {
		return err
	}
	all, err := pages(math.MaxInt, func(size int, cursor string) ([]client.User, string, error) {
		page, err := client.Read[client.UserPage](c.ListUsers(cmd.Context(), &client.ListUsersParams{Limit: &size, Cursor: cursor}))
		return page.Items, page.Next, err
	})
	if err != nil {
		return err
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

// userChange is what the flags of put say; the zero value of each is left as it is.
type userChange struct {
	role                    string
	limits                  []string // GROUP=NUMBER
	revoked                 []string // groups
	withPassword, fromStdin bool
}

func (a *app) putUserCommand() *cobra.Command {
	var change userChange
	cmd := &cobra.Command{
		Use: "put NAME", Short: "Make or change a user; what no flag names stays as it is", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.putUser(cmd.Context(), args[0], change) },
	}
	cmd.Flags().StringVar(&change.role, "role", "", "user or admin (of a new one: user)")
	cmd.Flags().StringSliceVar(&change.limits, "limit", nil, "`GROUP=NUMBER` of active activations, such as default=4, which grants the group (of a new one: default=20)")
	cmd.Flags().StringSliceVar(&change.revoked, "revoke", nil, "`GROUP` that the user may not use any more")
	cmd.Flags().BoolVar(&change.withPassword, "password", false, "ask for a password")
	cmd.Flags().BoolVar(&change.fromStdin, "password-stdin", false, "read the password from standard input")
	return a.withOutput(cmd)
}

// putUser changes what is named: the API replaces a profile, so what it is now goes back with it.
func (a *app) putUser(ctx context.Context, name string, change userChange) error {
	given, err := parseLimits(change.limits)
	if err != nil {
		return err
	}
	c, _, err := a.client()
	if err != nil {
		return err
	}
	was, err := client.Read[client.User](c.GetUser(ctx, name))
	f, _ := errors.AsType[*client.Failure](err)
	isNew := f != nil && f.Reason == "user_not_found"
	if err != nil && !isNew {
		return err
	}
	body := client.UserProfile{Role: was.Role, Groups: was.Groups}
	set(&body.Role, client.Role(change.role))
	if body.Groups == nil {
		body.Groups = given
	} else {
		maps.Copy(body.Groups, given)
	}
	for _, group := range change.revoked {
		if _, ok := body.Groups[group]; !ok {
			return refused{fmt.Errorf("--revoke is %q: %s has %s", group, name, or(limits(body.Groups), "no group"))}
		}
		delete(body.Groups, group)
	}
	if change.withPassword || change.fromStdin {
		if body.Password, err = a.password(ctx, "Password of "+name, change.fromStdin); err != nil {
			return err
		}
	}
	u, err := client.Read[client.User](c.PutUser(ctx, name, body))
	if err != nil {
		return err
	}
	a.say("User %s: role %s, limits %s.", u.Name, u.Role, limits(u.Groups))
	if isNew && body.Password == "" {
		a.say("%s has no password and cannot log in until you set one: faena users password %s", u.Name, u.Name)
	}
	return a.show(u, nil)
}

func parseLimits(list []string) (map[string]int, error) {
	groups := make(map[string]int)
	for _, text := range list {
		group, number, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(number)
		if group == "" || err != nil {
			return nil, usage{fmt.Errorf("--limit is %q, must be GROUP=NUMBER, for example default=20", text)}
		}
		groups[group] = n
	}
	return groups, nil
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
			password, err := a.password(cmd.Context(), "New password of "+name, fromStdin)
			if err != nil {
				return err
			}
			if _, err := client.Read[struct{}](c.PutPassword(cmd.Context(), name, client.Password{Password: password})); err != nil {
				return err
			}
			if name == p.Username {
				p.Password = password
				if err := a.saveProfile(a.profile, p); err != nil {
					return fmt.Errorf("the password of %s is replaced, but this login still has the old one: %w", name, err)
				}
			}
			a.say("The password of %s is replaced.", name)
			return nil
		},
	}
	cmd.Flags().BoolVar(&fromStdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

func (a *app) usageCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
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
	})
}
