package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"faena.dev/faena/internal/faena"
)

const (
	// waitForHash is how long a call may wait for its turn: one hash is computed at a time.
	waitForHash = 5 * time.Second
	// rememberedUsers bounds the credentials that are remembered; beyond it the memory starts anew.
	rememberedUsers = 10_000
)

// Profiles reads a user's profile; KindNotFound where there is none.
type Profiles func(ctx context.Context, name string) (faena.User, error)

// Local checks Basic credentials against the hashes of the profiles. A credential that was verified is remembered, as an
// HMAC under a key of this process, until the hash changes: then a call costs microseconds. Safe for concurrent use.
type Local struct {
	profiles Profiles
	log      *slog.Logger
	key      [32]byte
	turn     chan struct{} // holds one: at most one hash is computed at a time
	dummy    string        // is checked for a user that does not exist, which takes as long
	throttle *throttle

	mu         sync.RWMutex
	remembered map[string]verified
}

// verified is a credential that had the hash, or is about to be compared with it.
type verified struct {
	mac  [sha256.Size]byte
	hash string
}

// NewLocal makes it. log gets what an operator must know, never a name or password that was tried.
func NewLocal(profiles Profiles, log *slog.Logger) *Local {
	l := &Local{profiles: profiles, log: log, turn: make(chan struct{}, 1), dummy: hash(rand.Text()), throttle: newThrottle(time.Now),
		remembered: make(map[string]verified)}
	_, _ = rand.Read(l.key[:]) // never fails
	return l
}

// Authenticate returns the user whose Basic credentials a request carries.
func (l *Local) Authenticate(r *http.Request) (faena.User, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return faena.User{}, unauthenticated("The call needs credentials: HTTP Basic with user name and password.")
	}
	return l.Check(r.Context(), remoteAddress(r), name, password)
}

// Check returns the user with that name and password. address is where the call comes from: failures are throttled by
// address, and by user.
func (l *Local) Check(ctx context.Context, address, name, password string) (faena.User, error) {
	if !faena.ValidUser(name) {
		name = "" // nobody's: what is remembered of failures stays small, however long it is
	}
	user, err := l.profile(ctx, name)
	if err != nil {
		return faena.User{}, err
	}
	v := verified{l.mac(name, password), user.PasswordHash}
	if l.knows(name, v) {
		return user, nil
	}
	if wait := l.throttle.blocked(address, name); wait > 0 {
		return faena.User{}, tooOften(wait)
	}
	right, err := l.try(ctx, address, name, password, v)
	if err != nil {
		return faena.User{}, err
	}
	if !right {
		return faena.User{}, unauthenticated("User name or password is wrong.")
	}
	return user, nil
}

// try computes a hash, when it is this call's turn, and remembers how it went before the turn ends: of many tries at once
// no more than the throttle allows are computed, and of many right ones only the first.
func (l *Local) try(ctx context.Context, address, name, password string, v verified) (bool, error) {
	leave, err := l.enter(ctx)
	if err != nil {
		return false, err
	}
	defer leave()
	if l.knows(name, v) {
		return true, nil
	}
	if wait := l.throttle.blocked(address, name); wait > 0 {
		return false, tooOften(wait)
	}
	right, err := l.verify(password, v.hash)
	if err != nil {
		return false, err
	}
	if right {
		l.remember(name, v)
	} else {
		l.throttle.failed(address, name)
	}
	return right, nil
}

// profile returns a user that may log in, or one without a hash.
func (l *Local) profile(ctx context.Context, name string) (faena.User, error) {
	if name == "" {
		return faena.User{}, nil
	}
	user, err := l.profiles(ctx, name)
	if faena.IsKind(err, faena.KindNotFound) || err == nil && user.Deleted {
		return faena.User{}, nil
	}
	return user, err
}

func (l *Local) mac(name, password string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, l.key[:])
	_, _ = h.Write([]byte(name)) // never fails; a name has no NUL, so the pair is told apart
	_, _ = h.Write([]byte{0})
	_, _ = h.Write([]byte(password))
	h.Sum(sum[:0])
	return sum
}

func (l *Local) knows(name string, v verified) bool {
	l.mu.RLock()
	known, ok := l.remembered[name]
	l.mu.RUnlock()
	return ok && v.hash != "" && known.hash == v.hash && subtle.ConstantTimeCompare(known.mac[:], v.mac[:]) == 1
}

func (l *Local) remember(name string, v verified) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.remembered) >= rememberedUsers {
		clear(l.remembered)
	}
	l.remembered[name] = v
}

// Forget drops what is remembered of a user.
func (l *Local) Forget(user string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.remembered, user)
}

// verify computes a hash. Without one to compare with it takes as long and says no.
func (l *Local) verify(password, phc string) (bool, error) {
	if len(password) > MaxPassword {
		password = password[:MaxPassword+1] // cannot be right; what it costs is bounded
	}
	if phc == "" {
		_, err := matches(password, l.dummy)
		return false, err
	}
	return matches(password, phc)
}

func (l *Local) enter(ctx context.Context) (leave func(), err error) {
	t := time.NewTimer(waitForHash)
	defer t.Stop()
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.C:
		return nil, tooOften(time.Second)
	}
}

// Hash returns the hash of a password that was chosen; KindInvalid where it may not be one.
func (l *Local) Hash(ctx context.Context, password string) (string, error) {
	if err := checkPassword(password); err != nil {
		return "", err
	}
	leave, err := l.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	return hash(password), nil
}

// remoteAddress is the host that a connection comes from.
func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func unauthenticated(message string) error {
	return &faena.Error{Kind: faena.KindUnauthenticated, Reason: "unauthenticated", Component: faena.ComponentCaller, Message: message}
}

func tooOften(wait time.Duration) error {
	return &faena.Error{Kind: faena.KindLimit, Reason: "too_many_failures", Component: faena.ComponentCaller,
		Message: fmt.Sprintf("Too many failed logins. Try again in %v.", wait.Round(time.Second)), Retryable: true, RetryAfter: wait}
}
