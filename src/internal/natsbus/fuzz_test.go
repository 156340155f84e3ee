package natsbus

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"faena.dev/faena/internal/faena"
)

// What is read here may be damaged, of another version, or made up by whoever has a worker's key. Whatever it is, reading it ends in
// a value that is as it is promised, or in an error of a known meaning.

const fuzzID = "01890a5d-ac96-774b-bcce-b302099a8057"

var fuzzTime = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

func encoded(f *testing.F, v any) []byte {
	f.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		f.Fatal(err)
	}
	return data
}

// damaged adds what is none of a kind, and parts of what is one.
func damaged(f *testing.F, add func([]byte), whole []byte) {
	f.Helper()
	for _, s := range []string{"", "{}", "null", "[]", "7", `"x"`, `{"schema":`, `{"schema":"1"}`, `{"schema":1.5}`, `{"schema":-1}`, `{"schema":99}`, `{"schema":99,"id":7}`,
		`{"schema":99999999999999999999}`, `{"schema":null}`, `{"schema":2,"id":7}`, `{"Schema":2}`, "\x00", "\xff", `{"a":"\ud800"}`} {
		add([]byte(s))
	}
	add(whole)
	add(whole[:len(whole)/2])
	add(append(whole[:len(whole):len(whole)], whole...))
	for _, c := range [][2]string{{`"schema":2`, `"schema":1`}, {`"schema":2`, `"schema":3`}, {`"state":"queued"`, `"state":"gone"`}, {`"user":"ana"`, `"user":"bob"`},
		{`"2026-`, `"9999-`}, {`"2026-01-02T03:04:05.000006Z"`, `"9999-12-31T23:59:59-23:59"`}, {`"attempt":0`, `"attempt":1e3`}} {
		add([]byte(strings.ReplaceAll(string(whole), c[0], c[1])))
	}
}

func fuzzRecord() *faena.Record {
	return &faena.Record{Schema: faena.SchemaVersion, ID: fuzzID, User: "ana", Group: "default", Function: "f", Revision: 1, Slot: 3, Publication: 1,
		StartWithinMS: 60_000, State: faena.StateQueued, Instance: "api-1", AdmittedAt: fuzzTime}
}

// understood checks an error: one of another version says so, any other does not, and both are for people.
func understood(t *testing.T, p []byte, err error) {
	t.Helper()
	var v struct {
		Schema int `json:"schema"`
	}
	if json.Unmarshal(p, &v) != nil {
		return
	}
	other := checkSchema(v.Schema) != nil
	if errors.Is(err, faena.ErrSchema) && !other && !strings.Contains(err.Error(), "record") && !strings.Contains(err.Error(), "revision") {
		t.Errorf("of version %d it is said: %v", v.Schema, err)
	}
	if other && !errors.Is(err, faena.ErrSchema) {
		t.Errorf("of version %d it is said: %v", v.Schema, err)
	}
}

// FuzzCodec: a message that is read is written as the same message.
func FuzzCodec(f *testing.F) {
	revision := &faena.Revision{Schema: faena.SchemaVersion, User: "ana", Function: "f", Number: 1, Spec: faena.Spec{Image: "i"}.WithDefaults()}
	m := &faena.Message{Schema: faena.SchemaVersion, ID: fuzzID, Record: fuzzRecord(), RecordRevision: 7, Revision: revision,
		Parameter: faena.Blob{Size: 3, Inline: []byte{0, 0xff, '"'}}}
	whole, err := newCodec().encode(m)
	if err != nil {
		f.Fatal(err)
	}
	damaged(f, func(p []byte) { f.Add(p) }, whole)
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := newCodec().decode(p)
		if err != nil {
			understood(t, p, err)
			return
		}
		if m.Revision == nil || checkSchema(m.Schema) != nil || checkSchema(m.Revision.Schema) != nil || m.Record != nil && checkSchema(m.Record.Schema) != nil {
			t.Fatalf("it is read as %+v", m)
		}
		again, err := newCodec().encode(m)
		if err != nil {
			t.Fatalf("it is not written again: %v", err)
		}
		back, err := newCodec().decode(again)
		if err != nil {
			t.Fatalf("it is written as %s, and not read again: %v", again, err)
		}
		if third, err := newCodec().encode(back); err != nil || string(third) != string(again) {
			t.Errorf("it is written as %s, then as %s, %v", again, third, err)
		}
	})
}

// FuzzBus_recordAt: a record that is believed is of its key, has a state that there is, and can be written.
func FuzzBus_recordAt(f *testing.F) {
	subject := recordSubject("default", "ana", fuzzID)
	full := fuzzRecord()
	full.NotBefore, full.StartedAt, full.EndedAt = &fuzzTime, &fuzzTime, &fuzzTime
	full.Parameter, full.Failures = &faena.Blob{Size: 1, Inline: []byte("p")}, []faena.Failure{{Attempt: 1, Reason: faena.ReasonTimeout, EndedAt: fuzzTime}}
	for _, r := range []*faena.Record{fuzzRecord(), full} {
		damaged(f, func(p []byte) { f.Add(subject, p) }, encoded(f, r))
	}
	f.Add(recordSubject("default", "bob", fuzzID), encoded(f, full))
	f.Add(recordsAnchor("default"), []byte(nil))
	b := new(Bus)
	f.Fuzz(func(t *testing.T, subject string, p []byte) {
		r, err := b.recordAt(subject, p)
		if err != nil {
			if !errors.Is(err, faena.ErrSchema) && !errors.Is(err, faena.ErrUnreadable) {
				t.Errorf("it is said: %v", err)
			}
			understood(t, p, err)
			return
		}
		if recordSubject(r.Group, r.User, r.ID) != subject || !r.State.Terminal() && r.State != faena.StateQueued && r.State != faena.StateRunning {
			t.Errorf("under %s it is read as %+v", subject, r)
		}
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("it is not written again: %v", err)
		}
		if back, err := b.recordAt(subject, data); err != nil || !sameJSON(r, back) {
			t.Errorf("it is written as %s, and read as %+v, %v", data, back, err)
		}
	})
}

// FuzzBus_deadLetterAt: one that is believed is of its subject.
func FuzzBus_deadLetterAt(f *testing.F) {
	subject := deadLetterSubject("default", "ana", fuzzID)
	d := faena.DeadLetter{Schema: faena.SchemaVersion, ID: fuzzID, User: "ana", Group: "default", Function: "f", Revision: 1, Reason: faena.ReasonWorkerLost,
		Message: "lost", Attempts: 3, Worker: "w1", Parameter: faena.Blob{Size: 1, Inline: []byte("p")}, Raw: []byte("raw"), At: fuzzTime}
	damaged(f, func(p []byte) { f.Add(subject, p) }, encoded(f, d))
	f.Add(deadLetterSubject("default", "bob", fuzzID), encoded(f, d))
	b := new(Bus)
	f.Fuzz(func(t *testing.T, subject string, p []byte) {
		d, err := b.deadLetterAt(subject, p)
		if err != nil {
			if !errors.Is(err, faena.ErrSchema) && !errors.Is(err, faena.ErrUnreadable) {
				t.Errorf("it is said: %v", err)
			}
			understood(t, p, err)
			return
		}
		if deadLetterSubject(d.Group, d.User, d.ID) != subject || checkSchema(d.Schema) != nil {
			t.Errorf("under %s it is read as %+v", subject, d)
		}
		data, err := json.Marshal(d)
		if err != nil {
			t.Fatalf("it is not written again: %v", err)
		}
		if back, err := b.deadLetterAt(subject, data); err != nil || !sameJSON(d, back) {
			t.Errorf("it is written as %s, and read as %+v, %v", data, back, err)
		}
	})
}

// FuzzDecodeClaim: a claim that is read is of a version that is known.
func FuzzDecodeClaim(f *testing.F) {
	damaged(f, func(p []byte) { f.Add(p) }, encoded(f, faena.IdempotencyClaim{Schema: faena.SchemaVersion, ID: fuzzID, Group: "default", Function: "f",
		ParameterSHA256: "x", ClaimedAt: fuzzTime}))
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := decodeClaim(p)
		if err != nil {
			understood(t, p, err)
			if !reflect.DeepEqual(c, faena.IdempotencyClaim{}) {
				t.Errorf("with %v it is %+v", err, c)
			}
			return
		}
		if checkSchema(c.Schema) != nil {
			t.Errorf("it is read as %+v", c)
		}
	})
}

// FuzzBeatAt: a heartbeat that is believed is of its key, and what it says can be added up.
func FuzzBeatAt(f *testing.F) {
	subject := workerSubject("default", "w1")
	whole := encoded(f, faena.Worker{Schema: faena.SchemaVersion, ID: "w1", Group: "default", Places: 3, Busy: 1, StartedAt: fuzzTime, SeenAt: fuzzTime})
	damaged(f, func(p []byte) { f.Add(subject, p) }, whole)
	f.Add(workerSubject("other", "w1"), whole)
	for _, places := range []string{"-1", "9223372036854775807", "1e300"} {
		f.Add(subject, []byte(strings.ReplaceAll(string(whole), `"places":3`, `"places":`+places)))
	}
	f.Fuzz(func(t *testing.T, subject string, p []byte) {
		w, ok := beatAt(subject, p)
		if ok && (workerSubject(w.Group, w.ID) != subject || w.Places < 0 || w.Places*faena.MaxGroups*beatsMost < 0 || w.Busy < 0) {
			t.Errorf("under %s it is read as %+v", subject, w)
		}
	})
}

// FuzzReceiptOf: a receipt is the answer's subject of one delivery of one group's queue, and nothing that means more.
func FuzzReceiptOf(f *testing.F) {
	for _, s := range []string{"$JS.ACK.ACTIVATIONS-default.workers.1.2.3.1700000000000000000.4", "$JS.ACK.ACTIVATIONS-a.b.workers.1.2.3.4.5", "$JS.ACK.ACTIVATIONS-*.workers.1.2.3.4.5",
		"$JS.ACK.ACTIVATIONS-default.workers.1.2.3.4.>", "$JS.ACK.ACTIVATIONS-default.workers.1.2.3.4.5.6", "$JS.ACK.KV_activations-default.recorder.1.2.3.4.5",
		"$JS.API.STREAM.DELETE.ACTIVATIONS-default.1.2.3.4.5", "$JS.ACK.ACTIVATIONS-default.workers.+1.2.3.4.5", "$JS.ACK.ACTIVATIONS-default.workers.1.2.3.4.5\r\nPUB x 0", "", "........"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		group, ok := receiptOf(s)
		if !ok {
			return
		}
		rest, of := strings.CutPrefix(s, "$JS.ACK.ACTIVATIONS-"+group+".workers.")
		if !of || !faena.ValidName(group) || strings.Trim(rest, "0123456789.") != "" || strings.Count(rest, ".") != 4 || strings.Contains("."+rest+".", "..") {
			t.Errorf("%q is taken for a receipt of %q", s, group)
		}
	})
}

// FuzzReadStored: an answer of the servers is read as a plain reading has it.
func FuzzReadStored(f *testing.F) {
	for _, s := range []string{`{"type":"x","message":{"subject":"a.b","seq":7,"hdrs":"TkFUUy8xLjANCk5hdHMtTXNnLUlkOiB4DQoNCg==","data":"eHl6","time":"2026-01-02T03:04:05Z"}}`,
		`{"message":{"subject":"a","seq":1,"time":"2026-01-02T03:04:05Z"}}`, `{"message":{"subject":"\"data\":\"eA==\"","seq":1,"data":"eQ=="}}`,
		`{"error":{"code":404,"err_code":10037,"description":"no message found"}}`, `{"error":{"code":503,"err_code":10008}}`, `{"message":{"data":"x"}}`,
		`{"message":{"data":"eA==","data":"eQ=="}}`, `{}`, `null`, ``, `{"message":null}`, `{"message":{"seq":-1}}`, `{"data":"eA==","message":{}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, ok, err := readStored(p)
		if ok == (err != nil) && ok {
			t.Errorf("it is %+v with %v", m, err)
		}
		var plain struct {
			Message *struct {
				stored
				Data []byte `json:"data"`
			} `json:"message"`
			Error *apiError `json:"error"`
		}
		if !ok || strings.Count(strings.ToLower(string(p)), `"data"`) != 1 || strings.Contains(string(p), `\`) || json.Unmarshal(p, &plain) != nil || plain.Message == nil {
			return // names that are given twice, or in other letters, mean nothing to the servers either
		}
		if strings.Contains(string(p), `"data":"`+base64.StdEncoding.EncodeToString(plain.Message.Data)+`"`) && string(m.Data) != string(plain.Message.Data) ||
			m.Subject != plain.Message.Subject || m.Sequence != plain.Message.Sequence {
			t.Errorf("%s is read as %+v, want %+v", p, m, plain.Message)
		}
		m.header(headerMsgID)
	})
}

// FuzzSubjects: what a subject says is what it was put together from.
func FuzzSubjects(f *testing.F) {
	f.Add("default", "ana", fuzzID, 3)
	f.Add("a-b", "x", "y", -1)
	f.Add("", "", "", 0)
	f.Fuzz(func(t *testing.T, group, user, id string, slot int) {
		for _, s := range []string{group, user, id, group + "." + user, group + "." + user + "." + id + ".3"} { // anything may be listed
			slotOf(s)
			waitingOf(s)
			recordOf(s)
			changeOf(s)
			activationOf(s)
		}
		if !faena.ValidName(group) || !faena.ValidUser(user) || !faena.ValidActivationID(id) {
			return
		}
		if u, n, ok := slotOf(slotSubject(group, user, slot)); ok != (slot >= 0) || ok && (u != user || n != slot) {
			t.Errorf("slot %d of %q is %d of %q, %v", slot, user, n, u, ok)
		}
		for _, s := range []string{backlogSubject(group, user, id), deadLetterSubject(group, user, id)} {
			if u, i, ok := waitingOf(s); !ok || u != user || i != id {
				t.Errorf("%s is of %q, %q, %v", s, u, i, ok)
			}
		}
		if u, i, ok := recordOf(recordSubject(group, user, id)); !ok || u != user || i != id {
			t.Errorf("the record is of %q, %q, %v", u, i, ok)
		}
		if i, ok := activationOf(messageID(id, slot)); !ok || i != id {
			t.Errorf("the message is of %q, %v", i, ok)
		}
	})
}

func sameJSON(a, b any) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && string(x) == string(y)
}
