package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"faena.dev/faena/internal/faena"
	"github.com/gorilla/mux"
)

const (
	headerTimeout  = 10 * time.Second
	idleTimeout    = 120 * time.Second // above the gateway's 60 s, so that it is the gateway that closes
	maxHeaderBytes = 32 << 10
	slowestClient  = 64 << 10 // bytes a second
)

// timeouts bound how long a client that is slow or hangs holds a connection. A call that waits for its activation has
// none of its own: it ends after faena.SyncWait.
type timeouts struct {
	body  time.Duration // for the whole body of a request
	drain time.Duration // for the rest of a body that nobody wants, since the call is refused
	write time.Duration // for one write of an answer, and a second more for each slowestClient bytes
}

var defaultTimeouts = timeouts{body: time.Minute, drain: 5 * time.Second, write: time.Minute}

// Observer is told of every request when it has been answered, for metrics. It returns at once.
type Observer interface {
	// Request reports a request. route is the path's template, or "" where no route matched.
	Request(method, route string, status int, took time.Duration)
}

// Options are what New needs. Fields that say nothing else are required.
type Options struct {
	Functions   Functions
	Activations Activations
	DeadLetters DeadLetters
	Users       Users
	Groups      Groups    // nil: its calls are answered 503
	Diagnoser   Diagnoser // likewise
	Workers     Workers
	Health      Health
	Auth        Authenticator
	Logger      *slog.Logger
	Observer    Observer // nil: nobody is told

	MaxParameterBytes int64         // of a parameter; 0 is faena.DefaultMaxParameterBytes
	KeepAlive         time.Duration // between comments in an event stream; 0 is 15 s
}

// API is Faena's REST interface as a http.Handler.
type API struct {
	o        Options
	log      *slog.Logger
	router   *mux.Router
	timeouts timeouts
	browsers *http.CrossOriginProtection
	buffers  bufferPool
	stopping context.Context // ended when the server shuts down: event streams end then
	stop     context.CancelFunc
}

// New makes the API. Close ends its event streams.
func New(o Options) *API {
	if o.MaxParameterBytes == 0 {
		o.MaxParameterBytes = faena.DefaultMaxParameterBytes
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 15 * time.Second
	}
	if o.Groups == nil {
		o.Groups = absent{}
	}
	if o.Diagnoser == nil {
		o.Diagnoser = absent{}
	}
	a := &API{o: o, log: o.Logger, browsers: http.NewCrossOriginProtection(), timeouts: defaultTimeouts}
	a.stopping, a.stop = context.WithCancel(context.Background()) //nolint // ended by Close; no request is its parent
	a.router = a.routes()
	return a
}

// routes registers what is open to everybody by hand, and every generated route behind authentication.
func (a *API) routes() *mux.Router {
	root := mux.NewRouter().SkipClean(true) // a path is matched as it came; nobody is redirected
	root.NotFoundHandler = http.HandlerFunc(a.noRoute)
	root.MethodNotAllowedHandler = http.HandlerFunc(a.wrongMethod)
	root.HandleFunc("/healthz", a.getHealth).Methods(http.MethodGet)
	root.HandleFunc("/readyz", a.getReadiness).Methods(http.MethodGet)
	root.HandleFunc("/v1/openapi.yaml", a.getSpecification).Methods(http.MethodGet)

	authenticated := root.NewRoute().Subrouter()
	authenticated.Use(a.authenticate, a.authorise)
	HandlerWithOptions(handlers{a}, GorillaServerOptions{BaseRouter: authenticated, ErrorHandlerFunc: a.badParameter})
	return root
}

// handlers are the generated interface's methods; they are kept apart from API's own.
type handlers struct{ *API }

var _ ServerInterface = handlers{}

// Server returns a server for the API with its timeouts; the caller sets TLSConfig and runs it. Shutdown of the
// server ends event streams.
func (a *API) Server() *http.Server {
	s := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug), // handshakes of strangers
	}
	s.RegisterOnShutdown(a.Close)
	return s
}

// Close ends the event streams that are open. It may be called more than once.
func (a *API) Close() { a.stop() }

// ServeHTTP answers one request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{
		requestID:   requestID(r.Header.Get("X-Request-Id")),
		traceparent: traceparent(r.Header["Traceparent"]),
		began:       time.Now(),
	}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	if c.head = r.Method == http.MethodHead; c.head {
		r.Method = http.MethodGet // of our copy of the request: the server leaves the body out
	}
	joinLists(r.Header)
	rw := newResponse(w, a.timeouts.write)
	if r.ContentLength != 0 { // also of one that nobody reads: the server reads on before it answers
		rw.readWithin(a.timeouts.body)
	}
	rw.Header().Set("X-Request-Id", c.requestID)
	rw.Header().Set("X-Content-Type-Options", "nosniff")
	rw.Header().Set("Cache-Control", "no-store")
	defer a.finish(rw, r, c)
	a.router.ServeHTTP(rw, r)
}

// finish turns a panic into a 500 without its text, and tells the log and the observer what was answered.
func (a *API) finish(w *response, r *http.Request, c *call) {
	abort := false
	if p := recover(); p != nil {
		abort = w.status != 0 || p == http.ErrAbortHandler
		a.panicked(w, r, p)
	}
	took := time.Since(c.began)
	if a.o.Observer != nil {
		a.o.Observer.Request(r.Method, c.route, w.status, took)
	}
	if level := levelOf(r, c.route, w.status); a.log.Enabled(r.Context(), level) {
		a.report(r.Context(), level, "request", slog.String("method", r.Method), slog.String("path", bounded(r.URL.Path)), slog.String("route", c.route),
			slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.String("user", who(r, c)), slog.String("from", r.RemoteAddr),
			slog.Int64("took_us", took.Microseconds()))
	}
	if abort {
		panic(http.ErrAbortHandler) // the answer cannot be completed: the connection ends, so that the client knows
	}
}

// levelOf is the level of a request's line: what an operator asks for afterwards, who failed to log in and who changed
// functions or users, is told at the default level. Activations, and who only looks, are not; nor who says no name.
func levelOf(r *http.Request, route string, status int) slog.Level {
	changes := r.Method == http.MethodPut || r.Method == http.MethodPost || r.Method == http.MethodDelete
	_, _, named := r.BasicAuth()
	if status == http.StatusUnauthorized && named || status != http.StatusUnauthorized && changes && !strings.Contains(route, "/activations") {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// who is the user of a request, or whoever it says it is from.
func who(r *http.Request, c *call) string {
	if c.user.Name != "" {
		return c.user.Name
	}
	name, _, _ := r.BasicAuth()
	return bounded(name)
}

// bounded is what a stranger can write into the log.
func bounded(s string) string { return s[:min(len(s), 256)] }

// joinLists makes one line of a header that is a list and came in several (RFC 9110, section 5.3).
func joinLists(h http.Header) {
	for _, name := range []string{"Prefer", "If-None-Match"} {
		if lines := h[name]; len(lines) > 1 {
			h[name] = []string{strings.Join(lines, ", ")}
		}
	}
}

// noRoute answers a path that is none of ours.
func (a *API) noRoute(w http.ResponseWriter, r *http.Request) {
	a.fail(w, r, &faena.Error{Kind: faena.KindNotFound, Reason: "no_route", Component: faena.ComponentCaller,
		Message: "There is no such path. The specification is at /v1/openapi.yaml."})
}

// wrongMethod answers a path of ours with a method that it does not have.
func (a *API) wrongMethod(w http.ResponseWriter, r *http.Request) {
	var methods []string
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		probe := *r
		probe.Method = method
		if match := (mux.RouteMatch{}); a.router.Match(&probe, &match) && match.MatchErr == nil {
			methods = append(methods, method)
			if method == http.MethodGet {
				methods = append(methods, http.MethodHead)
			}
		}
	}
	allowed := strings.Join(methods, ", ")
	w.Header().Set("Allow", allowed)
	a.writeProblem(w, r, Problem{Status: http.StatusMethodNotAllowed, Title: "Method not allowed", Reason: "method_not_allowed",
		Component: ComponentCaller, Detail: "The path takes " + allowed + "."})
}
