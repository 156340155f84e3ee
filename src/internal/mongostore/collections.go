package mongostore

import (
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/clock"
)

// The collections of the database. Ids are ranges: a list is one walk from one id.
const (
	metaCollection        = "meta"        // schema; horizon
	functionsCollection   = "functions"   // <user>/<name>: head, with the newest revision
	revisionsCollection   = "revisions"   // <user>/<name>/<incarnation>/<number>: the revisions before it
	usersCollection       = "users"       // <name in lower case>: profile or tombstone
	groupsCollection      = "groups"      // <name>
	activationsCollection = "activations" // <user>/<id>: record, or what is left of one that was pruned
	payloadsCollection    = "payloads"    // <user>/<id>: the inline bytes of result and log
	usageCollection       = "usage"       // <user>/<month>: counts by hour of admission
)

const (
	schemaID  = "schema"
	horizonID = "horizon"
)

// index is a secondary index: fields in ascending order.
type index struct {
	collection string
	fields     []string
	sparse     bool // documents without the field are left out
}

// indexes are all that a query but one by id needs. They are created when a store is opened; one that is not named here any more
// stays until an operator drops it.
var indexes = []index{
	byUserName, byGrant, byErasure, byGroup,
	byUser, byFunction, byState, byBoth,
	byAdmission, byMark, byPruning,
	byBytes,
}

var (
	byUserName  = index{collection: usersCollection, fields: []string{"user.name"}}
	byGrant     = index{collection: usersCollection, fields: []string{"granted", "user.name"}}
	byErasure   = index{collection: usersCollection, fields: []string{"erasure"}, sparse: true}
	byGroup     = index{collection: functionsCollection, fields: []string{"group", "_id"}}
	byUser      = index{collection: activationsCollection, fields: []string{"record.user", "_id"}}
	byFunction  = index{collection: activationsCollection, fields: []string{"record.function", "_id"}}
	byState     = index{collection: activationsCollection, fields: []string{"record.state", "_id"}}
	byBoth      = index{collection: activationsCollection, fields: []string{"record.function", "record.state", "_id"}}
	byAdmission = index{collection: activationsCollection, fields: []string{"record.admitted_at", "_id"}}
	byMark      = index{collection: activationsCollection, fields: []string{"mark"}, sparse: true}
	byPruning   = index{collection: activationsCollection, fields: []string{"pruned_at"}, sparse: true}
	byBytes     = index{collection: usageCollection, fields: []string{"bytes"}}
)

// name is what MongoDB itself would call it: the fields with their order.
func (i index) name() string { return strings.Join(i.fields, "_1_") + "_1" }

func (i index) keys() (keys bson.D) {
	for _, field := range i.fields {
		keys = append(keys, bson.E{Key: field, Value: 1})
	}
	return keys
}

// key joins the parts of an id. No part has a slash: users, functions, states and ids are checked long before.
func key(parts ...string) string { return strings.Join(parts, "/") }

// beyond follows the slash, and so every id that begins with what is before it.
const beyond = "0"

// below are the ids that begin with the parts and go on.
func below(parts ...string) bson.D {
	prefix := key(parts...)
	return bson.D{{Key: "$gte", Value: prefix + "/"}, {Key: "$lt", Value: prefix + beyond}}
}

// before are those of below(parts) that come before a last part; "": all.
func before(last string, parts ...string) bson.D {
	if last == "" {
		return below(parts...)
	}
	prefix := key(parts...) + "/"
	return bson.D{{Key: "$gte", Value: prefix}, {Key: "$lt", Value: prefix + last}}
}

// after are those of below(parts) that come after a last part; "": all.
func after(last string, parts ...string) bson.D {
	prefix := key(parts...)
	return bson.D{{Key: "$gt", Value: prefix + "/" + last}, {Key: "$lt", Value: prefix + beyond}}
}

// is is the filter or sort of one field.
func is(field string, value any) bson.D { return bson.D{{Key: field, Value: value}} }

func byID(id string) bson.D { return is("_id", id) }

func in[T any](list []T) bson.D { return is("$in", list) }

func set(fields ...bson.E) bson.D { return is("$set", bson.D(fields)) }

// number writes a revision's number so that ids are in its order.
func number(n int) string {
	s := strconv.Itoa(n)
	return strings.Repeat("0", max(0, 10-len(s))) + s
}

// now is the time as every adapter keeps it, in milliseconds.
func now() time.Time { return clock.Now().Truncate(time.Millisecond) }
