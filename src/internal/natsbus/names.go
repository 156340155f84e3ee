package natsbus

import (
	"strconv"
	"strings"

	"faena.dev/faena/internal/faena"
)

// The names of everything in NATS (design section 3). No other file puts one together.
//
//	ACTIVATIONS-<group>        stream of Activations.<group>.<user>.<slot>, consumer workers
//	activations-<group>        bucket, key <user>.<id>, consumer recorder
//	objects-<group>            object store: in.<id>, out.<id>.<attempt>, log.<id>.<attempt>
//	users                      bucket, key <user>.activations.active, .completed, .failed
//	workers                    bucket, key <group>.<worker id>
//	Completed.<instance>.<group>, Cancel.<group>.<id>, Logs.<group>.<user>.<id>, LogTail.<group>.<id>,
//	Changed.<kind>.<user>.<name>   core subjects
const (
	workersConsumer  = "workers"
	recorderConsumer = "recorder"

	usersBucket   = "users"
	workersBucket = "workers"

	// headerMsgID is the id by which the server drops a second copy.
	headerMsgID = "Nats-Msg-Id"
	// headerExpected is the sequence that the last message of the subject must have: compare-and-set.
	headerExpected = "Nats-Expected-Last-Subject-Sequence"
	// headerOffset is where a piece of a log begins, in decimal.
	headerOffset = "Faena-Offset"
)

func queueStream(group string) string         { return "ACTIVATIONS-" + group }
func queueSubjects(group string) string       { return "Activations." + group + ".*.*" }
func userSubjects(group, user string) string  { return "Activations." + group + "." + user + ".*" }
func recordsBucket(group string) string       { return "activations-" + group }
func objectsBucket(group string) string       { return "objects-" + group }
func bucketStream(bucket string) string       { return "KV_" + bucket }
func bucketSubjects(bucket string) string     { return "$KV." + bucket + ".>" }
func bucketSubject(bucket, key string) string { return "$KV." + bucket + "." + key }
func objectsStream(group string) string       { return "OBJ_" + objectsBucket(group) }

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

func recordSubject(group, user, id string) string {
	return bucketSubject(recordsBucket(group), user+"."+id)
}

func recordsOf(group, user string) string { return bucketSubject(recordsBucket(group), user+".*") }

func workerSubject(group, id string) string { return bucketSubject(workersBucket, group+"."+id) }

func counterSubject(user, counter string) string { return bucketSubject(usersBucket, user+"."+counter) }

func completedSubject(instance, group string) string { return "Completed." + instance + "." + group }
func completedSubjects(instance string) string       { return "Completed." + instance + ".*" }
func cancelSubject(group, id string) string          { return "Cancel." + group + "." + id }
func cancelSubjects(group string) string             { return "Cancel." + group + ".*" }
func logSubject(group, user, id string) string       { return "Logs." + group + "." + user + "." + id }
func logTailSubject(group, id string) string         { return "LogTail." + group + "." + id }
func logTailSubjects(group string) string            { return "LogTail." + group + ".*" }
func changedSubject(kind, user, name string) string {
	return "Changed." + kind + "." + user + "." + name
}

const changedSubjects = "Changed.*.*.*"

func lastToken(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }

// messageID is the Nats-Msg-Id of an activation's n-th publication.
func messageID(id string, n int) string { return id + "." + strconv.Itoa(n) }

// activationOf is the activation that a Nats-Msg-Id belongs to.
func activationOf(messageID string) (id string, ok bool) {
	id, _, ok = strings.Cut(messageID, ".")
	return id, ok && faena.ValidActivationID(id)
}

func api(verb, stream string) string { return "$JS.API." + verb + "." + stream }

func pullSubject(stream, consumer string) string {
	return "$JS.API.CONSUMER.MSG.NEXT." + stream + "." + consumer
}
