package natsbus

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"faena.dev/faena/internal/faena"
)

// What each daemon may do at the NATS servers. All that is stored belongs to one account, which the APIs share; the workers of
// each group have an account of their own, which reaches exactly what is listed here, under the same names. Permissions within
// one account would not do: the server (2.15) sends the answer to a request, or a message that is pulled, to whatever subject
// the request names, with its own rights, so that who may pull could delete any stream. Across accounts an answer ends in the
// account that asked. See DESIGN.md.

// grant is a subject that somebody may send to, or hear.
type grant struct{ subject, why string }

// workerSends is what a worker of a group asks and tells, in the APIs' account.
func workerSends(group string) []grant {
	queue := queueStream(group)
	sends := []grant{
		{pullSubject(queue, workersConsumer), "takes activations from the queue,"},
		{ackSubjects(queue, workersConsumer), "confirms, acknowledges and hands them back,"},
		{api("STREAM.INFO", queue), "reads the clock of the queue's server,"},
		{api("STREAM.MSG.GET", recordsStream(group)), "reads records,"},
		{recordSubjects(group), "changes them,"},
		{recordsAnchor(group), "and moves the anchor of their bucket;"},
		{api("STREAM.MSG.GET", objectsStream(group)), "reads objects,"},
	}
	for _, subject := range objectsSubjects(group) {
		sends = append(sends, grant{subject, "stores and removes them;"})
	}
	return append(sends,
		grant{workerSubject(group, "*"), "says that it is there,"},
		grant{deadLetterSubjects(group), "writes down what nobody will run,"},
		grant{completedSubject("*", group), "how an activation has ended,"},
		grant{logSubject(group, "*", "*"), "and what it writes."},
	)
}

// workerHears is what APIs tell the workers of a group.
func workerHears(group string) []grant {
	return []grant{
		{cancelSubjects(group), "what is to be cancelled,"},
		{drainSubjects, "and who is to take nothing more."},
	}
}

// workerAnswers is what APIs ask the workers of a group.
func workerAnswers(group string) []grant { return []grant{{logTailSubjects(group), "the log so far."}} }

// apiSends is what an API asks and tells, of every group: one that is made later needs no new permission.
func apiSends() []grant {
	var sends []grant
	for _, verb := range []string{"STREAM.INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.GET", "STREAM.MSG.DELETE"} {
		sends = append(sends, grant{api(verb, "*"), "declares the streams, reads them and takes out of them,"})
	}
	return append(sends,
		grant{accountInfo, "asks how much is stored;"},
		grant{api("CONSUMER.CREATE", "*.*.>"), "declares the consumers,"},
		grant{consumerInfo("*", "*"), "and looks at them;"},
		grant{pullSubject("*", recorderConsumer), "takes ended records,"},
		grant{ackSubjects("*", recorderConsumer), "and acknowledges them;"},
		grant{queueSubjects("*"), "queues activations,"},
		grant{queueAnchor("*"), "and moves the anchors of the queues;"},
		grant{backlogSubjects("*"), "lets them wait for a slot,"},
		grant{deadLetterSubjects("*"), "writes down what nobody will run,"},
		grant{bucketSubjects("*"), "writes records, counters and leases,"},
		grant{allObjects[0], "and objects;"},
		grant{allObjects[1], "and objects;"},
		grant{completedSubject("*", "*"), "tells how an activation has ended that no worker had,"},
		grant{changedSubjects, "what has changed,"},
		grant{cancelSubjects("*"), "what is to be cancelled,"},
		grant{drainSubjects, "who is to take nothing more;"},
		grant{logTailSubjects("*"), "asks for the log so far."},
	)
}

// apiHears is what others tell an API.
func apiHears() []grant {
	return []grant{
		{inboxes(apiRole), "answers,"},
		{completedSubject("*", "*"), "how activations end,"},
		{logSubject("*", "*", "*"), "what they write,"},
		{changedSubjects, "what other APIs have changed."},
	}
}

// account is where the APIs are and all that is stored; groupAccount, where the workers of a group are.
const account = "FAENA"

func groupAccount(group string) string { return account + "-" + group }

// Authorization is the part of the NATS servers' configuration that lets in the APIs of an installation and the workers of its
// groups, with what each may do and nothing more: the public nkey of the APIs, and of the workers by group. It is the same for
// every server; the same keys give the same bytes. A key that is none, or that two have, is an error.
func Authorization(api string, groups map[string]string) ([]byte, error) {
	owners := map[string]string{api: "the APIs"}
	if !nkeys.IsValidPublicUserKey(api) {
		return nil, errors.New("write the NATS servers' authorization: the APIs' nkey is no public nkey of a user")
	}
	names := slices.Sorted(maps.Keys(groups))
	for _, group := range names {
		switch key := groups[group]; {
		case !faena.ValidName(group):
			return nil, fmt.Errorf("write the NATS servers' authorization: a group cannot be called %q", group)
		case !nkeys.IsValidPublicUserKey(key):
			return nil, fmt.Errorf("write the NATS servers' authorization: the nkey of group %s is no public nkey of a user", group)
		case owners[key] != "":
			return nil, fmt.Errorf("write the NATS servers' authorization: group %s has the nkey of %s: make it another with faena-worker keygen",
				group, owners[key])
		default:
			owners[key] = "group " + group
		}
	}
	var w config
	w.line("# Who may connect to the NATS servers of this Faena installation, and what for. `faena-api nats-config` prints it: print it")
	w.line("# again when a group was made or removed, give it to every server, and then reload each of them twice, before the group's")
	w.line("# first worker starts: what a new account imports works from the second reload, or from a restart, on (nats-server 2.15).")
	w.line("# The private halves of the keys are with the daemons alone.")
	w.block("accounts", func() {
		w.line("# The APIs, and all that is stored.")
		w.block(account, func() {
			w.line("jetstream: enabled")
			w.user(api, apiSends(), apiHears(), "")
			w.list("exports", func() {
				for _, group := range names {
					w.line("# A worker of group %s", group)
					w.share("service", workerSends(group), groupAccount(group))
					w.line("# and is told")
					w.share("stream", workerHears(group), groupAccount(group))
				}
			})
			w.list("imports", func() {
				for _, group := range names {
					w.line("# The workers of group %s are asked for", group)
					w.use("service", workerAnswers(group), groupAccount(group))
				}
			})
		})
		for _, group := range names {
			w.line("# The workers of group %s.", group)
			w.block(quote(groupAccount(group)), func() { w.group(group, groups[group]) })
		}
	})
	return []byte(w.String()), nil
}

// config writes a configuration of the server's, indented.
type config struct {
	strings.Builder
	depth int
}

func (w *config) line(format string, args ...any) {
	fmt.Fprintf(w, strings.Repeat("  ", w.depth)+format+"\n", args...)
}

func (w *config) enclose(open, end string, fn func()) {
	w.line("%s", open)
	w.depth++
	fn()
	w.depth--
	w.line("%s", end)
}

func (w *config) block(name string, fn func()) { w.enclose(name+" {", "}", fn) }
func (w *config) list(name string, fn func())  { w.enclose(name+": [", "]", fn) }

// group writes the account of a group's workers.
func (w *config) group(group, key string) {
	var sends []grant
	for _, g := range workerSends(group) {
		sends = append(sends, grant{confined(g.subject), g.why})
	}
	hears := append([]grant{{inboxes(workerRole(group)), "answers,"}}, workerHears(group)...)
	w.user(key, sends, append(hears, workerAnswers(group)...), "allow_responses: { max: 1, expires: 10s }")
	w.list("imports", func() {
		w.use("service", workerSends(group), account)
		w.use("stream", workerHears(group), account)
	})
	w.list("exports", func() { w.share("service", workerAnswers(group), account) })
}

func (w *config) user(key string, sends, hears []grant, more string) {
	w.enclose("users: [ { nkey: "+key+", permissions: {", "} } ]", func() {
		w.list("publish", func() { w.grants(sends) })
		w.list("subscribe", func() { w.grants(hears) })
		if more != "" {
			w.line("%s", more)
		}
	})
}

func (w *config) grants(all []grant) {
	for _, g := range all {
		w.line("%s # %s", quote(g.subject), g.why)
	}
}

// share writes what another account may use of this one.
func (w *config) share(kind string, all []grant, with string) {
	for _, g := range all {
		w.line("{ %s: %s, accounts: [ %s ] } # %s", kind, quote(g.subject), quote(with), g.why)
	}
}

// use writes what this account uses of another, by the name that it has here.
func (w *config) use(kind string, all []grant, of string) {
	for _, g := range all {
		as := ""
		if here := confined(g.subject); here != g.subject {
			as = ", to: " + quote(here)
		}
		w.line("{ %s: { account: %s, subject: %s }%s } # %s", kind, quote(of), quote(g.subject), as, g.why)
	}
}

func quote(s string) string { return `"` + s + `"` }

// NewNkey makes the identity of a daemon at the NATS servers: the seed is for the daemon alone, the public half for Authorization.
func NewNkey() (seed []byte, public string, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, "", fmt.Errorf("make an nkey: %w", err)
	}
	if seed, err = pair.Seed(); err != nil {
		return nil, "", fmt.Errorf("make an nkey: %w", err)
	}
	public, err = pair.PublicKey()
	return seed, public, err
}

// PublicNkey is the public half of a user's seed.
func PublicNkey(seed []byte) (string, error) {
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		return "", errors.New("it is no nkey seed: make one with keygen") // the library's words could show it
	}
	public, err := pair.PublicKey()
	if err == nil && !nkeys.IsValidPublicUserKey(public) {
		return "", errors.New("it is an nkey seed, but not of a user: make one with keygen")
	}
	return public, err
}

// complain logs what the server or the client library says of itself. What is not permitted the server drops without a word to
// who sent it: it is an error of the configuration, or of ours.
func (b *Bus) complain(s *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		b.log.Error("the NATS servers do not permit this daemon a subject", "subject", quoted(err.Error()), "error", err)
		return
	}
	subject := ""
	if s != nil {
		subject = s.Subject
	}
	b.log.Warn("NATS reports an error", "subject", subject, "error", err)
}

// quoted is what stands between the first quotation marks.
func quoted(s string) string {
	_, s, _ = strings.Cut(s, `"`)
	s, _, _ = strings.Cut(s, `"`)
	return s
}
