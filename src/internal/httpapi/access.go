package httpapi

import (
	"errors"
	"net/http"

	"faena.dev/faena/internal/faena"
	"github.com/gorilla/mux"
)

// access says who may use a route.
type access int

const (
	nobody access = iota // of a route that is not in the table: it is refused until somebody decides
	anyUser
	adminOnly
	adminOrSelf // {name} in the path is the caller's own
)

type endpoint struct{ method, template string }

// rules is the one place that says who may use which route. A test holds it against the router.
var rules = map[endpoint]access{
	{http.MethodPost, "/v1/functions/{name}/activations"}: anyUser,
	{http.MethodGet, "/v1/functions"}:                     anyUser,
	{http.MethodPut, "/v1/functions/{name}"}:              anyUser,
	{http.MethodGet, "/v1/functions/{name}"}:              anyUser,
	{http.MethodDelete, "/v1/functions/{name}"}:           anyUser,
	{http.MethodGet, "/v1/functions/{name}/revisions"}:    anyUser,
	{http.MethodPost, "/v1/functions/{name}/rollback"}:    anyUser,
	{http.MethodGet, "/v1/activations"}:                   anyUser,
	{http.MethodGet, "/v1/activations/{id}"}:              anyUser,
	{http.MethodDelete, "/v1/activations/{id}"}:           anyUser,
	{http.MethodGet, "/v1/activations/{id}/result"}:       anyUser,
	{http.MethodGet, "/v1/activations/{id}/logs"}:         anyUser,
	{http.MethodGet, "/v1/deadletters"}:                   anyUser, // another user's are an admin's: see ofUser
	{http.MethodDelete, "/v1/deadletters"}:                anyUser,
	{http.MethodPost, "/v1/deadletters/redrive"}:          anyUser,
	{http.MethodGet, "/v1/deadletters/{id}"}:              anyUser,
	{http.MethodDelete, "/v1/deadletters/{id}"}:           anyUser,
	{http.MethodPost, "/v1/deadletters/{id}/redrive"}:     anyUser,
	{http.MethodGet, "/v1/users"}:                         adminOnly,
	{http.MethodPut, "/v1/users/{name}"}:                  adminOnly,
	{http.MethodGet, "/v1/users/{name}"}:                  adminOnly,
	{http.MethodDelete, "/v1/users/{name}"}:               adminOnly,
	{http.MethodPut, "/v1/users/{name}/password"}:         adminOrSelf,
	{http.MethodGet, "/v1/users/{name}/usage"}:            adminOrSelf,
	{http.MethodGet, "/v1/groups"}:                        adminOnly,
	{http.MethodPut, "/v1/groups/{name}"}:                 adminOnly,
	{http.MethodGet, "/v1/groups/{name}"}:                 adminOnly,
	{http.MethodDelete, "/v1/groups/{name}"}:              adminOnly,
	{http.MethodGet, "/v1/diagnosis"}:                     adminOnly,
	{http.MethodGet, "/v1/workers"}:                       adminOnly,
	{http.MethodPost, "/v1/workers/{id}/drain"}:           adminOnly,
	{http.MethodPost, "/v1/workers/{id}/resume"}:          adminOnly,
}

// authenticate lets only known callers through. It stands before every generated route.
func (a *API) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		if route := mux.CurrentRoute(r); route != nil {
			c.route, _ = route.GetPathTemplate()
		}
		// A browser sends remembered Basic credentials along with what another site makes it send.
		if err := a.browsers.Check(r); err != nil {
			a.fail(w, r, &faena.Error{Kind: faena.KindForbidden, Reason: "cross_origin", Component: faena.ComponentCaller,
				Message: "A browser sent this request for another site."})
			return
		}
		user, err := a.o.Auth.Authenticate(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if user.Name == "" || user.Deleted {
			a.fail(w, r, errors.New("the authenticator let a caller through without saying who"))
			return
		}
		c.user = user
		next.ServeHTTP(w, r)
	})
}

// authorise holds the caller's role against the route's rule.
func (a *API) authorise(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callOf(r.Context())
		switch rules[endpoint{r.Method, c.route}] {
		case anyUser:
		case adminOnly:
			if c.user.Role != faena.RoleAdmin {
				a.fail(w, r, forbidden("The call is for admins."))
				return
			}
		case adminOrSelf:
			if name := mux.Vars(r)["name"]; c.user.Role != faena.RoleAdmin && name != c.user.Name {
				a.fail(w, r, faena.NotFound("user", name))
				return
			}
		default:
			a.fail(w, r, forbidden("The call is for nobody."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func forbidden(message string) error {
	return &faena.Error{Kind: faena.KindForbidden, Reason: "forbidden", Component: faena.ComponentCaller, Message: message}
}
