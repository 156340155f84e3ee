package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"faena.dev/faena/internal/faena"
)

const (
	// maxComplaints bounds how many fields an error names, and maxEcho how much of what came it repeats of each.
	maxComplaints = 20
	maxEcho       = 64
)

// decode reads a JSON body strictly into v, a pointer to a struct. What is no JSON in UTF-8, goes on after its value, or
// gives a field twice is KindMalformed; a field that is unknown (names are compared to the letter), null, or of another
// type is KindInvalid. A body that is empty leaves v as it is where it may be.
func (a *API) decode(w http.ResponseWriter, r *http.Request, v any, mayBeEmpty bool) error {
	b := a.buffers.get()
	defer a.buffers.put(b)
	if err := readBody(w, r, b, maxJSONBytes, "body"); err != nil {
		return err
	}
	text := b.Bytes()
	if len(bytes.TrimSpace(text)) == 0 {
		if mayBeEmpty {
			return nil
		}
		return malformed("The body is missing: the call needs a JSON object.")
	}
	if !utf8.Valid(text) {
		return malformed("The body is not JSON: it is not UTF-8.")
	}
	err := json.Unmarshal(text, v)
	wrongType, typed := errors.AsType[*json.UnmarshalTypeError](err)
	if err != nil && !typed {
		return malformed("The body is not JSON: " + err.Error() + ".")
	}
	c := checker{d: json.NewDecoder(bytes.NewReader(text))}
	c.d.UseNumber()
	if err := c.value(reflect.TypeOf(v).Elem(), ""); err != nil {
		return err
	}
	if typed && len(c.bad) == 0 { // a number that is too large for a float
		c.complain(wrongType.Field, "is a JSON "+clip(wrongType.Value)+", must be "+article(wrongType.Type.Kind().String()))
	}
	if len(c.bad) > 0 {
		return faena.Invalid(c.bad...)
	}
	return nil
}

// checker finds in a text that is JSON what package encoding/json lets through.
type checker struct {
	d   *json.Decoder
	bad []faena.FieldError
}

func (c *checker) complain(field, message string) {
	if field == "" {
		field = "body"
	}
	if len(c.bad) < maxComplaints {
		c.bad = append(c.bad, faena.FieldError{Field: field, Message: message})
	}
}

// value reads a value that is decoded into a t; nil is a value of a field that is not known. Its depth is bounded by
// package encoding/json, which has read it before.
func (c *checker) value(t reflect.Type, path string) error {
	token, err := c.d.Token()
	if err != nil {
		return fmt.Errorf("read JSON a second time: %w", err)
	}
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t != nil && token != nil && !fits(t, token) {
		c.complain(path, "is "+describe(token)+", must be "+article(t.Kind().String()))
		t = nil
	}
	switch token {
	case nil:
		if t != nil {
			c.complain(path, "is null, must have a value or be left out")
		}
	case json.Delim('{'):
		return c.object(t, path)
	case json.Delim('['):
		return c.list(t, path)
	}
	return nil
}

func (c *checker) object(t reflect.Type, path string) error {
	seen := make(map[string]bool)
	for c.d.More() {
		token, err := c.d.Token()
		if err != nil {
			return fmt.Errorf("read JSON a second time: %w", err)
		}
		name, _ := token.(string) // a key is nothing else
		field := clip(name)
		if path != "" {
			field = path + "." + field
		}
		if seen[name] {
			return malformed("The body gives "+field+" twice.", faena.FieldError{Field: field, Message: "is given twice"})
		}
		seen[name] = true
		inner, known := member(t, name)
		if !known {
			c.complain(field, "is no field that this call knows")
		}
		if err := c.value(inner, field); err != nil {
			return err
		}
	}
	_, err := c.d.Token() // the end
	return err
}

func (c *checker) list(t reflect.Type, path string) error {
	var inner reflect.Type
	if t != nil && t.Kind() == reflect.Slice {
		inner = t.Elem()
	}
	for i := 0; c.d.More(); i++ {
		if err := c.value(inner, fmt.Sprintf("%s[%d]", path, i)); err != nil {
			return err
		}
	}
	_, err := c.d.Token() // the end
	return err
}

// member is the type of an object's member; nil where nothing is known of it. known is false for a name that a struct
// has not.
func member(t reflect.Type, name string) (inner reflect.Type, known bool) {
	switch {
	case t == nil:
	case t.Kind() == reflect.Map:
		return t.Elem(), true
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			if tag, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); tag == name {
				return t.Field(i).Type, true
			}
		}
		return nil, false
	}
	return nil, true
}

// fits reports whether a value that begins with token can be decoded into a t.
func fits(t reflect.Type, token json.Token) (ok bool) {
	switch t.Kind() {
	case reflect.String:
		_, ok = token.(string)
	case reflect.Bool:
		_, ok = token.(bool)
	case reflect.Int, reflect.Int64:
		n, number := token.(json.Number)
		_, err := strconv.ParseInt(n.String(), 10, t.Bits())
		ok = number && err == nil
	case reflect.Float64:
		_, ok = token.(json.Number)
	case reflect.Slice:
		ok = token == json.Delim('[')
	case reflect.Map, reflect.Struct:
		ok = token == json.Delim('{')
	}
	return ok
}

// describe says what a value is that begins with token, without the value: it may be a secret in the wrong place.
func describe(token json.Token) string {
	switch token.(type) {
	case json.Number:
		return "a number"
	case bool:
		return "a boolean"
	case string:
		return "a text"
	}
	if token == json.Delim('[') {
		return "a list"
	}
	return "an object"
}

// article is a Go kind in a caller's words.
func article(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"):
		return "an integer"
	case strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "slice":
		return "a list"
	case kind == "map", kind == "struct":
		return "an object"
	case kind == "bool":
		return "true or false"
	}
	return "a text"
}

// clip bounds what is repeated of a caller's text.
func clip(s string) string {
	if len(s) <= maxEcho {
		return s
	}
	return strings.ToValidUTF8(s[:maxEcho], "") + "…"
}
