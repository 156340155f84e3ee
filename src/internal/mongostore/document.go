package mongostore

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"faena.dev/faena/internal/faena"
)

// The documents. What the domain knows is a sub-document with the names of its JSON; beside it stands what this package
// needs. Bytes are binary, times are dates in milliseconds.

type functionDocument struct {
	ID     string `bson:"_id"`
	Schema int    `bson:"schema"`
	// Incarnation tells a function from one that had the name before.
	Incarnation string         `bson:"incarnation"`
	Group       string         `bson:"group"` // of the current revision
	Function    faena.Function `bson:"function"`
	Revision    bson.Raw       `bson:"revision"` // the newest
}

type revisionDocument struct {
	ID       string   `bson:"_id"`
	Schema   int      `bson:"schema"`
	Revision bson.Raw `bson:"revision"`
}

type userDocument struct {
	ID      string     `bson:"_id"`
	Schema  int        `bson:"schema"`
	Granted []string   `bson:"granted,omitempty"` // the groups, for their index
	User    faena.User `bson:"user"`
	Erasure erasure    `bson:"erasure,omitempty"` // of a tombstone
}

type groupDocument struct {
	ID     string      `bson:"_id"`
	Schema int         `bson:"schema"`
	Group  faena.Group `bson:"group"`
}

// activationDocument is a record without its inline bytes or, with PrunedAt and without Record, what says that it was here.
type activationDocument struct {
	ID       string     `bson:"_id"`
	Schema   int        `bson:"schema"`
	Record   bson.Raw   `bson:"record,omitempty"`
	Payload  bool       `bson:"payload,omitempty"` // inline bytes are in a document of their own
	Bytes    int64      `bson:"bytes"`             // of record and payload
	Mark     mark       `bson:"mark,omitempty"`    // its month has yet to count it
	PrunedAt *time.Time `bson:"pruned_at,omitempty"`
}

type payloadDocument struct {
	ID     string `bson:"_id"`
	Schema int    `bson:"schema"`
	Result []byte `bson:"result,omitempty"`
	Log    []byte `bson:"log,omitempty"`
}

type usageDocument struct {
	ID      string           `bson:"_id"`
	Schema  int              `bson:"schema"`
	Version int64            `bson:"version"` // raised by every change
	Counts  counts           `bson:",inline"` // of the month
	Bytes   int64            `bson:"bytes"`   // of the month's records that are stored
	Hours   map[hour]*counts `bson:"hours"`
	// Counted are activations that the last change has counted, which may still have their marks; each behind the sign of that.
	Counted []string `bson:"counted,omitempty"`
}

type counts struct {
	Completed int64 `bson:"completed"`
	Failed    int64 `bson:"failed"`
	RunUS     int64 `bson:"run_us"`
}

type schemaDocument struct {
	ID     string `bson:"_id"`
	Schema int    `bson:"schema"`
}

type horizonDocument struct {
	ID     string    `bson:"_id"`
	Schema int       `bson:"schema"`
	Hour   time.Time `bson:"hour"`
}

// blobDocument is a faena.Blob without its bytes, which are the payload.
type blobDocument struct {
	Size      int64  `bson:"size"`
	Object    string `bson:"object,omitempty"`
	Truncated bool   `bson:"truncated,omitempty"`
	Dropped   int64  `bson:"dropped,omitempty"`
}

// registry has what the driver cannot do by itself: names of labels may have dots, which names of fields may not; and a field whose
// JSON is called inline is taken for one of the driver's own options.
var registry = func() *bson.Registry {
	r := bson.NewRegistry()
	texts := reflect.TypeFor[map[string]string]()
	r.RegisterTypeEncoder(texts, bson.ValueEncoderFunc(encodeTexts))
	r.RegisterTypeDecoder(texts, bson.ValueDecoderFunc(decodeTexts))
	blob := reflect.TypeFor[faena.Blob]()
	r.RegisterTypeEncoder(blob, bson.ValueEncoderFunc(encodeBlob))
	r.RegisterTypeDecoder(blob, bson.ValueDecoderFunc(decodeBlob))
	return r
}()

// encode makes BSON of a document.
func encode(document any) (bson.Raw, error) {
	var b bytes.Buffer
	e := bson.NewEncoder(bson.NewDocumentWriter(&b))
	e.UseJSONStructTags()
	e.SetRegistry(registry)
	if err := e.Encode(document); err != nil {
		return nil, fmt.Errorf("encode a %T: %w", document, err)
	}
	return b.Bytes(), nil
}

// decode reads a document; faena.ErrSchema where it, or what it has of the domain, is of a newer version.
func decode[T any](raw bson.Raw) (document T, err error) {
	id, _ := raw.Lookup("_id").StringValueOK()
	if id == "" {
		id = "a sub-document"
	}
	for _, path := range [][]string{{"schema"}, {"function", "schema"}, {"user", "schema"}, {"group", "schema"}, {"record", "schema"}} {
		if version, ok := raw.Lookup(path...).AsInt64OK(); ok && version > faena.SchemaVersion {
			return document, fmt.Errorf("decode %s: a newer version has written it (schema %d): %w", id, version, faena.ErrSchema)
		}
	}
	d := bson.NewDecoder(bson.NewDocumentReader(bytes.NewReader(raw)))
	d.UseJSONStructTags()
	d.SetRegistry(registry)
	if err := d.Decode(&document); err != nil {
		return document, fmt.Errorf("decode %s: %w", id, err)
	}
	return document, nil
}

// decodeAll reads documents, and takes of each what is asked for.
func decodeAll[D, T any](raws []bson.Raw, take func(D) (T, error)) ([]T, error) {
	var list []T
	for _, raw := range raws {
		d, err := decode[D](raw)
		if err != nil {
			return nil, err
		}
		v, err := take(d)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// fieldNames are what a name may have and a field's name may not.
var fieldNames = strings.NewReplacer("%", "%25", ".", "%2E", "$", "%24")

func encodeTexts(_ bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
	texts := v.Interface().(map[string]string)
	if texts == nil {
		return w.WriteNull()
	}
	d, err := w.WriteDocument()
	if err != nil {
		return err
	}
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		field, err := d.WriteDocumentElement(fieldNames.Replace(name))
		if err != nil {
			return err
		}
		if err := field.WriteString(texts[name]); err != nil {
			return err
		}
	}
	return d.WriteDocumentEnd()
}

func decodeTexts(_ bson.DecodeContext, r bson.ValueReader, v reflect.Value) error {
	if r.Type() == bson.TypeNull {
		v.SetZero()
		return r.ReadNull()
	}
	d, err := r.ReadDocument()
	if err != nil {
		return err
	}
	texts := map[string]string{}
	for {
		field, value, err := d.ReadElement()
		if errors.Is(err, bson.ErrEOD) {
			v.Set(reflect.ValueOf(texts))
			return nil
		}
		if err != nil {
			return err
		}
		name, err := url.PathUnescape(field)
		if err != nil {
			return err
		}
		if texts[name], err = value.ReadString(); err != nil {
			return err
		}
	}
}

func encodeBlob(c bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
	b := v.Interface().(faena.Blob)
	e, err := c.LookupEncoder(reflect.TypeFor[blobDocument]())
	if err != nil {
		return err
	}
	return e.EncodeValue(c, w, reflect.ValueOf(blobDocument{Size: b.Size, Object: b.Object, Truncated: b.Truncated, Dropped: b.Dropped}))
}

func decodeBlob(c bson.DecodeContext, r bson.ValueReader, v reflect.Value) error {
	var b blobDocument
	d, err := c.LookupDecoder(reflect.TypeFor[blobDocument]())
	if err != nil {
		return err
	}
	if err := d.DecodeValue(c, r, reflect.ValueOf(&b).Elem()); err != nil {
		return err
	}
	v.Set(reflect.ValueOf(faena.Blob{Size: b.Size, Object: b.Object, Truncated: b.Truncated, Dropped: b.Dropped}))
	return nil
}
