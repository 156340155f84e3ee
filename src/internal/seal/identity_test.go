package seal

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/age"
)

func TestParseIdentity(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	key := id.x.String()
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	const none = "there is no age identity in it, or more than one"
	for name, c := range map[string]struct{ text, want string }{
		"TheKeyAlone":       {key, ""},
		"AsAgeKeygenWrites": {"# created: 2026-01-02T03:04:05Z\n# public key: " + id.Recipient() + "\n" + key + "\n", ""},
		"EmptyLines":        {"\n\n" + key + "\n\n", ""},
		"Empty":             {"", none},
		"CommentsOnly":      {"# public key: " + id.Recipient() + "\n", none},
		"ThePublicKey":      {id.Recipient() + "\n", none},
		"CutOff":            {key[:40] + "\n", none},
		"InLowerCase":       {strings.ToLower(key[:16]) + key[16:], none},
		"Two":               {key + "\n" + newIdentity(t).x.String() + "\n", none},
		"AnotherKind":       {hybrid.String() + "\n", "it is no X25519 identity"},
	} {
		got, err := ParseIdentity([]byte(c.text))
		switch {
		case c.want == "" && (err != nil || got.Recipient() != id.Recipient()):
			t.Errorf("%s: it is %v, %v", name, got, err)
		case c.want != "" && (err == nil || err.Error() != c.want || got.x != nil):
			t.Errorf("%s: it is %v, %v; want %q", name, got, err, c.want)
		}
	}
}

// load reads or makes the identity in a file.
func load(t *testing.T, path string) Identity {
	t.Helper()
	id, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLoadOrCreate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "seal.key")
	first := load(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode(); mode != 0o600 {
		t.Errorf("the file has mode %v", mode)
	}
	again := load(t, path)
	if again.Recipient() != first.Recipient() {
		t.Error("the second start has another key: what was sealed is lost")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# public key: "+first.Recipient()+"\n") {
		t.Error("the file does not say its public key")
	}
	ciphertext := sealed(t, newSealer(t, newIdentity(t)), first, []byte("secret"))
	if got, err := NewOpener(again).Open(ciphertext); err != nil || string(got) != "secret" {
		t.Errorf("after a restart it is %q, %v", got, err)
	}
	onlyKey(t, dir)
}

// onlyKey checks that nothing but the key is left in its directory.
func onlyKey(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Name() != "seal.key" {
		t.Errorf("in the directory there are %v", entries)
	}
}

// A key is never replaced: what was sealed to it could not be opened any more.
func TestLoadOrCreate_NeverReplaces(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"Empty": "", "CutOff": newIdentity(t).x.String()[:50], "SomethingElse": "not a key\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "seal.key")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			id, err := LoadOrCreate(path)
			if err == nil || id.x != nil || !strings.Contains(err.Error(), path) {
				t.Errorf("it is %v, %v", id, err)
			}
			if err != nil && len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
				t.Errorf("the error tells the key: %v", err)
			}
			if left, err := os.ReadFile(path); err != nil || string(left) != text {
				t.Errorf("the file is now %q, %v", left, err)
			}
		})
	}
	t.Run("ManyAtOnceHaveOne", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		keys := make([]string, 16)
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() {
				id, err := LoadOrCreate(filepath.Join(dir, "seal.key"))
				if err != nil {
					t.Error(err)
					return
				}
				keys[i] = id.Recipient()
			})
		}
		wg.Wait()
		if len(slices.Compact(keys)) != 1 {
			t.Errorf("they have different keys: %v", keys)
		}
		onlyKey(t, dir)
	})
}

// What an earlier start that was killed, or somebody else, left behind neither becomes the key nor opens it to others.
func TestLoadOrCreate_Leftovers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "seal.key")
	if err := os.WriteFile(path+".new", []byte("half a k"), 0o644); err != nil {
		t.Fatal(err)
	}
	id := load(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key is %v, %v", info, err)
	}
	if load(t, path).Recipient() != id.Recipient() {
		t.Error("the second start has another key")
	}
}

func TestLoadOrCreate_BadPath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, path := range map[string]string{"ADirectory": dir, "NoDirectory": filepath.Join(dir, "absent", "seal.key")} {
		id, err := LoadOrCreate(path)
		if err == nil || id.x != nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "sealing key") {
			t.Errorf("%s: it is %v, %v", name, id, err)
		}
	}
}
