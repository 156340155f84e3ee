package auth

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"faena.dev/faena/internal/faena"
)

// cheapHash is a hash that costs next to nothing: the parameters stand in each hash.
func cheapHash(password string) string {
	salt := []byte("salt of the tests")
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=8,t=1,p=1$%s$%s", argon2.Version, b64.EncodeToString(salt),
		b64.EncodeToString(argon2.IDKey([]byte(password), salt, 1, 8, 1, 32)))
}

func TestLocal_Hash(t *testing.T) {
	t.Parallel()
	l := newLocal(t, nil)
	for _, password := range []string{"12345678", strings.Repeat("x", 128), "päßwörd日本!\"#$%&'()*+,-./;<=>?@[\\]^_`{|}~"} {
		phc, err := l.Hash(t.Context(), password)
		if err != nil {
			t.Errorf("%q: %v", password, err)
			continue
		}
		if !strings.HasPrefix(phc, "$argon2id$v=19$m=32768,t=2,p=1$") || strings.Contains(phc, password) {
			t.Errorf("the hash of %q is %s", password, phc)
		}
		if ok, err := matches(password, phc); err != nil || !ok {
			t.Errorf("%q does not have its hash: %v, %v", password, ok, err)
		}
		if ok, err := matches(password+"x", phc); err != nil || ok {
			t.Errorf("another password than %q has its hash: %v, %v", password, ok, err)
		}
	}
	one, err := l.Hash(t.Context(), "12345678")
	if err != nil {
		t.Fatal(err)
	}
	if two, err := l.Hash(t.Context(), "12345678"); err != nil || one == two {
		t.Errorf("two users with one password have one hash, %s, %v", two, err)
	}
}

// What a Basic header or a gateway could not carry is refused when it is chosen, and no hash is computed for it.
func TestLocal_HashRefuses(t *testing.T) {
	t.Parallel()
	l := newLocal(t, nil)
	l.turn <- struct{}{} // a hash would wait for its turn
	for name, password := range map[string]string{
		"Empty": "", "SevenBytes": "1234567", "129Bytes": strings.Repeat("x", 129), "AColon": "pass:word", "ASpace": "pass word",
		"ATab": "pass\tword", "ANewline": "password\n", "ANoBreakSpace": "pass\u00a0word", "NUL": "pass\x00word", "DEL": "pass\x7fword",
		"AC1Control": "pass\u0085word", "NoUTF8": "pass\xffword", "64RunesIn129Bytes": strings.Repeat("é", 64) + "x",
	} {
		phc, err := l.Hash(t.Context(), password)
		if !faena.IsKind(err, faena.KindInvalid) || phc != "" {
			t.Errorf("%s: the hash is %q, the error %v", name, phc, err)
			continue
		}
		if text := err.Error(); !strings.Contains(text, "password: must be 8 to 128 bytes") || password != "" && strings.Contains(text, password) {
			t.Errorf("%s: the error is %q", name, text)
		}
	}
}

// A hash in the document store that this build did not write lets nobody in, takes little memory, and is an error that
// an operator sees.
func TestMatches_HashOfSomebodyElse(t *testing.T) {
	t.Parallel()
	const password = "a password"
	right := cheapHash(password)
	if ok, err := matches(password, right); err != nil || !ok {
		t.Fatalf("the hash itself: %v, %v", ok, err)
	}
	parts := strings.Split(right, "$")
	with := func(i int, s string) string {
		p := append([]string(nil), parts...)
		p[i] = s
		return strings.Join(p, "$")
	}
	short := func(n int) string { return base64.RawStdEncoding.EncodeToString(make([]byte, n)) }
	for name, phc := range map[string]string{
		"Empty": "", "Plain": password, "Bcrypt": "$2y$10$abcdefghijklmnopqrstuv", "Argon2i": with(1, "argon2i"), "Argon2d": with(1, "argon2d"),
		"AnOlderVersion": with(2, "v=16"), "NoVersion": with(2, ""), "BeginsWithSomething": "x" + right, "OnePartMore": right + "$", "OnePartLess": strings.Join(parts[:5], "$"),
		"NoParameters": with(3, ""), "NoTime": with(3, "m=8,p=1"), "TimeZero": with(3, "m=8,t=0,p=1"), "ALongTime": with(3, "m=8,t=17,p=1"),
		"NoMemory": with(3, "m=0,t=1,p=1"), "MuchMemory": with(3, "m=262145,t=1,p=1"), "NoThreads": with(3, "m=8,t=1,p=0"),
		"ManyThreads": with(3, "m=8,t=1,p=17"), "ANegative": with(3, "m=-8,t=1,p=1"), "MoreThanANumber": with(3, "m=99999999999999999999,t=1,p=1"),
		"NoSalt": with(4, ""), "AShortSalt": with(4, short(7)), "ALongSalt": with(4, short(65)), "ASaltThatIsNone": with(4, "*"),
		"NoKey": with(5, ""), "AShortKey": with(5, short(15)), "ALongKey": with(5, short(65)), "AKeyThatIsNone": with(5, "*"),
	} {
		ok, err := matches(password, phc)
		if ok || err == nil {
			t.Errorf("%s: %v, %v", name, ok, err)
			continue
		}
		if len(phc) > 20 && strings.Contains(err.Error(), phc) {
			t.Errorf("%s: the error tells the hash: %v", name, err)
		}
	}
	if ok, err := matches(password, with(5, short(32))); err != nil || ok {
		t.Errorf("a hash of something else: %v, %v", ok, err)
	}
}
