package httpapi

import (
	"encoding/base64"
	"fmt"
	"strconv"

	"faena.dev/faena/internal/faena"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// pageSize is how many items a page has.
func pageSize(limit *PageLimit) (int, error) {
	if limit == nil {
		return defaultPage, nil
	}
	if *limit < 1 || *limit > maxPage {
		return 0, faena.Invalid(faena.FieldError{Field: "limit", Message: fmt.Sprintf("is %d, must be from 1 to %d", *limit, maxPage)})
	}
	return *limit, nil
}

// cursor makes the opaque form of the key that a page ended with.
func cursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte("1" + key)) }

// cursorKey is the key that a cursor stands for; "" for none.
func cursorKey(c PageCursor, valid func(key string) bool) (string, error) {
	if c == "" {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(c)
	if err != nil || len(b) < 2 || b[0] != '1' || !valid(string(b[1:])) {
		return "", malformed("The cursor is none that a page of this list has given.")
	}
	return string(b[1:]), nil
}

// pageOf reads the page of a list that a call asks for by its limit and cursor, and makes the cursor for what is left. read is given
// the key that the page before ended with, "" for the first, and how many to read: one more than the page has.
func pageOf[T any](limit *PageLimit, from PageCursor, valid func(key string) bool, key func(T) string,
	read func(after string, n int) ([]T, error)) (items []T, next string, err error) {
	size, err := pageSize(limit)
	if err != nil {
		return nil, "", err
	}
	after, err := cursorKey(from, valid)
	if err != nil {
		return nil, "", err
	}
	items, err = read(after, size+1)
	if err != nil || len(items) <= size {
		return items, "", err
	}
	return items[:size], cursor(key(items[size-1])), nil
}

func validNumber(key string) bool {
	n, err := strconv.Atoi(key)
	return err == nil && n > 0
}

// each turns a list of the domain's things into the contract's; never nil, so that it is [] in JSON.
func each[T, U any](items []T, convert func(T) U) []U {
	out := make([]U, len(items))
	for i, item := range items {
		out[i] = convert(item)
	}
	return out
}
