package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLockState(t *testing.T) {
	dir := t.TempDir()
	first, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !alive(first.path) || !filepath.IsAbs(first.path) {
		t.Errorf("the owner of %s counts as dead", first.path)
	}
	if _, err := lockState(dir); err == nil || !strings.Contains(err.Error(), "another worker uses "+dir) {
		t.Errorf("a second owner: %v", err)
	}
	first.unlock()
	if alive(first.path) {
		t.Error("who has let go counts as alive")
	}
	second, err := lockState(dir)
	if err != nil {
		t.Fatalf("the next owner: %v", err)
	}
	second.unlock()
	if err := os.Remove(first.path); err != nil {
		t.Fatal(err)
	}
	if alive(first.path) {
		t.Error("who has no file counts as alive")
	}
	if !alive(dir) {
		t.Error("where it cannot be told, the owner counts as dead")
	}
	if _, err := lockState(filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory that is absent was locked")
	}
}
