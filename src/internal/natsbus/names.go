package natsbus

import (
	"encoding/base64"
	"strconv"
	"strings"

	"faena.dev/faena/internal/faena"
)

// The names of everything in NATS (design section 3). No other file puts one together. Users, groups and functions are
// valid tokens of a subject, and so are activation ids (package faena).
//
//	ACTIVATIONS-<group>        stream of Activations.<group>.<user>.<slot>, and Activations.<group>.anchor
//	                           consumer workers: Activations.<group>.*.*
//	BACKLOG-<group>            stream of Backlog.<group>.<user>.<id>
//	DEADLETTERS-<group>        stream of DeadLetters.<group>.<user>.<id>
//	activations-<group>        bucket, key <user>.<id>, and the key anchor; consumer recorder: keys *.*
//	objects-<group>            object store: in.<id>, dead.<id>, out.<id>.<attempt>, log.<id>.<attempt>
//	workers-<group>            bucket, key <worker id>
//	users                      bucket, key <user>.activations.active, .completed, .failed
//	leases                     bucket, key <lease>
//	idempotency                bucket, key <user>.<hash of the Idempotency-Key>, or <user>.<what else is done once>
//	Completed.<instance>.<group>, Cancel.<group>.<id>, Logs.<group>.<user>.<id>, LogTail.<group>.<id>,
//	Changed.<kind>.<user>.<name>, Drain.<worker id>   core subjects
//	_INBOX.<role>.<daemon>.<random>   where answers to one connection go
//	Faena.API.<verb>…          what a worker with a key asks of JetStream, instead of $JS.API.<verb>…
const (
	objectsPrefix    = "OBJ_"
	workersConsumer  = "workers"
	recorderConsumer = "recorder"

	usersBucket  = "users"
	leasesBucket = "leases"
	claimsBucket = "idempotency"
	// sharedWorkersBucket was that of the heartbeats of all groups.
	sharedWorkersBucket = "workers"

	// anchor is the last token of what keeps a stream's newest file from running empty; see anchors.
	anchor = "anchor"

	// headerMsgID is the id by which the server drops a second copy.
	headerMsgID = "Nats-Msg-Id"
	// headerExpected is the sequence that the last message of the subject must have: compare-and-set.
	headerExpected = "Nats-Expected-Last-Subject-Sequence"
	// headerRollup with the value "sub" makes a message replace all others of its subject.
	headerRollup = "Nats-Rollup"
	// headerTTL is how long a message stays, where its stream allows that.
	headerTTL = "Nats-TTL"
	// headerOperation with the value "DEL" is how clients of NATS's key-value store mark a key as deleted.
	headerOperation = "KV-Operation"
	// headerStatus is set on what the server itself says to who pulls.
	headerStatus = "Status"
	// headerOffset is where a piece of a log begins, in decimal.
	headerOffset = "Faena-Offset"

	// changedSubjects is every Changed.<kind>.<user>.<name>.
	changedSubjects = "Changed.*.*.*"
	// drainOrder and resumeOrder are what is said there.
	drainOrder  = "drain"
	resumeOrder = "resume"
	// drainSubjects is every Drain.<worker id>.
	drainSubjects = "Drain.*"

	// jetstreamAPI is where JetStream is asked, and confinedAPI where from an account that has none of its own.
	jetstreamAPI = "$JS.API."
	confinedAPI  = "Faena.API."
	// accountInfo asks what JetStream keeps altogether.
	accountInfo = jetstreamAPI + "INFO"
)

// The queue of a group.
func queueStream(group string) string        { return "ACTIVATIONS-" + group }
func queueSubjects(group string) string      { return "Activations." + group + ".*.*" }
func userSubjects(group, user string) string { return "Activations." + group + "." + user + ".*" }
func queueAnchor(group string) string        { return "Activations." + group + "." + anchor }

// What waits for a slot, and what nobody will run.
func backlogStream(group string) string            { return "BACKLOG-" + group }
func backlogSubjects(group string) string          { return "Backlog." + group + ".*.*" }
func backlogOf(group, user string) string          { return "Backlog." + group + "." + user + ".*" }
func backlogSubject(group, user, id string) string { return "Backlog." + group + "." + user + "." + id }
func deadLettersStream(group string) string        { return "DEADLETTERS-" + group }
func deadLetterSubjects(group string) string       { return "DeadLetters." + group + ".*.*" }
func deadLettersOf(group, user string) string      { return "DeadLetters." + group + "." + user + ".*" }
func deadLetterSubject(group, user, id string) string {
	return "DeadLetters." + group + "." + user + "." + id
}

// waitingOf reads user and id from a subject of a backlog, or of dead letters.
func waitingOf(subject string) (user, id string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 {
		return "", "", false
	}
	return parts[2], parts[3], true
}

// slotSubject is where the message stands that uses a user's slot.
func slotSubject(group, user string, slot int) string {
	return "Activations." + group + "." + user + "." + strconv.Itoa(slot)
}

// slotOf reads user and slot from a subject of the queue.
func slotOf(subject string) (user string, slot int, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 {
		return "", 0, false
	}
	slot, err := strconv.Atoi(parts[3])
	return parts[2], slot, err == nil && slot >= 0
}

// Buckets are streams as a client of NATS's key-value store expects them.
func bucketStream(bucket string) string       { return "KV_" + bucket }
func bucketSubjects(bucket string) string     { return "$KV." + bucket + ".>" }
func bucketSubject(bucket, key string) string { return "$KV." + bucket + "." + key }

// The bucket of a group's live records.
func recordsBucket(group string) string   { return "activations-" + group }
func recordsStream(group string) string   { return bucketStream(recordsBucket(group)) }
func recordSubjects(group string) string  { return bucketSubject(recordsBucket(group), "*.*") }
func recordsOf(group, user string) string { return bucketSubject(recordsBucket(group), user+".*") }
func recordsAnchor(group string) string   { return bucketSubject(recordsBucket(group), anchor) }
func recordSubject(group, user, id string) string {
	return bucketSubject(recordsBucket(group), user+"."+id)
}

// recordOf reads user and id from a subject of a bucket of records.
func recordOf(subject string) (user, id string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) != 4 {
		return "", "", false
	}
	return parts[2], parts[3], true
}

// The bucket of a group's heartbeats.
func workersBucket(group string) string     { return "workers-" + group }
func workersStream(group string) string     { return bucketStream(workersBucket(group)) }
func workerSubject(group, id string) string { return bucketSubject(workersBucket(group), id) }

func leaseSubject(name string) string            { return bucketSubject(leasesBucket, name) }
func claimSubject(user, hash string) string      { return bucketSubject(claimsBucket, user+"."+hash) }
func counterSubject(user, counter string) string { return bucketSubject(usersBucket, user+"."+counter) }

// Objects are kept as a client of NATS's object store expects them: one message of meta, the data in chunks.
func objectsBucket(group string) string { return "objects-" + group }
func objectsStream(group string) string { return objectsPrefix + objectsBucket(group) }
func objectsSubjects(group string) []string {
	return []string{"$O." + objectsBucket(group) + ".C.>", "$O." + objectsBucket(group) + ".M.>"}
}

// allObjects is objectsSubjects of every group: a wildcard is a whole token.
var allObjects = []string{"$O.*.C.>", "$O.*.M.>"}

func objectSubject(group, name string) string {
	return "$O." + objectsBucket(group) + ".M." + base64.URLEncoding.EncodeToString([]byte(name))
}
func chunksSubject(group, put string) string { return "$O." + objectsBucket(group) + ".C." + put }

// The hints between daemons.
func completedSubject(instance, group string) string { return "Completed." + instance + "." + group }
func completedSubjects(instance string) string       { return "Completed." + instance + ".*" }
func cancelSubject(group, id string) string          { return "Cancel." + group + "." + id }
func cancelSubjects(group string) string             { return "Cancel." + group + ".*" }
func drainSubject(worker string) string              { return "Drain." + worker }
func logSubject(group, user, id string) string       { return "Logs." + group + "." + user + "." + id }
func logTailSubject(group, id string) string         { return "LogTail." + group + "." + id }
func logTailSubjects(group string) string            { return "LogTail." + group + ".*" }
func changedSubject(kind, user, name string) string {
	return "Changed." + kind + "." + user + "." + name
}

// changeOf reads a subject of Changed.
func changeOf(subject string) (kind, user, name string, ok bool) {
	p := strings.Split(subject, ".")
	if len(p) != 4 {
		return "", "", "", false
	}
	return p[1], p[2], p[3], true
}

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// Roles of daemons. They name inboxes, and Authorization gives each what it needs.
const apiRole = "api"

func workerRole(group string) string { return "worker-" + group }

// inboxes is where answers to daemons of a role go.
func inboxes(role string) string { return "_INBOX." + role + ".>" }

// inboxPrefix is where answers to one daemon of a role go.
func inboxPrefix(role, daemon string) string {
	token := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, daemon)
	if token == "" {
		token = "faena"
	}
	return "_INBOX." + role + "." + token
}

// messageID is the Nats-Msg-Id of an activation's n-th publication.
func messageID(id string, n int) string { return id + "." + strconv.Itoa(n) }

// activationOf is the activation that a Nats-Msg-Id belongs to.
func activationOf(messageID string) (id string, ok bool) {
	id, _, ok = strings.Cut(messageID, ".")
	return id, ok && faena.ValidActivationID(id)
}

// JetStream's own subjects. verb is for example STREAM.INFO.
func api(verb, stream string) string { return jetstreamAPI + verb + "." + stream }

func consumerInfo(stream, consumer string) string { return api("CONSUMER.INFO", stream+"."+consumer) }
func pullSubject(stream, consumer string) string {
	return api("CONSUMER.MSG.NEXT", stream+"."+consumer)
}
func ackSubjects(stream, consumer string) string { return "$JS.ACK." + stream + "." + consumer + ".>" }

// receiptOf reads the group from the subject on which a message of a queue is answered: $JS.ACK.<stream>.<consumer>.<deliveries>.
// <sequence>.<sequence of the consumer>.<time>.<pending>, the last five of them numbers.
func receiptOf(subject string) (group string, ok bool) {
	p := strings.Split(subject, ".")
	if len(p) != 9 {
		return "", false
	}
	for _, number := range p[4:] {
		if _, err := strconv.ParseUint(number, 10, 64); err != nil {
			return "", false
		}
	}
	group = strings.TrimPrefix(p[2], queueStream(""))
	return group, faena.ValidName(group) && strings.HasPrefix(subject, strings.TrimSuffix(ackSubjects(queueStream(group), workersConsumer), ">"))
}

// confined is the name that a subject has for a worker with a key: the server answers what is asked under $JS.API in an account
// without JetStream by itself.
func confined(subject string) string {
	if rest, ok := strings.CutPrefix(subject, jetstreamAPI); ok {
		return confinedAPI + rest
	}
	return subject
}
